"""Maximum likelihood: ``newton.fit``, then ``infinity.search``, against EM with BFGS in each M-step.

Both climb from the same starts. BFGS leaps now and then to where tanh is a step, eta in the thousands, and the
likelihood may be highest there, at infinity; steps of a trust region don't leap, so ours then looks there on purpose.
"""

from __future__ import annotations

from time import perf_counter

import numpy as np
from threadpoolctl import threadpool_limits

from comparisons.peers import ours, scipy_em
from comparisons.peers.clock import CompileClock
from comparisons.peers.problem import Problem
from mle import infinity, newton
from mle.optimise.fit import Fit

SAME = 1e-8  # share of the log likelihood within which two optima are the same
STEPS = 2000  # EM steps for each start, as in em.fit


def race(*problems: Problem, starts: int, seed: int) -> dict[str, np.ndarray]:
    """Fit each data set both ways, in turn; EM has one BLAS thread, as ours has.

    Returns
    -------
    dict of str to ndarray
        For each data set: seconds and log likelihood of both, the largest coordinate of EM's best climb, whether every
        start of EM converged, and whether ours says that its maximum is one. ``compile``: seconds of ours before the
        first.
    """
    with CompileClock() as clock:
        _ours(problems[0], _starts(problems[0], starts, seed), seed)
    rows = [_both(problem, _starts(problem, starts, seed + i), seed + i) for i, problem in enumerate(problems)]
    return {**{name: np.array([row[name] for row in rows]) for name in rows[0]}, "compile": np.array(clock.compile)}


def _starts(problem: Problem, count: int, seed: int) -> np.ndarray:
    classes, d = problem.eta0.shape
    return np.random.default_rng(seed).normal(size=(count, 1 + d + (classes - 1) * d))


def _ours(problem: Problem, starts: np.ndarray, seed: int) -> Fit:
    d, moe = problem.x.shape[1], ours.moe(problem)
    init = [{"tau": s[0], "beta": s[1 : 1 + d], "eta": s[1 + d :].reshape(-1, d)} for s in starts]
    fit = newton.fit(moe, problem.x, problem.y, init=init)
    return infinity.search(moe, fit, problem.x, problem.y, random_state=seed)


def _both(problem: Problem, starts: np.ndarray, seed: int) -> dict[str, object]:
    began = perf_counter()
    fit = _ours(problem, starts, seed)
    middle = perf_counter()
    with threadpool_limits(1, user_api="blas"), np.errstate(all="ignore"):
        climbs = [scipy_em.fit(problem, start, max_iter=STEPS, tol=SAME) for start in starts]
    best = max(climbs, key=lambda climb: climb.history[-1])
    return {
        "ours_seconds": middle - began,
        "em_seconds": perf_counter() - middle,
        "ours_value": fit.log_likelihood,
        "em_value": best.history[-1],
        "em_largest": np.abs(best.free).max(),
        "em_converged": all(climb.converged for climb in climbs),
        "ours_maximum": fit.status == "maximum",
    }
