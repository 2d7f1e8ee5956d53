"""Results that survive a crash: one SQLite row a cell, keyed by its identity, the first writer wins."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from comparisons.study import SCHEMA, Cell, Study, digest


class Store:
    """The results of one study in one file.

    Parameters
    ----------
    path : Path
        Made if it does not exist.
    study : Study
    """

    def __init__(self, path: Path, study: Study):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.study = study
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS cells (id TEXT PRIMARY KEY, identity TEXT NOT NULL, row TEXT NOT NULL)"
        )
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA):
            self._connection.close()
            raise ValueError(f"results: {path} has schema {version}, this version reads {SCHEMA}. Use another folder.")
        self._connection.execute(f"PRAGMA user_version = {SCHEMA}")

    def __enter__(self) -> Store:
        """Use as a context manager."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._connection.close()

    def done(self) -> set[str]:
        """Keys of the finished cells."""
        return {key for (key,) in self._connection.execute("SELECT id FROM cells")}

    def key(self, cell: Cell) -> str:
        """Key of a cell."""
        return digest(self.study.identity(cell))

    def write(self, cell: Cell, row: dict[str, object]) -> None:
        """Keep a finished cell; a second write of the same cell changes nothing."""
        identity = self.study.identity(cell)
        self._connection.execute(
            "INSERT OR IGNORE INTO cells VALUES (?, ?, ?)",
            (digest(identity), json.dumps(identity, sort_keys=True), json.dumps(row)),
        )

    def rows(self) -> list[dict[str, object]]:
        """Every finished cell of this study's plan, in the plan's order: one flat record each."""
        stored = dict(self._connection.execute("SELECT id, row FROM cells"))
        planned = [(cell, stored.get(self.key(cell))) for cell in self.study.cells()]
        return [{**vars(cell), **json.loads(row)} for cell, row in planned if row is not None]
