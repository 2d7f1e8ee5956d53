"""Chain sets that did not move, or not as a sampler would: the gate must fail each, whatever R-hat says."""

import re

import arviz_base
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from bayes_moe import nuts
from bayes_moe.draws import diagnostics

CHAINS, DRAWS, SIZE = 4, 500, 6


def healthy(seed=3):
    """Return exact draws of a standard normal with the statistics that a sampler would give."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(CHAINS, DRAWS, SIZE))
    lp, shape = -0.5 * (z**2).sum(axis=2), (CHAINS, DRAWS)
    stats = {
        "lp": lp,
        "energy": -lp + 0.5 * rng.chisquare(SIZE, shape),
        "diverging": np.zeros(shape, bool),
        "acceptance_rate": rng.uniform(0.6, 1.0, shape),
        "tree_depth": np.full(shape, 3),
        "reached_max_treedepth": np.zeros(shape, bool),
        "step_size": np.full(shape, 0.6),
        "virial": (z - z.mean(axis=(0, 1))) * z,
    }
    return {"posterior": {"z": z}, "sample_stats": stats}


def noise(scale, *shape, seed=4):
    """Return independent normal numbers."""
    return scale * np.random.default_rng(seed).normal(size=shape or (CHAINS, DRAWS, SIZE))


def frozen(posterior, stats):
    """A point with noise in the last bit, as at the end of a spike."""
    posterior["z"] = 4.6e-118 * (1.0 + noise(2e-16))


def frozen_statistics(posterior, stats):
    """The same with the statistics that go with it: draws that pass all checks of mixing."""
    frozen(posterior, stats)
    stats["lp"] = 690.0 + noise(1e-13, CHAINS, DRAWS)
    stats["energy"] = -stats["lp"] + 3.0 + noise(0.5, CHAINS, DRAWS, seed=5)
    stats["virial"] = noise(1e-17)


def one_chain_frozen(posterior, stats):
    posterior["z"][2] = posterior["z"][2, :1] * (1.0 + noise(1e-15)[2])


def one_coordinate_frozen(posterior, stats):
    """Five directions move, and one that a person would not look at stands still: only the density's slope tells."""
    posterior["z"][..., 5] = 1.0 + noise(1e-3)[..., 5]
    stats["virial"][..., 5] = noise(1e-3)[..., 5]


def creeping(posterior, stats):
    """Steps of a billionth: spread far above rounding, and far below that of the density."""
    posterior["z"] = 1.0 + noise(1e-9)
    stats["virial"] = noise(1e-9)


def too_narrow(posterior, stats):
    """Half the standard deviation in each direction, as of draws from another density."""
    posterior["z"] *= 0.5
    stats["virial"] *= 0.25


def repeating(posterior, stats):
    """Four of five proposals refused."""
    kept = np.arange(DRAWS) // 5 * 5
    posterior["z"] = posterior["z"][:, kept]


def flat_density(posterior, stats):
    stats["lp"] = -3.0 + noise(1e-3, CHAINS, DRAWS)


def endless_trees(posterior, stats):
    stats["tree_depth"][:, ::2], stats["reached_max_treedepth"][:, ::2] = 10, True


def vanishing_steps(posterior, stats):
    stats["step_size"][1] = 1e-60


def infinite_energy(posterior, stats):
    stats["energy"][0, 3] = np.inf


def absurd_energy(posterior, stats):
    stats["energy"] = stats["energy"] + 1e9


def refusing(posterior, stats):
    stats["acceptance_rate"][3] *= 0.02


def low(posterior, stats):
    """All chains at a place whose log density is 516 below that of a mode that holds mass."""
    stats["lp"] -= 516.0
    stats["energy"] += 516.0


FAULTS = {
    frozen: "z did not move in 4 chains",
    frozen_statistics: "z did not move in 4 chains",
    one_chain_frozen: "z did not move in 1 chain",
    one_coordinate_frozen: "in 1 of 6 directions",
    creeping: "in 6 of 6 directions",
    too_narrow: r"in 6 of 6 directions: the mean of \(z - mean\) dU/dz is 0.2\d, not 1",
    repeating: "repeats the draw before in 80% of a chain",
    flat_density: "log density hardly varies",
    endless_trees: "50% of a chain's trees reached their greatest depth",
    vanishing_steps: "step size fell to 1e-60",
    infinite_energy: "energies are not finite",
    absurd_energy: "energies are absurd",
    refusing: "accepted 2% of its proposals",
    low: r"log density is 51\d below",
}


def tree_of(groups, **attrs):
    """Return the groups as a DataTree."""
    return arviz_base.from_dict(groups, dims={"virial": ["free"]}, attrs={"/": attrs})


@pytest.mark.parametrize("change", FAULTS, ids=lambda change: change.__name__)
def test_chains_that_did_not_move_fail_with_their_reason(change):
    groups = healthy()
    change(groups["posterior"], groups["sample_stats"])
    verdict = diagnostics.check(tree_of(groups, mode_lp=0.0))
    assert any(re.search(FAULTS[change], reason) for reason in verdict.reasons), str(verdict)


@pytest.mark.parametrize("seed", range(20))
def test_exact_draws_pass(seed):
    assert diagnostics.check(tree_of(healthy(seed), mode_lp=0.0)).passed


def odd(x, y=None):
    """Heavy tails, a bound, a simplex, correlation: densities far from normal."""
    a = numpyro.sample("a", dist.StudentT(3.0, 0.0, 1.0))
    b = numpyro.sample("b", dist.Exponential(2.0))
    numpyro.sample("c", dist.Dirichlet(np.array([0.8, 2.0, 5.0])))
    numpyro.sample("d", dist.Uniform(-1.0, 3.0))
    numpyro.sample("y", dist.Normal(a + b, 1.0).expand([1]), obs=y)


def test_odd_densities_keep_the_identity_too():
    with jax.enable_x64(True):
        idata = nuts.sample(odd, np.zeros(1), np.zeros(1), rng_key=0, num_samples=2000, progress_bar=False)
    means = idata["sample_stats"]["virial"].mean(("chain", "draw")).values
    np.testing.assert_allclose(means, 1.0, atol=0.15)
    assert not [reason for reason in diagnostics.check(idata).reasons if "slopes" in reason]


def test_a_verdict_on_exchangeable_experts_says_that_labels_may_have_switched():
    groups = healthy()
    groups["posterior"]["z"][1, :, :3] += 4.0
    for attrs, said in (({"exchangeable": "adapter"}, True), ({}, False)):
        verdict = diagnostics.check(tree_of(groups, **attrs))
        assert not verdict.passed
        assert ("each adapter's parameters were judged" in str(verdict)) is said
    assert "labels" not in str(diagnostics.check(tree_of(healthy(), exchangeable="adapter")))
