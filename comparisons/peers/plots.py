"""The figure of a bench. Colours are Okabe and Ito's, told apart by colour-blind readers too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from comparisons.peers.analysis import Row
from comparisons.peers.jobs import METHODS

COLOURS = dict(zip(METHODS, ("#0072B2", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#56B4E9"), strict=True))
LINES = {
    "ours": ("#0072B2", "o", "-", "bayes-moe"),
    "jax": ("#D55E00", "s", "-", "hand-fused, JAX"),
    "numba": ("#009E73", "^", "-", "hand-fused, numba"),
    "transcendental": ("0.3", "", "--", "limit: tanh, exp and log alone"),
    "bandwidth": ("0.3", "", ":", "limit: memory bandwidth"),
}


def figure(rows: Sequence[Row], path: Path) -> Path:
    """Draw min-ESS per second of each case, and the time of value and gradient against n.

    Parameters
    ----------
    rows : sequence of Row
    path : Path
        Where to write; PNG or SVG by its suffix.

    Returns
    -------
    Path
    """
    cases = list(dict.fromkeys(r.case for r in rows if r.part == "posterior"))
    timed = [r for r in rows if r.part == "likelihood" and r.unit == "s"]
    panels = len(cases) + bool(timed)
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        canvas = Figure(figsize=(4.6 * max(panels, 1), 3.9), layout="constrained")
        axes = canvas.subplots(1, max(panels, 1), squeeze=False)[0]
        for case, axis in zip(cases, axes, strict=False):
            _points(axis, [r for r in rows if r.part == "posterior" and r.case == case], case)
        if timed:
            _lines(axes[-1], timed)
        canvas.suptitle("points: medians of paired runs, whiskers: their range; two chains on two cores", fontsize=9)
        canvas.savefig(path, dpi=150)
    return path


def _points(axis: Axes, rows: Sequence[Row], case: str) -> None:
    shown = [r for r in rows if r.quantity == "min-ESS per second"][::-1]
    ratios = {r.method: r for r in rows if r.quantity == "ratio"}
    for i, r in enumerate(shown):
        whiskers = [[r.median - r.low], [r.high - r.median]]
        axis.errorbar(r.median, i, xerr=whiskers, color=COLOURS[r.method], marker="o", ms=7, capsize=3, lw=1.3)
        ratio = ratios.get(r.method)
        said = "" if ratio is None else ratio.note or f"ours is {ratio.median:.3g} times as fast"
        axis.annotate(
            f"{r.median:.3g}\n{said}".strip(), (r.high, i), (8, 0), textcoords="offset points", va="center", fontsize=7
        )
    axis.set_yticks(range(len(shown)), [METHODS[r.method].title for r in shown])
    if shown:
        axis.set_xlim(min(r.low for r in shown) / 2, max(r.high for r in shown) * 8)
        axis.set_ylim(-0.6, len(shown) - 0.4)
        axis.grid(axis="x", lw=0.4, color="0.85")
    axis.set(xscale="log", title=case, xlabel="smallest ESS over parameters per second (1/s)")


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
    axis.set(xscale="log", yscale="log", title="log likelihood with gradient, one core")
    axis.set(xlabel="number of observations n", ylabel="time of one evaluation (s)")
    axis.legend(frameon=False, fontsize=7)
