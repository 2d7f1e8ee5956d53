"""The one entry for user arrays: checks with clear errors, and the observation-last layout used inside.

Users pass ``x`` with a row for each observation. Inside, observations are the LAST axis: ``x`` is (d, n), class
scores are (classes, n). On a CPU that layout makes value and gradient about three times faster.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import jax
import numpy as np
from jax import Array
from jax.tree_util import register_dataclass
from scipy import sparse

from bayes_moe import threads
from bayes_moe.compilation import make_room


def float64[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Run a public function in double precision, and BLAS in one thread, without touching JAX's global setting.

    The precision's scope belongs to the calling thread and ends with the call; so does the limit of BLAS, unless others
    hold it (:func:`bayes_moe.threads.one_blas_thread`).
    """

    @functools.wraps(function)
    def scoped(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.enable_x64(True), threads.one_blas_thread():
            make_room()
            return function(*args, **kwargs)

    return scoped


def check_tolerance(name: str, value: object) -> float:
    """Return a tolerance as a float.

    Raises
    ------
    ValueError
        If it is no number, NaN, or below zero.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not value >= 0:
        raise ValueError(f"{name} must be a number of at least zero, got {value!r}.")
    return float(value)


def check_count(name: str, value: object, least: int = 1) -> int:
    """Return an argument that counts something as an int.

    Raises
    ------
    ValueError
        If it is no integer, or below ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}.")
    return int(value)


@register_dataclass
@dataclass(frozen=True, eq=False)
class Covariates:
    """Covariates as the model reads them.

    Parameters
    ----------
    x : array, shape (d, n)
    frozen : array, shape (classes, n), or None
        What the frozen expert says of them, log f0(. | x): evaluated once, here.
    """

    x: Array
    frozen: Array | None = None

    @property
    def n(self) -> int:
        """Number of observations."""
        return self.x.shape[-1]


@register_dataclass
@dataclass(frozen=True, eq=False)
class Observations:
    """Covariates and responses as the model reads them.

    Parameters
    ----------
    x : array, shape (d, n)
    y : array, shape (classes, n) or (responses, n)
        One-hot labels, or real responses.
    frozen : array, shape (n,), or None
        What the frozen expert says of the responses, log f0(y | x).
    weights : array, shape (n,), or None
        How often each observation counts; None is once each.
    """

    x: Array
    y: Array
    frozen: Array | None = None
    weights: Array | None = None

    @property
    def n(self) -> int:
        """Number of observations."""
        return self.x.shape[-1]


def columns(x: object) -> tuple[str, ...] | None:
    """Column names of a data frame; None for an array."""
    return tuple(map(str, x.columns)) if hasattr(x, "columns") else None


def check_x(x: object, features: int, names: Sequence[str] | None = None) -> np.ndarray:
    """Check covariates.

    Parameters
    ----------
    x : array-like, shape (n, d)
        NumPy or pandas, of any real dtype; left untouched.
    features : int
        The d that the model expects.
    names : sequence of str, optional
        The column names that the model expects, in order, where x has any.

    Returns
    -------
    ndarray, shape (n, d), float64

    Raises
    ------
    ValueError
        If x is sparse, not two-dimensional, not real, empty, not finite, or has other columns.
    """
    if sparse.issparse(x):
        raise ValueError("x must be a dense array, got a sparse matrix. Pass x.toarray().")
    if names is not None and columns(x) not in (None, tuple(names)):
        raise ValueError(
            f"x must have the columns {list(names)} in that order, got {list(columns(x))}. Pass x[{list(names)}]."
        )
    array = check_real("x", x, order="F")  # its transpose is observation-last: one copy does for both
    if array.ndim != 2:
        raise ValueError(
            f"x must be two-dimensional, (n, {features}), got shape {array.shape}. "
            "Use x.reshape(-1, 1) for one feature."
        )
    if array.shape[0] == 0:
        raise ValueError("x must have at least one row, got none.")
    if array.shape[1] != features:
        raise ValueError(f"x must have {features} columns, one for each feature, got {array.shape[1]}.")
    check_finite("x", array)
    return array


def check_real(name: str, values: object, order: str = "C") -> np.ndarray:
    """Copy array-like input into a float64 array of this memory order, refusing what is not real numbers.

    Always a copy: later edits of the user's array must not reach the model.
    """
    if np.ma.is_masked(values):
        raise ValueError(f"{name} must not be masked, got a masked array. Drop or impute the masked values.")
    try:
        raw = _columns_as_floats(name, values) if hasattr(values, "columns") else np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} must be a rectangular array of real numbers: {error}") from None
    if raw.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold real numbers, got dtype {raw.dtype}. Convert it to float first.")
    return np.array(raw, dtype=np.float64, order=order)


def _columns_as_floats(name: str, frame: object) -> np.ndarray:
    """Values of a data frame, whose columns may be of several real dtypes (float beside bool, nullable)."""
    kinds = {
        str(column): getattr(dtype, "kind", "O") for column, dtype in zip(frame.columns, frame.dtypes, strict=True)
    }
    bad = [column for column, kind in kinds.items() if kind not in "fiub"]
    if bad:
        raise ValueError(f"columns {bad} do not hold real numbers")
    return frame.to_numpy(dtype=np.float64, na_value=np.nan)


def check_finite(name: str, array: np.ndarray) -> None:
    """Refuse an array that holds NaN or infinity."""
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        raise ValueError(
            f"{name} must be finite, got {array[tuple(bad[0])]} at index {tuple(map(int, bad[0]))} "
            f"({len(bad)} such values). Drop or impute these rows."
        )


