"""bayes-moe itself, called as anyone would."""

from __future__ import annotations

import numpy as np

from bayes_moe import MoE, contaminated, diagnostics, nuts
from comparisons.peers.clock import CompileClock
from comparisons.peers.problem import CHAINS, Draws, Problem, Sampled
from mle import newton


def moe(problem: Problem) -> MoE:
    """Return the problem's model."""
    return contaminated(problem.eta0, frozen_activation=problem.frozen_activation, activation="tanh")


def posterior(problem: Problem, draws: int, seed: int) -> tuple[Draws, bool]:
    """Draws with the library's own defaults, and whether they pass its sampling gate."""
    idata = nuts.sample(
        moe(problem),
        problem.x,
        problem.y,
        rng_key=seed,
        num_samples=draws,
        num_chains=CHAINS,
        progress_bar=False,
    )
    out = {name: np.asarray(idata["posterior"][name].values) for name in ("tau", "beta", "eta")}
    return out, diagnostics.check(idata).passed


def sample(problem: Problem, *, draws: int, seed: int) -> Sampled:
    """Sample, the time of the sampling gate included."""
    with CompileClock() as clock:
        out, passed = posterior(problem, draws, seed)
    return Sampled(out, clock.compile, clock.run, passed)


def many(*problems: Problem, draws: int, seed: int) -> Sampled:
    """Fit each data set by maximum likelihood and by NUTS; draws gain a leading axis."""
    fits = []
    with CompileClock() as clock:
        for problem in problems:
            newton.fit(moe(problem), problem.x, problem.y, random_state=seed)
            fits.append(posterior(problem, draws, seed))
    out = {name: np.stack([fit[0][name] for fit in fits]) for name in ("tau", "beta", "eta")}
    return Sampled(out, clock.compile, clock.run, all(fit[1] for fit in fits))
