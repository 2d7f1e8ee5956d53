"""Parameters: what a model declares, what a user gives, and the flat vector that optimisers and samplers move.

A parameter set is a plain ``dict`` from name to array. Each component of a model declares its parameters as
:class:`Field` objects; the functions here check a user's values against them and translate between the dict
and one flat vector of unconstrained numbers (the *free vector*), whose order is that of the fields, each
raveled in C order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.constraints import Constraint

from bayes_moe.ground.data import check_mapping, check_real, float64

Params = dict[str, Array]


@dataclass(frozen=True)
class Field:
    """One named parameter.

    Parameters
    ----------
    shape : tuple of int
        Its shape; the leading axis counts what is repeated (adapters, experts).
    dims : tuple of str
        A name for each axis, as ArviZ shows it.
    support : numpyro constraint
        Where it lives; ``biject_to(support)`` maps it to and from the free vector.
    score : bool
        Whether it enters a logistic score, which saturates: far out, the likelihood is then flat in it.
    """

    shape: tuple[int, ...]
    dims: tuple[str, ...]
    support: Constraint = field(default_factory=lambda: constraints.real)
    score: bool = True

    @property
    def free_shape(self) -> tuple[int, ...]:
        """Shape of the unconstrained version (a simplex has one coordinate fewer, for instance)."""
        return tuple(biject_to(self.support).inverse_shape(self.shape))


Fields = Mapping[str, Field]


def size(fields: Fields) -> int:
    """Length of the free vector."""
    return sum(math.prod(field.free_shape) for field in fields.values())


def labels(fields: Fields) -> list[str]:
    """Name every coordinate of the free vector.

    ``tau[0]`` is the number itself. For constrained parameters: ``log nu[0]`` is a logarithm; ``Gamma[0,L(1,0)]``
    an entry of the Cholesky factor of ``Gamma[0]`` and ``Gamma[0,log L(0,0)]`` the logarithm of one on its diagonal;
    ``pi[stick 0]`` the logit of the share of ``pi[0]`` in what is left, zero where the shares are equal.
    """
    return [label for name, field in fields.items() for label in _labels(name, field)]


def _labels(name: str, field: Field) -> list[str]:
    entries = list(np.ndindex(field.free_shape))
    batch = [",".join(map(str, index[:-1])) + "," if index[:-1] else "" for index in entries]
    if field.support is constraints.simplex:
        return [f"{name}[{before}stick {index[-1]}]" for before, index in zip(batch, entries, strict=True)]
    if field.support is constraints.positive_definite:
        size = field.shape[-1]
        inner = [f"L({i},{j})" for i in range(size) for j in range(i)] + [f"log L({i},{i})" for i in range(size)]
        return [f"{name}[{before}{inner[index[-1]]}]" for before, index in zip(batch, entries, strict=True)]
    sign = "log " if field.support is constraints.positive else ""
    return [f"{sign}{name}[{','.join(map(str, index))}]" for index in entries]


def blocks(fields: Fields) -> dict[str, slice]:
    """Where each parameter lies in the free vector."""
    ends = np.cumsum([math.prod(field.free_shape) for field in fields.values()])
    starts = [0, *ends[:-1]]
    return {name: slice(int(a), int(b)) for name, a, b in zip(fields, starts, ends, strict=True)}


def flatten(fields: Fields, params: Params) -> Array:
    """Free vector of a parameter set.

    Parameters
    ----------
    fields : mapping of str to Field
    params : dict of str to array
        Inside the supports.

    Returns
    -------
    array, shape (size(fields),)
    """
    parts = [biject_to(field.support).inv(jnp.asarray(params[name])) for name, field in fields.items()]
    return jnp.concatenate([jnp.ravel(part) for part in parts])


def unflatten(fields: Fields, vector: Array) -> Params:
    """Parameter set of a free vector: the inverse of :func:`flatten`."""
    return {
        name: biject_to(field.support)(jnp.reshape(vector[where], field.free_shape))
        for (name, field), where in zip(fields.items(), blocks(fields).values(), strict=True)
    }


@float64
def check(fields: Fields, values: Mapping[str, object]) -> dict[str, np.ndarray]:
    """Check a user's values: every name, shape and support; broadcast each to its declared shape.

    Parameters
    ----------
    fields : mapping of str to Field
    values : mapping of str to array-like

    Returns
    -------
    dict of str to ndarray
        float64, in the order of the fields.

    Raises
    ------
    ValueError
        For a name that is unknown or missing, a shape that does not fit, a value that is not finite or lies
        outside its support.
    """
    check_mapping("params", values)
    unknown, missing = sorted(map(str, set(values) - set(fields))), [name for name in fields if name not in values]
    if unknown or missing:
        said = [f"unknown: {', '.join(unknown)}"] if unknown else []
        said += [f"missing: {', '.join(missing)}"] if missing else []
        raise ValueError(f"params: {'; '.join(said)}. This model's parameters are {', '.join(fields)}.")
    return {name: _check_value(name, field, values[name]) for name, field in fields.items()}


def _check_value(name: str, field: Field, value: object) -> np.ndarray:
    array = check_real(f"params: {name}", value)
    try:
        array = np.array(np.broadcast_to(array, field.shape))
    except ValueError:
        raise ValueError(
            f"params: {name} must have shape {field.shape} {field.dims} or broadcast to it, got {array.shape}."
        ) from None
    if not np.isfinite(array).all():
        raise ValueError(f"params: {name} must be finite, got {array.tolist()}.")
    constrained = field.support is not constraints.real
    if constrained and ((array != 0) & (np.abs(array) < np.finfo(float).tiny)).any():
        raise ValueError(
            f"params: {name} must be at least 2.3e-308, below which digits are lost, got {array.tolist()}."
        )
    if not np.all(field.support(array)):
        raise ValueError(f"params: {name} must lie in {field.support!r}, got {array.tolist()}.")
    return array
