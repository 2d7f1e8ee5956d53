"""Log-log slopes, their intervals, and the slopes of an efficient estimator."""

import functools
import warnings

import jax
import numpy as np
import pytest
from montecarlo import STANDARD_ERRORS, key, may_lie_between
from scipy.stats import chi2, norm, pareto
from selection import quick

from bayes_moe import contaminated
from bayes_moe.theory import information
from comparisons import catalogue
from comparisons.contaminated import regimes
from comparisons.report import coverage, optimisation, rates, slopes, summary, tails
from comparisons.study.plan import Regime, Study

SIZES = [1000, 3000, 10_000, 30_000, 100_000]
REPLICATES = 40
TABLES = 400
COVERAGE = 0.91, 0.995  # of 95% intervals over them, five standard errors and more around what medians have, 96%
TRIALS = 2000
CALIBRATED = 0.92, 0.98  # of 95% intervals; what the study engine promises
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


@pytest.mark.statistical
def test_interval_covers_the_true_slope_and_no_other(monkeypatch):
    monkeypatch.setattr(rates, "RESAMPLES", 400)
    found = [rates.slope(SIZES, table(-0.5, seed)) for seed in range(key(0), key(0) + TABLES)]
    low, high = np.array([[s.low, s.high] for s in found]).T
    covered = {power: np.mean((low <= power) & (power <= high)) for power in (-0.5, -0.375, -0.625)}
    assert COVERAGE[0] < covered[-0.5] < COVERAGE[1]
    assert max(covered[-0.375], covered[-0.625]) < 0.5
    values = np.array([s.value for s in found])
    assert abs(values.mean() + 0.5) < STANDARD_ERRORS * values.std() / np.sqrt(TABLES)


def test_a_size_with_few_replicates_counts_by_its_share_of_the_variance():
    errors = table(-0.5, seed=1)
    plain = rates.slope(SIZES, errors)
    errors[2] = errors[2][:2]  # the size in the middle, on which the slope hardly depends
    found = rates.slope(SIZES, errors)
    assert found.high - found.low == pytest.approx(plain.high - plain.low, rel=0.1)
    assert found.df > REPLICATES - 1


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("statistic", rates.STATISTICS)
def test_intervals_of_unequal_sizes_are_calibrated(statistic, monkeypatch):
    monkeypatch.setattr(rates, "RESAMPLES", 400)
    monkeypatch.setattr(tails, "TRIALS", 200)
    rng, counts = np.random.default_rng(key(7)), (40, 40, 40, 10)
    lengths = [[np.linalg.norm(rng.normal(size=(c, 4)), axis=1) for c in counts] for _ in range(TRIALS)]
    found = [rates.slope(SIZES[: len(counts)], errors, statistic) for errors in lengths]
    found = [slope for slope in found if slope.covered]
    assert len(found) >= 0.7 * TRIALS  # a tenth of tables have a size that looks unlike the others
    assert may_lie_between(sum(slope.covers(0.0) for slope in found), len(found), *CALIBRATED)
    assert np.mean([slope.covers(0.25) for slope in found]) < 0.5


