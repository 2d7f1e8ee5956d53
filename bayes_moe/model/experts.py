"""Experts: log p(y | x, component i).

A trainable expert declares its parameters as fields and computes ``log_density``, ``draw`` and so on for covariates
of shape (d, n). Experts of classes give ``log_probabilities`` besides, experts of real responses ``moments``. A frozen
expert has no parameters; it is evaluated once, when data are prepared. To add one, write such a class and a row in the
conformance table of the tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import register_dataclass

from bayes_moe.ground.data import Covariates, Observations
from bayes_moe.ground.numerics import logsumexp
from bayes_moe.ground.parameters import Field, Params
from bayes_moe.model.activations import (
    ACTIVATIONS,
    BOUNDED,
    Activation,
    activation_function,
    gelu,
    linear,
    relu,
    sigmoid,
    tanh,
)
from bayes_moe.model.frozen import Frozen, categorical
from bayes_moe.model.normal import Normal

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Frozen",
    "Multinomial",
    "Normal",
    "activation_function",
    "gelu",
    "linear",
    "relu",
    "sigmoid",
    "tanh",
]


@register_dataclass
@dataclass(frozen=True)
class Multinomial:
    """Multinomial logistic experts with an activation.

    f(s | x; eta) = softmax_s(act(eta_s' x)), one eta (rows: classes) for each expert.

    Parameters
    ----------
    experts : int
        How many experts of this kind.
    classes, features : int
    activation : callable
        Elementwise JAX function.
    reference : "last" or None
        "last" pins the last class's vector at zero, so that eta has classes - 1 rows; None keeps all rows.
    dim : str
        ArviZ's name for the axis of the experts.

    References
    ----------
    arXiv:2602.00939, eq. (2.1).
    """

    experts: int = jax.tree.static()
    classes: int = jax.tree.static()
    features: int = jax.tree.static()
    activation: Activation = jax.tree.static(default=linear)
    reference: str | None = jax.tree.static(default="last")
    dim: str = jax.tree.static(default="adapter")

    @property
    def fields(self) -> dict[str, Field]:
        """``eta``, the class vectors."""
        rows = self.classes - (self.reference == "last")
        return {"eta": Field((self.experts, rows, self.features), (self.dim, "class", "feature"))}

    def logits(self, params: Params, x: Array) -> list[Array]:
        """act(eta_s' x) for each class s, of shape (experts, n); a pinned class's is the constant act(0)."""
        scores = self.activation(jnp.einsum("ekd,dn->ekn", params["eta"], x))
        pinned = [] if self.reference is None else [self.activation(jnp.zeros((), scores.dtype))]
        return [scores[:, s] for s in range(scores.shape[1])] + pinned

    def log_probabilities(self, params: Params, covariates: Covariates) -> Array:
        """Log f(s | x), shape (experts, classes, n)."""
        logits = self.logits(params, covariates.x)
        normaliser = logsumexp(logits, bounded=self.activation in BOUNDED)
        return jnp.stack([logit - normaliser for logit in logits], axis=1)

    def log_density(self, params: Params, data: Observations) -> Array:
        """Log f(y | x), shape (experts, n)."""
        logits = self.logits(params, data.x)
        return sum(y * logit for y, logit in zip(data.y, logits, strict=True)) - logsumexp(
            logits, bounded=self.activation in BOUNDED
        )

    def encode(self, y: Array) -> Array:
        """One-hot rows (classes, n) of class positions."""
        return _one_hot(y, self.classes)

    def draw(self, rng_key: Array, params: Params, covariates: Covariates) -> Array:
        """Class positions that each expert draws, shape (experts, n)."""
        return categorical(rng_key, self.log_probabilities(params, covariates))


def _one_hot(positions: Array, classes: int) -> Array:
    return (jnp.arange(classes)[:, None] == positions).astype(jnp.result_type(float))
