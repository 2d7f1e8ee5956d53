"""Rates: log-log slopes with intervals, and what an efficient estimator would do over the same sizes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from bayes_moe.ground import parameters
from bayes_moe.ground.data import float64
from bayes_moe.theory import information, losses
from comparisons.report import tails
from comparisons.report.slopes import Slope
from comparisons.study.plan import Regime

RESAMPLES = 2000
LEVEL = 0.95
FISHER_ROWS = 20_000  # covariates over which the information is averaged
LIMIT_DRAWS = 4000  # draws from the efficient limit; its median carries a Monte Carlo error of about 2%

# The asymptotic window: sizes at which the efficient limit is this narrow beside what it estimates. At a fifth, the
# curvature of exp adds 3.5% to the root mean square error of e^tau, and one estimate in 1.7 million is off by the
# parameter's own size; at a third it is 10% and one in 370, and a single one may decide the error of 200 runs.
WINDOW = 1 / 5

STATISTICS: dict[str, Callable[..., np.ndarray]] = {
    "median": np.median,
    "mean": np.mean,
    "rmse": lambda errors, axis=None: np.sqrt(np.mean(np.square(errors), axis=axis)),
}
POWERS = {"mean": 1, "rmse": 2}  # of errors, whose mean it is


def slope(sizes: Sequence[int], errors: Sequence[np.ndarray], statistic: str = "median", seed: int = 0) -> Slope | None:
    """Ordinary least squares of the log of a summary of the errors on log n; None where a summary is zero.

    The interval of a median is the slope -+ t x its bootstrap standard error. Replicates are resampled within each
    size; degrees of freedom are Satterthwaite's, so that a size counts for them by its share of the variance. On
    synthetic tables of 4 to 40 replicates it covers in 93 to 99% of trials, heavy tails or not; one size with 2
    replicates beside others with 40 lowers that to 86 to 90%.

    Means and root mean squares have the standard error of their influence, and as many of these as the tail of the
    errors asks for: see :mod:`comparisons.report.tails`. Where the tail is too heavy, or errors are fewer than 40 in
    all, or some size has one alone, there is no interval: its ends are NaN.

    Parameters
    ----------
    sizes : sequence of int
        At least two.
    errors : sequence of ndarray
        For each size, one error a replicate.
    statistic : "median", "mean" or "rmse"
    seed : int

    Returns
    -------
    Slope or None
    """
    if statistic in POWERS:
        power = POWERS[statistic]
        terms = [e**power for e in errors]
        return _mean_slope(sizes, [tails.tail(terms)], [tails.influence(part) for part in terms], power, seed)
    return _slope(sizes, errors, lambda table: np.log(STATISTICS[statistic](table, axis=-1)), seed)


def pooled_slope(sizes: Sequence[int], errors: Sequence[Sequence[np.ndarray]], seed: int = 0) -> Slope | None:
    """Slope of the mean over all errors, where a replicate has several: it is resampled with all of its own.

    Parameters
    ----------
    sizes : sequence of int
    errors : sequence of sequence of ndarray
        For each size, the errors of each replicate.
    seed : int

    Returns
    -------
    Slope or None
        As in :func:`slope`.
    """
    means = [np.array([np.mean(values) for values in each]) for each in errors]
    return _mean_slope(sizes, [tails.tail(means)], [tails.pooled(each) for each in errors], 1, seed)


def difference(
    sizes: Sequence[int],
    errors: Sequence[np.ndarray],
    others: Sequence[np.ndarray],
    statistic: str = "median",
    seed: int = 0,
) -> Slope | None:
    """Slope of ``errors`` less slope of ``others``, for two estimators on the same data.

    Parameters
    ----------
    sizes : sequence of int
    errors, others : sequence of ndarray
        For each size, one error a replicate; the same replicates, in the same order, which are resampled together.
    statistic, seed
        As in :func:`slope`.

    Returns
    -------
    Slope or None
        As in :func:`slope`.
    """
    if statistic in POWERS:
        power = POWERS[statistic]
        both = [[e**power for e in errors], [e**power for e in others]]
        influences = [tails.contrast(*pair) for pair in zip(*both, strict=True)]
        return _mean_slope(sizes, [tails.tail(terms) for terms in both], influences, power, seed)

    def summary(table: np.ndarray) -> np.ndarray:
        ours, theirs = np.log(STATISTICS[statistic](table, axis=-1))
        return ours - theirs

    return _slope(sizes, [np.stack(pair) for pair in zip(errors, others, strict=True)], summary, seed)


def level(
    errors: np.ndarray, statistic: str = "rmse", seed: int = 0, among: Sequence[np.ndarray] | None = None
) -> tuple[float, float, float]:
    """Summary of the errors at one size, with its 95% interval.

    Parameters
    ----------
    errors : ndarray, shape (replicates,)
    statistic : "median", "mean" or "rmse"
    seed : int
    among : sequence of ndarray, optional
        Errors at all sizes, these too, from which their tail is judged; these alone by default.

    Returns
    -------
    tuple of float
        Value, low, high. Of a median, its log -+ t x the bootstrap standard error of that; 0 and infinity for one
        replicate, or where resampled summaries are zero. Of others as in :func:`slope`: NaN ends where no interval is
        to be trusted.
    """
    value = float(STATISTICS[statistic](errors))
    if statistic in POWERS and value > 0:
        power = POWERS[statistic]
        found = [tails.tail([part**power for part in ([errors] if among is None else among)])]
        margin = tails.margin(found, [tails.influence(errors**power)], np.array([1 / power]), LEVEL, seed)
        ratio = np.nan if margin is None else float(np.exp(margin[0]))
        return value, value / ratio, value * ratio
    _, variance = _bootstrap(
        errors, lambda table: np.log(STATISTICS[statistic](table, axis=-1)), np.random.default_rng(seed)
    )
    if not np.isfinite(variance):
        return value, 0.0, np.inf
    ratio = float(np.exp(stats.t.ppf(0.5 + LEVEL / 2, len(errors) - 1) * np.sqrt(variance)))
    return value, value / ratio, value * ratio


def _mean_slope(
    sizes: Sequence[int],
    found: Sequence[tails.Tail | None],
    influences: Sequence[tails.Influence],
    power: int,
    seed: int,
) -> Slope | None:
    """Slope of (log of a mean of powers) / power, whose terms have these tails."""
    if not all(mean > 0 for mean, _ in influences):
        return None
    weights = _weights(sizes) / power
    value = float(weights @ np.log([mean for mean, _ in influences]))
    margin = tails.margin(found, influences, weights, LEVEL, seed)
    if margin is None:
        return Slope.bare(value)
    half, df = margin
    return Slope(value, value - half, value + half, half / float(stats.t.ppf(0.5 + LEVEL / 2, df)), df)


LogSummary = Callable[[np.ndarray], np.ndarray]  # over the last axis, replicates, of tables (..., replicates)


def _slope(sizes: Sequence[int], tables: Sequence[np.ndarray], log_summary: LogSummary, seed: int) -> Slope | None:
    rng = np.random.default_rng(seed)
    logs, variances = np.array([_bootstrap(table, log_summary, rng) for table in tables]).T
    if not np.isfinite(logs).all():
        return None
    weights = _weights(sizes)
    value = float(weights @ logs)
    if not np.isfinite(variances).all():
        return Slope(value, -np.inf, np.inf, np.inf, 1.0)
    parts = weights**2 * variances
    total = float(parts.sum())
    spare = np.array([table.shape[-1] - 1 for table in tables])
    df = total**2 / float((parts**2 / spare).sum()) if total else np.inf
    half = float(stats.t.ppf(0.5 + LEVEL / 2, df)) * total**0.5
    return Slope(value, value - half, value + half, total**0.5, df)


def _bootstrap(table: np.ndarray, log_summary: LogSummary, rng: np.random.Generator) -> tuple[float, float]:
    """Log of a summary, and its variance: infinite for one replicate, or where a resampled summary is zero."""
    count = table.shape[-1]
    with np.errstate(divide="ignore", invalid="ignore"):  # an error may be zero
        resampled = log_summary(table[..., rng.integers(count, size=(RESAMPLES, count))])
        value = float(log_summary(table))
    if count < 2 or not np.isfinite(resampled).all():
        return value, np.inf
    # The bootstrap's variance is that of a mean over the sample, too small by (count - 1) / count.
    return value, float(resampled.var()) * count / (count - 1)


def ols_slope(sizes: Sequence[int], values: np.ndarray) -> np.ndarray:
    """Slopes of log values (sizes, columns) on log sizes, one for each column."""
    return _weights(sizes) @ np.log(values)


def _weights(sizes: Sequence[int]) -> np.ndarray:
    """Weights of logs in their slope on log n."""
    centred = np.log(np.asarray(sizes, dtype=float))
    centred -= centred.mean()
    return centred / (centred @ centred)


# What an efficient estimator would do ------------------------------------------------------------------------------


def bound(regime: Regime, sizes: Sequence[int], statistic: str = "median") -> dict[str, np.ndarray]:
    """Summary of the errors of an estimator that attains the Cramér–Rao bound, N(truth, I^-1 / n), at each size.

    For means and root mean squares the error of e^tau is linearised, e^tau* |tau - tau*|, so that the root mean square
    is the Cramér–Rao bound of e^tau itself: where tau is uncertain, moments of its exponential say nothing.

    Parameters
    ----------
    regime : Regime
    sizes : sequence of int
    statistic : "median", "mean" or "rmse"

    Returns
    -------
    dict of str to ndarray
        For each parameter, one value a size, in the same error as :func:`bayes_moe.theory.losses.errors`. Empty for a
        regime without scales: over-fitted, its information is singular.
    """
    if regime.scales is None:
        return {}
    rows = [_bound(regime, int(n), statistic) for n in sizes]
    return {name: np.array([row[name] for row in rows]) for name in regime.moe.fields}


def _bound(regime: Regime, n: int, statistic: str) -> Mapping[str, float]:
    """Bound at one size: computed, or of a regime that was read as data what is known."""
    if (known := getattr(regime, "bound", None)) is not None:
        return known(n, statistic)
    errors = _efficient_errors(regime, n, statistic != "median")
    return {name: STATISTICS[statistic](errors[name]) for name in regime.moe.fields}


@functools.lru_cache(maxsize=1024)
@float64
def _efficient_errors(regime: Regime, n: int, linear: bool) -> dict[str, np.ndarray]:
    moe, truth = regime.moe, regime.truth(n)
    x = np.random.default_rng(1).normal(size=(FISHER_ROWS, moe.gate.features))
    information_n = n * information.fisher(moe, truth, x)
    normal = np.random.default_rng(2).normal(size=(LIMIT_DRAWS, len(information_n)))
    deviations = np.linalg.solve(np.linalg.cholesky(information_n).T, normal.T).T
    draws = jnp.asarray(np.asarray(parameters.flatten(moe.fields, truth)) + deviations)

    def error(free: jax.Array) -> dict[str, jax.Array]:
        return losses.errors(parameters.unflatten(moe.fields, free), truth)

    errors = jax.tree.map(np.asarray, jax.vmap(error)(draws))
    if linear and "tau" in errors:
        moved = deviations[:, parameters.blocks(moe.fields)["tau"]]
        errors["tau"] = np.abs(np.exp(truth["tau"]) * moved).sum(axis=1)
    return errors


# Where asymptotics begin -------------------------------------------------------------------------------------------


def relative_bound(regime: Regime, n: int) -> dict[str, float]:
    """Root mean square of the efficient limit's error over the size of what is estimated, the regime's scale."""
    limit = bound(regime, [n], "rmse")
    scale = _scales(regime, n) if limit else {}
    return {name: float(values[0]) / scale[name] for name, values in limit.items()}


def _scales(regime: Regime, n: int) -> Mapping[str, float]:
    known = getattr(regime, "scale", None)
    return regime.scales(regime.truth(n)) if known is None else known(n)


def window(regime: Regime, sizes: Sequence[int]) -> tuple[int, ...]:
    """Sizes in the asymptotic window: every parameter's relative bound is at most ``WINDOW``, there and above."""
    if regime.scales is None:
        return ()
    inside = []
    for n in sorted(sizes, reverse=True):
        if max(relative_bound(regime, n).values()) > WINDOW:
            break
        inside.append(n)
    return tuple(reversed(inside))
