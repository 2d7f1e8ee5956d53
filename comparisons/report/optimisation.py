"""Optimisation error apart from statistical error: the same data, fitted from starts near the truth and from others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from comparisons.study.plan import Regime

TOLERANCE = 1e-4  # two fits whose log likelihoods differ by less found the same maximum
NEAR, DATA = "mle-near", "mle"


@dataclass(frozen=True)
class OptimisationError:
    """Data-driven starts against starts near the truth, at one size.

    Parameters
    ----------
    n, count : int
        Size, and data sets fitted both ways.
    missed, won : float
        Shares of them where the data-driven starts ended lower, or higher, in log likelihood.
    below_truth : float
        Share of the data-driven fits whose log likelihood is below that of the truth itself: certainly no maximum. NaN
        where an estimator does not give its likelihood ratio.
    error : dict of str to float
        For each parameter, the mean of |error from data-driven starts - error from starts near the truth|.
    """

    n: int
    count: int
    missed: float
    won: float
    below_truth: float
    error: dict[str, float]


def summarise(rows: Sequence[dict[str, object]], regime: Regime) -> list[OptimisationError]:
    """Compare both kinds of starts at every size where both were run."""
    fits = {
        (r["estimator"], int(r["n"]), r["replicate"]): r
        for r in rows
        if r["regime"] == regime.name and {"log_likelihood", "likelihood_ratio"} <= r.keys()
    }
    sizes = sorted({n for _, n, _ in fits})
    pairs = {
        n: [(r, fits[NEAR, n, i]) for (e, m, i), r in fits.items() if (e, m) == (DATA, n) and (NEAR, n, i) in fits]
        for n in sizes
    }
    return [_compare(n, found, list(regime.moe.fields)) for n, found in pairs.items() if found]


def _compare(n: int, pairs: list[tuple[dict, dict]], names: list[str]) -> OptimisationError:
    gain = np.array([data["log_likelihood"] - near["log_likelihood"] for data, near in pairs])
    error = {
        name: float(np.mean([abs(data[f"error_{name}"] - near[f"error_{name}"]) for data, near in pairs]))
        for name in names
        if all(f"error_{name}" in row for pair in pairs for row in pair)
    }
    ratios = np.array([data.get("likelihood_ratio", np.nan) for data, _ in pairs], dtype=float)
    below = np.where(np.isnan(ratios), np.nan, ratios < -TOLERANCE)
    shares = ((gain < -TOLERANCE).mean(), (gain > TOLERANCE).mean(), below.mean())
    return OptimisationError(n, len(pairs), *map(float, shares), error)
