"""Rates of each parameter by the number of atoms in the Voronoi cell, where over-fitting makes them slow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayes_moe.theory.voronoi import RBAR
from comparisons.report import rates
from comparisons.report.summary import POINT, Rows
from comparisons.study.contract import FAILED
from comparisons.study.plan import Regime, Study
from comparisons.study.rows import OCCUPANCY, PARAMETERS

FEWEST = 5  # cells at a size, below which it is left out of a slope


@dataclass(frozen=True)
class CellRate:
    """Slope of one parameter's error over the cells that hold so many atoms.

    Parameters
    ----------
    parameter : str
    atoms : int
        Atoms in the cell.
    vanishing : bool or None
        Whether these are the cells with c0_j = 0, or the others; None where it makes no difference.
    theory : float
        What the theorem says of the slope.
    corrected : float
        What it would be with the corrected loss: see :func:`bayes_moe.theory.voronoi.pieces`.
    slope : Slope or None
        None where fewer than two sizes have FEWEST such cells.
    sizes, counts : tuple of int
        The sizes, and how many cells each had.
    """

    parameter: str
    atoms: int
    vanishing: bool | None
    theory: float
    corrected: float
    slope: rates.Slope | None
    sizes: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def title(self) -> str:
        """The parameter, and which cells."""
        words = {None: "", True: ", c0 = 0", False: ", c0 != 0"}
        return self.parameter + words[self.vanishing]


def exponent(parameter: str, atoms: int, *, vanishing: bool = False) -> float:
    """Theoretical exponent of n for the error of one parameter, by the number of atoms in its cell.

    Parameters
    ----------
    parameter : str
    atoms : int
    vanishing : bool
        Whether c0_j = 0 in that cell: then ``a`` has 1 / rbar, and 1/4 else. The corrected loss has 1 / rbar always.

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


def cell_rates(rows: Rows, regime: Regime, estimator: str) -> list[CellRate]:
    """Slope of the mean error of each parameter, for each number of atoms that cells hold.

    The error is sum_(A_j) pi_i |D theta_i|, that of :func:`comparisons.gaussian.regimes.voronoi_losses`. All cells with
    so many atoms count alike, whichever true atom they belong to, but where theory tells those with c0_j = 0 apart.
    Cells of one data set depend on each other: intervals resample data sets, each with all its cells.

    Parameters
    ----------
    rows : sequence of dict
        Of a store.
    regime : Regime
    estimator : str
    """
    mine = _mine(rows, regime, estimator)
    kinds = sorted({kind for row in mine for kind in _kinds(row, regime) if kind[0]})
    return [
        _rate(mine, regime, parameter, atoms, which)
        for atoms in dict.fromkeys(held for held, _ in kinds)
        for parameter in PARAMETERS
        for which in _told_apart(parameter, atoms, [vanishing for held, vanishing in kinds if held == atoms])
    ]


def records(rows: Rows, study: Study) -> list[dict[str, object]]:
    """Return the slopes of every regime and estimator as flat records, for tables.

    Parameters
    ----------
    rows : sequence of dict
        Of a store.
    study : Study

    Returns
    -------
    list of dict
        regime, estimate, atoms, parameter, slope with its interval (low, high), theory and corrected; ``n_min`` to
        ``n_max`` are the sizes with enough such cells, ``fewest`` and ``most`` how many a size had.
    """
    return [
        {"regime": regime.name, "estimate": POINT.get(name, name), "atoms": c.atoms, "parameter": c.title}
        | {"slope": c.slope.value, "low": c.slope.low, "high": c.slope.high}
        | {"theory": c.theory, "corrected": c.corrected, "n_min": c.sizes[0], "n_max": c.sizes[-1]}
        | {"fewest": min(c.counts), "most": max(c.counts)}
        for regime in study.regimes
        for name in study.settings
        for c in cell_rates(rows, regime, name)
        if c.slope
    ]


def occupancy(row: dict[str, object]) -> list[int]:
    """Number of atoms in each cell, of a fit with one draw."""
    return [round(float(row[f"{OCCUPANCY}{j}"])) for j in range(_cells(row))]


def shares(rows: Rows, regime: Regime, estimator: str) -> dict[tuple[int, ...], float]:
    """Share of fits with each occupancy of the cells, in order of the true atoms, the most frequent first."""
    mine = _mine(rows, regime, estimator)
    found = [tuple(occupancy(row)) for row in mine]
    return {held: found.count(held) / len(found) for held in sorted(set(found), key=lambda one: -found.count(one))}


def _mine(rows: Rows, regime: Regime, estimator: str) -> list[dict[str, object]]:
    wanted = (regime.name, estimator)
    return [r for r in rows if (r["regime"], r["estimator"]) == wanted and r["status"] not in FAILED]


def _cells(row: dict[str, object]) -> int:
    return sum(name.startswith(OCCUPANCY) for name in row)


def _kinds(row: dict[str, object], regime: Regime) -> list[tuple[int, bool]]:
    """Atoms of each cell, and whether c0_j = 0 there."""
    held = occupancy(row)
    return list(zip(held, regime.vanishing(int(row["n"])), strict=True)) if held else []


def _told_apart(parameter: str, atoms: int, found: list[bool]) -> list[bool | None]:
    """Which cells to look at apart: those with c0_j = 0 and the others, if their exponents differ; or all, as None."""
    same = exponent(parameter, atoms) == exponent(parameter, atoms, vanishing=True)
    return [None] if same else found


def _rate(rows: Rows, regime: Regime, parameter: str, atoms: int, vanishing: bool | None) -> CellRate:
    errors: dict[int, list[np.ndarray]] = {}  # of each data set with such cells
    for row in rows:
        mine = [j for j, (held, zero) in enumerate(_kinds(row, regime)) if held == atoms and vanishing in (None, zero)]
        if mine:
            values = np.array([row[f"error_{parameter}_{j}"] for j in mine], dtype=float)
            errors.setdefault(int(row["n"]), []).append(values)
    kept = {n: sets for n, sets in sorted(errors.items()) if sum(map(len, sets)) >= FEWEST}
    found = rates.pooled_slope(list(kept), list(kept.values())) if len(kept) > 1 else None
    sizes, counts = tuple(kept), tuple(sum(map(len, sets)) for sets in kept.values())
    theory, corrected = (exponent(parameter, atoms, vanishing=zero) for zero in (bool(vanishing), True))
    return CellRate(parameter, atoms, vanishing, theory, corrected, found, sizes, counts)


def table(rows: Rows, regime: Regime, estimator: str) -> str:
    """Slopes by atoms and parameter as lines of text, and how often each occupancy came."""
    lines = [f"{'atoms':>5}  {'parameter':<12}{'slope [95% interval]':<24}{'theory':>8}{'corrected':>11}  cells, sizes"]
    for found in cell_rates(rows, regime, estimator):
        ranges = (f"{min(part):,} to {max(part):,}" for part in (found.counts, found.sizes) if part)
        counts, said = ", ".join(ranges), str(found.slope) if found.slope else "-"
        theory = f"{found.theory:>+8.3f}{found.corrected:>+11.3f}"
        lines.append(f"{found.atoms:>5}  {found.title:<12}{said:<24}{theory}  {counts}")
    held = ", ".join(f"{key}: {value:.0%}" for key, value in shares(rows, regime, estimator).items())
    return "\n".join([*lines, f"atoms in the cells: {held}"])
