"""Read me first: a mixture of experts is a gate plus experts, and everything follows from one function.

    log_joint(params, data) -> (experts, n)      log p(component i | x) + log p(y | x, component i)

========================  ======================================================
log density               logsumexp over the expert axis
responsibilities          softmax over the expert axis (the E-step)
class probabilities       the same, at every class
simulation                sample the gate, then the chosen expert
maximum likelihood        EM or Newton on the summed log density (package ``mle``)
posterior                 the log density behind a NumPyro distribution (``nuts``)
Fisher information        derivatives of the log density (``information``)
========================  ======================================================

The methods that take ``x`` and ``y`` are for people: any real dtype, a row for each observation, NumPy out. Those
that take ``data`` are for code: pure JAX on prepared data (see :mod:`bayes_moe.data`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import register_dataclass

from bayes_moe import blocks, parameters
from bayes_moe.data import (
    Covariates,
    Observations,
    check_weights,
    check_x,
    encode_labels,
    float64,
)
from bayes_moe.experts import Frozen, Multinomial
from bayes_moe.gates import Softmax
from bayes_moe.numerics import log_mean_exp, logsumexp
from bayes_moe.parameters import Field, Params


@partial(
    register_dataclass,
    data_fields=["gate", "experts"],
    meta_fields=[],
    drop_fields=["classes", "feature_names"],
)
@dataclass(frozen=True, eq=False)
class MoE:
    """A mixture of experts: p(y | x) = sum_i p(i | x) p(y | x, i).

    Parameters
    ----------
    gate : gate
        Gives log p(i | x).
    experts : tuple of experts
        Give log p(y | x, i), in the gate's order.
    classes : tuple of hashable
        The labels of the classes.
    feature_names : tuple of str or None
        The names of the covariates, if they have any.
    """

    gate: Softmax
    experts: tuple[Frozen | Multinomial, ...]
    classes: tuple[Hashable, ...] = ()
    feature_names: tuple[str, ...] | None = None

    @property
    def fields(self) -> dict[str, Field]:
        """What the gate and the experts declare: name -> :class:`~bayes_moe.parameters.Field`."""
        declared = dict(self.gate.fields)
        for expert in self.experts:
            declared |= expert.fields
        return declared

    @property
    def coords(self) -> dict[str, list]:
        """ArviZ coordinates of the parameters' dims."""
        sizes = {dim: size for f in self.fields.values() for dim, size in zip(f.dims, f.shape, strict=True)}
        named = {"class": self.classes, "feature": self.feature_names}
        return {dim: list(named.get(dim) or range(size))[:size] for dim, size in sizes.items()}

    def params(self, **values: object) -> dict[str, np.ndarray]:
        """Check parameter values by name and broadcast them to the declared shapes.

        Returns
        -------
        dict of str to ndarray

        Raises
        ------
        ValueError
            For unknown or missing names, and shapes or values that do not fit.
        """
        return parameters.check(self.fields, values)

    # Data in -----------------------------------------------------------------------------------------------

    @float64
    def prepare(self, x: object) -> Covariates:
        """Check covariates, turn them observation-last, evaluate the frozen expert.

        Parameters
        ----------
        x : array-like, shape (n, d)

        Returns
        -------
        Covariates

        Raises
        ------
        ValueError
            See :func:`bayes_moe.data.check_x`.
        """
        array = check_x(x, self.gate.features, self.feature_names)
        frozen = [e for e in self.experts if isinstance(e, Frozen)]
        return Covariates(np.ascontiguousarray(array.T), frozen[0].evaluate(array) if frozen else None)

    @float64
    def observe(self, x: object, y: object, weights: object | None = None) -> Observations:
        """Check covariates, labels and weights and turn them into what :meth:`log_joint` reads.

        Parameters
        ----------
        x : array-like, shape (n, d), or Covariates
        y : array-like, shape (n,)
            Labels among ``classes``.
        weights : array-like, shape (n,), optional
            How often each observation counts.

        Returns
        -------
        Observations

        Raises
        ------
        ValueError
            See :mod:`bayes_moe.data`.
        """
        covariates = x if isinstance(x, Covariates) else self.prepare(x)
        if covariates.x.shape[0] != self.gate.features:
            raise ValueError(f"x must have {self.gate.features} features, got {covariates.x.shape[0]}.")
        codes = encode_labels(y, self.classes, covariates.n)
        checked = check_weights(weights, covariates.n)
        return jax.tree.map(np.asarray, self.condition(covariates, codes, checked))

    def condition(self, covariates: Covariates, codes: Array, weights: Array | None = None) -> Observations:
        """Pair covariates with class positions (pure JAX)."""
        y = (jnp.arange(self.experts[0].classes)[:, None] == codes).astype(jnp.result_type(covariates.x))
        frozen = covariates.frozen
        if frozen is not None:
            frozen = jnp.take_along_axis(frozen, jnp.asarray(codes)[None], axis=0)[0]
        return Observations(covariates.x, y, frozen, weights)

    # The likelihood, for code ------------------------------------------------------------------------------

    def log_joint(self, params: Params, data: Observations) -> Array:
        """Log p(component i | x) + log p(y | x, component i), shape (experts, n). All else follows from it."""
        scores, densities = self._terms(params, data)
        normaliser = logsumexp(scores)
        return jnp.stack([s + f - normaliser for s, f in zip(scores, densities, strict=True)])

    def log_densities(self, params: Params, data: Observations) -> Array:
        """Log p(y | x) of each observation, shape (n,): logsumexp of :meth:`log_joint`, normalised once."""
        scores, densities = self._terms(params, data)
        return log_mean_exp(densities, scores)

    def _terms(self, params: Params, data: Observations) -> tuple[Sequence[Array], list[Array]]:
        """Rows of gate scores and of log p(y | x, component i), one for each component."""
        densities = [row for expert in self.experts for row in expert.log_density(params, data)]
        return self.gate.scores(params, data.x), densities

    def log_likelihood(self, params: Params, data: Observations) -> Array:
        """Weighted sum of the log density over the observations, a scalar; differentiable in ``params``."""
        return _log_likelihood(params, self, data)

    def log_weights(self, params: Params, x: Array) -> Array:
        """Log p(component i | x), shape (experts, n)."""
        scores = self.gate.scores(params, x)
        return jnp.stack(scores) - logsumexp(scores)

    def log_class_probabilities(self, params: Params, covariates: Covariates) -> Array:
        """Log p(y = s | x), shape (classes, n)."""
        per_expert = [expert.log_probabilities(params, covariates) for expert in self.experts]
        return logsumexp(list(self.log_weights(params, covariates.x)[:, None] + jnp.concatenate(per_expert)))

    def draw(self, rng_key: Array, params: Params, covariates: Covariates) -> Array:
        """Simulate class positions: first the gate, then the chosen expert; shape (n,)."""
        gate_key, expert_key = jax.random.split(rng_key)
        chosen = jax.random.categorical(gate_key, jnp.stack(self.gate.scores(params, covariates.x)), axis=0)
        per_expert = jnp.concatenate([e.log_probabilities(params, covariates) for e in self.experts])
        logits = jnp.take_along_axis(per_expert, chosen[None, None], axis=0)[0]
        return jax.random.categorical(expert_key, logits, axis=0)

    # The likelihood, for people ----------------------------------------------------------------------------

    @float64
    def log_density(self, params: Params, x: object, y: object) -> np.ndarray:
        """Log p(y | x), shape (n,).

        Parameters
        ----------
        params : dict of str to array
        x : array-like, shape (n, d)
        y : array-like, shape (n,)
        """
        return np.asarray(_log_densities(self, self.params(**params), self.observe(x, y)))

    @float64
    def responsibilities(self, params: Params, x: object, y: object) -> np.ndarray:
        """p(component i | x, y), shape (n, experts)."""
        joint = _log_joint(self, self.params(**params), self.observe(x, y))
        return np.asarray(jax.nn.softmax(joint, axis=0).T)

    @float64
    def class_probabilities(self, params: Params, x: object) -> np.ndarray:
        """p(y = s | x), shape (n, classes)."""
        covariates = self.prepare(x)
        return np.exp(np.asarray(_log_class_probabilities(self, self.params(**params), covariates).T))

    @float64
    def simulate(self, rng_key: Array | int, params: Params, x: object) -> np.ndarray:
        """Draw labels from the model, shape (n,).

        Parameters
        ----------
        rng_key : JAX key or int
        params : dict of str to array
        x : array-like, shape (n, d)
        """
        codes = _draw(self, as_key(rng_key), self.params(**params), self.prepare(x))
        return _label_array(self.classes)[np.asarray(codes)]