def test_errors_of_zero_have_no_logarithm_and_no_warning():
    ones, zeros, half = np.ones(8), np.zeros(8), np.repeat([1.0, 0.0, 1.0], [3, 3, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rates.slope([10, 100], [ones, zeros]) is None
        assert rates.difference([10, 100], [ones, ones], [zeros, zeros]) is None
        found = rates.slope([10, 100], [ones, half])
        assert (found.value, found.low, found.high) == (0.0, -np.inf, np.inf)
        assert rates.level(zeros) == (0.0, 0.0, np.inf)
        assert rates.level(half, "median") == (1.0, 0.0, np.inf)


def test_slope_is_printed_with_its_interval_if_there_is_one():
    assert str(rates.Slope(-0.5, -0.554, -0.438)) == "-0.50 [-0.55, -0.44]"
    assert str(slopes.Slope.bare(-0.5)) == str(rates.Slope(-0.5, -np.inf, np.inf)) == "-0.50 [not covered]"
    assert np.isnan(slopes.Slope.bare(-0.5).p_value(-0.5))
    assert not slopes.Slope.bare(-0.5).covers(-0.5)


# Means with heavy tails --------------------------------------------------------------------------------------------

HEAVY = {  # all with a finite mean of what is averaged, so that the true slope is zero
    "t3": lambda rng, count: np.abs(rng.standard_t(3, count)),
    "log-normal, sigma 2": lambda rng, count: np.exp(2 * rng.normal(size=count)),
    "Pareto 2.1": lambda rng, count: 1 + rng.pareto(2.1, count),
    "Pareto 3": lambda rng, count: 1 + rng.pareto(3, count),
    "exponential": lambda rng, count: rng.exponential(size=count),
    "normal": lambda rng, count: np.abs(rng.normal(size=count)),
}
UNEQUAL = (40, 40, 40, 10), (40, 20, 10, 5), (20,) * 5, (200, 100, 40, 10)
FALSE = 0.085  # of trials with an interval that misses: 5%, four Monte Carlo errors (400 trials) and a bias of 2% off
HELD = 0.88  # of the intervals that there are, at least, however few


def trials(draw, counts, statistic):
    """Shares of trials with an interval, and of those with one that misses the true slope."""
    rng, sizes = np.random.default_rng(11), 1000 * 3 ** np.arange(len(counts))
    found = [rates.slope(sizes, [draw(rng, count) for count in counts], statistic) for _ in range(400)]
    given = [slope for slope in found if slope.covered]
    return len(given) / len(found), sum(not slope.covers(0.0) for slope in given) / len(found)


@pytest.mark.slow
@pytest.mark.parametrize("statistic", rates.POWERS)
@pytest.mark.parametrize("counts", UNEQUAL, ids=str)
@pytest.mark.parametrize("name", HEAVY)
def test_a_mean_s_interval_holds_or_there_is_none(name, counts, statistic, monkeypatch):
    monkeypatch.setattr(tails, "TRIALS", 300)
    given, missed = trials(HEAVY[name], counts, statistic)
    assert missed <= FALSE
    assert missed <= (1 - HELD) * given + 4 * np.sqrt(HELD * (1 - HELD) * given / 400)


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, -1])
def test_one_size_with_a_heavy_tail_and_few_replicates_is_found(place, monkeypatch):
    """Means are one at each size; before, 20% and more of trials had an interval that missed."""
    monkeypatch.setattr(tails, "TRIALS", 300)
    rng, sizes = np.random.default_rng(5), SIZES[:4]
    wrong = 0
    for _ in range(400):
        errors = [np.abs(rng.normal(size=40)) * np.sqrt(np.pi / 2) for _ in sizes]
        errors[place] = np.exp(2 * rng.normal(size=10) - 2)
        found = rates.slope(sizes, errors, "mean")
        wrong += found.covered and not found.covers(0.0)
    assert wrong <= 0.12 * 400  # 6.5% found, four Monte Carlo errors


@pytest.mark.slow
def test_student_s_interval_of_a_heavy_mean_would_be_found_out(monkeypatch):
    """Planted: tails are not looked at, as they were not."""
    monkeypatch.setattr(tails, "HEAVY", np.inf)
    monkeypatch.setattr(tails, "ALIEN", 0.0)
    monkeypatch.setattr(tails, "multiplier", lambda *_: 0.0)
    for name, statistic in (("log-normal, sigma 2", "mean"), ("t3", "rmse"), ("Pareto 2.1", "rmse")):
        given, missed = trials(HEAVY[name], UNEQUAL[0], statistic)
        assert given == 1.0
        assert missed > 0.12 > FALSE


@pytest.mark.parametrize("statistic", rates.POWERS)
def test_heavy_tails_have_no_interval_and_medians_have(statistic):
    rng, counts = np.random.default_rng(11), UNEQUAL[0]
    errors = [HEAVY["log-normal, sigma 2"](rng, count) for count in counts]
    found = rates.slope(SIZES[:4], errors, statistic)
    assert str(found).endswith("[not covered]")
    assert np.isfinite(found.value)
    assert rates.slope(SIZES[:4], errors).covered
    assert not rates.slope(SIZES[:3], [rng.normal(size=4) ** 2 for _ in range(3)], statistic).covered  # too few to say
    assert not rates.difference(SIZES[:4], errors, [np.sqrt(e) for e in errors], statistic).covered
    clusters = [[e[i : i + 2] for i in range(len(e) - 1)] for e in errors]
    assert not rates.pooled_slope(SIZES[:4], clusters).covered


