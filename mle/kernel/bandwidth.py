"""Choosing the bandwidth by likelihood cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bayes_moe.ground.compilation import jitted
from bayes_moe.ground.data import check_real, float64
from bayes_moe.varying.indexed import IndexedObservations, make_grid
from bayes_moe.varying.model import VaryingCoefficient
from mle.kernel import kernel_em
from mle.kernel import plan as curve_plan
from mle.kernel import starts as curve_starts
from mle.kernel.fit import CONVERGED
from mle.kernel.plan import Plan
from mle.local import engines as local_em
from mle.local import windows
from mle.local.kernels import Kernel, kernel_named

CANDIDATES = 8
WIDEST = 0.6  # largest default candidate, as a share of the range of u


@dataclass(frozen=True)
class Selection:
    """Bandwidths tried, and the one to use.

    Parameters
    ----------
    h : float
        ``undersmooth`` times the best candidate.
    best : float
        The candidate of highest score.
    candidates : ndarray, shape (H,)
    scores : ndarray, shape (H,)
        Mean held-out log density of an observation.
    errors : ndarray, shape (H,)
        Standard error of the difference of each score from the best.
    statuses : tuple of str
        Of each candidate: "converged", or in how many of the folds which fits are none to judge by; such a candidate is
        not chosen.
    """

    h: float
    best: float
    candidates: np.ndarray
    scores: np.ndarray
    errors: np.ndarray
    statuses: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Table of candidates."""
        statuses = [f"  {status}" * (status != CONVERGED) for status in self.statuses or [CONVERGED] * len(self.scores)]
        rows = zip(self.candidates, self.scores, self.errors, statuses, strict=True)
        lines = [
            f"  h = {h:.3f}  {score:.5f}  difference from the best +- {error:.5f}{s}" for h, score, error, s in rows
        ]
        return "\n".join([f"h = {self.h:.3g} (best of the candidates: {self.best:.3g})", *lines])


@float64
def select(
    model: VaryingCoefficient,
    x: object,
    z: object,
    u: object,
    y: object,
    *,
    random_state: int | np.random.Generator | None,
    candidates: Sequence[float] | None = None,
    folds: int = 5,
    undersmooth: float = 0.85,
    size: object = 1.0,
    u_range: object = None,
    grid: object = 20,
    kernel: str | Kernel = "epanechnikov",
    engine: str = "consistent",
    n_init: int = 6,
    max_iter: int = 200,
    tol: float = 1e-4,
) -> Selection:
    """Choose the bandwidth that predicts held-out observations best.

    The score of h is the mean over observations of log p(y_i | x_i, z_i; theta(U_i)), theta fitted without the fold of
    i. Bands are about the estimator's mean, so less smoothing than that serves them: ``undersmooth``.

    Parameters
    ----------
    model : VaryingCoefficient
    x, z, u, y, size, u_range, grid, kernel, engine, n_init, max_iter, tol
        As in :func:`mle.kernel.kernel_em.fit`.
    random_state : int or Generator
        Draws folds and starts.
    candidates : sequence of float, optional
        Bandwidths as shares of the range of u; by default 8 from 1.2 times the smallest workable one, or more where
        ``undersmooth`` is below 0.85, to 0.6.
    folds : int
    undersmooth : float
        In (0, 1]; times the least candidate it must leave a workable bandwidth.

    Returns
    -------
    Selection

    Raises
    ------
    ValueError
        For bad data or settings; where no candidate's fits converge, or predict every held-out row.

    References
    ----------
    arXiv:2601.01699; Fan and Gijbels (1996).

    Examples
    --------
    >>> h = bandwidth.select(model, x, z, u, y, random_state=0).h
    """
    data = model.observe(x, z, u, y, size=size, u_range=u_range)
    rng = curve_starts.check_random(n_init, random_state)
    _check_settings(folds, undersmooth, data.n)
    settings = {"grid": grid, "kernel": kernel, "engine": engine, "max_iter": max_iter, "tol": tol, "whole": True}
    widths = _candidates(model, data, candidates, undersmooth, settings)
    plans = [curve_plan.make_plan(model, data, h, **settings) for h in widths]
    windows.check_rank(data, plans[-1].grid, plans[-1].windows)
    start, _ = kernel_em.first_guess(plans[-1], data, n_init, rng)
    fold = rng.permutation(np.arange(data.n) % folds)
    scored = [_scored(plan, data, start, fold) for plan in plans]
    return _chosen(widths, np.array([each for each, _ in scored]), tuple(status for _, status in scored), undersmooth)


