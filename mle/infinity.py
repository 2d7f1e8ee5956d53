"""The likelihood at infinity, where a row of coefficients is so large that its score does nothing but choose a side.

There the log density of an observation takes one of two values, by the side of a hyperplane on which its covariates
lie, and the log likelihood is constant but for jumps: no gradient leads to its highest place. Along a line, however,
each observation changes sides once, so that sorting them gives the highest place on the whole line.
"""

from __future__ import annotations

import numpy as np

from bayes_moe.ground import parameters, threads
from bayes_moe.ground.data import check_count, float64
from bayes_moe.ground.keys import as_generator
from bayes_moe.model.gates import Gaussian
from bayes_moe.model.moe import MoE
from mle.newton import climb
from mle.optimise.certify import finish
from mle.optimise.fit import REPLICATED, Fit, Start
from mle.optimise.hyperplanes import Land, Row, best_on_lines
from mle.optimise.problem import pose
from mle.optimise.starts import climb_safely

ENDS = 8  # ends of climbs that are looked at
LINES = 12  # lines through each place
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
    objective = pose(moe, x, y, weights)
    objective.check_fit(np.asarray(parameters.flatten(moe.fields, fit.params)), fit.log_likelihood)
    land, rng = Land(objective), as_generator(random_state, "the search")
    with threads.one_blas_thread():
        free, value = _highest(land, _distinct(fit.starts), rng, patience)
        if not _above(value, fit.log_likelihood):
            return fit
        end = _climbed(land, free, TOL)
    best = end if end.log_likelihood >= value else Start(free, value, False, 0, end.message, (value,))
    return finish(objective, (best.numbered(len(fit.starts)), *fit.starts), f"{fit.method}, infinity")


def _distinct(starts: tuple[Start, ...]) -> list[np.ndarray]:
    """Ends of the best climbs, one for each log likelihood."""
    out, last = [], np.inf
    for start in starts:
        if np.isfinite(start.log_likelihood) and start.log_likelihood < last - REPLICATED:
            out.append(start.free)
            last = start.log_likelihood
    return out[:ENDS]


def _highest(land: Land, ends: list[np.ndarray], rng: np.random.Generator, patience: int) -> tuple[np.ndarray, float]:
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
    free: np.ndarray, rows: list[Row], rng: np.random.Generator
) -> list[tuple[np.ndarray, np.random.Generator]]:
    """Each row, sent to infinity, on a hyperplane near its own."""
    out = []
    for row, own in zip(rows, rng.spawn(len(rows)), strict=True):
        turned = row.direction(free) + own.normal(size=len(row.size)) / np.sqrt(len(row.size))
        out.append((row.at(free, turned / np.linalg.norm(turned)), own))
    return out


def _ascend(land: Land, free: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Lines through each row's direction, and climbs in what is finite, in turn until neither gains."""
    value = land.value(free)
    while (moved := _along_lines(land, free, value, rng)) is not None:
        free, value = moved
        end = _climbed(land, free, ROUGH)
        if end.log_likelihood > value:
            free, value = end.free, end.log_likelihood
    return free, value


def _climbed(land: Land, free: np.ndarray, tol: float) -> Start:
    return climb_safely(lambda begin: climb(land.scaled, begin, STEPS, tol), free)


def _along_lines(
    land: Land, free: np.ndarray, value: float, rng: np.random.Generator
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
    row: Row, sides: tuple[np.ndarray, np.ndarray], direction: np.ndarray, value: float, rng: np.random.Generator
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
