"""Which observations each grid point sees, and with what weight: prepared once, in NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jax import Array
from jax.tree_util import register_dataclass

from bayes_moe.varying.indexed import IndexedObservations
from bayes_moe.varying.model import VaryingCoefficient
from mle.local.kernels import Kernel

DISTINCT = 3  # values of u that a window must hold: a line and something to see beside it
DEPENDENT = 1e-7  # smallest singular value, of columns of unit length, below which they count as collinear
ROOM = 8  # window lengths are multiples of n / ROOM, so that near bandwidths share one compilation


@register_dataclass
@dataclass(frozen=True, eq=False)
class Windows:
    """The observations around each grid point, data being in increasing order of u.

    Parameters
    ----------
    index : array of int, shape (G, m)
        Which observations: m neighbours in a row.
    t : array, shape (G, m)
        (U_i - u) / h, clipped to the kernel's reach: weights are zero beyond.
    w : array, shape (G, m)
        K(t) / h, zero outside the window.
    near : array of int, shape (n,)
        Grid point nearest to each observation.
    t_near : array, shape (n,)
        (U_i - that grid point) / h.
    step : array, shape (G - 1,)
        Distance of neighbouring grid points, over h.
    """

    index: Array
    t: Array
    w: Array
    near: Array
    t_near: Array
    step: Array


def build(u: np.ndarray, grid: np.ndarray, h: float, kernel: Kernel, *, whole: bool = False) -> Windows:
    """Cut windows: w_i(u) = K((U_i - u) / h) / h.

    Parameters
    ----------
    u : ndarray, shape (n,)
        Ascending, on [0, 1].
    grid : ndarray, shape (G,)
        Ascending, on [0, 1].
    h : float
        Bandwidth, on the same scale.
    kernel : Kernel
    whole : bool
        Keep all n observations in every window, most with weight zero, so that all bandwidths share one compilation.
    """
    n, reach = len(u), h * kernel.reach
    first = np.searchsorted(u, grid - reach)
    widest = int((np.searchsorted(u, grid + reach, side="right") - first).max())
    unit = -(-n // ROOM)
    m = n if whole else min(n, -(-widest // unit) * unit)
    index = np.clip(first, 0, n - m)[:, None] + np.arange(m)
    t = np.clip((u[index] - grid[:, None]) / h, -kernel.reach, kernel.reach)  # no line is followed beyond
    near = np.abs(u[:, None] - grid).argmin(axis=1)
    return Windows(
        index, t, np.where(np.abs(t) < kernel.reach, kernel(t), 0.0) / h, near, (u - grid[near]) / h, np.diff(grid) / h
    )


def seen(cut: Windows, n: int) -> np.ndarray:
    """Mask (n,) of the observations that count in some window."""
    mask = np.zeros(n, dtype=bool)
    mask[np.asarray(cut.index)[np.asarray(cut.w) > 0]] = True
    return mask


def smallest_bandwidth(
    model: VaryingCoefficient, data: IndexedObservations, grid: np.ndarray, kernel: Kernel
) -> tuple[float, float, tuple[float, float]]:
    """Smallest workable h, at which windows are full enough and reach each other.

    They hold two observations for each coefficient, at DISTINCT values of u or more; they reach the next grid point and
    the ends of the data, and across every gap.

    Returns
    -------
    h : float
    sparse : float
        Grid point, on [0, 1], with the fewest observations around it.
    gap : pair of float
        Ends of the widest gap, on [0, 1].

    Raises
    ------
    ValueError
        If there are too few observations, or distinct values of u, for any h.
    """
    every, needed = np.asarray(data.u), 2 * model.size
    u = np.unique(every)
    if needed > len(every):
        raise ValueError(
            f"y must have at least {needed} rows, two for each of the {model.size} coefficients, got {len(every)}. "
            "Use fewer components or covariates."
        )
    if len(u) < DISTINCT:
        raise ValueError(f"u must take at least {DISTINCT} distinct values, got {len(u)}: leave it out of the model.")
    rows, values = (np.sort(np.abs(points - grid[:, None]), axis=1) for points in (every, u))
    distances = np.maximum(rows[:, needed - 1], values[:, DISTINCT - 1])
    widest = int(np.diff(u).argmax())
    ends = max(grid[0] - u[0], u[-1] - grid[-1])
    h = max(distances.max(), np.max(np.diff(grid), initial=0.0), u[widest + 1] - u[widest], ends) / kernel.breadth
    return float(h), float(grid[distances.argmax()]), (float(u[widest]), float(u[widest + 1]))


def check_bandwidth(
    model: VaryingCoefficient, data: IndexedObservations, grid: np.ndarray, h: object, kernel: Kernel
) -> float:
    """Check that h is a bandwidth, that every window holds enough observations and that windows reach each other.

    Raises
    ------
    ValueError
        With the smallest workable h.
    """
    if isinstance(h, bool) or not isinstance(h, int | float | np.number) or not 0 < h < np.inf:
        raise ValueError(f"h must be a positive number, the bandwidth as a share of u's range, got {h!r}.")
    smallest, sparse, gap = smallest_bandwidth(model, data, grid, kernel)
    if h <= smallest:
        low, high = np.asarray(data.range)
        sparse, start, end = (low + place * (high - low) for place in (sparse, *gap))
        raise ValueError(
            f"h must be above {smallest:.3g} (a share of u's range), got {h:.3g}. Windows must bridge the widest gap "
            f"in u, {start:.4g} to {end:.4g}, reach the next grid point and the ends of the data, and hold "
            f"{2 * model.size} observations at {DISTINCT} values of u, of which there are fewest around {sparse:.4g}. "
            f"The smallest workable h is {1.001 * smallest:.3g}."
        )
    return float(h)


def full_rank(cut: Windows, columns: np.ndarray) -> np.ndarray:
    """Whether each window's data determine a line in u for every column's coefficient, shape (G,).

    Parameters
    ----------
    cut : Windows
    columns : ndarray, shape (1 + q, n)
        Covariates, ones first.
    """
    centred = np.asarray(columns, dtype=float).copy()
    centred[1:] -= centred[1:].mean(axis=1, keepdims=True)
    out = np.empty(len(cut.index), dtype=bool)
    for g, (index, t, w) in enumerate(zip(cut.index, np.asarray(cut.t), np.asarray(cut.w), strict=True)):
        seen = centred[:, index] * np.sqrt(w)
        lines = np.concatenate([seen, seen * t])
        lengths = np.linalg.norm(lines, axis=1, keepdims=True)
        out[g] = (lengths > 0).all() and np.linalg.svd(lines / lengths, compute_uv=False).min() > DEPENDENT
    return out


def check_rank(data: IndexedObservations, grid: np.ndarray, cut: Windows) -> None:
    """Check that coefficients are determined in every window: no covariate is constant or collinear in any.

    Raises
    ------
    ValueError
        With a grid point where they are not, and the columns that are constant there.
    """
    low, high = np.asarray(data.range)
    for name, columns in (("x", np.asarray(data.x)), ("z", np.asarray(data.z))):
        good = full_rank(cut, columns)
        if good.all():
            continue
        worst = int(good.argmin())
        inside = columns[1:, np.asarray(cut.index[worst])[np.asarray(cut.w[worst]) > 0]]
        still = np.flatnonzero(np.ptp(inside, axis=1) == 0).tolist()
        what = (
            f"column {', '.join(map(str, still))} constant" if still else "columns collinear, with each other or with u"
        )
        raise ValueError(
            f"{name} must determine its coefficients around every grid point, got {what} around u = "
            f"{low + grid[worst] * (high - low):.4g}, and so at {np.sum(~good)} of {len(grid)} points. "
            "Drop columns, or raise h where others see more."
        )
