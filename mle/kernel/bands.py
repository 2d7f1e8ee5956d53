"""Confidence bands for coefficient curves: pointwise and simultaneous, asymptotic and by parametric bootstrap.

A band is estimate +- c se(u). The asymptotic ones are about the estimator's mean: the smoothing bias, of order h^2
times the curve's second derivative, is left alone, so fit with a bandwidth below that of cross-validation (80 to 90% of
it). The bootstrap sees that bias, since its c is of distances from the curves that responses were drawn from; its
estimate of it is in ``Bands.bias``.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
from jax import Array
from scipy import optimize, stats

from bayes_moe.ground.data import check_count, float64
from bayes_moe.varying.bands import Bands, check_level, critical
from bayes_moe.varying.indexed import IndexedObservations
from mle.kernel import bootstrap as curve_bootstrap
from mle.kernel import kernel_em, standard
from mle.kernel import plan as curve_plan
from mle.kernel.fit import CurveFit, degenerate
from mle.kernel.sandwich import standard_errors, standard_units
from mle.local import labels
from mle.local.kernels import KERNELS, Kernel

CONSTANTS = ("rice", "fan-zhang", "package")
PILOT = 50  # replicates that tell how much too flat curves come out, and too small dispersions
PILOT_STREAM = 2**32 - 1  # of the key, beyond those of the replicates


@float64
def asymptotic(
    fit: CurveFit,
    *,
    level: float = 0.95,
    simultaneous: bool = True,
    constant: str = "rice",
    sandwich: str | None = None,
) -> Bands:
    """Bands from a sandwich: see :mod:`mle.kernel.sandwich`.

    Parameters
    ----------
    fit : CurveFit
    level : float
    simultaneous : bool
    constant : "rice", "fan-zhang" or "package"
        The simultaneous c: see :func:`critical_value`. Pointwise bands have no use for it.
    sandwich : "joint" or "local", optional
        Of the label-consistent EM's equations at all u together, or of each u's local log likelihood, as in the paper;
        by default that of the fit's engine.

    Raises
    ------
    ValueError
        For bad settings, and for models with constant coefficients, whose errors are no local ones.

    References
    ----------
    Fan and Zhang (2000); arXiv:2601.01699.
    """
    return from_errors(fit, standard_errors(fit, sandwich), level=level, simultaneous=simultaneous, constant=constant)


def from_errors(
    fit: CurveFit, se: np.ndarray, *, level: float, simultaneous: bool = True, constant: str = "rice"
) -> Bands:
    """Asymptotic bands of any level and constant from the same standard errors: see :func:`asymptotic`.

    Parameters
    ----------
    fit : CurveFit
    se : ndarray, shape (G, P)
        From :func:`mle.kernel.sandwich.standard_errors`.
    level : float
    simultaneous : bool
    constant : str

    Returns
    -------
    Bands

    Raises
    ------
    ValueError
        As from :func:`asymptotic`.
    """
    check_level(level)
    if fit.model.constant:
        raise ValueError(
            f"fit must have no constant coefficients for asymptotic bands, got {', '.join(fit.model.constant)}. "
            "Use bands.bootstrap."
        )
    _check_constant(constant)
    c, method = stats.norm.ppf((1 + level) / 2), "asymptotic"
    if simultaneous:
        c, method = critical_value(level, fit.h, constant, fit.kernel), f"asymptotic, {constant}"
    return Bands(fit, level, simultaneous, method, se, np.full(fit.model.size, c), problems=_flat(fit, se))


@float64
def bootstrap(
    fit: CurveFit,
    *,
    random_state: int | np.random.Generator | None,
    replicates: int = 200,
    level: float = 0.95,
    simultaneous: bool = True,
    pilot: int = PILOT,
    workers: int | None = None,
) -> Bands:
    """Bands by the parametric bootstrap.

    Components and responses are drawn from the fit at the observed x, z and u, fitted again with the same bandwidth
    from the fit's curves, and numbered to be nearest to them. se(u) is the standard deviation over replicates; the
    simultaneous c is the ``level`` quantile of max_u |b(u) - estimate(u)| / se(u), for each curve.

    Fitted curves are flatter than the true ones, and dispersions smaller, since local fits follow the data: bands of
    responses drawn from them are too narrow. Responses are therefore drawn from the fit less its bias, that of the
    median curve of a first, smaller bootstrap (of delta its mean over u). The band stays around the fit.

    Parameters
    ----------
    fit : CurveFit
    random_state : int or Generator
    replicates : int
    level : float
    simultaneous : bool
    pilot : int
        Replicates of that first bootstrap; 0 to draw responses from the fit as it is, as in the paper.
    workers : int, optional
        Threads; by default one for each core. Results do not depend on it.

    Raises
    ------
    ValueError
        For bad settings, too many components to align, or if most replicates fail.

    References
    ----------
    arXiv:2601.01699.
    """
    check_level(level)
    curve_bootstrap.check_replicates(replicates, level)
    draws, problems = replicate_curves(fit, random_state, replicates, workers, pilot)
    return from_replicates(fit, draws, level=level, simultaneous=simultaneous, problems=problems)


def from_replicates(
    fit: CurveFit, draws: np.ndarray, *, level: float, simultaneous: bool = True, problems: tuple[str, ...] = ()
) -> Bands:
    """Bootstrap bands of any level and kind from the same replicates: see :func:`bootstrap`.

    Parameters
    ----------
    fit : CurveFit
    draws : ndarray, shape (replicates, G, P)
        From :func:`replicate_curves`.
    level : float
    simultaneous : bool
    problems : tuple of str
        What went wrong with the replicates.

    Returns
    -------
    Bands

    Raises
    ------
    ValueError
        For a level outside (0, 1).
    """
    check_level(level)
    se, bias = draws.std(axis=0, ddof=1), draws.mean(axis=0) - fit.level
    c = np.full(fit.model.size, stats.norm.ppf((1 + level) / 2))
    if simultaneous:
        c = critical(draws, fit.level, se, level, simultaneous=True)
    return Bands(fit, level, simultaneous, "bootstrap", se, c, bias, draws, problems)


@float64
def replicate_curves(
    fit: CurveFit,
    random_state: int | np.random.Generator | None,
    replicates: int,
    workers: int | None = None,
    pilot: int = PILOT,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The fit's levels plus the errors of bootstrap curves, (replicates, G, P), and what went wrong with some.

    Parameters
    ----------
    fit : CurveFit
    random_state : int or Generator
    replicates, pilot, workers : int
        As in :func:`bootstrap`.
    """
    if fit.model.components > labels.MOST:
        raise ValueError(f"fit must have at most {labels.MOST} components to align, got {fit.model.components}.")
    check_count("pilot", pilot, 0)
    key, scale = curve_bootstrap.root_key(random_state), standard_units(fit)
    source = _freed(fit, scale, key, pilot, workers) if pilot else fit
    found, problems = _refits(source, scale, key, replicates, workers)
    units = _units(fit)
    errors = units.differences(found - units.into(source.level))
    return np.where(curve_plan.plan_of(fit).free[: fit.model.size], fit.level + errors, fit.level), problems


