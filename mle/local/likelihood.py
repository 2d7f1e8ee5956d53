"""The local log likelihood at one u, with its score and two informations; pure JAX.

Around u each coefficient is a line, theta_i = level + slope (U_i - u) / h, and what is maximised is

    l(level, slope) = sum_i w_i(u) log p(y_i | x_i, z_i; theta_i).

The log density sees the coefficients through a few linear predictors for each observation, so that its derivatives are
those in the predictors, times the design. Two informations: the observed, J, minus the second derivatives; and that of
the complete data, M (Fisher's where it is known), were the components known. M^-1 times the score is an EM step (Fisher
scoring in the M-step), J^-1 times the score is Newton's.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bayes_moe.varying.indexed import IndexedObservations
from bayes_moe.varying.model import VaryingCoefficient, as_params
from mle.local.windows import Windows

RIDGE = 2e-10  # share of the diagonal added before a solve: it changes the step, never the optimum


class Local(NamedTuple):
    """What one grid point sees.

    Parameters
    ----------
    data : IndexedObservations
        Its m observations.
    t, w : array, shape (m,)
        (U_i - u) / h, and the weights K(t) / h.
    """

    data: IndexedObservations
    t: Array
    w: Array


def around(data: IndexedObservations, windows: Windows) -> Local:
    """The observations around every grid point: a :class:`Local` whose arrays have a leading grid axis."""
    n = data.n
    cut = jax.tree.map(lambda a: jnp.moveaxis(a[..., windows.index], -2, 0) if a.shape[-1:] == (n,) else a, data)
    ends = jnp.broadcast_to(data.range, (len(windows.index), 2))
    data = IndexedObservations(cut.x, cut.z, cut.u, cut.y, cut.size, cut.order, ends)
    return Local(data, jnp.asarray(windows.t), jnp.asarray(windows.w))


def predictors(model: VaryingCoefficient, theta: Array, data: IndexedObservations, t: Array) -> Array:
    """Linear predictors (K, m) of coefficients that are lines in t; theta is (2 P,), levels then slopes."""
    level, slope = theta[: model.size, None], theta[model.size :, None]
    return model.predictors(as_params(model, level + slope * t), data)


def value(model: VaryingCoefficient, theta: Array, local: Local) -> Array:
    """Local log likelihood."""
    at = predictors(model, theta, local.data, local.t)
    return jnp.sum(local.w * model.log_density_at(at, local.data.y, local.data.size))


def expected(model: VaryingCoefficient, theta: Array, local: Local, r: Array) -> Array:
    """Local expected complete log likelihood, given responsibilities r (C, m)."""
    at = predictors(model, theta, local.data, local.t)
    return jnp.sum(local.w * r * model.log_joint_at(at, local.data.y, local.data.size))


def derivatives(model: VaryingCoefficient, theta: Array, local: Local, share: Array) -> tuple[Array, Array]:
    """Score of the local log likelihood, and the information share M + (1 - share) J.

    Returns
    -------
    arrays, shapes (2 P,) and (2 P, 2 P)
    """
    y, size = local.data.y, local.data.size
    at = predictors(model, theta, local.data, local.t)
    score, linear = jax.linearize(jax.grad(lambda p: jnp.sum(model.log_density_at(p, y, size))), at)
    seconds = jax.vmap(lambda e: linear(jnp.broadcast_to(e[:, None], at.shape)))(jnp.eye(len(at), dtype=at.dtype))
    r = jax.nn.softmax(model.log_joint_at(at, y, size), axis=0)
    curvature = share * complete_curvature(model, at, local, r) - (1 - share) * seconds
    return _assemble(model, local, score, curvature, complete=False)


def expected_derivatives(model: VaryingCoefficient, theta: Array, local: Local, r: Array) -> tuple[Array, Array]:
    """Gradient of :func:`expected`, and M at these responsibilities; shapes (2 P,) and (2 P, 2 P)."""
    at = predictors(model, theta, local.data, local.t)
    score = _complete_score(model, at, local, r)
    return _assemble(model, local, score, complete_curvature(model, at, local, r), complete=True)


def _complete_score(model: VaryingCoefficient, at: Array, local: Local, r: Array) -> Array:
    """Score in the predictors, (K, m), of the expected complete log likelihood, not yet weighted."""
    return jax.grad(lambda p: jnp.sum(r * model.log_joint_at(p, local.data.y, local.data.size)))(at)


def complete_curvature(model: VaryingCoefficient, at: Array, local: Local, r: Array) -> Array:
    """Complete-data information in the predictors, (K, K, m): the gate's block, then the experts' diagonal."""
    scores, eta, delta = model.split(at)
    gate = jax.nn.softmax(scores, axis=0)[1:]
    block = gate[:, None] * (jnp.eye(len(gate), dtype=at.dtype)[:, :, None] - gate)
    rows = [r * part for part in model.response.information(eta, delta, local.data.y, local.data.size)]
    diagonal = jnp.concatenate(rows if model.response.dispersed else rows[:1])
    free = len(gate)
    out = jnp.zeros((len(at), *at.shape), at.dtype).at[:free, :free].set(block)
    where = np.arange(free, len(at))
    return out.at[where, where].set(diagonal)


def observed_scores(model: VaryingCoefficient, theta: Array, local: Local) -> Array:
    """Score of each observation, weighted, (2 P, m): the sandwich's filling."""
    y, size = local.data.y, local.data.size
    at = predictors(model, theta, local.data, local.t)
    return _by_row(model, local, jax.grad(lambda p: jnp.sum(model.log_density_at(p, y, size)))(at))


