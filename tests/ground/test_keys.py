"""Seeds of every size and kind: ordinary ones as ever, no two alike, and what is no seed is refused by name."""

import itertools

import jax
import numpy as np
import pytest

from bayes_moe import contaminated, nuts
from bayes_moe.ground import keys
from mle import em

ORDINARY = [0, 1, 7, 12345, 2**31 - 1, 2**31, 2**32 - 1]
LARGE = [2**32, 2**32 + 1, 2**33 + 7, 2**63 - 1, 2**63, 2**63 + 1, 2**64, 2**64 + 1, 10**30, 2**200, 1 << 40_000]
NEGATIVE = [-1, -2, -(2**31), -(2**32), -(2**32) - 1, -(2**63), -(2**63) - 1, -(2**64), -(10**30)]


def words(key):
    """Return the numbers that a key is made of."""
    return tuple(int(word) for word in jax.random.key_data(key))


@pytest.mark.parametrize("double", [True, False])
def test_ordinary_seeds_are_jaxs_own(double):
    with jax.enable_x64(double):
        assert [words(keys.as_key(seed)) for seed in ORDINARY] == [(0, seed) for seed in ORDINARY]
    with jax.enable_x64(True):
        assert words(keys.as_key(-1)) == words(jax.random.key(-1))


def test_no_two_seeds_share_a_stream_and_precision_does_not_matter():
    seeds, found = [*ORDINARY, *LARGE, *NEGATIVE], []
    for double in (True, False):
        with jax.enable_x64(double):
            found.append([words(keys.as_key(seed)) for seed in seeds])
    assert found[0] == found[1]
    assert len(set(found[0])) == len(seeds)


KINDS = [np.uint8, np.int32, np.int64, np.uint64, np.asarray, lambda seed: jax.numpy.asarray(seed, dtype="int32")]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_int_is_that_int(kind):
    assert words(keys.as_key(kind(200))) == (0, 200)
    assert keys.as_generator(kind(200)).integers(2**40) == np.random.default_rng(200).integers(2**40)


def test_unsigned_seeds_beyond_the_signed_ones():
    assert words(keys.as_key(np.uint64(2**63))) == words(keys.as_key(2**63))
    assert words(keys.as_key(np.uint64(2**64 - 1))) != words(keys.as_key(-1))


def test_raw_keys_are_the_typed_ones():
    raw = jax.random.PRNGKey(5)
    for given in (raw, np.asarray(raw), jax.random.key(5)):
        assert words(keys.as_key(given)) == words(jax.random.key(5))
    with jax.default_prng_impl("rbg"):
        assert words(keys.as_key(jax.random.PRNGKey(5))) == words(keys.as_key(5))


NO_SEED = [True, np.True_, None, 1.0, "1", np.zeros(2), np.zeros(3, dtype=np.uint32), np.array([1, 2]), np.array(1.0)]
NO_SEED += [np.array(True), jax.random.split(jax.random.key(0), 2), jax.random.split(jax.random.PRNGKey(0), 2), [0, 1]]


@pytest.mark.parametrize("given", NO_SEED, ids=str)
def test_what_is_no_seed_is_refused_by_name(given):
    with pytest.raises(ValueError, match="rng_key must be one JAX key or an int, got "):
        keys.as_key(given)


@pytest.mark.parametrize("given", [True, np.False_, None, -1, -(2**70), 1.5, "1", jax.random.key(0)], ids=str)
def test_what_is_no_random_state_is_refused_by_name(given):
    with pytest.raises(ValueError, match=r"random_state must be an int or a numpy Generator for that, got "):
        keys.as_generator(given, "that")


def test_random_states_are_numpys():
    rng = np.random.default_rng(0)
    assert keys.as_generator(rng) is rng
    for seed in (0, 2**63, np.uint64(2**63), 10**30):
        assert keys.as_generator(seed).integers(2**40) == np.random.default_rng(int(seed)).integers(2**40)


def test_the_doors_take_them():
    moe, x = contaminated([[-1.0], [1.0]]), np.linspace(-1, 1, 200)[:, None]
    truth = {"tau": 0.0, "beta": [0.5], "eta": [[1.0]]}
    drawn = [tuple(moe.simulate(seed, truth, x)) for seed in (3, 3 + 2**32, np.uint64(2**63), -3)]
    assert all(one != other for one, other in itertools.combinations(drawn, 2))
    with pytest.raises(ValueError, match="rng_key"):
        nuts.sample(moe, x, drawn[0], rng_key=True)
    with pytest.raises(ValueError, match="random_state"):
        em.fit(moe, x, drawn[0], random_state=-1)