def test_tail_index_and_law_against_scipy():
    terms = [1 + np.random.default_rng(seed).pareto(4.0, 4000) for seed in range(2)]
    found = tails.tail(terms)
    assert found.index == pytest.approx(0.25, abs=4 * 0.25 / np.sqrt(0.1 * 8000))
    drawn = found.draw(np.random.default_rng(1), (200_000,))
    assert drawn.mean() == pytest.approx(found.mean, rel=0.01)
    exact = pareto(4.0).ppf([0.5, 0.9, 0.99]) / pareto(4.0).median()
    np.testing.assert_allclose(np.quantile(drawn, [0.5, 0.9, 0.99]), exact, rtol=0.1)


# The efficient estimator -----------------------------------------------------------------------------------------


def heterogeneous(moe, truth):
    frozen = np.array([[1.0], [0.0]])
    scales = functools.partial(regimes.contamination_scales, away_from=np.zeros((1, 1)))
    measured = regimes.contamination_losses(moe, frozen, "heterogeneous")
    return Regime("one", "one", moe, lambda n: truth, measured, {}, scales)


def test_median_error_of_one_parameter_is_its_bound_times_the_normal_quartile():
    moe = contaminated([[1.0], [0.0]], frozen_activation="linear", activation="tanh")
    truth = moe.params(tau=0.0, beta=0.5, eta=-1.5)
    regime = heterogeneous(moe, truth)
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


def rows_of(regime, sizes, factor, count=20):
    """Rows whose every error is the bound's root mean square times a factor."""
    limits = rates.bound(regime, sizes, "rmse")
    return [
        {"regime": regime.name, "estimator": "mle", "n": n, "replicate": i, "status": "ok"}
        | {f"error_{name}": factor * values[k] for name, values in limits.items()}
        for k, n in enumerate(sizes)
        for i in range(count)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1.0, 1.3])
def test_error_over_bound_is_read_off_size_by_size(factor):
    regime, sizes = catalogue.figure("fig3").regimes[0], (1000, 10**6)
    study = Study("one", "one", (regime,), {"mle": sizes}, {"mle": 20}, {"mle": catalogue.MLE})
    records = summary.efficiency(rows_of(regime, sizes, factor), study, ["rmse"])
    assert len(records) == len(sizes) * len(regime.moe.fields)
    for record in records:
        assert record["over_bound"] == pytest.approx(factor)
        assert record["low"] == pytest.approx(factor)
        assert record["window"] == (record["n"] in rates.window(regime, sizes))
    assert {r["window"] for r in records if r["n"] == 10**6} == {True}


@pytest.mark.statistical
def test_interval_of_a_root_mean_square_covers_it(monkeypatch):
    monkeypatch.setattr(tails, "TRIALS", 300)
    tables = np.abs(np.random.default_rng(key(3)).normal(size=(300, 5, 200)))  # a size among five
    found = np.array([rates.level(errors[0], "rmse", seed, among=errors) for seed, errors in enumerate(tables)])
    found = found[np.isfinite(found[:, 1])]
    assert len(found) > 0.7 * len(tables)
    assert may_lie_between(np.sum((found[:, 1] <= 1) & (found[:, 2] >= 1)), len(found), *CALIBRATED)
    assert np.mean((found[:, 1] <= 1.2) & (found[:, 2] >= 1.2)) < 0.1  # planted: a fifth off is found


@pytest.mark.statistical
@pytest.mark.parametrize("count", [4, 10, 40])
def test_interval_of_a_root_mean_square_of_few_covers_it(count, monkeypatch):
    monkeypatch.setattr(tails, "TRIALS", 200)
    rng = np.random.default_rng(key(3))
    tables = np.linalg.norm(rng.normal(size=(500, 4, 40, 4)), axis=-1) / 2  # errors of four coordinates, at four sizes
    own = [[errors[0][:count], *errors[1:]] for errors in tables]
    found = np.array([rates.level(errors[0], "rmse", seed, among=errors) for seed, errors in enumerate(own)])
    found = found[np.isfinite(found[:, 1])]
    assert len(found) > 0.7 * len(tables)
    assert may_lie_between(np.sum((found[:, 1] <= 1) & (found[:, 2] >= 1)), len(found), *CALIBRATED)
    assert (found[:, 1] < found[:, 0]).all()


