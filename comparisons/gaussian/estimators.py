"""Estimators of over-fitted mixtures: EM from published or data-driven starts, to one step or to the end, and NUTS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr
from jax import Array

from bayes_moe import nuts
from bayes_moe.draws import diagnostics, relabel
from bayes_moe.draws.invariants import invariants
from bayes_moe.ground import parameters
from bayes_moe.ground.data import float64
from bayes_moe.ground.parameters import Params
from bayes_moe.model.units import Units
from bayes_moe.nuts.datatree import flat_draws
from bayes_moe.nuts.modes import generator
from comparisons.study import knobs
from comparisons.study.contract import LADDER, Draws, Estimate, Estimator, Problem, account, credible, ladder
from comparisons.study.estimators import SAMPLER
from mle import em, newton
from mle.optimise import starts
from mle.optimise.fit import Start
from mle.optimise.objective import Objective
from mle.optimise.scaled import Scaled
from mle.optimise.steps import maximise_expected

ATOM_SD = 0.005  # of the published starts' noise on c, a and b, times n^-.083
VARIANCE_SD = 0.0005  # of that on Gamma and nu, times n^-.25
SCORE = 1e-8  # of an observation, on average, at a maximum
EM = ("n_init", "max_iter", "tol")
OURS = (*EM, "newton", "thin", "prior_sd")  # settings of posteriors that are not NUTS's own
PROBES = 5  # observations at which the log density of each draw is looked at


def published_start(truth: Params, experts: int, n: int, rng: np.random.Generator) -> Params:
    """Start of the published simulations: the truth, some atoms split at random, and a little noise.

    The atoms are a random surjection onto the true ones, whose weights their copies share evenly. Then c, a and b move
    by N(0, (.005 n^-.083)^2), and nu and the diagonal of Gamma by the absolute value of N(0, (.0005 n^-.25)^2).

    Parameters
    ----------
    truth : dict of str to array
    experts : int
        At least as many as the truth has.
    n : int
    rng : Generator

    References
    ----------
    The public code of arXiv:2305.07572.
    """
    count = len(truth["pi"])
    copied = rng.permutation(np.concatenate([np.arange(count), rng.integers(count, size=experts - count)]))
    out = {name: value[copied] for name, value in truth.items()}
    out["pi"] = out["pi"] / np.bincount(copied)[copied]
    for name in ("c", "a", "b"):
        out[name] = out[name] + ATOM_SD * n**-0.083 * rng.normal(size=out[name].shape)
    features = out["Gamma"].shape[-1]
    sd = VARIANCE_SD * n**-0.25
    out["Gamma"] = out["Gamma"] + np.eye(features) * np.abs(sd * rng.normal(size=(experts, features, 1)))
    out["nu"] = out["nu"] + np.abs(sd * rng.normal(size=experts))
    return out


@knobs.known(EM, ["newton"])
def mle(problem: Problem, rng_key: Array, settings: Mapping[str, object], *, near: bool = False) -> Estimate:
    """EM from ``n_init`` data-driven starts, or published ones; at most ``max_iter`` steps, each to ``tol``.

    With ``max_iter`` one, the estimate of the published code, which stopped there; its status is "ok" then. With too
    many experts EM crawls for thousands of steps and stops short: with ``newton``, so many steps of the trust region
    follow from where each climb ended, to a point where the score vanishes.
    """
    moe, x, y, truth = problem
    climbed = climb_all(problem, generator(rng_key), settings, near)
    best = climbed[0]
    found = parameters.unflatten(moe.fields, jnp.asarray(best.free))
    info = {
        "log_likelihood": best.log_likelihood,
        "iterations": best.n_iter,
        "certificate": best.message,
        "least_observations": float(len(x) * found["pi"].min()),
    }
    status = "ok" if best.converged or settings["max_iter"] == 1 else "not converged"
    return Estimate({name: np.asarray(value)[None] for name, value in found.items()}, status, info)


@float64
def climb_all(
    problem: Problem, rng: np.random.Generator, settings: Mapping[str, object], near: bool = False
) -> tuple[Start, ...]:
    """EM from every start, best first; without certificates, which an over-fitted optimum can't have."""
    moe, x, y, truth = problem
    objective = Objective(moe, jax.tree.map(jnp.asarray, moe.observe(x, y)))
    init = None
    if near:
        experts = moe.gate.experts
        init = [published_start(truth, experts, len(x), rng) for _ in range(settings["n_init"])]
    drawn = starts.draw(objective, settings["n_init"], rng, init)
    scaled = Scaled(objective)

    def climb(free: np.ndarray) -> Start:
        start = em.climb(objective, free, settings["max_iter"], settings["tol"], maximise_expected)
        steps = settings.get("newton", 0)
        if not steps:
            return start
        end = newton.climb(scaled, start.free, steps, SCORE)
        return replace(end, n_iter=start.n_iter + end.n_iter, history=start.history + end.history)

    return starts.run_all(climb, drawn)


