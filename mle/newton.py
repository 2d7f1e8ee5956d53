"""Direct maximisation of the log likelihood, with exact first and second derivatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from bayes_moe.data import float64
from bayes_moe.moe import MoE
from mle import starts as starting
from mle.certify import finish
from mle.fit import Fit, Start
from mle.objective import Bounds, Objective, box, maximise


@float64
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
        The compact parameter space of the theory, by parameter name; steps then come from L-BFGS-B.
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

    References
    ----------
    Conn, Gould and Toint (2000), "Trust Region Methods", section 7.3.

    Examples
    --------
    >>> fit = newton.fit(moe, x, y, n_init=8, random_state=0)
    >>> print(fit)
    """
    objective = Objective(moe, jax.tree.map(jnp.asarray, moe.observe(x, y, weights)), box(moe, bounds))
    starts = starting.draw(objective, n_init, random_state, init)
    return finish(objective, starting.run_all(lambda free: climb(objective, free, max_iter, tol), starts), "newton")


def climb(objective: Objective, free: np.ndarray, max_iter: int, tol: float) -> Start:
    """Maximise from one start."""
    history = [objective.value(free)]
    result = maximise(
        objective.value_and_grad,
        free,
        objective.total,
        hessian=objective.hessian,
        bounds=objective.bounds,
        max_iter=max_iter,
        gtol=tol,
        callback=history.append,
    )
    return Start(
        result.x,
        float(result.fun),
        bool(result.success),
        int(result.nit),
        str(result.message),
        tuple(history),
    )
