"""Independent work side by side: compiled code runs outside Python's lock, so threads are enough."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

import jax
from threadpoolctl import ThreadpoolController

from bayes_moe.ground import flags

LIMIT = "BAYES_MOE_CORES"  # environment variable: the most cores that this process may use
_OWN = threading.local()  # of each thread: the events that say that its work is no longer wanted


class Cancelled(Exception):
    """Raised in a thread whose work is no longer wanted."""


def cores() -> int:
    """How many cores this process may use: those of the machine, its affinity and BAYES_MOE_CORES allow."""
    if hasattr(os, "process_cpu_count"):  # from Python 3.13
        count = os.process_cpu_count() or 1
    else:
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS
    limit = os.environ.get(LIMIT, "")
    if limit and not (limit.isdecimal() and int(limit) > 0):
        raise ValueError(f"{LIMIT} must be a positive integer, got {limit!r}.")
    return min(count, int(limit or count))


def scoped[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Bind a function to the precision, default device and :mod:`flags` in force here, whatever thread calls it.

    JAX's settings by ``with`` belong to one thread.
    """
    x64, device, others = jax.config.jax_enable_x64, jax.config.jax_default_device, flags.in_force()

    def bound(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.enable_x64(x64), jax.default_device(device), flags.again(others):
            return function(*args, **kwargs)

    return bound


def each[T, R](function: Callable[[T], R], items: Iterable[T], workers: int | None = None) -> list[R]:
    """Results of a function for every item, in order, computed in threads, in the caller's precision and on its device.

    An error or Ctrl-C cancels what has not begun, and is raised when what runs has ended; long work asks :func:`heed`.

    Parameters
    ----------
    function : callable
    items : iterable
    workers : int, optional
        Threads; by default one for each core.
    """
    items, stop = list(items), threading.Event()
    stops = (*getattr(_OWN, "stops", ()), stop)

    @scoped
    def one(item: T) -> R:
        _OWN.stops = stops
        return function(item)

    count = min(len(items), workers or cores())
    if count <= 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(count) as pool:
        try:
            futures = [pool.submit(one, item) for item in items]
            for future in as_completed(futures):
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in futures]


class _Ended:
    """Set once the program has ended and Python waits for its threads."""

    def is_set(self) -> bool:
        return not threading.main_thread().is_alive()


def beside(function: Callable[..., object], *args: object) -> None:
    """Run a function in a thread of its own, for later, in the caller's precision; what it raises is lost.

    Python waits for it before it ends, since compiled code, or the compiler, crashes without it: so it should heed.
    """

    def quietly() -> None:
        _OWN.stops = (_Ended(),)
        with contextlib.suppress(Exception):
            function(*args)

    threading.Thread(target=scoped(quietly)).start()


def heed() -> None:
    """End this thread's work if it is :func:`each`'s, at any depth, or :func:`beside`, and no longer wanted.

    Raises
    ------
    Cancelled
    """
    if any(stop.is_set() for stop in getattr(_OWN, "stops", ())):
        raise Cancelled


class _Held:
    """How many blocks of code hold settings of the process, and what will undo these."""

    lock, holders, undo = threading.Lock(), 0, []


@functools.lru_cache(maxsize=2)
def _libraries(kind: str, modules: int) -> ThreadpoolController:
    """Find the libraries, again when more modules are loaded: to look takes as long as a thousand gradients."""
    return ThreadpoolController().select(user_api=kind)


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS at one thread: on tiny matrices waking its other threads takes ten times longer; a decorator too.

    The rounding of sums hangs on how many threads add them up: whatever is random or climbs holds this from its door to
    its end, so that results are the same alone, beside others, and on any number of cores. The limit is the process's:
    it ends with the last of the blocks of code, in whatever threads, that hold it.
    """
    with _Held.lock:
        _Held.holders += 1
        if _Held.holders == 1:
            _Held.undo.append(functools.partial(_drop_filters, list(warnings.filters)))
        blas = _libraries("blas", len(sys.modules))
        if any(library.num_threads > 1 for library in blas.lib_controllers):
            limit = blas.limit(limits=1)  # again where another library was loaded since
            _Held.undo.append(limit.restore_original_limits)
    try:
        yield
    finally:
        with _Held.lock:
            _Held.holders -= 1
            while not _Held.holders and _Held.undo:
                _Held.undo.pop()()


def _drop_filters(before: list[tuple]) -> None:
    """Take out of the process's warning filters what SciPy's line searches leave there when two run side by side."""
    for each in [each for each in warnings.filters if each not in before]:
        if each[2].__name__ == "LineSearchWarning":
            warnings.filters.remove(each)


def until_last(setting: Callable[[], Callable[[], None]]) -> None:
    """Make a setting of the process where a fit runs, and undo it, by what it returns, with the last of the fits."""
    with _Held.lock:
        if _Held.holders:
            _Held.undo.append(setting())


@contextlib.contextmanager
def one_openmp_thread() -> Iterator[None]:
    """Hold OpenMP, in which scikit-learn adds up, at one thread, for what the calling thread does; see above why."""
    with _libraries("openmp", len(sys.modules)).limit(limits=1):
        yield
