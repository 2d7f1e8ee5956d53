"""JAX's settings that change results: held at their defaults while a study runs, or named where that can't be done.

A setting may come from an environment variable, from the user's program or from a ``with``. What is held here is held
in the calling thread alone, until the block ends: nothing of the process changes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from enum import Enum

import jax

# Which random numbers a key gives, in which precision and by which rules arrays meet, and what a NaN on the way does:
# an optimiser may step where the likelihood is NaN, and steps back.
DEFAULTS: dict[str, object] = {
    "default_prng_impl": "threefry2x32",
    "threefry_partitionable": True,
    "enable_custom_prng": False,
    "legacy_prng_key": "allow",
    "default_matmul_precision": None,
    "numpy_dtype_promotion": "standard",
    "numpy_rank_promotion": "allow",
    "softmax_custom_jvp": False,
    "debug_nans": False,
    "debug_infs": False,
}
# What JAX lets nobody set for a block of code. Rounding alone is in no list: it differs between machines too.
OTHERS: dict[str, object] = {
    "random_seed_offset": 0,
    "high_dynamic_range_gumbel": False,
    "accurate_erf_inv": False,
    "default_dtype_bits": "64",
    "allow_f16_reductions": True,
}
_HELD = {name: default for name, default in DEFAULTS.items() if hasattr(jax, name)}


@contextlib.contextmanager
def defaults() -> Iterator[None]:
    """Hold what changes results at JAX's defaults, in this thread; a decorator too."""
    with _set(tuple(_HELD.values())):
        yield


def in_force() -> tuple[object, ...]:
    """Settings of this thread, for :func:`again`; hashable."""
    return tuple(_value(name) for name in _HELD)


def _value(name: str) -> object:
    value = getattr(jax.config, f"jax_{name}")
    return value.value if isinstance(value, Enum) else value


@contextlib.contextmanager
def again(settings: tuple[object, ...]) -> Iterator[None]:
    """Hold the settings that :func:`in_force` found in another thread."""
    with _set(settings):
        yield


@contextlib.contextmanager
def _set(settings: tuple[object, ...]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name, value in zip(_HELD, settings, strict=True):
            if _value(name) != value:  # a setting said again is another context to JAX, which would compile anew
                stack.enter_context(getattr(jax, name)(value))
        yield


def unusual() -> dict[str, object]:
    """Settings that change results, can't be held and are not at their defaults: empty for most people."""
    found = {name: getattr(jax.config, f"jax_{name}", default) for name, default in OTHERS.items()}
    return {name: found[name] for name, default in OTHERS.items() if str(found[name]) != str(default)}
