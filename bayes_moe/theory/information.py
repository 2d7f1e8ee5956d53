"""Fisher information, Cramér–Rao bounds and strong identifiability: what the model can tell, at best.

All derivatives are of the one log density, with respect to the free vector (:mod:`bayes_moe.ground.parameters`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bayes_moe.ground import parameters
from bayes_moe.ground.compilation import jitted
from bayes_moe.ground.data import Covariates, check_finite, check_real, check_tolerance, check_weights, float64
from bayes_moe.ground.parameters import Params
from bayes_moe.model.experts import Activation, activation_function
from bayes_moe.model.moe import MoE, check_moe

MOST = 1e300  # observations
CHUNK = 4096  # observations differentiated side by side
NOISE = 1e-26  # a diagonal below this share of the largest is rounding error squared, not another unit
SINGULAR = 1e-13  # eigenvalues below this share of the largest, after scaling, count as zero


@float64
def fisher(moe: MoE, params: Params, x: object, weights: object | None = None) -> np.ndarray:
    """Expected Fisher information of one observation over the free vector.

    I = E_X sum_s p(s | X) score(s, X) score(s, X)', the expectation over y exact, over X the mean of the rows.

    Parameters
    ----------
    moe : MoE
    params : dict of str to array
    x : array-like, shape (n, d)
        Covariates to average over.
    weights : array-like, shape (n,), optional
        Weights of the rows, for quadrature nodes; normalised to sum to one.

    Returns
    -------
    ndarray, shape (P, P)
        In the order of ``parameters.labels(moe.fields)``.

    Raises
    ------
    ValueError
        For bad parameters or covariates.
    """
    check_moe(moe)
    information, units = _in_units(moe, parameters.check(moe.fields, params), x, weights)
    with np.errstate(over="ignore", under="ignore"):
        out = information * units * units[:, None]
    if not np.isfinite(out).all() or (np.diag(out) == 0)[np.diag(information) > 0].any():
        raise ValueError(
            "x must be of a scale whose squares double precision holds, for its information. Standardise it."
        )
    return out


def _in_units(moe: MoE, params: Params, x: object, weights: object | None) -> tuple[np.ndarray, np.ndarray]:
    """Information of the free vector in units that leave it of order one whatever the scale of x, and these units."""
    free, covariates = parameters.flatten(moe.fields, params), moe.prepare(x)
    checked = check_weights(weights, covariates.n)
    share = np.full(covariates.n, 1.0 / covariates.n) if checked is None else checked / checked.sum()
    parts = [
        jax.tree.map(lambda a, s=start: a[..., s : s + CHUNK], (covariates, share))
        for start in range(0, covariates.n, CHUNK)
    ]
    largest = np.max([np.asarray(jitted(_largest)(moe, free, part)) for part, _ in parts], axis=0)
    units = np.where(largest > 0, largest, 1.0)
    return sum(np.asarray(jitted(_fisher_sum)(moe, free, units, *part)) for part in parts), units


def _largest(moe: MoE, free: Array, covariates: Covariates) -> Array:
    """Largest derivative, in each coordinate, of what the components say one by one.

    They don't cancel, as those of the mixture do: a coordinate without information is then known by its rounding error,
    and not taken for one in another unit.
    """

    def said(vector: Array) -> list[Array]:
        params = parameters.unflatten(moe.fields, vector)
        experts = [expert.log_probabilities(params, covariates) for expert in moe.experts if expert.fields]
        return [moe.log_memberships(params, covariates.x), *experts]

    tops = [jnp.max(jnp.abs(part).reshape(-1, len(free)), axis=0) for part in jax.jacfwd(said)(free)]
    return jnp.max(jnp.stack(tops), axis=0)


def _fisher_sum(moe: MoE, free: Array, units: Array, covariates: Covariates, share: Array) -> Array:
    def log_probabilities(vector: Array) -> Array:
        return moe.log_class_probabilities(parameters.unflatten(moe.fields, vector), covariates)

    log_p, scores = log_probabilities(free), jax.jacfwd(log_probabilities)(free)
    root = (jnp.exp(log_p / 2) * jnp.sqrt(share))[..., None] * (scores / units)
    flat = root.reshape(-1, len(free))
    return flat.T @ flat


@float64
def cramer_rao(
    moe: MoE, params: Params, x: object, n: int | float, weights: object | None = None
) -> dict[str, np.ndarray]:
    """Cramér–Rao bound on the standard error of an unbiased estimator from n observations.

    sqrt(diag((n I)^-1)); infinite for a parameter that moves along a direction without information.

    Parameters
    ----------
    moe, params, x, weights
        As in :func:`fisher`.
    n : int
        Sample size.

    Returns
    -------
    dict of str to ndarray
        Shaped as the parameters.
    """
    if isinstance(n, bool) or not isinstance(n, Real) or not 0 < n < MOST:
        raise ValueError(f"n must be positive and finite, got {n!r:.80}.")
    check_moe(moe)
    values = parameters.check(moe.fields, params)
    information, units = _in_units(moe, values, x, weights)
    rows = jacobian(moe, values) / units
    size = np.abs(rows).max(axis=1)  # apart, since squares of what has large units vanish
    error = size * np.sqrt(inverse_diagonal(information, rows / size[:, None]) / float(n))
    shapes = moe.fields.items()
    parts = np.split(error, np.cumsum([values[name].size for name in values])[:-1])
    return {name: part.reshape(field.shape) for (name, field), part in zip(shapes, parts, strict=True)}


def jacobian(moe: MoE, params: Params) -> np.ndarray:
    """Derivative of the parameters, raveled and joined, with respect to the free vector."""
    return np.asarray(_jacobian(moe, params))


@jax.jit
def _jacobian(moe: MoE, params: Params) -> Array:
    def values(free: Array) -> Array:
        return jnp.concatenate([jnp.ravel(v) for v in parameters.unflatten(moe.fields, free).values()])

    return jax.jacfwd(values)(parameters.flatten(moe.fields, params))


def inverse_diagonal(information: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
    """Diagonal of J I^-1 J', infinite where a row of J meets the null space of I."""
    diagonal = np.diag(information)
    scale = np.sqrt(np.where(diagonal > NOISE * diagonal.max(), diagonal, diagonal.max()))
    values, vectors = np.linalg.eigh(information / np.outer(scale, scale))
    rows = (jacobian / scale) @ vectors
    null = values <= SINGULAR * values.max()
    size = np.sqrt((rows**2).sum(axis=1))
    touched = (np.abs(rows[:, null]) > 1e-6 * size[:, None]).any(axis=1)
    finite = (rows[:, ~null] ** 2 / values[~null]).sum(axis=1)
    return np.where(touched, np.inf, finite)


