"""Simulation-based calibration of the posterior of coefficient curves, label-free; intercepts that switch must fail."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import biject_to
from scipy import stats

from bayes_moe import curves, sampler, varying_coefficient
from bayes_moe.bases import HilbertGP
from bayes_moe.compilation import jitted
from bayes_moe.data import float64
from bayes_moe.smooth import SmoothModel

ROWS, SIMULATIONS, CONTROLS, KEPT, BINS = 50, 150, 40, 49, 10
SIZES = {"normal": 1.0, "binomial": 12.0, "poisson": 4.0}
STARTS = 3
SETTINGS = sampler.Settings(num_warmup=300, num_samples=490, num_chains=2, target_accept_prob=0.9)
# Narrower than the defaults: what strays to where an expert is empty leaves the sampler, not the posterior, in doubt.
PRIOR = {
    "beta_mean": dist.Normal(0.0, 0.7),
    "alpha_mean": dist.Normal(0.0, 1.0),
    "alpha_amplitude": dist.HalfNormal(0.5),
    "beta_amplitude": dist.HalfNormal(0.5),
}
NAMES = ("log likelihood", "log density", "lesser intercept", "lesser slope", "amplitudes")
SMALLEST_P = 1e-3 / len(NAMES)


def as_it_is(values):
    return values


def switched(values):
    """Planted error: the mean intercepts change labels, the rest do not."""
    mean = values["alpha_mean"]
    return values | {"alpha_mean": jnp.concatenate([mean[..., ::-1, :1], mean[..., 1:]], axis=-1)}


def smooth_model(family):
    constant = ["delta"] if family == "normal" else []
    return SmoothModel(varying_coefficient(family, 2, constant=constant), HilbertGP(6))


def inputs_at(family, seed, y=None):
    """What the model is run on: covariates that depend on the seed, and responses."""
    rng, smooth = np.random.default_rng(seed), smooth_model(family)
    columns = rng.normal(size=(ROWS, 1)), rng.normal(size=(ROWS, 1)), np.linspace(0, 1, ROWS)
    data = smooth.model.observe(*columns, np.arange(ROWS) % 3.0 if y is None else y, size=SIZES[family])
    rows = [smooth.basis.rows(u) for u in (data.u, np.array([0.5]))]
    return sampler.as_arrays((smooth, curves.priors_of(smooth, PRIOR), data, *rows))


@float64
def quantities(values, inputs):
    """Label-free numbers of each draw, (draws, quantities)."""
    return np.asarray(jitted(_quantities)(values, inputs))  # compiled once: hundreds of programs exhaust a process


def _quantities(values, inputs):
    smooth, _, data, rows, _ = inputs

    def one(draw):
        params = smooth.coefficients(draw, rows)
        each = smooth.model.log_densities(params, data)
        average = jnp.min(params["alpha"].mean(axis=2), axis=0)
        return jnp.stack([each.sum(), each[ROWS // 2], *average, draw["alpha_amplitude"].sum()])

    return jax.lax.map(one, values)


@float64
def posterior_draws(inputs, seed):
    smooth, data = inputs[0], inputs[2]
    key = jax.random.key(seed)
    start = curves.best_start(inputs, data, key, STARTS)
    where, draws = sampler.run(curves.posterior_model, (inputs, data.y), key, SETTINGS, [start])
    thin = SETTINGS.num_chains * SETTINGS.num_samples // KEPT
    free = jnp.asarray(draws.free.reshape(-1, where.size)[::thin][:KEPT])
    supports = {name: field.support for name, field in (smooth.fields | smooth.weights).items()}
    return jax.vmap(lambda one: {n: biject_to(supports[n])(value) for n, value in where.sites(one).items()})(free)


@float64
def rank(family, seed, change):
    """Rank of each quantity at the truth, drawn from the prior, among thinned posterior draws."""
    smooth, prior, data, rows, _ = inputs_at(family, seed)
    keys = jax.random.split(jax.random.key(10_000 + seed), len(prior) + 1)
    truth = {name: one.sample(key) for (name, one), key in zip(prior.items(), keys[1:], strict=True)}
    y = smooth.model.draw(keys[0], smooth.coefficients(truth, rows), data)
    inputs = inputs_at(family, seed, np.asarray(y))
    at_truth = quantities({name: value[None] for name, value in truth.items()}, inputs)
    return np.sum(quantities(change(posterior_draws(inputs, seed)), inputs) < at_truth, axis=0)


def p_values(family, change, count):
    """p-value of uniformity of each quantity's ranks."""
    ranks = np.array([rank(family, seed, change) for seed in range(count)])
    counts = np.array([np.bincount(column * BINS // (KEPT + 1), minlength=BINS) for column in ranks.T])
    return stats.chisquare(counts, axis=1).pvalue


@pytest.mark.slow
@pytest.mark.parametrize("family", SIZES)
def test_ranks_are_uniform(family):
    assert p_values(family, as_it_is, SIMULATIONS).min() > SMALLEST_P


@pytest.mark.slow
@pytest.mark.parametrize("family", SIZES)
def test_intercepts_that_switch_are_found_out(family):
    assert p_values(family, switched, CONTROLS).min() < SMALLEST_P
