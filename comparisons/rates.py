"""Rates: log-log slopes with intervals, and what an efficient estimator would do over the same sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from bayes_moe import information, losses, parameters
from bayes_moe.data import float64
from comparisons.study import Regime

RESAMPLES = 2000
FISHER_ROWS = 20_000  # covariates over which the information is averaged
LIMIT_DRAWS = 4000  # draws from the efficient limit; its median carries a Monte Carlo error of about 2%


@dataclass(frozen=True)
class Slope:
    """Log-log slope with its 95% bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Format as ``-0.50 [-0.55, -0.44]``."""
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def slope(sizes: Sequence[int], errors: Sequence[np.ndarray], seed: int = 0) -> Slope:
    """Ordinary least squares of log median error on log n.

    The interval resamples replicates within each size (percentile bootstrap).

    Parameters
    ----------
    sizes : sequence of int
        At least two.
    errors : sequence of ndarray
        For each size, one error a replicate.
    seed : int

    Returns
    -------
    Slope
    """
    rng = np.random.default_rng(seed)
    medians = np.array([np.median(e) for e in errors])
    resampled = np.stack(
        [np.median(rng.choice(e, (RESAMPLES, len(e))), axis=1) for e in errors],
    )
    slopes = ols_slope(sizes, resampled)
    low, high = np.quantile(slopes, [0.025, 0.975])
    return Slope(float(ols_slope(sizes, medians[:, None])[0]), float(low), float(high))


def ols_slope(sizes: Sequence[int], values: np.ndarray) -> np.ndarray:
    """Slopes of log values (sizes, columns) on log sizes, one for each column."""
    log_n = np.log(np.asarray(sizes, dtype=float))
    centred = log_n - log_n.mean()
    return centred @ np.log(values) / (centred @ centred)


@float64
def bound(regime: Regime, sizes: Sequence[int]) -> dict[str, np.ndarray]:
    """Median error of an estimator that attains the Cramér–Rao bound, N(truth, I^-1 / n), at each size.

    Medians, because in the homogeneous regime estimators have heavy tails: means would show their outliers.

    Parameters
    ----------
    regime : Regime
    sizes : sequence of int

    Returns
    -------
    dict of str to ndarray
        For each parameter, one value a size, in the same error as :func:`bayes_moe.losses.errors`.
    """
    x = np.random.default_rng(1).normal(size=(FISHER_ROWS, regime.moe.gate.features))
    rows = [_efficient_errors(regime, n, x) for n in sizes]
    return {name: np.array([np.median(row[name]) for row in rows]) for name in regime.moe.fields}


def _efficient_errors(regime: Regime, n: int, x: np.ndarray) -> dict[str, np.ndarray]:
    moe, truth = regime.moe, regime.truth(n)
    information_n = n * information.fisher(moe, truth, x)
    normal = np.random.default_rng(2).normal(size=(LIMIT_DRAWS, len(information_n)))
    deviations = np.linalg.solve(np.linalg.cholesky(information_n).T, normal.T).T
    draws = jnp.asarray(np.asarray(parameters.flatten(moe.fields, truth)) + deviations)

    def error(free: jax.Array) -> dict[str, jax.Array]:
        return losses.errors(parameters.unflatten(moe.fields, free), truth)

    return jax.tree.map(np.asarray, jax.vmap(error)(draws))
