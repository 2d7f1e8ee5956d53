"""The five measurements, as jobs in the order in which they run: round-robin over the methods."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from comparisons.peers.jobs import METHODS, Job
from comparisons.peers.problem import REGIMES, simulate

PARTS = ("posterior", "first", "likelihood", "mle", "many")
ONE_THREAD = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
BATCH = 5  # data sets in each job of the race, so that one that is stopped loses little


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Parameters
    ----------
    cases : tuple of (regime, n, draws)
        Of the posterior.
    likelihood : tuple of int
        Sample sizes of value and gradient.
    seconds : float
        For each of them.
    mle : tuple of int
        Data sets for each regime, observations, starts.
    many : tuple of int
        Data sets, observations, draws.
    """

    cases: tuple[tuple[str, int, int], ...] = (
        ("heterogeneous", 2000, 1000),
        ("heterogeneous", 20_000, 1000),
        ("homogeneous", 2000, 8000),  # R-hat of fewer is too noisy for the sampling gate
    )
    likelihood: tuple[int, ...] = (1000, 3000, 10_000, 20_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
    seconds: float = 5.0
    mle: tuple[int, int, int] = (50, 2000, 4)
    many: tuple[int, int, int] = (40, 1000, 500)


QUICK = Sizes(
    cases=(("heterogeneous", 2000, 500), ("homogeneous", 2000, 500)),
    likelihood=(1000, 10_000, 100_000),
    seconds=0.5,
    mle=(3, 1000, 1),
    many=(3, 500, 250),
)


def plan(sizes: Sizes, parts: tuple[str, ...], methods: tuple[str, ...], repeats: int) -> list[Job]:
    """Every job: repeat by repeat, and within each the methods in turn."""
    makers = {"posterior": _posterior, "first": _first, "likelihood": _likelihood, "mle": _mle, "many": _many}
    jobs = []
    for repeat in range(repeats):
        for part in parts:
            jobs += makers[part](sizes, methods, repeat)
    return jobs


def case_name(regime: str, n: int) -> str:
    """Name a regime at a size."""
    return f"{regime}, n = {n:,}"


def _posterior(sizes: Sizes, methods: tuple[str, ...], repeat: int) -> Iterator[Job]:
    """Each repeat has a data set of its own, which all methods share."""
    for regime, n, draws in sizes.cases:
        problem = simulate(regime, n, 3000 + repeat)
        for name in methods:
            method, settings = METHODS[name], {"draws": draws, "seed": repeat}
            if n <= method.largest:
                function = f"{method.module}:sample"
                yield Job(
                    "posterior", case_name(regime, n), name, function, [problem], settings, method.env, garbage=False
                )


def _first(sizes: Sizes, methods: tuple[str, ...], repeat: int) -> Iterator[Job]:
    regime, n, draws = sizes.cases[0]
    for name in [m for m in methods if m in ("ours", "numpyro64", "numpyro32")]:
        method, settings = METHODS[name], {"draws": draws, "seed": 100 + repeat}
        problem = simulate(regime, n, 4000 + repeat)
        yield Job("first", case_name(regime, n), name, f"{method.module}:sample", [problem], settings, method.env)


def _likelihood(sizes: Sizes, methods: tuple[str, ...], repeat: int) -> Iterator[Job]:
    settings = {"sizes": list(sizes.likelihood), "seed": repeat, "seconds": sizes.seconds}
    yield Job("likelihood", "", "ours", "likelihood:measure", settings=settings, env=ONE_THREAD)


def _mle(sizes: Sizes, methods: tuple[str, ...], repeat: int) -> Iterator[Job]:
    """The data sets are the repeats: only the first round runs them."""
    count, n, starts = sizes.mle
    for regime in REGIMES if repeat == 0 else ():
        for first in range(0, count, BATCH):
            problems = [simulate(regime, n, 1000 + i) for i in range(first, min(first + BATCH, count))]
            settings = {"starts": starts, "seed": first}
            yield Job("mle", case_name(regime, n), "ours", "mle_race:race", problems, settings)


def _many(sizes: Sizes, methods: tuple[str, ...], repeat: int) -> Iterator[Job]:
    count, n, draws = sizes.many
    problems = [simulate("heterogeneous", n, 2000 + i) for i in range(count)]
    for name in [m for m in methods if m in ("ours", "numpyro64")]:
        method, settings = METHODS[name], {"draws": draws, "seed": repeat}
        case = f"{count} data sets, n = {n:,}"
        yield Job("many", case, name, f"{method.module}:many", problems, settings, method.env)
