"""Both estimators on the blood cells: number of groups, kernel estimate with bands and test, posterior, memberships.

The published types are looked at afterwards. How many groups is judged by held-out log scores; curves are of two, which
was settled before.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr
from jax import Array
from tqdm import tqdm

from bayes_moe import curves, varying_coefficient
from bayes_moe.curves import credible
from bayes_moe.curves import draws as curve_draws
from bayes_moe.draws import diagnostics
from bayes_moe.ground.compilation import jitted
from bayes_moe.ground.data import float64
from bayes_moe.ground.parameters import Params
from bayes_moe.varying.bands import Bands
from bayes_moe.varying.indexed import IndexedObservations
from bayes_moe.varying.model import VaryingCoefficient
from comparisons.curves.blood import Question
from comparisons.study.contract import ladder
from mle.kernel import bands, bandwidth, glrt, kernel_em
from mle.kernel import plan as curve_plan
from mle.kernel.fit import CurveFit

GROUPS = 2
TRIED = (1, 2, 3)  # numbers of groups whose held-out log scores are compared
CANDIDATES = (0.3, 0.45, 0.6, 0.9)  # bandwidths
UNDERSMOOTH = 0.85
STARTS = 24  # six ended 5 nats lower, in another division of the cells
FOLDS = 5
LOOSE = {"max_iter": 200, "tol": 1e-4}  # of fits that are only scored
SLOPES = "alpha[:,1]"
LEVEL = 0.95
REPLICATES = 100
# Of log k: beyond Poisson noise, counts of cells of a group vary by 18% to 126% (95%), 47% in the middle. The default,
# made for the log sd of a normal, has 100% in the middle.
PRIOR = {"delta_mean": dist.Normal(1.5, 1.0)}
NUTS = {"num_warmup": 400, "num_samples": 600, "num_chains": 4, "target_accept_prob": 0.9, "attempts": 2}
QUICK = {"num_warmup": 300, "num_samples": 200, "num_chains": 2, "target_accept_prob": 0.9, "attempts": 1}
QUICK_REPLICATES = 20
SHOWN = {"progress_bar": sys.stderr.isatty()}
BATCH = 50  # draws evaluated side by side


@dataclass(frozen=True, eq=False)
class Result:
    """What both estimators say of the cells.

    Parameters
    ----------
    question : Question
    selections : dict of int to Selection
        Bandwidths tried, by number of groups.
    held_out : dict of int to ndarray, shape (n,)
        Held-out log density of each cell at the best bandwidth, by number of groups, all with the same folds.
    bands : dict of str to Bands
        "kernel, asymptotic", "kernel, bootstrap" and "posterior", simultaneous, on one grid.
    test : glrt.Result or glrt.Unsound
        Of constant slopes, or why the fit can't be tested.
    verdict : diagnostics.Verdict
        The sampling gate's, on quantities without labels.
    memberships : dict of str to ndarray, shape (n,)
        Probability of each cell, its FTL known, to belong to the last group, by "kernel" and by "posterior".
    pooled : ndarray, shape (G,)
        Slope of one group for all cells.
    """

    question: Question
    selections: dict[int, bandwidth.Selection]
    held_out: dict[int, np.ndarray]
    bands: dict[str, Bands]
    test: glrt.Result | glrt.Unsound
    verdict: diagnostics.Verdict
    memberships: dict[str, np.ndarray]
    pooled: np.ndarray

    @property
    def fit(self) -> CurveFit:
        """The kernel estimate that its bands are around."""
        return self.bands["kernel, bootstrap"].fit


def run(question: Question, *, quick: bool = False, seed: int = 0) -> Result:
    """Fit both estimators.

    Parameters
    ----------
    question : Question
    quick : bool
        Few replicates and draws, two bandwidths.
    seed : int
    """
    replicates, widths = (QUICK_REPLICATES, CANDIDATES[-2:]) if quick else (REPLICATES, CANDIDATES)
    numbers = tqdm(TRIED, desc="cells, numbers of groups", disable=None)
    rng = np.random.default_rng(seed)
    fold = rng.permutation(np.arange(len(question.y)) % FOLDS)
    scored = {k: score(question, k, fold, seed, widths) for k in numbers}
    selections = {k: found for k, (found, _) in scored.items()}
    best, narrow = kernel(question, GROUPS, selections[GROUPS], seed)
    tree, verdict = posterior(question, seed, QUICK if quick else NUTS)
    resampled = bands.bootstrap(narrow, random_state=rng, replicates=replicates, level=LEVEL)
    paper = bands.asymptotic(narrow, level=LEVEL, sandwich="local")
    drawn = {"kernel, asymptotic": paper, "kernel, bootstrap": resampled}
    drawn["posterior"] = credible.bands(narrow.model, tree, level=LEVEL)
    return Result(
        question,
        selections,
        {k: each for k, (_, each) in scored.items()},
        drawn,
        constant_slopes(best, replicates, rng),
        verdict,
        memberships(narrow, tree),
        kernel(question, 1, selections[1], seed)[1].params["alpha"][:, 0, 1],
    )


def model_of(groups: int) -> VaryingCoefficient:
    """Negative binomial experts on log S100A4, a gate on log totals."""
    return varying_coefficient("negative-binomial", groups)


def _inputs(question: Question) -> dict[str, object]:
    return {"size": question.size, "u_range": (0.0, 1.0)}


@float64
def score(
    question: Question, groups: int, fold: np.ndarray, seed: int, candidates: tuple[float, ...] = CANDIDATES
) -> tuple[bandwidth.Selection, np.ndarray]:
    """Choose a bandwidth, and return the held-out log density (n,) of the cells at it, in increasing order of u.

    Parameters
    ----------
    question : Question
    groups : int
    fold : ndarray of int, shape (n,)
    seed : int
    candidates : tuple of float
    """
    model, inputs = model_of(groups), _inputs(question)
    starts = {"random_state": seed, "n_init": STARTS}
    found = bandwidth.select(model, *question.data, **inputs, candidates=candidates, undersmooth=UNDERSMOOTH, **starts)
    data = model.observe(*question.data, **inputs)
    plan = curve_plan.make_plan(model, data, found.best, whole=True, **LOOSE)
    theta, _ = kernel_em.first_guess(plan, data, STARTS, np.random.default_rng(seed))
    return found, bandwidth.held_out(plan, data, theta, fold)


def kernel(question: Question, groups: int, selection: bandwidth.Selection, seed: int) -> tuple[CurveFit, CurveFit]:
    """Kernel estimates at the best bandwidth, for the test, and below it, for bands."""
    fit = partial(kernel_em.fit, model_of(groups), *question.data, **_inputs(question))
    best = fit(h=selection.best, n_init=STARTS, random_state=seed)
    return best, fit(h=selection.h, init=best.params)


def constant_slopes(fit: CurveFit, replicates: int, rng: np.random.Generator) -> glrt.Result | glrt.Unsound:
    """Test whether slopes are constant, or say why the fit can't be tested."""
    try:
        return glrt.test(fit, constant=[SLOPES], replicates=replicates, random_state=rng)
    except glrt.Unsound as reason:
        return reason


