"""Which component is which: along u, against another fit, and in a fixed order."""

from __future__ import annotations

import itertools

import numpy as np

from bayes_moe.ground import parameters
from bayes_moe.varying import model as varying
from bayes_moe.varying.model import VaryingCoefficient

FAR = 5.0  # units from its target beyond which a coefficient counts as no farther
MOST = 5  # components whose permutations are enumerated


def orders(components: int) -> np.ndarray:
    """All permutations (C!, C) of components, the identity first."""
    return np.array(list(itertools.permutations(range(components))))


def permute(model: VaryingCoefficient, theta: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Renumber the components of theta (..., 2 P): the new component c is the old ``order[..., c]``.

    The gate's scores are taken against the new component 0.
    """
    lines = theta.reshape(*theta.shape[:-1], 2, model.size)
    return varying.permute(model, lines, np.asarray(order)[..., None, :]).reshape(theta.shape)


def path(r: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Permutations (G, C) that make responsibilities agree along the grid: the exact minimum over all paths.

    Neighbours, and neighbours but one, pay sum_i sqrt(w_gi w_hi) |r_gi - r_hi|^2 over the observations that both see.
    The minimum is found by dynamic programming over pairs of permutations.

    Parameters
    ----------
    r : ndarray, shape (G, C, n)
        Responsibilities of every observation in the fit at every grid point.
    w : ndarray, shape (G, n)
        Kernel weights.

    Returns
    -------
    ndarray of int, shape (G, C)
        The identity at the first grid point.
    """
    count, components = r.shape[:2]
    every = orders(components)
    one = [_costs(r[g], r[g + 1], np.sqrt(w[g] * w[g + 1]), every) for g in range(count - 1)]
    two = [_costs(r[g], r[g + 2], np.sqrt(w[g] * w[g + 2]), every) for g in range(count - 2)]
    if not one:
        return every[:1]
    first = np.full(len(every), np.inf)
    first[0] = 0.0
    total = first[:, None] + one[0]  # over the permutations at g - 1 and g
    choices = []
    for near, far in zip(one[1:], two, strict=True):
        through = total[:, :, None] + far[:, None, :]
        choices.append(through.argmin(axis=0))
        total = through.min(axis=0) + near
    a, b = np.unravel_index(total.argmin(), total.shape)
    chosen = [b, a]
    for choice in reversed(choices):
        a, b = choice[a, b], a
        chosen.append(a)
    return every[chosen[::-1]]


def _costs(one: np.ndarray, other: np.ndarray, weight: np.ndarray, every: np.ndarray) -> np.ndarray:
    """Cost (N, N) of each pair of permutations of two sets of responsibilities (C, n)."""
    squared = (weight * (one[:, None] - other) ** 2).sum(axis=2)
    return squared[every[:, None], every].sum(axis=2)


def nearest(model: VaryingCoefficient, theta: np.ndarray, target: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Permutation (C,) of whole curves that brings theta (G, 2 P) nearest to the target's, in units of ``scale`` (P,).

    All coefficients count, each up to FAR units: one that ran away, as log k without overdispersion does, decides
    nothing alone. With more than MOST components this is refused where the model is fitted.
    """
    every = orders(model.components)
    apart = [(permute(model, theta, order) - target)[:, : model.size] / scale for order in every]
    return every[int(np.argmin([np.sum(np.minimum(units**2, FAR**2)) for units in apart]))]


def by_intercept(model: VaryingCoefficient, theta: np.ndarray) -> np.ndarray:
    """Permutation (C,) that puts the experts in ascending order of their mean intercepts alpha[., 0]."""
    where = parameters.blocks(model.fields)["alpha"]
    rows = theta[:, : model.size][:, where].reshape(len(theta), model.components, -1)
    return np.argsort(rows[:, :, 0].mean(axis=0), kind="stable")
