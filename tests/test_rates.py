"""Log-log slopes, their intervals, and the slopes of an efficient estimator."""

import numpy as np
import pytest
from scipy.stats import norm

from bayes_moe import contaminated, information
from comparisons import rates, regimes
from comparisons.study import Regime

SIZES = [1000, 3000, 10_000, 30_000, 100_000]
REPLICATES = 40
TABLES = 200
COVERAGE = 0.91, 0.995  # of 95% intervals over 200 tables; over 1500 tables they cover 96.7%: medians are discrete
EXACT = 1e-12
MONTE_CARLO = 0.05  # of the median of 4000 draws, and more


def table(true_slope, seed, spread=0.8):
    """Return log-normal errors around a power of n."""
    rng = np.random.default_rng(seed)
    return [n**true_slope * np.exp(spread * rng.normal(size=REPLICATES)) for n in SIZES]


@pytest.mark.parametrize("power", [-0.5, -0.125, 0.0, 1.0])
def test_slope_of_noiseless_errors_is_exact(power):
    errors = [np.full(REPLICATES, 7.0 * n**power) for n in SIZES]
    result = rates.slope(SIZES, errors)
    assert (result.value, result.low, result.high) == pytest.approx((power, power, power), abs=EXACT)
    assert rates.ols_slope(SIZES, np.array(errors)) == pytest.approx(np.full(REPLICATES, power), abs=EXACT)


def test_slope_is_least_squares_of_the_log_median():
    errors = table(-0.5, seed=1)
    medians = [np.median(e) for e in errors]
    expected = np.polyfit(np.log(SIZES), np.log(medians), 1)[0]
    assert rates.slope(SIZES, errors).value == pytest.approx(expected, abs=EXACT)


def test_slope_does_not_depend_on_units_or_one_outlier():
    errors = table(-0.5, seed=2)
    plain, scaled = rates.slope(SIZES, errors), rates.slope(SIZES, [1e6 * e for e in errors])
    assert (scaled.value, scaled.low, scaled.high) == pytest.approx((plain.value, plain.low, plain.high))
    errors[0][errors[0].argmax()] = 1e9
    assert rates.slope(SIZES, errors).value == plain.value


def test_interval_is_a_function_of_its_seed():
    errors = table(-0.5, seed=3)
    assert rates.slope(SIZES, errors, seed=4) == rates.slope(SIZES, errors, seed=4)
    assert rates.slope(SIZES, errors, seed=4) != rates.slope(SIZES, errors, seed=5)


def test_interval_covers_the_true_slope_and_no_other(monkeypatch):
    monkeypatch.setattr(rates, "RESAMPLES", 1000)
    found = [rates.slope(SIZES, table(-0.5, seed)) for seed in range(TABLES)]
    low, high = np.array([[s.low, s.high] for s in found]).T
    covered = {power: np.mean((low <= power) & (power <= high)) for power in (-0.5, -0.375, -0.625)}
    assert COVERAGE[0] < covered[-0.5] < COVERAGE[1]
    assert max(covered[-0.375], covered[-0.625]) < 0.5
    assert np.mean([s.value for s in found]) == pytest.approx(-0.5, abs=0.01)


def test_slope_is_printed_with_its_interval():
    assert str(rates.Slope(-0.5, -0.554, -0.438)) == "-0.50 [-0.55, -0.44]"


# The efficient estimator -----------------------------------------------------------------------------------------


def test_median_error_of_one_parameter_is_its_bound_times_the_normal_quartile():
    moe = contaminated([[1.0], [0.0]], frozen_activation="linear", activation="tanh")
    truth = moe.params(tau=0.0, beta=0.5, eta=-1.5)
    regime = Regime("one", "one", moe, np.array([[1.0], [0.0]]), "heterogeneous", lambda n: truth, {})
    n = 10**6
    found = rates.bound(regime, [n])
    x = np.random.default_rng(0).normal(size=(20_000, 1))
    sd = {name: value.item() for name, value in information.cramer_rao(moe, truth, x, n).items()}
    for name, value in sd.items():  # at tau* = 0 an error of e^tau is one of tau
        assert found[name][0] == pytest.approx(norm.ppf(0.75) * value, rel=MONTE_CARLO)


def test_slopes_of_the_bound_at_a_fixed_truth_are_one_half():
    eta0 = np.array([[1.0, 0.0], [0.0, 0.0]])
    move = np.array([[-2.0, 1.0], [0.0, 0.0]])
    options = {"eta0": eta0, "direction": move, "frozen_activation": "linear", "activation": "tanh"}
    regime = regimes.drifting("fixed", "fixed", power=0.0, **options)
    sizes = [10**5, 10**6, 10**7]
    for values in rates.bound(regime, sizes).values():
        assert rates.ols_slope(sizes, values[:, None])[0] == pytest.approx(-0.5, abs=0.01)
