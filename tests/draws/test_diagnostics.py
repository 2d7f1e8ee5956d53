"""The sampling gate: passes on sound draws, and fails on each planted fault with the right reason."""

import re

import arviz_base
import numpy as np
import pytest
from montecarlo import first_that_passes, key

from bayes_moe import contaminated, nuts
from bayes_moe.draws import diagnostics

CHAINS, DRAWS = 4, 500


def groups():
    """Independent normal draws with the statistics of a healthy sampler."""
    rng = np.random.default_rng(key(1))
    posterior = {"tau": rng.normal(size=(CHAINS, DRAWS, 1)), "eta": rng.normal(size=(CHAINS, DRAWS, 1, 2, 2))}
    lp, energy = rng.normal(size=(2, CHAINS, DRAWS))
    sample_stats = {"lp": lp, "energy": energy, "diverging": np.zeros((CHAINS, DRAWS), bool)}
    return {"posterior": posterior, "sample_stats": sample_stats}


def verdict(change=lambda posterior, sample_stats: None):
    """Change sound draws and check them."""
    tree = groups()
    change(tree["posterior"], tree["sample_stats"])
    return diagnostics.check(arviz_base.from_dict(tree))


def autocorrelated(shape, correlation):
    """Return a stationary autoregression along the second axis."""
    noise = np.random.default_rng(key(2)).normal(size=shape)
    for t in range(1, shape[1]):
        noise[:, t] = correlation * noise[:, t - 1] + np.sqrt(1 - correlation**2) * noise[:, t]
    return noise


def put(group, name, where, value):
    """Return a change that sets some draws of one variable."""

    def change(posterior, sample_stats):
        {"posterior": posterior, "sample_stats": sample_stats}[group][name][where] = value

    return change


def without(name):
    """Return a change that leaves out a statistic."""
    return lambda posterior, sample_stats: sample_stats.pop(name)


def shifted(posterior, sample_stats):
    """One chain of one coefficient is half a standard deviation away from the others."""
    posterior["eta"][2, :, 0, 1, 1] += 0.5


def two_modes(posterior, sample_stats):
    """Only the log density tells that one chain has found another mode."""
    sample_stats["lp"][3] -= 5.0


def slow(posterior, sample_stats):
    """All chains are slow."""
    posterior["tau"][..., 0] = autocorrelated((CHAINS, DRAWS), 0.9)


def sticky_tails(posterior, sample_stats):
    """The middle mixes well, but the tails come in one run in each chain."""
    posterior["tau"][..., 0] = np.sort(np.abs(posterior["tau"][..., 0]), axis=1)
    posterior["tau"][:, ::2] *= -1.0


def random_walk(posterior, sample_stats):
    """The momentum can't move one chain's energy."""
    sample_stats["energy"][1] = autocorrelated((1, DRAWS), 0.95)[0]


# A row: the change, and the one reason that it must give.
FAULTS = {
    "one divergence": (put("sample_stats", "diverging", (1, 7), True), "^1 divergences$"),
    "no energy": (without("energy"), "^sample_stats lacks energy$"),
    "no diverging": (without("diverging"), "^sample_stats lacks diverging$"),
    "no lp": (without("lp"), "^sample_stats lacks lp$"),
    "a NaN": (put("posterior", "eta", (1, 5, 0, 1, 0), np.nan), "^eta has draws that are not finite$"),
    "an infinity": (put("sample_stats", "lp", (1, 5), -np.inf), "^lp has draws that are not finite$"),
    "a constant chain": (put("posterior", "tau", (0,), 1.0), "^tau has a constant chain$"),
    "a constant entry": (put("posterior", "eta", np.s_[3, :, 0, 0, 1], 1.0), "^eta has a constant chain$"),
    "low energy information": (random_walk, r"^E-BFMI 0\.[012]\d \(must be at least 0.3\)$"),
}

# Faults that show in more than one place: one reason that must be among them.
WIDER_FAULTS = {
    "a shifted chain": (shifted, r"^R-hat 1\.0[1-9]\d \(must be below 1.01\)$"),
    "another mode": (two_modes, "^R-hat"),
    "slow": (slow, r"^bulk ESS [123]?\d\d \(must be at least 400\)$"),
    "sticky tails": (sticky_tails, r"^tail ESS [123]?\d\d? \(must be at least 400\)$"),
}


@pytest.mark.statistical
def test_sound_draws_pass():
    found = verdict()
    assert found.passed
    assert found.reasons == ()
    assert str(found) == "passed"
    assert found.divergences == 0
    assert 1.0 <= found.max_rhat < diagnostics.MAX_RHAT
    assert min(found.min_ess_bulk, found.min_ess_tail) >= CHAINS * diagnostics.MIN_ESS_PER_CHAIN
    assert 1.5 < found.min_ebfmi < 2.5


