"""Parametric bootstrap of coefficient curves: responses drawn from a fit, and fitted again like the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np
from jax import Array

from bayes_moe.ground import threads
from bayes_moe.ground.compilation import jitted
from bayes_moe.ground.data import check_count
from bayes_moe.ground.keys import as_generator
from bayes_moe.varying.indexed import IndexedObservations
from bayes_moe.varying.model import VaryingCoefficient, as_params
from mle.kernel.fit import CurveFit
from mle.local.engines import own_level
from mle.local.windows import Windows


def root_key(random_state: int | np.random.Generator | None) -> Array:
    """Key from which every replicate folds its own.

    Raises
    ------
    ValueError
        If there is no ``random_state``.
    """
    return jax.random.key(int(as_generator(random_state, "the bootstrap").integers(2**31)))


def check_replicates(replicates: object, level: float = 0.95) -> int:
    """Check the number of replicates: enough for the quantile that is asked of them."""
    least = int(np.ceil(1 / (1 - level) - 1e-9))
    return check_count(f"replicates at level {level:g}", replicates, least)


def run(
    fit: CurveFit,
    windows: Windows,
    refit: Callable[[IndexedObservations], object],
    replicates: int,
    key: Array,
    workers: int | None = None,
) -> list:
    """Draw responses from the fit at its own x, z and u, ``replicates`` times, and return what ``refit`` says of each.

    Replicate b has the key ``fold_in(key, b)``: results do not depend on the number of threads.

    Parameters
    ----------
    fit : CurveFit
    windows : Windows
        Those of the fit.
    refit : callable
        From data with new responses to a result.
    replicates : int
    key : JAX key
    workers : int, optional
        Threads; by default one for each core.
    """

    def one(index: int) -> object:
        y = jitted(_draw)(fit.model, jax.random.fold_in(key, index), fit.theta, fit.data, windows)
        return refit(replace(fit.data, y=np.asarray(y)))

    first = one(0)  # compiles for all
    return [first, *threads.each(one, range(1, replicates), workers)]


def _draw(model: VaryingCoefficient, key: Array, theta: Array, data: IndexedObservations, windows: Windows) -> Array:
    return model.draw(key, as_params(model, own_level(model, theta, windows)), data)
