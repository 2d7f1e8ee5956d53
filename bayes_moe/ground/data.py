"""The one entry for user arrays: checks with clear errors, and the observation-last layout used inside.

Users pass ``x`` with a row for each observation. Inside, observations are the LAST axis: ``x`` is (d, n), class
scores are (classes, n). On a CPU that layout makes value and gradient about three times faster.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import register_dataclass

from bayes_moe.ground import threads
from bayes_moe.ground.compilation import make_room
from bayes_moe.ground.labels import check_classes, check_labels, encode_labels, label_array
from bayes_moe.ground.tables import as_floats as check_real
from bayes_moe.ground.tables import column_names, same_rows, sequence

__all__ = [
    "Covariates",
    "Observations",
    "check_array",
    "check_choice",
    "check_classes",
    "check_count",
    "check_extent",
    "check_finite",
    "check_labels",
    "check_mapping",
    "check_real",
    "check_response",
    "check_tolerance",
    "check_weights",
    "check_x",
    "encode_labels",
    "float64",
    "label_array",
    "same_rows",
    "sequence",
]

LEAST = 1e-150  # scale of data whose squares are no smaller than double precision goes


def float64[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Run a public function in double precision, and BLAS in one thread, without touching JAX's global setting.

    The precision's scope belongs to the calling thread and ends with the call; so does the limit of BLAS, unless others
    hold it (:func:`bayes_moe.ground.threads.one_blas_thread`).
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


def check_choice(name: str, value: object, choices: Iterable[str | None]) -> None:
    """Refuse what is none of the choices, whatever it is.

    Raises
    ------
    ValueError
        Naming the choices.
    """
    choices = tuple(choices)
    if not (value is None or isinstance(value, str)) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r:.200}.")


def check_mapping(name: str, values: object) -> Mapping:
    """Return parameters by name, refusing what is no mapping.

    Raises
    ------
    ValueError
        For anything else.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{name} must be a mapping from parameter name to value, got {values!r:.200}.")
    return values


def check_array(name: str, values: object) -> Array:
    """Return real numbers as a JAX array: compiled code's own values as they are, a user's after a look.

    Raises
    ------
    ValueError
        For what is not real.
    """
    return jnp.asarray(values if isinstance(values, jax.Array) else check_real(name, values))


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


@functools.partial(register_dataclass, data_fields=["x", "frozen"], meta_fields=[], drop_fields=["index"])
@dataclass(frozen=True, eq=False)
class Covariates:
    """Covariates as the model reads them.

    Parameters
    ----------
    x : array, shape (d, n)
    frozen : array, shape (classes, n), or None
        What the frozen expert says of them, log f0(. | x): evaluated once, here.
    index : pandas.Index or None
        The rows' names, where x had any; compiled code does not see them.
    """

    x: Array
    frozen: Array | None = None
    index: object = None

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
    own = column_names(x)
    if names is not None and own not in (None, tuple(names)):
        raise ValueError(
            f"x must have the columns {list(names)} in that order, got {list(own)}. Pass x[{list(names)}]."
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
    check_extent("x", array)
    return array


def check_finite(name: str, array: np.ndarray) -> None:
    """Refuse an array that holds NaN or infinity."""
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        raise ValueError(
            f"{name} must be finite, got {array[tuple(bad[0])]} at index {tuple(map(int, bad[0]))} "
            f"({len(bad)} such values). Drop or impute these rows."
        )


def check_extent(name: str, array: np.ndarray) -> None:
    """Refuse columns of units so large or small that squares leave double precision."""
    largest = np.atleast_1d(np.abs(array).max(axis=0)) if array.size else np.zeros(0)
    bad = (largest > 1 / LEAST) | ((largest < LEAST) & (largest > 0))
    if bad.any():
        raise ValueError(
            f"{name} must be of a scale between {LEAST:g} and {1 / LEAST:g}, whose squares double precision holds, got "
            f"values up to {largest[bad][0]:.3g}. Change its units."
        )


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
    check_extent("y", array)
    return array


def check_weights(weights: object | None, n: int) -> np.ndarray | None:
    """Check observation weights: non-negative, finite, one a row, not all zero."""
    if weights is None:
        return None
    array = check_real("weights", weights)
    if array.shape != (n,):
        raise ValueError(f"weights must have shape ({n},), one for each row of x, got {array.shape}.")
    check_finite("weights", array)
    with np.errstate(over="ignore"):
        total = array.sum()
    if not np.isfinite(total):
        raise ValueError(f"weights must have a finite sum, got values up to {array.max():g}. Divide them by that.")
    if (array < 0).any() or not array.any():
        raise ValueError(
            f"weights must be non-negative and not all zero, got a minimum of {array.min()} "
            f"and a maximum of {array.max()}."
        )
    return array
