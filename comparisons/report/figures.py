"""Figures of a study. Colours are Okabe and Ito's, told apart by colour-blind readers too."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from comparisons.report import coverage, files, rates, summary
from comparisons.study.contract import FAILED
from comparisons.study.plan import Regime, Study

STYLES = {
    "MLE": {"color": "#0072B2", "marker": "o"},
    "MLE, near start": {"color": "#56B4E9", "marker": "x", "linestyle": ":"},
    "EM": {"color": "#0072B2", "marker": "o"},
    "EM, near start": {"color": "#56B4E9", "marker": "x", "linestyle": ":"},
    "one EM step": {"color": "#CC79A7", "marker": "+", "linestyle": "--"},
    "posterior mean": {"color": "#D55E00", "marker": "s"},
    "posterior, expected": {"color": "#009E73", "marker": "^"},
}
OTHER = {"color": "#E69F00", "marker": "d"}  # an estimator that a user brought
CONTRACTION = {
    "posterior mean": ("error", {"color": "#D55E00", "marker": "s"}),
    "posterior, expected": ("loss", {"color": "#009E73", "marker": "^"}),
    "posterior, 95% radius": ("radius", {"color": "#CC79A7", "marker": "v"}),
}
# Of each kind of interval: where its bars stand, as a factor of n, so that they do not hide each other; and its style.
INTERVALS = {
    "Wald": (0.94, {"color": "#0072B2", "marker": "o"}),
    "Wald, near start": (0.98, {"color": "#56B4E9", "marker": "x"}),
    "profile": (1.02, {"color": "#009E73", "marker": "^"}),
    "credible": (1.06, {"color": "#D55E00", "marker": "s"}),
}
SYMBOLS = {"tau": r"$e^{\tau}$", "beta": r"$\beta$", "eta": r"$\eta$", "hellinger": "density (Hellinger)"}
BOUND, THEORY = "Cramér–Rao bound (efficient limit)", "slope of the theorem"
LETTERS = 13  # of a title to an inch
SHORT = 10**1.5  # ratio of an axis's ends below which it is labelled at 1, 2 and 5
Held = Mapping[Regime, Collection[str]]  # names of each regime's panels
STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "bayes-moe"}


def save(figure: Figure, *paths: Path) -> None:
    """Write a figure to one or more files, by suffix, the same bytes each time, whole or not at all."""
    for path in paths:
        with files.whole(path) as part:
            figure.savefig(part, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else {})


def _columns(held: Held) -> list[str]:
    """Names that any regime has, in order."""
    return list(dict.fromkeys(name for names in held.values() for name in names))


def _grid(study: Study, held: Held, note: str) -> tuple[Figure, np.ndarray]:
    rows, columns = len(held), len(_columns(held))
    width = 3.4 * columns
    figure = Figure(figsize=(width, 3.1 * rows + 1.0), layout="constrained")
    lines = [textwrap.fill(text, int(LETTERS * width)) for text in (study.title, note)]
    figure.suptitle("\n".join(lines), fontsize=10)
    return figure, figure.subplots(rows, columns, squeeze=False, sharex="row")


def _panels(held: Held, axes: np.ndarray) -> Iterator[tuple[Regime, str, Axes]]:
    """Each panel of :func:`_grid` with its regime (row) and parameter (column); what a regime lacks is hidden."""
    for (regime, names), line in zip(held.items(), axes, strict=True):
        for name, axis in zip(_columns(held), line, strict=True):
            axis.set_visible(name in names)
            if name in names:
                yield regime, name, axis


def _finish(figure: Figure, axes: np.ndarray, held: Held, label: str) -> Figure:
    for regime, line in zip(held, axes, strict=True):
        first = next(axis for axis in line if axis.get_visible())
        first.set_ylabel(f"{regime.name}\n({regime.title})\n\n{label}", fontsize=8)
    for column in axes.T:
        last = next(axis for axis in reversed(column) if axis.get_visible())
        last.set_xlabel("sample size n")
    handles: dict[str, object] = {}
    for axis in axes.flat:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def rate_plot(rows: summary.Rows, study: Study, path: Path) -> Path:
    """Write :func:`rates_figure` of the median error of each parameter.

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
    save(rates_figure(rows, study, {regime: regime.main for regime in _ran(rows, study)}), path)
    return path


