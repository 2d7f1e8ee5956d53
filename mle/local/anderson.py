"""Anderson's acceleration of a fixed-point iteration, pure JAX: for maps such as EM's, whose steps shrink slowly."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

LENGTH = 5  # differences of past steps that a step is made of
RIDGE = 1e-10  # share of the trace added before the solve: late steps are nearly parallel
GROWTH = 2.0  # a step so many times the last has lost the way, and what is remembered is forgotten
PATIENCE = 3  # times; then the iteration goes on without acceleration


class Memory(NamedTuple):
    """The last steps of an iteration, oldest first, and where they led.

    Parameters
    ----------
    steps, images : array, shape (LENGTH + 1, D)
        image - point, and the image, which is the map at the point.
    count : array of int, scalar
        How many rows hold anything.
    size : array, scalar
        Norm of the last step.
    on : array of bool, scalar
        Whether steps are accelerated.
    lost : array of int, scalar
        How often the way was lost.
    """

    steps: Array
    images: Array
    count: Array
    size: Array
    on: Array
    lost: Array


def empty(point: Array) -> Memory:
    """Return the memory of an iteration that has not begun; ``point`` gives size and type."""
    blank, none = jnp.zeros((LENGTH + 1, point.size), point.dtype), jnp.zeros((), jnp.int32)
    return Memory(blank, blank, none, jnp.full((), jnp.inf, point.dtype), jnp.zeros((), bool), none)


def step(memory: Memory, point: Array, image: Array, near: Array) -> tuple[Memory, Array]:
    """Where to go from a point whose image is known: to the image, or farther.

    With the steps f_i = image_i - point_i, the next point is image_k - sum_j g_j (image_j+1 - image_j), where g
    minimises |f_k - sum_j g_j (f_j+1 - f_j)|. Fixed points are those of the map.

    Parameters
    ----------
    memory : Memory
    point, image : array
        Of any one shape.
    near : array of bool, scalar
        Whether the fixed point is near: acceleration begins there and goes on. Farther out it might lead to another.

    Returns
    -------
    memory : Memory
    next : array

    References
    ----------
    Walker and Ni (2011), "Anderson acceleration for fixed-point iterations".
    """
    move = (image - point).ravel()
    size = jnp.linalg.norm(move)
    astray = memory.on & (size > GROWTH * memory.size)
    lost = memory.lost + astray
    count = jnp.minimum(jnp.where(astray, 0, memory.count) + 1, LENGTH + 1)
    on = ((memory.on & ~astray) | near) & (lost < PATIENCE)
    steps = jnp.roll(memory.steps, -1, axis=0).at[-1].set(move)
    images = jnp.roll(memory.images, -1, axis=0).at[-1].set(image.ravel())
    known = (jnp.arange(LENGTH) >= LENGTH + 1 - count)[:, None]
    turns, shifts = (jnp.where(known, jnp.diff(rows, axis=0), 0.0) for rows in (steps, images))
    square = turns @ turns.T
    ridge = RIDGE * jnp.trace(square) + jnp.finfo(point.dtype).tiny
    weights = jnp.linalg.solve(square + ridge * jnp.eye(LENGTH, dtype=point.dtype), turns @ move)
    far = (image.ravel() - weights @ shifts).reshape(image.shape)
    use = on & (count > 1) & jnp.isfinite(far).all()
    return Memory(steps, images, count, size, on, lost), jnp.where(use, far, image)
