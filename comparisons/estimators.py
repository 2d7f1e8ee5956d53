"""Both estimators behind one contract: draws with a leading axis, and a record of how the fit went.

A maximum-likelihood estimate is one draw, so ``vmap(loss)(draws, truth)`` is estimation error or posterior contraction
by the same line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import xarray as xr
from jax import Array
from numpyro.distributions import constraints
from scipy.stats import chi2

from bayes_moe import MoE, diagnostics, nuts, parameters
from bayes_moe.data import float64
from bayes_moe.datatree import flat_draws
from bayes_moe.modes import generator
from bayes_moe.varying import VaryingCoefficient
from comparisons import knobs, labels
from mle import newton, profile, uncertainty

Draws = dict[str, np.ndarray]
LEVEL = 0.95  # nominal coverage of every interval
STRAYED = 0.05  # quantile of the likelihood ratio below which a climb from near the truth may have strayed


class Problem(NamedTuple):
    """What an estimator is given. Only the published protocol, starts near the truth, looks at the truth."""

    moe: MoE | VaryingCoefficient
    x: np.ndarray | tuple[np.ndarray, ...]
    y: np.ndarray
    truth: dict[str, np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """What an estimator returns.

    Parameters
    ----------
    draws : dict of str to ndarray
        Parameter arrays with a leading axis of draws.
    status : str
        "ok", or what went wrong.
    info : dict
        Plain numbers and strings about the fit.
    intervals : dict of str to ndarray, optional
        With a trailing axis (low, high), at 95%; None where there are none.
    profile : dict of str to ndarray, optional
        Profile-likelihood intervals, likewise.
    """

    draws: Draws
    status: str
    info: dict[str, object]
    intervals: dict[str, np.ndarray] | None = None
    profile: dict[str, np.ndarray] | None = None


Estimator = Callable[[Problem, Array, Mapping[str, object]], Estimate]


@knobs.known(["n_init", "bound"], ["profile"], near=["spread"])
def mle(problem: Problem, rng_key: Array, settings: Mapping[str, object], *, near: bool = False) -> Estimate:
    """Maximum likelihood by Newton steps inside a box of half-width ``bound``.

    The box is that of unconstrained parameters; others have their supports. Starts are random, scaled by the data, as a
    practitioner's are; or the truth plus normal noise of size ``spread``,
    as in published simulations. On the same data the two differ by optimisation error alone. Where a climb from near
    the truth ends at a bound, or gains less on the truth's own likelihood than all but 5% of MLEs do by Wilks' theorem,
    it may have strayed: then another, from the truth, competes with it. Parameters named in ``profile`` get
    profile-likelihood intervals besides Wald's.
    """
    moe, x, y, truth = problem
    rng = generator(rng_key)
    starts = {"n_init": settings["n_init"], "random_state": rng}
    if near:
        starts = {"init": [_moved(moe, truth, settings["spread"], rng) for _ in range(settings["n_init"])]}
    bounds = _box(moe, settings["bound"])
    fit = newton.fit(moe, x, y, bounds=bounds, tol=1e-7, **starts)
    reached = float(np.sum(moe.log_density(truth, x, y)))
    usual = chi2.ppf(STRAYED, parameters.size(moe.fields)) / 2
    if near and (fit.certificate.at_bounds or fit.log_likelihood < reached + usual):
        fit = newton.fit(moe, x, y, bounds=bounds, tol=1e-7, init=[*starts["init"], truth])
    info = {
        "log_likelihood": fit.log_likelihood,
        "likelihood_ratio": 2 * (fit.log_likelihood - reached),
        "replicated": fit.certificate.replicated,
        "at_bounds": len(fit.certificate.at_bounds),
        "certificate": fit.status,
    }
    status = "ok" if fit.certificate.stationary else "not stationary"
    draws = {name: value[None] for name, value in fit.params.items()}
    if fit.standard_errors is None:
        return Estimate(draws, status, info)
    wanted = list(settings.get("profile", ()))
    profiles = profile.intervals(moe, fit, x, y, names=wanted, level=LEVEL) if wanted else None
    return Estimate(draws, status, info, uncertainty.wald(fit, LEVEL), profiles)


def _box(moe: MoE, bound: float) -> dict[str, tuple[float, float]]:
    """Bounds of what is free; a parameter with a support, positive or a simplex, has its own."""
    return {name: (-bound, bound) for name, field in moe.fields.items() if field.support is constraints.real}


def _moved(moe: MoE, truth: Mapping[str, np.ndarray], spread: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Truth plus normal noise; of a parameter with a support, on the unconstrained scale."""
    return {name: _moved_one(moe.fields[name], value, spread, rng) for name, value in truth.items()}