@mpl.rc_context(STYLE)
def rates_figure(rows: summary.Rows, study: Study, held: Held | None = None, statistic: str = "median") -> Figure:
    """Error against n, a row of panels for each regime, with slopes, the bound, the theory's slope and the window.

    Parameters
    ----------
    rows : sequence of dict
    study : Study
    held : mapping of Regime to names of errors, optional
        The panels; all that have an exponent by default.
    statistic : "median", "mean" or "rmse"
    """
    held = held or {regime: regime.exponents for regime in _ran(rows, study) if regime.exponents}
    note = f"{statistic} error with 95% bootstrap bands; numbers: log-log slopes"
    if any(regime.scales for regime in held):
        note += f"; shaded: the asymptotic window (bound below {rates.WINDOW:.0%} of the parameter)"
    figure, axes = _grid(study, held, note)
    for regime, name, axis in _panels(held, axes):
        found = [c for c in summary.curves(rows, study, regime, name) if c.label != summary.SPREAD]
        _panel(axis, found, regime, name, statistic, STYLES)
    return _finish(figure, axes, held, f"{statistic} error")


@mpl.rc_context(STYLE)
def contraction_figure(rows: summary.Rows, study: Study) -> Figure | None:
    """How fast the posterior contracts: error of its mean, expected loss, 95% radius; None without posteriors."""
    held = {r: r.exponents for r in _ran(rows, study) if r.exponents and _posteriors(rows, r)}
    if not held:
        return None
    figure, axes = _grid(study, held, "posterior contraction: medians over data sets, with 95% bands and slopes")
    styles = {label: style for label, (_, style) in CONTRACTION.items()}
    for regime, name, axis in _panels(held, axes):
        found = [
            summary.curve(_posteriors(rows, regime), regime, "nuts", f"{kind}_{name}", label)
            for label, (kind, _) in CONTRACTION.items()
        ]
        _panel(axis, found, regime, name, "median", styles)
    return _finish(figure, axes, held, "median loss")


@mpl.rc_context(STYLE)
def coverage_figure(rows: summary.Rows, study: Study) -> Figure | None:
    """Share of 95% intervals that held the truth, against n; None where nothing has intervals."""
    found = {regime: coverage.summarise(rows, regime) for regime in _ran(rows, study)}
    held = {regime: regime.moe.fields for regime, parts in found.items() if parts}
    if not held:
        return None
    note = "share of 95% intervals that hold the truth (bars: 95%, Wilson); the line is best"
    figure, axes = _grid(study, held, note)
    for regime, name, axis in _panels(held, axes):
        axis.axhline(0.95, color="0.6", lw=3, alpha=0.6, zorder=0)
        for kind, (dodge, style) in INTERVALS.items():
            mine = [c for c in found[regime] if (c.kind, c.parameter) == (kind, name)]
            points = [(c.n, c.value, c.low, c.high) for c in mine]
            _bars(axis, points, f"{kind} intervals", dodge, style)
        axis.set(xscale="log", ylim=(0, 1.03), title=SYMBOLS.get(name, name).replace(r"e^{\tau}", r"\tau"))
    return _finish(figure, axes, held, "coverage")


def _bars(
    axis: Axes, points: Sequence[tuple[float, float, float, float]], label: str, dodge: float, style: dict
) -> None:
    """Draw values with their intervals, from points (n, value, low, high)."""
    if points:
        n, value, low, high = np.array(points).T
        bars = [value - low, high - value]
        axis.errorbar(dodge * n, value, yerr=bars, label=label, lw=1.2, ms=4, capsize=2, **style)


@mpl.rc_context(STYLE)
def efficiency_figure(records: Sequence[dict[str, object]], study: Study) -> Figure | None:
    """Root mean square error over the Cramér–Rao bound, against n, from :func:`summary.efficiency`; None without."""
    records = [r for r in records if r["statistic"] == "rmse"]
    shown = {r["regime"] for r in records}
    held = {regime: regime.moe.fields for regime in study.regimes if regime.name in shown}
    if not held:
        return None
    note = "root mean square error over the Cramér–Rao bound (bars: 95%, bootstrap); 1: efficient; shaded: the window"
    figure, axes = _grid(study, held, note)
    for regime, name, axis in _panels(held, axes):
        axis.axhline(1.0, color="0.6", lw=3, alpha=0.6, zorder=0)
        parameter = summary.SYMBOLS.get(name, name)
        mine = [r for r in records if (r["regime"], r["parameter"]) == (regime.name, parameter)]
        for k, label in enumerate(dict.fromkeys(r["estimate"] for r in mine)):
            points = [(r["n"], r["over_bound"], r["low"], r["high"]) for r in mine if r["estimate"] == label]
            _bars(axis, points, label, 1.05 ** (k - 1), STYLES.get(label, OTHER))
        axis.set(xscale="log", yscale="log", title=SYMBOLS.get(name, name))
        ratios = np.array([r["over_bound"] for r in mine if r["over_bound"] > 0] + [0.8, 1.25])
        _tidy(axis, ratios)
        axis.set_ylim(0.8 * ratios.min(), 1.25 * ratios.max())
        _window(axis, regime, sorted({r["n"] for r in mine}))
    return _finish(figure, axes, held, "error over bound")


