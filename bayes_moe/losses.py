"""Losses between a parameter set and the truth: pure, and vmappable over draws.

A posterior draw and an estimate are the same thing here, so ``jax.vmap(loss, (0, None))(draws, truth)`` is posterior
contraction for many draws and estimation error for one.
"""

from __future__ import annotations

from itertools import permutations

import jax.numpy as jnp
import numpy as np
from jax import Array

from bayes_moe.data import Covariates, float64
from bayes_moe.moe import MoE
from bayes_moe.parameters import Params

REGIMES = ("homogeneous", "heterogeneous")


@float64
def errors(params: Params, truth: Params) -> dict[str, Array]:
    """Error of each parameter: |e^tau - e^tau*| for ``tau``, Euclidean distance for the others.

    Parameters
    ----------
    params, truth : dict of str to array
        Shaped as the model's fields say.

    Returns
    -------
    dict of str to array
        One number each.
    """
    _check_shapes(params, truth)
    out = {name: _norm(jnp.asarray(params[name]) - truth[name]) for name in truth}
    if "tau" in truth:
        out["tau"] = jnp.sum(jnp.abs(jnp.exp(jnp.asarray(params["tau"])) - jnp.exp(jnp.asarray(truth["tau"]))))
    return out


@float64
def aligned(params: Params, truth: Params) -> Params:
    """Put adapters, whose order is arbitrary, in the order that is nearest to the truth.

    Parameters
    ----------
    params, truth : dict of str to array
        Each with a leading axis of adapters; all their orders are tried.

    Returns
    -------
    dict of str to array
    """
    _check_shapes(params, truth)
    count = jnp.shape(truth["tau"])[0]
    orders = [jnp.array(order) for order in permutations(range(count))]
    arrays = {name: jnp.asarray(params[name]) for name in truth}
    distances = [sum(jnp.sum((a[order] - truth[name]) ** 2) for name, a in arrays.items()) for order in orders]
    best = jnp.stack(orders)[jnp.argmin(jnp.stack(distances))]
    return {name: a[best] for name, a in arrays.items()}


@float64
def contamination(params: Params, truth: Params, *, frozen: Array, regime: str) -> Array:
    """Loss of the contaminated model, under which the Hellinger distance is at least a constant times the loss.

    With De = eta - eta0 and De* = eta* - eta0, the homogeneous loss is

        |e^tau - e^tau*| |De| |De*| + (e^tau |De| + e^tau* |De*|)(|beta - beta*| + |eta - eta*|)

    and the heterogeneous loss is

        |e^tau - e^tau*| + (e^tau + e^tau*)(|beta - beta*| + |eta - eta*|).

    Parameters
    ----------
    params, truth : dict of str to array
        ``tau`` (1,), ``beta`` (1, d) unless the gate is constant, ``eta`` (1, rows, d).
    frozen : array, shape (K, d)
        Class vectors eta0; with a pinned last class, its row must be zero (or left out).
    regime : "homogeneous" or "heterogeneous"
        Whether frozen expert and adapter are the same function of their class vectors.

    Returns
    -------
    array
        A scalar.

    Raises
    ------
    ValueError
        For an unknown regime, or class vectors that do not match ``eta``.

    References
    ----------
    arXiv:2602.00939, eqs. (4) and (7).
    """
    if regime not in REGIMES:
        raise ValueError(f"regime must be one of {', '.join(REGIMES)}, got {regime!r}.")
    _check_shapes(params, truth)
    ratio, ratio_true = jnp.exp(jnp.asarray(params["tau"]))[0], jnp.exp(jnp.asarray(truth["tau"]))[0]
    slopes = sum(_norm(jnp.asarray(params[name]) - truth[name]) for name in ("beta", "eta") if name in truth)
    if regime == "heterogeneous":
        return jnp.abs(ratio - ratio_true) + (ratio + ratio_true) * slopes
    eta0 = _matching(frozen, *jnp.shape(truth["eta"])[-2:])
    away, away_true = _norm(jnp.asarray(params["eta"]) - eta0), _norm(jnp.asarray(truth["eta"]) - eta0)
    return jnp.abs(ratio - ratio_true) * away * away_true + (ratio * away + ratio_true * away_true) * slopes


@float64
def hellinger(moe: MoE, params: Params, truth: Params, x: object) -> Array:
    """Mean over covariates of the Hellinger distance between two conditional distributions.

    (1/n) sum_j [1/2 sum_s (sqrt p(s | x_j) - sqrt p*(s | x_j))^2]^(1/2)

    Parameters
    ----------
    moe : MoE
    params, truth : dict of str to array
    x : array-like, shape (n, d), or Covariates
        Covariates to average over; ``moe.prepare(x)`` inside ``vmap``.

    Returns
    -------
    array
        A scalar in [0, 1].
    """
    covariates = x if isinstance(x, Covariates) else moe.prepare(x)
    root, root_true = (jnp.exp(0.5 * moe.log_class_probabilities(p, covariates)) for p in (params, truth))
    squared = 0.5 * jnp.sum((root - root_true) ** 2, axis=0)
    return jnp.mean(jnp.sqrt(squared))


@float64
def rase(curves: Array, truth: Array) -> Array:
    """Root average squared error of curves: sqrt(mean_g (curve(u_g) - truth(u_g))^2), one for each coefficient.

    Parameters
    ----------
    curves, truth : array, shape (G, ...)
        Values at G grid points.

    Returns
    -------
    array, shape (...)

    References
    ----------
    arXiv:2601.01699, section on simulations.
    """
    return jnp.sqrt(jnp.mean((jnp.asarray(curves) - jnp.asarray(truth)) ** 2, axis=0))


def _norm(difference: Array) -> Array:
    return jnp.sqrt(jnp.sum(difference**2))


def _check_shapes(params: Params, truth: Params) -> None:
    for name in truth:
        if name not in params:
            raise ValueError(f"params: {name} is missing.")
        if jnp.shape(params[name]) != jnp.shape(truth[name]):
            raise ValueError(
                f"params: {name} must have the truth's shape {jnp.shape(truth[name])}, got {jnp.shape(params[name])}. "
                "For many draws use jax.vmap(loss, (0, None))."
            )


def _matching(frozen: Array, rows: int, features: int) -> Array:
    """Class vectors in the adapter's coordinates: the pinned last class left out."""
    eta0 = np.asarray(frozen, dtype=np.float64)
    if eta0.shape == (rows, features):
        return eta0
    if eta0.shape != (rows + 1, features) or eta0[-1].any():
        raise ValueError(
            f"frozen must have shape {(rows, features)}, or {(rows + 1, features)} with a last row of zeros "
            f"(the pinned class), got shape {eta0.shape}."
        )
    return eta0[:-1]
