"""Separation: where a hyperplane splits the classes, the likelihood has no finite maximum."""

from __future__ import annotations

import numpy as np
from scipy import optimize

FEW = 250  # rows that are looked at first, or ten for each covariate


def separated(x: np.ndarray, codes: np.ndarray, classes: int) -> bool:
    """Whether labels are completely or quasi-completely separated by linear scores; see :func:`direction`."""
    return direction(x, codes, classes) is not None


def direction(x: np.ndarray, codes: np.ndarray, classes: int) -> np.ndarray | None:
    """Find a direction in which a multinomial logistic likelihood rises for ever.

    Solves max sum_(i,k) v_ik with v_ik = (b_(y_i) - b_k)' x_i >= 0 for k != y_i and -1 <= b <= 1. The optimum is
    positive if and only if the labels are separated: then the likelihood has no finite maximum.

    Parameters
    ----------
    x : ndarray, shape (n, d)
        Covariates, a constant column included where there is an intercept.
    codes : ndarray of int, shape (n,)
    classes : int

    Returns
    -------
    ndarray, shape (classes - 1, d), or None
        Class vectors, the last class's at zero; None where the labels are not separated.

    References
    ----------
    Konis (2007), "Linear programming algorithms for detecting separated data in binary logistic regression
    models"; Albert and Anderson (1984) for several classes.
    """
    n, d = x.shape
    if n == 0:
        return np.zeros((classes - 1, d))
    if (step := n // max(FEW, 10 * d)) > 1 and _overlap(x[::step], codes[::step], classes):
        return None
    largest = np.abs(x).max(axis=0)
    size = np.where(largest > 0, largest, 1.0)
    margins = _margins(x / size, codes, classes)
    result = optimize.linprog(-margins.sum(axis=0), A_ub=-margins, b_ub=np.zeros(len(margins)), bounds=(-1, 1))
    if result.status != 0 or -result.fun <= 1e-8 * n:
        return None
    return result.x.reshape(classes - 1, d) / size


def _overlap(x: np.ndarray, codes: np.ndarray, classes: int) -> bool:
    """Whether these rows rule a direction out for all: it would separate them, or leave all their margins at zero."""
    margins = _margins(x, codes, classes)
    return np.linalg.matrix_rank(margins) == margins.shape[1] and direction(x, codes, classes) is None


def _margins(x: np.ndarray, codes: np.ndarray, classes: int) -> np.ndarray:
    """Rows whose products with the class vectors are the margins v_ik."""
    rows = [_contrasts(x[codes == own], own, other, classes) for own in range(classes) for other in range(classes)]
    return np.vstack([r for r in rows if r is not None])


def _contrasts(x: np.ndarray, own: int, other: int, classes: int) -> np.ndarray | None:
    """Rows such that row @ b = (b_own - b_other)' x, with the last class pinned at zero."""
    if own == other or not len(x):
        return None
    out = np.zeros((len(x), classes, x.shape[1]))
    out[:, own], out[:, other] = x, -x
    return out[:, :-1].reshape(len(x), -1)
