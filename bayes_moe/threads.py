"""Independent work side by side: compiled code runs outside Python's lock, so threads are enough."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed

import jax

_OWN = threading.local()  # of each thread: the event that says that its work is no longer wanted


class Cancelled(Exception):
    """Raised in a thread whose work is no longer wanted."""


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "process_cpu_count"):  # from Python 3.13
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # none on macOS


def each[T, R](function: Callable[[T], R], items: Iterable[T], workers: int | None = None) -> list[R]:
    """Results of a function for every item, in order, computed in threads and in the caller's precision.

    An error or Ctrl-C cancels what has not begun, and is raised when what runs has ended; long work asks :func:`heed`.

    Parameters
    ----------
    function : callable
    items : iterable
    workers : int, optional
        Threads; by default one for each core.
    """
    items, x64, stop = list(items), jax.config.jax_enable_x64, threading.Event()

    def scoped(item: T) -> R:
        _OWN.stop = stop
        with jax.enable_x64(x64):
            return function(item)

    count = min(len(items), workers or cores())
    if count <= 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(scoped, item) for item in items]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in futures]


def heed() -> None:
    """End this thread's work if it is one of :func:`each`'s and no longer wanted.

    Raises
    ------
    Cancelled
    """
    stop = getattr(_OWN, "stop", None)
    if stop is not None and stop.is_set():
        raise Cancelled
