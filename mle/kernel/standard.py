"""Units in which curves are fitted: covariates, and normal responses, of mean zero and standard deviation one.

Intercepts absorb a shift of x and z, slopes their scale, so that the model is the same in any units. Starts, steps and
tolerances are not: coefficients held constant would throw a fit far off where a covariate's mean is large, for its
intercepts would have to follow. So every fit is made in these units, whatever the user's, and told in the user's.

An intercept that is held, while a slope beside it is free, absorbs nothing: the covariate of that slope keeps its zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import block_diag

from bayes_moe.varying.indexed import IndexedObservations
from bayes_moe.varying.model import VaryingCoefficient, by_name
from mle.kernel.fit import CurveFit
from mle.kernel.plan import Plan
from mle.local import windows
from mle.local.engines import Solved


@dataclass(frozen=True, eq=False)
class Standard:
    """A change of units: theta = into @ (the user's) + shift, for levels; slopes in u have no shift.

    Parameters
    ----------
    x, z : ndarray, shapes (2, 1 + p) and (2, 1 + q)
        Mean and unit of each covariate; 0 and 1 of the ones.
    y : ndarray, shape (2,)
        Mean and unit of the responses; 0 and 1 unless they are normal.
    matrix, inverse : ndarray, shape (P, P)
    shift : ndarray, shape (P,)
    """

    x: np.ndarray
    z: np.ndarray
    y: np.ndarray
    matrix: np.ndarray
    inverse: np.ndarray
    shift: np.ndarray

    def data(self, data: IndexedObservations) -> IndexedObservations:
        """The data in these units."""
        x, z = (
            (np.asarray(rows) - mean[:, None]) / unit[:, None]
            for rows, (mean, unit) in ((data.x, self.x), (data.z, self.z))
        )
        return replace(data, x=x, z=z, y=(np.asarray(data.y) - self.y[0]) / self.y[1])

    def into(self, theta: np.ndarray) -> np.ndarray:
        """Lines (..., 2 P), levels first, or levels alone (..., P), in these units."""
        moved = _each(self.matrix, theta)
        moved[..., : len(self.shift)] += self.shift
        return moved

    def out(self, theta: np.ndarray) -> np.ndarray:
        """The same in the user's units again."""
        moved = theta.copy()
        moved[..., : len(self.shift)] -= self.shift
        return _each(self.inverse, moved)

    def differences(self, theta: np.ndarray) -> np.ndarray:
        """Differences of lines or levels in these units, in the user's."""
        return _each(self.inverse, theta)

    def plan(self, plan: Plan) -> Plan:
        """The plan with its constants in these units."""
        return replace(plan, constants=np.where(plan.free[: len(self.shift)], 0.0, self.into(plan.constants)))

    def found(self, plan: Plan, used: Plan, solved: Solved, n: int) -> tuple[Plan, Solved]:
        """What an engine found in these units, in the user's; what the plan held keeps every digit.

        Parameters
        ----------
        plan : Plan
            As the user has it.
        used : Plan
            In these units, with what else was held in the end.
        solved : Solved
        n : int
            Observations in its log likelihood.
        """
        constants = np.where(plan.free[: len(self.shift)], self.out(used.constants), plan.constants)
        used = replace(plan, free=used.free, constants=np.where(used.free[: len(self.shift)], 0.0, constants))
        unit = np.log(self.y[1])  # log p(y) = log p(y / unit) - log unit
        return used, solved._replace(
            theta=used.held(self.out(solved.theta)),
            values=solved.values - unit * np.asarray(plan.windows.w).sum(axis=1),
            log_likelihood=solved.log_likelihood - n * unit,
        )


def of(plan: Plan, data: IndexedObservations) -> Standard:
    """The units for a plan and its data, by the observations that its windows see."""
    model, seen = plan.model, windows.seen(plan.windows, data.n)
    held = by_name(model, ~plan.free[: model.size] | model.select(model.constant))
    x, z = (
        _moments(np.asarray(rows)[:, seen], (held[name][:, :1] & ~held[name]).any(axis=0))
        for name, rows in (("beta", data.x), ("alpha", data.z))
    )
    y = np.array([0.0, 1.0])
    if model.response.name == "normal":
        y = _moments(np.asarray(data.y)[None, seen], np.zeros(1, dtype=bool))[:, 0]
    return Standard(x, z, y, *_maps(model, x, z, y))


def of_fit(fit: CurveFit, plan: Plan) -> Standard:
    """The units in which a fit was made."""
    return of(replace(plan, free=fit.free), fit.data)


def _moments(rows: np.ndarray, anchored: np.ndarray) -> np.ndarray:
    """Mean and unit (2, k) of each row; the mean of a constant, and of what is anchored at its zero, is 0."""
    scale = np.abs(rows).max(axis=1, initial=0.0)
    scale = np.where(scale > 0, scale, 1.0)  # squares neither overflow nor vanish
    scaled = rows / scale[:, None]
    mean = np.where(anchored | (np.ptp(rows, axis=1) == 0), 0.0, scaled.mean(axis=1))
    unit = np.sqrt(((scaled - mean[:, None]) ** 2).mean(axis=1))
    return scale * np.array([mean, np.where(unit > 0, unit, 1.0)])


def _maps(
    model: VaryingCoefficient, x: np.ndarray, z: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The matrix of levels into these units, its inverse, and what is added."""
    free, experts, unit = model.components - 1, model.components, y[1]
    dispersions = [np.eye(experts)] * model.response.dispersed
    matrix = block_diag(*[_row(*x)] * free, *[_row(*z) / unit] * experts, *dispersions)
    inverse = block_diag(*[_row_back(*x)] * free, *[_row_back(*z) * unit] * experts, *dispersions)
    shift = by_name(model, np.zeros(model.size))
    shift["alpha"][:, 0] = -y[0] / unit
    if model.response.dispersed:
        shift["delta"][:] = -np.log(unit)
    return matrix, inverse, np.concatenate([part.ravel() for part in shift.values()])


def _row(mean: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Coefficients of one component, intercept first, for covariates (x - mean) / unit."""
    matrix = np.diag(unit)
    matrix[0, 1:] = mean[1:]
    return matrix


def _row_back(mean: np.ndarray, unit: np.ndarray) -> np.ndarray:
    matrix = np.diag(1 / unit)
    matrix[0, 1:] = -mean[1:] / unit[1:]
    return matrix


def _each(matrix: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """The matrix times levels and slopes (..., k P), each P by itself."""
    parts = theta.reshape(*theta.shape[:-1], -1, len(matrix))
    with np.errstate(invalid="ignore"):  # a fit that went astray
        return (parts @ matrix.T).reshape(theta.shape)
