"""Losses between a parameter set and the truth: pure, and vmappable over draws.

A posterior draw and an estimate are the same thing here, so ``jax.vmap(loss, (0, None))(draws, truth)`` is posterior
contraction for many draws and estimation error for one.
"""

from __future__ import annotations

from itertools import permutations

import jax.numpy as jnp
from jax import Array

from bayes_moe.ground.data import Covariates, check_array, check_choice, check_mapping, check_real, float64
from bayes_moe.ground.parameters import Params
from bayes_moe.model.moe import MoE, check_moe

LEAST = 1e-280  # of a sum of squares that has all its digits
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
    params, truth = _arrays(params, truth)
    out = {name: _norm(params[name] - truth[name]) for name in truth}
    if "tau" in truth:
        out["tau"] = jnp.sum(_ratio_gap(params["tau"], truth["tau"]))
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
    params, truth = _arrays(params, truth)
    if "tau" not in truth or any(not a.ndim or len(a) != truth["tau"].size for a in truth.values()):
        raise ValueError("truth must hold tau (adapters,), and each parameter a leading axis of adapters.")
    orders = [jnp.array(order) for order in permutations(range(len(truth["tau"])))]
    distances = [sum(jnp.sum((a[order] - truth[name]) ** 2) for name, a in params.items()) for order in orders]
    best = jnp.stack(orders)[jnp.argmin(jnp.stack(distances))]
    return {name: a[best] for name, a in params.items()}


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
        For an unknown regime, several adapters, or class vectors that do not match ``eta``.

    References
    ----------
    arXiv:2602.00939, eqs. (4) and (7).
    """
    check_choice("regime", regime, REGIMES)
    params, truth = _arrays(params, truth)
    if truth["tau"].shape != (1,):
        raise ValueError(
            f"truth: tau must have shape (1,), one adapter, got {truth['tau'].shape}. "
            "With several use losses.errors(losses.aligned(params, truth), truth)."
        )
    ratio, ratio_true = jnp.exp(params["tau"])[0], jnp.exp(truth["tau"])[0]
    gap = _ratio_gap(params["tau"], truth["tau"])[0]
    slopes = sum(_norm(params[name] - truth[name]) for name in ("beta", "eta") if name in truth)
    if regime == "heterogeneous":
        return gap + _times(ratio + ratio_true, slopes)
    eta0 = _matching(frozen, *truth["eta"].shape[-2:])
    away, away_true = _norm(params["eta"] - eta0), _norm(truth["eta"] - eta0)
    return _times(gap, away * away_true) + _times(_times(ratio, away) + _times(ratio_true, away_true), slopes)


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
    check_moe(moe)
    covariates = x if isinstance(x, Covariates) else moe.prepare(x)
    params, truth = (_of_model(moe, name, one) for name, one in (("params", params), ("truth", truth)))
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
    curves, truth = check_array("curves", curves), check_array("truth", truth)
    if curves.shape != truth.shape or not curves.ndim or not len(curves):
        raise ValueError(f"curves must have the shape of truth, (G, ...), got {curves.shape} and {truth.shape}.")
    return jnp.sqrt(jnp.mean((curves - truth) ** 2, axis=0))


def _norm(difference: Array) -> Array:
    """Euclidean norm; where squares overflow or vanish, of the entries divided by the largest."""
    squared, top = jnp.sum(difference**2), jnp.max(jnp.abs(difference))
    scaled = top * jnp.sqrt(jnp.sum((difference / jnp.where(top > 0, top, 1.0)) ** 2))
    return jnp.where((squared > LEAST) & jnp.isfinite(squared), jnp.sqrt(squared), scaled)


def _ratio_gap(tau: Array, true_tau: Array) -> Array:
    """|e^tau - e^tau*|, infinite where it leaves double precision, zero where both are the same."""
    gap = jnp.abs(jnp.exp(tau) - jnp.exp(true_tau))
    return jnp.where(
        jnp.isinf(jnp.exp(tau)) & jnp.isinf(jnp.exp(true_tau)), jnp.where(tau == true_tau, 0.0, jnp.inf), gap
    )


def _times(one: Array, two: Array) -> Array:
    """Product in which nothing times infinity is nothing."""
    return jnp.where((one == 0) | (two == 0), 0.0, one * two)


def _arrays(params: Params, truth: Params) -> tuple[Params, Params]:
    """Both as arrays, the truth's parameters alone, of the same shapes."""
    for name in check_mapping("truth", truth):
        if name not in check_mapping("params", params):
            raise ValueError(f"params: {name} is missing.")
    params, truth = (
        {name: check_array(f"{argument}: {name}", values[name]) for name in truth}
        for argument, values in (("params", params), ("truth", truth))
    )
    for name in truth:
        if params[name].shape != truth[name].shape:
            raise ValueError(
                f"params: {name} must have the truth's shape {truth[name].shape}, got {params[name].shape}. "
                "For many draws use jax.vmap(loss, (0, None))."
            )
    return params, truth


def _of_model(moe: MoE, argument: str, values: Params) -> Params:
    """Parameters of a model as arrays of its shapes, also inside ``vmap``."""
    out = {}
    for name, field in moe.fields.items():
        if name not in check_mapping(argument, values):
            raise ValueError(f"{argument}: {name} is missing. This model's parameters are {', '.join(moe.fields)}.")
        out[name] = check_array(f"{argument}: {name}", values[name])
        if out[name].shape != field.shape:
            raise ValueError(f"{argument}: {name} must have shape {field.shape} {field.dims}, got {out[name].shape}.")
    return out


def _matching(frozen: Array, rows: int, features: int) -> Array:
    """Class vectors in the adapter's coordinates: the pinned last class left out."""
    eta0 = check_real("frozen", frozen)
    if eta0.shape == (rows, features):
        return eta0
    if eta0.shape != (rows + 1, features) or eta0[-1].any():
        raise ValueError(
            f"frozen must have shape {(rows, features)}, or {(rows + 1, features)} with a last row of zeros "
            f"(the pinned class), got shape {eta0.shape}."
        )
    return eta0[:-1]
