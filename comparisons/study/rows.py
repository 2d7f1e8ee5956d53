"""Rows of a results file, checked before anything is made of them: texts that claim to be fits may be anything."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields

from comparisons.study import valid
from comparisons.study.plan import Cell, Regime
from comparisons.study.valid import Invalid

KEY = re.compile(r"[0-9a-f]{64}")
STATUS = 100  # letters
OWN = ("id", "seconds", *(field.name for field in fields(Cell)))  # columns that are not the estimator's
OCCUPANCY = "error_occupancy_"  # column of the atoms in a true atom's cell, before the cell's number
PARAMETERS = ("pi", "c", "Gamma", "a", "b", "nu")  # whose errors are kept by cell
MOST_ATOMS = 10_000
LARGE = 1e150  # error whose square is a number still
MEASURES = ("error", "loss", "radius")


@dataclass(frozen=True)
class Row:
    """One fit, as it was kept.

    Parameters
    ----------
    key : str
    identity : dict
        All that its result depends on.
    cell : Cell
    payload : dict
        The result.
    provenance : dict
        Where, when and with what it was computed.
    """

    key: str
    identity: dict[str, object]
    cell: Cell
    payload: dict[str, object]
    provenance: dict[str, object]

    @property
    def record(self) -> dict[str, object]:
        """All of it, flat; neither a result nor its provenance can say that it is another fit's."""
        own = {"id": self.key, **vars(self.cell), **self.payload, **self.seconds}
        return own | self.provenance | own

    @property
    def seconds(self) -> dict[str, object]:
        """How long it took, where that is known."""
        return {"seconds": self.provenance["seconds"]} if "seconds" in self.provenance else {}


def read(key: object, identity: object, status: object, payload: object, provenance: object) -> Row:
    """Row of the texts of a results file.

    Raises
    ------
    Invalid
        Where they are no fit's.
    """
    if not isinstance(key, str) or not KEY.fullmatch(key):
        raise Invalid("its key must be 64 hexadecimal digits")
    about, result, where = (
        valid.parsed(text, name)
        for text, name in ((identity, "its identity"), (payload, "its result"), (provenance, "its provenance"))
    )
    cell = Cell(
        valid.text(about.get("regime"), "regime"),
        valid.whole(about.get("n"), "n", low=1),
        valid.whole(about.get("replicate"), "replicate"),
        valid.text(about.get("estimator"), "estimator"),
    )
    valid.text(str(about.get("numerics")), "numerics")
    _check_result(result, status)
    _check_provenance(where)
    return Row(key, about, cell, result, where)


def _check_result(result: Mapping[str, object], status: object) -> None:
    valid.text(result.get("status"), "status", longest=STATUS)
    if not result["status"] or result["status"] != status:
        raise Invalid("its status must be the same word in its result and beside it")
    valid.text(result.get("error", ""), "error", longest=valid.LONGEST, lines=True)
    valid.number(result.get("attempt", 0), "attempt")
    _check_columns(result, OWN)


def _check_provenance(where: Mapping[str, object]) -> None:
    _check_columns(where)
    for name, value in where.items():
        if not isinstance(value, str | int | float | None):
            raise Invalid(f"{name} in its provenance must be a number or a text")
    valid.number(where.get("seconds", 0.0), "seconds", low=0.0)


def _check_columns(values: Mapping[str, object], taken: Collection[str] = ()) -> None:
    for name in values:
        valid.text(name, "the name of a column")
        if name in taken:
            raise Invalid(f"{name!r} is the name of a column of its identity: call it otherwise")


def check_measured(payload: Mapping[str, object], n: int, regime: Regime) -> None:
    """Refuse a result that lacks what tables and figures read of it.

    Parameters
    ----------
    payload : dict
        Of a fit that ended with a result.
    n : int
    regime : Regime
        Or one that was read as data.

    Raises
    ------
    Invalid
    """
    exponents, names = regime.exponents, regime.moe.fields
    needed = [f"{kind}_{name}" for kind in MEASURES for name in exponents]
    needed += [f"spread_{name}" for name in exponents if name in names]
    for column in needed:
        valid.number(payload.get(column), column, -LARGE, LARGE)
    for column in (f"error_{name}" for name in names):
        valid.number(payload.get(column, 0.0), column, -LARGE, LARGE)
    for column in ("log_likelihood", "likelihood_ratio"):
        valid.number(payload.get(column, 0.0), column, finite=False)
    for name in names:
        for prefix in ("", "profile_"):
            cover, width = f"{prefix}cover_{name}", f"{prefix}width_{name}"
            if (cover in payload) != (width in payload):
                raise Invalid(f"it needs both of {cover} and {width}")
            if valid.number(payload.get(cover, 0.0), cover, low=0.0) > 1:
                raise Invalid(f"{cover} must be a share")
            valid.number(payload.get(width, 0.0), width, finite=False)
    held = [column for column in payload if column.startswith(OCCUPANCY)]
    if held:
        _check_atoms(payload, len(held), len(regime.vanishing(n)))


def _check_atoms(payload: Mapping[str, object], count: int, atoms: int) -> None:
    """Refuse errors by the cells of a mixture's atoms that are not those of every atom."""
    if count != atoms:
        raise Invalid(f"it has {count} columns {OCCUPANCY}*, for {atoms} true atoms")
    for j in range(atoms):
        valid.number(payload.get(f"{OCCUPANCY}{j}"), f"{OCCUPANCY}{j}", 0.0, MOST_ATOMS)
        for name in PARAMETERS:
            valid.number(payload.get(f"error_{name}_{j}"), f"error_{name}_{j}", -LARGE, LARGE)