def check_classes(classes: Sequence[Hashable] | None, count: int) -> tuple[Hashable, ...]:
    """Check declared class labels; 0, 1, ... where none are declared."""
    if classes is None:
        return tuple(range(count))
    if isinstance(classes, str) or not isinstance(classes, Iterable):
        raise ValueError(f"classes must be a list of {count} labels, got {classes!r}.")
    labels = tuple(c.item() if isinstance(c, np.generic) else c for c in classes)
    if not all(isinstance(label, Hashable) for label in labels):
        raise ValueError(f"classes must be hashable labels, got {list(labels)}.")
    if len(labels) != count:
        raise ValueError(f"classes must name the {count} classes of the model, got {len(labels)}: {list(labels)}.")
    if len(set(labels)) != count:
        raise ValueError(f"classes must be distinct, got {list(labels)}.")
    return labels


def encode_labels(y: object, classes: Sequence[Hashable], n: int | None = None) -> np.ndarray:
    """Positions of labels among the declared classes.

    Parameters
    ----------
    y : array-like, shape (n,)
        Labels: any hashables.
    classes : sequence of hashable
        The declared classes, in the model's order.
    n : int, optional
        How many labels there must be.

    Returns
    -------
    ndarray of int32, shape (n,)

    Raises
    ------
    ValueError
        If y is not one-dimensional, has another length, or holds a label that was not declared.
    """
    array = check_labels("y", y, n)
    if array.dtype.kind in "iub" and tuple(classes) == tuple(range(len(classes))):
        codes = array.astype(np.int64)
        unknown = (codes < 0) | (codes >= len(classes))
    else:
        position = {label: code for code, label in enumerate(classes)}
        codes = np.array([position.get(label, -1) for label in array.tolist()])
        unknown = codes < 0
    if unknown.any():
        strange = list(dict.fromkeys(array[unknown].tolist()))[:5]
        raise ValueError(
            f"y holds labels that the model does not declare: {strange}. Its classes are {list(classes)}; "
            "declare others, in the order of the frozen expert's rows, with classes=[...]."
        )
    return codes.astype(np.int32)


def check_response(y: object, responses: int, n: int | None = None) -> np.ndarray:
    """Check real-valued responses.

    Parameters
    ----------
    y : array-like, shape (n,), or (n, responses) if there are several
        NumPy or pandas, of any real dtype; left untouched.
    responses : int
        How many responses the model has.
    n : int, optional
        How many rows there must be.

    Returns
    -------
    ndarray of float64, shaped as y

    Raises
    ------
    ValueError
        If y is not real, not finite, or of another shape.
    """
    array = check_real("y", y)
    wanted = ("n",) if responses == 1 else ("n", responses)
    if array.ndim != len(wanted) or array.shape[1:] != wanted[1:]:
        remedy = "Pass y.ravel() for one response." if responses == 1 and array.ndim == 2 else "Check responses=."
        shape = "(n,)" if responses == 1 else f"(n, {responses})"
        raise ValueError(f"y must have shape {shape}, a response for each row of x, got {array.shape}. {remedy}")
    if n is not None and len(array) != n:
        raise ValueError(f"y must have one response for each row of x: x has {n} rows, y has {len(array)}.")
    check_finite("y", array)
    return array


def label_array(classes: Sequence[Hashable]) -> np.ndarray:
    """Class labels as an array: of their own dtype where they share one, else of objects."""
    plain = np.asarray(classes) if len({type(label) for label in classes}) == 1 else None
    if plain is not None and plain.ndim == 1:
        return plain
    array = np.empty(len(classes), dtype=object)
    array[:] = classes
    return array


def check_labels(name: str, labels: object, n: int | None = None) -> np.ndarray:
    """Labels, any hashables, as an array (n,): of objects where NumPy would change what they are."""
    array = labels if isinstance(labels, np.ndarray) else _as_labels(name, labels)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, a label for each row of x, got shape {array.shape}.")
    if n is not None and len(array) != n:
        raise ValueError(f"{name} must have one label for each row of x: x has {n} rows, {name} has {len(array)}.")
    return array


def _as_labels(name: str, labels: object) -> np.ndarray:
    if hasattr(labels, "columns"):
        return np.asarray(labels)
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise ValueError(f"{name} must be a sequence of labels, one for each row of x, got {labels!r}.")
    values = list(labels)
    if any(isinstance(value, list) for value in values):
        raise ValueError(f"{name} must be one-dimensional, a label for each row of x, got a list of lists.")
    if any(isinstance(value, tuple) for value in values):
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array
    array = np.asarray(values)
    mixed = array.dtype.kind in "US" and not all(isinstance(value, str | bytes) for value in values)
    return np.asarray(values, dtype=object) if mixed else array


def check_weights(weights: object | None, n: int) -> np.ndarray | None:
    """Check observation weights: non-negative, finite, one a row, not all zero."""
    if weights is None:
        return None
    array = check_real("weights", weights)
    if array.shape != (n,):
        raise ValueError(f"weights must have shape ({n},), one for each row of x, got {array.shape}.")
    check_finite("weights", array)
    if (array < 0).any() or not array.any():
        raise ValueError(
            f"weights must be non-negative and not all zero, got a minimum of {array.min()} "
            f"and a maximum of {array.max()}."
        )
    return array
