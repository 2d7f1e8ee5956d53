"""Activations: elementwise functions of JAX that experts apply to their logits."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Activation = Callable[[Array], Array]


def linear(z: Array) -> Array:
    """Return z itself."""
    return z


def tanh(z: Array) -> Array:
    """Hyperbolic tangent. JAX's own can't be pickled, nor could models with it."""
    return jnp.tanh(z)


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z))."""
    return jax.nn.sigmoid(z)


def gelu(z: Array) -> Array:
    """Exact GELU, z Phi(z) (not the tanh approximation)."""
    return jax.nn.gelu(z, approximate=False)


def relu(z: Array) -> Array:
    """max(z, 0)."""
    return jax.nn.relu(z)


ACTIVATIONS: dict[str, Activation] = {
    "linear": linear,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "gelu": gelu,
    "relu": relu,
}

BOUNDED = (tanh, sigmoid, jnp.tanh, jax.nn.sigmoid)  # by one in absolute value


POINTS = ((-1.7, -0.3, 0.0), (0.4, 2.1, 9.0))  # where a function of the user's is tried


def activation_function(
    activation: str | Activation, name: str = "activation", *, everywhere: bool = True
) -> Activation:
    """Look an activation up by name, or take an elementwise JAX function as it is.

    Parameters
    ----------
    activation : str or callable
    name : str
        The argument.
    everywhere : bool
        Whether it must be finite at every real number, as what parameters move must be.

    Raises
    ------
    ValueError
        For an unknown name, and for what is no elementwise function of JAX from all real numbers to real numbers.
    """
    if isinstance(activation, str) and activation in ACTIVATIONS:
        return ACTIVATIONS[activation]
    if callable(activation):
        _try(activation, name, everywhere)
        return activation
    near = difflib.get_close_matches(str(activation).lower(), ACTIVATIONS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name} must be one of {', '.join(ACTIVATIONS)} or a JAX function, got {activation!r}.{hint}")


def _try(activation: Activation, name: str, everywhere: bool) -> None:
    """Try a user's function at a few points, as one array and one by one."""
    try:
        fault = _fault(activation, everywhere)
    except Exception as error:  # a user's code may raise anything
        fault = f"it raised {type(error).__name__}: {str(error).partition(chr(10))[0]:.200}"
    if fault:
        raise ValueError(
            f"{name} must be an elementwise JAX function of real numbers, such as jax.numpy.tanh, got {activation!r}: "
            f"{fault}. Write it with jax.numpy."
        )


@functools.lru_cache(maxsize=64)
def _fault(activation: Activation, everywhere: bool) -> str | None:
    """What is wrong with a function as an activation; None if nothing is seen to be."""
    with jax.enable_x64(True), jax.ensure_compile_time_eval():
        points = np.array(POINTS)
        traced = jax.eval_shape(activation, jax.ShapeDtypeStruct(points.shape, points.dtype))
        if getattr(traced, "shape", None) != points.shape:
            return f"of an array of shape {points.shape} it makes {traced}"
        if not jnp.issubdtype(traced.dtype, jnp.floating):
            return f"its values are of dtype {traced.dtype}"
        whole = np.asarray(activation(jax.device_put(points)))
        single = [np.asarray(activation(jax.device_put(point))) for point in points.ravel()]
    if everywhere and not np.isfinite(whole).all():
        return f"at {points[~np.isfinite(whole)][0]} it is {whole[~np.isfinite(whole)][0]}"
    if not np.allclose(whole.ravel(), single, rtol=1e-4, atol=1e-6, equal_nan=True):
        return "an entry's value depends on the other entries"
    return None
