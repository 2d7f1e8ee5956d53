"""Chains in threads: block by block, to the end, to the effective sample size wanted, or to an interrupt."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from time import perf_counter

import jax
import numpy as np
from arviz_stats.base import array_stats
from jax import Array

from bayes_moe.ground import threads
from bayes_moe.ground.compilation import compiled

LONGEST = 500  # transitions, at most, between two reports of progress
PACE = 0.1  # seconds between two reports, or the time of one transition
GROWTH = 4  # a block has at most so many times the transitions of the one before
CHECK = 200  # draws between two looks at the effective sample size
FEWEST = 4  # draws of each chain below which an interrupted run has nothing to give
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Settings:
    """What a sampling run depends on besides model, data and key.

    ``target_accept_prob`` None leaves it to :func:`bayes_moe.nuts.sampler.run`; ``sweeps`` is how often its ``between``
    refreshes the state before each transition.
    """

    num_warmup: int = 300
    num_samples: int = 1000
    num_chains: int = 4
    target_accept_prob: float | None = None
    max_tree_depth: int = 10
    dense_mass: bool = False
    sweeps: int = 0


class Chain:
    """One chain: its state, and the blocks of transitions made so far."""

    def __init__(self, kernel: tuple[Callable, Callable], settings: Settings, problem: tuple, key: Array, point: tuple):
        self.kernel, self.settings, self.problem, self.start = kernel, settings, problem, (key, point)
        self.state, self.made, self.pace, self.blocks = None, 0, 1, []

    @property
    def draws(self) -> int:
        """Draws after warm-up, at most as many as were asked for."""
        return max(0, min(self.made - self.settings.num_warmup, self.settings.num_samples))

    def advance(self, draws: int, stop: threading.Event, on_progress: Callable[[int], None]) -> None:
        """Go on, block by block, until there are so many draws or ``stop`` is set."""
        total = self.settings.num_warmup + draws
        init, advance = self.kernel
        if self.state is None:
            arguments = (*self.start, self.problem)
            self.state = compiled(init, *arguments)(*arguments)
        step = compiled(advance, self.state, np.int32(0), self.problem)
        while self.made < total and not stop.is_set():
            count = min(self.pace, total - self.made)
            began = perf_counter()
            self.state, rows = step(self.state, np.int32(count), self.problem)
            jax.block_until_ready(self.state.z)
            fitting = count * PACE / (perf_counter() - began)
            self.pace = int(np.clip(fitting, 1, min(GROWTH * self.pace, LONGEST)))
            kept = slice(max(self.settings.num_warmup - self.made, 0), count)
            self.blocks.append(jax.tree.map(lambda row, kept=kept: np.asarray(row)[kept].copy(), rows))
            self.made += count
            on_progress(count)

    def collected(self, length: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Free vectors and statistics of the first draws after warm-up."""
        return jax.tree.map(lambda *parts: np.concatenate(parts)[:length], *self.blocks)


def advance_all(
    chains: list[Chain], settings: Settings, until_ess: float | None, on_progress: Callable[[int], None]
) -> str:
    """Run the chains in threads, to the end, to the ESS wanted, or to an interrupt; say which."""
    stop, workers = threading.Event(), min(len(chains), threads.cores())

    @threads.scoped
    def go(chain: Chain, draws: int) -> None:
        chain.advance(draws, stop, on_progress)

    rounds = [settings.num_samples]
    if until_ess or len(chains) > workers:  # chains that wait for others keep up with them
        rounds = [*range(CHECK, settings.num_samples, CHECK), *rounds]
    with ThreadPoolExecutor(workers) as pool:
        for draws in rounds:
            futures = []
            try:
                for chain in chains:
                    futures.append(pool.submit(go, chain, draws))
                for future in futures:
                    future.result()
                if until_ess and _smallest_ess(chains, draws) >= until_ess:
                    return "the effective sample size asked for was reached"
            except KeyboardInterrupt:
                stop.set()
                wait(futures)
                if min(chain.draws for chain in chains) < FEWEST:
                    raise
                return INTERRUPTED
            except BaseException:
                stop.set()
                raise
    return "all draws made" if until_ess is None else "the effective sample size asked for was not reached"


def _smallest_ess(chains: list[Chain], draws: int) -> float:
    free = np.stack([chain.collected(draws)[0] for chain in chains])
    return min(float(array_stats.ess(free[..., i], method="bulk")) for i in range(free.shape[-1]))
