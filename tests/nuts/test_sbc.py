"""Simulation-based calibration of the fast sampler (Talts et al. 2018; Modrák et al. 2023): ranks are uniform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from montecarlo import key, uniform
from scipy import stats

from bayes_moe import contaminated
from bayes_moe.ground.data import float64
from bayes_moe.nuts import posterior as nuts
from bayes_moe.nuts import sampler, transitions

ROWS, SIMULATIONS, KEPT, BINS = 60, 500, 49, 10
ETA0 = [[1.0], [0.0]]
PROBE = np.array([[-1.0], [0.5], [2.0]])
SETTINGS = sampler.Settings(num_warmup=200, num_samples=490, num_chains=2)
REGIMES = {"homogeneous": "tanh", "heterogeneous": "linear"}


@float64
def quantities(moe, params, x, y):
    """Log likelihood, the parameters, and the class probability at one point: rows of numbers, one for each draw."""
    data, probe = jax.tree.map(jnp.asarray, (moe.observe(x, y), moe.prepare(PROBE)))

    def one(draw):
        shares = jnp.exp(moe.log_class_probabilities(draw, probe))[0]
        return jnp.stack(
            [moe.log_likelihood(draw, data), draw["tau"][0], draw["beta"][0, 0], draw["eta"].sum(), shares[1]]
        )

    return np.asarray(jax.vmap(one)(jax.tree.map(jnp.asarray, params)))


@float64
def rank(moe, seed):
    """Rank of each quantity at the truth, drawn from the prior, among thinned posterior draws."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(ROWS, 1))
    truth = {name: 2.0 * rng.normal(size=field.shape) for name, field in moe.fields.items()}
    y = moe.simulate(seed, truth, x)
    model, prepare, _, given = nuts._problem(moe, x, y, None)
    args = prepare(given)
    layout, draws = sampler.run(model, args, jax.random.key(seed), SETTINGS, light=nuts._rounded(args))
    thinned = draws.free.reshape(-1, layout.size)[:: 2 * SETTINGS.num_samples // KEPT][:KEPT]
    params = jax.vmap(layout.sites)(jnp.asarray(thinned))
    at_truth = quantities(moe, jax.tree.map(lambda value: value[None], truth), x, y)
    return np.sum(quantities(moe, params, x, y) < at_truth, axis=0)


def p_values(regime, count=SIMULATIONS):
    """p-value of uniformity of each quantity's ranks."""
    moe = contaminated(ETA0, frozen_activation=REGIMES[regime], activation="tanh")
    ranks = np.array([rank(moe, seed) for seed in range(key(0), key(0) + count)])
    counts = np.array([np.bincount(column * BINS // (KEPT + 1), minlength=BINS) for column in ranks.T])
    return stats.chisquare(counts, axis=1).pvalue


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("regime", REGIMES)
def test_ranks_are_uniform(regime):
    assert uniform(p_values(regime))


def jacobian_of_a_logarithm(model, args, kwargs, params, original=transitions.potential_energy):
    """The potential, as if whitened coordinates were logarithms: the change of variable counted once too often."""
    return original(model, args, kwargs, params) - 0.5 * sum(jnp.sum(value) for value in params.values())


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("regime", REGIMES)
def test_a_wrong_jacobian_is_found_out(regime, monkeypatch):
    monkeypatch.setattr(transitions, "potential_energy", jacobian_of_a_logarithm)
    transitions._kernel.cache_clear()
    try:
        assert not uniform(p_values(regime, 200))
    finally:
        transitions._kernel.cache_clear()
