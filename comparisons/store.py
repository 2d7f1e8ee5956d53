"""Results that survive a crash: one SQLite row a cell, keyed by its identity, the first writer wins.

Each row carries a checksum, because SQLite's own check does not see a flipped bit inside a value. A damaged file is set
aside under another name, and what can still be read of it is copied into a new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from comparisons.study import NUMERICS, Cell, Study, digest

SCHEMA = 2
APPLICATION = 0x62617965  # "baye": tells our files from other SQLite files
FILE = "results.sqlite"
BUSY_SECONDS = 30.0  # how long to wait for another process that writes
FAILED = ("error", "crashed", "timeout")  # statuses of cells without a result

_TABLES = (
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS cells (id TEXT PRIMARY KEY, identity TEXT NOT NULL, status TEXT NOT NULL, "
    "payload TEXT NOT NULL, provenance TEXT NOT NULL, checksum TEXT NOT NULL)",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {SCHEMA}",
)
_REASONS = {
    "SQLITE_FULL": "the disk is full",
    "SQLITE_IOERR": "the disk is full or failing",
    "SQLITE_READONLY": "it is read-only",
    "SQLITE_PERM": "it is read-only",
    "SQLITE_CANTOPEN": "it can't be opened; is the folder writable?",
    "SQLITE_BUSY": "another process holds it",
    "SQLITE_LOCKED": "another process holds it",
}


class StoreError(RuntimeError):
    """The results can't be read or written; the message names the file and the reason."""


class Damaged(StoreError):
    """The results file is damaged."""


