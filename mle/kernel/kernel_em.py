"""Kernel estimates of the varying-coefficient mixture: local-linear curves on a grid, labels consistent along u."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bayes_moe.ground.compilation import jitted
from bayes_moe.ground.data import float64
from bayes_moe.varying import model as varying
from bayes_moe.varying.indexed import IndexedObservations
from bayes_moe.varying.model import VaryingCoefficient
from mle.kernel import standard
from mle.kernel import starts as curve_starts
from mle.kernel.fit import CurveFit, degenerate
from mle.kernel.plan import Plan, make_plan
from mle.local import engines as local_em
from mle.local import labels, windows
from mle.local import likelihood as local
from mle.local.engines import Solved
from mle.local.kernels import Kernel
from mle.local.windows import Windows

SHORT = 15  # label-consistent EM steps of each start; the best goes on


@float64
def fit(
    model: VaryingCoefficient,
    x: object,
    z: object,
    u: object,
    y: object,
    *,
    h: float,
    size: object = 1.0,
    u_range: object = None,
    grid: object = 20,
    kernel: str | Kernel = "epanechnikov",
    engine: str = "consistent",
    n_init: int = 6,
    random_state: int | np.random.Generator | None = None,
    init: Mapping[str, object] | None = None,
    fixed: Mapping[str, float] | None = None,
    max_iter: int = 1000,
    tol: float = 1e-6,
) -> CurveFit:
    """Estimate the coefficient curves by local-linear kernel EM.

    At each grid point u the local log likelihood is sum_i K((U_i - u)/h)/h log p(y_i | x_i, z_i; theta_i), with
    theta_i = level + slope (U_i - u)/h. Experts are numbered by their mean predictors at the covariates' means,
    ascending. Zeros of x and z, and units, make no difference: see :mod:`mle.kernel.standard`.

    Parameters
    ----------
    model : VaryingCoefficient
        Its ``constant`` coefficients are averages of their local estimates over the observations; the others are then
        fitted again with them held. Where they tell components apart, as ``"alpha[0,1]"`` does, components are
        numbered as the likelihood prefers, not by their predictors.
    x, z : array-like, shapes (n, p) and (n, q)
        Covariates of the gate and of the experts, without intercepts.
    u, y : array-like, shape (n,)
        The index may be dates or durations: both are days inside, dates those since 1970 (UTC).
    h : float
        Bandwidth, as a share of the range of u; see :mod:`mle.kernel.bandwidth`.
    size : float or array-like, shape (n,)
        Trials of a binomial, exposure of a count.
    u_range : pair of float, optional
        The range of u; by default that of the data.
    grid : int, "own" or array-like
        Number of equidistant points; every observed u; or points in units of u.
    kernel : str or Kernel
        "epanechnikov", "biweight", "triweight", "gaussian".
    engine : "consistent" or "separate"
        The label-consistent EM, with the same responsibilities at every u; or each u by itself, again from its
        neighbours' fits, and labels aligned exactly over the whole path.
    n_init : int
        Starts, each a short run of the label-consistent EM; the best goes on.
    random_state : int or Generator
        Needed unless ``init`` is given.
    init : mapping, optional
        Coefficients by name to start from instead, a row for each grid point or one for all.
    fixed : mapping of str to float, optional
        Coefficients held at a value everywhere, as in ``{"alpha[1,1]": 0.0}``. Where that tells components apart, they
        keep the numbers that they are fixed by.
    max_iter : int
    tol : float
        Consistent: largest change of responsibilities and coefficients in a step. Separate: gain that Newton's step
        promises, for each unit of weight.

    Returns
    -------
    CurveFit

    Raises
    ------
    ValueError
        For bad data or arguments; among them h too small for the gaps in u, with the smallest workable h, and
        covariates that are constant or collinear in a window.

    References
    ----------
    arXiv:2601.01699.

    Examples
    --------
    >>> model = varying_coefficient("normal", components=2)
    >>> fit = kernel_em.fit(model, x, z, u, y, h=0.2, random_state=0)
    >>> print(fit)
    """
    data = model.observe(x, z, u, y, size=size, u_range=u_range)
    plan = make_plan(model, data, h, grid=grid, kernel=kernel, engine=engine, max_iter=max_iter, tol=tol)
    windows.check_rank(data, plan.grid, plan.windows)
    plan = plan.holding(fixed or {})
    if init is not None:
        theta, starts = curve_starts.given(model, init, len(plan.grid)), np.zeros(0)
    else:
        theta, starts = first_guess(plan, data, n_init, curve_starts.check_random(n_init, random_state))
    return describe(plan, data, *estimate(plan, data, theta, sweep=True), starts)


def first_guess(
    plan: Plan, data: IndexedObservations, n_init: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Run every start for a short while; return the best theta and all log likelihoods, best first.

    Where components cross, a start may have the label of one component on the left and that of the other on the right,
    and the label-consistent EM keeps it so. Hence one more start: the best, fitted at each u by itself and aligned.
    """
    units = standard.of(plan, data)
    plan, data = units.plan(plan), units.data(data)
    theta = curve_starts.held(plan, data, curve_starts.blank(plan.model, data, plan.grid))
    tried = [
        jitted(local_em.consistent)(plan.model, data, plan.windows, theta, r, plan.free, SHORT, plan.tol)
        for r in curve_starts.draw(plan.model, data, 1 if plan.model.components == 1 else n_init, rng)
    ]
    values = np.nan_to_num([float(solved.log_likelihood) for solved in tried], nan=-np.inf)
    if values.max() == -np.inf:
        raise ValueError("no start reached a finite log likelihood. Check x, z and y, raise h, or give init.")
    theta = np.asarray(max(tried, key=partial(_worth, plan, data)).theta)
    if plan.model.components <= labels.MOST:
        theta = _mended(plan, data, theta)
    return units.out(theta), np.sort(values)[::-1] - data.n * np.log(units.y[1])


