"""Hyperplanes at infinity: the log likelihood where a row of coefficients does nothing but choose a side of one.

Each observation then has one of two log densities. Along a line of directions it changes sides once, so that sorting
the observations gives the highest place on the whole line.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np

from bayes_moe.ground import parameters
from bayes_moe.model.experts import Multinomial
from bayes_moe.model.moe import MoE
from mle.optimise.fit import REPLICATED
from mle.optimise.objective import Objective
from mle.optimise.scaled import Scaled

FAR, SATURATED = 1e3, 40.0  # a score that counts as infinite, and the least of a row that is sent there


def best_on_lines(lo: np.ndarray, hi: np.ndarray, scores: np.ndarray, rates: np.ndarray) -> tuple[float, int, float]:
    """Highest place of sum_i (lo_i if score_i + t rate_i < 0, else hi_i) on several lines.

    Parameters
    ----------
    lo, hi, scores : ndarray, shape (n,)
    rates : ndarray, shape (lines, n)

    Returns
    -------
    value : float
    line : int
    t : float
        Half way between the two observations that change sides next.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = np.where(rates == 0, np.inf, -scores / rates)
    order = np.argsort(crossing, axis=1) + len(scores) * np.arange(len(rates))[:, None]
    ends = np.full((len(rates), len(scores) + 2), np.inf)
    ends[:, 0], ends[:, 1:-1] = -np.inf, crossing.ravel()[order]
    jumps, first = (hi - lo) * np.sign(rates), (rates < 0) | ((rates == 0) & (scores >= 0))
    sums = np.empty((len(rates), len(scores) + 1))
    sums[:, 0] = lo.sum() + first @ (hi - lo)
    np.cumsum(jumps.ravel()[order], axis=1, out=sums[:, 1:])
    sums[:, 1:] += sums[:, :1]
    sums[ends[:, 1:] <= ends[:, :-1]] = -np.inf  # no room between observations that change sides together
    line, place = np.unravel_index(np.argmax(sums), sums.shape)
    return float(sums[line, place]), int(line), _between(*ends[line, place : place + 2])


def _between(low: float, high: float) -> float:
    if np.isinf(low) and np.isinf(high):
        return 0.0
    if np.isinf(low):
        return high - 1 - abs(high)
    return low + 1 + abs(low) if np.isinf(high) else (low + high) / 2


@dataclass(frozen=True, eq=False)
class Row:
    """The k coefficients of one score, and their covariates in units in which these are of size one.

    Attributes
    ----------
    where : ndarray, shape (k,)
        Their places in the free vector.
    size : ndarray, shape (k,)
        Root mean squares of their covariates.
    design : ndarray, shape (k, n)
        The covariates over their sizes.
    wide : ndarray, shape (k + 1,)
        Their places in the model with a constant, whose coefficient comes last.
    """

    where: np.ndarray
    size: np.ndarray
    design: np.ndarray
    wide: np.ndarray

    def direction(self, free: np.ndarray) -> np.ndarray:
        """The row in those units, of length one."""
        v = free[self.where] * self.size
        return v / max(np.linalg.norm(v), np.finfo(float).tiny)

    def at(self, free: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Send the row to infinity in a direction."""
        scores = np.abs(direction @ self.design)
        out = free.copy()
        out[self.where] = direction * (SATURATED / np.min(scores, where=scores > 0, initial=np.inf)) / self.size
        return out


class Land:
    """The log likelihood, and of each observation the log density on both sides of each row's hyperplane.

    Both are those of a model with one more covariate, a constant, whose coefficient alone is then the row's score.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective, self.scaled = objective, Scaled(objective)
        moe, data = objective.moe, objective.data
        more = moe.gate.features + 1
        experts = tuple(replace(e, features=more) if isinstance(e, Multinomial) else e for e in moe.experts)
        wide = replace(moe, gate=replace(moe.gate, features=more), experts=experts)
        self.wide = Objective(wide, replace(data, x=jnp.concatenate([data.x, jnp.ones_like(data.x[:1])])))
        self.rows, self.places = _rows(moe, wide, np.asarray(data.x), objective.coordinates.size)

    def value(self, free: np.ndarray) -> float:
        """Log likelihood."""
        return self.objective.value(free)

    def steps(self, free: np.ndarray, value: float) -> list[Row]:
        """Rows that are infinite: that each observation has one of its two densities costs nothing."""
        out = []
        for row in self.rows:
            lo, hi = self.sides(row, free)
            if np.where(row.direction(free) @ row.design < 0, lo, hi).sum() > value - REPLICATED:
                out.append(row)
        return out

    def sides(self, row: Row, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log densities where the row's score is minus and plus infinity, (n,) each, times the weights."""
        point = np.zeros(parameters.size(self.wide.moe.fields))
        point[self.places] = free
        point[row.wide] = 0.0
        out = []
        for score in (-FAR, FAR):
            point[row.wide[-1]] = score
            out.append(np.maximum(self.wide.log_densities(point.copy()), -FAR))  # so that differences are finite
        weights = 1.0 if self.objective.data.weights is None else np.asarray(self.objective.data.weights)
        return weights * out[0], weights * out[1]


def _rows(moe: MoE, wide: MoE, x: np.ndarray, size: np.ndarray) -> tuple[list[Row], np.ndarray]:
    """Every row of slopes, the gate's with its intercept; and the places of our coordinates in the wide vector."""
    own, other = (_coordinates(m) for m in (moe, wide))
    rows = []
    for name, field in moe.fields.items():
        if field.dims[-1:] != ("feature",):
            continue
        for index in np.ndindex(field.shape[:-1]):
            where, far, covariates = own[name][index], other[name][index], x
            if name in moe.gate.fields:
                where, far = np.append(own["tau"][index], where), np.append(other["tau"][index], far)
                covariates = np.vstack([np.ones_like(x[:1]), x])
            rows.append(Row(where, size[where], covariates / size[where][:, None], far))
    places = [other[n][..., : own[n].shape[-1]].ravel() for n in own]
    return rows, np.concatenate(places)


def _coordinates(moe: MoE) -> dict[str, np.ndarray]:
    """Places in the free vector, in the shapes of the parameters."""
    where = parameters.blocks(moe.fields)
    return {name: np.arange(where[name].start, where[name].stop).reshape(f.shape) for name, f in moe.fields.items()}