class Store:
    """The results of one study in one file.

    Parameters
    ----------
    path : Path
        Made if it does not exist.
    study : Study
    reading : bool
        Whether to write nothing at all and refuse a damaged file, rather than set it aside and go on with what can be
        read of it.
    edited : bool
        Whether to go on with fits of another text of the study's file.

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

    def __init__(self, path: Path, study: Study, *, reading: bool = False, edited: bool = False):
        self.path, self.study, self.notice = path, study, ""
        if not reading:
            with _named(path):
                path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = _open(path, study, reading, edited)
        except Damaged as error:
            if reading:
                raise
            aside = _set_aside(path)
            self._connection = _open(path, study, reading, edited)
            saved = self._salvage(aside)
            self.notice = f"{error} It is kept as {aside}; {saved} of its rows could be read, the rest runs again."

    def __enter__(self) -> Store:
        """Use as a context manager."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._connection.close()

    def done(self) -> set[str]:
        """Keys of the finished cells."""
        with _named(self.path):
            return {key for (key,) in self._connection.execute("SELECT id FROM cells")}

    def key(self, cell: Cell) -> str:
        """Key of a cell."""
        return digest(self.study.identity(cell))

    def has(self, cell: Cell) -> bool:
        """Whether a cell is finished, by this process or another."""
        with _named(self.path):
            return (
                self._connection.execute("SELECT 1 FROM cells WHERE id = ?", (self.key(cell),)).fetchone() is not None
            )

    def write(self, cell: Cell, payload: dict[str, object], provenance: dict[str, object] | None = None) -> None:
        """Keep a finished cell; a second write of the same cell changes nothing."""
        identity = self.study.identity(cell)
        texts = [json.dumps(part, sort_keys=True) for part in (identity, payload, provenance or {})]
        values = (digest(identity), texts[0], payload["status"], *texts[1:])
        with _named(self.path):
            self._connection.execute("INSERT OR IGNORE INTO cells VALUES (?, ?, ?, ?, ?, ?)", (*values, _sum(values)))

    def forget_failures(self, cells: Iterable[Cell]) -> int:
        """Forget those of the cells that ended without a result, so that they run again; return how many there were."""
        marks = ", ".join("?" * len(FAILED))
        keys = [(self.key(cell), *FAILED) for cell in cells]
        with _named(self.path):
            deleted = self._connection.executemany(f"DELETE FROM cells WHERE id = ? AND status IN ({marks})", keys)
            return deleted.rowcount

    def keep_command(self, command: str) -> None:
        """Keep a command that added to these results, once."""
        with _named(self.path):
            self._connection.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (f"command {command}", command))

    def commands(self) -> list[str]:
        """Return the commands that made these results, in their order."""
        with _named(self.path):
            found = self._connection.execute("SELECT value FROM meta WHERE key LIKE 'command %' ORDER BY rowid")
            return [command for (command,) in found]

    def left_out(self) -> str:
        """Say how many fits of this file are none of this study's as it is now; nothing if all are."""
        with _named(self.path):
            stored = self._connection.execute("SELECT id, identity FROM cells").fetchall()
        others = [json.loads(text) for key, text in stored if self._cell(key, json.loads(text)) is None]
        if not others:
            return ""
        versions = ", ".join(map(str, sorted({about["numerics"] for about in others})))
        return (
            f"{len(others)} fits in {self.path} belong to other settings or another version (numerics {versions}; "
            f"this is {NUMERICS}), and are left out."
        )

    def rows(self) -> list[dict[str, object]]:
        """Every finished cell of this study, under whatever plan it was run: one flat record each, in plan order."""
        return [{**vars(cell), **payload, **_seconds(about)} for cell, payload, about in self._read()]

    def records(self) -> list[dict[str, object]]:
        """Rows with their keys and provenance, for export."""
        return [{"id": self.key(c), **vars(c), **payload, **about} for c, payload, about in self._read()]

    def _read(self) -> list[tuple[Cell, dict, dict]]:
        regimes = {regime.name: place for place, regime in enumerate(self.study.regimes)}
        names = {name: place for place, name in enumerate(self.study.settings)}
        found = []
        with _named(self.path):
            stored = self._connection.execute("SELECT id, identity, payload, provenance FROM cells").fetchall()
        for key, identity, payload, provenance in stored:
            cell = self._cell(key, json.loads(identity))
            if cell is not None:
                found.append((cell, json.loads(payload), json.loads(provenance)))
        found.sort(key=lambda row: (row[0].replicate, regimes[row[0].regime], names[row[0].estimator], row[0].n))
        return found

    def _cell(self, key: str, about: dict) -> Cell | None:
        """Cell of a stored identity; None if this study, as it is now, has no cell with that key."""
        cell = Cell.of(about)
        known = cell.estimator in self.study.settings and any(r.name == cell.regime for r in self.study.regimes)
        return cell if known and self.key(cell) == key else None

    def _salvage(self, damaged: Path) -> int:
        """Copy the rows of a damaged file that read well and whose checksums hold."""
        saved = 0
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(damaged)) as old:
            old.text_factory = _decode
            for row in old.execute("SELECT id, identity, status, payload, provenance, checksum FROM cells"):
                if _sum(row[:-1]) == row[-1]:
                    with _named(self.path):
                        self._connection.execute("INSERT OR IGNORE INTO cells VALUES (?, ?, ?, ?, ?, ?)", row)
                    saved += 1
        return saved


def recipe_of(path: Path) -> dict[str, object]:
    """Read which study a results file holds, as the fields of a recipe.

    Raises
    ------
    ValueError
        If there are no results at that path.
    """
    if not path.is_file():
        raise ValueError(f"there are no results at {path}. `bayes-moe study run` makes them.")
    with _named(path), contextlib.closing(_connect_to_read(path)) as connection:
        if not _refuse_strangers(connection, path):
            raise ValueError(f"there are no results in {path} yet. `bayes-moe study run` makes them.")
        found = connection.execute("SELECT value FROM meta WHERE key = 'recipe'").fetchone()
    if found is None:
        raise ValueError(f"{path} does not say how its study is made. `bayes-moe study run` on this folder mends it.")
    return json.loads(found[0])


