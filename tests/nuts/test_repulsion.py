"""The repulsive prior: its density, exact draws, a place among the priors, and what it does to a posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from montecarlo import STANDARD_ERRORS, key

from bayes_moe import gaussian_gated, nuts
from bayes_moe.nuts import priors
from bayes_moe.nuts.repulsion import Repulsive

DRAWS = 4000


def brute_force(value, scale, distance):
    """Log density without its constant, by loops."""
    atoms = np.reshape(value, (len(value), -1))
    total = -0.5 * (atoms**2).sum() / scale**2
    for i in range(len(atoms)):
        for j in range(i):
            total += np.log(1 - np.exp(-((atoms[i] - atoms[j]) ** 2).sum() / (2 * distance**2)))
    return total


@pytest.mark.parametrize("shape", [(3, 2), (4,), (2, 2, 2)])
def test_the_density_is_the_formula(shape):
    values = np.random.default_rng(0).normal(size=(5, *shape))
    with jax.enable_x64(True):
        found = Repulsive(shape, 1.5, 0.7).log_prob(jnp.asarray(values))
    np.testing.assert_allclose(found, [brute_force(value, 1.5, 0.7) for value in values], rtol=1e-12)


def nearest(values):
    """Distance between two atoms, one row a draw."""
    return np.linalg.norm(values[:, 0] - values[:, 1], axis=-1)


@pytest.mark.statistical
def test_draws_follow_the_density():
    """Two atoms: against the normal's draws, weighted by the repulsion; those without weights differ."""
    prior = Repulsive((2, 1), 1.0, 1.0)
    with jax.enable_x64(True):
        drawn = nearest(np.asarray(prior.sample(jax.random.key(key(0)), (DRAWS,))))
    free = nearest(np.random.default_rng(key(1)).normal(size=(100 * DRAWS, 2, 1)))
    weights = 1 - np.exp(-0.5 * free**2)
    expected = np.average(free, weights=weights)
    error = drawn.std() / np.sqrt(DRAWS)
    assert abs(drawn.mean() - expected) < STANDARD_ERRORS * error
    assert abs(drawn.mean() - free.mean()) > STANDARD_ERRORS * error


@pytest.mark.parametrize("name", ["c", "a", "b"])
def test_it_takes_its_place_among_the_priors(name):
    moe = gaussian_gated(3, 2)
    resolved = priors.resolve(moe, priors.repulsive(name, distance=0.3))
    assert isinstance(resolved[name], Repulsive)
    assert resolved[name].event_shape == moe.fields[name].shape


def test_atoms_that_find_no_room_are_refused():
    with pytest.raises(ValueError, match="lower distance or raise scale"):
        priors.resolve(gaussian_gated(6, 1), priors.repulsive("c", scale=0.001, distance=1e6))


@pytest.mark.slow
@pytest.mark.statistical
def test_it_keeps_a_spare_expert_away():
    """One cluster, two experts: their locations lie farther apart than under the default prior."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 1)), rng.normal(size=60)
    apart = {}
    for label, prior in {"default": {}, "repulsive": priors.repulsive("c", distance=3.0)}.items():
        tree = nuts.sample(
            gaussian_gated(2, 1), x, y, rng_key=key(1), prior=prior, num_chains=2, num_samples=500, progress_bar=False
        )
        c = tree["posterior"]["c"].values
        apart[label] = np.abs(c[:, :, 0] - c[:, :, 1]).mean()
    assert apart["repulsive"] > 1.2 * apart["default"]