def complete_scores(model: VaryingCoefficient, theta: Array, local: Local, r: Array) -> Array:
    """What each observation adds to the gradient of :func:`expected`, (2 P, m)."""
    at = predictors(model, theta, local.data, local.t)
    return _by_row(model, local, _complete_score(model, at, local, r))


def _by_row(model: VaryingCoefficient, local: Local, score: Array) -> Array:
    """Scores in theta (2 P, m) from those in the predictors (K, m)."""
    basis, order = _basis(model, local)
    return jnp.concatenate([local.w * s * rows for s, rows in zip(score, basis, strict=True)])[order]


def newton_step(score: Array, information: Array, free: Array) -> tuple[Array, Array]:
    """Step information^-1 score in the free coordinates, and the gain that it predicts; NaN if indefinite."""
    diagonal = jnp.abs(jnp.diagonal(information))
    unit = jnp.sqrt(jnp.where(free & (diagonal > 0), diagonal, 1.0))  # coordinates have units of their own
    held = jnp.where(free[:, None] & free, information, 0.0) / jnp.outer(unit, unit)
    held = held + jnp.diag(jnp.where(free, RIDGE, 1.0))
    score = jnp.where(free, score, 0.0) / unit
    step = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(held, lower=True), score)
    return step / unit, jnp.sum(step * score)


def _basis(model: VaryingCoefficient, local: Local) -> tuple[list[Array], np.ndarray]:
    """Design rows of each predictor, levels then slopes; and the order that puts all levels before all slopes."""
    experts, free = model.components, model.components - 1
    one = jnp.ones_like(local.t)[None]
    rows = [local.data.x] * free + [local.data.z] * experts + [one] * (experts * model.response.dispersed)
    slopes = np.concatenate([np.repeat([0, 1], len(row)) for row in rows])
    return [jnp.concatenate([row, row * local.t]) for row in rows], np.argsort(slopes, kind="stable")


def _assemble(
    model: VaryingCoefficient, local: Local, score: Array, curvature: Array, *, complete: bool
) -> tuple[Array, Array]:
    """From derivatives in the predictors, (K, m) and (K, K, m), to those in theta; M is block diagonal."""
    basis, order = _basis(model, local)
    weighted = [local.w * rows for rows in basis]
    gradient = jnp.concatenate([rows @ s for rows, s in zip(weighted, score, strict=True)])
    count, free = len(basis), model.components - 1
    rows = []
    for k in range(count):
        stop = count if not complete else free if k < free else k + 1
        right = jnp.concatenate([basis[j] * curvature[k, j] for j in range(k, stop)])
        before, after = (sum(len(b) for b in part) for part in (basis[:k], basis[stop:]))
        rows.append(jnp.pad(weighted[k] @ right.T, ((0, 0), (before, after))))
    upper = jnp.concatenate(rows)
    whole = jnp.triu(upper) + jnp.triu(upper, 1).T
    return gradient[order], whole[order][:, order]
