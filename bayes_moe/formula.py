"""Formulas for the varying-coefficient mixture: ``y ~ z1 + z2 | x1``, experts' covariates first, then the gate's.

The formula language is that of ``formulaic``, an optional extra: ``pip install "bayes-moe[formula]"``.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

INTERCEPT = "Intercept"  # formulaic's name for the column of ones


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
    """

    y: np.ndarray
    x: np.ndarray
    z: np.ndarray
    u: np.ndarray
    x_names: tuple[str, ...]
    z_names: tuple[str, ...]
    u_name: str
    specs: tuple

    @property
    def sizes(self) -> dict[str, int]:
        """Number of covariates, for :func:`bayes_moe.varying_coefficient`."""
        return {"gate_features": self.x.shape[1], "expert_features": self.z.shape[1]}

    @property
    def data(self) -> dict[str, np.ndarray]:
        """The data by name, for :func:`mle.kernel_em.fit`."""
        return {"x": self.x, "z": self.z, "u": self.u, "y": self.y}

    def again(self, frame: pd.DataFrame) -> dict[str, np.ndarray]:
        """The covariates x, z and u of other rows, encoded as these were.

        Raises
        ------
        ValueError
            For a missing column or value, or a level of a factor that the formula's data do not have.
        """
        from formulaic.errors import DataMismatchWarning, FormulaicError  # noqa: PLC0415 - an optional extra

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", DataMismatchWarning)
                parts = [spec.get_model_matrix(frame) if spec else None for spec in self.specs]
        except DataMismatchWarning as error:
            said = str(error).partition(". They are being")[0]
            raise ValueError(f"frame must have levels of the formula's data alone: {said}. Drop those rows.") from error
        except (FormulaicError, ValueError, NameError) as error:
            raise ValueError(f"frame must have the columns of the formula, without missing values: {error}") from error
        z, x = (_covariates(part, len(frame))[0] for part in parts)
        return {"x": x, "z": z, "u": _column(frame, self.u_name)}


def design(formula: str, frame: pd.DataFrame, u: str) -> Design:
    """Read data from a data frame by a formula.

    Parameters
    ----------
    formula : str
        ``y ~ z1 + z2 | x1``: response, covariates of the experts, and after the bar those of the gate; without a bar
        the gate has none. Both have intercepts. Factors, interactions and transformations are formulaic's.
    frame : DataFrame
    u : str
        Name of the index column.

    Returns
    -------
    Design

    Raises
    ------
    ValueError
        For a formula without response, with several, with more than one bar or without intercept; an unknown column;
        missing values; an index that is no number.
    ImportError
        If formulaic is not installed.

    Examples
    --------
    >>> made = design("count ~ dose + C(batch) | age", frame, u="time")
    >>> model = varying_coefficient("poisson", components=2, **made.sizes)
    >>> fit = kernel_em.fit(model, **made.data, h=0.2, random_state=0)
    """
    matrices = _matrices(formula, frame)
    response = getattr(matrices, "lhs", None)
    if response is None or response.shape[1] != 1:
        raise ValueError(f"formula must have one response, as in 'y ~ z | x', got {formula!r}.")
    parts = matrices.rhs if isinstance(matrices.rhs, tuple) else (matrices.rhs, None)
    if len(parts) != 2:
        raise ValueError(f"formula must have at most one bar, experts | gate, got {len(parts)} parts in {formula!r}.")
    if any(part is not None and INTERCEPT not in part.columns for part in parts):
        raise ValueError(f"formula must leave the intercepts in: every curve has one, got {formula!r}.")
    (z, z_names), (x, x_names) = (_covariates(part, len(frame)) for part in parts)
    specs = tuple(None if part is None else part.model_spec for part in parts)
    return Design(response.to_numpy(dtype=float)[:, 0], x, z, _column(frame, u), x_names, z_names, u, specs)


def _matrices(formula: str, frame: pd.DataFrame) -> object:
    try:
        from formulaic import model_matrix  # noqa: PLC0415 - an optional extra
        from formulaic.errors import FormulaicError  # noqa: PLC0415
    except ImportError as error:
        raise ImportError('formulas need formulaic: pip install "bayes-moe[formula]".') from error
    try:
        return model_matrix(formula, frame, na_action="raise", output="pandas")
    except (FormulaicError, ValueError, NameError) as error:
        raise ValueError(f"formula must fit the data frame, got {formula!r}: {error}") from error


def _covariates(part: pd.DataFrame | None, n: int) -> tuple[np.ndarray, tuple[str, ...]]:
    if part is None:
        return np.zeros((n, 0)), ()
    kept = part.drop(columns=INTERCEPT)
    return kept.to_numpy(dtype=float), tuple(map(str, kept.columns))


def _column(frame: pd.DataFrame, name: str) -> np.ndarray:
    if name not in frame.columns:
        raise ValueError(f"u must name a column of the data frame, got {name!r}. They are {list(frame.columns)}.")
    try:
        return frame[name].to_numpy(dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"u must name a column of real numbers, got {name!r} of dtype {frame[name].dtype}. Convert it to float."
        ) from error
