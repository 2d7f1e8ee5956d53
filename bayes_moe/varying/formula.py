"""Formulas for the varying-coefficient mixture: ``y ~ z1 + z2 | x1``, experts' covariates first, then the gate's.

The formula language is that of ``formulaic``, an optional extra: ``pip install "bayes-moe[formula]"``.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bayes_moe.ground.dates import index_values

if TYPE_CHECKING:
    import pandas as pd

INTERCEPT = "Intercept"  # formulaic's name for the column of ones
NAME = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True, eq=False)
class Design:
    """Arrays that a formula makes of a data frame, and how to make them again.

    Parameters
    ----------
    y : ndarray, shape (n,)
    x : ndarray, shape (n, p)
        Covariates of the gate, without intercept.
    z : ndarray, shape (n, q)
        Covariates of the experts, without intercept.
    u : ndarray, shape (n,)
    x_names, z_names : tuple of str
        What the columns are.
    u_name : str
    specs : tuple
        How formulaic encoded z and x.
    names : dict
        What the formula uses beside columns: the caller's functions, modules and values, by name.
    """

    y: np.ndarray
    x: np.ndarray
    z: np.ndarray
    u: np.ndarray
    x_names: tuple[str, ...]
    z_names: tuple[str, ...]
    u_name: str
    specs: tuple
    names: dict[str, object] = field(default_factory=dict, repr=False)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of covariates, for :func:`bayes_moe.varying_coefficient`."""
        return {"gate_features": self.x.shape[1], "expert_features": self.z.shape[1]}

    @property
    def data(self) -> dict[str, np.ndarray]:
        """The data by name, for :func:`mle.kernel.kernel_em.fit`."""
        return {"x": self.x, "z": self.z, "u": self.u, "y": self.y}

    def again(self, frame: pd.DataFrame) -> dict[str, np.ndarray]:
        """The covariates x, z and u of other rows, encoded as these were.

        Raises
        ------
        ValueError
            For a missing column or value, or a level of a factor that the formula's data do not have.
        """
        from formulaic.errors import DataMismatchWarning  # noqa: PLC0415 - an optional extra

        frame = _as_pandas(frame)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", DataMismatchWarning)
                parts = [spec.get_model_matrix(frame, context=self.names) if spec else None for spec in self.specs]
        except DataMismatchWarning as error:
            said = str(error).partition(". They are being")[0]
            raise ValueError(f"frame must have levels of the formula's data alone: {said}. Drop those rows.") from error
        except _errors() as error:
            where = _first_missing(frame)
            raise ValueError(
                f"frame must have the columns of the formula, without missing values: {error}{where}"
            ) from error
        z, x = (_covariates(part, len(frame))[0] for part in parts)
        return {"x": x, "z": z, "u": _column(frame, self.u_name)}


def design(formula: str, frame: pd.DataFrame, u: str, *, context: Mapping[str, object] | None = None) -> Design:
    """Read data from a data frame by a formula.

    Parameters
    ----------
    formula : str
        ``y ~ z1 + z2 | x1``: response, covariates of the experts, and after the bar those of the gate; without a bar
        the gate has none. Both have intercepts. Factors, interactions and transformations are formulaic's. Columns of
        words are factors, whatever pandas calls their dtype.
    frame : DataFrame
        Of pandas, polars or Arrow.
    u : str
        Name of the index column: numbers, dates (then days since 1970, UTC) or durations (days).
    context : mapping, optional
        Functions and values that the formula may use beside columns; by default what the caller sees.

    Returns
    -------
    Design

    Raises
    ------
    ValueError
        For a formula without response, with several, with more than one bar or without intercept; an unknown column;
        missing values; dates among the covariates; an index that is neither number nor date.
    ImportError
        If formulaic is not installed.

    Examples
    --------
    >>> made = design("count ~ dose + C(batch) | age", frame, u="time")
    >>> model = varying_coefficient("poisson", components=2, **made.sizes)
    >>> fit = kernel_em.fit(model, **made.data, h=0.2, random_state=0)
    """
    if context is None:
        caller = sys._getframe(1)
        context = {**caller.f_globals, **caller.f_locals}
    frame, words = _as_pandas(frame), set(NAME.findall(str(formula)))
    names = {name: value for name, value in context.items() if name in words}
    matrices = _matrices(formula, frame, names)
    response = getattr(matrices, "lhs", None)
    if response is None or response.shape[1] != 1:
        raise ValueError(f"formula must have one response, as in 'y ~ z | x', got {formula!r}.")
    parts = matrices.rhs if isinstance(matrices.rhs, tuple) else (matrices.rhs, None)
    if len(parts) != 2:
        raise ValueError(f"formula must have at most one bar, experts | gate, got {len(parts)} parts in {formula!r}.")
    if any(part is not None and INTERCEPT not in part.columns for part in parts):
        raise ValueError(f"formula must leave the intercepts in: every curve has one, got {formula!r}.")
    _check_columns(frame, response, *parts)
    (z, z_names), (x, x_names) = (_covariates(part, len(frame)) for part in parts)
    specs = tuple(None if part is None else part.model_spec for part in parts)
    y = _floats(response)[:, 0]
    return Design(y, x, z, _column(frame, u), x_names, z_names, u, specs, names)


