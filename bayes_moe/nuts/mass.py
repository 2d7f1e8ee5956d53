"""Which ends of mode searches hold mass: a mode is a place to start only if the posterior is there.

A density can be highest where next to nothing of the posterior is: without a bound where the scale of a hierarchical
prior shrinks to zero, on the edge of a support, in a spike around a few observations. A search for modes ends there,
and a chain that starts there, whitened by the curvature there, never leaves. So ends are told apart by two rules.

1. An end is a mode if the density stops rising there, and bends down in every direction in which it is not flat.
2. A mode's mass is Laplace's approximation, ``log density + d/2 log(2 pi) - 1/2 log det(curvature)``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bayes_moe.nuts.modes import FLAT, Modes, Objective, curvature

STEEP = 0.1  # slope of the log density at a mode, at most: along each axis of the curvature, by its sd or by one
SHARE = 1 / 20  # of the mass of the heaviest mode, below which no chain starts at another
SAME = 1e-3  # difference of log densities below which two ends have one shape: the same, or with other labels


class Heaviest(NamedTuple):
    """The modes that hold mass, heaviest first, and the curvature at the first; none of them if no end is a mode."""

    modes: Modes
    hessian: np.ndarray


def heaviest(negative: Objective, ends: Modes) -> Heaviest:
    """Keep the ends that are modes and have at least SHARE of the mass of the heaviest.

    Parameters
    ----------
    negative : callable
        Negative log density and its gradient.
    ends : Modes
        Where searches ended, highest first.
    """
    falls = np.append(np.inf, -np.diff(ends.log_densities))
    shapes = np.cumsum(falls >= SAME) - 1  # ends of one height are of one shape
    first = [int(np.argmax(shapes == shape)) for shape in range(shapes[-1] + 1)]
    hessians = [curvature(negative, [ends.free[i]], ends.spread[i]) for i in first]
    volumes = np.array([log_volume(h, negative(ends.free[i])[1]) for i, h in zip(first, hessians, strict=True)])
    masses = ends.log_densities + volumes[shapes]
    order = np.argsort(-masses, kind="stable")
    kept = order[masses[order] >= max(masses.max() + np.log(SHARE), np.finfo(float).min)]
    return Heaviest(Modes(*(part[kept] for part in ends)), hessians[shapes[order[0]]])


def log_volume(hessian: np.ndarray, gradient: np.ndarray) -> float:
    """Log of Laplace's approximation of the mass at an end over the density there; -inf where it is no mode.

    No mode is where the log density still rises by over STEEP within a standard deviation along an axis of its
    curvature, or within one unit of the free vector where that is less, or where it bends upwards along one.

    Parameters
    ----------
    hessian, gradient : ndarray
        Derivatives of the negative log density at the end.
    """
    if not np.isfinite(hessian).all():
        return -np.inf
    values, vectors = np.linalg.eigh(hessian)
    slopes = np.abs(gradient @ vectors)
    flat = FLAT * np.abs(values).max()
    if (slopes > STEEP * np.sqrt(np.maximum(np.abs(values), 1.0))).any() or (values < -flat).any():
        return -np.inf
    return float(np.sum(np.log(2.0 * np.pi / np.maximum(values, flat))) / 2.0)
