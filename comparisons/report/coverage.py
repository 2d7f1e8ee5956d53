"""Do 95% intervals hold the truth 95 times in 100? Credible, Wald, profile and likelihood-ratio, by regime and n."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from bayes_moe.ground import parameters
from comparisons.study.contract import LEVEL
from comparisons.study.plan import Regime

Rows = Sequence[dict[str, object]]
KINDS = {"mle": "Wald", "mle-near": "Wald, near start", "nuts": "credible"}
PROFILE = "profile"
JOINT = "all, by likelihood ratio"


@dataclass(frozen=True)
class Coverage:
    """How often intervals of one kind held the truth at one size.

    Parameters
    ----------
    kind, parameter : str
    n : int
    value, low, high : float
        Share of intervals that held it, with its own 95% interval (Wilson, counting replicates).
    width : float
        Median over replicates of the mean width of a coordinate's interval; NaN for a joint region.
    count, missing : int
        Replicates with intervals, and without: an MLE at a bound has none.
    """

    kind: str
    parameter: str
    n: int
    value: float
    low: float
    high: float
    width: float
    count: int
    missing: int


def summarise(rows: Rows, regime: Regime) -> list[Coverage]:
    """Coverage of each kind of interval, for each parameter and size.

    Parameters
    ----------
    rows : sequence of dict
        Of a store.
    regime : Regime
    """
    mine = [r for r in rows if r["regime"] == regime.name]
    groups = sorted({(str(r["estimator"]), int(r["n"])) for r in mine})
    out = []
    for estimator, n in groups:
        cells = [r for r in mine if (r["estimator"], r["n"]) == (estimator, n)]
        kind = KINDS.get(estimator, estimator)
        for name in regime.moe.fields:
            for prefix, title in (("", kind), ("profile_", PROFILE)):
                cover, width = f"{prefix}cover_{name}", f"{prefix}width_{name}"
                found = [(r[cover], r[width]) for r in cells if cover in r]
                if found:
                    shares, widths = np.array(found).T
                    out.append(_coverage(title, name, n, shares, float(np.median(widths)), len(cells)))
        ratios = np.array([r["likelihood_ratio"] for r in cells if "likelihood_ratio" in r])
        if len(ratios):
            inside = ratios <= stats.chi2.ppf(LEVEL, parameters.size(regime.moe.fields))
            out.append(_coverage(estimator, JOINT, n, inside.astype(float), float("nan"), len(cells)))
    return out


def _coverage(kind: str, name: str, n: int, shares: np.ndarray, width: float, planned: int) -> Coverage:
    return Coverage(kind, name, n, *share(shares), width, len(shares), planned - len(shares))


def share(shares: np.ndarray) -> tuple[float, float, float]:
    """Mean of some shares, one a replicate, with its 95% interval (Wilson, counting replicates)."""
    count, value = len(shares), float(shares.mean())
    interval = stats.binomtest(round(value * count), count).proportion_ci(LEVEL, method="wilson")
    return value, min(interval.low, value), max(interval.high, value)
