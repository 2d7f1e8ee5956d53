"""Normal experts: log p(y | x, component i) for real responses."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import register_dataclass
from numpyro.distributions import constraints

from bayes_moe.ground.data import Covariates, Observations
from bayes_moe.ground.parameters import Field, Params
from bayes_moe.model import gaussian


@register_dataclass
@dataclass(frozen=True)
class Normal:
    """Normal experts with affine means.

    f(y | x; i) = N(y; a_i' x + b_i, nu_i); with q > 1 responses a_i is (q, d) and nu_i a covariance matrix.

    Parameters
    ----------
    experts : int
        How many experts of this kind.
    features : int
    responses : int
        Length q of y.
    dim : str
        ArviZ's name for the axis of the experts.

    References
    ----------
    Deleforge, Forbes and Horaud (2015); arXiv:2305.07572.
    """

    experts: int = jax.tree.static()
    features: int = jax.tree.static()
    responses: int = jax.tree.static(default=1)
    dim: str = jax.tree.static(default="expert")

    @property
    def fields(self) -> dict[str, Field]:
        """``a``, the slopes; ``b``, the intercepts; ``nu``, the variances (squared units of y)."""
        shape, dims = ((), ()) if self.responses == 1 else ((self.responses,), ("response",))
        variance = Field((self.experts,), (self.dim,), constraints.positive, score=False)
        if self.responses > 1:
            variance = gaussian.covariance_field("full", self.experts, self.responses, (self.dim, "response"))
        return {
            "a": Field((self.experts, *shape, self.features), (self.dim, *dims, "feature"), score=False),
            "b": Field((self.experts, *shape), (self.dim, *dims), score=False),
            "nu": variance,
        }

    def mean(self, params: Params, x: Array) -> Array:
        """a_i' x + b_i, shape (experts, responses, n)."""
        a = params["a"].reshape(self.experts * self.responses, self.features)
        return (a @ x).reshape(self.experts, self.responses, -1) + params["b"].reshape(self.experts, -1, 1)

    def moments(self, params: Params, x: Array) -> tuple[Array, Array]:
        """Mean (experts, responses, n) and variances (experts, responses) of y at x."""
        return self.mean(params, x), gaussian.variances_of(params["nu"], self.responses)

    def log_density(self, params: Params, data: Observations) -> Array:
        """Log f(y | x), shape (experts, n)."""
        return gaussian.log_density(data.y - self.mean(params, data.x), params["nu"])

    def encode(self, y: Array) -> Array:
        """Responses as rows, (responses, n)."""
        return jnp.reshape(y, (-1, self.responses)).T

    def draw(self, rng_key: Array, params: Params, covariates: Covariates) -> Array:
        """Responses that each expert draws, shape (experts, n), or (experts, n, responses) if there are several."""
        mean = self.mean(params, covariates.x)
        root = jnp.linalg.cholesky(gaussian.as_matrices(params["nu"], self.responses))
        y = mean + root @ jax.random.normal(rng_key, mean.shape[1:], dtype=mean.dtype)
        return y[:, 0] if self.responses == 1 else jnp.swapaxes(y, 1, 2)

    def m_step(self, params: Params, data: Observations, r: Array) -> Params:
        """Maximise sum_in r_in log f(y_n | x_n; i): weighted least squares.

        An expert with no responsibility at all keeps its parameters.

        Parameters
        ----------
        params : dict of str to array
            The present values.
        data : Observations
        r : array, shape (experts, n)
            Responsibilities, times the observations' weights.
        """
        total, mean, covariance = gaussian.weighted_moments(jnp.concatenate([data.x, data.y]), r)
        d = self.features
        slopes = jnp.linalg.solve(covariance[:, :d, :d], covariance[:, :d, d:])  # (experts, d, responses)
        intercepts = mean[:, d:] - jnp.einsum("kdq,kd->kq", slopes, mean[:, :d])
        found = {"a": jnp.swapaxes(slopes, 1, 2).reshape(params["a"].shape), "b": intercepts.reshape(params["b"].shape)}
        residual = data.y - self.mean(found, data.x)  # not the Schur complement, which cancels where nu is small
        found["nu"] = _weighted_squares(residual, r, total).reshape(params["nu"].shape)
        empty = total <= 0
        return {k: jnp.where(empty.reshape(-1, *[1] * (v.ndim - 1)), params[k], v) for k, v in found.items()}


def _weighted_squares(residual: Array, r: Array, total: Array) -> Array:
    """Weighted mean of residual residual', (experts, responses, responses)."""
    pairs = [[jnp.sum(r * one * two, axis=1) / total for two in _rows(residual)] for one in _rows(residual)]
    return jnp.moveaxis(jnp.array(pairs), -1, 0)


def _rows(residual: Array) -> list[Array]:
    return [residual[:, index] for index in range(residual.shape[1])]