# Strong identifiability ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Identifiability:
    """Outcome of :func:`strong_identifiability`: smallest singular values of the two sets of Definition 1."""

    second_order: float
    first_order: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether both sets are linearly independent, numerically."""
        return min(self.second_order, self.first_order) > self.tolerance


@float64
def strong_identifiability(
    expert: str | Activation | Callable[[Array, Array], Array],
    eta: object,
    x: object,
    *,
    beta: object | None = None,
    offset: bool = False,
    tolerance: float = 1e-6,
) -> Identifiability:
    """Check Definition 1 of arXiv:2602.00939 numerically over a sample of covariates.

    With h = h(x, eta_l), h_u its first and h_uv its second derivatives in eta_l, this is our reading of the two
    sets (the printed lists are lost; these are the terms whose coefficients the proof of Theorem 1 collects):

    - second order: {h_u} + {x_v h_u} + {h_uv} + {h_u h_v}, and {h_u(eta_l) h_v(eta_m)} for each pair l < m;
    - first order: {h_u} + {x_v h_u} + {exp(beta' x) h_u}.

    A family lists each function once (x_v h_u and x_u h_v coincide for h = act(eta' x), and the proof meets them
    with one common coefficient); the same function in two families is a dependence. The columns are scaled
    to unit length over the sample, so a singular value of zero means dependence.

    Parameters
    ----------
    expert : str, callable(z) or callable(x, eta)
        An activation of eta' x (by name or as an elementwise function of one argument), or any h(x, eta) of
        one covariate vector and one parameter vector.
    eta : array-like, shape (classes, parameters)
        Points at which to check, one for each class; no row should be zero.
    x : array-like, shape (n, d)
        Covariates, n well above the number of functions, p (2 + d + p) with p parameters.
    beta : array-like, shape (d,), optional
        Gate slopes in the factor exp(beta' x); ones / sqrt(d) by default.
    offset : bool
        With an activation: h = act(a' x + b) with eta = (a, b).
    tolerance : float
        Singular values up to this count as zero.

    Returns
    -------
    Identifiability

    Raises
    ------
    ValueError
        For arguments that do not fit or are not finite, and for too few rows of x.
    """
    tolerance = check_tolerance("tolerance", tolerance)
    points, rows = check_real("eta", eta), check_real("x", x)
    if points.ndim != 2 or rows.ndim != 2:
        raise ValueError(f"eta and x must be two-dimensional, got shapes {points.shape} and {rows.shape}.")
    slopes = np.full(rows.shape[1], rows.shape[1] ** -0.5) if beta is None else check_real("beta", beta)
    for name, values in (("eta", points), ("x", rows), ("beta", slopes)):
        check_finite(name, values)
    if slopes.shape != rows.shape[1:]:
        raise ValueError(f"beta must have shape {rows.shape[1:]}, one slope for each column of x, got {slopes.shape}.")
    h, (n, d), p = _scalar_expert(expert, offset), rows.shape, points.shape[1]
    if h is not expert and p != d + offset:
        raise ValueError(f"eta must have {d + offset} columns, those of x{' and the offset' * offset}, got {p}.")
    if n < (needed := p * (2 + d + p)):
        raise ValueError(f"x must have at least {needed} rows, one for each function, got {n}. Draw many more.")
    first = jax.vmap(jax.vmap(jax.grad(h, 1), (0, None)), (None, 0))(jnp.asarray(rows), jnp.asarray(points))
    second = jax.vmap(jax.vmap(jax.hessian(h, 1), (0, None)), (None, 0))(jnp.asarray(rows), jnp.asarray(points))
    with np.errstate(over="ignore"):
        gate = np.exp(rows @ slopes)
    if not all(np.isfinite(values).all() for values in (first, second, gate)):
        raise ValueError("expert must have finite derivatives, and exp(beta' x) be finite, at every eta and x.")
    second_order, first_order = [], []
    for own, (d1, d2) in enumerate(zip(np.asarray(first), np.asarray(second), strict=True)):
        times_x = _distinct(_products(d1, rows))
        second_order.append(_smallest([d1, times_x, _upper(d2), _upper(d1[:, :, None] * d1[:, None, :])]))
        first_order.append(_smallest([d1, times_x, gate[:, None] * d1]))
        second_order += [_smallest([_distinct(_products(d1, np.asarray(other)))]) for other in first[own + 1 :]]
    return Identifiability(min(second_order), min(first_order), tolerance)


def _scalar_expert(expert: object, offset: bool) -> Callable[[Array, Array], Array]:
    if callable(expert) and _takes_two(expert):
        return expert
    act = activation_function(expert, "expert", everywhere=False)
    if offset:
        return lambda x, eta: act(eta[:-1] @ x + eta[-1])
    return lambda x, eta: act(eta @ x)


def _takes_two(function: Callable) -> bool:
    """Whether a function needs two arguments, (x, eta), and so is no activation."""
    try:
        needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    except ValueError:
        return False
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in needed) == 2


def _products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (left[:, :, None] * right[:, None, :]).reshape(len(left), -1)


def _upper(symmetric: np.ndarray) -> np.ndarray:
    """Columns of symmetric matrices (n, p, p), each pair of indices once."""
    return symmetric[:, *np.triu_indices(symmetric.shape[-1])]


def _smallest(families: list[np.ndarray]) -> float:
    """Smallest singular value of the columns of all families, scaled to unit length."""
    return float(np.linalg.svd(_unit(np.hstack(families)), compute_uv=False)[-1])


def _unit(columns: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(columns, axis=0)
    return columns / np.where(length > 0, length, 1.0)


def _distinct(family: np.ndarray) -> np.ndarray:
    """Drop functions that repeat an earlier one up to a factor."""
    columns = _unit(family)
    same = np.abs(columns.T @ columns) > 1 - 1e-12
    return columns[:, [j for j in range(columns.shape[1]) if not same[j, :j].any()]]
