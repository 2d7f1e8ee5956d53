"""The likelihood, for code: ``log_joint`` and what follows from it, pure JAX on prepared data."""

from __future__ import annotations

import abc
from functools import partial
from itertools import accumulate

import jax
import jax.numpy as jnp
from jax import Array

from bayes_moe.ground import blocks
from bayes_moe.ground.data import Covariates, Observations
from bayes_moe.ground.numerics import log_mean_exp, logsumexp
from bayes_moe.ground.parameters import Params
from bayes_moe.model.experts import Frozen, Multinomial, Normal
from bayes_moe.model.gates import Constant, Gaussian, Softmax


@partial(jax.jit, static_argnames="dtype")
def _encoded(
    expert: Multinomial | Normal, codes: Array, frozen: Array | None, dtype: jnp.dtype
) -> tuple[Array, Array | None]:
    """Responses as experts want them, and the frozen expert's log-probability of each: one program, not six."""
    own = None if frozen is None else jnp.take_along_axis(frozen, codes[None], axis=0)[0]
    return expert.encode(codes).astype(dtype), own


class Likelihood(abc.ABC):
    """What follows from a gate and experts; :class:`~bayes_moe.model.moe.MoE` holds them."""

    gate: Softmax | Constant | Gaussian
    experts: tuple[Frozen | Multinomial | Normal, ...]

    @property
    def real(self) -> bool:
        """Whether the responses are real numbers rather than classes."""
        return isinstance(self.experts[-1], Normal)

    @property
    def places(self) -> list[slice]:
        """Which rows of :meth:`log_joint` belong to each of ``experts``, whose members may be several."""
        ends = list(accumulate(expert.experts for expert in self.experts))
        return [slice(end - expert.experts, end) for expert, end in zip(self.experts, ends, strict=True)]

    @property
    def exchangeable(self) -> range:
        """Rows of :meth:`log_joint` that may swap labels: all experts of a Gaussian gate; adapters, where several.

        Empty where each component has a label already: the frozen expert, a reference, a single adapter beside one.
        """
        axes = {
            (field.dims[0], field.shape[0]) for part in (self.gate, *self.experts) for field in part.fields.values()
        }
        last, where = self.experts[-1], self.places[-1]
        alone = len(axes) == 1 and {size for _, size in axes} == {last.experts}
        several = self.gate.generative or last.experts > 1
        return range(where.start, where.stop) if alone and several else range(0)

    def condition(self, covariates: Covariates, codes: Array, weights: Array | None = None) -> Observations:
        """Pair covariates with class positions or real responses (pure JAX)."""
        dtype = jnp.result_type(covariates.x)
        y, frozen = _encoded(self.experts[-1], jnp.asarray(codes), covariates.frozen, dtype)
        return Observations(covariates.x, y, frozen, weights)

    def log_joint(self, params: Params, data: Observations) -> Array:
        """Log p(component i | x) + log p(y | x, component i), shape (experts, n). All else follows from it.

        With a generative gate, log p(component i, x) + log p(y | x, component i).
        """
        return self.log_weights(params, data.x) + jnp.stack(self._densities(params, data))

    def log_weights(self, params: Params, x: Array) -> Array:
        """Log p(component i | x), shape (experts, n); log p(component i, x) with a generative gate."""
        scores = tuple(self.gate.scores(params, x))
        return jnp.stack(scores) - (0.0 if self.gate.generative else logsumexp(scores))

    def log_densities(self, params: Params, data: Observations) -> Array:
        """Log p(y | x) of each observation, or log p(x, y) with a generative gate, shape (n,).

        The logsumexp of :meth:`log_joint`, normalised once.
        """
        scores, densities = tuple(self.gate.scores(params, data.x)), self._densities(params, data)
        if self.gate.generative:
            return logsumexp([s + f for s, f in zip(scores, densities, strict=True)])
        return log_mean_exp(densities, scores)

    def log_conditional(self, params: Params, data: Observations) -> Array:
        """Log p(y | x), shape (n,), whatever the gate."""
        return log_mean_exp(self._densities(params, data), tuple(self.gate.scores(params, data.x)))

    def _densities(self, params: Params, data: Observations) -> list[Array]:
        """Log p(y | x, component i), a row for each component."""
        return [row for expert in self.experts for row in expert.log_density(params, data)]

    def log_likelihood(self, params: Params, data: Observations) -> Array:
        """Weighted sum of the log density over the observations, a scalar; differentiable in ``params``."""
        return _log_likelihood(params, self, data)

    def log_memberships(self, params: Params, x: Array) -> Array:
        """Log p(component i | x), shape (experts, n)."""
        scores = tuple(self.gate.scores(params, x))
        return jnp.stack(scores) - logsumexp(scores)

    def log_class_probabilities(self, params: Params, covariates: Covariates) -> Array:
        """Log p(y = s | x), shape (classes, n)."""
        if self.real:
            raise ValueError("this model's responses are real numbers: it has no class probabilities. Use predict.")
        per_expert = [expert.log_probabilities(params, covariates) for expert in self.experts]
        log_weights = self.log_memberships(params, covariates.x)
        return logsumexp(list(log_weights[:, None] + jnp.concatenate(per_expert)))

    def draw(self, rng_key: Array, params: Params, covariates: Covariates) -> Array:
        """Simulate class positions or real responses at x: first the gate, then the chosen expert; n rows."""
        gate_key, expert_key = jax.random.split(rng_key)
        log_weights = jnp.stack(tuple(self.gate.scores(params, covariates.x)))
        chosen = jax.random.categorical(gate_key, log_weights, axis=0)
        drawn = jnp.concatenate([expert.draw(expert_key, params, covariates) for expert in self.experts])
        return drawn[chosen, jnp.arange(covariates.n)]

    def predict_moments(self, params: Params, covariates: Covariates) -> tuple[Array, Array, Array]:
        """Mean and standard deviation of y at x, (responses, n), and log p(component i | x), (experts, n)."""
        log_weights = self.log_memberships(params, covariates.x)
        share = jnp.exp(log_weights)[:, None]
        parts = [expert.moments(params, covariates.x) for expert in self.experts]
        means, variances = (jnp.concatenate(part) for part in zip(*parts, strict=True))
        mean = jnp.sum(share * means, axis=0)
        return mean, jnp.sqrt(jnp.sum(share * (variances[..., None] + (means - mean) ** 2), axis=0)), log_weights


def log_likelihood_of_block(params: Params, moe: Likelihood, data: Observations) -> Array:
    """Weighted sum of the log density over few observations, with derivatives of every order.

    Each observation's term is in the precision of the data, their sum in the precision in force.
    """
    log_densities = moe.log_densities(jax.tree.map(lambda a: a.astype(data.x.dtype), params), data)
    terms = log_densities if data.weights is None else data.weights * log_densities
    return jnp.sum(terms, dtype=jnp.result_type(float))


@jax.custom_jvp
def _log_likelihood(params: Params, moe: Likelihood, data: Observations) -> Array:
    return blocks.total(lambda block: log_likelihood_of_block(params, moe, block), data)


@_log_likelihood.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """Value and gradient block by block, in one pass; the data have no derivatives."""
    params, moe, data = primals
    value, gradient = blocks.total(lambda block: _value_and_grad(params, moe, block), data)
    products = jax.tree.map(lambda g, rate: jnp.sum(g * rate), gradient, tangents[0])
    return value, sum(jax.tree.leaves(products))


_value_and_grad = jax.value_and_grad(log_likelihood_of_block)
