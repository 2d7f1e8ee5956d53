"""From the best start to a :class:`~mle.fit.Fit`: the optimality certificate and the standard errors."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import constraints

from bayes_moe import parameters
from bayes_moe.data import Observations
from bayes_moe.experts import Multinomial, linear
from bayes_moe.moe import MoE
from mle import uncertainty
from mle.fit import REPLICATED, Certificate, Fit, Start
from mle.objective import Objective, projected_gradient
from mle.separation import direction
from mle.starts import coordinate_scale

LARGE = 12.0  # |coefficient| x size of its covariate beyond which a logistic score is saturated
ROUNDING = 1e-6  # by which a variance may seem to exceed the floor that holds it
FAR = 1e4  # how far out a direction is followed, in units of the largest covariates


def finish(objective: Objective, starts: tuple[Start, ...], method: str) -> Fit:
    """Make a fit of the best start.

    Parameters
    ----------
    objective : Objective
    starts : tuple of Start
        Best first.
    method : str
    """
    best = starts[0]
    params = parameters.unflatten(objective.moe.fields, best.free)
    observed = -objective.hessian(best.free)
    certificate = certify(objective, starts, observed)
    errors = uncertainty.StandardErrors(None, None, certificate.status)
    if certificate.status == "maximum":
        errors = uncertainty.at(objective, best.free, observed=observed)
    return Fit(
        {name: np.asarray(value) for name, value in params.items()},
        best.log_likelihood,
        best.converged,
        best.n_iter,
        np.array(best.history),
        starts,
        certificate,
        errors.values,
        errors.covariance,
        errors.reason,
        method,
        objective.data.n,
    )


def certify(objective: Objective, starts: tuple[Start, ...], observed: np.ndarray) -> Certificate:
    """Check the best start, with its observed information: gradient, curvature, replication, bounds, infinity."""
    free, names = starts[0].free, np.array(parameters.labels(objective.moe.fields))
    scale = coordinate_scale(objective.moe, np.asarray(objective.data.x))
    gradient = projected_gradient(objective, free) * objective.total
    score = np.concatenate([np.full(np.prod(f.free_shape, dtype=int), f.score) for f in objective.moe.fields.values()])
    own = np.sqrt(np.maximum(np.diag(observed) / objective.total, 0.0))
    scale = np.where(score | ~(own > 0), scale, own)
    floored = _floored(objective, free)
    scaled = observed / np.outer(scale, scale) / objective.total
    held = bounded = np.zeros(len(free), dtype=bool)
    if objective.bounds is not None:
        bounded = np.isfinite(np.where(free > 0, objective.bounds[:, 1], objective.bounds[:, 0]))
        held = (free <= objective.bounds[:, 0]) | (free >= objective.bounds[:, 1])
    pressed = floored | (held & (gradient == 0))  # a bound holds them back; others may leave it
    large = (_sizes(objective, free) > LARGE) & ~bounded & score
    return Certificate(
        _distance(gradient[~pressed], observed[np.ix_(~pressed, ~pressed)], objective.total),
        np.linalg.eigvalsh(scaled) if np.isfinite(scaled).all() else np.array([-np.inf, np.inf]),
        sum(start.log_likelihood >= starts[0].log_likelihood - REPLICATED for start in starts),
        tuple(map(str, names[held | floored])),
        tuple(map(str, names[large])),
        _separated_components(objective, free) if large.any() else (),
    )


def _floored(objective: Objective, free: np.ndarray) -> np.ndarray:
    """Which free coordinates belong to a variance that a floor holds up."""
    params, out = parameters.unflatten(objective.moe.fields, free), np.zeros(len(free), dtype=bool)
    for name, floor in objective.floors:
        field, value = objective.moe.fields[name], np.asarray(params[name])
        matrix = field.support is constraints.positive_definite
        low = (np.linalg.eigvalsh(value)[:, :1] if matrix else value) <= floor * (1 + ROUNDING)
        out[parameters.blocks(objective.moe.fields)[name]] = np.broadcast_to(low, field.free_shape).ravel()
    return out


def _sizes(objective: Objective, free: np.ndarray) -> np.ndarray:
    """Sizes of the coordinates of scores: of a slope times its covariate, of the gate's intercept at the mean of x.

    What collinear covariates let drift, the part outside their row space, does not count; neither does the place of
    zero on a covariate's scale, where an intercept makes up for it.
    """
    x, fields, where = np.asarray(objective.data.x), objective.moe.fields, parameters.blocks(objective.moe.fields)
    sizes, centre = np.abs(free), x.mean(axis=1)
    for name, field in fields.items():
        if not field.score or field.dims[-1:] != ("feature",):
            continue
        rows, about = free[where[name]].reshape(-1, len(x)), x
        if name in objective.moe.gate.fields and "tau" in fields:
            about = x - centre[:, None]
            sizes[where["tau"]] = np.abs(free[where["tau"]] + rows @ centre)
        sizes[where[name]] = np.abs(_seen(rows, about)).ravel()
    return sizes


def _seen(rows: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Coefficients times the sizes of their covariates, without the part that no row of x sees."""
    rms = np.sqrt((x**2).mean(axis=1))
    unit = x / np.where(rms > 0, rms, 1.0)[:, None]
    values, vectors = np.linalg.eigh(unit @ unit.T)
    seen = vectors[:, values > 1e-12 * max(values[-1], 1e-300)]
    return rows * rms @ seen @ seen.T


