"""Simulation-based calibration of the posterior of coefficient curves, label-free; planted errors must fail."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from montecarlo import key, uniform
from numpyro.distributions import biject_to
from scipy import stats

from bayes_moe import curves, varying_coefficient
from bayes_moe.curves import starts as curve_starts
from bayes_moe.curves.bases import HilbertGP
from bayes_moe.curves.smooth import SmoothModel
from bayes_moe.ground import compilation
from bayes_moe.ground.compilation import jitted
from bayes_moe.ground.data import float64
from bayes_moe.nuts import sampler

ROWS, CONTROLS, KEPT, BINS = 50, 40, 49, 10
SIZES = {"normal": 1.0, "binomial": 12.0, "poisson": 4.0}
SUBJECTS = 10  # of the case "subjects", whose experts are normal
SIMULATIONS = dict.fromkeys(SIZES, 150) | {"subjects": 100}  # these take twice as long
STARTS = 3
SETTINGS = sampler.Settings(num_warmup=300, num_samples=490, num_chains=2, target_accept_prob=0.9)
# Narrower than the defaults: what strays to where an expert is empty leaves the sampler, not the posterior, in doubt.
PRIOR = {
    "beta_mean": dist.Normal(0.0, 0.7),
    "alpha_mean": dist.Normal(0.0, 1.0),
    "alpha_amplitude": dist.HalfNormal(0.5),
    "beta_amplitude": dist.HalfNormal(0.5),
}


def as_it_is(values):
    return values


def switched(values):
    """Planted error: the mean intercepts change labels, the rest do not."""
    mean = values["alpha_mean"]
    return values | {"alpha_mean": jnp.concatenate([mean[..., ::-1, :1], mean[..., 1:]], axis=-1)}


def too_alike(values):
    """Planted error: subjects' intercepts are half of what they are."""
    return values | {"subject_sd": 0.5 * values["subject_sd"]}


def smooth_model(case):
    if case in ("normal", "subjects"):
        count = SUBJECTS if case == "subjects" else 0
        return SmoothModel(varying_coefficient("normal", 2, constant=["delta"]), HilbertGP(6), count)
    return SmoothModel(varying_coefficient(case, 2), HilbertGP(6))


def inputs_at(case, seed, y=None):
    """What the model is run on: covariates that depend on the seed, and responses."""
    rng, smooth = np.random.default_rng(seed), smooth_model(case)
    columns = rng.normal(size=(ROWS, 1)), rng.normal(size=(ROWS, 1)), np.linspace(0, 1, ROWS)
    data = smooth.model.observe(*columns, np.arange(ROWS) % 3.0 if y is None else y, size=SIZES.get(case, 1.0))
    if smooth.subjects:
        data = replace(data, subject=np.arange(ROWS) % SUBJECTS)
    rows = [smooth.basis.rows(u) for u in (data.u, np.array([0.5]))]
    return compilation.as_arrays((smooth, curves.priors_of(smooth, PRIOR), data, *rows))


@float64
def quantities(values, inputs):
    """Label-free numbers of each draw, (draws, quantities)."""
    return np.asarray(jitted(_quantities)(values, inputs))  # compiled once: hundreds of programs exhaust a process


def _quantities(values, inputs):
    smooth, _, data, rows, _ = inputs

    def one(draw):
        each = smooth.model.log_densities(smooth.coefficients(draw, rows, data.subject), data)
        lesser = jnp.min(smooth.coefficients(draw, rows)["alpha"].mean(axis=2), axis=0)  # intercept and slope
        own = [draw["subject_sd"], smooth.intercepts(draw)[0]] if smooth.subjects else []
        return jnp.stack([each.sum(), each[ROWS // 2], *lesser, draw["alpha_amplitude"].sum(), *own])

    return jax.lax.map(one, values)


@float64
def posterior_draws(inputs, seed):
    smooth, args = inputs[0], (inputs, inputs[2].y)
    rng_key = jax.random.key(seed)
    start = curve_starts.starts(curves.posterior_model, args, rng_key, STARTS)
    where, draws = sampler.run(curves.posterior_model, args, rng_key, SETTINGS, start)
    thin = SETTINGS.num_chains * SETTINGS.num_samples // KEPT
    free = jnp.asarray(draws.free.reshape(-1, where.size)[::thin][:KEPT])
    supports = {name: field.support for name, field in (smooth.fields | smooth.weights).items()}
    return jax.vmap(lambda one: {n: biject_to(supports[n])(value) for n, value in where.sites(one).items()})(free)


@float64
def rank(case, seed, change):
    """Rank of each quantity at the truth, drawn from the prior, among thinned posterior draws."""
    smooth, prior, data, rows, _ = inputs_at(case, seed)
    keys = jax.random.split(jax.random.key(10_000 + seed), len(prior) + 1)
    truth = {name: one.sample(own) for (name, one), own in zip(prior.items(), keys[1:], strict=True)}
    y = smooth.model.draw(keys[0], smooth.coefficients(truth, rows, data.subject), data)
    inputs = inputs_at(case, seed, np.asarray(y))
    at_truth = quantities({name: value[None] for name, value in truth.items()}, inputs)
    return np.sum(quantities(change(posterior_draws(inputs, seed)), inputs) < at_truth, axis=0)


def p_values(case, change, count):
    """p-value of uniformity of each quantity's ranks."""
    ranks = np.array([rank(case, seed, change) for seed in range(key(0), key(0) + count)])
    counts = np.array([np.bincount(column * BINS // (KEPT + 1), minlength=BINS) for column in ranks.T])
    return stats.chisquare(counts, axis=1).pvalue


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("case", SIMULATIONS)
def test_ranks_are_uniform(case):
    assert uniform(p_values(case, as_it_is, SIMULATIONS[case]))


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("case", SIZES)
def test_intercepts_that_switch_are_found_out(case):
    assert not uniform(p_values(case, switched, CONTROLS))


@pytest.mark.slow
@pytest.mark.statistical
def test_subjects_that_are_too_alike_are_found_out():
    assert not uniform(p_values("subjects", too_alike, CONTROLS))
