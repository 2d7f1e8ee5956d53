"""Simulation-based calibration of the Gaussian-gated posterior, label-invariant; swapped labels must fail."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from montecarlo import key, uniform
from numpyro.distributions import biject_to
from scipy import stats

from bayes_moe import gaussian_gated
from bayes_moe.draws import invariants
from bayes_moe.ground.data import float64
from bayes_moe.nuts import posterior as nuts
from bayes_moe.nuts import priors, sampler

ROWS, SIMULATIONS, CONTROLS, KEPT, BINS = 40, 200, 50, 49, 10
MOE = gaussian_gated(2, 1)
# Weights away from zero, so that no expert is empty: an empty one leaves the sampler, not the posterior, in doubt.
PRIOR = {"pi": dist.Dirichlet(np.full(2, 4.0)), "c": dist.Normal(0.0, 1.0), "a": dist.Normal(0.0, 1.0)}
PROBE = np.array([[0.5]]), np.array([-0.5])
REFERENCE = MOE.params(pi=0.5, c=[[-1.0], [1.0]], Gamma=0.1 * np.ones((2, 1, 1)), a=0.0, b=[0.0, 1.0], nu=0.1)
SETTINGS = sampler.Settings(num_warmup=300, num_samples=490, num_chains=4, target_accept_prob=0.9)
NAMES = ("log likelihood", "log density", "lesser weight", "lesser c", "lesser nu", "voronoi")


def as_it_is(params):
    return params


def swapped(params):
    """Planted error: the intercepts change labels, the rest do not."""
    return params | {"b": params["b"][..., ::-1]}


@float64
def quantities(params, x, y):
    """Label-invariant numbers of each draw, (draws, quantities)."""
    data, probe = (jax.tree.map(jnp.asarray, MOE.observe(*part)) for part in ((x, y), PROBE))

    def one(draw):
        found = invariants.of(MOE, draw, probe, REFERENCE)
        lesser = [found[f"sorted_{name}"].ravel()[0] for name in ("pi", "c", "nu")]
        return jnp.stack([MOE.log_likelihood(draw, data), found["log_density"][0], *lesser, found["voronoi"]])

    return np.asarray(jax.vmap(one)(jax.tree.map(jnp.asarray, params)))


@float64
def posterior_draws(x, y, seed):
    model, prepare, _, given = nuts._problem(MOE, x, y, PRIOR)
    args = prepare(given)
    where, draws = sampler.run(model, args, jax.random.key(seed), SETTINGS)
    thin = SETTINGS.num_chains * SETTINGS.num_samples // KEPT
    free = jnp.asarray(draws.free.reshape(-1, where.size)[::thin][:KEPT])
    maps = {name: biject_to(prior.support) for name, prior in priors.resolve(MOE, PRIOR).items()}
    return jax.vmap(lambda vector: {name: maps[name](value) for name, value in where.sites(vector).items()})(free)


@float64
def rank(seed, change):
    """Rank of each quantity at the truth, drawn from the prior, among thinned posterior draws."""
    keys = jax.random.split(jax.random.key(10_000 + seed), len(MOE.fields))
    drawn = zip(priors.resolve(MOE, PRIOR).items(), keys, strict=True)
    truth = MOE.params(**{name: np.asarray(prior.sample(one)) for (name, prior), one in drawn})
    x, y = MOE.simulate_joint(seed, truth, ROWS)
    at_truth = quantities({name: value[None] for name, value in truth.items()}, x, y)
    return np.sum(quantities(change(posterior_draws(x, y, seed)), x, y) < at_truth, axis=0)


def p_values(change, count):
    """p-value of uniformity of each quantity's ranks."""
    ranks = np.array([rank(seed, change) for seed in range(key(0), key(0) + count)])
    counts = np.array([np.bincount(column * BINS // (KEPT + 1), minlength=BINS) for column in ranks.T])
    return stats.chisquare(counts, axis=1).pvalue


@pytest.mark.slow
@pytest.mark.statistical
def test_ranks_are_uniform():
    assert uniform(p_values(as_it_is, SIMULATIONS))


@pytest.mark.slow
@pytest.mark.statistical
def test_swapped_labels_are_found_out():
    assert not uniform(p_values(swapped, CONTROLS))
