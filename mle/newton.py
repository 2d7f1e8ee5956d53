"""Direct maximisation of the log likelihood, with exact first and second derivatives."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import optimize

from bayes_moe.ground.compilation import memory_named
from bayes_moe.ground.data import check_count, check_tolerance, float64
from bayes_moe.model.moe import MoE
from mle.optimise import starts as starting
from mle.optimise.certify import finish
from mle.optimise.fit import Fit, Start
from mle.optimise.objective import Objective, maximise
from mle.optimise.problem import Bounds, pose
from mle.optimise.scaled import Scaled

THIN = 20_000  # observations on which starts are improved, where there are five times as many
FLAT = 1e-7  # share of the largest curvature below which a maximum inside bounds is not trusted to be one
ROUNDING = 1e-12  # share of the log likelihood below which a gain can't be seen
THIN_STEPS, THIN_TOL = 50, 1e-5


@float64
@memory_named()
def fit(
    moe: MoE,
    x: object,
    y: object,
    *,
    n_init: int = 8,
    random_state: int | np.random.Generator | None = None,
    init: Mapping[str, object] | Sequence[Mapping[str, object]] | None = None,
    bounds: Bounds | None = None,
    max_iter: int = 500,
    tol: float = 1e-8,
    weights: object | None = None,
) -> Fit:
    """Maximise the log likelihood by an exact trust region from many starts.

    With 100,000 observations or more, each start first climbs on 20,000 of them, evenly spaced.

    Parameters
    ----------
    moe : MoE
    x : array-like, shape (n, d)
    y : array-like, shape (n,)
    n_init : int
        Random starts; all are kept in ``Fit.starts``.
    random_state : int or Generator
        Needed unless ``init`` is given.
    init : mapping or sequence of mappings, optional
        Parameter values to start from instead.
    bounds : mapping of str to (low, high), optional
        The compact parameter space of the theory, by parameter name. A climb that leaves it begins again by L-BFGS-B
        inside it.
    max_iter : int
        For each start.
    tol : float
        A start has converged when its mean score (gradient of the log likelihood over n) is below this.
    weights : array-like, shape (n,), optional
        How often each observation counts.

    Returns
    -------
    Fit

    Raises
    ------
    ValueError
        For bad data or arguments, or if no start reaches a finite log likelihood.
    MemoryError
        If the device runs out of memory.

    References
    ----------
    Conn, Gould and Toint (2000), "Trust Region Methods", section 7.3.

    Examples
    --------
    >>> fit = newton.fit(moe, x, y, n_init=8, random_state=0)
    >>> print(fit)
    """
    check_count("max_iter", max_iter, 0)
    check_tolerance("tol", tol)
    objective = pose(moe, x, y, weights, bounds=bounds)
    starts = starting.draw(objective, n_init, random_state, init)
    scaled = Scaled(objective)
    thin = Scaled(objective.thinned(THIN)) if objective.data.n >= 5 * THIN else None

    def go(free: np.ndarray) -> Start:
        return climb(scaled, free if thin is None else _nearer(objective, thin, free, tol), max_iter, tol)

    return finish(objective, starting.run_all(go, starts), "newton")


def climb(scaled: Scaled, free: np.ndarray, max_iter: int, tol: float) -> Start:
    """Maximise from one start.

    Parameters
    ----------
    scaled : Scaled
    free : ndarray
        Free vector, in its own units.
    max_iter, tol : int, float
        As in :func:`fit`.
    """
    history = [scaled.objective.value_and_grad(free)[0]]
    result = _inside(scaled, free, max_iter, tol, history)
    at_rounding = result is not None and not result.success and _nothing_to_gain(scaled, result.x)
    if result is None:
        scaled = scaled.separate()

        def look(point: np.ndarray, value: float) -> None:
            scaled.check(point)
            history.append(value)

        result = maximise(
            scaled.value_and_grad,
            np.clip(scaled.map.standard(free), *scaled.bounds.T),
            scaled.total,
            bounds=scaled.bounds,
            max_iter=max_iter,
            gtol=tol,
            callback=look,
        )
    return Start(
        scaled.map.free(result.x),
        float(result.fun),
        bool(result.success) or at_rounding,
        int(result.nit),
        "converged to rounding error" if at_rounding else str(result.message),
        tuple(history),
        curvature=None if "hess" not in result else scaled.map.unscaled(result.hess * scaled.total),
    )


def _inside(
    scaled: Scaled, free: np.ndarray, max_iter: int, tol: float, history: list[float]
) -> optimize.OptimizeResult | None:
    """Climb by the trust region; None where bounds matter: a step leaves them, or a direction is flat up to them."""
    bounds = scaled.objective.bounds
    left = False

    def look(point: np.ndarray, value: float) -> None:
        nonlocal left
        if bounds is not None:
            here = scaled.map.free(point)
            left = bool(((here < bounds[:, 0]) | (here > bounds[:, 1])).any())
        if left:
            raise StopIteration
        scaled.check(point)
        history.append(value)

    result = maximise(
        scaled.value_and_grad,
        scaled.map.standard(free),
        scaled.total,
        hessian=scaled.hessian,
        max_iter=max_iter,
        gtol=tol,
        callback=look,
    )
    return None if left or (bounds is not None and _flat(result.hess)) else result


def _nothing_to_gain(scaled: Scaled, point: np.ndarray) -> bool:
    """Whether rounding hides what a Newton step would gain: the trust region then stops without success."""
    value, grad = scaled.value_and_grad(point)
    hessian = scaled.hessian(point)
    if not np.isfinite(hessian).all() or np.linalg.eigvalsh(hessian)[-1] >= 0:
        return False
    return bool(-grad @ np.linalg.solve(hessian, grad) / 2 <= ROUNDING * abs(value))


def _flat(hessian: np.ndarray) -> bool:
    values = np.abs(np.linalg.eigvalsh(hessian))
    return bool(values.min() < FLAT * values.max())


def _nearer(objective: Objective, thin: Scaled, free: np.ndarray, tol: float) -> np.ndarray:
    """Where a climb on thinned data ends, if that is higher than the start; the trust region then needs a few steps."""
    with contextlib.suppress(ValueError, ArithmeticError, np.linalg.LinAlgError):
        end = climb(thin, free, THIN_STEPS, max(tol, THIN_TOL)).free
        if objective.value(end) > objective.value(free):
            return end
    return free
