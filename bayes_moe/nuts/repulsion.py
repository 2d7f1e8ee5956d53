"""A prior under which atoms keep their distance, so that spare experts do not double others."""

from __future__ import annotations

import math
from numbers import Real

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import Distribution, constraints

TRIES = 10_000  # proposals for one draw, after which it is NaN


class Repulsive(Distribution):
    """Normal atoms that repel each other.

    p(c) is proportional to prod_i N(c_i; 0, scale^2 I) x prod_(i<j) [1 - exp(-|c_i - c_j|^2 / (2 distance^2))].

    Its constant is left out of ``log_prob``: it depends on the settings alone, so that posteriors are right; evidences
    would not be.

    Parameters
    ----------
    shape : tuple of int
        Atoms, then the axes of one atom.
    scale : float
        Standard deviation of each coordinate, were there no repulsion.
    distance : float
        Atoms nearer than this are unlikely; far ones do not see each other.

    References
    ----------
    Petralia, Rao and Dunson (2012), "Repulsive mixtures"; Quinlan, Quintana and Page (2021).
    """

    arg_constraints = {"scale": constraints.positive, "distance": constraints.positive}
    pytree_data_fields = ("scale", "distance")

    def __init__(
        self, shape: tuple[int, ...], scale: float = 2.0, distance: float = 0.5, *, validate_args: bool | None = None
    ):
        for name, value in (("scale", scale), ("distance", distance)):
            known = not isinstance(value, jax.Array | np.ndarray)
            if known and (isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < math.inf):
                raise ValueError(f"{name} must be a positive number, got {value!r}.")
        self.scale, self.distance = scale, distance
        super().__init__(batch_shape=(), event_shape=tuple(shape), validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        """Real arrays of that shape."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def log_prob(self, value: Array) -> Array:
        """Log density without its constant; value (..., atoms, ...)."""
        atoms = self._flat(value)
        return -0.5 * jnp.sum((atoms / self.scale) ** 2, axis=(-2, -1)) + self._log_repulsion(atoms)

    def _flat(self, value: Array) -> Array:
        batch = value.shape[: value.ndim - len(self.event_shape)]
        return value.reshape(*batch, self.event_shape[0], math.prod(self.event_shape[1:]))

    def _log_repulsion(self, atoms: Array) -> Array:
        one, two = jnp.triu_indices(atoms.shape[-2], 1)
        squared = jnp.sum((atoms[..., one, :] - atoms[..., two, :]) ** 2, axis=-1)
        return jnp.sum(jnp.log(-jnp.expm1(-0.5 * squared / self.distance**2)), axis=-1)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw by rejection: normal atoms, accepted with the probability of their repulsion."""
        draws = jax.vmap(self._draw)(jax.random.split(key, math.prod(sample_shape)))
        return draws.reshape(*sample_shape, *self.event_shape)

    def _draw(self, key: Array) -> Array:
        def propose(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
            key, normal, uniform = jax.random.split(state[0], 3)
            value = self.scale * jax.random.normal(normal, self.event_shape)
            accepted = jnp.log(jax.random.uniform(uniform)) < self._log_repulsion(self._flat(value))
            return key, value, accepted, state[3] + 1

        def go_on(state: tuple[Array, Array, Array, Array]) -> Array:
            return ~state[2] & (state[3] < TRIES)

        start = key, jnp.zeros(self.event_shape), jnp.array(False), jnp.array(0)
        _, value, accepted, _ = jax.lax.while_loop(go_on, propose, start)
        return jnp.where(accepted, value, jnp.nan)
