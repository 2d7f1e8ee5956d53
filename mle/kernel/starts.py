"""Where kernel estimates start: responsibilities of each observation, hard or soft, shared by every u."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bayes_moe.ground import parameters, threads
from bayes_moe.ground.data import check_count
from bayes_moe.ground.keys import as_generator
from bayes_moe.varying.indexed import IndexedObservations
from bayes_moe.varying.model import VaryingCoefficient
from mle.kernel.plan import Plan

SHARP = 0.3  # concentration of random soft responsibilities: below one, most are near 0 or 1


def check_random(n_init: object, random_state: object) -> np.random.Generator:
    """Check the number of starts, and make the generator that draws them."""
    check_count("n_init", n_init)
    return as_generator(random_state, "random starts")


def draw(model: VaryingCoefficient, data: IndexedObservations, n_init: int, rng: np.random.Generator) -> np.ndarray:
    """Responsibilities to start from, (n_init, C, n).

    One from k-means on the standardised response and expert covariates, one from k-means on the residuals of the
    regression that all components share; then partitions around random observations and sharp random responsibilities
    in turn.

    Raises
    ------
    ValueError
        For more components than observations.
    """
    if model.components > data.n:
        raise ValueError(
            f"components must be at most the number of rows: {model.components} components, {data.n} rows."
        )
    response = np.asarray(model.response.link(np.asarray(data.y), np.asarray(data.size)))
    z, u = np.asarray(data.z).T, np.asarray(data.u)
    design = np.column_stack([z, z * u[:, None]])
    residual = response - design @ np.linalg.lstsq(design, response, rcond=None)[0]
    rows = _standardised(np.column_stack([response, residual, z[:, 1:]]))
    kinds = [
        lambda: _kmeans(rows, model.components, rng),
        lambda: _kmeans(rows[:, 1:2], model.components, rng),
        *([lambda: _centres(rows, model.components, rng), lambda: _sharp(data.n, model.components, rng)] * n_init),
    ]
    return np.array([kind() for kind in kinds[:n_init]], dtype=float)


def blank(model: VaryingCoefficient, data: IndexedObservations, grid: np.ndarray) -> np.ndarray:
    """Coefficients (G, 2 P) before any fit: one component of the pooled mean and spread, everywhere."""
    response = model.response.link(np.asarray(data.y), np.asarray(data.size))
    where, theta = parameters.blocks(model.fields), np.zeros((len(grid), 2 * model.size))
    alpha = theta[:, where["alpha"]].reshape(len(grid), model.components, -1)
    alpha[:, :, 0] = response.mean()
    theta[:, where["alpha"]] = alpha.reshape(len(grid), -1)
    if "delta" in where and model.response.name == "normal":
        theta[:, where["delta"]] = np.log(response.std())
    return theta


def held(plan: Plan, data: IndexedObservations, theta: np.ndarray) -> np.ndarray:
    """Theta (G, 2 P) with what is not free at its constant value, and the free beside it where predictors change least.

    Least squares with each window's weights: a slope that is held at another value takes the intercept with it.
    """
    if plan.free.all():
        return theta
    wanted, cut = plan.held(theta), plan.windows
    out, size = wanted.copy(), plan.model.size
    t, w = np.asarray(cut.t)[:, None], np.asarray(cut.w)[:, None]
    for name, rows in (("beta", data.x), ("alpha", data.z)):
        seen = np.moveaxis(np.asarray(rows)[:, cut.index], 0, 1)
        basis = np.concatenate([seen, seen * t], axis=1)
        gram = (w * basis) @ np.swapaxes(basis, 1, 2)
        first = parameters.blocks(plan.model.fields)[name]
        for own in np.arange(size)[first].reshape(-1, len(rows)):
            where = np.concatenate([own, own + size])
            free = plan.free[where]
            if free.all() or not free.any():
                continue
            lost = gram[:, free] @ (theta - wanted)[:, where, None]
            out[:, where[free]] += (np.linalg.pinv(gram[:, free][:, :, free], hermitian=True) @ lost)[..., 0]
    return out


def given(model: VaryingCoefficient, init: Mapping[str, object], count: int) -> np.ndarray:
    """Coefficients (G, 2 P) from values by name, a row for each grid point or one for all; slopes zero."""
    if not isinstance(init, Mapping):
        raise ValueError(f"init must be a mapping of coefficients by name, got {type(init).__name__}.")
    level = model.rows(init, count)
    return np.concatenate([level, np.zeros_like(level)], axis=1)


def _standardised(rows: np.ndarray) -> np.ndarray:
    spread = rows.std(axis=0)
    return (rows - rows.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def _kmeans(rows: np.ndarray, components: int, rng: np.random.Generator) -> np.ndarray:
    from sklearn.cluster import KMeans  # noqa: PLC0415 - half a second that other models need not wait

    distinct = min(components, len(np.unique(rows, axis=0)))  # scikit-learn warns where there are fewer
    with threads.one_openmp_thread():
        labels = KMeans(distinct, n_init=1, random_state=int(rng.integers(2**31))).fit(rows).labels_
    return np.arange(components)[:, None] == labels


def _centres(rows: np.ndarray, components: int, rng: np.random.Generator) -> np.ndarray:
    centres = rows[rng.choice(len(rows), components, replace=False)]
    squared = ((rows - centres[:, None]) ** 2).sum(axis=2)
    return np.arange(components)[:, None] == squared.argmin(axis=0)


def _sharp(n: int, components: int, rng: np.random.Generator) -> np.ndarray:
    return rng.dirichlet(np.full(components, SHARP), n).T
