"""Experts: log p(y | x, component i).

A trainable expert declares its parameters as fields and computes ``log_density``, ``draw`` and so on for covariates
of shape (d, n). Experts of classes give ``log_probabilities`` besides, experts of real responses ``moments``. A frozen
expert has no parameters; it is evaluated once, when data are prepared. To add one, write such a class and a row in the
conformance table of the tests.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import register_dataclass
from scipy import special

from bayes_moe.data import Covariates, Observations, check_real, float64
from bayes_moe.normal import Normal
from bayes_moe.numerics import logsumexp
from bayes_moe.parameters import Field, Params

__all__ = ["ACTIVATIONS", "Activation", "Frozen", "Multinomial", "Normal", "activation_function", "gelu", "linear"]

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

ROWS = 2**18  # observations that a frozen expert is evaluated on at once
BOUNDED = (tanh, sigmoid, jnp.tanh, jax.nn.sigmoid)  # by one in absolute value


def activation_function(activation: str | Activation, name: str = "activation") -> Activation:
    """Look an activation up by name, or take any elementwise JAX function as it is."""
    if callable(activation):
        return activation
    if isinstance(activation, str) and activation in ACTIVATIONS:
        return ACTIVATIONS[activation]
    near = difflib.get_close_matches(str(activation).lower(), ACTIVATIONS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name} must be one of {', '.join(ACTIVATIONS)} or a JAX function, got {activation!r}.{hint}")


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
        return _categorical(rng_key, self.log_probabilities(params, covariates))


@partial(
    register_dataclass,
    data_fields=[],
    meta_fields=["classes"],
    drop_fields=["source", "features", "labels", "names"],
)
@dataclass(frozen=True, eq=False)
class Frozen:
    """A pre-trained expert: no prior, gradient or draw reaches it.

    Make one with :meth:`logits`, :meth:`classifier` or :meth:`table`. Its ``source`` is called when data are
    prepared and stays behind when the model crosses into compiled code.

    Parameters
    ----------
    classes : int
    source : callable
        From covariates (n, d) to log-probabilities (n, classes).
    features : int or None
        How many features the source reads, where it knows.
    labels : tuple or None
        The labels of its classes, where it knows.
    names : tuple of str or None
        The names of its features, where it knows.
    """

    classes: int
    source: Callable[[object], np.ndarray] | None = None
    features: int | None = None
    labels: tuple[Hashable, ...] | None = None
    names: tuple[str, ...] | None = None
    experts: ClassVar[int] = 1

    @staticmethod
    def logits(eta0: object, activation: str | Activation = "linear") -> Frozen:
        """softmax_s(act(eta0_s' x)) with class vectors ``eta0`` of shape (classes, d)."""
        weights = check_real("frozen", eta0)
        act = activation_function(activation, "frozen_activation")
        if weights.ndim != 2 or len(weights) < 2 or weights.shape[1] < 1:
            raise ValueError(
                "frozen must have shape (classes, features) with at least two classes and at least 1 feature, "
                f"got {weights.shape}."
            )
        if not np.isfinite(weights).all():
            raise ValueError(f"frozen must be finite, got {weights.tolist()}.")

        return Frozen(len(weights), partial(_of_vectors, weights, act), weights.shape[1])

    @staticmethod
    def classifier(fitted: object) -> Frozen:
        """Wrap a fitted scikit-learn classifier that predicts probabilities; its ``classes_`` are kept."""
        if not hasattr(fitted, "classes_"):
            raise ValueError(f"frozen must be a fitted classifier, got {fitted!r} without classes_. Fit it first.")
        labels = tuple(label.item() if isinstance(label, np.generic) else label for label in fitted.classes_)
        names = getattr(fitted, "feature_names_in_", None)

        features = getattr(fitted, "n_features_in_", None)
        names = None if names is None else tuple(map(str, names))
        return Frozen(len(labels), partial(_of_classifier, fitted), features, labels, names)

    @staticmethod
    def table(log_probabilities: object) -> Frozen:
        """Log-probabilities (n, classes) of the rows that the model will see, and of no others."""
        table = check_real("frozen", log_probabilities)

        if table.ndim != 2:
            raise ValueError(f"frozen must have shape (n, classes), got {table.shape}.")
        return Frozen(table.shape[1], partial(_of_table, table))

    @property
    def fields(self) -> dict[str, Field]:
        """A frozen expert has no parameters."""
        return {}

    def evaluate(self, x: object) -> np.ndarray:
        """Log f0(s | x), checked, shape (classes, n)."""
        table = np.asarray(self.source(x), dtype=np.float64)
        slices = (table[first : first + ROWS] for first in range(0, len(table), ROWS))
        if not all(np.allclose(np.exp(part).sum(axis=1), 1.0, rtol=0.0, atol=1e-6) for part in slices):
            raise ValueError("frozen must give log-probabilities whose exponentials sum to one in each row.")
        return np.ascontiguousarray(table.T)

    def log_probabilities(self, params: Params, covariates: Covariates) -> Array:
        """Log f0(s | x), shape (1, classes, n)."""
        return covariates.frozen[None]

    def log_density(self, params: Params, data: Observations) -> Array:
        """Log f0(y | x), shape (1, n)."""
        return data.frozen[None]

    def draw(self, rng_key: Array, params: Params, covariates: Covariates) -> Array:
        """Class positions that it draws, shape (1, n)."""
        return _categorical(rng_key, self.log_probabilities(params, covariates))


# Sources of frozen experts: functions of a module, so that models can be pickled ---------------------------------


@float64
def _of_vectors(weights: np.ndarray, act: Activation, x: np.ndarray) -> np.ndarray:
    out = np.empty((len(x), len(weights)))
    with jax.ensure_compile_time_eval():  # x is concrete even where the caller is being traced
        for first in range(0, len(x), ROWS):  # many rows at once would need several times their memory
            rows = slice(first, first + ROWS)
            logits = act(jax.device_put(x[rows] @ weights.T))
            out[rows] = special.log_softmax(np.asarray(logits), axis=1)  # JAX would compile a program
    return out


def _of_classifier(fitted: object, x: np.ndarray) -> np.ndarray:
    names = getattr(fitted, "feature_names_in_", None)
    if names is not None:
        import pandas as pd  # the classifier was fitted on a data frame, so pandas is there

        x = pd.DataFrame(x, columns=names)
    if hasattr(fitted, "predict_log_proba"):
        return fitted.predict_log_proba(x)
    with np.errstate(divide="ignore"):  # log 0 is what is meant
        return np.log(fitted.predict_proba(x))


def _of_table(table: np.ndarray, x: object) -> np.ndarray:
    if len(x) != len(table):
        raise ValueError(
            f"frozen holds log-probabilities of {len(table)} rows, x has {len(x)}. "
            "Build the model again with Frozen.table(...) of these rows."
        )
    return table


def _one_hot(positions: Array, classes: int) -> Array:
    return (jnp.arange(classes)[:, None] == positions).astype(jnp.result_type(float))


def _categorical(rng_key: Array, log_probabilities: Array) -> Array:
    """Draw positions (experts, n); the experts share their noise, since one of them is chosen in the end."""
    return jax.vmap(lambda logits: jax.random.categorical(rng_key, logits, axis=0))(log_probabilities)