def _moved_one(field: parameters.Field, value: np.ndarray, spread: float, rng: np.random.Generator) -> np.ndarray:
    if field.support is constraints.real:
        return value + spread * rng.normal(size=value.shape)
    one = {"value": field}
    free = np.asarray(parameters.flatten(one, {"value": value}))
    return np.asarray(parameters.unflatten(one, free + spread * rng.normal(size=free.shape))["value"])


ATTEMPTS = 3  # rungs of the ladder; a study may set fewer
LADDER = ("num_warmup", "num_samples")  # settings that it climbs
GIVEN = (*LADDER, "rng_key", "prior", "init", "progress_bar", "log_likelihood", "posterior_predictive")
SAMPLER = ("attempts", *knobs.keywords(nuts.sample, GIVEN))  # what else a study may set


@knobs.known(LADDER, SAMPLER)
def posterior(problem: Problem, rng_key: Array, settings: Mapping[str, object]) -> Estimate:
    """NUTS, judged by the sampling gate; what fails climbs the ladder, what still fails is marked, not dropped."""
    moe, x, y, _ = problem
    idata, verdicts = ladder(partial(nuts.sample, moe, x, y, progress_bar=False), diagnostics.check, rng_key, settings)
    draws = labels.settled(moe, flat_draws(idata["posterior"], moe))
    status = "ok" if verdicts[-1].passed else "failed_gate"
    return Estimate(draws, status, account(verdicts), credible(draws))


def ladder(
    sample: Callable[..., xr.DataTree],
    judge: Callable[[xr.DataTree], diagnostics.Verdict],
    rng_key: Array,
    settings: Mapping[str, object],
) -> tuple[xr.DataTree, list[diagnostics.Verdict]]:
    """Sample and judge, rung by rung, until the gate is passed or the attempts are used up.

    Parameters
    ----------
    sample : callable
        From ``rng_key`` and the settings of a rung to draws.
    judge : callable
    rng_key : JAX key
    settings : mapping
        Of the first rung, and ``attempts``.
    """
    verdicts: list[diagnostics.Verdict] = []
    rest = {name: value for name, value in settings.items() if name != "attempts"}
    for attempt in range(settings.get("attempts", ATTEMPTS)):
        rung = climb(rest, attempt, verdicts[-1] if verdicts else None)
        idata = sample(rng_key=jax.random.fold_in(rng_key, attempt), **rung)
        verdicts.append(judge(idata))
        if verdicts[-1].passed:
            break
    return idata, verdicts


def account(verdicts: Sequence[diagnostics.Verdict]) -> dict[str, object]:
    """What the ladder found, as plain numbers."""
    last = verdicts[-1]
    return {
        "attempt": len(verdicts) - 1,
        "verdicts": [str(verdict) for verdict in verdicts],
        "divergences": last.divergences,
        "max_rhat": last.max_rhat,
        "min_ess": min(last.min_ess_bulk, last.min_ess_tail),
    }


def credible(draws: Draws) -> dict[str, np.ndarray]:
    """Equal-tailed intervals of each coordinate."""
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    return {name: np.moveaxis(np.quantile(values, tails, axis=0), 0, -1) for name, values in draws.items()}


def climb(settings: Mapping[str, object], attempt: int, last: diagnostics.Verdict | None) -> dict[str, object]:
    """Settings of an attempt.

    (0) As given; (1) twice the draws, and where the geometry was at fault (divergences, low E-BFMI) smaller steps and
    twice the warm-up; (2) four times both, steps smaller still, dense mass matrix. The target acceptance rises to
    0.95 or half of the way to 1, then to 0.99 or nine tenths of the way, whichever is higher.
    """
    warmup, draws = settings["num_warmup"], settings["num_samples"]
    rejected = 1 - settings.get("target_accept_prob", 0.8)
    if attempt == 0:
        return dict(settings)
    if attempt == ATTEMPTS - 1:
        steps = {"num_warmup": 4 * warmup, "target_accept_prob": max(0.99, round(1 - rejected / 10, 6))}
        return {**settings, **steps, "num_samples": 4 * draws, "dense_mass": True}
    geometry = last.divergences > 0 or last.min_ebfmi < diagnostics.MIN_EBFMI
    steps = {"num_warmup": 2 * warmup, "target_accept_prob": max(0.95, round(1 - rejected / 2, 6))}
    return {**settings, **(steps if geometry else {}), "num_samples": 2 * draws}


ESTIMATORS: dict[str, Estimator] = {"mle": mle, "mle-near": partial(mle, near=True), "nuts": posterior}


@float64
def mean(draws: Draws) -> dict[str, np.ndarray]:
    """Posterior mean of each parameter; the estimate itself for one draw."""
    return {name: values.mean(axis=0) for name, values in draws.items()}
