"""Gates: log p(component i | x), the weights that a mixture gives its experts.

A gate declares its parameters as fields and computes ``scores(params, x)`` for covariates ``x`` of shape (d, n): a
row for each expert, equal to log p(component i | x) up to a term that all of them share. To add one, write a class
with these two members and a row in the conformance table of the tests.

A gate may be generative: it models x too, and its scores are log p(i, x), with nothing left out. Whatever is said about
y given x then subtracts log p(x), their logsumexp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import register_dataclass
from numpyro.distributions import constraints

from bayes_moe.ground.parameters import Field, Params
from bayes_moe.model import gaussian


@register_dataclass
@dataclass(frozen=True)
class Softmax:
    """Softmax gate with affine scores, the first expert as reference.

    log p(i | x) = s_i - log sum_j exp(s_j), with s_0 = 0 and s_i = beta_i' x + tau_i.

    Parameters
    ----------
    experts : int
        Number of experts, the reference included.
    features : int
    dim : str
        ArviZ's name for the axis of the experts other than the reference.

    References
    ----------
    Jacobs, Jordan, Nowlan and Hinton (1991); with two experts, the gate of arXiv:2602.00939, eq. (2.1).
    """

    experts: int = jax.tree.static()
    features: int = jax.tree.static()
    dim: str = jax.tree.static(default="adapter")
    generative: ClassVar[bool] = False

    @property
    def fields(self) -> dict[str, Field]:
        """``tau``, the intercepts, and ``beta``, the slopes."""
        free = self.experts - 1
        return {
            "tau": Field((free,), (self.dim,)),
            "beta": Field((free, self.features), (self.dim, "feature")),
        }

    def scores(self, params: Params, x: Array) -> tuple[Array, ...]:
        """s_i(x), a row of shape (n,) for each expert."""
        scores = params["beta"] @ x + params["tau"][:, None]
        return jnp.zeros_like(scores[0]), *scores


@register_dataclass
@dataclass(frozen=True)
class Sigmoid(Softmax):
    """Normalised sigmoid gate with affine scores, the first expert as reference.

    p(i | x) = sigmoid(s_i) / sum_j sigmoid(s_j), with s_0 = 0 and s_i = beta_i' x + tau_i.

    Fields as in :class:`Softmax`. Beside the reference alone, an expert's weight lies below 2/3.

    References
    ----------
    arXiv:2602.01466.
    """

    def scores(self, params: Params, x: Array) -> tuple[Array, ...]:
        """Log sigmoid(s_i(x)), a row of shape (n,) for each expert."""
        return tuple(jax.nn.log_sigmoid(row) for row in Softmax.scores(self, params, x))


@register_dataclass
@dataclass(frozen=True)
class Constant:
    """Gate that does not look at x, the first expert as reference.

    p(i) = exp(tau_i) / sum_j exp(tau_j), with tau_0 = 0.

    Parameters
    ----------
    experts, features : int
        Number of experts, the reference included; number of features, which it ignores.
    dim : str
        ArviZ's name for the axis of the experts other than the reference.
    """

    experts: int = jax.tree.static()
    features: int = jax.tree.static()
    dim: str = jax.tree.static(default="adapter")
    generative: ClassVar[bool] = False

    @property
    def fields(self) -> dict[str, Field]:
        """``tau``, the log odds against the reference."""
        return {"tau": Field((self.experts - 1,), (self.dim,))}

    def scores(self, params: Params, x: Array) -> tuple[Array, ...]:
        """tau_i, a row of shape (n,) for each expert."""
        rows = jnp.broadcast_to(params["tau"][:, None], (self.experts - 1, x.shape[1]))
        return jnp.zeros_like(rows[0]), *rows


@register_dataclass
@dataclass(frozen=True)
class Gaussian:
    """Gaussian gate: each expert has a region of x of its own.

    p(i, x) = pi_i N(x; c_i, Gamma_i), hence p(i | x) = pi_i N(x; c_i, Gamma_i) / sum_j pi_j N(x; c_j, Gamma_j).

    Parameters
    ----------
    experts, features : int
    covariance : "full", "diagonal" or "spherical"
        Form of ``Gamma``: (experts, d, d), (experts, d) or (experts,), in squared units of x.
    dim : str
        ArviZ's name for the axis of the experts.

    References
    ----------
    Xu, Jordan and Hinton (1995); arXiv:2305.07572.
    """

    experts: int = jax.tree.static()
    features: int = jax.tree.static()
    covariance: str = jax.tree.static(default="full")
    dim: str = jax.tree.static(default="expert")
    generative: ClassVar[bool] = True

    @property
    def fields(self) -> dict[str, Field]:
        """``pi``, the weights; ``c``, the locations; ``Gamma``, the covariances."""
        return {
            "pi": Field((self.experts,), (self.dim,), constraints.simplex, score=False),
            "c": Field((self.experts, self.features), (self.dim, "feature"), score=False),
            "Gamma": gaussian.covariance_field(self.covariance, self.experts, self.features, (self.dim, "feature")),
        }

    def scores(self, params: Params, x: Array) -> Array:
        """Log p(i, x) = log pi_i + log N(x; c_i, Gamma_i), a row of shape (n,) for each expert."""
        residual = x - params["c"][:, :, None]
        return jnp.log(params["pi"])[:, None] + gaussian.log_density(residual, params["Gamma"])

    def draw_x(self, rng_key: Array, params: Params, n: int) -> Array:
        """Draw covariates from sum_i pi_i N(c_i, Gamma_i), shape (d, n)."""
        which, noise = jax.random.split(rng_key)
        chosen = jax.random.categorical(which, jnp.log(params["pi"]), shape=(n,))
        roots = jnp.linalg.cholesky(gaussian.as_matrices(params["Gamma"], self.features))
        z = jax.random.normal(noise, (n, self.features), dtype=roots.dtype)
        return (params["c"][chosen] + jnp.einsum("nij,nj->ni", roots[chosen], z)).T

    def m_step(self, params: Params, x: Array, r: Array) -> Params:
        """Maximise sum_in r_in log p(i, x_n): shares, weighted means and weighted covariances.

        An expert with no responsibility at all keeps its location and covariance.

        Parameters
        ----------
        params : dict of str to array
            The present values.
        x : array, shape (d, n)
        r : array, shape (experts, n)
            Responsibilities, times the observations' weights.
        """
        total, mean, covariance = gaussian.weighted_moments(x, r)
        variances = gaussian.variances_of(covariance, self.features)
        forms = {"full": covariance, "diagonal": variances, "spherical": jnp.mean(variances, axis=1)}
        found = {"c": mean, "Gamma": forms[self.covariance]}
        empty = total <= 0
        kept = {name: _where(empty, params[name], value) for name, value in found.items()}
        share = jnp.maximum(total, jnp.finfo(total.dtype).tiny)
        return {"pi": share / jnp.sum(share), **kept}


def _where(rows: Array, old: Array, new: Array) -> Array:
    return jnp.where(rows.reshape(-1, *[1] * (new.ndim - 1)), old, new)
