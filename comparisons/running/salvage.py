"""What can still be read of a damaged results file and its log: every row whose own checksum holds."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from comparisons.running import log, schema
from comparisons.study import rows
from comparisons.study.valid import Invalid

SIDES = ("-wal", "-shm", "-journal")  # what SQLite keeps beside a file
CELL = ("id", "identity", "status", "payload", "provenance", "checksum")
META = ("key", "value", "checksum")


@dataclass
class Saved:
    """What was read of a damaged file.

    Parameters
    ----------
    cells : dict
        Rows of fits by key.
    meta : dict
        What was kept beside them, by key.
    """

    cells: dict[str, tuple[str, ...]] = field(default_factory=dict)
    meta: dict[str, str] = field(default_factory=dict)


def checksum(values: Sequence[str]) -> str:
    """Checksum of a row's texts."""
    return hashlib.sha256("\x00".join(values).encode(errors="surrogateescape")).hexdigest()


def holds(row: Sequence[object]) -> bool:
    """Whether a row is of texts, the last of them the checksum of the others; a flipped bit may change a type too."""
    return all(isinstance(value, str) for value in row) and checksum(row[:-1]) == row[-1]


def decode(text: bytes) -> str:
    """Text of a file; where a flipped bit left no UTF-8, one that no checksum fits."""
    return text.decode(errors="surrogateescape")


def read(path: Path) -> Saved:
    """Read every row that holds, from the file alone and with its log put in, whichever way shows it."""
    out = Saved()
    database = path.read_bytes() if path.exists() else b""
    with tempfile.TemporaryDirectory(prefix="bayes-moe-") as folder:
        copy = Path(folder) / "copy.sqlite"
        for content in log.versions(database, log.read(path.with_name(path.name + "-wal"))):
            copy.write_bytes(content)
            for row in _rows(copy, "cells", CELL):
                out.cells.setdefault(row[0], row)
            for row in _rows(copy, "meta", META):
                out.meta.setdefault(row[0], row[1])
    return out


def set_aside(path: Path) -> Path:
    """Rename a damaged file and what lies beside it, to a name that is free."""
    free = (path.with_name(f"{path.name}.damaged-{i}") for i in itertools.count(1))
    aside = next(name for name in free if not any(_there(name, side) for side in ("", *SIDES)))
    parts = [side for side in ("", *SIDES) if _there(path, side)]
    for side in parts:
        path.with_name(path.name + side).rename(aside.with_name(aside.name + side))
    return aside.with_name(aside.name + parts[0])


def _there(path: Path, side: str) -> bool:
    part = path.with_name(path.name + side)
    return part.exists() or part.is_symlink()


def _rows(copy: Path, table: str, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Rows that hold, from both ends: a page that can't be read stops each pass."""
    for order in ("ASC", "DESC"):
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(_open(copy)) as connection,
            schema.patience(connection),
        ):
            found = set(connection.execute("SELECT type, name, sql FROM sqlite_schema WHERE name = ?", (table,)))
            if found <= schema.OURS:
                query = f"SELECT {', '.join(columns)} FROM {table} ORDER BY rowid {order}"
                yield from (row for row in connection.execute(query) if holds(row) and _ours(table, row))


def _ours(table: str, row: tuple[str, ...]) -> bool:
    if table == "meta":
        return True
    try:
        rows.read(*row[:-1])
    except Invalid:
        return False
    return True


def _open(copy: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{copy.absolute().as_uri()}?immutable=1", uri=True)
    connection.text_factory = decode
    schema.guard(connection)
    return connection
