"""Where randomness comes from: JAX keys and NumPy generators, from what a user passes as a seed."""

from __future__ import annotations

import hashlib
from numbers import Integral

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

WORD = 2**63  # ints from -WORD up to WORD are seeds as they are; others by their hash


def as_key(rng_key: Array | int) -> Array:
    """Take a JAX key as it is, or make one from an int of any size and kind: the same in every precision.

    Parameters
    ----------
    rng_key : JAX key or int
        Raw keys, as of ``jax.random.PRNGKey``, are made typed ones.

    Raises
    ------
    ValueError
        For what is neither.
    """
    seed = _integer(rng_key)
    if seed is not None:
        if not -WORD <= seed < WORD:
            digest = hashlib.sha256(seed.to_bytes(seed.bit_length() // 8 + 1, "big", signed=True)).digest()
            seed = int.from_bytes(digest[:8], "big", signed=True)
        with jax.enable_x64(True):  # in single precision JAX drops the upper half of a seed
            return jax.random.key(np.int64(seed))
    if isinstance(rng_key, jax.Array | np.ndarray):
        if jnp.issubdtype(rng_key.dtype, jax.dtypes.prng_key) and rng_key.ndim == 0:
            return rng_key
        if rng_key.dtype == np.uint32 and rng_key.shape == _raw_shape():
            return jax.random.wrap_key_data(jnp.asarray(rng_key))
        got = f"an array of {rng_key.dtype}, shape {rng_key.shape}"
    else:
        got = f"{rng_key!r:.80}"
    raise ValueError(f"rng_key must be one JAX key or an int, got {got}. Pass rng_key=0, for instance.")


def as_generator(random_state: int | np.random.Generator, purpose: str = "this") -> np.random.Generator:
    """Take a NumPy generator as it is, or make one from an int of any size and kind, at least zero.

    Parameters
    ----------
    random_state : int or Generator
        Or whatever else ``np.random.default_rng`` takes but None, which would be another seed each time.
    purpose : str
        What it is for, for the message.

    Raises
    ------
    ValueError
        For what is neither.
    """
    seed = _integer(random_state)
    try:
        if random_state is None or isinstance(random_state, bool | np.bool_):
            raise TypeError
        return np.random.default_rng(random_state if seed is None else seed)
    except (TypeError, ValueError):  # negative, or nothing that seeds
        raise ValueError(
            f"random_state must be an int or a numpy Generator for {purpose}, got {random_state!r:.80}. "
            "Pass random_state=0, for instance; no negative int."
        ) from None


def _integer(seed: object) -> int | None:
    """Return an int of Python's, NumPy's or a JAX array's without axes as Python's; None for anything else."""
    if isinstance(seed, Integral) and not isinstance(seed, bool):
        return int(seed)
    if isinstance(seed, jax.Array | np.ndarray) and seed.ndim == 0 and jnp.issubdtype(seed.dtype, jnp.integer):
        return int(seed)
    return None


def _raw_shape() -> tuple[int, ...]:
    """Shape of the raw keys of the generator in force."""
    return jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape
