"""What a study of varying coefficients found: errors of curves, coverage of bands, size and power of the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from scipy import stats

from comparisons.curves.estimators import LEVELS
from comparisons.curves.figures import COLOURS
from comparisons.curves.regimes import BLOCKS
from comparisons.report import coverage, figures
from comparisons.study.contract import FAILED

Rows = Sequence[dict[str, object]]
SIZE = 0.05  # of the tests
LINE = 0.24  # height of a line of a figure, inches
POINT = {"fmt": "o", "ms": 4, "capsize": 2}


def table(rows: Rows) -> str:
    """Three tables: root average squared errors, coverage of whole curves, and rejections of constant slopes."""
    kept = [row for row in rows if row["status"] not in FAILED]
    return "\n\n".join([_errors(kept), _coverage(kept), _tests(kept)])


def groups(rows: Rows) -> dict[tuple[str, str], list[dict[str, object]]]:
    """Rows by regime and estimator, in the order in which they come; the estimator with n where sizes are several."""
    several = len({row["n"] for row in rows}) > 1
    out: dict[tuple[str, str], list[dict[str, object]]] = {}
    for row in rows:
        name = f"{row['estimator']}, n = {row['n']}" if several else str(row["estimator"])
        out.setdefault((str(row["regime"]), name), []).append(row)
    return out


def median_and_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Median and its 95% interval, between order statistics: single failed fits don't move it; NaN ends if too few."""
    median = float(np.median(values))
    low, high = stats.quantile_test(values, q=median).confidence_interval(LEVELS[-1])
    return median, float(low), float(high)


def with_error(values: Sequence[float]) -> str:
    """Mean and its standard error, to read."""
    array = np.asarray(values, dtype=float)
    error = f"{array.std(ddof=1) / np.sqrt(len(array)):.3f}" if len(array) > 1 else "-"
    return f"{array.mean():.3f} ({error})"


def with_interval(value: float, low: float, high: float) -> str:
    """Value and its interval, to read."""
    return f"{value:.3f} ({low:.3f}, {high:.3f})"


def _errors(rows: Rows) -> str:
    blocks = [block for block in BLOCKS if any(f"error_{block}" in row for row in rows)]
    head = "".join(f"{block + ' mean (s.e.)':>26}{'median (95%)':>22}" for block in blocks)
    lines = [f"{'RASE':<32}{'data sets':>10}" + head]
    for (regime, estimator), mine in groups(rows).items():
        line = f"{regime + ', ' + estimator:<32}{len(mine):>10}"
        for block in blocks:
            errors = [row[f"error_{block}"] for row in mine]
            line += f"{with_error(errors):>26}{with_interval(*median_and_interval(errors)):>22}"
        lines.append(line)
    return "\n".join(lines)


def kinds(rows: Rows) -> list[str]:
    """Kinds of bands tried in some rows, in the order in which they come; of some kinds all may be missing."""
    keys = [key.split() for row in rows for key in row if key.startswith("missing ")]
    return list(dict.fromkeys(" ".join(words[1:-1]) for words in keys))


def missing(rows: Rows, kind: str, levels: Sequence[float] = LEVELS) -> float:
    """Share of a kind's bands that there are not: infinitely wide somewhere."""
    return float(np.mean([row[f"missing {kind} {level:g}"] for row in rows for level in levels]))


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
            line = f"{f'{regime}, {estimator}, {kind}':<56}" + "".join(f"{cell:>18}" for cell in cells)
            lines.append(line + f"{missing(mine, kind):>10.1%}")
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
            refused = sum("glrt_refused" in row for row in mine)
            line = f"{f'{regime} ({word}), {estimator}':<42}" + "".join(f"{cell:>18}" for cell in cells)
            lines.append(line + (f"   {refused} data sets left out, whose fits are none to test" if refused else ""))
    return "\n".join(lines)


@mpl.rc_context(figures.STYLE)
def figure(rows: Rows, level: float = LEVELS[-1]) -> Figure:
    """Errors of each estimator in every regime, and coverage of each kind of band where all curves vary.

    Parameters
    ----------
    rows : sequence of dict
    level : float
        Of the bands, one of LEVELS.
    """
    kept = [row for row in rows if row["status"] not in FAILED]
    blocks = [block for block in BLOCKS if any(f"error_{block}" in row for row in kept)]
    errors = groups(kept)
    bands = [
        (name, kind, mine) for (regime, name), mine in errors.items() for kind in kinds(mine) if regime == "curves"
    ]
    heights = 1.3 + LINE * len({name for _, name in errors}), 1.2 + LINE * len(bands)
    page = Figure(figsize=(3.2 * len(blocks) + 3.0, sum(heights)), layout="constrained")
    upper, lower = page.subfigures(2, 1, height_ratios=heights)
    _draw_errors(upper, errors, blocks)
    _draw_coverage(lower, bands, blocks, level)
    return page


def _draw_errors(page: SubFigure, cells: Mapping[tuple[str, str], Rows], blocks: Sequence[str]) -> None:
    regimes, names = (list(dict.fromkeys(key[k] for key in cells)) for k in (0, 1))
    panels = page.subplots(1, len(blocks), sharey=True, squeeze=False)[0]
    for axis, block in zip(panels, blocks, strict=True):
        for k, regime in enumerate(regimes):
            mine = {name: rows for (where, name), rows in cells.items() if where == regime}
            places = [-names.index(name) - 0.25 * k for name in mine]
            found = [median_and_interval([row[f"error_{block}"] for row in rows]) for rows in mine.values()]
            medians, low, high = np.array(found).T
            bars = np.nan_to_num([medians - low, high - medians])
            axis.errorbar(medians, places, xerr=bars, color=COLOURS[k], label=f"regime {regime}", **POINT)
        axis.set(title=block, xlabel="median RASE")
        axis.set_xlim(left=0)
        axis.locator_params(axis="x", nbins=5)
    _name_lines(panels[0], names)
    page.suptitle("Root average squared errors (bars: 95%, over data sets)", fontsize=10)
    page.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)


def _draw_coverage(
    page: SubFigure, lines: Sequence[tuple[str, str, Rows]], blocks: Sequence[str], level: float
) -> None:
    seen = list(dict.fromkeys(kind for _, kind, _ in lines))
    panels = page.subplots(1, len(blocks), sharey=True, squeeze=False)[0]
    for axis, block in zip(panels, blocks, strict=True):
        axis.axvline(level, color="0.6", lw=3, alpha=0.6, zorder=0)
        for place, (_, kind, mine) in enumerate(lines):
            shares = held(mine, kind, level, block)
            if len(shares):
                value, low, high = coverage.share(shares)
                colour = COLOURS[seen.index(kind) % len(COLOURS)]
                axis.errorbar([value], [-place], xerr=[[value - low], [high - value]], color=colour, **POINT)
        axis.set(title=block, xlim=(-0.03, 1.03), xlabel="share of whole curves held")
    lacking = [missing(mine, kind, [level]) for _, kind, mine in lines]
    notes = [f" (none in {share:.0%})" if share else "" for share in lacking]
    _name_lines(panels[0], [f"{name}, {kind}{note}" for (name, kind, _), note in zip(lines, notes, strict=True)])
    page.suptitle(
        f"Coverage of simultaneous {level:.0%} bands, where there are any, in the regime curves (bars: 95%, Wilson)",
        fontsize=10,
    )


def _name_lines(axis: Axes, names: Sequence[str]) -> None:
    axis.set_yticks(-np.arange(len(names)), names, fontsize=7)
    axis.set_ylim(-len(names) + 0.4, 0.6)