def _matrices(formula: str, frame: pd.DataFrame, names: dict[str, object]) -> object:
    try:
        from formulaic import model_matrix  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise ImportError('formulas need formulaic: pip install "bayes-moe[formula]".') from error
    try:
        return model_matrix(formula, frame, context=names, na_action="raise", output="pandas")
    except _errors() as error:
        raise ValueError(
            f"formula must fit the data frame, got {formula!r}: {error}{_about_dates(frame, formula)}"
            f"{_first_missing(frame)}"
        ) from error


def _errors() -> tuple[type[Exception], ...]:
    """What formulaic raises, for formulas and data that do not go together."""
    from formulaic.errors import FormulaicError  # noqa: PLC0415 - an optional extra

    return FormulaicError, ValueError, NameError, TypeError, SyntaxError, AttributeError, LookupError


def _first_missing(frame: pd.DataFrame) -> str:
    """Say where values are missing, for errors that may be about them."""
    missing = np.argwhere(frame.isna().to_numpy())
    return (
        f" (first missing: column {str(frame.columns[missing[0][1]])!r}, row {missing[0][0]})" if len(missing) else ""
    )


def _about_dates(frame: pd.DataFrame, formula: object) -> str:
    """Say which columns that a formula names are dates, which no covariate can be."""
    words = NAME.findall(str(formula))
    kinds = {name: str(frame[name].dtype) for name in frame.columns if name in words}
    dates = [name for name, kind in kinds.items() if kind.startswith(("datetime", "timedelta", "period", "timestamp"))]
    return f". {dates} are dates: make numbers of them, such as days since the first" if dates else ""


def _check_columns(frame: pd.DataFrame, *parts: pd.DataFrame | None) -> None:
    """Refuse rows that come from elsewhere than the frame: other frames would not have them."""
    for part in (part for part in parts if part is not None):
        for factor in part.model_spec.factors:
            if factor.eval_method.value == "lookup" and factor.expr not in frame.columns:
                raise ValueError(
                    f"formula must name columns of the data frame, got {factor.expr!r}, which is a variable outside. "
                    f"They are {list(frame.columns)}."
                )


def _covariates(part: pd.DataFrame | None, n: int) -> tuple[np.ndarray, tuple[str, ...]]:
    if part is None:
        return np.zeros((n, 0)), ()
    kept = part.drop(columns=INTERCEPT)
    return _floats(kept), tuple(map(str, kept.columns))


def _floats(part: pd.DataFrame) -> np.ndarray:
    dates = [str(name) for name, dtype in part.dtypes.items() if getattr(dtype, "kind", "O") not in "fiub"]
    if dates:
        raise ValueError(
            f"formula must be of numbers and factors, got {dates} of dtype {part.dtypes[dates[0]]}. Make numbers of "
            "dates, such as days since the first."
        )
    return part.to_numpy(dtype=float)


def _as_pandas(frame: object) -> pd.DataFrame:
    """The frame with rows numbered, words as objects, and numbers as NumPy has them."""
    import pandas as pd  # noqa: PLC0415 - formulaic brings it

    table = frame.to_pandas() if hasattr(frame, "to_pandas") else frame
    if not isinstance(table, pd.DataFrame):
        raise ValueError(f"frame must be a data frame of pandas, polars or Arrow, got {type(frame).__name__}.")
    if not table.columns.is_unique:
        twice = table.columns[table.columns.duplicated()].tolist()
        raise ValueError(f"frame must have columns of different names, got {twice} twice. Rename them.")
    return pd.DataFrame({name: _plain(table[name]) for name in table.columns}).reset_index(drop=True)


def _plain(column: pd.Series) -> pd.Series:
    """A column of words as objects, of nullable numbers as NumPy's; others as they are."""
    import pandas as pd  # noqa: PLC0415 - formulaic brings it

    dtype, types = column.dtype, pd.api.types
    if isinstance(dtype, pd.CategoricalDtype | np.dtype):
        return column
    words = types.is_string_dtype(column) or str(dtype).startswith("dictionary")
    if words or getattr(dtype, "kind", "O") in "USO":
        return column.astype(object).where(column.notna(), None) if words else column
    if dtype.kind not in "fiub":
        return column
    return column.astype(float if column.isna().any() else dtype.numpy_dtype)


def _column(frame: pd.DataFrame, name: str) -> np.ndarray:
    if name not in frame.columns:
        raise ValueError(f"u must name a column of the data frame, got {name!r}. They are {list(frame.columns)}.")
    try:
        return index_values("u", frame[name])
    except ValueError as error:
        raise ValueError(f"u must name a column of numbers or dates, got {name!r}: {error}") from error
