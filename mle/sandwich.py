"""Standard errors of coefficient curves: the sandwich of the equations that the fit's engine solves.

Each u by itself (the engine "separate") maximises its local log likelihood: J^-1 S J^-1, J the observed information
there and S the sum of squares of weighted scores. Where components overlap, the label-consistent EM smooths more than J
knows, since responsibilities come from each observation's own u: its equations at all u hang together, as does their
sandwich. It ends at no maximum of the local log likelihood, so that J may be singular there.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bayes_moe.compilation import jitted
from bayes_moe.data import float64
from bayes_moe.indexed import IndexedObservations
from bayes_moe.varying import VaryingCoefficient
from mle import curve_plan, local, local_em
from mle.curves import CurveFit
from mle.windows import Windows

KINDS = ("joint", "local")
MOST, COARSE = 100, 50  # grid points up to which the joint sandwich is taken at all of them, and else at so many
BATCH = 40  # columns of the joint information computed side by side


@float64
def standard_errors(fit: CurveFit, kind: str | None = None) -> np.ndarray:
    """Standard errors (G, P) of the levels; zero for what is held, infinite where the information is singular.

    Parameters
    ----------
    fit : CurveFit
    kind : "joint" or "local", optional
        Of the equations at all u together, as the engine "consistent" solves them, or of each u by itself; by default
        the engine's own. Of more than MOST grid points the first takes COARSE, and lines between.

    Raises
    ------
    ValueError
        For an unknown kind.
    """
    kind = kind or ("joint" if fit.engine == "consistent" else "local")
    if kind not in KINDS:
        raise ValueError(f"sandwich must be one of {', '.join(KINDS)}, got {kind!r}.")
    if kind == "joint":
        return _joint(fit) if len(fit.grid) <= MOST else _between(fit)
    windows = curve_plan.plan_of(fit).windows
    return _roots(fit, np.asarray(jitted(_local)(fit.model, fit.theta, fit.data, windows, fit.free)))


def _joint(fit: CurveFit) -> np.ndarray:
    """Standard errors (G, P) from the equations at every grid point."""
    return _roots(fit, (influences(fit)[:, : fit.model.size] ** 2).sum(axis=2))


def _roots(fit: CurveFit, variances: np.ndarray) -> np.ndarray:
    return np.where(fit.free[: fit.model.size], np.sqrt(np.where(variances >= 0, variances, np.inf)), 0.0)


def _between(fit: CurveFit) -> np.ndarray:
    """Joint standard errors at some of many grid points, and linearly between: the equations' matrix is (2 P G)^2."""
    u = fit.scaled_grid
    wide = np.flatnonzero(np.diff(u) > fit.h / 2)
    picked = np.unique([*np.searchsorted(u, np.linspace(u[0], u[-1], COARSE)), *wide, *(wide + 1)])
    few = _joint(replace(fit, grid=fit.grid[picked], theta=fit.theta[picked]))
    between = np.stack([np.interp(u, u[picked], column) for column in few.T], axis=1)
    return np.where(np.isnan(between), np.inf, between)  # beside a point where the information is singular


@float64
def influences(fit: CurveFit) -> np.ndarray:
    """What each observation moves the label-consistent EM's estimate by, (G, 2 P, n), levels then slopes.

    It solves sum_i w_i(u) sum_c r_ic d log p(c, y_i; theta(u)) / d theta(u) = 0 at each grid point u, the
    responsibilities r_i those of the curves at the observation's own u. With psi_i what observation i adds to all of
    these equations, and A minus the Jacobian of their sum, the influence is A^-1 psi_i, and the sum of squares over
    observations estimates a variance.
    """
    plan = curve_plan.plan_of(fit)
    return np.asarray(jitted(_influences)(fit.model, fit.theta, fit.data, plan.windows, fit.free))


def _local(model: VaryingCoefficient, theta: Array, data: IndexedObservations, cut: Windows, free: Array) -> Array:
    """Variances (G, P) of the levels, each u by itself."""

    def one(line: Array, seen: local.Local) -> Array:
        _, information = local.derivatives(model, line, seen, 0.0)
        held = jnp.where(free[:, None] & free, information, 0.0) + jnp.diag(jnp.where(free, 0.0, 1.0))
        scores = jnp.where(free[:, None], local.observed_scores(model, line, seen), 0.0)
        root = jax.scipy.linalg.cho_factor(held, lower=True)  # NaN unless positive definite
        return jnp.sum(jax.scipy.linalg.cho_solve(root, scores) ** 2, axis=1)

    return jax.vmap(one)(theta, local.around(data, cut))[:, : model.size]


def _influences(model: VaryingCoefficient, theta: Array, data: IndexedObservations, cut: Windows, free: Array) -> Array:
    seen = local.around(data, cut)

    def shares(curves: Array) -> Array:
        r = local_em.responsibilities(model, curves, data, cut)
        return jnp.moveaxis(r[:, cut.index], 1, 0)

    def pieces(flat: Array) -> Array:
        curves = flat.reshape(theta.shape)
        return jax.vmap(partial(local.complete_scores, model))(curves, seen, shares(curves))

    flat, every = theta.ravel(), jnp.tile(free, len(theta))
    _, slope = jax.linearize(lambda point: pieces(point).sum(axis=2).ravel(), flat)
    columns = jax.lax.map(slope, jnp.eye(flat.size, dtype=flat.dtype), batch_size=BATCH)
    information = jnp.where(every[:, None] & every, -columns.T, jnp.diag(jnp.where(every, 0.0, 1.0)))
    blank = jnp.zeros((*theta.shape, data.n), theta.dtype)
    psi = jax.vmap(lambda row, index, piece: row.at[:, index].add(piece))(blank, cut.index, pieces(flat))
    psi = jnp.where(every[:, None], psi.reshape(flat.size, data.n), 0.0)
    return jnp.linalg.solve(information, psi).reshape(blank.shape)
