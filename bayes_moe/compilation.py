"""Compile each function once for each shape of its arguments, whatever thread, data set or seed asks."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax import Array

from bayes_moe import threads
from bayes_moe.tracing import TRACING

# One thread for each program: our threads run chains and fits side by side, and splitting loops of microseconds costs
# more than it saves. Wide vectors where the processor has them.
OPTIONS = {"xla_cpu_multi_thread_eigen": False, "xla_cpu_prefer_vector_width": 512}

KEPT = 256  # executables
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
    key = (function, structure, avals, jax.config.jax_enable_x64, jax.config.jax_default_device)
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
    return future.result()


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
    """Drop every executable: the system maps only so many in one process, a few thousand programs."""
    with _TABLE_LOCK:
        _TABLE.clear()
    jax.clear_caches()


@functools.cache
def jitted(function: Callable) -> Callable:
    """``jax.jit`` of a module-level function with our options: faster to call than :func:`compiled`, for short work.

    Not for NumPyro models, which must be traced one at a time.
    """
    _use_cache_on_disk()
    return jax.jit(function, compiler_options=_accepted_options())


def ahead(*wanted: tuple) -> None:
    """Begin to compile, in other threads, what will be needed soon: tuples (function, *args) for :func:`compiled`."""

    @threads.scoped
    def compile_quietly(function: Callable, *args: object) -> None:
        with contextlib.suppress(Exception):  # whoever needs it will meet the error
            compiled(function, *args)

    for function, *args in wanted:
        threading.Thread(target=compile_quietly, args=(function, *args), daemon=True).start()


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
    with TRACING:
        lowered = jax.jit(function).lower(*avals)
        _use_cache_on_disk()
        options = _accepted_options()
    return lowered.compile(compiler_options=options)


@functools.cache
def _accepted_options() -> dict[str, object]:
    """OPTIONS, or none where this version of XLA has no such options: they change speed, never results."""
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options=OPTIONS)
    except jax.errors.JaxRuntimeError:
        return {}
    return OPTIONS


@functools.cache
def _use_cache_on_disk() -> None:
    """Keep executables for later processes, unless the user has a cache or BAYES_MOE_CACHE is "off".

    The folder is this user's alone, and named after the processor and the compiler: an executable made for another
    processor could crash. Losing it costs time only.
    """
    where = os.environ.get("BAYES_MOE_CACHE", "")
    if jax.config.jax_compilation_cache_dir is not None or where == "off":
        return
    home = Path(where or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bayes-moe")
    folder = home / f"xla-{jaxlib.__version__}-{_processor()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:  # a read-only home: compile anew each time
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))


def _processor() -> str:
    """Short hash of what the processor can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        known = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    except OSError:
        known = [platform.processor()]
    return hashlib.sha256("\n".join([platform.machine(), *known]).encode()).hexdigest()[:12]
