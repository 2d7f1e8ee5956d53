"""Means over random splits of one data set, with intervals that allow for the cases that splits share."""

from __future__ import annotations

import numpy as np
from scipy.stats import t

from comparisons.study.contract import LEVEL


def mean(values: np.ndarray, ratio: float) -> tuple[float, float]:
    """Mean over splits and the half-width of its 95% interval, infinite for one split.

    Splits share cases, so that s^2 / splits is too small a variance. Nadeau and Bengio's is
    s^2 (1 / splits + test / training), with a t quantile of splits - 1 degrees of freedom.

    Parameters
    ----------
    values : ndarray, shape (splits,)
    ratio : float
        Test cases over the others.

    References
    ----------
    Nadeau and Bengio (2003), "Inference for the Generalization Error".
    """
    count = len(values)
    if count < 2:
        return float(values.mean()), np.inf
    error = values.std(ddof=1) * np.sqrt(1 / count + ratio)
    return float(values.mean()), float(t.ppf((1 + LEVEL) / 2, count - 1) * error)
