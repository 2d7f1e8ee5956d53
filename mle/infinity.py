"""The likelihood at infinity, where a row of coefficients is so large that its score does nothing but choose a side.

There the log density of an observation takes one of two values, by the side of a hyperplane on which its covariates
lie, and the log likelihood is constant but for jumps: no gradient leads to its highest place. Along a line, however,
each observation changes sides once, so that sorting them gives the highest place on the whole line.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from bayes_moe import parameters, threads
from bayes_moe.data import check_count, float64
from bayes_moe.experts import Multinomial
from bayes_moe.gates import Gaussian
from bayes_moe.moe import MoE
from mle.certify import finish
from mle.fit import REPLICATED, Fit, Start
from mle.newton import Scaled, climb
from mle.objective import Objective
from mle.starts import coordinate_scale

ENDS = 8  # ends of climbs that are looked at
LINES = 12  # lines through each place
FAR, SATURATED = 1e3, 40.0  # a score that counts as infinite, and the least of a row that is sent there
GAIN = 1e-9  # share of the log likelihood that counts as higher
STEPS, ROUGH, TOL = 100, 1e-4, 1e-8  # of climbs in what is finite, on the way and at the end


@float64
def search(
    moe: MoE,
    fit: Fit,
    x: object,
    y: object,
    *,
    random_state: int | np.random.Generator,
    patience: int = 8,
    weights: object | None = None,
) -> Fit:
    """Look for a higher likelihood where rows of coefficients are infinite.

    Where tanh is a step, a likelihood can be higher than at any of its maxima, and have no maximum at all. From where
    the fit's climbs ended, each row of coefficients in turn is sent to infinity and moved to the highest place on lines
    through it, then all that is finite climbs again. Rows that are infinite at the best place are kicked to hyperplanes
    nearby, and all starts again from there. No local search is sure of the highest place of all.

    Parameters
    ----------
    moe : MoE
        Of classes.
    fit : Fit
        Without bounds.
    x, y : array-like
        The data of the fit.
    random_state : int or Generator
        For lines and kicks.
    patience : int
        Rounds of kicks without gain, one to each infinite row, after which the search ends.
    weights : array-like, optional
        As in the fit.

    Returns
    -------
    Fit
        The same one where nothing higher is found. Otherwise its status says what is at infinity; it has no standard
        errors.

    Raises
    ------
    ValueError
        For a model of real responses or with a Gaussian gate, or a fit of other data.

    Examples
    --------
    >>> fit = newton.fit(moe, x, y, random_state=0)
    >>> print(infinity.search(moe, fit, x, y, random_state=0).status)
    """
    check_count("patience", patience, 0)
    if moe.real or isinstance(moe.gate, Gaussian):
        raise ValueError("moe must be a model of classes with a logistic gate: others' coefficients don't saturate.")
    objective = Objective(moe, jax.tree.map(jnp.asarray, moe.observe(x, y, weights)))
    objective.check_fit(np.asarray(parameters.flatten(moe.fields, fit.params)), fit.log_likelihood)
    land, rng = _Land(objective), np.random.default_rng(random_state)
    with threads.one_blas_thread():
        free, value = _highest(land, _distinct(fit.starts), rng, patience)
        if not _above(value, fit.log_likelihood):
            return fit
        end = climb(land.scaled, free, STEPS, TOL)
    best = end if end.log_likelihood >= value else Start(free, value, False, 0, end.message, (value,))
    return finish(objective, (best.numbered(len(fit.starts)), *fit.starts), f"{fit.method}, infinity")


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
class _Row:
    """Coefficients of one score: where they are, and their covariates in units in which these are of size one."""

    where: np.ndarray
    size: np.ndarray
    design: np.ndarray
    wide: np.ndarray  # where they are in the model with a constant, whose coefficient comes last

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


class _Land:
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
        self.rows, self.places = _rows(moe, wide, np.asarray(data.x))

    def value(self, free: np.ndarray) -> float:
        """Log likelihood."""
        return self.objective.value(free)

    def steps(self, free: np.ndarray, value: float) -> list[_Row]:
        """Rows that are infinite: that each observation has one of its two densities costs nothing."""
        out = []
        for row in self.rows:
            lo, hi = self.sides(row, free)
            if np.where(row.direction(free) @ row.design < 0, lo, hi).sum() > value - REPLICATED:
                out.append(row)
        return out

    def sides(self, row: _Row, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


def _rows(moe: MoE, wide: MoE, x: np.ndarray) -> tuple[list[_Row], np.ndarray]:
    """Every row of slopes, the gate's with its intercept; and the places of our coordinates in the wide vector."""
    own, other = (_coordinates(m) for m in (moe, wide))
    size, rows = coordinate_scale(moe, x), []
    for name, field in moe.fields.items():
        if field.dims[-1:] != ("feature",):
            continue
        for index in np.ndindex(field.shape[:-1]):
            where, far, covariates = own[name][index], other[name][index], x
            if name in moe.gate.fields:
                where, far = np.append(own["tau"][index], where), np.append(other["tau"][index], far)
                covariates = np.vstack([np.ones_like(x[:1]), x])
            rows.append(_Row(where, size[where], covariates / size[where][:, None], far))
    places = [other[n][..., : own[n].shape[-1]].ravel() for n in own]
    return rows, np.concatenate(places)