def _mended(plan: Plan, data: IndexedObservations, theta: np.ndarray) -> np.ndarray:
    """The better of theta and of its fits at each u, aligned, by log likelihood after a short run from either."""
    other = aligned(plan, data, _separate(plan, data, theta).theta)
    short = replace(plan, max_iter=SHORT)
    return max((_consistent(short, data, start) for start in (theta, other)), key=partial(_worth, plan, data)).theta


def _worth(plan: Plan, data: IndexedObservations, solved: Solved) -> tuple[bool, float]:
    """Log likelihood by which fits are chosen; where an expert has collapsed it has no bound, and says nothing."""
    level = np.asarray(solved.theta)[..., : plan.model.size]
    whole = bool(np.isfinite(level).all()) and not degenerate(plan.model, level, np.asarray(data.y)).any()
    return whole, float(np.nan_to_num(solved.log_likelihood, nan=-np.inf))


def estimate(
    plan: Plan, data: IndexedObservations, theta: np.ndarray, *, sweep: bool = False, order: bool = True
) -> tuple[Plan, Solved]:
    """Fit from theta (G, 2 P), constants last; the plan comes back with their values.

    In the units of :mod:`mle.kernel.standard`, from and to the user's.

    Parameters
    ----------
    sweep : bool
        Whether the separate engine fits each u again from its neighbours.
    order : bool
        Whether to number the experts by their mean predictors at the covariates' means, where what is held allows it.
    """
    units = standard.of(plan, data)
    inside, rows = units.plan(plan), units.data(data)
    used, solved = _estimate(inside, rows, units.into(theta), sweep=sweep, order=order)
    return units.found(plan, used, solved, windows.seen(plan.windows, data.n).sum())


def _estimate(
    plan: Plan, data: IndexedObservations, theta: np.ndarray, *, sweep: bool, order: bool
) -> tuple[Plan, Solved]:
    solved = _solve(plan, data, curve_starts.held(plan, data, theta), sweep)
    if order and plan.interchangeable:
        solved = solved._replace(theta=_ordered(plan, solved.theta))
    mask = plan.model.select(plan.model.constant)
    if not mask.any():
        return plan, solved
    thetas = _numberings(plan, mask, solved.theta) if order else [solved.theta]
    averaged = [_averaged(plan, mask, data, theta, sweep) for theta in thetas]
    return max(averaged, key=lambda each: _worth(plan, data, each[1]))


def _numberings(plan: Plan, mask: np.ndarray, theta: np.ndarray) -> list[np.ndarray]:
    """Theta with components in every order, where the constant coefficients are not those of all components."""
    model = plan.model
    alike = all((part == part[:1]).all() for part in varying.by_name(model, mask).values())
    if alike or not plan.interchangeable or model.components > labels.MOST:
        return [theta]
    return [labels.permute(model, theta, order) for order in labels.orders(model.components)]


