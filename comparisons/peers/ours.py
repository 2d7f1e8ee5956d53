"""bayes-moe itself, called as anyone would."""

from __future__ import annotations

from time import perf_counter

import numpy as np
import xarray as xr

from bayes_moe import MoE, contaminated, nuts
from bayes_moe.draws import diagnostics
from comparisons.peers.problem import CHAINS, Draws, Problem, Sampled
from mle import newton


def moe(problem: Problem) -> MoE:
    """Return the problem's model."""
    return contaminated(problem.eta0, frozen_activation=problem.frozen_activation, activation="tanh")


def posterior(problem: Problem, draws: int, seed: int) -> tuple[Draws, xr.DataTree]:
    """Draws with the library's own defaults, and all that it returns."""
    idata = nuts.sample(
        moe(problem),
        problem.x,
        problem.y,
        rng_key=seed,
        num_samples=draws,
        num_chains=CHAINS,
        progress_bar=False,
    )
    return {name: np.asarray(idata["posterior"][name].values) for name in ("tau", "beta", "eta")}, idata


def sample(problem: Problem, *, draws: int, seed: int) -> Sampled:
    """Sample twice: what the first call took longer was compiling.

    JAX's events would not tell: we compile in several threads at once. The sampling gate is outside the clock, as R-hat
    and effective sample size of the others are.
    """
    times = []
    for repeat in range(2):
        began = perf_counter()
        out, idata = posterior(problem, draws, seed + 1000 * repeat)
        times.append(perf_counter() - began)
    return Sampled(out, max(times[0] - times[1], 0.0), times[1], diagnostics.check(idata).passed)


def many(*problems: Problem, draws: int, seed: int) -> Sampled:
    """Fit each data set by maximum likelihood and by NUTS, compiling included; draws gain a leading axis."""
    fits = []
    began = perf_counter()
    for problem in problems:
        newton.fit(moe(problem), problem.x, problem.y, random_state=seed)
        fits.append(posterior(problem, draws, seed))
    took = perf_counter() - began
    out = {name: np.stack([draws[name] for draws, _ in fits]) for name in ("tau", "beta", "eta")}
    return Sampled(out, 0.0, took, all(diagnostics.check(idata).passed for _, idata in fits))
