"""Rates of each parameter by the number of atoms in the Voronoi cell, where over-fitting makes them slow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayes_moe.voronoi import RBAR
from comparisons import rates
from comparisons.store import FAILED
from comparisons.summary import Rows

PARAMETERS = ("pi", "c", "Gamma", "a", "b", "nu")
FEWEST = 5  # cells at a size, below which it is left out of a slope


@dataclass(frozen=True)
class CellRate:
    """Slope of one parameter's error over the cells that hold so many atoms.

    Parameters
    ----------
    parameter : str
    atoms : int
        Atoms in the cell.
    theory : float
        What the theorem says of the slope.
    slope : Slope or None
        None where fewer than two sizes have FEWEST such cells.
    sizes, counts : tuple of int
        The sizes, and how many cells each had.
    """

    parameter: str
    atoms: int
    theory: float
    slope: rates.Slope | None
    sizes: tuple[int, ...]
    counts: tuple[int, ...]


def exponent(parameter: str, atoms: int, *, vanishing: bool = False) -> float:
    """Theoretical exponent of n for the error of one parameter, by the number of atoms in its cell.

    Parameters
    ----------
    parameter : str
    atoms : int
    vanishing : bool
        Whether c0_j = 0 in that cell: then ``a`` has 1 / rbar, as in the corrected loss always, and 1/4 else.

    References
    ----------
    arXiv:2305.07572, with rtilde = rbar.
    """
    r = RBAR[min(atoms, len(RBAR)) - 1]
    if atoms < 2 or parameter == "pi":
        return -0.5
    if parameter in ("c", "b"):
        return -1 / (2 * r)
    return -1 / r if parameter in ("Gamma", "nu") or vanishing else -1 / 4


def cell_rates(rows: Rows, regime: str, estimator: str) -> list[CellRate]:
    """Slope of the mean error of each parameter, for each number of atoms that cells hold.

    The error is sum_(A_j) pi_i |D theta_i|, that of :func:`comparisons.gaussian_regimes.voronoi_losses`. All cells with
    so many atoms count alike, whichever true atom they belong to.

    Parameters
    ----------
    rows : sequence of dict
        Of a store.
    regime, estimator : str
    """
    mine = _mine(rows, regime, estimator)
    held = sorted({atoms for row in mine for atoms in occupancy(row) if atoms})
    return [_rate(mine, parameter, atoms) for atoms in held for parameter in PARAMETERS]


def occupancy(row: dict[str, object]) -> list[int]:
    """Number of atoms in each cell, of a fit with one draw."""
    return [round(float(row[f"error_occupancy_{j}"])) for j in range(_cells(row))]


def shares(rows: Rows, regime: str, estimator: str) -> dict[tuple[int, ...], float]:
    """Share of fits with each occupancy of the cells, in order of the true atoms, the most frequent first."""
    mine = _mine(rows, regime, estimator)
    found = [tuple(occupancy(row)) for row in mine]
    return {held: found.count(held) / len(found) for held in sorted(set(found), key=lambda one: -found.count(one))}


def _mine(rows: Rows, regime: str, estimator: str) -> list[dict[str, object]]:
    return [r for r in rows if (r["regime"], r["estimator"]) == (regime, estimator) and r["status"] not in FAILED]


def _cells(row: dict[str, object]) -> int:
    return sum(name.startswith("error_occupancy_") for name in row)


def _rate(rows: Rows, parameter: str, atoms: int) -> CellRate:
    errors: dict[int, list[float]] = {}
    for row in rows:
        for j, held in enumerate(occupancy(row)):
            if held == atoms:
                errors.setdefault(int(row["n"]), []).append(float(row[f"error_{parameter}_{j}"]))
    kept = {n: np.array(values) for n, values in sorted(errors.items()) if len(values) >= FEWEST}
    found = rates.slope(list(kept), list(kept.values()), "mean") if len(kept) > 1 else None
    sizes, counts = tuple(kept), tuple(len(values) for values in kept.values())
    return CellRate(parameter, atoms, exponent(parameter, atoms), found, sizes, counts)


def table(rows: Rows, regime: str, estimator: str) -> str:
    """Slopes by atoms and parameter as lines of text, and how often each occupancy came."""
    lines = [f"{'atoms':>5}  {'parameter':<10}{'slope [95% interval]':<24}{'theory':>8}  cells at a size, sizes"]
    for found in cell_rates(rows, regime, estimator):
        ranges = (f"{min(part):,} to {max(part):,}" for part in (found.counts, found.sizes) if part)
        counts, said = ", ".join(ranges), str(found.slope) if found.slope else "-"
        lines.append(f"{found.atoms:>5}  {found.parameter:<10}{said:<24}{found.theory:>+8.3f}  {counts}")
    held = ", ".join(f"{key}: {value:.0%}" for key, value in shares(rows, regime, estimator).items())
    return "\n".join([*lines, f"atoms in the cells: {held}"])