def _log_likelihood_of_block(params: Params, moe: MoE, data: Observations) -> Array:
    log_densities = moe.log_densities(params, data)
    return jnp.sum(log_densities if data.weights is None else data.weights * log_densities)


@jax.custom_jvp
def _log_likelihood(params: Params, moe: MoE, data: Observations) -> Array:
    return blocks.total(lambda block: _log_likelihood_of_block(params, moe, block), data)


@_log_likelihood.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """Value and gradient block by block, in one pass; the data have no derivatives."""
    params, moe, data = primals
    value, gradient = blocks.total(lambda block: _value_and_grad(params, moe, block), data)
    products = jax.tree.map(lambda g, rate: jnp.sum(g * rate), gradient, tangents[0])
    return value, sum(jax.tree.leaves(products))


_value_and_grad = jax.value_and_grad(_log_likelihood_of_block)


def as_key(rng_key: Array | int) -> Array:
    """Take a JAX key as it is, or make one from an int."""
    if isinstance(rng_key, (int, np.integer)) and not isinstance(rng_key, bool):
        return jax.random.key(int(rng_key))
    if isinstance(rng_key, jax.Array):
        return rng_key
    raise ValueError(f"rng_key must be a JAX key or an int, got {rng_key!r}. Pass rng_key=0, for instance.")


def _label_array(classes: tuple[Hashable, ...]) -> np.ndarray:
    plain = np.asarray(classes) if len({type(label) for label in classes}) == 1 else None
    if plain is not None and plain.ndim == 1:
        return plain
    array = np.empty(len(classes), dtype=object)
    array[:] = classes
    return array


# Compiled once for each model structure and shape; the model is an argument, never a closure.
_log_joint = jax.jit(MoE.log_joint)
_log_densities = jax.jit(MoE.log_densities)
_log_class_probabilities = jax.jit(MoE.log_class_probabilities)
_draw = jax.jit(MoE.draw)