def _coordinates(moe: MoE) -> dict[str, np.ndarray]:
    """Places in the free vector, in the shapes of the parameters."""
    where = parameters.blocks(moe.fields)
    return {name: np.arange(where[name].start, where[name].stop).reshape(f.shape) for name, f in moe.fields.items()}


def _distinct(starts: tuple[Start, ...]) -> list[np.ndarray]:
    """Ends of the best climbs, one for each log likelihood."""
    out, last = [], np.inf
    for start in starts:
        if np.isfinite(start.log_likelihood) and start.log_likelihood < last - REPLICATED:
            out.append(start.free)
            last = start.log_likelihood
    return out[:ENDS]


def _highest(land: _Land, ends: list[np.ndarray], rng: np.random.Generator, patience: int) -> tuple[np.ndarray, float]:
    """The highest place found from these ends, then from places around the best; the same on any number of cores."""

    def ascend(begin: tuple[np.ndarray, np.random.Generator]) -> tuple[np.ndarray, float]:
        return _ascend(land, *begin)

    begun = list(zip(ends, rng.spawn(len(ends)), strict=True)) + _kicked(ends[0], land.rows, rng)
    free, value = max(threads.each(ascend, begun), key=_height)
    calm = 0
    while calm < patience and (steps := land.steps(free, value)):
        found = max(threads.each(ascend, _kicked(free, steps, rng)), key=_height)
        calm = 0 if _above(found[1], value) else calm + 1
        free, value = found if calm == 0 else (free, value)
    return free, value


def _height(place: tuple[np.ndarray, float]) -> float:
    return place[1]


def _above(value: float, other: float) -> bool:
    return value > other + GAIN * abs(other)


def _kicked(
    free: np.ndarray, rows: list[_Row], rng: np.random.Generator
) -> list[tuple[np.ndarray, np.random.Generator]]:
    """Each row, sent to infinity, on a hyperplane near its own."""
    out = []
    for row, own in zip(rows, rng.spawn(len(rows)), strict=True):
        turned = row.direction(free) + own.normal(size=len(row.size)) / np.sqrt(len(row.size))
        out.append((row.at(free, turned / np.linalg.norm(turned)), own))
    return out


def _ascend(land: _Land, free: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Lines through each row's direction, and climbs in what is finite, in turn until neither gains."""
    value = land.value(free)
    while (moved := _along_lines(land, free, value, rng)) is not None:
        free, value = moved
        with np.errstate(all="ignore"), contextlib.suppress(ValueError, ArithmeticError, np.linalg.LinAlgError):
            end = climb(land.scaled, free, STEPS, ROUGH)
            if end.log_likelihood > value:
                free, value = end.free, end.log_likelihood
    return free, value


def _along_lines(
    land: _Land, free: np.ndarray, value: float, rng: np.random.Generator
) -> tuple[np.ndarray, float] | None:
    """Move one row after the other until a round gains nothing; None if none ever did."""
    begun, idle, turn = value, 0, 0
    while idle < len(land.rows):
        row = land.rows[turn % len(land.rows)]
        direction, best = _turned(row, land.sides(row, free), row.direction(free), value, rng)
        idle, turn = idle + 1, turn + 1
        if _above(best, value):
            there = row.at(free, direction)
            if _above(height := land.value(there), value):
                free, value, idle = there, height, 0
    return (free, value) if value > begun else None


def _turned(
    row: _Row, sides: tuple[np.ndarray, np.ndarray], direction: np.ndarray, value: float, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Direction of a row at infinity that no line through it improves, all else as it is, and its log likelihood."""
    k = len(direction)
    while True:
        along = np.vstack([np.eye(k), rng.normal(size=(max(LINES - k, 2), k))])
        best, line, t = best_on_lines(*sides, direction @ row.design, along @ row.design)
        if not _above(best, value):
            return direction, value
        direction, value = direction + t * along[line], best
        direction /= np.linalg.norm(direction)
