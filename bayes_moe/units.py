"""Standard units: data with mean zero and standard deviation one, which the default priors expect, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayes_moe.parameters import Params


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
        x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
        if y.ndim != 1:
            raise ValueError(f"y must have shape (n,): units are for one response, got {y.shape}.")
        x_sd, y_sd = x.std(axis=0), float(y.std())
        if not (np.ptp(x, axis=0) > 0).all() or not np.ptp(y) > 0:
            raise ValueError("x and y must vary in every column to have units.")
        return cls(x.mean(axis=0), x_sd, float(y.mean()), y_sd)

    def standard(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the data in standard units."""
        return (np.asarray(x) - self.x_mean) / self.x_sd, (np.asarray(y) - self.y_mean) / self.y_sd

    def original(self, params: Params) -> Params:
        """Carry parameters of a Gaussian-gated mixture, found in standard units, back to the data's own.

        With x = m + s x' and y = l + t y': c = m + s c', Gamma = s Gamma' s, a = t a' / s, b = l + t b' - a'm and
        nu = t^2 nu'.

        Parameters
        ----------
        params : dict of str to array
            With full ``Gamma``; any axes may come before each parameter's own, such as one of draws.

        Raises
        ------
        ValueError
            If ``Gamma`` is not full.
        """
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
