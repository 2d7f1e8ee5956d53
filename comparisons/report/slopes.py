"""A log-log slope and its interval, or that there is none to be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

NOT_COVERED = "not covered"  # in place of an interval that would not hold what it says


@dataclass(frozen=True)
class Slope:
    """Log-log slope with its 95% interval, or without one.

    Parameters
    ----------
    value, low, high : float
        NaN ends where no interval is to be trusted.
    se : float
        Standard error.
    df : float
        Degrees of freedom of the interval's t distribution.
    """

    value: float
    low: float
    high: float
    se: float = 0.0
    df: float = np.inf

    @classmethod
    def bare(cls, value: float) -> Slope:
        """Slope without an interval."""
        return cls(value, np.nan, np.nan, np.nan, np.nan)

    @property
    def covered(self) -> bool:
        """Whether there is an interval with two ends."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    def covers(self, value: float) -> bool:
        """Whether the interval holds a value; False where there is none."""
        return self.low <= value <= self.high

    def p_value(self, value: float) -> float:
        """Two-sided p-value of the hypothesis that the slope is ``value``; NaN without an interval."""
        if self.se == 0.0:
            return float(self.value == value)
        return float(2 * stats.t.sf(abs(self.value - value) / self.se, self.df))

    def __str__(self) -> str:
        """Format as ``-0.50 [-0.55, -0.44]``, or ``-0.50 [not covered]``."""
        return f"{self.value:+.2f} [{f'{self.low:+.2f}, {self.high:+.2f}' if self.covered else NOT_COVERED}]"
