"""Value and gradient of the log likelihood: ours, hand-fused kernels, and what the machine allows, on one core."""

from __future__ import annotations

import os
from collections.abc import Callable
from time import perf_counter

import jax
import jax.numpy as jnp
import numpy as np

from comparisons.peers import fused, fused_numba, ours
from comparisons.peers.problem import Problem, simulate
from mle.optimise.objective import Objective

TANH, EXP, LOG = 2, 3, 1  # how often each is needed for one observation, in the fused kernels
COLUMNS = 6  # doubles an observation needs at least: four covariates, its class, the frozen expert's probability
TRAFFIC = 2**28  # bytes of the array that bandwidth is measured on
CHUNK = 2**14  # observations for the price of the transcendental functions: they stay in the cache


def one_core() -> None:
    """Keep this process, and all threads it will start, on one core where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def measure(*, sizes: list[int], seed: int, seconds: float) -> dict[str, np.ndarray]:
    """Best of many calls of each kernel at each size, in turn; and the machine's limits.

    Parameters
    ----------
    sizes : list of int
    seed : int
    seconds : float
        How long to measure at each size.

    Returns
    -------
    dict of str to ndarray
        ``sizes``; ``ours``, ``jax``, ``numba``: seconds; ``bandwidth``, ``transcendental``: seconds for one
        observation.
    """
    one_core()
    with jax.enable_x64(True):
        rows = [_at(n, seed, seconds) for n in sizes]
        limits = {"bandwidth": COLUMNS * 8 / bandwidth(), "transcendental": transcendental()}
    times = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return {"sizes": np.array(sizes), **times, **limits}


def kernels(problem: Problem, free: np.ndarray) -> dict[str, Callable[[], tuple]]:
    """Ours and the fused kernels, as calls without arguments that return value and gradient."""
    moe = ours.moe(problem)
    data = jax.tree.map(jnp.asarray, moe.observe(problem.x, problem.y))
    x, y, f0 = np.ascontiguousarray(problem.x.T), problem.y, np.exp(np.asarray(data.frozen))
    objective = Objective(moe, data)
    on_device = [jnp.asarray(array) for array in (free, x, y, f0)]
    return {
        "ours": lambda: objective.value_and_grad(free),
        "jax": lambda: jax.block_until_ready(fused.kernel(*on_device)),
        "numba": lambda: fused_numba.kernel(free, x, y, f0),
    }


def _at(n: int, seed: int, seconds: float) -> dict[str, float]:
    free = np.random.default_rng(seed).normal(size=13)
    calls = kernels(simulate("heterogeneous", n, seed), free)
    for call in calls.values():
        call()
    best, began = dict.fromkeys(calls, np.inf), perf_counter()
    while perf_counter() - began < seconds:
        for name, call in calls.items():
            best[name] = min(best[name], _time(call))
    return best


def bandwidth() -> float:
    """Bytes a second at which one core reads memory: the best of several sums over a large array."""
    array = jnp.ones(TRAFFIC // 8)
    total = jax.jit(jnp.sum)
    total(array).block_until_ready()
    return TRAFFIC / min(_time(lambda: total(array).block_until_ready()) for _ in range(10))


def transcendental() -> float:
    """Seconds for the tanh, exp and log of one observation, and nothing else."""
    shapes = [(TANH, CHUNK), (EXP, CHUNK), (LOG, CHUNK)]
    arrays = [jnp.asarray(np.random.default_rng(0).uniform(0.1, 1.0, shape)) for shape in shapes]
    functions = (jnp.tanh, jnp.exp, jnp.log)
    run = jax.jit(lambda parts: sum(f(part).sum() for f, part in zip(functions, parts, strict=True)))
    run(arrays).block_until_ready()
    return min(_time(lambda: run(arrays).block_until_ready()) for _ in range(200)) / CHUNK


def _time(call: Callable[[], object]) -> float:
    began = perf_counter()
    call()
    return perf_counter() - began
