"""Where scores saturate: coordinates that the likelihood does not tell from infinity, and separated components.

A logistic score, or tanh, that is large enough does nothing but choose a side. Whether a coefficient that is large is
finite is not a matter of its size but of what the likelihood loses when it goes on outwards.
"""

from __future__ import annotations

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy import stats

from bayes_moe.ground import parameters
from bayes_moe.ground.data import Observations
from bayes_moe.model.experts import Multinomial, linear
from bayes_moe.model.moe import MoE
from mle.optimise.fit import REPLICATED
from mle.optimise.objective import Objective
from mle.optimise.separation import direction

LARGE = 12.0  # |coefficient| x size of its covariate beyond which a score may be saturated
LOSS = stats.chi2.ppf(0.95, 1) / 2  # log likelihood that the ends of a 95% interval lose
FAR = 1e4  # how far out a direction is followed, in units of the largest covariates or of the estimate


def large(objective: Objective, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which coordinates of scores may saturate those of most observations, and of some, (P,) each."""
    usual, reach = _sizes(objective, free)
    return usual > LARGE, usual * reach > LARGE


def at_infinity(objective: Objective, free: np.ndarray, suspects: np.ndarray) -> np.ndarray:
    """Which of these coordinates could as well be infinite: there, alone or with its row, it costs little."""
    out = np.zeros(len(free), dtype=bool)
    if not suspects.any():
        return out
    least = objective.value(free) - LOSS
    for row in rows(objective.moe):
        mine = row[suspects[row]]
        if not len(mine):
            continue
        whole = len(row) > 1 and _outwards(objective, free, row) > least
        for place in mine:
            out[place] = whole or _outwards(objective, free, np.array([place])) > least
    return out


def _outwards(objective: Objective, free: np.ndarray, places: np.ndarray) -> float:
    """Log likelihood with these coordinates, intercepts at the covariates' centres, FAR times as large."""
    moved = objective.coordinates.centred(free).copy()
    moved[places] *= FAR
    return objective.value(objective.coordinates.uncentred(moved))


def rows(moe: MoE) -> Iterator[np.ndarray]:
    """Places of the coordinates of each score: a row of slopes, the gate's with its intercept."""
    where = parameters.blocks(moe.fields)
    own = {name: np.arange(where[name].start, where[name].stop).reshape(f.free_shape) for name, f in moe.fields.items()}
    for name, field in moe.fields.items():
        if not field.score or (name == "tau" and "beta" in moe.gate.fields):
            continue
        for index in np.ndindex(field.free_shape[:-1] if field.dims[-1:] == ("feature",) else field.free_shape):
            intercept = own["tau"][index] if name == "beta" and "tau" in moe.gate.fields else []
            yield np.append(intercept, own[name][index]).astype(int)


def _sizes(objective: Objective, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Part that each coordinate has in scores, zero for what enters none; and how many times that in the largest.

    What collinear covariates let drift, the part outside their row space, does not count; neither does the place of
    zero on a covariate's scale, where an intercept makes up for it.
    """
    x, fields = np.asarray(objective.data.x), objective.moe.fields
    centred = objective.coordinates.centred(free)
    sizes, reach = np.zeros(len(free)), np.ones(len(free))
    for name, where in parameters.blocks(fields).items():
        if not fields[name].score:
            continue
        sizes[where] = np.abs(centred[where])
        if fields[name].dims[-1:] == ("feature",):
            about = x - objective.coordinates.centre[:, None] if name in objective.moe.gate.fields else x
            rows = centred[where].reshape(-1, len(x))
            sizes[where] = np.abs(_seen(rows, about)).ravel()
            tallest = np.abs(about).max(axis=1) / np.maximum(np.sqrt((about**2).mean(axis=1)), np.finfo(float).tiny)
            reach[where] = np.broadcast_to(tallest, rows.shape).ravel()
    return sizes, reach


def _seen(rows: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Coefficients times the sizes of their covariates, without the part that no row of x sees."""
    rms = np.sqrt((x**2).mean(axis=1))
    unit = x / np.where(rms > 0, rms, 1.0)[:, None]
    values, vectors = np.linalg.eigh(unit @ unit.T)
    seen = vectors[:, values > 1e-12 * max(values[-1], 1e-300)]
    return rows * rms @ seen @ seen.T


def separated_components(objective: Objective, free: np.ndarray) -> tuple[str, ...]:
    """Components that a hyperplane separates on their own observations, at no cost in likelihood."""
    moe, data = objective.moe, objective.data
    params = parameters.unflatten(moe.fields, free)
    owner = np.asarray(objective.call(_owners, free))
    x, codes = np.asarray(data.x).T, np.asarray(data.y).argmax(axis=0)
    out, count = [], moe.gate.experts
    rows = np.column_stack([x, np.ones(len(x))])
    away = None
    if "beta" in moe.gate.fields:
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
