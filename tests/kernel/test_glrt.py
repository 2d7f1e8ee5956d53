"""The generalised likelihood-ratio test: its statistic, its p-value under null and alternative, errors."""

import re
from functools import cache

import numpy as np
import pytest
from montecarlo import FALSE_ALARM, key, share
from scipy import stats

from bayes_moe import varying_coefficient
from mle.kernel import glrt, kernel_em

REPLICATES = 39
LEVEL = 0.05  # of every test here
SETS = 4  # data sets; a right test rejects all of them at this level in 6 of a million cases


@cache
def slope_fit(change=0.0, seed=0, n=250):
    """Return a fit of one normal component whose slope at u is 1 + change (u - 1/2)."""
    rng = np.random.default_rng(seed)
    model = varying_coefficient("normal", 1, gate_features=0, expert_features=2)
    z, u = rng.normal(size=(n, 2)), rng.uniform(size=n)
    none = np.zeros((n, 0))
    y = np.sin(3 * u) + (1 + change * (u - 0.5)) * z[:, 0] + 0.4 * rng.normal(size=n)
    return kernel_em.fit(model, none, z, u, y, h=0.3, grid=10, random_state=0)


def p_value(fit, **hypothesis):
    return glrt.test(fit, **hypothesis, replicates=REPLICATES, random_state=key(0))


def seeds(count):
    return range(key(0), key(0) + count)


@pytest.mark.slow
def test_the_statistic_is_the_difference_of_two_log_likelihoods():
    fit = slope_fit()
    found = glrt.test(fit, constant=["alpha[:,1]"], zero=["alpha[:,2]"], method="chi-square")
    alpha = found.null.params["alpha"]
    assert np.ptp(alpha[:, 0, 1]) == 0
    assert (alpha[:, 0, 2] == 0).all()
    assert np.ptp(alpha[:, 0, 0]) > 0.3
    assert found.null.fixed == {"alpha[:,2]": 0.0}
    assert found.statistic == pytest.approx(fit.log_likelihood - found.null.log_likelihood)
    own = fit.at(fit.grid)["alpha"][:, 0, 1]
    assert own.min() < alpha[0, 0, 1] < own.max()


def test_the_chi_square_is_that_of_the_formula():
    fit = slope_fit()
    found = glrt.test(fit, constant=["alpha[:,1]"], method="chi-square")
    assert found.degrees == pytest.approx(2.1153 * 1 * 0.45 / 0.3, rel=1e-4)
    assert found.p_value == pytest.approx(stats.chi2.sf(2.1153 * found.statistic, found.degrees), rel=1e-3)
    assert found.monte_carlo_error == 0


@pytest.mark.statistical
def test_a_slope_that_changes_is_found_and_one_that_does_not_is_not():
    nulls = [p_value(slope_fit(seed=seed), constant=["alpha[:,1]"]) for seed in seeds(SETS)]
    null, alternative = nulls[0], p_value(slope_fit(2.0, key(0)), constant=["alpha[:,1]"])
    assert max(found.p_value for found in nulls) > LEVEL
    assert alternative.p_value == 1 / (1 + REPLICATES)
    assert alternative.statistic > 3 * alternative.draws.max() / 2
    assert null.failed == 0
    for found in (null, alternative):
        p = (1 + (found.draws >= found.statistic).sum()) / (1 + REPLICATES)
        assert found.p_value == p
        assert found.monte_carlo_error == pytest.approx(np.sqrt(p * (1 - p) / (1 + REPLICATES)))


@pytest.mark.statistical
def test_a_coefficient_that_is_zero_passes_and_one_that_is_not_fails():
    assert max(p_value(slope_fit(seed=seed), zero=["alpha[:,2]"]).p_value for seed in seeds(SETS)) > LEVEL
    assert p_value(slope_fit(seed=key(0)), zero=["alpha[:,1]"]).p_value == 1 / (1 + REPLICATES)


def test_a_replicate_that_fails_counts_against_rejection(monkeypatch):
    fit = slope_fit(2.0)
    monkeypatch.setattr(glrt.curve_bootstrap, "run", lambda *_: [np.nan] * 10 + [0.0] * 29)
    found = p_value(fit, constant=["alpha[:,1]"])
    assert (found.failed, found.p_value) == (10, 11 / 40)
    assert "10 refits failed" in str(found)


BAD = {
    "no hypothesis": (lambda: p_value(slope_fit()), "constant or zero", "neither"),
    "unknown coefficient": (lambda: p_value(slope_fit(), zero=["gamma"]), "zero", "alpha"),
    "named twice": (lambda: p_value(slope_fit(), zero=["alpha"], constant=["alpha[0,1]"]), "zero", "repeat"),
    "an unknown method": (lambda: glrt.test(slope_fit(), zero=["alpha"], method="wald"), "method", "bootstrap"),
    "no random_state": (lambda: glrt.test(slope_fit(), zero=["alpha[:,2]"]), "random_state", "None"),
    "few replicates": (
        lambda: glrt.test(slope_fit(), zero=["alpha[:,2]"], random_state=0, replicates=3),
        "replicates",
        "at least 20",
    ),
}


@pytest.mark.parametrize(("call", "argument", "hint"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_by_name(call, argument, hint):
    with pytest.raises(ValueError, match=rf"^{argument}(?!\w)") as caught:
        call()
    assert re.search(hint, str(caught.value)), str(caught.value)


@pytest.mark.slow
@pytest.mark.statistical
def test_p_values_are_uniform_under_the_null_and_small_under_the_alternative():
    def p_values(change, count):
        return np.array([p_value(slope_fit(change, seed), constant=["alpha[:,1]"]).p_value for seed in seeds(count)])

    null = p_values(0.0, 100)
    assert stats.kstest(null, "uniform").pvalue > FALSE_ALARM
    assert share(np.sum(null <= LEVEL), 100, LEVEL) > FALSE_ALARM
    weak, strong = (np.mean(p_values(change, 15) <= LEVEL) for change in (0.3, 1.2))
    assert weak < strong
    assert strong > 0.8
    assert stats.kstest(p_values(1.2, 15), "uniform").pvalue < FALSE_ALARM
