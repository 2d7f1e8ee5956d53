"""Real input: petal length on sepal length in Anderson's irises, a regression whose relation changes with x.

Among short sepals petals are short whatever the sepal; among longer ones they grow with it; one line through all says
something else again. The causes are three species, two of them much alike, which nobody tells the models. The data come
with scikit-learn: 150 flowers, measured to a millimetre. Chosen because one covariate can be drawn and the hidden
groups be looked up afterwards; no other data set was tried.

With full covariances the Gaussian-gated mixture of affine experts is a Gaussian mixture in (x, y): the MLE and
scikit-learn's GaussianMixture differ by starts, and by how variances are kept from zero: a floor here, a ridge there.
What can differ is the choice of K, and a posterior in place of a point.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.datasets import load_iris
from sklearn.mixture import GaussianMixture
from tqdm import tqdm

from bayes_moe import gaussian_gated, nuts
from bayes_moe.draws import diagnostics, relabel
from bayes_moe.draws.invariants import invariants
from bayes_moe.model.units import Units
from comparisons.report.splits import mean
from comparisons.study.contract import LEVEL
from mle import criteria, em
from mle.optimise.fit import Fit

TEST, TRAINING, SPLITS = 50, 100, 40
EXPERTS = (1, 2, 3, 4)
LEAST = 1e-3  # variance, in standard units: the data are rounded to a millimetre
STARTS = 6
PROBES = 5  # flowers at which the log density of each draw is looked at
NUTS = {  # small steps, since larger ones diverge where a spare expert sits on a few flowers; sweeps do the rest
    "num_warmup": 1000,
    "num_samples": 1000,
    "num_chains": 4,
    "sweeps": 20,
    "max_tree_depth": 5,
    "target_accept_prob": 0.995,
    "progress_bar": False,
}
AGAIN = {"num_samples": 3000, "target_accept_prob": 0.998}  # what changes in a second attempt, where the gate fails
RATIO = TEST / TRAINING
ONE, AGAINST = "single regression", "GaussianMixture, BIC"


@dataclass(frozen=True, eq=False)
class Split:
    """One random division of the flowers, in units in which the training part is standard.

    Parameters
    ----------
    x, y, x_test, y_test : ndarray, shapes (n, 1), (n,), (m, 1) and (m,)
    units : Units
    """

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    units: Units


class Forecast(NamedTuple):
    """Log p(y | x) of the test flowers (m,), in units of the split, and a word on the fit."""

    log_scores: np.ndarray
    note: str = ""


Method = Callable[[Split, int], Forecast]


def flowers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sepal length (n, 1) and petal length (n,), in cm, and species (n,)."""
    iris = load_iris()
    return iris.data[:, [0]], iris.data[:, 2], iris.target


def split(seed: int) -> Split:
    """Draw a division of the flowers.

    Parameters
    ----------
    seed : int
    """
    x, y, _ = flowers()
    order = np.random.default_rng(seed).permutation(len(y))
    test, train = order[:TEST], order[TEST:]
    units = Units.of(x[train], y[train])
    return Split(*units.standard(x[train], y[train]), *units.standard(x[test], y[test]), units)


@functools.lru_cache(maxsize=2)
def fits(data: Split, seed: int) -> dict[int, Fit]:
    """EM to the end with each number of experts."""
    floors = {"Gamma": LEAST, "nu": LEAST}
    return {
        k: em.fit(gaussian_gated(k, 1), data.x, data.y, n_init=STARTS, random_state=seed, floors=floors)
        for k in EXPERTS
    }


def chosen(data: Split, seed: int, criterion: str) -> int:
    """Number of experts that a criterion chooses."""
    found = fits(data, seed)
    values = {k: criteria.criteria(gaussian_gated(k, 1), found[k], data.x, data.y) for k in found}
    return criteria.best(values)[criterion]


def single(data: Split, seed: int) -> Forecast:
    """Least squares, normal errors."""
    design = np.column_stack([data.x, np.ones(len(data.y))])
    line, squares, *_ = np.linalg.lstsq(design, data.y)
    sd = np.sqrt(squares[0] / (len(data.y) - 2))
    return Forecast(norm.logpdf(data.y_test, np.column_stack([data.x_test, np.ones(TEST)]) @ line, sd))


