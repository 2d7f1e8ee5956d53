"""The figure of a bench. Colours are Okabe and Ito's, told apart by colour-blind readers too."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from comparisons.peers.analysis import Row
from comparisons.peers.jobs import METHODS, title

COLOURS = dict(zip(METHODS, ("#0072B2", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#56B4E9"), strict=True))
OTHER, ACROSS = "#D55E00", 4
PANELS = {
    "posterior": (
        "min-ESS per second",
        "NUTS, two chains on two cores",
        "smallest ESS over parameters per second (1/s)",
    ),
    "first": ("call, compilation included", "first result, compilation included", "time (s)"),
    "mle": ("all starts", "maximum likelihood, range over data sets", "time of a data set (s)"),
    "many": ("total, compilation included", "ours MLE and NUTS, NumPyro NUTS", "time of all data sets (s)"),
}  # quantity, heading, label
LINES = {
    "ours": ("#0072B2", "o", "-", "bayes-moe"),
    "jax": ("#D55E00", "s", "-", "hand-fused, JAX"),
    "numba": ("#009E73", "^", "-", "hand-fused, numba"),
    "transcendental": ("0.3", "", "--", "limit: tanh, exp and log alone"),
    "bandwidth": ("0.3", "", ":", "limit: memory bandwidth"),
}


def figure(rows: Sequence[Row]) -> Figure:
    """Draw min-ESS per second or the time of each case and method, and the time of value and gradient against n.

    Parameters
    ----------
    rows : sequence of Row

    Returns
    -------
    Figure
        A panel for each case of a part, four to a line; with none of them, words that say so.
    """
    cases = list(dict.fromkeys((r.part, r.case) for r in rows if _is_point(r)))
    timed = [r for r in rows if r.part == "likelihood" and r.unit == "s"]
    panels = max(len(cases) + bool(timed), 1)
    across = min(panels, ACROSS)
    down = -(-panels // across)
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        canvas = Figure(figsize=(4.6 * across, 3.9 * down), layout="constrained")
        axes = canvas.subplots(down, across, squeeze=False).ravel()
        for (part, case), axis in zip(cases, axes, strict=False):
            _points(axis, [r for r in rows if (r.part, r.case) == (part, case)], PANELS[part], case)
        if timed:
            _lines(axes[len(cases)], timed)
        for axis in axes[len(cases) + bool(timed) :]:
            axis.set_axis_off()
        told = "points: medians, whiskers: range" if cases or timed else "nothing was measured"
        canvas.suptitle(told, fontsize=9)
    return canvas


def _is_point(row: Row) -> bool:
    """Whether a row is drawn in a panel of its case: other quantities and failures are not."""
    return row.part in PANELS and row.quantity == PANELS[row.part][0] and row.repeats > 0


def _points(axis: Axes, rows: Sequence[Row], panel: tuple[str, str, str], case: str) -> None:
    _, heading, label = panel
    shown = [r for r in rows if _is_point(r)][::-1]
    ratios = {r.method: r for r in rows if r.quantity == "ratio"}
    for i, r in enumerate(shown):
        whiskers = [[r.median - r.low], [r.high - r.median]]
        colour = COLOURS.get(r.method, OTHER)
        axis.errorbar(r.median, i, xerr=whiskers, color=colour, marker="o", ms=7, capsize=3, lw=1.3)
        ratio = ratios.get(r.method)
        said = "" if ratio is None else f"ours is {ratio.median:.3g} times as fast" if ratio.repeats else ratio.note
        number = f"{float(f'{r.median:.3g}'):,g}"
        text = f"{number}\n{said}".strip()
        axis.annotate(text, (r.high, i), (8, 0), textcoords="offset points", va="center", fontsize=7)
    axis.set_yticks(range(len(shown)), [title(r.method) for r in shown])
    low, last = min(r.low for r in shown), max(shown, key=lambda r: r.high)
    axis.set_xlim(low / 2, last.high * (8 if last.method == "ours" else 2 * last.high / low))  # room for the words
    axis.set_ylim(-0.6, len(shown) - 0.4)
    axis.grid(axis="x", lw=0.4, color="0.85")
    axis.set(xscale="log", title=f"{heading}\n{case}", xlabel=label)
    left, right = axis.get_xlim()
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 3) if right < 1e4 * left else (1,)))
    axis.xaxis.set_major_formatter("{x:,g}")
    axis.xaxis.set_minor_formatter(NullFormatter())


def _lines(axis: Axes, rows: Sequence[Row]) -> None:
    for name, (colour, marker, style, label) in LINES.items():
        mine = [r for r in rows if r.method == name]
        n = np.array([int(r.case.removeprefix("n = ").replace(",", "")) for r in mine])
        median, low, high = (np.array([getattr(r, key) for r in mine]) for key in ("median", "low", "high"))
        axis.errorbar(
            n,
            median,
            yerr=[median - low, high - median],
            color=colour,
            marker=marker,
            ls=style,
            label=label,
            ms=4,
            lw=1.3,
        )
    axis.set(xscale="log", yscale="log", title="log likelihood with gradient, one core\nheterogeneous")
    axis.set(xlabel="number of observations n", ylabel="time of one evaluation (s)")
    axis.legend(frameon=False, fontsize=7)
