"""Standard errors of a maximum-likelihood estimate, refused with a reason where there are none to be had."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from bayes_moe.ground import parameters
from bayes_moe.ground.data import float64
from bayes_moe.model.moe import MoE
from bayes_moe.theory import information
from mle.optimise.fit import Fit
from mle.optimise.objective import Objective
from mle.optimise.problem import pose

KINDS = ("observed", "sandwich")
SINGULAR = 1e-10  # smallest over largest eigenvalue of the scaled information below which it counts as singular


@dataclass(frozen=True)
class StandardErrors:
    """Standard errors by name, or the reason why there are none.

    Parameters
    ----------
    values : dict of str to ndarray, or None
    covariance : ndarray, shape (P, P), or None
        Of the free vector.
    reason : str
        Empty where there are values.
    """

    values: dict[str, np.ndarray] | None
    covariance: np.ndarray | None
    reason: str = ""


@float64
def standard_errors(moe: MoE, fit: Fit, x: object, y: object, *, kind: str = "observed", weights: object = None):
    """Standard errors of a fit.

    Observed: the inverse of J = -d2 l. Sandwich: J^-1 (sum_i s_i s_i') J^-1, right also where the model is wrong.

    Parameters
    ----------
    moe : MoE
    fit : Fit
    x, y : array-like
        The data of the fit.
    kind : "observed" or "sandwich"
    weights : array-like, optional
        As in the fit.

    Returns
    -------
    StandardErrors

    Raises
    ------
    ValueError
        If the data are not those of the fit.

    References
    ----------
    Huber (1967); White (1982) for the sandwich.
    """
    free = np.asarray(parameters.flatten(moe.fields, fit.params))
    objective = pose(moe, x, y, weights)
    if fit.certificate.status != "maximum":
        return StandardErrors(None, None, fit.certificate.status)
    objective.check_fit(free, fit.log_likelihood)
    return at(objective, free, kind)


def at(
    objective: Objective, free: np.ndarray, kind: str = "observed", observed: np.ndarray | None = None
) -> StandardErrors:
    """Standard errors at a free vector that is taken for an interior maximum; its observed information, if at hand."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}.")
    observed = -objective.hessian(free) if observed is None else observed
    observed = objective.coordinates.sheared(observed)
    diagonal = np.diag(observed)
    if not np.isfinite(observed).all() or (diagonal <= 0).any():
        return StandardErrors(None, None, "the observed information is not positive definite")
    scale = np.sqrt(diagonal)
    values, vectors = np.linalg.eigh(observed / scale / scale[:, None])
    if values[0] <= SINGULAR * values[-1]:
        names = parameters.labels(objective.moe.fields)
        worst = ", ".join(names[j] for j in np.argsort(-np.abs(vectors[:, 0]))[:3])
        return StandardErrors(None, None, f"the observed information is singular, chiefly along {worst}")
    inverse = (vectors / values) @ vectors.T
    if kind == "sandwich":
        scores = objective.coordinates.sheared_gradient(objective.scores(free)) / scale
        weights = 1.0 if objective.data.weights is None else np.asarray(objective.data.weights)[:, None]
        inverse = inverse @ ((weights * scores).T @ scores) @ inverse
    covariance = objective.coordinates.covariance(inverse / scale / scale[:, None])
    return StandardErrors(_by_name(objective.moe, free, covariance), covariance)


def _by_name(moe: MoE, free: np.ndarray, covariance: np.ndarray) -> dict[str, np.ndarray]:
    """Delta method: from the free vector to the parameters."""
    params = parameters.unflatten(moe.fields, free)
    jacobian = information.jacobian(moe, params)
    errors = np.sqrt(np.einsum("ip,pq,iq->i", jacobian, covariance, jacobian))
    parts = np.split(errors, np.cumsum([value.size for value in params.values()])[:-1])
    return {name: part.reshape(value.shape) for (name, value), part in zip(params.items(), parts, strict=True)}


def wald(fit: Fit, level: float = 0.95) -> dict[str, np.ndarray]:
    """Wald intervals: estimate -+ z x standard error.

    Parameters
    ----------
    fit : Fit
    level : float
        Nominal coverage of each interval.

    Returns
    -------
    dict of str to ndarray
        With a trailing axis (low, high); NaN-free.

    Raises
    ------
    ValueError
        If the fit has no standard errors; the message says why.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level!r}.")
    if fit.standard_errors is None:
        raise ValueError(f"the fit has no standard errors: {fit.reason}.")
    z = stats.norm.ppf(0.5 + level / 2)
    return {
        name: np.stack([value - z * fit.standard_errors[name], value + z * fit.standard_errors[name]], axis=-1)
        for name, value in fit.params.items()
    }
