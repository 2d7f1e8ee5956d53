"""The study of the blood cells: both estimators are run, and said in a table and a figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from comparisons.curves import blood, blood_figure
from comparisons.curves.blood_fits import GROUPS, LEVEL, Result, run
from comparisons.report import files
from mle.kernel import glrt


def table(result: Result) -> str:
    """Held-out log scores, slopes with bands, the test, the gate's verdict, and the last group's share of each type."""
    question = result.question
    head = (
        f"cells: counts of {blood.RESPONSE} on log {blood.COVARIATE} along a score of oxidative phosphorylation, "
        f"{len(question.y)} cells of one donor, {GROUPS} latent groups"
    )
    parts = [_scores(result), _slopes(result), _verdicts(result), _types(result)]
    return "\n\n".join(["\n".join([head, *parts[0]]), *("\n".join(lines) for lines in parts[1:])])


def _scores(result: Result) -> list[str]:
    lines = [f"{'groups':<10}{'bandwidth':>10}{'held-out log score a cell':>28}{f'above {GROUPS} groups (s.e.)':>28}"]
    for k, each in result.held_out.items():
        gain = each - result.held_out[GROUPS]
        error = gain.std(ddof=1) / np.sqrt(len(gain))
        above = "" if k == GROUPS else f"{gain.mean():+.4f} ({error:.4f})"
        lines.append(f"{k:<10}{result.selections[k].best:>10.2f}{each.mean():>28.4f}{above:>28}".rstrip())
    return lines


def _slopes(result: Result) -> list[str]:
    grid = result.fit.grid
    places = [int(np.abs(grid - u).argmin()) for u in (0.1, 0.5, 0.9)]
    lines = [
        f"{f'slope [{LEVEL:.0%} band of the whole curve]':<40}" + "".join(f"{f'u = {grid[g]:.2f}':>24}" for g in places)
    ]
    for c in range(GROUPS):
        for name, band in result.bands.items():
            level, low, high = (part["alpha"][:, c, 1] for part in (band.fit.params, band.lower, band.upper))
            cells = "".join(f"{f'{level[g]:+.2f} [{low[g]:+.2f}, {high[g]:+.2f}]':>24}" for g in places)
            lines.append(f"{f'group {c}, {name}':<40}{cells}")
    cells = "".join(f"{f'{result.pooled[g]:+.2f}':>24}" for g in places)
    return [*lines, f"{'one group for all cells, kernel':<40}{cells}"]


def _verdicts(result: Result) -> list[str]:
    problems = [f"{name}: {'; '.join(band.problems)}" for name, band in result.bands.items() if band.problems]
    tested = f"not tested. {result.test}" if isinstance(result.test, glrt.Unsound) else result.test
    return [
        f"kernel estimate, h = {result.fit.h:.2g}: {result.fit.status}",
        *problems,
        f"constant slopes, h = {result.selections[GROUPS].best:.2g}: {tested}",
        f"posterior, sampling gate: {result.verdict}",
    ]


def _types(result: Result) -> list[str]:
    last = GROUPS - 1
    lines = [
        f"{f'published type: mean p(group {last})':<40}{'cells':>8}" + "".join(f"{n:>12}" for n in result.memberships)
    ]
    shares, types = result.memberships, result.question.types
    for one in sorted(np.unique(types), key=lambda t: -shares["posterior"][types == t].mean()):
        mine = types == one
        lines.append(f"{one:<40}{mine.sum():>8}" + "".join(f"{p[mine].mean():>12.2f}" for p in shares.values()))
    return lines


def study(folder: Path, quick: bool = False) -> tuple[str, Path]:
    """Run, and return the table and the path of the figure: the study ``vc-cells``."""
    question = blood.question(blood.load())
    files.folder(folder)
    result = run(question, quick=quick)
    return table(result), blood_figure.figure(result, folder / "cells.png")