def _units(fit: CurveFit) -> standard.Standard:
    return standard.of_fit(fit, curve_plan.plan_of(fit))


def _freed(fit: CurveFit, scale: np.ndarray, key: Array, pilot: int, workers: int | None) -> CurveFit:
    """The fit less its bias."""
    found, _ = _refits(fit, scale, jax.random.fold_in(key, PILOT_STREAM), pilot, workers)
    units = _units(fit)
    bias = np.median(found, axis=0) - units.into(fit.level)
    delta = fit.model.select(["delta"] * fit.model.response.dispersed)
    bias[:, delta] = bias[:, delta].mean(axis=0)
    slope = np.gradient(bias, fit.scaled_grid, axis=0) if len(bias) > 1 else np.zeros_like(bias)
    return replace(fit, theta=fit.theta - units.differences(np.hstack([bias, fit.h * slope])))


def _refits(
    fit: CurveFit, scale: np.ndarray, key: Array, replicates: int, workers: int | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Levels of curves fitted to responses that are drawn from a fit, failed ones left out; and what went wrong.

    Curves and their ``scale`` (P,) are in the units of :mod:`mle.kernel.standard`.
    """
    plan, units = curve_plan.plan_of(fit), _units(fit)
    target, y = units.into(fit.theta), units.data(fit.data).y

    def refit(data: IndexedObservations) -> tuple[np.ndarray, bool]:
        _, solved = kernel_em.estimate(plan, data, fit.theta, sweep=True, order=False)
        theta = units.into(solved.theta)
        if plan.interchangeable:
            theta = labels.permute(fit.model, theta, labels.nearest(fit.model, theta, target, scale))
        return theta[:, : fit.model.size], bool(solved.converged.all())

    found = curve_bootstrap.run(fit, plan.windows, refit, replicates, key, workers)
    curves = np.array([curve for curve, _ in found])
    strayed, was = (degenerate(fit.model, level, y) for level in (curves, units.into(fit.level)))
    sound = np.isfinite(curves).all(axis=(1, 2)) & ~(strayed & ~was).any(axis=(1, 2))
    if sound.mean() < 0.5:
        failed = int((~sound).sum())
        raise ValueError(f"fit must be stable enough to bootstrap: {failed} of {replicates} refits failed.")
    counts = (("failed and are left out", (~sound).sum()), ("did not converge", sum(not ok for _, ok in found)))
    return curves[sound], tuple(f"{count} of {replicates} refits {what}" for what, count in counts if count)


# Critical values ------------------------------------------------------------------------------------------------


def critical_value(level: float, h: float, constant: str = "rice", kernel: Kernel = KERNELS["epanechnikov"]) -> float:
    """The c of a simultaneous band of one curve over u in [0, 1].

    With s = int K'^2 / int K^2 (2.5 for Epanechnikov):

    - "rice" solves level = (2 Phi(c) - 1) exp{-sqrt(s) / (pi h) exp(-c^2 / 2)}, from the expected number of crossings;
    - "fan-zhang" is d + (log 2 - log(-log level)) / b with b = sqrt(-2 log h) and d = b + log(s / (4 pi)) / b;
    - "package" has log(1 / (2 pi)) in place of log(s / (4 pi)), as the paper's package has it.

    Parameters
    ----------
    level : float
    h : float
        Bandwidth, as a share of the range of u.
    constant : str
    kernel : Kernel

    References
    ----------
    Rice (1944); Fan and Zhang (2000), "Simultaneous confidence bands and hypothesis testing in varying-coefficient
    models".
    """
    _check_constant(constant)
    if constant == "rice":
        rate = np.sqrt(kernel.slope_square) / (np.pi * h)
        return float(optimize.brentq(lambda c: _rice(c, rate) - level, 1e-6, 20.0))
    logs = {"fan-zhang": np.log(kernel.slope_square / (4 * np.pi)), "package": np.log(1 / (2 * np.pi))}
    if h >= 1:
        raise ValueError(f"h must be below 1 for constant={constant!r}, got {h:g}. Use constant='rice'.")
    b = np.sqrt(-2 * np.log(h))
    return float(b + (logs[constant] + np.log(2) - np.log(-np.log(level))) / b)


def _check_constant(constant: object) -> None:
    if constant not in CONSTANTS:
        raise ValueError(f"constant must be one of {', '.join(CONSTANTS)}, got {constant!r}.")


def _rice(c: float, rate: float) -> float:
    return (2 * stats.norm.cdf(c) - 1) * np.exp(-rate * np.exp(-(c**2) / 2))


def _flat(fit: CurveFit, se: np.ndarray) -> tuple[str, ...]:
    bad = ~np.isfinite(se).all(axis=1)
    places = ", ".join(f"{u:.3g}" for u in fit.grid[bad])
    return (f"the local information is singular at u = {places}: raise h",) if bad.any() else ()
