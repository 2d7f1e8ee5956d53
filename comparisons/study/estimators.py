"""The built-in estimators, for any mixture: maximum likelihood by Newton steps, and NUTS."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from jax import Array
from numpyro.distributions import constraints
from scipy.stats import chi2

from bayes_moe import MoE, nuts
from bayes_moe.draws import diagnostics
from bayes_moe.ground import parameters
from bayes_moe.nuts.datatree import flat_draws
from bayes_moe.nuts.modes import generator
from comparisons.study import knobs, labels
from comparisons.study.contract import LADDER, LEVEL, Estimate, Estimator, Problem, account, credible, ladder
from mle import newton, profile
from mle.optimise import uncertainty

STRAYED = 0.05  # quantile of the likelihood ratio below which a climb from near the truth may have strayed


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


ESTIMATORS: dict[str, Estimator] = {"mle": mle, "mle-near": partial(mle, near=True), "nuts": posterior}
