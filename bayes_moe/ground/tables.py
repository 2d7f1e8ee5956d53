"""What users give: arrays, lists, tables of pandas, polars or Arrow. Its order, and the names of its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MappingView, Sequence, Set
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    import pandas as pd

REAL = "fiub"  # NumPy's kinds of real numbers
UNREADABLE = (ValueError, TypeError, AttributeError, RuntimeError, ArithmeticError)  # what __array__ of others raises


def check_order(name: str, values: object) -> None:
    """Refuse what has no order of its own: the order of a set is another in each process.

    Raises
    ------
    ValueError
        For a set, a mapping, or a view of one.
    """
    if isinstance(values, Set | Mapping | MappingView):
        raise ValueError(f"{name} must have an order, got {values!r:.80}. Pass a list in the order that you mean.")


def sequence(name: str, values: object, wanted: str) -> list:
    """Members of what has an order: a list, tuple, array, Series, Index, generator.

    Parameters
    ----------
    name : str
        The argument.
    values : object
    wanted : str
        What it should be, for the error.

    Raises
    ------
    ValueError
        For a string, something without an order, or with no members.
    """
    check_order(name, values)
    lone = isinstance(values, str | bytes) or not isinstance(values, Iterable) or getattr(values, "ndim", 1) == 0
    if lone or column_names(values) is not None:
        kind = "the string " if isinstance(values, str) else ""
        raise ValueError(f"{name} must be {wanted}, got {kind}{values!r:.200}.")
    return list(values.to_pylist() if hasattr(values, "to_pylist") else values)  # Arrow's members are no Python values


def column_names(table: object) -> tuple[str, ...] | None:
    """Names of the columns of a data frame; None for what is none."""
    names = getattr(table, "column_names", None)  # Arrow's, whose ``columns`` are the data
    names = getattr(table, "columns", None) if names is None else names
    return None if names is None else tuple(map(str, names))


def as_floats(name: str, values: object, order: str = "C") -> np.ndarray:
    """Copy array-like input into a float64 array of this memory order, refusing what is not real numbers.

    Always a copy: later edits of the user's array must not reach the model.

    Raises
    ------
    ValueError
        For what has no order, is masked, sparse, ragged or not real.
    """
    check_order(name, values)
    _check_whole(name, values)
    try:
        raw = _table_as_floats(values) if column_names(values) is not None else _read(values)
    except UNREADABLE as error:
        raise ValueError(f"{name} must be a rectangular array of real numbers: {str(error)[:300]}") from None
    if raw.dtype.kind not in REAL:
        raise ValueError(f"{name} must hold real numbers, got dtype {raw.dtype}. Convert it to float first.")
    with np.errstate(over="ignore"):  # of wider floats: then infinite, which is refused where it matters
        return np.array(raw, dtype=np.float64, order=order)


def _check_whole(name: str, values: object) -> None:
    if sparse.issparse(values):
        raise ValueError(f"{name} must be a dense array, got a sparse matrix. Pass {name}.toarray().")
    parts = values if isinstance(values, list | tuple) else ()
    if np.ma.is_masked(values) or any(np.ma.is_masked(part) for part in parts):
        raise ValueError(f"{name} must not be masked, got a masked array. Drop or impute the masked values.")


def _read(values: object) -> np.ndarray:
    kind = getattr(getattr(values, "dtype", None), "kind", "")
    nullable = hasattr(values, "to_numpy") and hasattr(values, "index") and isinstance(kind, str) and kind in REAL
    return values.to_numpy(dtype=np.float64, na_value=np.nan) if nullable and kind else np.asarray(values)


def _table_as_floats(table: object) -> np.ndarray:
    """Values of a data frame, whose columns may be of several real dtypes (float beside bool, nullable)."""
    if hasattr(table, "to_pandas") and not hasattr(table, "dtypes"):
        table = table.to_pandas()  # Arrow
    names = column_names(table)
    if not hasattr(table, "index"):  # polars
        series = [np.asarray(table[name]) for name in names]
        kinds = [column.dtype.kind for column in series]
    else:
        kinds = [getattr(dtype, "kind", "O") for dtype in table.dtypes]
    bad = [name for name, kind in zip(names, kinds, strict=True) if kind not in REAL]
    if bad:
        raise ValueError(f"columns {bad} do not hold real numbers")
    return table.to_numpy(dtype=np.float64, na_value=np.nan) if hasattr(table, "index") else np.column_stack(series)


def as_labels(name: str, labels: object) -> np.ndarray:
    """Labels, any hashables, as an array: of objects where NumPy would change what they are.

    Raises
    ------
    ValueError
        For what has no order, is masked, sparse, a string, or no sequence.
    """
    check_order(name, labels)
    _check_whole(name, labels)
    if isinstance(labels, np.ndarray):
        return labels
    if column_names(labels) is not None:
        return np.asarray(labels)
    if isinstance(labels, str | bytes) or not isinstance(labels, Iterable):
        raise ValueError(f"{name} must be a sequence of labels, one for each row of x, got {labels!r:.200}.")
    values = labels.to_pylist() if hasattr(labels, "to_pylist") else list(labels)
    if any(isinstance(value, list) for value in values):
        raise ValueError(f"{name} must be one-dimensional, a label for each row of x, got a list of lists.")
    if any(isinstance(value, tuple | Set | Mapping) for value in values):
        return _objects(values)
    array = np.asarray(values)
    mixed = array.dtype.kind in "US" and not all(isinstance(value, str | bytes) for value in values)
    return np.asarray(values, dtype=object) if mixed else array


def _objects(values: Sequence) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


# The rows' names ------------------------------------------------------------------------------------------------


def index_of(values: object) -> pd.Index | None:
    """Index of what pandas or xarray has named the rows of; None for others."""
    index = getattr(values, "index", None)
    if hasattr(index, "equals"):
        return index
    dims, indexes = getattr(values, "dims", None), getattr(values, "indexes", None)
    return indexes.get(dims[0]) if indexes is not None and isinstance(dims, tuple) and dims else None


def same_rows(**given: object) -> pd.Index | None:
    """Index that the arguments share, or None where none of them has one.

    Rows are taken in their order, so that arguments whose rows have other names, or the same in another order, would be
    paired wrongly.

    Parameters
    ----------
    **given : objects by the arguments' names
        Those without an index (arrays, lists, None) are passed over.

    Raises
    ------
    ValueError
        If two of them have other indices.
    """
    indices = {name: index for name, values in given.items() if (index := index_of(values)) is not None}
    if not indices:
        return None
    first = next(iter(indices))
    for name, index in indices.items():
        if not index.equals(indices[first]):
            raise ValueError(_unlike(first, indices[first], name, index))
    return indices[first]


def _unlike(first: str, one: pd.Index, name: str, two: pd.Index) -> str:
    if len(one) != len(two):
        return (
            f"{name} must have one row for each row of {first}: {first} has {len(one)} rows, {name} has {len(two)}. "
            f"Pass those of {first}'s index."
        )
    row = next((i for i, (a, b) in enumerate(zip(one, two, strict=True)) if repr(a) != repr(b)), 0)
    return (
        f"{name} must have the index of {first}: row {row} is {one[row]!r} in {first} and {two[row]!r} in {name}. "
        f"Pass {name}.loc[{first}.index], or {name}.to_numpy() if its rows are in the order of {first}'s."
    )


def row_labels(index: pd.Index | None, n: int) -> np.ndarray:
    """Names of n rows as a coordinate that netCDF and zarr can hold; 0, 1, ... where they have none."""
    if index is None:
        return np.arange(n)
    values = np.asarray(index)
    return values if values.dtype.kind in "fiuM" else np.array([str(value) for value in values])
