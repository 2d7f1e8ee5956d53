"""Standard units: data with mean zero and standard deviation one, which the default priors expect, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bayes_moe.ground.data import check_real, check_response, check_x, same_rows
from bayes_moe.ground.parameters import Params

NAMES = ("pi", "c", "Gamma", "a", "b", "nu")


@dataclass(frozen=True)
class Units:
    """Location and scale of each covariate and of a scalar response.

    Parameters
    ----------
    x_mean, x_sd : ndarray, shape (d,)
    y_mean, y_sd : float
    """

    x_mean: np.ndarray
    x_sd: np.ndarray
    y_mean: float
    y_sd: float

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray) -> Units:
        """Units in which these data have means zero and standard deviations one.

        Parameters
        ----------
        x : array-like, shape (n, d)
        y : array-like, shape (n,)

        Raises
        ------
        ValueError
            If a column or the response does not vary, or there are several responses.
        """
        x, y = _checked(x, y)
        x_sd, y_sd = x.std(axis=0), float(y.std())
        if not (np.ptp(x, axis=0) > 0).all() or not np.ptp(y) > 0:
            raise ValueError("x and y must vary in every column to have units.")
        return cls(x.mean(axis=0), x_sd, float(y.mean()), y_sd)

    def standard(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the data in standard units."""
        x, y = _checked(x, y, len(self.x_mean))
        return (x - self.x_mean) / self.x_sd, (y - self.y_mean) / self.y_sd

    def original(self, params: Params) -> Params:
        """Carry parameters of a Gaussian-gated mixture, found in standard units, back to the data's own.

        With x = m + s x' and y = l + t y': c = m + s c', Gamma = s Gamma' s, a = t a' / s, b = l + t b' - a'm and
        nu = t^2 nu'.

        Parameters
        ----------
        params : dict of str to array, xarray.Dataset or DataTree
            With full ``Gamma``; any axes may come before each parameter's own, such as one of draws. Of a tree, its
            posterior; for its relabelled draws pass ``tree["relabelled"].to_dataset()``.

        Returns
        -------
        dict of str to ndarray

        Raises
        ------
        ValueError
            For other parameters, or if ``Gamma`` is not full.
        """
        params = _named(params)
        size = len(self.x_mean)
        if np.shape(params["Gamma"]) != (*np.shape(params["c"]), size):
            raise ValueError("params: Gamma must be full: in other units a spherical covariance is no longer that.")
        a = self.y_sd * np.asarray(params["a"]) / self.x_sd
        return {
            "pi": np.asarray(params["pi"]),
            "c": self.x_mean + self.x_sd * np.asarray(params["c"]),
            "Gamma": np.outer(self.x_sd, self.x_sd) * np.asarray(params["Gamma"]),
            "a": a,
            "b": self.y_mean + self.y_sd * np.asarray(params["b"]) - a @ self.x_mean,
            "nu": self.y_sd**2 * np.asarray(params["nu"]),
        }


def _checked(x: object, y: object, features: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The data as arrays (n, d) and (n,), or an error that names one of them."""
    same_rows(x=x, y=y)
    columns = check_real("x", x)
    if columns.ndim != 2 or features not in (None, columns.shape[1]):
        raise ValueError(f"x must have shape (n, {features or 'd'}), got {columns.shape}.")
    checked = check_x(columns, columns.shape[1])
    response = check_real("y", y)
    if response.ndim != 1:
        raise ValueError(f"y must have shape (n,): units are for one response, got {response.shape}.")
    return checked, check_response(response, 1, len(checked))


def _named(params: object) -> dict[str, np.ndarray]:
    """The parameters of a Gaussian-gated mixture, chains and draws in front, from a mapping, a dataset or a tree."""
    if hasattr(params, "children"):
        params = params["posterior"].to_dataset() if "posterior" in params.children else params.to_dataset()
    if hasattr(params, "data_vars"):
        front = [dim for dim in ("chain", "draw", "sample") if dim in params.dims]
        params = {name: values.transpose(*front, ...) for name, values in params.data_vars.items()}
    missing = [name for name in NAMES if not isinstance(params, Mapping) or name not in params]
    if missing:
        raise ValueError(
            f"params must hold {', '.join(NAMES)} of a Gaussian-gated mixture, or be a tree of draws of one; "
            f"missing: {', '.join(missing)}."
        )
    return {name: check_real(f"params: {name}", np.asarray(params[name])) for name in NAMES}
