"""Compile each function once for each shape of its arguments, whatever thread, data set or seed asks."""

from __future__ import annotations

import contextlib
import functools
import gc
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.compilation_cache import compilation_cache

from bayes_moe.ground import compile_cache, flags, threads
from bayes_moe.ground.tracing import TRACING

# One thread for each program: our threads run chains and fits side by side, and splitting loops of microseconds costs
# more than it saves. Wide vectors where the processor has them.
OPTIONS = {"xla_cpu_multi_thread_eigen": False, "xla_cpu_prefer_vector_width": 512}

KEPT = 256  # executables
MAPS = Path("/proc/self/maps")  # what a process maps into its memory: hundreds of pieces for each executable
LIMIT = Path("/proc/sys/vm/max_map_count")  # beyond which the next compilation would abort the process
SHARE = 0.3  # of the limit, at which executables are dropped: compilations go on in other threads meanwhile
SPARED = 50  # times as long as counting them takes nobody counts again
LONGEST = 2.0  # seconds, whatever it took: a loaded machine takes long to count, and compiles on
_TABLE: OrderedDict[tuple, Future] = OrderedDict()
_TABLE_LOCK = threading.Lock()


def compiled(function: Callable, *args: object) -> Callable:
    """Executable of a cached or module-level function for the shapes of these arguments.

    Parameters
    ----------
    function : callable
        Its identity is the key: pass the same object each time.
    *args : pytrees of arrays, or of their shapes and dtypes
        Only shapes and dtypes count.
    """
    leaves, structure = jax.tree.flatten(args)
    avals = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
    key = (function, structure, avals, jax.config.jax_enable_x64, jax.config.jax_default_device, flags.in_force())
    with _TABLE_LOCK:
        mine = key not in _TABLE
        future = _TABLE.setdefault(key, Future())
        _TABLE.move_to_end(key)
        if len(_TABLE) > KEPT:
            _TABLE.popitem(last=False)
    if mine:
        try:
            future.set_result(_compile(function, jax.tree.unflatten(structure, avals)))
        except BaseException as error:
            with _TABLE_LOCK:
                _TABLE.pop(key, None)
            future.set_exception(error)
    try:
        return future.result()
    except (KeyboardInterrupt, SystemExit, threads.Cancelled):  # meant for the thread that compiled
        if mine:
            raise
    return compiled(function, *args)


def as_arrays(tree: object) -> object:
    """Turn every leaf into a JAX array of the precision in force: same shapes, same executable."""

    def as_array(leaf: object) -> Array:
        given = isinstance(leaf, jax.Array | np.ndarray) and not getattr(leaf, "weak_type", False)
        double = given and leaf.dtype == np.float64  # JAX keeps it, made in double precision, where single is in force
        dtype = None if given and not double else float
        if isinstance(leaf, jax.Array):
            return jnp.asarray(leaf, dtype=dtype)
        return jax.device_put(np.array(leaf, dtype=dtype))  # a copy of ours; jnp.asarray would compile a program

    return jax.tree.map(as_array, tree)


def forget() -> None:
    """Drop every executable, ours and JAX's own: who uses one keeps it till then, and who wants it compiles anew."""
    with _TABLE_LOCK:
        for key in [key for key, future in _TABLE.items() if future.done()]:
            del _TABLE[key]
    jax.clear_caches()
    gc.collect()


class _Room:
    """When to count again."""

    lock, due = threading.Lock(), 0.0


def make_room(*, look: bool = False) -> None:
    """Drop executables where there are so many that the system would soon map no more, which ends a process.

    Parameters
    ----------
    look : bool
        Count now, before a compilation; else only when some time has passed, as where JAX compiles by itself.
    """
    if not look and time.monotonic() < _Room.due:
        return
    if _Room.lock.acquire(blocking=look):
        try:
            began = time.monotonic()
            if _maps() > SHARE * _most_maps():
                forget()
            _Room.due = time.monotonic() + min(max(0.2, SPARED * (time.monotonic() - began)), LONGEST)
        finally:
            _Room.lock.release()


def _maps() -> int:
    try:
        return MAPS.read_bytes().count(b"\n")
    except OSError:  # no Linux: no such limit
        return 0


@functools.cache
def _most_maps() -> float:
    try:
        return int(LIMIT.read_text())
    except OSError:
        return 65_530


@functools.cache
def jitted(function: Callable) -> Callable:
    """``jax.jit`` of a module-level function with our options: faster to call than :func:`compiled`, for short work.

    Not for NumPyro models, which must be traced one at a time.
    """
    program = jax.jit(function, compiler_options=_accepted_options())

    @functools.wraps(function)
    def call(*args: object) -> object:
        make_room()
        _keep_on_disk()
        return program(*args)

    return call


def ahead(*wanted: tuple) -> None:
    """Begin to compile, in other threads, what will be needed soon: tuples (function, *args) for :func:`compiled`.

    Whoever needs it will meet the error that one ends in.
    """
    for function, *args in wanted:
        threads.beside(compiled, function, *args)


@contextlib.contextmanager
def memory_named() -> Iterator[None]:
    """Turn a device's running out of memory into an error that says what to do; a decorator too.

    Raises
    ------
    MemoryError
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        device = jax.devices()[0]
        raise MemoryError(
            f"the device ({device.platform}, {device.device_kind}) ran out of memory. Fit fewer observations or a "
            f"random subset of them, ask for fewer chains or extra groups, or use a larger device. It said: {error}"
        ) from error


def _compile(function: Callable, avals: tuple) -> Callable:
    make_room(look=True)
    with TRACING:
        threads.heed()
        lowered = jax.jit(function).lower(*avals)
        options = _accepted_options()
    threads.heed()
    _keep_on_disk()
    return lowered.compile(compiler_options=options)


class _Disk:
    """Whether it is settled, for the fits that run now, where JAX keeps executables, and where it does by our doing."""

    settled, folder = False, None


def _keep_on_disk() -> None:
    """Keep executables for later processes until the last fit that runs now ends, unless the user's JAX has a cache.

    The folder is a setting of the process, which no fit may leave behind: see :mod:`bayes_moe.ground.compile_cache`.
    """
    if not _Disk.settled:
        threads.until_last(_settle)


def _settle() -> Callable[[], None]:
    if not _Disk.settled:
        _Disk.settled = True
        if jax.config.jax_compilation_cache_dir is None and (folder := compile_cache.folder()):
            _Disk.folder = str(folder)
            compilation_cache.reset_cache()  # JAX looks for a folder once
            jax.config.update("jax_compilation_cache_dir", _Disk.folder)
    return _unsettle


def _unsettle() -> None:
    mine, _Disk.folder, _Disk.settled = _Disk.folder, None, False
    if mine is not None and jax.config.jax_compilation_cache_dir == mine:
        jax.config.update("jax_compilation_cache_dir", None)
        compilation_cache.reset_cache()


@functools.cache
def _accepted_options() -> dict[str, object]:
    """OPTIONS, or none where this version of XLA has no such options: they change speed, never results."""
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options=OPTIONS)
    except jax.errors.JaxRuntimeError:
        return {}
    return OPTIONS
