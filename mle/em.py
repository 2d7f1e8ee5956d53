"""The one EM loop: responsibilities, then the M-step, until nothing is left to gain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jax import Array

from bayes_moe.ground.compilation import memory_named
from bayes_moe.ground.data import check_count, check_tolerance, float64
from bayes_moe.model.moe import MoE
from mle.optimise import starts as starting
from mle.optimise.certify import finish
from mle.optimise.fit import Fit, Start
from mle.optimise.objective import Objective
from mle.optimise.problem import Bounds, pose
from mle.optimise.steps import closed, e_step, maximise_expected

ROUNDING = 1e-12  # share of the log likelihood by which it may seem to fall at its maximum
MStep = Callable[[Objective, np.ndarray, Array], np.ndarray]


@float64
@memory_named()
def fit(
    moe: MoE,
    x: object,
    y: object,
    *,
    n_init: int = 8,
    random_state: int | np.random.Generator | None = None,
    init: str | Mapping[str, object] | Sequence[Mapping[str, object]] | None = None,
    bounds: Bounds | None = None,
    floors: Mapping[str, float] | None = None,
    max_iter: int = 2000,
    tol: float = 1e-6,
    weights: object | None = None,
    m_step: MStep = maximise_expected,
) -> Fit:
    """Maximise the log likelihood by EM from many starts.

    Parameters
    ----------
    moe : MoE
    x : array-like, shape (n, d)
    y : array-like, shape (n,)
    n_init : int
        Random starts; all are kept in ``Fit.starts``.
    random_state : int or Generator
        Needed unless ``init`` is given.
    init : mapping, sequence of mappings, or str, optional
        Parameter values to start from instead; or, for a Gaussian gate, a kind of random start: see
        :func:`mle.optimise.responsibilities.draw`.
    bounds : mapping of str to (low, high), optional
        The compact parameter space of the theory, by parameter name.
    floors : mapping of str to float, optional
        Least values of variances (for a covariance matrix, of its eigenvalues), by parameter name, as in
        ``{"nu": 1e-6}``. None by default; those that act are named in the fit's certificate. Not beside ``bounds``.
    max_iter : int
        EM steps for each start.
    tol : float
        A start has converged when the log likelihood still to be gained, by Aitken's extrapolation, is below this.
    weights : array-like, shape (n,), optional
        How often each observation counts.
    m_step : callable
        From (objective, free vector, responsibilities) to a free vector.

    Returns
    -------
    Fit

    Raises
    ------
    ValueError
        For bad data or arguments, or if no start reaches a finite log likelihood.
    MemoryError
        If the device runs out of memory.

    Notes
    -----
    Where M-steps have closed forms starts climb side by side, one for each core, and memory grows with their number;
    the environment variable BAYES_MOE_CORES limits both.

    EM crawls where there are more experts than needed; :func:`mle.newton.fit` with ``init=fit.params`` ends the
    climb in a few steps.

    References
    ----------
    Dempster, Laird and Rubin (1977); Jordan and Jacobs (1994); Böhning et al. (1994) for the stopping rule.

    Examples
    --------
    >>> fit = em.fit(moe, x, y, n_init=8, random_state=0)
    >>> print(fit)
    """
    if floors and bounds is not None:
        raise ValueError("floors can't be combined with bounds: only closed-form M-steps know them. Give one of them.")
    check_count("max_iter", max_iter, 0)
    check_tolerance("tol", tol)
    objective = pose(moe, x, y, weights, bounds=bounds, floors=floors)
    starting.check_apart(moe, init)
    starts = starting.draw(objective, n_init, random_state, init)
    workers = None if closed(moe) else 1
    climbed = starting.run_all(lambda free: climb(objective, free, max_iter, tol, m_step), starts, workers=workers)
    return finish(objective, climbed, "em")


class State(NamedTuple):
    """A free vector, its log likelihood and its responsibilities."""

    free: np.ndarray
    value: float
    r: Array


def step(objective: Objective, state: State, m_step: MStep) -> State:
    """One EM step."""
    free = m_step(objective, state.free, state.r)
    return State(free, *e_step(objective, free))


def climb(objective: Objective, free: np.ndarray, max_iter: int, tol: float, m_step: MStep) -> Start:
    """EM from one start."""
    state = State(free, *e_step(objective, free))
    history = [state.value]
    for _ in range(max_iter):
        state = step(objective, state, m_step)
        history.append(state.value)
        if remaining_gain(history) < tol:
            break
    converged = remaining_gain(history) < tol
    message = "converged" if converged else f"no convergence after {max_iter} EM steps"
    return Start(state.free, state.value, converged, len(history) - 1, message, tuple(history))


def remaining_gain(history: Sequence[float]) -> float:
    """Log likelihood still to be gained, by Aitken's extrapolation of the last three values."""
    if len(history) < 3:
        return np.inf
    before, last = history[-2] - history[-3], history[-1] - history[-2]
    if last <= 0:
        return 0.0 if -last <= ROUNDING * abs(history[-1]) else np.inf
    ratio = last / before if before > 0 else np.inf
    return last * ratio / (1 - ratio) if ratio < 1 else np.inf