def _distance(gradient: np.ndarray, observed: np.ndarray, total: float) -> float:
    """sqrt(g' J^-1 g): how many standard errors away the maximum is, were the log likelihood quadratic."""
    try:
        root = np.linalg.cholesky(observed)
    except np.linalg.LinAlgError:  # no standard errors to measure in: each observation has a score of order one
        return float(np.linalg.norm(gradient) / np.sqrt(total))
    return float(np.linalg.norm(np.linalg.solve(root, gradient)))


def _separated_components(objective: Objective, free: np.ndarray) -> tuple[str, ...]:
    """Components that a hyperplane separates on their own observations, at no cost in likelihood."""
    moe, data = objective.moe, objective.data
    params = parameters.unflatten(moe.fields, free)
    counted = slice(None) if data.weights is None else np.asarray(data.weights) > 0
    owner = np.asarray(objective.call(_owners, free))[counted]
    x, codes = np.asarray(data.x).T[counted], np.asarray(data.y).argmax(axis=0)[counted]
    out, count = [], moe.gate.experts
    rows = np.column_stack([x, np.ones(len(x))])
    away = direction(rows, (owner - 1) % count, count)  # the gate pins expert 0, the search pins the last
    if away is not None and _costs_nothing(objective, free, {"tau": away[:, -1], "beta": away[:, :-1]}):
        out.append("the gate")
    for place, expert in zip(moe.places, moe.experts, strict=True):
        if not isinstance(expert, Multinomial) or expert.activation is not linear:
            continue
        for member, index in enumerate(range(place.start, place.stop)):
            mine = owner == index
            away = direction(x[mine], codes[mine], expert.classes)
            eta = np.zeros(params["eta"].shape)
            if away is not None:
                eta[member] = away
                if _costs_nothing(objective, free, {"eta": eta}):
                    out.append(f"expert {index}")
    return tuple(out)


def _owners(free: Array, moe: MoE, data: Observations) -> Array:
    """Which component explains each observation best."""
    return jnp.argmax(moe.log_joint(parameters.unflatten(moe.fields, free), data), axis=0)


def _costs_nothing(objective: Objective, free: np.ndarray, away: dict[str, np.ndarray]) -> bool:
    """Whether the log likelihood keeps its value far out: it falls where rows lose a component that explains them."""
    step = np.zeros_like(free)
    for name, where in parameters.blocks(objective.moe.fields).items():
        if name in away:
            step[where] = away[name].ravel()
    return objective.value(free + FAR * step) > objective.value(free) - REPLICATED