def _open(path: Path, study: Study, reading: bool, edited: bool) -> sqlite3.Connection:
    with _named(path):
        connection = _connect_to_read(path) if reading else _connect(path, "mode=rwc")
    try:
        with _named(path):
            if _refuse_strangers(connection, path):
                _refuse_damage(connection, path)  # before anything is written
            elif reading:
                raise ValueError(f"there are no results in {path} yet. `bayes-moe study run` makes them.")
            else:
                connection.execute("PRAGMA journal_mode = WAL")
                _create(connection, study.name)
            (owner,) = connection.execute("SELECT value FROM meta WHERE key = 'study'").fetchone()
            if owner != study.name:
                raise ValueError(f"{path} holds the study {owner!r}, not {study.name!r}. Use another folder.")
            if study.recipe is not None and not reading:
                _keep_recipe(connection, path, asdict(study.recipe), edited)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: Path, how: str) -> sqlite3.Connection:
    options = {"isolation_level": None, "check_same_thread": False, "timeout": BUSY_SECONDS}
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, **options)
    connection.text_factory = _decode
    return connection


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """Connect and write nothing, in a folder that can't be written too; what a killed writer left stays as it is."""
    journal = path.with_name(path.name + "-wal")
    left = journal.exists() and journal.stat().st_size > 0
    connection = _connect(path, "mode=rw")
    try:
        connection.execute("PRAGMA query_only = ON")
        if left:
            connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE)
        connection.execute("SELECT count(*) FROM sqlite_schema")
    except sqlite3.OperationalError as error:
        connection.close()
        if left or not error.sqlite_errorname.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
            raise
        connection = _connect(path, "immutable=1")  # a journal can't be made there
    except BaseException:
        connection.close()
        raise
    return connection


def _keep_recipe(connection: sqlite3.Connection, path: Path, recipe: dict[str, object], edited: bool) -> None:
    """Keep how the study is made, but refuse to mix fits of two study files, or of two texts of one."""
    stored = connection.execute("SELECT value FROM meta WHERE key = 'recipe'").fetchone()
    before = json.loads(stored[0]) if stored else recipe
    if before["source"] != recipe["source"] and not edited and connection.execute("SELECT 1 FROM cells").fetchone():
        raise ValueError(
            f"{path} holds fits of another study file, or of another text of it ({before['name']}). Use another "
            "--results folder, or --edited if every fit is still made in the same way."
        )
    if not stored or before != recipe:
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('recipe', ?)", (json.dumps(recipe),))


def _create(connection: sqlite3.Connection, study: str) -> None:
    """Make the tables, all at once: another process may be doing the same."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in _TABLES:
        connection.execute(statement)
    connection.execute("INSERT OR IGNORE INTO meta VALUES ('study', ?)", (study,))
    connection.execute("COMMIT")


def _refuse_strangers(connection: sqlite3.Connection, path: Path) -> bool:
    """Refuse files of other schemas and programs; return whether the file has our tables already."""
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if version not in (0, SCHEMA):
        raise ValueError(f"{path} has schema {version}, this version reads {SCHEMA}. Use another folder.")
    if tables and application != APPLICATION:
        raise ValueError(f"{path} was not written by bayes-moe. Use another folder.")
    return bool(tables)


def _refuse_damage(connection: sqlite3.Connection, path: Path) -> None:
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise Damaged(f"the results file {path} is damaged ({' '.join(verdict.split())}).")
    for row in connection.execute("SELECT id, identity, status, payload, provenance, checksum FROM cells"):
        if _sum(row[:-1]) != row[-1]:
            raise Damaged(f"the results file {path} is damaged (the row {row[0][:12]} does not match its checksum).")


def _set_aside(path: Path) -> Path:
    """Rename a damaged file and its journals, to a name that is free."""
    free = (path.with_name(f"{path.name}.damaged-{i}") for i in itertools.count(1))
    aside = next(name for name in free if not name.exists())
    with _named(path):
        for suffix in ("", "-wal", "-shm"):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
    return aside


def _decode(text: bytes) -> str:
    return text.decode(errors="surrogateescape")  # a flipped bit may leave no UTF-8; the checksum finds it


def _sum(values: tuple[str, ...]) -> str:
    return hashlib.sha256("\x00".join(values).encode(errors="surrogateescape")).hexdigest()


def _seconds(provenance: dict[str, object]) -> dict[str, object]:
    return {name: provenance[name] for name in ("seconds",) if name in provenance}


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's errors into one line that names the file and the reason."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise Damaged(f"the results file {path} is damaged ({error}).") from error
        reason = next((text for code, text in _REASONS.items() if name.startswith(code)), str(error))
        raise StoreError(f"the results file {path} can't be used: {reason} ({error}).") from error
    except OSError as error:
        raise StoreError(f"the results can't be kept at {path}: {error.strerror or error}.") from error
