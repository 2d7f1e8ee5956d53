"""The two engines, pure JAX: each fits all grid points in one compiled loop.

``separate`` maximises the local log likelihood of each u by itself: EM steps while they gain much, then Newton's, never
downhill. ``consistent`` is the label-consistent EM: M-steps at every u with the same responsibilities, which are then
refreshed once for all, from each observation's own u. The second is no maximisation of the local likelihood: where
components overlap it acts like a larger bandwidth.

References
----------
arXiv:2601.01699 (label-consistent EM); Dempster, Laird and Rubin (1977).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bayes_moe.varying.indexed import IndexedObservations
from bayes_moe.varying.model import VaryingCoefficient, as_params
from mle.local import anderson
from mle.local.likelihood import Local, around, derivatives, expected, expected_derivatives, newton_step, value
from mle.local.windows import Windows

LARGE_GAIN = 1e-3  # of local log likelihood for each unit of weight: EM steps while they gain more
FALL = 0.25  # by which the share of EM in a step falls when the step has gained
ROUNDING = 1e-12  # share of the local log likelihood by which it may seem to fall at its maximum
STALLED = 1e-6  # a step so short gains nothing more
M_STEPS = 1  # scoring steps in each M-step of the label-consistent EM
FIRST_M_STEPS = 6  # in the first, from responsibilities alone
LENGTHS = (1.0, 0.5, 0.1)  # of a scoring step
NEAR = 0.01  # change of coefficients from which steps are accelerated


class Solved(NamedTuple):
    """Where an engine ended.

    Parameters
    ----------
    theta : array, shape (G, 2 P)
        Levels, then slopes per bandwidth, at each grid point.
    values : array, shape (G,)
        Local log likelihoods.
    log_likelihood : array, scalar
        Sum of log p(y_i | x_i, z_i; theta(U_i)), each coefficient at the observation's own u, over those that count.
    converged : array of bool, shape (G,)
    n_iter : array of int, scalar
    """

    theta: Array
    values: Array
    log_likelihood: Array
    converged: Array
    n_iter: Array


def own_level(model: VaryingCoefficient, theta: Array, windows: Windows) -> Array:
    """Coefficients (P, n) at each observation's own u: local-linear from the nearest grid point."""
    near = theta[windows.near]
    return (near[:, : model.size] + near[:, model.size :] * windows.t_near[:, None]).T


def own_log_joint(model: VaryingCoefficient, theta: Array, data: IndexedObservations, windows: Windows) -> Array:
    """Log p(c | x, u) + log p(y | z, u, c) at each observation's own u, (C, n)."""
    return model.log_joint(as_params(model, own_level(model, theta, windows)), data)


def responsibilities(model: VaryingCoefficient, theta: Array, data: IndexedObservations, windows: Windows) -> Array:
    """Responsibilities (C, n), each observation's from the curves at its own u."""
    return jax.nn.softmax(own_log_joint(model, theta, data, windows), axis=0)


def own_log_densities(model: VaryingCoefficient, theta: Array, data: IndexedObservations, windows: Windows) -> Array:
    """Log p(y | x, z, u) at each observation's own u, (n,)."""
    return jax.nn.logsumexp(own_log_joint(model, theta, data, windows), axis=0)


def counted(windows: Windows) -> Array:
    """Mask (n,) of the observations that count in some window: others, as held-out ones, must not steer a fit."""
    return jnp.zeros(len(windows.near), bool).at[windows.index].max(windows.w > 0)


# Each u by itself ----------------------------------------------------------------------------------------------


class _Climb(NamedTuple):
    theta: Array
    value: Array
    share: Array
    scale: Array
    n_iter: Array
    converged: Array
    stalled: Array


def climb(
    model: VaryingCoefficient, theta: Array, local: Local, free: Array, max_iter: Array, tol: Array
) -> tuple[Array, Array, Array, Array]:
    """Maximise the local log likelihood at one u, from theta (2 P,), over its free coordinates.

    Returns
    -------
    theta, value, converged, n_iter
        Converged: Newton's step promises less than ``tol`` for each unit of weight.
    """
    weight = jnp.sum(local.w)

    def step(now: _Climb) -> _Climb:
        score, information = derivatives(model, now.theta, local, now.share)
        move, gain = newton_step(score, information, free)
        theta = now.theta + now.scale * move
        found = value(model, theta, local)
        better = (gain >= 0) & (found >= now.value - ROUNDING * jnp.abs(now.value))
        small = better & (found - now.value < LARGE_GAIN * weight)
        tiny = jnp.where(now.share * FALL > 1e-3, now.share * FALL, 0.0)
        careful = jnp.minimum(1.0, jnp.maximum(now.share / FALL, 0.01))
        return _Climb(
            jnp.where(better, theta, now.theta),
            jnp.where(better, found, now.value),
            jnp.where(better, jnp.where(small, tiny, now.share), careful),
            jnp.where(better, jnp.minimum(1.0, 2 * now.scale), jnp.where(now.share == 1, now.scale / 4, now.scale)),
            now.n_iter + 1,
            (gain >= 0) & (gain < tol * weight) & (now.share < FALL),
            now.scale < STALLED,
        )

    def going(now: _Climb) -> Array:
        return ~now.converged & ~now.stalled & (now.n_iter < max_iter)

    no = jnp.zeros((), bool)
    one = jnp.ones((), theta.dtype)
    start = _Climb(theta, value(model, theta, local), one, one, jnp.zeros((), jnp.int32), no, no)
    end = lax.while_loop(going, step, start)
    return end.theta, end.value, end.converged, end.n_iter


