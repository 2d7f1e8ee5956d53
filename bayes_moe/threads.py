"""Independent work side by side: compiled code runs outside Python's lock, so threads are enough."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import jax


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "process_cpu_count"):  # from Python 3.13
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # none on macOS


def each[T, R](function: Callable[[T], R], items: Iterable[T], workers: int | None = None) -> list[R]:
    """Results of a function for every item, in order, computed in threads and in the caller's precision.

    An error or Ctrl-C cancels what has not begun, and is raised when what runs has ended.

    Parameters
    ----------
    function : callable
    items : iterable
    workers : int, optional
        Threads; by default one for each core.
    """
    items, x64 = list(items), jax.config.jax_enable_x64

    def scoped(item: T) -> R:
        with jax.enable_x64(x64):
            return function(item)

    count = min(len(items), workers or cores())
    if count <= 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(scoped, items))
