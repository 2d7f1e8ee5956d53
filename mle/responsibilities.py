"""Starts from responsibilities: a partition of (x, y), hard or soft, and the M-step that it implies."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from bayes_moe import parameters, threads
from mle.m_steps import COLLAPSED, Collapse, maximise_closed
from mle.objective import Objective

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
    x, y = np.asarray(objective.data.x), np.asarray(objective.data.y)
    about_mean, centred = (rows - rows.mean(axis=1, keepdims=True) for rows in (x, y))
    if (np.ptp(x, axis=1) == 0).any() or np.linalg.matrix_rank(about_mean) < len(x):
        raise ValueError(
            f"x must have columns that vary and are not collinear, got {len(x)} columns of rank less than that about "
            "their means: every covariance would be singular. Drop columns."
        )
    if (np.ptp(y, axis=1) == 0).any():
        raise ValueError("y must not be constant: every variance would vanish.")
    if "nu" in dict(objective.floors):
        return
    left = centred.T - about_mean.T @ np.linalg.lstsq(about_mean.T, centred.T)[0]
    if np.linalg.norm(left) ** 2 < COLLAPSED * np.linalg.norm(centred) ** 2:
        raise ValueError("y must not be a linear function of x: every nu would vanish. Give floors={'nu': ...}.")


def _rows(objective: Objective) -> np.ndarray:
    """Standardised (x, y), (n, d + responses)."""
    rows = np.concatenate([objective.data.x, objective.data.y]).T
    spread = rows.std(axis=0)
    return (rows - rows.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def _kmeans(objective: Objective, rng: np.random.Generator) -> np.ndarray:
    from sklearn.cluster import KMeans  # noqa: PLC0415 - half a second that other models need not wait

    experts, rows = objective.moe.gate.experts, _rows(objective)
    distinct = min(experts, len(np.unique(rows, axis=0)))  # scikit-learn warns where there are fewer
    with threads.one_openmp_thread():
        labels = KMeans(distinct, n_init=1, random_state=int(rng.integers(2**31))).fit(rows).labels_
    return from_responsibilities(objective, np.arange(experts)[:, None] == labels)


def _random(objective: Objective, rng: np.random.Generator) -> np.ndarray:
    return from_responsibilities(objective, rng.dirichlet(np.ones(objective.moe.gate.experts), objective.data.n).T)


def _centres(objective: Objective, rng: np.random.Generator) -> np.ndarray:
    experts, rows = objective.moe.gate.experts, _rows(objective)
    centres = rows[rng.choice(len(rows), experts, replace=False)]
    squared = ((rows - centres[:, None]) ** 2).sum(axis=2)
    return from_responsibilities(objective, np.arange(experts)[:, None] == squared.argmin(axis=0))


def _short_em(objective: Objective, rng: np.random.Generator) -> np.ndarray:
    runs = [_climb_shortly(objective, _centres(objective, rng)) for _ in range(SHORT_RUNS)]
    return max(runs, key=lambda run: run[0])[1]


def _climb_shortly(objective: Objective, free: np.ndarray) -> tuple[float, np.ndarray]:
    from mle.em import e_step  # em draws its starts here

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
