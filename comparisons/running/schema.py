"""The form of a results file: its two tables, and the refusal of any file that holds something else."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

SCHEMA = 3
APPLICATION = 0x62617965  # "baye": tells our files from other SQLite files
META = "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum TEXT NOT NULL)"
CELLS = (
    "CREATE TABLE cells (id TEXT PRIMARY KEY, identity TEXT NOT NULL, status TEXT NOT NULL, "
    "payload TEXT NOT NULL, provenance TEXT NOT NULL, checksum TEXT NOT NULL)"
)
OURS = {
    ("table", "meta", META),
    ("table", "cells", CELLS),
    ("index", "sqlite_autoindex_meta_1", None),
    ("index", "sqlite_autoindex_cells_1", None),
}
PATIENCE = 120.0  # seconds for a look at a file; one that was made to loop ends then
STEPS = 100_000  # of SQLite's machine between looks at the clock
LONGEST = 2**27  # bytes of a stored text
OFF = (
    sqlite3.SQLITE_DBCONFIG_ENABLE_TRIGGER,
    sqlite3.SQLITE_DBCONFIG_ENABLE_VIEW,
    sqlite3.SQLITE_DBCONFIG_TRUSTED_SCHEMA,
)


def create(connection: sqlite3.Connection) -> None:
    """Make the tables, inside a transaction; another process may have made them by now."""
    for table in (META, CELLS):
        connection.execute(table.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {SCHEMA}")


def guard(connection: sqlite3.Connection) -> None:
    """Let a file's own triggers, views and functions do nothing."""
    for switch in OFF:
        connection.setconfig(switch, False)
    connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)


@contextlib.contextmanager
def patience(connection: sqlite3.Connection) -> Iterator[None]:
    """Interrupt what takes longer than a healthy file can."""
    until = time.monotonic() + PATIENCE
    connection.set_progress_handler(lambda: time.monotonic() > until, STEPS)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)


def refuse_strangers(connection: sqlite3.Connection, path: Path) -> bool:
    """Refuse files of other schemas and programs, and what else is in one; return whether the tables are there.

    Raises
    ------
    ValueError
    """
    found = set(connection.execute("SELECT type, name, sql FROM sqlite_schema").fetchall())
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if found and application != APPLICATION:
        raise ValueError(f"{path} was not written by bayes-moe. Use another folder.")
    if version != SCHEMA and (found or version):
        older = "an earlier" if version < SCHEMA else "a later"
        raise ValueError(
            f"{path} has schema {version}, that of {older} version; this version reads {SCHEMA}. Read it with the "
            "version that wrote it, or run its study again in another folder."
        )
    if strange := sorted(f"{kind} {name!r}" for kind, name, _ in found - OURS):
        raise ValueError(
            f"{path} holds the {strange[0]}, which bayes-moe does not make so: it is not read. Use another folder."
        )
    return bool(found)
