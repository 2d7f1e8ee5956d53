"""From a user's arrays to the objective of a fit: the one entry, where rows that do not count are left out."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints

from bayes_moe.ground import parameters
from bayes_moe.ground.data import Observations
from bayes_moe.model.moe import MoE
from mle.optimise.objective import Objective

Bounds = Mapping[str, tuple[float, float]]

LARGEST = 1e100  # of covariates, responses and weights, and one over it the least: products of three stay finite


def pose(
    moe: MoE,
    x: object,
    y: object,
    weights: object | None = None,
    *,
    bounds: Bounds | None = None,
    floors: Mapping[str, float] | None = None,
) -> Objective:
    """Make the objective of a model on data.

    Rows of weight zero are left out here, so that nothing that follows can see what they hold.

    Parameters
    ----------
    moe : MoE
    x, y, weights : array-like
    bounds : mapping of str to (low, high), optional
    floors : mapping of str to float, optional

    Raises
    ------
    ValueError
        For data, weights, bounds or floors that do not fit.
    """
    data = moe.observe(x, y, weights)
    if data.weights is not None and not (counted := data.weights > 0).all():
        data = jax.tree.map(lambda values: values[..., counted], data)
    _check_sizes(moe, data)
    return Objective(moe, jax.tree.map(jnp.asarray, data), box(moe, bounds), check_floors(moe, floors))


def _check_sizes(moe: MoE, data: Observations) -> None:
    """Refuse numbers whose products overflow or vanish."""
    with np.errstate(over="ignore"):
        total = np.zeros((0, 1)) if data.weights is None else data.weights.sum(keepdims=True)[None]
    remedy = "Use other units."
    named = [("x", data.x, remedy), ("y", data.y, remedy), ("weights", total, "Divide all weights by their largest.")]
    for name, rows, remedy in named:
        largest = np.abs(rows).max(axis=1, initial=0.0)
        bad = largest[(largest > 0) & ~((largest >= 1 / LARGEST) & (largest <= LARGEST))]
        if len(bad):
            what = "a sum" if name == "weights" else "columns whose largest value, without its sign, is"
            raise ValueError(
                f"{name} must have {what} between {1 / LARGEST:.0e} and {LARGEST:.0e}, got {bad[0]:.3g}. {remedy}"
            )


def box(moe: MoE, bounds: Bounds | None) -> np.ndarray | None:
    """Turn bounds by name into a box for the free vector.

    Raises
    ------
    ValueError
        For unknown names, an empty interval, or a parameter that does not live on the whole line.
    """
    if bounds is None:
        return None
    where = parameters.blocks(moe.fields)
    out = np.tile([-np.inf, np.inf], (parameters.size(moe.fields), 1))
    for name, interval in bounds.items():
        if name not in where:
            raise ValueError(f"bounds: {name!r} is no parameter. This model has {', '.join(where)}.")
        if not lives_on_the_line(moe.fields[name]):
            raise ValueError(f"bounds: {name} already lives in {moe.fields[name].support!r}.")
        low, high = np.broadcast_to(np.asarray(interval, dtype=float), (2,))
        if not low < high:
            raise ValueError(f"bounds: {name} must be a pair (low, high) with low < high, got {interval!r}.")
        out[where[name]] = low, high
    return out


def lives_on_the_line(field: parameters.Field) -> bool:
    """Whether a parameter's coordinates are any real numbers."""
    return field.shape == field.free_shape and "real" in repr(field.support).lower()


def check_floors(moe: MoE, floors: Mapping[str, float] | None) -> tuple[tuple[str, float], ...]:
    """Check floors of variances by name.

    Raises
    ------
    ValueError
        For a name that is no variance, or a floor that is not positive.
    """
    variances = [n for n, f in moe.fields.items() if f.support in (constraints.positive, constraints.positive_definite)]
    for name, floor in (floors or {}).items():
        if name not in variances:
            raise ValueError(f"floors: {name!r} is no variance. This model's are: {', '.join(variances) or 'none'}.")
        if not isinstance(floor, Real) or not 0 < floor < np.inf:
            raise ValueError(f"floors: {name} must be a positive number, got {floor!r}.")
    return tuple((name, float(floor)) for name, floor in (floors or {}).items())
