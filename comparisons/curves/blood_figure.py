"""The blood cells, drawn: coefficient curves of both estimators with bands, and whose cells the latent groups hold."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import NullLocator

from bayes_moe.varying.bands import Bands
from comparisons.curves import blood
from comparisons.curves.blood_fits import GROUPS, LEVEL, Result
from comparisons.report.figures import STYLE, save

ESTIMATES = {"kernel, bootstrap": ("#0072B2", "kernel estimate"), "posterior": ("#D55E00", "posterior mean")}
DASHED = "kernel, asymptotic"
FAMILIES = {  # of the published labels: names as drawn, and colours of Okabe and Ito
    "CD14+ Monocyte": ("CD14+ monocytes", "#D55E00"),
    "Dendritic": ("dendritic", "#E69F00"),
    "CD19+ B": ("B", "#009E73"),
    "CD56+ NK": ("NK", "#CC79A7"),
    "CD34+": ("CD34+", "#000000"),
}
OTHERS = ("T, six labels", "#56B4E9")
COLUMNS = ("alpha level", "alpha slope", "delta")
TITLES = {
    "alpha level": f"log share of {blood.RESPONSE}, %",
    "alpha slope": f"slope in log {blood.COVARIATE}, a sd",
    "delta": "log k: more is less spread",
}
JITTER = 0.04
PLACE = "u: place by score, 0 to 1"
PER_CENT = (0, 0.1, 0.3, 1, 3)


def figure(result: Result, path: Path) -> Path:
    """Curves of all coefficients above; below, the response, memberships and types.

    Parameters
    ----------
    result : Result
    path : Path
    """
    with mpl.rc_context(STYLE | {"axes.titlesize": 9}):
        page = Figure(figsize=(12, 9), layout="constrained")
        above, below = page.subfigures(2, 1, height_ratios=[1.5, 1])
        _curves(above, result)
        _cells(below, result)
        page.suptitle(
            f"{blood.RESPONSE} and {blood.COVARIATE} in {len(result.question.y)} blood cells of one donor, "
            f"{GROUPS} latent groups that are told no type; u orders cells by oxidative phosphorylation",
            fontsize=11,
        )
        save(page, path)
    return path


def _curves(page: SubFigure, result: Result) -> None:
    axes = page.subplots(GROUPS, len(COLUMNS) + 1, sharex=True)
    for c, line in enumerate(axes):
        for axis, column in zip(line, COLUMNS, strict=False):
            name, place = (column, (c,)) if column == "delta" else ("alpha", (c, int(column == "alpha slope")))
            _curve(axis, result, name, place)
            axis.set_title(f"group {c}: {TITLES[column]}")
    for row, title in enumerate((f"gate: log odds of group {GROUPS - 1}", "gate: slope in log total, a sd")):
        _curve(axes[row, -1], result, "beta", (0, row))
        axes[row, -1].set_title(title)
    for row, slope in enumerate(axes[:, 1]):
        label = "one group for all cells" if row == 0 else None
        slope.plot(result.fit.grid, result.pooled, ":", color="black", lw=1.5, label=label)
        slope.axhline(0, color="0.7", lw=0.8, zorder=0)
        slope.sharey(axes[0, 1])
    axes[0, 1].autoscale(axis="y")
    for axis in axes[-1]:
        axis.set_xlabel(PLACE)
    handles = axes[0, 1].get_legend_handles_labels()
    page.legend(*handles, loc="outside lower center", ncols=4, frameon=False)


def _curve(axis: Axes, result: Result, name: str, place: tuple[int, ...]) -> None:
    def of(part: dict[str, np.ndarray]) -> np.ndarray:
        return part[name][(slice(None), *place)]

    grid = result.fit.grid
    for key, (colour, label) in ESTIMATES.items():
        band: Bands = result.bands[key]
        axis.fill_between(grid, of(band.lower), of(band.upper), color=colour, alpha=0.2, lw=0)
        axis.plot(grid, of(band.fit.params), color=colour, label=f"{label}, {LEVEL:.0%} {band.method} band")
    dashed = result.bands[DASHED]
    for edge, label in ((dashed.lower, f"{LEVEL:.0%} asymptotic band"), (dashed.upper, None)):
        axis.plot(grid, of(edge), "--", color=ESTIMATES["kernel, bootstrap"][0], lw=0.8, label=label)


def _cells(page: SubFigure, result: Result) -> None:
    left, middle, right = page.subplots(1, 3, width_ratios=[1, 1, 0.8])
    question = result.question
    share = result.memberships["posterior"]
    noise = np.random.default_rng(0).uniform(-JITTER, JITTER, len(share))
    for mine, label, colour in _families(question.types):
        dots = {"s": 9, "color": colour, "alpha": 0.7, "lw": 0}
        left.scatter(question.u[mine], (question.y / question.size)[mine], label=label, **dots)
        middle.scatter(question.u[mine], (share + noise)[mine], **dots)
    left.set_yscale("symlog", linthresh=0.1)
    left.set_yticks(PER_CENT, [f"{share:g}" for share in PER_CENT])
    left.yaxis.set_minor_locator(NullLocator())
    left.set(title="cells; colour: published type (not told)", ylabel=f"{blood.RESPONSE}, % of the cell's molecules")
    last = GROUPS - 1
    middle.set(title="posterior memberships, spread a little", ylabel=f"p(group {last} | cell)", ylim=(-0.08, 1.08))
    for axis in (left, middle):
        axis.set_xlabel(PLACE)
    _types(right, result)
    page.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False, markerscale=2)


def _families(types: np.ndarray) -> list[tuple[np.ndarray, str, str]]:
    """Mask, name and colour of each family of labels: all T cells are one; large ones first, so that none hides."""
    rest = ~np.isin(types, list(FAMILIES))
    found = [(types == label, *named) for label, named in FAMILIES.items()] + [(rest, *OTHERS)]
    return sorted((one for one in found if one[0].any()), key=lambda one: -one[0].sum())


def _types(axis: Axes, result: Result) -> None:
    types, posterior = result.question.types, result.memberships["posterior"]
    order = sorted(np.unique(types), key=lambda one: posterior[types == one].mean())
    for name, marker, colour in (("kernel", "s", "#0072B2"), ("posterior", "o", "#D55E00")):
        means = [result.memberships[name][types == one].mean() for one in order]
        axis.plot(means, range(len(order)), marker, color=colour, label=name, ms=5, alpha=0.8)
    axis.set_yticks(range(len(order)), [f"{one} ({(types == one).sum()})" for one in order], fontsize=7)
    axis.set(xlim=(-0.03, 1.03), xlabel=f"mean p(group {GROUPS - 1})", title="by published type (cells)")
    axis.legend(frameon=False, fontsize=8, loc="lower right")
