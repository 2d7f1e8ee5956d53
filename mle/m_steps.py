"""M-steps: maximise the expected complete log likelihood, one component at a time.

Given responsibilities r, sum_i r_i [log p(i | x) + log p(y | x, i)] separates into the gate and each expert. The gate's
part is a soft-label logistic regression, which is concave; an expert's is its own log likelihood with weights r.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bayes_moe import parameters
from bayes_moe.data import Observations
from bayes_moe.moe import MoE
from mle.objective import Objective, maximise

GATE = -1  # the gate's place in the list of components; experts count from 0


def _expected(component: int, free: Array, moe: MoE, data: Observations, r: Array) -> Array:
    """Part of the expected complete log likelihood that one component owns; r (experts, n), weights included."""
    if component == GATE:
        params = parameters.unflatten(moe.gate.fields, free)
        return jnp.sum(r * moe.log_weights(params, data.x))
    expert = moe.experts[component]
    params = parameters.unflatten(expert.fields, free)
    return jnp.sum(r[component] * expert.log_density(params, data)[0])


@cache
def _derivatives(component: int) -> tuple[Callable, Callable]:
    """Value with gradient, and Hessian, of a component's part: one pair for ever, so that each compiles once."""
    part = partial(_expected, component)
    return jax.value_and_grad(part), jax.hessian(part)


def components(moe: MoE) -> list[tuple[int, slice]]:
    """Each trainable component and its place in the free vector."""
    where = parameters.blocks(moe.fields)
    owners = [(GATE, moe.gate.fields), *((i, expert.fields) for i, expert in enumerate(moe.experts))]
    return [
        (component, slice(min(where[f].start for f in fields), max(where[f].stop for f in fields)))
        for component, fields in owners
        if fields
    ]


def maximise_expected(objective: Objective, free: np.ndarray, r: Array, *, max_iter: int = 200) -> np.ndarray:
    """M-step: the gate by Newton steps, each expert by BFGS, from where they are (L-BFGS-B inside bounds).

    A component is moved only if that raises its part, so that EM never lowers the likelihood.

    Parameters
    ----------
    objective : Objective
    free : ndarray, shape (P,)
    r : array, shape (experts, n)
        Responsibilities, times the observations' weights.

    Returns
    -------
    ndarray, shape (P,)
    """
    out = free.copy()
    for component, where in components(objective.moe):
        value_and_grad, hessian = (_on_numpy(function, objective, r) for function in _derivatives(component))
        bounds = None if objective.bounds is None else objective.bounds[where]
        concave = {"hessian": hessian} if component == GATE else {}
        result = maximise(value_and_grad, free[where], objective.total, **concave, bounds=bounds, max_iter=max_iter)
        if result.fun > value_and_grad(free[where])[0]:
            out[where] = result.x
    return out


def _on_numpy(function: Callable, objective: Objective, r: Array) -> Callable[[np.ndarray], object]:
    return lambda free: jax.tree.map(np.asarray, objective.call(function, free, r))