def _chosen(widths: np.ndarray, each: np.ndarray, statuses: tuple[str, ...], undersmooth: float) -> Selection:
    """The best of the candidates by held-out log densities (H, n), and what to use of it."""
    each = np.where(np.isfinite(each), each, -np.inf)
    scores = each.mean(axis=1)
    sound = np.array([status == CONVERGED for status in statuses])
    if not sound.any():
        found = "; ".join(f"h = {h:.3g}: {status}" for h, status in zip(widths, statuses, strict=True))
        raise ValueError(f"candidates must hold a bandwidth whose fits converge, got none ({found}).")
    best = int(np.where(sound, scores, -np.inf).argmax())
    if scores[best] == -np.inf:
        raise ValueError(
            "candidates must hold a bandwidth that predicts every held-out row, got none. Try larger ones."
        )
    with np.errstate(invalid="ignore"):
        errors = np.nan_to_num((each - each[best]).std(axis=1), nan=np.inf) / np.sqrt(each.shape[1])
    return Selection(float(undersmooth * widths[best]), float(widths[best]), widths, scores, errors, statuses)


def held_out(plan: Plan, data: IndexedObservations, theta: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Log density (n,) of each observation in the fit without its fold.

    Parameters
    ----------
    plan : Plan
    data : IndexedObservations
    theta : ndarray, shape (G, 2 P)
        Where the fits start.
    fold : ndarray of int, shape (n,)
    """
    return _scored(plan, data, theta, fold)[0]


def _scored(plan: Plan, data: IndexedObservations, theta: np.ndarray, fold: np.ndarray) -> tuple[np.ndarray, str]:
    """Log densities as from :func:`held_out`, and the status of the fits."""
    out, found, folds = np.empty(data.n), [], np.unique(fold)
    for k in folds:
        cut = replace(plan.windows, w=plan.windows.w * (fold != k)[plan.windows.index])
        used, solved = kernel_em.estimate(replace(plan, windows=cut), data, theta, order=False)
        found.append(kernel_em.describe(plan, data, used, solved, np.zeros(0)).unsound)
        own = np.asarray(jitted(local_em.own_log_densities)(plan.model, solved.theta, data, plan.windows))
        out[fold == k] = own[fold == k]
    bad = [one for one in found if one]
    return out, f"{len(bad)} of {len(folds)} folds: {bad[0]}" if bad else CONVERGED


def _check_settings(folds: object, undersmooth: object, n: int) -> None:
    if isinstance(folds, bool) or not isinstance(folds, int | np.integer) or not 2 <= folds <= n:
        raise ValueError(f"folds must be an integer from 2 to the number of rows, {n}, got {folds!r}.")
    if isinstance(undersmooth, bool) or not isinstance(undersmooth, int | float) or not 0 < undersmooth <= 1:
        raise ValueError(f"undersmooth must be a number in (0, 1], got {undersmooth!r}.")


def _candidates(
    model: VaryingCoefficient,
    data: IndexedObservations,
    given: Sequence[float] | None,
    undersmooth: float,
    settings: dict,
) -> np.ndarray:
    points, kernel = make_grid(data, settings["grid"]), kernel_named(settings["kernel"])
    smallest, *_ = windows.smallest_bandwidth(model, data, points, kernel)
    if given is None:
        least = max(1.2, 1.02 / undersmooth) * smallest
        return np.geomspace(least, max(WIDEST, 1.25 * least), CANDIDATES)
    widths = check_real("candidates", given)
    if widths.ndim != 1 or len(widths) == 0:
        raise ValueError(f"candidates must be a list of bandwidths, got {given!r}.")
    if not undersmooth * widths.min() > smallest:
        raise ValueError(
            f"candidates must stay above {smallest:.3g}, the smallest workable bandwidth, when multiplied by "
            f"undersmooth = {undersmooth:g}, got {widths.min():g}. Use {1.001 * smallest / undersmooth:.3g} or more, "
            "or raise undersmooth."
        )
    return np.sort(widths)
