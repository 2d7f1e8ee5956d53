"""M-steps: maximise the expected complete log likelihood, one component at a time.

Given responsibilities r, sum_i r_i [log p(i | x) + log p(y | x, i)] separates into the gate and each expert. A softmax
gate's part is a soft-label logistic regression, which is concave; an expert's is its own log likelihood with weights r.
A component that has a closed form says so with a method ``m_step(params, x or data, r)``; the others are maximised
numerically, and so is everything inside bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import constraints

from bayes_moe import gaussian, parameters
from bayes_moe.data import Observations
from bayes_moe.moe import MoE
from bayes_moe.parameters import Params
from mle.objective import Objective, maximise

COLLAPSED = 1e-12  # share of the data's variance below which a component's variance is rounding error
GATE = -1  # the gate's place in the list of components; experts count from 0


def _expected(component: int, free: Array, moe: MoE, data: Observations, r: Array) -> Array:
    """Part of the expected complete log likelihood that one component owns; r (experts, n), weights included."""
    if component == GATE:
        params = parameters.unflatten(moe.gate.fields, free)
        return jnp.sum(r * moe.log_weights(params, data.x))
    expert = moe.experts[component]
    params = parameters.unflatten(expert.fields, free)
    return jnp.sum(r[moe.places[component]] * expert.log_density(params, data))


@cache
def _derivatives(component: int) -> tuple[Callable, Callable]:
    """Value with gradient, and Hessian, of a component's part: one pair for ever, so that each compiles once."""
    part = partial(_expected, component)
    return jax.value_and_grad(part), jax.hessian(part)


def closed(moe: MoE) -> bool:
    """Whether every trainable component has a closed-form M-step."""
    return all(hasattr(component, "m_step") for component in (moe.gate, *moe.experts) if component.fields)


class Collapse(ArithmeticError):
    """A component shrinks onto too few observations, where the likelihood has no maximum."""


def maximise_closed(objective: Objective, free: np.ndarray, r: Array) -> np.ndarray:
    """M-step in closed form, then the floors of the objective, if it has any.

    Raises
    ------
    Collapse
        If a variance vanishes: below ``COLLAPSED`` of the data's, and no floor holds it.
    """
    new, smallest = _closed(jnp.asarray(free), objective.moe, objective.data, r, dict(objective.floors))
    for name, shares in smallest.items():
        if not (np.asarray(shares) > COLLAPSED).all():
            which = int(np.argmin(np.nan_to_num(np.asarray(shares), nan=-1.0)))
            raise Collapse(f"expert {which} has collapsed: its {name} vanishes; use fewer experts or floors={{...}}")
    return np.asarray(new)


@jax.jit
def _closed(
    free: Array, moe: MoE, data: Observations, r: Array, floors: dict[str, float]
) -> tuple[Array, dict[str, Array]]:
    params = parameters.unflatten(moe.fields, free)
    found = moe.gate.m_step(params, data.x, r)
    for place, expert in zip(moe.places, moe.experts, strict=True):
        found |= expert.m_step(params, data, r[place])
    found = raise_to_floors(moe, found, floors)
    smallest = {"Gamma": _smallest(found["Gamma"], data.x), "nu": _smallest(found["nu"], data.y)}
    return parameters.flatten(moe.fields, found), smallest


def raise_to_floors(moe: MoE, params: Params, floors: Mapping[str, float]) -> Params:
    """Raise every variance, or eigenvalue of a covariance, that lies below its floor."""
    out = dict(params)
    for name, floor in floors.items():
        if moe.fields[name].support is constraints.positive_definite:
            values, vectors = jnp.linalg.eigh(out[name])
            raised = (vectors * jnp.maximum(values, floor)[:, None]) @ jnp.swapaxes(vectors, 1, 2)
            low = (values < floor).any(axis=1)[:, None, None]
            out[name] = jnp.where(low, (raised + jnp.swapaxes(raised, 1, 2)) / 2, out[name])
        else:
            out[name] = jnp.maximum(out[name], floor)
    return out


def _smallest(covariance: Array, rows: Array) -> Array:
    """Smallest variance of each component in any direction, as a share of the data's there, (k,)."""
    white = gaussian.factor(jnp.atleast_2d(jnp.cov(rows))[None], len(rows))[0]
    return jnp.linalg.eigvalsh(white @ gaussian.as_matrices(covariance, len(rows)) @ white[0].T)[:, 0]


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
    """M-step: closed forms where all have one; else the gate by Newton steps, each expert by BFGS, from where they are.

    Inside bounds, by L-BFGS-B.

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
    if closed(objective.moe) and objective.bounds is None:
        return maximise_closed(objective, free, r)
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
