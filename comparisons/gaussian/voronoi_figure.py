"""Slopes by the number of atoms in a Voronoi cell, beside the theorem's: a picture of ``cells.csv``."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from comparisons.gaussian.voronoi_rates import PARAMETERS
from comparisons.report import figures

Records = Sequence[dict[str, object]]
STYLES = {1: ("#0072B2", "o", "one"), 2: ("#D55E00", "s", "two"), 3: ("#009E73", "^", "three")}
SYMBOLS = {"pi": r"$\pi$", "Gamma": r"$\Gamma$", "nu": r"$\nu$"}
LINE = 0.24  # height of one slope, inches
LIMITS = (-0.9, 0.1)  # of slopes, at least


@mpl.rc_context(figures.STYLE)
def figure(records: Records) -> Figure | None:
    """A panel for each estimate and regime, a line for each parameter and number of atoms; None without records.

    Parameters
    ----------
    records : sequence of dict
        From :func:`comparisons.gaussian.voronoi_rates.records`.
    """
    panels = list(dict.fromkeys((r["estimate"], r["regime"]) for r in records))
    if not panels:
        return None
    held = [[r for r in records if (r["estimate"], r["regime"]) == panel] for panel in panels]
    rows = -(-len(panels) // 3)
    height = LINE * sum(max(map(len, held[3 * i : 3 * i + 3])) for i in range(rows)) + 0.8 * rows + 1.0
    page = Figure(figsize=(3.4 * min(3, len(panels)), height), layout="constrained")
    axes = page.subplots(rows, min(3, len(panels)), squeeze=False, sharex=True).ravel()
    for axis, (estimate, regime), mine in zip(axes, panels, held, strict=False):
        _panel(axis, mine)
        axis.set_title(f"{regime}: {estimate}", fontsize=9)
        axis.set_xlabel("slope of log error on log n")
    for axis in axes[len(panels) :]:
        axis.axis("off")
    atoms = sorted({r["atoms"] for r in records})
    handles = [_mark(count) for count in atoms]
    handles.append(Line2D([], [], color="0.5", marker="|", ms=9, mew=3, ls="", label="theorem"))
    page.suptitle(
        "Slopes of mean errors by atoms in the Voronoi cell (bars: 95%; none where tails are too heavy)", fontsize=10
    )
    page.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return page


def _panel(axis: Axes, records: Records) -> None:
    mine = sorted(records, key=lambda r: (PARAMETERS.index(str(r["parameter"]).split(",")[0]), r["atoms"]))
    for place, r in enumerate(mine):
        colour, marker, _ = _style(int(r["atoms"]))
        ends = [[r["slope"] - r["low"]], [r["high"] - r["slope"]]]
        axis.errorbar([r["slope"]], [place], xerr=ends, fmt=marker, color=colour, ms=4, capsize=2)
        axis.plot([r["theory"]], [place], marker="|", ms=9, mew=3, color="0.5", alpha=0.7, zorder=0)
    labels = [_label(str(r["parameter"])) for r in mine]
    axis.set_yticks(range(len(mine)), labels, fontsize=8)
    ends = np.array([[r["slope"], r["low"], r["high"]] for r in mine])  # NaN where a slope has no interval
    axis.set(ylim=(len(mine) - 0.5, -0.5), xlim=(min(LIMITS[0], np.nanmin(ends)), max(LIMITS[1], np.nanmax(ends))))


def _label(title: str) -> str:
    name, _, rest = title.partition(",")
    words = rest.strip().replace("c0", r"$c^0$").replace("!=", "≠")
    return SYMBOLS.get(name, f"${name}$") + (f" ({words})" if words else "")


def _style(atoms: int) -> tuple[str, str, str]:
    return STYLES.get(atoms, (*figures.OTHER.values(), str(atoms)))


def _mark(atoms: int) -> Line2D:
    colour, marker, word = _style(atoms)
    return Line2D([], [], color=colour, marker=marker, ls="", ms=4, label=f"{word} in the cell")