def scikit(data: Split, seed: int) -> Forecast:
    """Return the conditional of scikit-learn's mixture of (x, y), full covariances, K by its BIC."""
    rows, test = (np.column_stack(pair) for pair in ((data.x, data.y), (data.x_test, data.y_test)))
    settings = {"n_init": STARTS, "reg_covar": LEAST, "tol": 1e-6, "max_iter": 2000, "random_state": seed}
    fitted = min((GaussianMixture(k, **settings).fit(rows) for k in EXPERTS), key=lambda one: one.bic(rows))
    sds = np.sqrt(fitted.covariances_[:, 0, 0])
    of_x = logsumexp(norm.logpdf(data.x_test, fitted.means_[:, 0], sds), axis=1, b=fitted.weights_)
    return Forecast(fitted.score_samples(test) - of_x, str(fitted.n_components))


def maximum_likelihood(criterion: str) -> Method:
    """Plug-in density of the MLE, K by a criterion."""

    def forecast(data: Split, seed: int) -> Forecast:
        k = chosen(data, seed, criterion)
        params = fits(data, seed)[k].params
        return Forecast(gaussian_gated(k, 1).conditional_log_density(params, data.x_test, data.y_test), str(k))

    return forecast


def posterior(data: Split, seed: int) -> Forecast:
    """Posterior predictive density with as many experts as are looked at; a sparse prior empties what is spare.

    Draws that fail the sampling gate are made once more, with smaller steps.

    p(y | x, data) = mean over draws of p(x, y) / mean over draws of p(x), default priors.
    """
    k = max(EXPERTS)
    moe = gaussian_gated(k, 1)
    for settings in (NUTS, NUTS | AGAIN):
        idata = nuts.sample(moe, data.x, data.y, rng_key=seed, init=fits(data, seed)[k].params, **settings)
        verdict = diagnostics.check(idata, invariants(moe, idata, data.x[:PROBES], data.y[:PROBES]))
        if verdict.passed:
            break
    at = invariants(moe, idata, data.x_test, data.y_test)
    joint, conditional = (at[name].values.reshape(-1, TEST) for name in ("log_density", "log_conditional"))
    filled = relabel.number_of_experts(idata).mean("chain")
    note = f"{int(filled.idxmax())}{'' if verdict.passed else ', gate failed'}"
    return Forecast(logsumexp(joint, axis=0) - logsumexp(joint - conditional, axis=0), note)


METHODS: dict[str, Method] = {
    ONE: single,
    AGAINST: scikit,
    "MLE, BIC": maximum_likelihood("bic"),
    "MLE, ICL": maximum_likelihood("icl"),
    "posterior, up to 4": posterior,
}


@dataclass(frozen=True, eq=False)
class Result:
    """Forecasts of every method on every split.

    Parameters
    ----------
    splits : list of Split
    forecasts : dict of str to list of Forecast
        For each method, one a split.
    """

    splits: list[Split]
    forecasts: dict[str, list[Forecast]]

    def scores(self, method: str) -> np.ndarray:
        """Mean held-out log score of each split, in nats a flower, y in cm."""
        pairs = zip(self.forecasts[method], self.splits, strict=True)
        return np.array([forecast.log_scores.mean() - np.log(one.units.y_sd) for forecast, one in pairs])

    def gain(self, method: str, baseline: str) -> tuple[float, float]:
        """Mean and interval of what a method scores above another on the same splits."""
        return mean(self.scores(method) - self.scores(baseline), RATIO)


def run(count: int) -> Result:
    """Fit every method on ``count`` random splits."""
    splits = [split(seed) for seed in range(count)]
    forecasts: dict[str, list[Forecast]] = {name: [] for name in METHODS}
    for seed, data in enumerate(tqdm(splits, desc="irises", unit="split", disable=None)):
        for name, method in METHODS.items():
            forecasts[name].append(method(data, seed))
    return Result(splits, forecasts)


def table(result: Result) -> str:
    """Log scores, what they gain on two others, with intervals; and how many experts were chosen."""
    lines = [
        f"irises: petal length on sepal length, {len(result.splits)} splits, {TEST} of {len(flowers()[1])} flowers "
        f"held out; mean log score a flower [{LEVEL:.0%} interval that allows for shared flowers]",
        f"{'':<24}{'log score':<26}{'above ' + AGAINST:<28}{'above ' + ONE:<26}experts: splits",
    ]
    for method, forecasts in result.forecasts.items():
        above = ["" if method == other else _said(*result.gain(method, other)) for other in (AGAINST, ONE)]
        counts = sorted(Counter(one.note for one in forecasts if one.note).items())
        notes = "; ".join(f"{note}: {count}" for note, count in counts)
        line = f"{method:<24}{_said(*mean(result.scores(method), RATIO)):<26}{above[0]:<28}{above[1]:<26}{notes}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _said(value: float, half: float) -> str:
    return f"{value:+.3f} [{value - half:+.3f}, {value + half:+.3f}]" if np.isfinite(half) else f"{value:+.3f}"
