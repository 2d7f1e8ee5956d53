"""Gates: log p(component i | x), the weights that a mixture gives its experts.

A gate declares its parameters as fields and computes ``scores(params, x)`` for covariates ``x`` of shape (d, n): a
row for each expert, equal to log p(component i | x) up to a term that all of them share. To add one, write a class
with these two members and a row in the conformance table of the tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import register_dataclass

from bayes_moe.parameters import Field, Params


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
