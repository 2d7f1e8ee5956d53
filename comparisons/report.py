"""What a study found, as a table that reads in a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from comparisons import rates
from comparisons.study import Regime, Study

POINT = {"mle": "MLE", "nuts": "posterior mean"}
Rows = Sequence[dict[str, object]]


@dataclass(frozen=True)
class Curve:
    """Errors of one kind against n.

    Parameters
    ----------
    label : str
    sizes : tuple of int
    errors : tuple of ndarray
        For each size, one error a replicate.
    """

    label: str
    sizes: tuple[int, ...]
    errors: tuple[np.ndarray, ...]

    @property
    def medians(self) -> np.ndarray:
        """Median error at each size."""
        return np.array([np.median(e) for e in self.errors])

    @property
    def slope(self) -> rates.Slope | None:
        """Log-log slope; None below two sizes."""
        return rates.slope(self.sizes, self.errors) if len(self.sizes) > 1 else None


def curve(rows: Rows, regime: Regime, estimator: str, column: str, label: str) -> Curve:
    """Collect one column of the finished rows, all that did not end in an error."""
    mine = [r for r in rows if r["regime"] == regime.name and r["estimator"] == estimator and r["status"] != "error"]
    sizes = tuple(sorted({int(r["n"]) for r in mine}))
    errors = tuple(np.array([r[column] for r in mine if r["n"] == n], dtype=float) for n in sizes)
    return Curve(label, sizes, errors)


def curves(rows: Rows, study: Study, regime: Regime, parameter: str) -> list[Curve]:
    """Error of each estimator, and for NUTS the posterior's expected error and its spread."""
    out = [curve(rows, regime, name, f"error_{parameter}", POINT.get(name, name)) for name in study.sizes]
    if "nuts" in study.sizes:
        out.append(curve(rows, regime, "nuts", f"loss_{parameter}", "posterior, expected"))
        out.append(curve(rows, regime, "nuts", f"spread_{parameter}", "posterior, spread"))
    return [c for c in out if c.sizes]


def table(rows: Rows, study: Study) -> str:
    """Median errors by size, slopes with intervals, the bound and the theory."""
    sizes = sorted({n for counts in study.sizes.values() for n in counts})
    parts = [_block(rows, study, regime, sizes) for regime in study.regimes]
    return "\n\n".join([*parts, failures(rows)])


def _block(rows: Rows, study: Study, regime: Regime, sizes: Sequence[int]) -> str:
    head = f"{'median error':<30}" + "".join(f"{f'n={n}':>10}" for n in sizes) + "   slope [95% interval]"
    lines = [f"{regime.name}: {regime.title}", head]
    for parameter, bounds in rates.bound(regime, sizes).items():
        name = "e^tau" if parameter == "tau" else parameter
        for c in curves(rows, study, regime, parameter):
            found = dict(zip(c.sizes, c.medians, strict=True))
            cells = "".join(f"{found[n]:>10.3f}" if n in found else f"{'-':>10}" for n in sizes)
            lines.append(f"{f'{name:<6} {c.label}':<30}{cells}   {c.slope or '-'}")
        cells = "".join(f"{value:>10.3f}" for value in bounds)
        rate = rates.ols_slope(sizes, bounds[:, None])[0]
        lines.append(
            f"{f'{name:<6} Cramér–Rao bound':<30}{cells}   {rate:+.2f} (theory {regime.exponents[parameter]:+.3f})"
        )
    return "\n".join(lines)


def failures(rows: Rows) -> str:
    """One line for each estimator: how many cells, and what went wrong with how many."""
    lines = []
    for estimator in sorted({str(r["estimator"]) for r in rows}):
        mine = [r for r in rows if r["estimator"] == estimator]
        counts = Counter(str(r["status"]) for r in mine)
        bad = ", ".join(f"{count} {status}" for status, count in counts.items() if status != "ok") or "none failed"
        note = f"; {sum(bool(r.get('at_bounds')) for r in mine)} at a bound" if estimator == "mle" else ""
        retried = sum(r.get("attempt", 0) > 0 for r in mine)
        note += f"; {retried} climbed the ladder" if estimator == "nuts" else ""
        lines.append(f"{estimator}: {len(mine)} fits, {bad}{note}")
    return "\n".join(lines)