def _posteriors(rows: summary.Rows, regime: Regime) -> list[dict[str, object]]:
    mine = [r for r in rows if r["regime"] == regime.name and r["estimator"] == "nuts"]
    return [r for r in mine if r["status"] not in FAILED]


def _ran(rows: summary.Rows, study: Study) -> list[Regime]:
    return [regime for regime in study.regimes if summary.sizes_of(rows, regime)]


def _panel(
    axis: Axes, curves: Sequence[summary.Curve], regime: Regime, parameter: str, statistic: str, styles: dict
) -> None:
    notes, values = [], []
    axis.set(xscale="log", yscale="log", autoscaley_on=False)  # limits are set by what is positive
    for c in (c for c in curves if c.sizes):
        style = styles.get(c.label, OTHER)
        low, high = _band(c, statistic)
        axis.fill_between(c.sizes, low, high, color=style["color"], alpha=0.15, lw=0)
        axis.plot(c.sizes, c.values(statistic), label=c.label, lw=1.3, ms=4, **style)
        values.append(c.values(statistic))
        if slope := c.slope(statistic):
            notes.append((str(slope), style["color"]))
    sizes = sorted({n for c in curves for n in c.sizes})
    limit = rates.bound(regime, sizes, statistic).get(parameter)
    if limit is not None:
        axis.plot(sizes, limit, "k--", lw=1.2, label=BOUND)
        values.append(limit)
        if len(sizes) > 1:
            notes.append((f"{rates.ols_slope(sizes, limit[:, None])[0]:+.2f}", "black"))
    whole = [v for v in values if len(v) == len(sizes)]  # the bound comes last
    _theory(axis, sizes, (whole or values)[-1][-1], regime.exponents[parameter])
    axis.set_title(f"{SYMBOLS.get(parameter, parameter)}   (theorem: {regime.exponents[parameter]:+.3f})", fontsize=9)
    _tidy(axis, np.concatenate(values))
    _window(axis, regime, sizes)
    for i, (text, colour) in enumerate(notes):
        axis.text(
            0.98, 0.98 - 0.075 * i, text, color=colour, transform=axis.transAxes, ha="right", va="top", fontsize=8
        )


def _theory(axis: Axes, sizes: Sequence[int], last: float, exponent: float) -> None:
    values = last * (np.array(sizes) / sizes[-1]) ** exponent
    axis.plot(sizes, values, color="0.6", lw=3, alpha=0.6, zorder=0, label=THEORY)


def _window(axis: Axes, regime: Regime, sizes: Sequence[int]) -> None:
    inside = rates.window(regime, sizes)
    if inside:
        axis.axvspan(inside[0] * 0.9, sizes[-1] * 1.1, color="0.93", zorder=-1, lw=0)


def _tidy(axis: Axes, values: np.ndarray) -> None:
    """Plain numbers at 1, 2, 5; limits by the curves, so that one outlier's band does not flatten the rest."""
    values = values[(values > 0) & np.isfinite(values)]
    values = values if len(values) else np.ones(1)
    axis.set_ylim(0.4 * values.min(), 8.0 * values.max())
    _label(axis.yaxis, values.max() / values.min(), "{x:g}")
    low, high = axis.dataLim.intervalx
    if high < SHORT * low:
        _label(axis.xaxis, high / low, "{x:,.0f}")
    axis.xaxis.set_minor_formatter(NullFormatter())


def _label(scale: Axis, ratio: float, form: str) -> None:
    scale.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if ratio < SHORT else (1.0,)))
    scale.set_major_formatter(form)
    scale.set_minor_formatter(NullFormatter())


def _band(c: summary.Curve, statistic: str) -> tuple[np.ndarray, np.ndarray]:
    _, low, high = np.array([rates.level(errors, statistic, among=c.errors) for errors in c.errors]).T
    return low, high