def test_a_mean_of_few_or_heavy_errors_has_no_interval():
    rng = np.random.default_rng(0)
    few, light = (np.linalg.norm(rng.normal(size=(count, 4)), axis=1) for count in (12, 400))
    heavy = np.exp(2 * rng.normal(size=400))
    for errors in (few, heavy):
        assert np.isnan(rates.level(errors)[1:]).all()
        assert np.isfinite(rates.level(errors, "median")).all()
    assert np.isfinite(rates.level(light)).all()
    assert np.isfinite(rates.level(few, among=[light, few])).all()


# Other summaries, tests and paired differences ---------------------------------------------------------------------


@pytest.mark.parametrize("statistic", rates.STATISTICS)
def test_slope_of_any_summary_is_least_squares_of_its_log(statistic):
    errors = table(-0.5, seed=1)
    values = [{"median": np.median(e), "mean": e.mean(), "rmse": np.sqrt((e**2).mean())}[statistic] for e in errors]
    expected = np.polyfit(np.log(SIZES), np.log(values), 1)[0]
    assert rates.slope(SIZES, errors, statistic).value == pytest.approx(expected, abs=EXACT)


def test_p_value_and_interval_agree():
    found = rates.slope(SIZES, table(-0.5, seed=1))
    assert found.p_value(found.value) == pytest.approx(1.0)
    assert found.p_value(found.low) == pytest.approx(0.05)
    assert found.p_value(found.high) == pytest.approx(0.05)
    assert found.covers(found.low)
    assert not found.covers(found.low - 1e-6)


def test_one_replicate_has_no_interval():
    found = rates.slope([10, 100], [np.array([1.0]), np.array([0.1])])
    assert (found.value, found.low, found.high) == (pytest.approx(-1.0), -np.inf, np.inf)


def test_paired_difference_sees_through_what_both_share():
    shared = table(-0.5, seed=5)
    faster = [e * n**-0.1 for e, n in zip(shared, SIZES, strict=True)]
    found = rates.difference(SIZES, faster, shared)
    assert (found.low, found.value, found.high) == pytest.approx((-0.1, -0.1, -0.1), abs=1e-9)
    unpaired = rates.difference(SIZES, faster, table(-0.5, seed=6))
    assert unpaired.high - unpaired.low > 0.05


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("statistic", rates.STATISTICS)
@pytest.mark.parametrize("coordinates", [1, 4])
@pytest.mark.parametrize("paired", [False, True])
def test_intervals_are_calibrated(statistic, coordinates, paired, monkeypatch):
    """Errors are lengths of normal vectors, as those of an efficient estimator are."""
    monkeypatch.setattr(rates, "RESAMPLES", 400)
    monkeypatch.setattr(tails, "TRIALS", 400)
    rng = np.random.default_rng(key(7))
    covered, count = np.zeros(3), 0
    for _ in range(TRIALS):
        vectors = rng.normal(size=(len(SIZES), REPLICATES, coordinates))
        others = 0.8 * vectors + 0.6 * rng.normal(size=vectors.shape)
        lengths = [np.linalg.norm(v, axis=-1) for v in (vectors, others)]
        errors = [e * n**-0.375 for e, n in zip(lengths[0], SIZES, strict=True)]
        if paired:
            slower = [e * n**-0.25 for e, n in zip(lengths[1], SIZES, strict=True)]
            found, true = rates.difference(SIZES, errors, slower, statistic), -0.125
        else:
            found, true = rates.slope(SIZES, errors, statistic), -0.375
        covered += [found.covers(true), found.covers(true + 0.25), found.covers(true - 0.25)]
        count += found.covered
    assert count > TRIALS / 3  # squares of single normal errors have a tail that is hard to tell from a heavy one
    assert may_lie_between(covered[0], count, *CALIBRATED)
    assert max(covered[1:]) < 0.5 * count


# Windows, bounds of other summaries --------------------------------------------------------------------------------


def one_dimensional(tau=0.0):
    moe = contaminated([[1.0], [0.0]], frozen_activation="linear", activation="tanh")
    truth = moe.params(tau=tau, beta=0.5, eta=-1.5)
    return heterogeneous(moe, truth)


def test_root_mean_square_bound_is_the_cramer_rao_bound():
    regime, n = one_dimensional(tau=1.0), 1000
    x = np.random.default_rng(0).normal(size=(20_000, 1))
    sd = information.cramer_rao(regime.moe, regime.truth(n), x, n)
    found = rates.bound(regime, [n], "rmse")
    assert found["beta"][0] == pytest.approx(sd["beta"].item(), rel=MONTE_CARLO)
    assert found["tau"][0] == pytest.approx(np.e * sd["tau"].item(), rel=MONTE_CARLO)
    mean = rates.bound(regime, [n], "mean")
    assert mean["beta"][0] == pytest.approx(np.sqrt(2 / np.pi) * sd["beta"].item(), rel=MONTE_CARLO)


