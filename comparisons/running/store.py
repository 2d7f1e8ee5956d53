"""Results that survive a crash: one SQLite row a cell, keyed by its identity, the first writer wins.

Each row carries a checksum, because SQLite's own check does not see a flipped bit inside a value, and the log is looked
at before SQLite does (:mod:`comparisons.running.log`). A damaged file is set aside under another name, and what can
still be read of it is copied into a new one. Each fit is in the file itself as soon as it is kept, not only in the log.
Beside the fits a file holds what reading them needs, so that reading runs nothing
(:mod:`comparisons.running.described`).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from comparisons.report import files
from comparisons.report.pictures import Picture
from comparisons.running import beside, opening, salvage
from comparisons.running.described import Described
from comparisons.running.opening import CELLS, named, opened, valid_part
from comparisons.running.opening import Damaged as Damaged
from comparisons.running.opening import StoreError as StoreError
from comparisons.running.schema import SCHEMA as SCHEMA
from comparisons.study import rows, valid
from comparisons.study.contract import FAILED
from comparisons.study.plan import Cell, Study, digest
from comparisons.study.valid import Invalid

FILE = "results.sqlite"


class Store:
    """The results of one study in one file.

    Parameters
    ----------
    path : Path
        Made if it does not exist.
    study : Study, optional
        To read, the study as the file describes it, by default: then nothing but data is needed.
    reading : bool
        Whether to write nothing at all and refuse a damaged file, rather than set it aside and go on with what can be
        read of it.
    edited : bool
        Whether to go on with fits of another text of the study's file.
    strict : bool
        Whether to leave out fits that lack what tables and figures read; always so without a study.

    Attributes
    ----------
    notice : str
        What happened to a damaged file; empty if nothing did.

    Raises
    ------
    ValueError
        If the file belongs to another study, another text of its file, another schema or another program.
    StoreError
        If it can't be read or written, or is damaged.
    """

    def __init__(
        self,
        path: Path,
        study: Study | None = None,
        *,
        reading: bool = False,
        edited: bool = False,
        strict: bool = False,
    ):
        self.path, self.notice, self._strict = path, "", strict or study is None
        if reading:
            self._connection = opened(path, study, True, edited)
            self.study = self._described() if study is None else study
            return
        self.study = study
        with named(path):
            files.folder(path.parent)
        try:
            self._connection = opened(path, study, False, edited)
        except Damaged as error:
            self._mend(error, edited)

    def __enter__(self) -> Store:
        """Use as a context manager."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._connection.close()

    def _described(self) -> Described:
        try:
            return beside.study_of(self._connection, self.path)
        except BaseException:
            self._connection.close()
            raise

    def done(self) -> set[str]:
        """Keys of the finished cells."""
        with named(self.path):
            return {key for (key,) in self._connection.execute("SELECT id FROM cells")}

    def key(self, cell: Cell) -> str:
        """Key of a cell."""
        return digest(self.study.identity(cell))

    def has(self, cell: Cell) -> bool:
        """Whether a cell is finished, by this process or another."""
        with named(self.path):
            return (
                self._connection.execute("SELECT 1 FROM cells WHERE id = ?", (self.key(cell),)).fetchone() is not None
            )

    def write(self, cell: Cell, payload: dict[str, object], provenance: dict[str, object] | None = None) -> None:
        """Keep a finished cell, or as an error what could not be read again; a second write changes nothing."""
        identity = self.study.identity(cell)
        values = _texts(identity, payload, provenance or {})
        try:
            rows.read(*values)
        except Invalid as error:
            failed = {"status": "error", "error": f"ValueError: this fit can't be kept: {error}."}
            values = _texts(identity, failed, provenance or {})
        self._insert((*values, salvage.checksum(values)))

    def forget_failures(self, cells: Iterable[Cell]) -> int:
        """Forget those of the cells that ended without a result, so that they run again; return how many there were."""
        marks = ", ".join("?" * len(FAILED))
        keys = [(self.key(cell), *FAILED) for cell in cells]
        with named(self.path):
            deleted = self._connection.executemany(f"DELETE FROM cells WHERE id = ? AND status IN ({marks})", keys)
            return deleted.rowcount

    def keep_command(self, command: str) -> None:
        """Keep a ``bayes-moe study run`` that added to these results, once."""
        with named(self.path):
            beside.keep_command(self._connection, command)

    def commands(self) -> list[str]:
        """Return the commands that made these results, in their order."""
        return beside.commands(self._connection, self.path)

    def describe(self, plan: Study) -> None:
        """Keep what reading the results needs: of the study, and of each regime at the sizes of a plan and of the fits.

        Raises
        ------
        ValueError
            If the study holds what can't be described.
        """
        sizes = {(regime.name, n): None for regime in plan.regimes for part in plan.sizes.values() for n in part}
        sizes |= {(row.cell.regime, row.cell.n): None for row in self._read()}
        beside.keep_description(self._connection, self.path, self.study, sizes)

    def keep_findings(self, text: str, picture: Picture, fits: int) -> None:
        """Keep a study's own findings, so that reading need not make them."""
        with named(self.path):
            beside.keep_findings(self._connection, text, picture, fits)

    # What is read -------------------------------------------------------------------------------------------------

    def left_out(self) -> str:
        """Say how many fits of this file are none of this study's as it is now, and how many are no fits."""
        lines, found = [], list(self._all())
        if others := [row for row in found if isinstance(row, rows.Row) and not self._known(row)]:
            versions = ", ".join(sorted({str(row.identity.get("numerics")) for row in others}))
            lines.append(
                f"{len(others)} fits in {self.path} belong to other settings or another version (numerics {versions}; "
                f"this is {self.study.numerics}), and are left out."
            )
        mine = [self._lacks(row) if isinstance(row, rows.Row) and self._known(row) else row for row in found]
        if wrong := [str(one) for one in mine if isinstance(one, Invalid)]:
            lines.append(f"{len(wrong)} rows in {self.path} can't be read ({wrong[0]}), and are left out.")
        return "\n".join(lines)

    def rows(self) -> list[dict[str, object]]:
        """Every finished cell of this study, under whatever plan it was run: one flat record each, in plan order."""
        return [{**row.payload, **vars(row.cell), **row.seconds} for row in self._read()]

    def records(self) -> list[dict[str, object]]:
        """Rows with their keys and provenance, for export."""
        return [row.record for row in self._read()]

    def _read(self) -> list[rows.Row]:
        regimes = {regime.name: place for place, regime in enumerate(self.study.regimes)}
        names = {name: place for place, name in enumerate(self.study.settings)}
        found = [row for row in self._all() if isinstance(row, rows.Row) and self._known(row) and not self._lacks(row)]
        return sorted(
            found, key=lambda r: (r.cell.replicate, regimes[r.cell.regime], names[r.cell.estimator], r.cell.n)
        )

    def _all(self) -> Iterator[rows.Row | Invalid]:
        """Every row, or what is wrong with it."""
        with named(self.path):
            stored = self._connection.execute(CELLS).fetchall()
        for values in stored:
            try:
                yield rows.read(*values[:-1])
            except Invalid as error:
                yield error

    def _known(self, row: rows.Row) -> bool:
        """Whether this study, as it is now, has that cell."""
        if isinstance(self.study, Described):
            return self.study.has(row.cell) and row.identity == self.study.identity(row.cell)
        known = row.cell.estimator in self.study.settings and any(r.name == row.cell.regime for r in self.study.regimes)
        return known and self.key(row.cell) == row.key

    def _lacks(self, row: rows.Row) -> Invalid | None:
        """What a fit with a result lacks of what is read."""
        if not self._strict or row.payload["status"] in FAILED:
            return None
        regime = self.study.regime(row.cell.regime)
        try:
            return rows.check_measured(row.payload, row.cell.n, regime)
        except Invalid as error:
            return error

    # What is written ----------------------------------------------------------------------------------------------

    def _insert(self, values: tuple[str, ...]) -> None:
        with named(self.path):
            self._connection.execute("INSERT OR IGNORE INTO cells VALUES (?, ?, ?, ?, ?, ?)", values)

    def _mend(self, error: Damaged, edited: bool) -> None:
        """Set a damaged file aside, and copy what can be read of it into a new one."""
        with named(self.path):
            saved = salvage.read(self.path)
            opening.refuse_other_study(saved.meta.get("study"), self.study.name, self.path)
            if saved.cells and "recipe" in saved.meta:
                opening.refuse_other_text(saved.meta["recipe"], self.study, self.path, edited)
            aside = salvage.set_aside(self.path)
        self._connection = opened(self.path, self.study, False, edited)
        for row in saved.cells.values():
            self._insert(row)
        with named(self.path):
            for key, value in saved.meta.items():
                if key.startswith(beside.COMMAND):
                    opening.keep(self._connection, key, value, "IGNORE")
        self.notice = (
            f"{error} It is kept as {aside}; {len(saved.cells)} of its rows could be read, the rest runs again."
        )
        if saved.cells and self.study.recipe is not None and "recipe" not in saved.meta:
            self.notice += " What study file made them could not be read: they are taken for this one's."


def recipe_of(path: Path) -> dict[str, object]:
    """Read from where a results file's study came, as the fields of a recipe: to be shown, not to be followed.

    Raises
    ------
    ValueError
        If there are no results at that path.
    """
    with contextlib.closing(opened(path, None, True, False)) as connection, named(path):
        found = connection.execute("SELECT value FROM meta WHERE key = 'recipe'").fetchone()
    if found is None:
        raise ValueError(f"{path} does not say how its study is made. `bayes-moe study run` there mends it.")
    with valid_part(path, "its recipe"):
        return valid.parsed(found[0], "it")


def _texts(identity: object, payload: dict[str, object], provenance: dict[str, object]) -> tuple[str, ...]:
    """Columns of a row."""
    texts = [json.dumps(part, sort_keys=True) for part in (identity, payload, provenance)]
    return digest(identity), texts[0], str(payload["status"]), *texts[1:]
