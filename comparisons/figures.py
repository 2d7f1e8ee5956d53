"""Figures of a study. Colours are Okabe and Ito's, told apart by colour-blind readers too."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from comparisons import rates, report
from comparisons.study import Regime, Study

STYLES = {
    "MLE": {"color": "#0072B2", "marker": "o"},
    "posterior mean": {"color": "#D55E00", "marker": "s"},
    "posterior, expected": {"color": "#009E73", "marker": "^"},
}
SYMBOLS = {"tau": r"$e^{\tau}$", "beta": r"$\beta$", "eta": r"$\eta$"}


def rate_plot(rows: report.Rows, study: Study, path: Path) -> Path:
    """Median error against n, a row of panels for each regime, with slopes, the bound and the theory's slope.

    Parameters
    ----------
    rows : sequence of dict
    study : Study
    path : Path
        Where to write; PNG or SVG by its suffix.

    Returns
    -------
    Path
    """
    parameters = list(study.regimes[0].moe.fields)
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(3.4 * len(parameters), 3.1 * len(study.regimes) + 0.9), layout="constrained")
        axes = figure.subplots(len(study.regimes), len(parameters), squeeze=False, sharex=True)
        for regime, line in zip(study.regimes, axes, strict=True):
            for parameter, axis in zip(parameters, line, strict=True):
                _panel(axis, rows, study, regime, parameter)
            line[0].set_ylabel(f"{regime.name}\n({regime.title})\n\nmedian error")
        for axis in axes[-1]:
            axis.set_xlabel("sample size n")
        handles = dict(zip(*reversed(axes[0, 0].get_legend_handles_labels()), strict=True))
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False)
        figure.suptitle(f"{study.title}\nbars: 95% bootstrap intervals; numbers: log-log slopes", fontsize=10)
        figure.savefig(path, dpi=150)
    return path


def _panel(axis: mpl.axes.Axes, rows: report.Rows, study: Study, regime: Regime, parameter: str) -> None:
    notes = []
    for c in report.curves(rows, study, regime, parameter):
        if c.label not in STYLES:
            continue
        low, high = _interval(c)
        bars = [c.medians - low, high - c.medians]
        axis.errorbar(c.sizes, c.medians, yerr=bars, label=c.label, lw=1.3, ms=4, capsize=2, **STYLES[c.label])
        if c.slope:
            notes.append((f"{c.slope.value:+.2f}", STYLES[c.label]["color"]))
    sizes = sorted({n for counts in study.sizes.values() for n in counts})
    limit = rates.bound(regime, sizes)[parameter]
    axis.plot(sizes, limit, "k--", lw=1.2, label="Cramér–Rao bound (median of the efficient limit)")
    notes.append((f"{rates.ols_slope(sizes, limit[:, None])[0]:+.2f}", "black"))
    exponent = regime.exponents[parameter]
    theory = limit[-1] * (np.array(sizes) / sizes[-1]) ** exponent
    axis.plot(sizes, theory, color="0.6", lw=3, alpha=0.6, zorder=0, label="slope of the theorem")
    axis.set(xscale="log", yscale="log", title=f"{SYMBOLS.get(parameter, parameter)}   (theorem: {exponent:+.3f})")
    _tidy(axis, np.concatenate([limit, *(c.medians for c in report.curves(rows, study, regime, parameter))]))
    for i, (text, colour) in enumerate(notes):
        axis.text(0.97, 0.95 - 0.09 * i, text, color=colour, transform=axis.transAxes, ha="right", va="top")


def _tidy(axis: mpl.axes.Axes, values: np.ndarray) -> None:
    """Plain numbers at 1, 2, 5; limits by the medians, so that one outlier's bar does not flatten the rest."""
    axis.set_ylim(0.3 * values.min(), 5.0 * values.max())
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def _interval(c: report.Curve) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    resampled = [np.median(rng.choice(e, (rates.RESAMPLES, len(e))), axis=1) for e in c.errors]
    low, high = np.quantile(np.array(resampled), [0.025, 0.975], axis=1)
    return low, high
