"""A prior of the gate under which components that data do not need get no weight, so that their number is inferred."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import gammaln
from numpyro.distributions import Distribution, Normal, constraints


class SparseGate(Distribution):
    """Mean gate coefficients (C - 1, 1 + p): intercepts whose softmax is Dirichlet, slopes that are normal.

    With w = softmax(0, b_1, ..., b_(C-1)), the weights at covariates of zero, w ~ Dirichlet(a, ..., a). The Jacobian
    determinant of b -> w is prod_c w_c, so that p(b) = Gamma(C a) / Gamma(a)^C prod_c w_c^a. Slopes are normal.

    Parameters
    ----------
    shape : tuple of int
        (C - 1, 1 + p).
    concentration : float
        The a. The smaller, the fewer components have weight.
    slope_sd : float

    References
    ----------
    Aitchison (1982) for log ratios; Rousseau and Mengersen (2011), by whom spare components empty where a is below
    half the number of a component's parameters.
    """

    arg_constraints = {"concentration": constraints.positive, "slope_sd": constraints.positive}
    pytree_data_fields = ("concentration", "slope_sd")

    def __init__(
        self,
        shape: tuple[int, int],
        concentration: float = 0.1,
        slope_sd: float = 2.0,
        *,
        validate_args: bool | None = None,
    ):
        self.concentration, self.slope_sd = concentration, slope_sd
        super().__init__(batch_shape=(), event_shape=tuple(shape), validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        """Real matrices."""
        return constraints.independent(constraints.real, 2)

    def log_prob(self, value: Array) -> Array:
        """Log density at coefficients (..., C - 1, 1 + p)."""
        a, components = jnp.asarray(self.concentration), self.event_shape[0] + 1
        levels = jnp.concatenate([jnp.zeros_like(value[..., :1, 0]), value[..., 0]], axis=-1)
        constant = gammaln(components * a) - components * gammaln(a)
        of_slopes = Normal(0.0, self.slope_sd).log_prob(value[..., 1:]).sum(axis=(-2, -1))
        return constant + a * jax.nn.log_softmax(levels, axis=-1).sum(axis=-1) + of_slopes

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw coefficients: log ratios of gamma variates, and slopes."""
        of_levels, of_slopes = jax.random.split(key)
        free, features = self.event_shape
        gammas = jax.random.loggamma(of_levels, self.concentration, (*sample_shape, free + 1, 1))
        slopes = self.slope_sd * jax.random.normal(of_slopes, (*sample_shape, free, features - 1))
        return jnp.concatenate([gammas[..., 1:, :] - gammas[..., :1, :], slopes], axis=-1)