def test_window_begins_where_the_bound_is_a_fifth_of_the_parameter():
    regime, sizes = one_dimensional(), [100, 1000, 10_000, 100_000, 10**6]
    inside = rates.window(regime, sizes)
    assert inside == tuple(n for n in sizes if max(rates.relative_bound(regime, n).values()) <= rates.WINDOW)
    assert 0 < len(inside) < len(sizes)
    scale = {"tau": 1.0, "beta": 1.0, "eta": 1.5}
    for name, value in rates.relative_bound(regime, 10**6).items():
        assert value == pytest.approx(rates.bound(regime, [10**6], "rmse")[name][0] / scale[name])


def test_exponents_follow_how_fast_the_adapter_nears_the_frozen_expert():
    assert regimes.exponents(True, 1 / 8) == {"tau": -1 / 4, "beta": -3 / 8, "eta": -3 / 8, "hellinger": -1 / 2}
    assert set(regimes.exponents(False, 1 / 8).values()) == {-1 / 2}
    assert set(regimes.exponents(True, 0.0).values()) == {-1 / 2}


@pytest.mark.parametrize("regime", quick({one.name: one for one in catalogue.beyond().regimes}, "relu"))
def test_regimes_beyond_the_theorem_can_be_measured(regime):
    truth = regime.truth(1000)
    turned = {name: value[::-1] for name, value in truth.items()}
    with jax.enable_x64(True):
        found = {name: float(value) for name, value in regime.losses(turned, truth).items()}
        moved = float(regime.losses(truth | {"eta": truth["eta"] + 0.1}, truth)["eta"])
    assert all(abs(value) < 1e-12 for value in found.values())  # the order of adapters does not matter
    assert moved == pytest.approx(0.1 * np.sqrt(truth["eta"].size))
    assert set(rates.bound(regime, [10_000])) == set(regime.moe.fields)


# Coverage and optimisation error ------------------------------------------------------------------------------------


def row(estimator="mle", n=100, replicate=0, **columns):
    return {"regime": "one", "estimator": estimator, "n": n, "replicate": replicate, "status": "ok", **columns}


def test_coverage_counts_intervals_and_those_that_are_missing():
    rows = [row(replicate=i, cover_tau=float(i < 9), width_tau=i + 1.0, likelihood_ratio=i) for i in range(10)]
    rows[0] |= {"profile_cover_tau": 1.0, "profile_width_tau": 3.0}
    rows += [row(replicate=10), row("nuts", cover_tau=1.0, width_tau=2.0)]
    wald, profile, joint, credible = coverage.summarise(rows, one_dimensional())
    assert (wald.kind, wald.parameter, wald.value, wald.count, wald.missing) == ("Wald", "tau", 0.9, 10, 1)
    assert wald.width == 5.5
    assert (profile.kind, profile.value, profile.width, profile.count) == ("profile", 1.0, 3.0, 1)
    assert wald.low < 0.9 < wald.high
    assert joint.value == np.mean(np.arange(10) <= chi2.ppf(0.95, 3))
    assert (credible.kind, credible.value) == ("credible", 1.0)


def test_optimisation_error_compares_starts_on_the_same_data():
    def fit(estimator, replicate, value, error):
        errors = {f"error_{name}": error for name in ("tau", "beta", "eta")}
        return row(estimator, 100, replicate, log_likelihood=value, likelihood_ratio=value, **errors)

    rows = [fit("mle", i, v, 1.0) for i, v in enumerate((1.0, 2.0, 3.0, -1.0))]
    rows += [fit("mle-near", i, v, e) for i, (v, e) in enumerate([(1.0, 1.0), (5.0, 0.5), (2.0, 0.2), (-1.0, 1.0)])]
    rows.append(fit("mle-near", 9, 0.0, 0.0))
    (found,) = optimisation.summarise(rows, one_dimensional())
    assert (found.n, found.count, found.missed, found.won, found.below_truth) == (100, 4, 0.25, 0.25, 0.25)
    assert found.error["eta"] == pytest.approx((0.5 + 0.8) / 4)
