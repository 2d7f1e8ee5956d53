"""Observations along an index u: checked once, sorted by u, observation-last."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from jax import Array
from jax.tree_util import register_dataclass

from bayes_moe.ground.data import check_labels, check_real, check_x
from bayes_moe.ground.dates import index_values, missing


@register_dataclass
@dataclass(frozen=True, eq=False)
class IndexedObservations:
    """Observations as the model reads them, in increasing order of u.

    Parameters
    ----------
    x : array, shape (1 + p, n)
        Covariates of the gate, ones first.
    z : array, shape (1 + q, n)
        Covariates of the experts, ones first.
    u : array, shape (n,)
        The index, scaled to [0, 1].
    y : array, shape (n,)
    size : array, shape (n,)
        Trials of a binomial, exposure of a count; ones else.
    order : array of int, shape (n,)
        Row of the user's data that each observation was.
    range : array, shape (2,)
        The u, in the user's units (days, where they were dates), that became 0 and 1.
    subject : array of int, shape (n,), or None
        Position of each observation's subject among all; None where observations have none.
    """

    x: Array
    z: Array
    u: Array
    y: Array
    size: Array
    order: Array
    range: Array
    subject: Array | None = None

    @property
    def n(self) -> int:
        """Number of observations."""
        return self.u.shape[-1]


def check_index(u: object, n: int) -> np.ndarray:
    """Check the index u: one finite number or date for each row, not all the same."""
    index = index_values("u", u)
    if index.shape != (n,):
        raise ValueError(f"u must have shape ({n},), one number for each row of x, got {index.shape}.")
    if not np.isfinite(index).all():
        first = int(np.argmin(np.isfinite(index)))
        raise ValueError(f"u must be finite, got {index[first]} at row {first}. Drop these rows.")
    if np.ptp(index) == 0:
        raise ValueError(f"u must vary, got {index[0]} in every row. Without an index, use another family.")
    return index


def check_range(index: np.ndarray, u_range: object) -> tuple[float, float]:
    """Ends of the range of u, refusing data outside."""
    if u_range is None:
        return float(index.min()), float(index.max())
    ends = index_values("u_range", u_range)
    if ends.shape != (2,) or not np.isfinite(ends).all() or not ends[0] < ends[1]:
        raise ValueError(f"u_range must be a pair (low, high) with low < high, got {u_range!r}.")
    if index.min() < ends[0] or index.max() > ends[1]:
        raise ValueError(
            f"u must lie within {ends.tolist()}, got values from {index.min():g} to {index.max():g}. "
            "Coefficients are not extrapolated: drop these rows, or fit on the wider range."
        )
    return float(ends[0]), float(ends[1])


def scale_points(u: object, ends: object) -> np.ndarray:
    """Check points of u in the user's units, and scale them to [0, 1], shape (m,).

    Raises
    ------
    ValueError
        For what is not finite, not one-dimensional, or outside the range.
    """
    points = np.atleast_1d(index_values("u", u))
    if points.ndim != 1 or not points.size or not np.isfinite(points).all():
        raise ValueError(f"u must be one or more finite numbers, shape (m,), got {points!r}.")
    low, high = check_range(points, ends)
    return (points - low) / (high - low)


def check_covariates(name: str, values: object, features: int) -> np.ndarray:
    """Check covariates by their own name: see :func:`bayes_moe.ground.data.check_x`."""
    try:
        return check_x(values, features)
    except ValueError as error:  # check_x speaks of x
        raise ValueError(re.sub(r"\bx\b", name, str(error))) from None


def check_size(size: object, n: int) -> np.ndarray:
    """Check trials or exposures: one positive number, or one for each row."""
    array = check_real("size", size)
    if array.shape not in ((), (n,)):
        raise ValueError(f"size must be a number or have shape ({n},), one for each row of x, got {array.shape}.")
    if not np.isfinite(array).all() or (array <= 0).any():
        raise ValueError(f"size must be positive and finite, got a minimum of {np.min(array)}.")
    return np.array(np.broadcast_to(array, (n,)))


def check_subject(subject: object, n: int) -> tuple[np.ndarray, tuple[Hashable, ...]]:
    """Check the subjects of observations: positions (n,), and the ids in the order in which they first appear.

    Raises
    ------
    ValueError
        For ids that are missing, not hashable, too many or too few; where no intercepts can be learned, since there is
        a single subject, or none with two observations.
    """
    ids = check_labels("subject", subject, n).tolist()
    for row, one in enumerate(ids):
        if not isinstance(one, Hashable):
            raise ValueError(f"subject must hold hashable ids, got {one!r} at row {row}. Use strings or numbers.")
        if missing(one):
            raise ValueError(f"subject must have an id in each row, got {one!r} at row {row}. Drop or name these rows.")
    counts = Counter(ids)
    if len(counts) < 2:
        raise ValueError(f"subject must have at least 2 subjects, got {ids[0]!r} alone. Leave subject out.")
    if max(counts.values()) < 2:
        raise ValueError(
            f"subject must have a subject with at least 2 observations, got {n} subjects with one each: an intercept "
            "would be no other than the noise. Leave subject out."
        )
    position = {one: code for code, one in enumerate(counts)}
    return np.array([position[one] for one in ids]), tuple(counts)


def make_grid(data: IndexedObservations, grid: object) -> np.ndarray:
    """Grid on [0, 1], from a number of points, "own" (every observed u), or points in the user's units.

    Raises
    ------
    ValueError
        For a grid that is not ascending or leaves the range of u.
    """
    if isinstance(grid, str) and grid == "own":
        return np.unique(np.asarray(data.u))
    if isinstance(grid, int | np.integer) and not isinstance(grid, bool) and grid >= 2:
        return np.linspace(0.0, 1.0, int(grid))
    points = np.zeros(0) if isinstance(grid, str | int | None) else index_values("grid", grid)
    if points.ndim != 1 or len(points) < 1 or not np.isfinite(points).all() or (np.diff(points) <= 0).any():
        raise ValueError(f"grid must be 2 points or more, 'own', or ascending values of u, got {grid!r}.")
    low, high = np.asarray(data.range)
    if points[0] < low or points[-1] > high:
        raise ValueError(
            f"grid must lie within the range of u, {low:g} to {high:g}, got {points[0]:g} to {points[-1]:g}."
        )
    return (points - low) / (high - low)
