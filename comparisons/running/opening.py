"""How a results file is opened: looked at first, so that a stranger's or a damaged one is refused, and named."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from comparisons.report import files
from comparisons.running import log, salvage, schema
from comparisons.study import rows, valid
from comparisons.study.plan import Study
from comparisons.study.valid import Invalid

BUSY_SECONDS = 30.0  # how long to wait for another process that writes
WORD = 4000  # letters of a command's argument, or of a path
CELLS = "SELECT id, identity, status, payload, provenance, checksum FROM cells"
META = "SELECT key, value, checksum FROM meta ORDER BY rowid"

REASONS = {
    "SQLITE_FULL": "the disk is full",
    "SQLITE_IOERR": "the disk is full or failing",
    "SQLITE_READONLY": "it is read-only",
    "SQLITE_PERM": "it is read-only",
    "SQLITE_CANTOPEN": "it can't be opened; is the folder writable?",
    "SQLITE_BUSY": "another process holds it",
    "SQLITE_LOCKED": "another process holds it",
    "SQLITE_INTERRUPT": "it takes longer to read than a healthy file could",
    "SQLITE_TOOBIG": "it holds a text that is too long",
}


class StoreError(RuntimeError):
    """The results can't be read or written; the message names the file and the reason."""


class Damaged(StoreError):
    """The results file is damaged."""


def opened(path: Path, study: Study | None, reading: bool, edited: bool) -> sqlite3.Connection:
    """Open a file that is there and whole, or a new one."""
    _refuse_odd_files(path, reading)
    with named(path):
        connection = _connect_to_read(path) if reading else _connect(path, "mode=rwc")
    try:
        with named(path), schema.patience(connection):
            if schema.refuse_strangers(connection, path):
                _refuse_damage(connection, path, reading)  # before anything is written
            elif reading:
                raise ValueError(f"there are no results in {path} yet. `bayes-moe study run` makes them.")
            else:
                connection.execute("PRAGMA journal_mode = WAL")
                _create(connection, study.name)
            if study is not None:
                (owner,) = connection.execute("SELECT value FROM meta WHERE key = 'study'").fetchone() or (None,)
                refuse_other_study(owner, study.name, path)
            if not reading:
                connection.execute("PRAGMA wal_autocheckpoint = 1")  # each fit into the file itself, at once
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
                if study.recipe is not None:
                    _keep_recipe(connection, path, study, edited)
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_odd_files(path: Path, reading: bool) -> None:
    """Refuse links and the like, a log without its file, and a log that SQLite would read in part."""
    with named(path):
        there = files.plain(path) and path.stat().st_size > 0
        for side in salvage.SIDES:
            files.plain(path.with_name(path.name + side))
        if reading and not path.exists():
            raise ValueError(f"there are no results at {path}. `bayes-moe study run` makes them.")
        wal = path.with_name(path.name + "-wal")
        wrong = log.fault(wal)
        if not there and wal.exists() and wal.stat().st_size > 0:
            raise Damaged(f"the results file {path} is missing or empty, and its log is there.")
    if wrong:
        raise Damaged(f"the log {wal} of the results is damaged ({wrong}).")


def _connect(path: Path, how: str) -> sqlite3.Connection:
    options = {"isolation_level": None, "check_same_thread": False, "timeout": BUSY_SECONDS}
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, **options)
    connection.text_factory = salvage.decode
    schema.guard(connection)
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
        with schema.patience(connection):
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


def keep(connection: sqlite3.Connection, key: str, value: str, other: str = "REPLACE") -> None:
    """Keep something beside the fits, with its checksum."""
    values = (key, value, salvage.checksum((key, value)))
    connection.execute(f"INSERT OR {other} INTO meta VALUES (?, ?, ?)", values)


def _keep_recipe(connection: sqlite3.Connection, path: Path, study: Study, edited: bool) -> None:
    """Keep where the study comes from, but refuse to mix fits of two study files, or of two texts of one."""
    stored = connection.execute("SELECT value FROM meta WHERE key = 'recipe'").fetchone()
    if stored and connection.execute("SELECT 1 FROM cells").fetchone():
        refuse_other_text(stored[0], study, path, edited)
    recipe = json.dumps(asdict(study.recipe))
    if not stored or stored[0] != recipe:
        keep(connection, "recipe", recipe)


def refuse_other_study(owner: str | None, name: str, path: Path) -> None:
    """Refuse results of another study; nothing is refused where the owner is unknown."""
    if owner is not None and owner != name:
        raise ValueError(f"{path} holds the study {valid.shown(owner)!r}, not {name!r}. Use another folder.")


def refuse_other_text(stored: str, study: Study, path: Path, edited: bool) -> None:
    """Refuse fits of another study file, or of another text of it, unless all are still made in the same way."""
    with valid_part(path, "its recipe"):
        before = valid.parsed(stored, "it")
        name = valid.text(before.get("name"), "name", longest=WORD)
    if study.recipe is not None and before.get("source") != study.recipe.source and not edited:
        raise ValueError(
            f"{path} holds fits of another study file, or of another text of it ({name}). Use another "
            "--results folder, or --edited if every fit is still made in the same way."
        )


def _create(connection: sqlite3.Connection, study: str) -> None:
    """Make the tables, all at once: another process may be doing the same."""
    connection.execute("BEGIN IMMEDIATE")
    schema.create(connection)
    keep(connection, "study", study, "IGNORE")
    connection.execute("COMMIT")


def _refuse_damage(connection: sqlite3.Connection, path: Path, reading: bool) -> None:
    """Refuse what fails SQLite's check or a checksum, and to write beside rows that are none."""
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise Damaged(f"the results file {path} is damaged ({' '.join(str(verdict).split())}).")
    for query in (META, CELLS):
        for row in connection.execute(query):
            if not salvage.holds(row):
                name = valid.shown(str(row[0])[:12])
                raise Damaged(f"the results file {path} is damaged (the row {name} does not match its checksum).")
            if query == CELLS and not reading:
                _refuse_row(row, path)


def _refuse_row(row: tuple[str, ...], path: Path) -> None:
    try:
        rows.read(*row[:-1])
    except Invalid as error:
        raise Damaged(f"the results file {path} holds a row that is no fit's ({error}).") from None


@contextlib.contextmanager
def valid_part(path: Path, what: str) -> Iterator[None]:
    """Name the file and the part of it that is not what it should be."""
    try:
        yield
    except Invalid as error:
        raise ValueError(
            f"{path} is not as this version writes it: {what} can't be read ({error}). `bayes-moe study run` there "
            "writes it again, if the results are yours."
        ) from None


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's errors into one line that names the file and the reason."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise Damaged(f"the results file {path} is damaged ({error}).") from error
        reason = next((text for code, text in REASONS.items() if name.startswith(code)), str(error))
        raise StoreError(f"the results file {path} can't be used: {reason} ({error}).") from error
    except OSError as error:
        raise StoreError(f"the results can't be kept at {path}: {error.strerror or error}.") from error
