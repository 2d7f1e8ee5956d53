"""Standard errors of coefficient curves: the sandwich of the equations that the fit's engine solves.

Each u by itself (the engine "separate") maximises its local log likelihood: J^-1 S J^-1, J the observed information
there and S the sum of squares of weighted scores. Where components overlap, the label-consistent EM smooths more than J
knows, since responsibilities come from each observation's own u: its equations at all u hang together, as does their
sandwich. It ends at no maximum of the local log likelihood, so that J may be singular there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bayes_moe.ground.compilation import jitted
from bayes_moe.ground.data import float64
from bayes_moe.varying.indexed import IndexedObservations
from bayes_moe.varying.model import VaryingCoefficient
from mle.kernel import plan as curve_plan
from mle.kernel import standard
from mle.kernel.fit import CurveFit
from mle.local import engines as local_em
from mle.local import likelihood as local
from mle.local.windows import Windows

KINDS = ("joint", "local")
MOST, COARSE = 100, 50  # grid points up to which the joint sandwich is taken at all of them, and else at so many
Units = Callable[[standard.Standard, np.ndarray], np.ndarray]
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
    return _errors(fit, kind, standard.Standard.differences)


@float64
def standard_units(fit: CurveFit) -> np.ndarray:
    """Median standard error (P,) of each coefficient in units of :mod:`mle.kernel.standard`; 1 where it has none."""
    se = np.median(_errors(fit, None, lambda _, moves: moves), axis=0)
    return np.where(np.isfinite(se) & (se > 0), se, 1.0)


def _errors(fit: CurveFit, kind: str | None, units: Units) -> np.ndarray:
    """Standard errors (G, P), ``units`` being what becomes of differences in the standard units."""
    kind = kind or ("joint" if fit.engine == "consistent" else "local")
    if kind not in KINDS:
        raise ValueError(f"sandwich must be one of {', '.join(KINDS)}, got {kind!r}.")
    return _between(fit, units) if kind == "joint" and len(fit.grid) > MOST else _direct(fit, kind, units)


def _direct(fit: CurveFit, kind: str, units: Units) -> np.ndarray:
    """Standard errors (G, P) from the equations at every grid point."""
    own, moves = _moves(fit, _influences if kind == "joint" else _local)
    with np.errstate(invalid="ignore"):  # not finite where the information is singular
        return _roots(fit, units(own, moves))


def _roots(fit: CurveFit, moves: np.ndarray) -> np.ndarray:
    """Standard errors (G, P) from what each observation moves lines by, (G, n, 2 P)."""
    size = fit.model.size
    unit = np.abs(moves[..., :size]).max(axis=1)
    unit = np.where(unit > 0, unit, 1.0)  # squares of what is small must not vanish
    se = unit * np.sqrt(((moves[..., :size] / unit[:, None]) ** 2).sum(axis=1))
    return np.where(fit.free[:size], np.where(se >= 0, se, np.inf), 0.0)


def _between(fit: CurveFit, units: Units) -> np.ndarray:
    """Joint standard errors at some of many grid points, and linearly between: the equations' matrix is (2 P G)^2."""
    u = fit.scaled_grid
    wide = np.flatnonzero(np.diff(u) > fit.h / 2)
    picked = np.unique([*np.searchsorted(u, np.linspace(u[0], u[-1], COARSE)), *wide, *(wide + 1)])
    few = _direct(replace(fit, grid=fit.grid[picked], theta=fit.theta[picked]), "joint", units)
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
    own, moves = _moves(fit, _influences)
    return np.moveaxis(own.differences(moves), 1, 2)


def _moves(fit: CurveFit, function: Callable[..., Array]) -> tuple[standard.Standard, np.ndarray]:
    """The units in which a fit was made, and influences there, the observations' axis before the last, (G, n, 2 P)."""
    plan = curve_plan.plan_of(fit)
    own = standard.of_fit(fit, plan)
    found = jitted(function)(fit.model, own.into(fit.theta), own.data(fit.data), plan.windows, fit.free)
    return own, np.moveaxis(np.asarray(found), 2, 1)


def _local(model: VaryingCoefficient, theta: Array, data: IndexedObservations, cut: Windows, free: Array) -> Array:
    """What each observation of a window moves the line there by, (G, 2 P, m), each u by itself."""

    def one(line: Array, seen: local.Local) -> Array:
        _, information = local.derivatives(model, line, seen, 0.0)
        held = jnp.where(free[:, None] & free, information, 0.0) + jnp.diag(jnp.where(free, 0.0, 1.0))
        scores = jnp.where(free[:, None], local.observed_scores(model, line, seen), 0.0)
        root = jax.scipy.linalg.cho_factor(held, lower=True)  # NaN unless positive definite
        return jax.scipy.linalg.cho_solve(root, scores)

    return jax.vmap(one)(theta, local.around(data, cut))


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
