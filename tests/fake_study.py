"""A user's study with made-up estimators, for the tests of the engine: quick ones, one that dies, one that hangs."""

import os
import time

import jax
import numpy as np

from comparisons.contaminated import regimes
from comparisons.study.contract import Estimate
from comparisons.study.plan import Study

BAD_SIZE = 60


def quick(problem, rng_key, settings):
    time.sleep(settings["seconds"])
    rng = np.random.default_rng(np.asarray(jax.random.key_data(rng_key)).tolist())
    scale = len(problem.x) ** -0.5
    draws = {name: value + scale * rng.normal(size=(3, *value.shape)) for name, value in problem.truth.items()}
    return Estimate(draws, "ok", {"mean_x": float(problem.x.mean())})


def dies(problem, rng_key, settings):
    if len(problem.x) == BAD_SIZE:
        os._exit(9)
    return quick(problem, rng_key, settings)


def hangs(problem, rng_key, settings):
    if len(problem.x) == BAD_SIZE:
        time.sleep(3600)
    return quick(problem, rng_key, settings)


def fails(problem, rng_key, settings):
    raise RuntimeError("planted")


ESTIMATORS = {"quick": quick, "slower": quick, "dies": dies, "hangs": hangs, "fails": fails}
PAUSES = {"quick": 0.0, "slower": 0.3, "dies": 0.0, "hangs": 0.0, "fails": 0.0}

study = Study(
    name="fake",
    title="A made-up study",
    regimes=(
        regimes.drifting(
            "only",
            "linear frozen, tanh adapter",
            eta0=np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]),
            direction=np.array([[2.0, 0.0], [0.0, -2.0], [0.0, 0.0]]),
            frozen_activation="linear",
            activation="tanh",
        ),
    ),
    sizes={"quick": (50, BAD_SIZE, 70)},
    replicates={"quick": 4},
    settings={name: {"seconds": pause} for name, pause in PAUSES.items()},
    estimators=ESTIMATORS,
)
