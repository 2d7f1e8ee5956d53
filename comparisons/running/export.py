"""Results as tables for other programs: Parquet and CSV, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import csv, parquet

from comparisons.report import files

SUFFIXES = (".parquet", ".csv")
FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "＝",
    "＋",
    "－",
    "＠",
)  # of what is a formula


def write(records: Sequence[dict[str, object]], path: Path) -> Path:
    """Write records as one table, by the path's suffix.

    Parameters
    ----------
    records : sequence of dict
        Flat; a column that a record lacks is empty there. In CSV a text that a spreadsheet would take for a formula
        gets an apostrophe before it.
    path : Path
        Ending in .parquet or .csv.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        For another suffix, or if there are no records.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"export: the file must end in {' or '.join(SUFFIXES)}, got {path}.")
    if not records:
        raise ValueError("export: there are no results yet.")
    columns = list(dict.fromkeys(name for record in records for name in record))
    cell = _plain if path.suffix == ".parquet" else lambda value: _inert(_plain(value))
    table = pa.table({cell(name): _column([cell(record.get(name)) for record in records]) for name in columns})
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.whole(path) as part:
        (parquet.write_table if path.suffix == ".parquet" else csv.write_csv)(table, part)
    return path


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return json.dumps(value)
    return "; ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _inert(value: object) -> object:
    """Text that a spreadsheet would take for a formula, made plain text; numbers stay numbers."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _column(values: list[object]) -> pa.Array:
    """Column of values; of strings where they are of several kinds."""
    try:
        return pa.array(values)
    except (pa.ArrowTypeError, pa.ArrowInvalid, OverflowError):
        return pa.array([None if value is None else str(value) for value in values])