def separate(
    model: VaryingCoefficient,
    data: IndexedObservations,
    windows: Windows,
    theta: Array,
    free: Array,
    max_iter: Array,
    tol: Array,
) -> Solved:
    """Maximise the local log likelihood at every u, each by itself, from theta (G, 2 P)."""
    local = around(data, windows)
    theta, values, converged, n_iter = jax.vmap(partial(climb, model), in_axes=(0, 0, None, None, None))(
        theta, local, free, max_iter, tol
    )
    total = jnp.sum(own_log_densities(model, theta, data, windows), where=counted(windows))
    return Solved(theta, values, total, converged, jnp.max(n_iter))


def from_neighbours(theta: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts (G, 2 P) at each u's left and right neighbour's lines; the ends start where they are.

    Parameters
    ----------
    theta : ndarray, shape (G, 2 P)
    step : ndarray, shape (G - 1,)
        Distance of neighbouring grid points, over h.
    """
    level, slope = np.split(theta, 2, axis=1)
    right = np.concatenate([level[:-1] + slope[:-1] * step[:, None], slope[:-1]], axis=1)
    left = np.concatenate([level[1:] - slope[1:] * step[:, None], slope[1:]], axis=1)
    return np.concatenate([theta[:1], right]), np.concatenate([left, theta[-1:]])


# The same responsibilities everywhere --------------------------------------------------------------------------


def m_steps(model: VaryingCoefficient, theta: Array, local: Local, r: Array, free: Array) -> Array:
    """One safeguarded scoring step of the local M-step at every u, given responsibilities r (G, C, m).

    Full steps, if no u loses by its own; else at each u the best of several lengths.
    """
    move, _ = jax.vmap(newton_step, in_axes=(0, 0, None))(*_every(expected_derivatives, model, theta, local, r), free)
    move = jnp.nan_to_num(move)
    now, full = (_every(expected, model, to, local, r) for to in (theta, theta + move))

    def shortened() -> Array:
        tried = jnp.stack([theta + length * move for length in LENGTHS])
        values = jnp.stack([full, *(_every(expected, model, to, local, r) for to in tried[1:]), now])
        best = jnp.argmax(jnp.where(jnp.isnan(values), -jnp.inf, values), axis=0)
        return jnp.take_along_axis(jnp.concatenate([tried, theta[None]]), best[None, :, None], axis=0)[0]

    return lax.cond(jnp.all(full >= now), lambda: theta + move, shortened)


def _every(function: Callable, model: VaryingCoefficient, theta: Array, local: Local, r: Array) -> Array:
    return jax.vmap(partial(function, model))(theta, local, r)


class _Consistent(NamedTuple):
    theta: Array
    r: Array
    memory: anderson.Memory
    best: Array
    log_likelihood: Array
    change: Array
    n_iter: Array


def consistent(
    model: VaryingCoefficient,
    data: IndexedObservations,
    windows: Windows,
    theta: Array,
    r: Array,
    free: Array,
    max_iter: Array,
    tol: Array,
) -> Solved:
    """Label-consistent EM from responsibilities r (C, n), theta (G, 2 P) being where the first M-step begins.

    It stops when neither responsibilities nor coefficients (relative to 1 + their size) change by ``tol``. Where they
    change little, steps are accelerated (:mod:`mle.local.anderson`). Not monotone: without convergence it returns the
    step of highest log likelihood.
    """
    local, counts = around(data, windows), counted(windows)

    def maximise(theta: Array, r: Array, times: int) -> Array:
        seen = jnp.moveaxis(r[:, windows.index], 1, 0)
        return lax.fori_loop(0, times, lambda _, t: m_steps(model, t, local, seen, free), theta)

    def refresh(theta: Array) -> tuple[Array, Array]:
        joint = own_log_joint(model, theta, data, windows)
        total = jax.nn.logsumexp(joint, axis=0)
        return jnp.exp(joint - total), jnp.sum(total, where=counts)

    def step(now: _Consistent) -> _Consistent:
        image = maximise(now.theta, now.r, M_STEPS)
        moved = jnp.max(jnp.abs(image - now.theta) / (1 + jnp.abs(image)))
        memory, theta = anderson.step(now.memory, now.theta, image, moved < NEAR)
        r, total = refresh(theta)
        better = total > now.log_likelihood
        best = jnp.where(better, theta, now.best)
        change = jnp.maximum(jnp.max(jnp.abs(r - now.r), where=counts, initial=0.0), moved)
        high = jnp.where(better, total, now.log_likelihood)
        return _Consistent(theta, r, memory, best, high, change, now.n_iter + 1)

    theta = maximise(theta, r, FIRST_M_STEPS)
    r, total = refresh(theta)
    far, none = jnp.full((), jnp.inf, theta.dtype), jnp.zeros((), jnp.int32)
    start = _Consistent(theta, r, anderson.empty(theta), theta, total, far, none)
    end = lax.while_loop(lambda now: (now.change > tol) & (now.n_iter < max_iter), step, start)
    converged = end.change <= tol
    theta = jnp.where(converged, end.theta, end.best)
    values = jax.vmap(partial(value, model))(theta, local)
    return Solved(theta, values, refresh(theta)[1], jnp.broadcast_to(converged, values.shape), end.n_iter)
