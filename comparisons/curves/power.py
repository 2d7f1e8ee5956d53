"""Size and power of the test of constant slopes, by how much they vary, and its p-values where they don't."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from comparisons.curves.figures import COLOURS
from comparisons.curves.regimes import share_of
from comparisons.curves.summary import SIZE, with_interval
from comparisons.report import coverage, figures
from comparisons.study.contract import FAILED

Rows = Sequence[dict[str, object]]
METHODS = ("bootstrap", "chi-square")
NULL = 0.0


def p_values(rows: Rows, method: str) -> dict[float, np.ndarray]:
    """p-values of a method by how much slopes vary, ascending; of data sets whose fit ended with one to test."""
    found: dict[float, list[float]] = {}
    for row in rows:
        if row["status"] not in FAILED and f"p_{method}" in row:
            found.setdefault(share_of(str(row["regime"])), []).append(row[f"p_{method}"])
    return {amount: np.array(values) for amount, values in sorted(found.items())}


def uniform(values: np.ndarray) -> float:
    """p-value of Kolmogorov and Smirnov's test that p-values are uniform; conservative for the bootstrap's steps."""
    return float(stats.kstest(values, "uniform").pvalue)


def table(rows: Rows) -> str:
    """Rejections at 5% with Wilson intervals, and whether p-values are uniform where the hypothesis is true."""
    lines = [
        f"{'slopes vary':<14}{'data sets':>10}"
        + "".join(f"{f'{m}: rejected at {SIZE:.0%} (95%)':>40}" for m in METHODS)
    ]
    found = {method: p_values(rows, method) for method in METHODS}
    for amount, values in found[METHODS[0]].items():
        line = f"{f'{amount:.0%}':<14}{len(values):>10}"
        for method in METHODS:
            line += f"{with_interval(*coverage.share(found[method][amount] <= SIZE)):>40}"
        lines.append(line)
    refused = [row for row in rows if "glrt_refused" in row]
    if refused:
        lines.append(
            f"{len(refused)} data sets left out, whose fits are none to test, as: {refused[0]['glrt_refused']}"
        )
    for method in METHODS:
        if NULL in found[method]:
            lines.append(
                f"{method}: p-values uniform where slopes are constant? p = {uniform(found[method][NULL]):.3g}"
            )
    return "\n".join(lines)


@mpl.rc_context(figures.STYLE)
def figure(rows: Rows) -> Figure:
    """Power against how much slopes vary, and the distribution of p-values where they don't."""
    page = Figure(figsize=(8.0, 3.4), layout="constrained")
    power, null = page.subplots(1, 2)
    for method, colour, shift in zip(METHODS, COLOURS, (-0.008, 0.008), strict=False):
        found = p_values(rows, method)
        value, low, high = np.array([coverage.share(values <= SIZE) for values in found.values()]).T
        style = {"color": colour, "label": method}
        power.errorbar(
            np.array(list(found)) + shift, value, yerr=[value - low, high - value], fmt="o-", capsize=2, **style
        )
        if NULL in found:
            null.ecdf(found[NULL], **style)
    power.axhline(SIZE, color="0.6", lw=3, alpha=0.6, zorder=0)
    power.set(
        title="Power (bars: 95%, Wilson)", xlabel="variation of the slopes, share of vc-sim1's", ylim=(-0.03, 1.03)
    )
    power.set(ylabel=f"share rejected at {SIZE:.0%}")
    null.plot([0, 1], [0, 1], color="0.6", lw=3, alpha=0.6, zorder=0, label="uniform")
    null.set(title="p-values where slopes are constant", xlabel="p-value", ylabel="share of data sets at or below")
    null.legend(frameon=False)
    return page
