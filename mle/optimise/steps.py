"""The steps of EM: responsibilities, and what maximises the expected complete log likelihood, component by component.

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

from bayes_moe.ground import parameters
from bayes_moe.ground.data import Observations
from bayes_moe.ground.numerics import logsumexp
from bayes_moe.ground.parameters import Params
from bayes_moe.model import gaussian
from bayes_moe.model.moe import MoE
from mle.optimise.objective import Objective, maximise

COLLAPSED = 1e-12  # share of the data's variance below which a component's variance is rounding error
VARIANCES = {"Gamma": "x", "nu": "y"}  # and the data whose they are
GATE = -1  # the gate's place in the list of components; experts count from 0


def e_step(objective: Objective, free: np.ndarray) -> tuple[float, Array]:
    """Log likelihood, and responsibilities times weights, (experts, n)."""
    value, r = objective.call(_e_step, free)
    return float(value), r


def _e_step(free: Array, moe: MoE, data: Observations) -> tuple[Array, Array]:
    joint = moe.log_joint(parameters.unflatten(moe.fields, free), data)
    log_density = logsumexp(list(joint))
    weights = 1.0 if data.weights is None else data.weights
    return jnp.sum(weights * log_density), weights * jnp.exp(joint - log_density)


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
    _check_shares(smallest)
    return np.asarray(new)


def check_collapse(objective: Objective, free: np.ndarray) -> None:
    """Check that no variance has vanished, for climbs that know no floors.

    Raises
    ------
    Collapse
    """
    if VARIANCES.keys() & objective.moe.fields.keys():
        _check_shares(_shares_at(jnp.asarray(free), objective.moe, objective.data))


def _check_shares(smallest: Mapping[str, Array]) -> None:
    for name, shares in smallest.items():
        if not (np.asarray(shares) > COLLAPSED).all():
            which = int(np.argmin(np.nan_to_num(np.asarray(shares), nan=-1.0)))
            raise Collapse(
                f"expert {which} has collapsed: its {name} vanishes, and the likelihood has no bound there; use fewer "
                "experts, or em.fit with floors={...}"
            )


@jax.jit
def _closed(
    free: Array, moe: MoE, data: Observations, r: Array, floors: dict[str, float]
) -> tuple[Array, dict[str, Array]]:
    params = parameters.unflatten(moe.fields, free)
    found = moe.gate.m_step(params, data.x, r)
    for place, expert in zip(moe.places, moe.experts, strict=True):
        found |= expert.m_step(params, data, r[place])
    found = raise_to_floors(moe, found, floors)
    return parameters.flatten(moe.fields, found), _shares(found, data)


@jax.jit
def _shares_at(free: Array, moe: MoE, data: Observations) -> dict[str, Array]:
    return _shares(parameters.unflatten(moe.fields, free), data)


def _shares(params: Params, data: Observations) -> dict[str, Array]:
    """Smallest variance of each component in any direction, as a share of the data's there, (k,), by name."""
    weights = jnp.ones_like(data.x[:1]) if data.weights is None else data.weights[None]
    return {
        name: _smallest(params[name], getattr(data, rows), weights)
        for name, rows in VARIANCES.items()
        if name in params
    }


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


def _smallest(covariance: Array, rows: Array, weights: Array) -> Array:
    white = gaussian.factor(gaussian.weighted_moments(rows, weights)[2], len(rows))[0]
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

    Inside bounds, by L-BFGS-B. A vanishing variance raises :class:`Collapse`.

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
        found, gained = _maximise_part(objective, component, where, free[where], r, max_iter)
        if gained:
            out[where] = found
    check_collapse(objective, out)
    return out


def _maximise_part(
    objective: Objective, component: int, where: slice, free: np.ndarray, r: Array, max_iter: int
) -> tuple[np.ndarray, bool]:
    """Highest place of one component's part, found in standard coordinates, and whether it is higher."""
    value_and_grad, hessian = _derivatives(component)
    units = objective.coordinates.part(where)
    box = {}
    if objective.bounds is not None:
        units = units.separate()
        box = {"bounds": objective.bounds[where] * units.unit[:, None]}

    def here(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, grad = objective.call(value_and_grad, units.free(point), r)
        return float(value), units.gradient(np.asarray(grad))

    def curvature(point: np.ndarray) -> np.ndarray:
        return units.hessian(np.asarray(objective.call(hessian, units.free(point), r)))

    concave = {"hessian": curvature} if component == GATE else {}
    result = maximise(here, units.standard(free), objective.total, **concave, **box, max_iter=max_iter)
    return units.free(result.x), bool(result.fun > result.fun_at_start)
