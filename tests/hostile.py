"""Results folders as a stranger may make them: whole ones of made-up fits, and ways to spoil them."""

import contextlib
import json
import sqlite3
from dataclasses import replace

import numpy as np
from fake_study import study as STUDY
from matplotlib.figure import Figure

from comparisons.report import pictures
from comparisons.running import salvage
from comparisons.running.recipe import Recipe
from comparisons.running.store import FILE, Store

TEXT = "open('/tmp/never-run', 'w').close()\nraise SystemExit('the kept text was run')\n"
CELLS = list(STUDY.cells())


def measured(cell, value=0.5):
    """Payload of a fit as the engine measures it."""
    regime = STUDY.regime(cell.regime)
    out = {"status": "ok", "error": "", "mean_x": 0.1}
    for kind in ("error", "loss", "radius", "spread"):
        out |= {f"{kind}_{name}": value * cell.n**-0.5 * (1 + cell.replicate) for name in regime.exponents}
    return out


def folder(path, name="fake.py", source=TEXT, cells=CELLS):
    """A whole results folder, whose kept text would be seen if it were run; return its file."""
    study = replace(STUDY, recipe=Recipe(name, False, source))
    file = path / "fake" / FILE
    with Store(file, study) as store:
        for cell in cells:
            store.write(cell, measured(cell), {"seconds": 0.5, "finished": "2026-01-01T00:00:00Z", "commit": "abc"})
        store.describe(study)
        store.keep_command("bayes-moe study run fake.py --sizes 50")
        store.keep_findings("found: nothing", pictures.drawn(drawing()), len(cells))
    return file


def drawing():
    """A figure of a study's own."""
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot(np.arange(3))
    return figure


def change_row(file, **columns):
    """Change columns of the first row, and give it the checksum that fits."""
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        names = ("id", "identity", "status", "payload", "provenance")
        row = connection.execute(f"SELECT {', '.join(names)} FROM cells ORDER BY rowid LIMIT 1").fetchone()
        new = dict(zip(names, row, strict=True)) | columns
        values = [new[name] for name in names]
        total = salvage.checksum(values) if all(isinstance(v, str) for v in values) else "0"
        sets = ", ".join(f"{name} = ?" for name in (*names, "checksum"))
        connection.execute(f"UPDATE cells SET {sets} WHERE id = ?", (*values, total, row[0]))


def change_json(file, column, change):
    """Change the JSON of a column of the first row."""
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        (text,) = connection.execute(f"SELECT {column} FROM cells ORDER BY rowid LIMIT 1").fetchone()
    value = json.loads(text)
    change(value)
    change_row(file, **{column: json.dumps(value)})


def change_meta(file, key, value):
    """Set what is kept beside the fits, with the checksum that fits."""
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (key, value, salvage.checksum((key, value))))


def meta(file, key):
    """What is kept beside the fits."""
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        (value,) = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return value


def run_sql(file, *statements):
    """Change the file as its tables."""
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        for statement in statements:
            connection.execute(statement)
