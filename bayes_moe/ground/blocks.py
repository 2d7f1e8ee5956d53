"""Sums over observations, block by block: what one block needs stays in the cache, whatever n is."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

BLOCK = 4000  # observations; what they need stays in one core's caches, with a neighbour at work


def total(function: Callable[..., object], data: object) -> object:
    """Sum ``function(block)`` over blocks of observations, the last axis of every array in ``data``.

    Parameters
    ----------
    function : callable
        From a block, a pytree like ``data``, to a pytree of arrays: already a sum over the block's observations.
    data : pytree of arrays, shape (..., n)
    """
    n = jax.tree.leaves(data)[0].shape[-1]
    size = BLOCK if jax.default_backend() == "cpu" else n
    whole, rest = divmod(n, size)

    def block(start: Array | int, length: int) -> object:
        cut = jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, length, axis=-1), data)
        return lax.optimization_barrier(cut)  # cut once, not again in every expression that reads it

    if n <= size:
        return function(data)
    first = function(block(0, size))
    done = lax.fori_loop(1, whole, lambda i, s: jax.tree.map(jnp.add, s, function(block(i * size, size))), first)
    return jax.tree.map(jnp.add, done, function(block(whole * size, rest))) if rest else done