@knobs.known([*EM, "thin", "prior_sd", *LADDER], ["newton", *SAMPLER])
def posterior(problem: Problem, rng_key: Array, settings: Mapping[str, object]) -> Estimate:
    """NUTS from EM modes, judged by the gate on label-invariant quantities; draws are relabelled (ECR).

    The data are standardised, as the default priors expect, and the draws carried back to the data's own units. In
    standard units c, a and b have normal priors with standard deviation ``prior_sd``; other settings are those of
    :func:`climb_all`, of :func:`bayes_moe.nuts.sample`, and ``thin`` of :func:`bayes_moe.draws.relabel.relabel`.
    """
    units, moe = Units.of(problem.x, problem.y), problem.moe
    x, y = units.standard(problem.x, problem.y)
    prior = {name: dist.Normal(0.0, settings["prior_sd"]) for name in ("c", "a", "b")}
    modes = em_modes(problem._replace(x=x, y=y), rng_key, settings)
    idata, verdicts = ladder(
        partial(nuts.sample, moe, x, y, prior=prior, init=modes, progress_bar=False),
        lambda tree: diagnostics.check(tree, invariants(moe, tree, x[:PROBES], y[:PROBES])),
        rng_key,
        {name: value for name, value in settings.items() if name not in OURS},
    )
    named = relabel.relabel(moe, idata, x, y, thin=settings["thin"])
    draws = units.original(flat_draws(named["relabelled"], moe))
    status = "ok" if verdicts[-1].passed else "failed_gate"
    info = account(verdicts) | {"em_modes": len(modes)} | _filled(idata)
    return Estimate(draws, status, info, _intervals(problem, draws))


def _filled(idata: xr.DataTree) -> dict[str, float]:
    """Posterior of the number of filled experts."""
    shares = relabel.number_of_experts(idata).mean("chain")
    return {f"filled_{count}": float(shares.sel(experts=count)) for count in shares["experts"].values}


@float64
def em_modes(problem: Problem, rng_key: Array, settings: Mapping[str, object]) -> list[Params]:
    """Maxima that EM reaches, best first, each once, their experts in the order of the best one's."""
    moe, x, y, _ = problem
    climbed = [start for start in climb_all(problem, generator(rng_key), settings) if np.isfinite(start.log_likelihood)]
    found = [parameters.unflatten(moe.fields, jnp.asarray(start.free)) for start in climbed]
    values = [jax.tree.map(np.asarray, params) for params in found]
    shares = [moe.responsibilities(params, x, y) for params in values]
    out: list[Params] = []
    for index, (start, params, share) in enumerate(zip(climbed, values, shares, strict=True)):
        if all(abs(start.log_likelihood - other.log_likelihood) > SAME for other in climbed[:index]):
            order = relabel.match(shares[0].T @ share)
            out.append({name: value[order] for name, value in params.items()})
    return out


SAME = 0.1  # of log likelihood: EM starts that end nearer than this are taken for one mode


def _intervals(problem: Problem, draws: Draws) -> Draws | None:
    """Intervals of each parameter where the truth has as many experts: over-fitted, no atom has a true value."""
    same = problem.moe.gate.experts == len(problem.truth["pi"])
    return credible(draws) if same else None


ESTIMATORS: dict[str, Estimator] = {
    "em": mle,
    "em-near": partial(mle, near=True),
    "em-one-step": partial(mle, near=True),
    "nuts": posterior,
}
