"""Two results side by side: which of the fits that both hold are the same, and how far their slopes differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from comparisons.report import summary
from comparisons.running.store import Store
from comparisons.study.plan import Cell, Study

Results = tuple[Study, Store]
CELL = ("regime", "n", "replicate", "estimator")


@np.errstate(over="ignore")  # of a square, where an error is large
def table(first: Results, second: Results) -> str:
    """How many fits both hold, how many of them agree, and the slopes of both.

    Parameters
    ----------
    first, second : (Study, Store)
    """
    rows = [store.rows() for _, store in (first, second)]
    names = [
        f"{name}: {store.path}, {len(r)} fits" for name, (_, store), r in zip("AB", (first, second), rows, strict=True)
    ]
    differ = _differences(first[0], second[0], rows)
    return "\n".join([*names, _common(*rows), *differ, "", _slopes((first[0], rows[0]), (second[0], rows[1]))])


def _common(left: summary.Rows, right: summary.Rows) -> str:
    both = [{tuple(r[k] for k in CELL): r | {"seconds": None} for r in rows} for rows in (left, right)]
    shared = both[0].keys() & both[1].keys()
    same = sum(both[0][key] == both[1][key] for key in shared)
    gaps = [
        abs(both[0][key][name] - both[1][key][name])
        for key in shared
        for name in both[0][key].keys() & both[1][key].keys()
        if name.startswith("error_") and all(isinstance(part[key][name], int | float) for part in both)
    ]
    gap = max(gaps, default=0.0)
    return f"{len(shared)} fits in both, {same} of them identical; largest difference of an error {gap:.3g}"


def _differences(first: Study, second: Study, rows: Sequence[summary.Rows]) -> list[str]:
    """A line that says in what the fits that both hold differ by their identity, if they do."""
    left, right = ({Cell.of(r) for r in part} for part in rows)
    pairs = [(first.identity(cell), second.identity(cell)) for cell in left & right]
    names = {name for a, b in pairs for name in a.keys() | b.keys() if a.get(name) != b.get(name)}
    return [f"other fits under the same labels: they differ in {', '.join(sorted(names))}"] if names else []


def _slopes(first: tuple[Study, summary.Rows], second: tuple[Study, summary.Rows]) -> str:
    lines = [f"{'slope of the median error':<52}{'A':>24}{'B':>24}{'A - B':>10}"]
    regimes = {regime.name: regime for regime in second[0].regimes}
    for regime in (r for r in first[0].regimes if r.name in regimes):
        for parameter in regime.main:
            pair = [
                {c.label: c.slope() for c in summary.curves(rows, study, where, parameter)}
                for (study, rows), where in ((first, regime), (second, regimes[regime.name]))
            ]
            for label in (name for name in pair[0] if name in pair[1] and pair[0][name] and pair[1][name]):
                a, b = pair[0][label], pair[1][label]
                title = f"{regime.name}  {summary.SYMBOLS.get(parameter, parameter)}  {label}"
                lines.append(f"{title:<52}{a!s:>24}{b!s:>24}{a.value - b.value:>+10.2f}")
    return "\n".join(lines)
