"""From the best start to a :class:`~mle.optimise.fit.Fit`: certificate, distinct ends, standard errors."""

from __future__ import annotations

import numpy as np
from numpyro.distributions import constraints

from bayes_moe.ground import parameters
from mle.optimise import saturation, uncertainty
from mle.optimise.fit import REPLICATED, Certificate, End, Fit, Start
from mle.optimise.objective import Objective, projected_gradient

ROUNDING = 1e-6  # by which a variance may seem to exceed the floor that holds it
FAINT = 1e-5  # information of an observation, in units of scores, below which components may be separated


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
    replicated = sum(start.log_likelihood >= best.log_likelihood - REPLICATED for start in starts)
    certificate = certify(objective, best, observed, replicated)
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
        _ends(objective, starts, certificate),
    )


def _ends(objective: Objective, starts: tuple[Start, ...], best: Certificate) -> tuple[End, ...]:
    """Distinct ends of the starts, best first, those that failed by their reasons."""
    failed = sorted({start.message for start in starts if start.log_likelihood == -np.inf})
    groups: list[list[Start]] = []
    for start in starts:
        if start.log_likelihood == -np.inf:
            continue
        if not groups or start.log_likelihood < groups[-1][0].log_likelihood - REPLICATED:
            groups.append([])
        groups[-1].append(start)
    out = []
    for group in groups:
        certificate = best if group is groups[0] else _at_end(objective, group[0], len(group))
        kind = certificate.kind if group[0].converged else f"not converged, {certificate.kind}"
        out.append(End(group[0].log_likelihood, len(group), kind))
    return (*out, *(End(-np.inf, sum(s.message == why for s in starts), why) for why in failed))


def _at_end(objective: Objective, start: Start, replicated: int) -> Certificate:
    observed = -objective.hessian(start.free) if start.curvature is None else start.curvature
    return certify(objective, start, observed, replicated)


def certify(objective: Objective, start: Start, observed: np.ndarray, replicated: int) -> Certificate:
    """Check the end of a start, with its observed information: gradient, curvature, bounds, infinity."""
    free, names = start.free, np.array(parameters.labels(objective.moe.fields))
    units = objective.coordinates if objective.bounds is None else objective.coordinates.separate()
    gradient = projected_gradient(objective, free) * objective.total
    observed, pull = units.sheared(observed), units.sheared_gradient(gradient)
    score = np.concatenate([np.full(np.prod(f.free_shape, dtype=int), f.score) for f in objective.moe.fields.values()])
    own = np.sqrt(np.maximum(np.diag(observed) / objective.total, 0.0))
    scale = np.where(score | ~(own > 0), units.size, own)
    floored = _floored(objective, free)
    scaled = observed / scale / scale[:, None] / objective.total
    held = bounded = np.zeros(len(free), dtype=bool)
    if objective.bounds is not None:
        bounded = np.isfinite(np.where(free > 0, objective.bounds[:, 1], objective.bounds[:, 0]))
        held = (free <= objective.bounds[:, 0]) | (free >= objective.bounds[:, 1])
    loose = ~(floored | (held & (gradient == 0)))  # a bound holds the rest back; others may leave it
    values = np.linalg.eigvalsh(scaled) if np.isfinite(scaled).all() else np.array([-np.inf, np.inf])
    suspects, few = (which & ~bounded for which in saturation.large(objective, free))
    unknown = suspects.any() or (few.any() and values[0] < FAINT)
    return Certificate(
        _distance(pull[loose] / scale[loose], scaled[np.ix_(loose, loose)] * objective.total, objective.total),
        values,
        replicated,
        tuple(map(str, names[held | floored])),
        tuple(map(str, names[saturation.at_infinity(objective, free, suspects)])),
        saturation.separated_components(objective, free) if unknown else (),
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


def _distance(gradient: np.ndarray, observed: np.ndarray, total: float) -> float:
    """sqrt(g' J^-1 g): how many standard errors away the maximum is, were the log likelihood quadratic."""
    try:
        root = np.linalg.cholesky(observed)
    except np.linalg.LinAlgError:  # no standard errors to measure in: each observation has a score of order one
        return float(np.linalg.norm(gradient) / np.sqrt(total))
    return float(np.linalg.norm(np.linalg.solve(root, gradient)))
