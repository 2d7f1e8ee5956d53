"""A mixture of experts as ordinary NumPyro code: a distribution, and the models that NUTS runs on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array
from numpyro.distributions import Distribution, constraints

from bayes_moe.ground.compilation import as_arrays
from bayes_moe.ground.data import Covariates, Observations, check_mapping
from bayes_moe.ground.parameters import Params
from bayes_moe.model.moe import MoE, check_moe
from bayes_moe.nuts.priors import Prior, resolve


class Mixture(Distribution):
    """A mixture of experts as a NumPyro distribution over class positions 0, ..., K - 1, or over real responses.

    With a generative gate ``log_prob`` is log p(x, y), and ``sample`` draws y at the given x.

    Parameters
    ----------
    moe : MoE
    params : dict of str to array
        Shaped as ``moe.fields`` says.
    x : array-like, shape (n, d), or Covariates
        Call ``moe.prepare(x)`` once, outside the model, and pass the result: inside compiled code x has no values.

    Examples
    --------
    >>> def model(x, y=None):
    ...     tau = numpyro.sample("tau", dist.Normal(0, 1).expand([1]).to_event(1))
    ...     ...
    ...     with numpyro.plate("obs_id", x.n):
    ...         numpyro.sample("y", nuts.Mixture(moe, {"tau": tau, "beta": beta, "eta": eta}, x), obs=y)
    """

    pytree_data_fields = ("moe", "params", "covariates")

    def __init__(self, moe: MoE, params: Params, x: Covariates | object, *, validate_args: bool | None = None):
        check_moe(moe)
        if missing := [name for name in moe.fields if name not in check_mapping("params", params)]:
            raise ValueError(f"params must have every parameter of the model, missing: {', '.join(missing)}.")
        if isinstance(x, jax.core.Tracer):
            raise ValueError(
                "x must be moe.prepare(x), made once outside your model: in compiled code it has no values."
            )
        self.moe, self.params = moe, params
        self.covariates = x if isinstance(x, Covariates) else moe.prepare(x)
        several = (moe.experts[-1].responses,) if moe.real and moe.experts[-1].responses > 1 else ()
        super().__init__(batch_shape=(self.covariates.n,), event_shape=several, validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        """Class positions, or the real line, or space."""
        if self.moe.real:
            return constraints.real_vector if self.event_shape else constraints.real
        return constraints.integer_interval(0, self.moe.experts[0].classes - 1)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw class positions or responses, shape sample_shape + (n,) + event_shape."""
        keys = jax.random.split(key, int(np.prod(sample_shape)))
        moe, covariates = self._in_force()
        draws = jax.vmap(lambda k: moe.draw(k, self.params, covariates))(keys)
        return draws.reshape(*sample_shape, self.covariates.n, *self.event_shape)

    def log_prob(self, value: Array) -> Array:
        """Log p(y | x) at class positions or responses ``value``, shape sample_shape + (n,)."""
        signature = "(n,q)->(n)" if self.event_shape else "(n)->(n)"
        return jnp.vectorize(self._log_density, signature=signature)(value)

    def _log_density(self, codes: Array) -> Array:
        moe, covariates = self._in_force()
        return moe.log_densities(self.params, moe.condition(covariates, codes))

    def _in_force(self) -> tuple[MoE, Covariates]:
        """Model and data, prepared in double, in the precision of whoever uses them."""
        return as_arrays((self.moe, self.covariates))


def posterior_model(inputs: tuple[MoE, Mapping[str, Distribution], Covariates], y: Array | None = None) -> None:
    """Priors by name, then the mixture: what :func:`bayes_moe.nuts.sample` runs."""
    moe, prior, covariates = inputs
    params = {name: numpyro.sample(name, distribution) for name, distribution in prior.items()}
    with numpyro.plate("obs_id", covariates.n):
        numpyro.sample("y", Mixture(moe, params, covariates), obs=y)


def summed_model(inputs: tuple[MoE, Mapping[str, Distribution], Observations]) -> None:
    """The density of :func:`posterior_model` with the likelihood summed block by block: what NUTS moves on."""
    moe, prior, data = inputs
    params = {name: numpyro.sample(name, distribution) for name, distribution in prior.items()}
    numpyro.factor("log_likelihood", moe.log_likelihood(params, data))


def model(moe: MoE, prior: Prior | None = None) -> Callable[..., None]:
    """Return the model as an ordinary NumPyro function for ``NUTS``, ``SVI``, ``Predictive`` and handlers.

    Parameters
    ----------
    moe : MoE
    prior : mapping, optional
        See :func:`bayes_moe.nuts.priors.resolve`.

    Returns
    -------
    callable
        ``model(x, y=None)`` with latent sites named as the parameters and an observed site ``y`` in
        ``plate("obs_id", n)``. ``x`` is (n, d) or ``moe.prepare(x)``; ``y`` are class positions or real responses. It
        runs in JAX's precision at the time, single unless you ask for double.
    """
    check_moe(moe)
    shaped = resolve(moe, prior)

    def contaminated_model(x: object, y: Array | None = None) -> None:
        covariates = x if isinstance(x, Covariates) else moe.prepare(x)
        prior = {name: as_arrays(distribution) for name, distribution in shaped.items()}  # in the order of the fields
        posterior_model((*as_arrays((moe,)), prior, as_arrays(covariates)), y)  # in the precision of whoever runs it

    return contaminated_model
