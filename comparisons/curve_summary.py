"""What a study of varying coefficients found: errors of curves, coverage of bands, size and power of the test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from comparisons import figures
from comparisons.curve_estimators import LEVELS
from comparisons.curve_regimes import BLOCKS
from comparisons.store import FAILED

Rows = Sequence[dict[str, object]]
SIZE = 0.05  # of the tests
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito


def table(rows: Rows) -> str:
    """Three tables: root average squared errors, coverage of whole curves, and rejections of constant slopes."""
    kept = [row for row in rows if row["status"] not in FAILED]
    return "\n\n".join([_errors(kept), _coverage(kept), _tests(kept)])


def groups(rows: Rows) -> dict[tuple[str, str], list[dict[str, object]]]:
    """Rows by regime and estimator, in the order in which they come."""
    out: dict[tuple[str, str], list[dict[str, object]]] = {}
    for row in rows:
        out.setdefault((str(row["regime"]), str(row["estimator"])), []).append(row)
    return out


def with_error(values: Sequence[float]) -> str:
    """Mean and its Monte Carlo standard error."""
    array = np.asarray(values, dtype=float)
    error = f"{array.std(ddof=1) / np.sqrt(len(array)):.3f}" if len(array) > 1 else "-"
    return f"{array.mean():.3f} ({error})"


def _errors(rows: Rows) -> str:
    lines = [f"{'mean RASE (s.e.)':<28}{'data sets':>10}" + "".join(f"{block:>16}" for block in BLOCKS)]
    for (regime, estimator), mine in groups(rows).items():
        columns = [f"error_{block}" for block in BLOCKS]
        cells = [with_error([row[c] for row in mine]) if c in mine[0] else "" for c in columns]
        lines.append(f"{regime + ', ' + estimator:<28}{len(mine):>10}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)


def kinds(rows: Rows) -> list[str]:
    """Kinds of bands in some rows, in the order in which they come."""
    keys = [key.split() for row in rows for key in row if key.startswith("holds ")]
    return list(dict.fromkeys(" ".join(words[1:-2]) for words in keys))


def held(rows: Rows, kind: str, level: float, block: str, what: str = "holds") -> np.ndarray:
    """Of each row, the mean over a block's coefficients of whether the band holds the curve, or of its width."""
    prefix = f"{what} {kind} {level:g} {BLOCKS[block]}["
    each = ([value for key, value in row.items() if key.startswith(prefix)] for row in rows)
    return np.array([np.mean(values) for values in each if values])


def _coverage(rows: Rows) -> str:
    head = f"{'whole curves held (s.e.)':<56}" + "".join(f"{f'{b} {lv:.0%}':>18}" for b in BLOCKS for lv in LEVELS)
    lines = [head + f"{'no band':>10}"]
    for (regime, estimator), mine in groups(rows).items():
        for kind in kinds(mine):
            found = [held(mine, kind, level, block) for block in BLOCKS for level in LEVELS]
            cells = [with_error(values) if len(values) else "" for values in found]
            missing = np.mean([row.get(f"missing {kind} {level:g}", 0.0) for row in mine for level in LEVELS])
            line = f"{f'{regime}, {estimator}, {kind}':<56}" + "".join(f"{cell:>18}" for cell in cells)
            lines.append(line + f"{missing:>10.1%}")
    return "\n".join(lines)


def _tests(rows: Rows) -> str:
    methods = ("chi-square", "bootstrap")
    title = f"slopes found to vary, at {SIZE:.0%} (s.e.)"
    lines = [f"{title:<42}" + "".join(f"{method:>18}" for method in methods)]
    for (regime, estimator), mine in groups(rows).items():
        found = [[row[f"p_{method}"] <= SIZE for row in mine if f"p_{method}" in row] for method in methods]
        cells = [with_error(values) if values else "" for values in found]
        if any(cells):
            word = "size" if regime == "null" else "power"
            lines.append(f"{f'{regime} ({word}), {estimator}':<42}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)


def figure(rows: Rows, path: Path, level: float = LEVELS[-1]) -> Path:
    """Coverage of each kind of band, a panel for each block of coefficients, where all curves vary.

    Parameters
    ----------
    rows : sequence of dict
    path : Path
        Where to write.
    level : float
    """
    kept = [row for row in rows if row["status"] not in FAILED and row["regime"] == "curves"]
    lines = [(name, kind, mine) for (_, name), mine in groups(kept).items() for kind in kinds(mine)]
    page = Figure(figsize=(11, 1.5 + 0.22 * len(lines)), layout="constrained")
    panels = page.subplots(1, len(BLOCKS), sharey=True)
    seen = list(dict.fromkeys(kind for _, kind, _ in lines))
    for axis, block in zip(panels, BLOCKS, strict=True):
        for place, (_, kind, mine) in enumerate(lines):
            _dot(axis, -place, held(mine, kind, level, block), COLOURS[seen.index(kind) % len(COLOURS)])
        axis.axvline(level, color="0.6", lw=3, alpha=0.6, zorder=0)
        axis.set(title=block, xlim=(0, 1.05), xlabel="share of whole curves held")
    panels[0].set_yticks(-np.arange(len(lines)), [f"{name}, {kind}" for name, kind, _ in lines], fontsize=7)
    page.suptitle(f"Coverage of simultaneous {level:.0%} bands (bars: 95%)", fontsize=10)
    figures.save(page, path)
    return path


def _dot(axis: Axes, place: float, values: np.ndarray, colour: str) -> None:
    if len(values):
        error = 1.96 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
        axis.errorbar(values.mean(), place, xerr=error, fmt="o", capsize=2, color=colour)
