"""Label-invariant quantities: a shuffle of the experts changes none of them; the gate on them sees what it must."""

import arviz_base
import jax
import numpy as np
import pytest
from gaussian_cases import CENTRE, MOE
from montecarlo import key

from bayes_moe import contaminated, nuts
from bayes_moe.draws import diagnostics, invariants
from bayes_moe.theory import voronoi

CHAINS, DRAWS = 4, 500
EXACT = 1e-10
X, Y = MOE.simulate_joint(0, CENTRE, 5)


def draws(seed=0):
    """Return independent draws around the centre."""
    rng = np.random.default_rng(key(seed))
    out = {name: value + 0.05 * rng.normal(size=(CHAINS, DRAWS, *value.shape)) for name, value in CENTRE.items()}
    for name in ("pi", "Gamma", "nu"):
        out[name] = CENTRE[name] * np.exp(0.05 * rng.normal(size=out[name].shape))
    return out | {"pi": out["pi"] / out["pi"].sum(axis=2, keepdims=True)}


def permuted(posterior, order):
    """Permute the experts of each draw by (chain, draw, expert) positions."""
    return {
        name: np.take_along_axis(value, order.reshape(*order.shape, *[1] * (value.ndim - 3)), axis=2)
        for name, value in posterior.items()
    }


def tree(posterior):
    rng = np.random.default_rng(key(1))
    lp, energy = rng.normal(size=(2, CHAINS, DRAWS))
    stats = {"lp": lp, "energy": energy, "diverging": np.zeros((CHAINS, DRAWS), bool)}
    return arviz_base.from_dict({"posterior": posterior, "sample_stats": stats})


def orders(each_draw):
    """Return an order for each draw at random, or for each chain one that it keeps."""
    rng = np.random.default_rng(key(2))
    shape = (CHAINS, DRAWS, 3) if each_draw else (CHAINS, 1, 3)
    return np.broadcast_to(np.argsort(rng.random(shape), axis=2), (CHAINS, DRAWS, 3))


def test_a_shuffle_changes_nothing():
    plain, shuffled = draws(), permuted(draws(), orders(each_draw=True))
    assert np.abs(plain["c"] - shuffled["c"]).max() > 1  # negative control
    one, two = (invariants.invariants(MOE, tree(p), X, Y, CENTRE) for p in (plain, shuffled))
    assert set(one) == {"log_density", "log_conditional", "voronoi", *(f"sorted_{name}" for name in CENTRE)}
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=EXACT, err_msg=name)


def test_they_are_the_models_own_numbers():
    posterior = draws()
    found = invariants.invariants(MOE, tree(posterior), X, Y, CENTRE)
    params = {name: value[1, 7] for name, value in posterior.items()}
    at = {"chain": 1, "draw": 7}
    np.testing.assert_allclose(found["log_density"][at], MOE.log_density(params, X, Y), rtol=EXACT)
    np.testing.assert_allclose(found["log_conditional"][at], MOE.conditional_log_density(params, X, Y), rtol=EXACT)
    np.testing.assert_allclose(found["voronoi"][at], voronoi.voronoi(params, CENTRE), rtol=EXACT)
    np.testing.assert_array_equal(found["sorted_c"][at], np.sort(params["c"], axis=0))
    assert set(invariants.invariants(MOE, tree(posterior), X, Y)) == set(found) - {"voronoi"}


def test_a_truth_may_be_of_lists():
    lists = {name: value.tolist() for name, value in CENTRE.items()}
    one, two = (invariants.invariants(MOE, tree(draws()), X, Y, truth) for truth in (lists, CENTRE))
    np.testing.assert_array_equal(one["voronoi"], two["voronoi"])


def check(posterior):
    idata = tree(posterior)
    return diagnostics.check(idata, invariants.invariants(MOE, idata, X, Y, CENTRE))


@pytest.mark.statistical
def test_the_gate_on_them_forgives_switched_labels_and_nothing_else():
    switched = permuted(draws(), orders(each_draw=False))
    assert not diagnostics.check(tree(switched)).passed
    assert check(switched).passed
    elsewhere = {name: value.copy() for name, value in switched.items()}
    elsewhere["nu"][3] *= 1.5  # one chain has found another mode
    assert any(reason.startswith("R-hat") for reason in check(elsewhere).reasons)
    stuck = {name: value.copy() for name, value in switched.items()}
    stuck["b"][0] = stuck["b"][0, :1]
    assert any("constant chain" in reason for reason in check(stuck).reasons)


@pytest.mark.statistical
def test_the_gate_still_counts_divergences():
    idata = tree(draws())
    found = invariants.invariants(MOE, idata, X, Y)
    idata["sample_stats"]["diverging"][2, 5] = True
    assert diagnostics.check(idata, found).reasons == ("1 divergences",)


def test_experts_that_have_labels_are_refused():
    with pytest.raises(ValueError, match="exchangeable"):
        invariants.invariants(contaminated([[1.0], [0.0]]), tree(draws()), X, Y)


# Chains from several starts ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.statistical
def test_chains_start_from_each_mode_in_turn():
    """Each chain keeps the labels of the start it was given: modes that differ in labels alone are as likely."""
    far = CENTRE | {"nu": np.full(3, 0.01), "Gamma": np.full((3, 1, 1), 0.01)}
    x, y = MOE.simulate_joint(3, far, 200)
    starts = [{name: value[list(order)] for name, value in far.items()} for order in ((0, 1, 2), (2, 1, 0))]
    idata = nuts.sample(
        MOE, x, y, rng_key=key(0), init=starts, num_chains=4, num_warmup=100, num_samples=50, progress_bar=False
    )
    first = idata["posterior"]["c"].values[:, -1, 0, 0]
    assert sorted(np.round(first).tolist()) == [-2.0, -2.0, 2.0, 2.0]
    np.testing.assert_allclose(np.abs(first[:2] - first[2:]), 0, atol=0.5)
    assert idata.attrs["init"] == "given"


@pytest.mark.parametrize("init", [[], [CENTRE, 1.0], [CENTRE | {"pi": np.ones(3)}], [{"pi": CENTRE["pi"]}]])
def test_bad_starts_are_named(init):
    with pytest.raises(ValueError, match=r"init|params"):
        nuts.sample(MOE, X, Y, rng_key=jax.random.key(0), init=init, progress_bar=False)
