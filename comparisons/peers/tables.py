"""The rows of a bench as a table that reads in a terminal, and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from comparisons.peers.analysis import Row
from comparisons.peers.jobs import title
from comparisons.report import files

TITLES = {
    "posterior": "Posterior: min-ESS per second, two chains on two cores (mode finding and warm-up included)",
    "first": "Time to the first result of one data set, in a fresh process with empty caches",
    "likelihood": "Log likelihood with gradient, one core, double precision",
    "mle": "Maximum likelihood, all starts, and ours at infinity too (range over data sets)",
    "many": "Many data sets: ours is MLE and NUTS each, NumPyro is a new MCMC for each",
}


def table(rows: Sequence[Row]) -> str:
    """Medians with their range, a block for each part."""
    return "\n\n".join(
        _block(part, [r for r in rows if r.part == part]) for part in dict.fromkeys(r.part for r in rows)
    )


def _block(part: str, rows: Sequence[Row]) -> str:
    lines = [TITLES[part]]
    for case in dict.fromkeys(r.case for r in rows):
        lines.append(f"  {case}")
        lines += [f"    {_line(r)}" for r in rows if r.case == case]
    return "\n".join(lines)


def _line(r: Row) -> str:
    head = f"{title(r.method):<18}{r.quantity:<33}"
    if not r.repeats:
        return f"{head}{r.note}"
    number = f"{_plain(r.median, r.unit):>14}"
    spread = f"  [{_plain(r.low)}, {_plain(r.high)}]" if r.repeats > 1 else ""
    return f"{head}{number}{spread}" + (f"  {r.note}" if r.note else "")


def _plain(value: float, unit: str = "") -> str:
    return f"{value:.3g}" + (f" {unit}" if unit else "")


def write_csv(rows: Sequence[Row], path: Path) -> Path:
    """Write one line for each quantity."""
    with files.whole(path) as part, part.open("w", newline="", encoding="utf-8") as sink:
        writer = csv.DictWriter(sink, [f.name for f in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(r) for r in rows)
    return path
