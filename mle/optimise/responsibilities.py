"""Starts from responsibilities: a partition of (x, y), hard or soft, and the M-step that it implies."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from bayes_moe.ground import parameters, threads
from mle.optimise.coordinates import power_of_two
from mle.optimise.objective import Objective
from mle.optimise.steps import COLLAPSED, Collapse, e_step, maximise_closed

COLLINEAR = 1e-9  # standard deviations of what a column has beside the others, below which it has nothing
SHORT_RUNS = 5  # short EM runs behind each short-EM start
SHORT_STEPS = 10  # EM steps of each


def draw(objective: Objective, n_init: int, rng: np.random.Generator, kind: str | None = None) -> np.ndarray:
    """Return free vectors to start from.

    Parameters
    ----------
    objective : Objective
        Its model has closed-form M-steps.
    n_init : int
    rng : Generator
    kind : str, optional
        "kmeans": clusters of the standardised (x, y). "random": responsibilities uniform on the simplex. "centres":
        each observation to the nearest of as many random observations. "short_em": the best of SHORT_RUNS runs from
        random centres, of SHORT_STEPS EM steps each. By default one k-means start, then short EM and random
        responsibilities in turn.

    Returns
    -------
    ndarray, shape (n_init, P)

    Raises
    ------
    ValueError
        For an unknown kind, more experts than observations, or data whose likelihood has no maximum.

    References
    ----------
    Biernacki, Celeux and Govaert (2003), "Choosing starting values for the EM algorithm".
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"init must be one of {', '.join(KINDS)} or parameter values, got {kind!r}.")
    experts = objective.moe.gate.experts
    if experts > objective.data.n:
        raise ValueError(f"experts must be at most the number of rows: {experts} experts, {objective.data.n} rows.")
    _check_spread(objective)
    default = ["kmeans"] + ["short_em", "random"] * n_init
    return np.array([KINDS[kind or default[index]](objective, rng) for index in range(n_init)])


def _check_spread(objective: Objective) -> None:
    weights = _weights(objective)
    x, y = (_standard(np.asarray(rows), weights) * np.sqrt(weights) for rows in (objective.data.x, objective.data.y))
    if not x.any(axis=1).all() or np.linalg.matrix_rank(x, COLLINEAR * np.sqrt(x.shape[1])) < len(x):
        raise ValueError(
            f"x must have columns that vary and are not collinear, got {len(x)} columns of rank less than that about "
            "their means: every covariance would be singular. Drop columns."
        )
    if not y.any(axis=1).all():
        raise ValueError("y must not be constant: every variance would vanish.")
    if "nu" in dict(objective.floors):
        return
    left = y.T - x.T @ np.linalg.lstsq(x.T, y.T)[0]
    if np.linalg.norm(left) ** 2 < COLLAPSED * np.linalg.norm(y) ** 2:
        raise ValueError("y must not be a linear function of x: every nu would vanish. Give floors={'nu': ...}.")


def _weights(objective: Objective) -> np.ndarray:
    """Weights of the observations, their mean one."""
    given = objective.data.weights
    return np.ones(objective.data.n) if given is None else np.asarray(given) * (objective.data.n / objective.total)


def _standard(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rows less their means, in standard deviations; zero for one that does not vary."""
    scale = power_of_two(np.abs(rows).max(axis=1))[:, None]
    centred = rows / scale
    centred = centred - np.average(centred, axis=1, weights=weights)[:, None]
    centred = centred - np.average(centred, axis=1, weights=weights)[:, None]  # what rounding left of the first
    spread = np.sqrt(np.average(centred**2, axis=1, weights=weights))[:, None]
    varies = (np.ptp(rows, axis=1) > 0)[:, None] & (spread > 0)
    return np.where(varies, centred / np.where(varies, spread, 1.0), 0.0)


def _rows(objective: Objective) -> np.ndarray:
    """Standardised (x, y), (n, d + responses)."""
    weights = _weights(objective)
    return np.concatenate([_standard(np.asarray(rows), weights) for rows in (objective.data.x, objective.data.y)]).T


def _kmeans(objective: Objective, rng: np.random.Generator) -> np.ndarray:
    from sklearn.cluster import KMeans  # noqa: PLC0415 - half a second that other models need not wait

    experts, rows = objective.moe.gate.experts, _rows(objective)
    weights = None if objective.data.weights is None else _weights(objective)
    distinct = min(experts, len(np.unique(rows, axis=0)))  # scikit-learn warns where there are fewer
    with threads.one_openmp_thread():
        seed = int(rng.integers(2**31))
        labels = KMeans(distinct, n_init=1, random_state=seed).fit(rows, sample_weight=weights).labels_
    return from_responsibilities(objective, np.arange(experts)[:, None] == labels)


def _random(objective: Objective, rng: np.random.Generator) -> np.ndarray:
    return from_responsibilities(objective, rng.dirichlet(np.ones(objective.moe.gate.experts), objective.data.n).T)


def _centres(objective: Objective, rng: np.random.Generator) -> np.ndarray:
    experts, rows = objective.moe.gate.experts, _rows(objective)
    centres = rows[_chosen(objective, experts, rng)]
    squared = ((rows - centres[:, None]) ** 2).sum(axis=2)
    return from_responsibilities(objective, np.arange(experts)[:, None] == squared.argmin(axis=0))


def _chosen(objective: Objective, count: int, rng: np.random.Generator) -> np.ndarray:
    """So many observations, drawn without replacement in proportion to their weights."""
    if objective.data.weights is None:
        return rng.choice(objective.data.n, count, replace=False)
    return np.argsort(-np.log(objective.data.weights) - rng.gumbel(size=objective.data.n))[:count]


def _short_em(objective: Objective, rng: np.random.Generator) -> np.ndarray:
    runs = [_climb_shortly(objective, _centres(objective, rng)) for _ in range(SHORT_RUNS)]
    return max(runs, key=lambda run: run[0])[1]


def _climb_shortly(objective: Objective, free: np.ndarray) -> tuple[float, np.ndarray]:
    value, r = e_step(objective, free)
    try:
        for _ in range(SHORT_STEPS):
            free = maximise_closed(objective, free, r)
            value, r = e_step(objective, free)
    except Collapse:
        return -np.inf, free
    return (value if np.isfinite(value) else -np.inf), free


def from_responsibilities(objective: Objective, r: np.ndarray) -> np.ndarray:
    """Free vector of the M-step at responsibilities r, (experts, n); NaN where a component is empty or collapses."""
    weights = 1.0 if objective.data.weights is None else np.asarray(objective.data.weights)
    blank = np.zeros(parameters.size(objective.moe.fields))
    try:
        return maximise_closed(objective, blank, jnp.asarray(weights * r))
    except Collapse:
        return np.full_like(blank, np.nan)


KINDS = {"kmeans": _kmeans, "random": _random, "centres": _centres, "short_em": _short_em}