def everywhere(name, value):
    """One entry is the same number in all draws of all chains."""
    return put("posterior", name, np.s_[..., 0], value)


@pytest.mark.statistical
@pytest.mark.parametrize("kept", [{"draw": slice(None, None, 2)}, {"draw": slice(50, None)}, {"chain": [0, 2]}])
def test_a_part_of_sound_draws_passes(kept):
    result = diagnostics.check(arviz_base.from_dict(groups()).isel(kept))
    assert result.passed, str(result)


@pytest.mark.statistical
def test_a_constant_of_the_model_is_left_out():
    assert verdict(everywhere("eta", 1.0)).passed
    assert verdict(everywhere("tau", 1.0)).passed  # its only entry


def test_a_sampler_that_never_moves_fails():
    def stuck(posterior, sample_stats):
        for values in (*posterior.values(), sample_stats["lp"]):
            values[...] = 1.0

    assert_among(verdict(stuck), "^lp has a constant chain$")


@pytest.mark.statistical
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_fails_for_its_one_reason(fault):
    change, reason = FAULTS[fault]
    found = verdict(change)
    assert not found.passed
    assert len(found.reasons) == 1
    assert_among(found, reason)


@pytest.mark.statistical
@pytest.mark.parametrize("fault", WIDER_FAULTS)
def test_a_wider_fault_fails_for_this_reason_too(fault):
    change, reason = WIDER_FAULTS[fault]
    assert_among(verdict(change), reason)


def assert_among(found, reason):
    """Look for a reason, and for the same in the one-line verdict."""
    assert any(re.search(reason, one) for one in found.reasons), found.reasons
    assert str(found) == "FAILED: " + "; ".join(found.reasons)


@pytest.mark.statistical
def test_all_faults_are_told_together():
    def change(posterior, sample_stats):
        sample_stats["diverging"][:2, 0] = True
        random_walk(posterior, sample_stats)
        shifted(posterior, sample_stats)

    found = verdict(change)
    assert found.divergences == 2
    assert [reason.split(" ")[0] for reason in found.reasons][:2] == ["2", "R-hat"]
    assert found.reasons[-1].startswith("E-BFMI")


def test_missing_statistics_and_bad_draws_are_told_together():
    def change(posterior, sample_stats):
        del sample_stats["energy"], sample_stats["diverging"]
        posterior["tau"][0, 0] = np.nan

    found = verdict(change)
    assert found.reasons == (
        "sample_stats lacks diverging",
        "sample_stats lacks energy",
        "tau has draws that are not finite",
    )
    assert np.isnan([found.max_rhat, found.min_ess_bulk, found.min_ess_tail, found.min_ebfmi]).all()


def test_a_posterior_without_statistics_fails():
    tree = arviz_base.from_dict({"posterior": groups()["posterior"]})
    assert diagnostics.check(tree).reasons == tuple(f"sample_stats lacks {name}" for name in diagnostics.NEEDED)


def test_the_thresholds_are_those_of_the_house():
    found = diagnostics.MAX_RHAT, diagnostics.MIN_ESS_PER_CHAIN, diagnostics.MIN_EBFMI
    assert found == (1.01, 100, 0.3)


@pytest.fixture(scope="module")
def problem():
    """Return a small model, covariates and labels."""
    moe, x = contaminated([[1.0], [0.0]], activation="tanh"), np.random.default_rng(0).normal(size=(80, 1))
    return moe, x, moe.simulate(0, moe.params(tau=0.5, beta=1.0, eta=-1.5), x)


@pytest.mark.statistical
def test_a_real_posterior_passes_and_a_few_draws_of_it_fail(problem):
    options = {"num_warmup": 500, "num_samples": 2000, "progress_bar": False}
    idata, verdict = first_that_passes(lambda base: nuts.sample(*problem, rng_key=base, **options), key(1))
    assert verdict.passed, verdict
    few = diagnostics.check(idata.isel(draw=slice(0, 50)))
    assert any(reason.startswith("bulk ESS") for reason in few.reasons)


@pytest.mark.statistical
def test_a_single_chain_is_told_that_one_is_too_few():
    tree = {name: {key: value[:1] for key, value in group.items()} for name, group in groups().items()}
    found = diagnostics.check(arviz_base.from_dict(tree))
    assert len(found.reasons) == 1
    assert "chain" in found.reasons[0]
