"""Bands around coefficient curves, whoever drew them: confidence bands by ``mle``, credible ones by ``credible``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bayes_moe.varying.model import VaryingCoefficient, by_name

SLACK = 1e-12  # by which a curve may touch the band that covers it


class Curves(Protocol):
    """What bands are drawn around: a fit, or :class:`Centre`."""

    model: VaryingCoefficient
    grid: np.ndarray  # (G,), in the user's units of u
    level: np.ndarray  # (G, P)


@dataclass(frozen=True)
class Centre:
    """Coefficient curves on a grid, and nothing else: a posterior mean.

    Parameters
    ----------
    model : VaryingCoefficient
    grid : ndarray, shape (G,)
        In the user's units of u.
    level : ndarray, shape (G, P)
    """

    model: VaryingCoefficient
    grid: np.ndarray
    level: np.ndarray

    @property
    def params(self) -> dict[str, np.ndarray]:
        """Coefficients at the grid points by name, a row for each: ``alpha`` (G, C, 1 + q)."""
        return by_name(self.model, self.level)


@dataclass(frozen=True)
class Bands:
    """Bands around coefficient curves: estimate +- c se(u).

    Parameters
    ----------
    fit : CurveFit or Centre
    level : float
        Nominal coverage, or posterior probability, of each curve by itself.
    simultaneous : bool
        Whether a whole curve is covered with that probability, or each of its points.
    method : str
    se : ndarray, shape (G, P)
        Standard errors, or posterior standard deviations; infinite where the local information is singular.
    critical : ndarray, shape (P,) or (G, P)
        The c of each curve, or of each of its points.
    bias : ndarray, shape (G, P), or None
        The bootstrap's mean minus the estimate.
    draws : ndarray, shape (replicates, G, P), or None
        Bootstrap or posterior curves, labels aligned; failed replicates left out.
    problems : tuple of str
        What to distrust.
    """

    fit: Curves
    level: float
    simultaneous: bool
    method: str
    se: np.ndarray
    critical: np.ndarray
    bias: np.ndarray | None = None
    draws: np.ndarray | None = None
    problems: tuple[str, ...] = ()

    @property
    def half(self) -> np.ndarray:
        """Half the width of each band, (G, P)."""
        return self.critical * self.se

    @property
    def lower(self) -> dict[str, np.ndarray]:
        """Lower ends by name, a row for each grid point."""
        return by_name(self.fit.model, self.fit.level - self.half)

    @property
    def upper(self) -> dict[str, np.ndarray]:
        """Upper ends by name, a row for each grid point."""
        return by_name(self.fit.model, self.fit.level + self.half)

    def covers(self, truth: Mapping[str, object]) -> np.ndarray:
        """Whether each curve lies inside its band, (P,) if simultaneous, else at each grid point, (G, P).

        Parameters
        ----------
        truth : dict of str to array-like
            The true coefficients at the fit's grid points, a row for each.
        """
        inside = np.abs(self.fit.model.rows(truth, len(self.fit.grid)) - self.fit.level) <= self.half + SLACK
        return inside.all(axis=0) if self.simultaneous else inside


def critical(draws: np.ndarray, centre: np.ndarray, se: np.ndarray, level: float, simultaneous: bool) -> np.ndarray:
    """The c for which centre +- c se holds a share ``level`` of the draws, whole curves or their points.

    The ``level`` quantile over draws of max_u |draw(u) - centre(u)| / se(u), of each curve; or of the ratio at each u.

    Parameters
    ----------
    draws : ndarray, shape (draws, G, P)
    centre, se : ndarray, shape (G, P)
    level : float
    simultaneous : bool
        Over the G points of the grid.

    Returns
    -------
    ndarray, shape (P,) or (G, P)

    References
    ----------
    Ruppert, Wand and Carroll (2003), section 6.5.
    """
    deviation = np.abs(draws - centre) / np.where(se > 0, se, 1.0)
    if simultaneous:
        deviation = deviation.max(axis=1)
    return np.quantile(deviation, level, axis=0, method="higher")


def check_level(level: object) -> None:
    """Refuse a nominal coverage outside (0, 1)."""
    if isinstance(level, bool) or not isinstance(level, float | np.floating) or not 0 < level < 1:
        raise ValueError(f"level must be a number between 0 and 1, as 0.95, got {level!r}.")