def _averaged(
    plan: Plan, mask: np.ndarray, data: IndexedObservations, theta: np.ndarray, sweep: bool
) -> tuple[Plan, Solved]:
    """Fit with the coefficients of a mask held at the averages of their local estimates."""
    own = np.asarray(local_em.own_level(plan.model, jnp.asarray(theta), plan.windows))
    plan = plan.averaged(mask, own.mean(axis=1))
    return plan, _solve(plan, data, curve_starts.held(plan, data, theta), sweep)


def _solve(plan: Plan, data: IndexedObservations, theta: np.ndarray, sweep: bool) -> Solved:
    """One run of the plan's engine, its labels aligned."""
    if plan.engine == "consistent":
        return _consistent(plan, data, theta)
    solved = _separate(plan, data, theta)
    if sweep:
        solved = _swept(plan, data, solved)
    return solved._replace(theta=aligned(plan, data, solved.theta))


def _consistent(plan: Plan, data: IndexedObservations, theta: np.ndarray) -> Solved:
    limits = plan.free, plan.max_iter, plan.tol
    r = jitted(local_em.responsibilities)(plan.model, theta, data, plan.windows)
    return _numpy(jitted(local_em.consistent)(plan.model, data, plan.windows, theta, r, *limits))


def _separate(plan: Plan, data: IndexedObservations, theta: np.ndarray) -> Solved:
    limits = plan.free, plan.max_iter, plan.tol
    return _numpy(jitted(local_em.separate)(plan.model, data, plan.windows, theta, *limits))


def _swept(plan: Plan, data: IndexedObservations, solved: Solved) -> Solved:
    """Fit each u again from its neighbours' fits, and keep the best of the three by local log likelihood."""
    best = solved
    for start in local_em.from_neighbours(solved.theta, plan.windows.step):
        again = _separate(plan, data, plan.held(start))
        better = again.values > best.values
        theta = np.where(better[:, None], again.theta, best.theta)
        values = np.where(better, again.values, best.values)
        converged = np.where(better, again.converged, best.converged)
        best = Solved(theta, values, best.log_likelihood, converged, max(again.n_iter, best.n_iter))
    own = jitted(local_em.own_log_densities)(plan.model, best.theta, data, plan.windows)
    return best._replace(log_likelihood=np.asarray(own).sum())


def _numpy(solved: Solved) -> Solved:
    return jax.tree.map(np.asarray, solved)


def aligned(plan: Plan, data: IndexedObservations, theta: np.ndarray) -> np.ndarray:
    """Renumber components along the grid, exactly: :func:`mle.local.labels.path`. Held coefficients may forbid it."""
    if plan.model.components == 1 or not plan.interchangeable:
        return theta
    r = np.asarray(jitted(_grid_responsibilities)(plan.model, data, plan.windows, theta))
    count, n = len(plan.grid), data.n
    rows = np.arange(count)[:, None]
    w, spread = np.zeros((count, n)), np.zeros((count, plan.model.components, n))
    w[rows, plan.windows.index] = plan.windows.w
    for c in range(plan.model.components):
        spread[rows, c, plan.windows.index] = r[:, c]
    return labels.permute(plan.model, theta, labels.path(spread, w))


def _grid_responsibilities(model: VaryingCoefficient, data: IndexedObservations, cut: Windows, theta: Array) -> Array:
    """Responsibilities (G, C, m) of each window's observations in the fit at its grid point."""

    def one(line: Array, seen: local.Local) -> Array:
        at = local.predictors(model, line, seen.data, seen.t)
        return jax.nn.softmax(model.log_joint_at(at, seen.data.y, seen.data.size), axis=0)

    return jax.vmap(one)(theta, local.around(data, cut))


def _ordered(plan: Plan, theta: np.ndarray) -> np.ndarray:
    return labels.permute(plan.model, theta, labels.by_intercept(plan.model, theta))


def describe(plan: Plan, data: IndexedObservations, used: Plan, solved: Solved, starts: np.ndarray) -> CurveFit:
    """Make a fit of what an engine found."""
    r = np.asarray(jitted(_grid_responsibilities)(plan.model, data, plan.windows, solved.theta))
    w = plan.windows.w
    shares = (r * w[:, None]).sum(axis=2) / w.sum(axis=1)[:, None]
    low, high = np.asarray(data.range)
    return CurveFit(
        plan.model,
        data,
        np.clip(low + plan.grid * (high - low), low, high),
        solved.theta,
        plan.h,
        plan.kernel,
        plan.engine,
        used.free,
        plan.fixed,
        {"max_iter": plan.max_iter, "tol": plan.tol},
        float(solved.log_likelihood),
        solved.values,
        solved.converged,
        int(solved.n_iter),
        starts,
        shares,
    )