def posterior(question: Question, seed: int, settings: dict[str, object]) -> tuple[xr.DataTree, diagnostics.Verdict]:
    """Draw curves, once more with more draws and smaller steps where the gate fails."""
    model = model_of(GROUPS)
    sample = partial(curves.sample, model, *question.data, **_inputs(question), prior=PRIOR, **SHOWN)

    def judge(tree: xr.DataTree) -> diagnostics.Verdict:
        return diagnostics.check(tree, curve_draws.invariants(model, tree))

    tree, verdicts = ladder(sample, judge, jax.random.key(seed), settings)
    return tree, verdicts[-1]


@float64
def memberships(fit: CurveFit, tree: xr.DataTree) -> dict[str, np.ndarray]:
    """Probability (n,) of the last group for each cell, its response known: at the estimate, and mean over draws."""
    u, back = np.asarray(fit.data.u), np.argsort(np.asarray(fit.data.order))
    found = {"kernel": {name: rows[None] for name, rows in fit.at(u).items()}}
    found["posterior"] = curve_draws.at(fit.model, tree, u)
    return {name: last_group(fit.model, fit.data, draws).mean(axis=0)[back] for name, draws in found.items()}


def last_group(model: VaryingCoefficient, data: IndexedObservations, draws: Params) -> np.ndarray:
    """Probability (draws, n) of the last group in each draw of the coefficients at each observation's own u."""
    return np.asarray(jitted(_last_group)(model, data, draws))


def _last_group(model: VaryingCoefficient, data: IndexedObservations, draws: Params) -> Array:
    def one(values: Params) -> Array:
        joint = model.log_joint({name: jnp.moveaxis(rows, 0, -1) for name, rows in values.items()}, data)
        return jax.nn.softmax(joint, axis=0)[-1]

    return jax.lax.map(one, draws, batch_size=BATCH)
