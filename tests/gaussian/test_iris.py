"""The irises: divisions, densities against others' codings, and the way to table and figure; the digits' table too."""

import numpy as np
import pytest
from montecarlo import STANDARD_ERRORS, key
from scipy import stats
from sklearn.mixture import GaussianMixture

from bayes_moe import gaussian_gated
from comparisons.contaminated import digits
from comparisons.gaussian import iris, iris_figure
from comparisons.report.splits import mean
from comparisons.study.contract import LEVEL

SAME = 1e-8
NEAR = 0.05  # nats a flower: how far two climbs to one maximum may differ, since floors and ridges do


def test_a_split_keeps_test_and_training_apart_and_standardises_by_training_alone():
    data = iris.split(3)
    assert (len(data.y), len(data.y_test)) == (100, iris.TEST)
    assert data.x.mean() == pytest.approx(0, abs=SAME)
    assert data.y.std() == pytest.approx(1, abs=SAME)
    assert abs(data.y_test.mean()) > SAME
    petals = np.concatenate([data.y, data.y_test]) * data.units.y_sd + data.units.y_mean
    np.testing.assert_allclose(np.sort(petals), np.sort(iris.flowers()[1]))


def test_the_single_regression_is_least_squares():
    data = iris.split(0)
    line = stats.linregress(data.x[:, 0], data.y)
    sd = np.sqrt(((data.y - line.intercept - line.slope * data.x[:, 0]) ** 2).sum() / 98)
    expected = stats.norm.logpdf(data.y_test, line.intercept + line.slope * data.x_test[:, 0], sd)
    np.testing.assert_allclose(iris.single(data, 0).log_scores, expected, rtol=SAME)


def test_scikits_conditional_is_ours_at_its_parameters(monkeypatch):
    data = iris.split(1)
    monkeypatch.setattr(iris, "EXPERTS", (3,))
    rows = np.column_stack([data.x, data.y])
    fitted = GaussianMixture(3, n_init=iris.STARTS, reg_covar=iris.LEAST, tol=1e-6, max_iter=2000, random_state=1)
    s = fitted.fit(rows).covariances_
    slope = s[:, 0, 1] / s[:, 0, 0]
    moe = gaussian_gated(3, 1)
    params = {"pi": fitted.weights_, "c": fitted.means_[:, :1], "Gamma": s[:, :1, :1], "a": slope[:, None]}
    params |= {"b": fitted.means_[:, 1] - slope * fitted.means_[:, 0], "nu": s[:, 1, 1] - slope * s[:, 0, 1]}
    expected = moe.conditional_log_density(params, data.x_test, data.y_test)
    np.testing.assert_allclose(iris.scikit(data, 1).log_scores, expected, rtol=SAME)


@pytest.mark.slow
def test_the_mle_and_scikits_mixture_are_one_model():
    data = iris.split(0)
    ours, other = iris.maximum_likelihood("bic")(data, 0), iris.scikit(data, 0)
    assert ours.note == other.note
    assert ours.log_scores.mean() == pytest.approx(other.log_scores.mean(), abs=NEAR)
    assert ours.log_scores.mean() > iris.single(data, 0).log_scores.mean() + NEAR


@pytest.mark.slow
@pytest.mark.statistical
def test_the_posterior_passes_the_gate_and_is_a_density():
    data = iris.split(0)
    notes = (iris.posterior(data, seed).note for seed in range(key(0), key(0) + 3))
    assert any("failed" not in note for note in notes)  # of one seed 35 of 40 splits do
    y = np.linspace(-6, 6, iris.TEST)  # one flower's density, as many values as a split has test flowers
    at_one = iris.Split(data.x, data.y, np.repeat(data.x_test[:1], iris.TEST, axis=0), y, data.units)
    assert np.trapezoid(np.exp(iris.posterior(at_one, key(0)).log_scores), y) == pytest.approx(1, abs=0.05)


@pytest.mark.statistical
def test_intervals_allow_for_flowers_that_splits_share():
    """Correlated means: each is a common part, of variance test / (test + training), and one of its own."""
    rng, splits, covered, naive = np.random.default_rng(key(0)), 20, [], []
    shared = iris.TEST / len(iris.flowers()[1])
    for _ in range(2000):
        values = np.sqrt(shared) * rng.normal() + np.sqrt(1 - shared) * rng.normal(size=splits)
        value, half = mean(values, iris.RATIO)
        covered.append(abs(value) < half)
        naive.append(abs(value) < stats.t.ppf(0.975, splits - 1) * values.std(ddof=1) / np.sqrt(splits))
    assert np.mean(covered) == pytest.approx(LEVEL, abs=STANDARD_ERRORS * np.sqrt(0.95 * 0.05 / 2000))
    assert np.mean(naive) < 0.7  # planted error: splits taken for independent
    assert mean(np.ones(1), iris.RATIO) == (1.0, np.inf)


@pytest.mark.slow
def test_table_and_figure(tmp_path, monkeypatch):
    for module in (iris, iris_figure):
        monkeypatch.setattr(module, "EXPERTS", (1, 2))
    splits = [iris.split(seed) for seed in range(3)]
    forecasts = {
        name: [iris.Forecast(np.full(iris.TEST, -1.0 + 0.1 * place + 0.01 * seed), "2") for seed in range(3)]
        for place, name in enumerate(iris.METHODS)
    }
    result = iris.Result(splits, forecasts)
    text = iris.table(result)
    assert [line.split("  ")[0] for line in text.splitlines()[2:]] == list(iris.METHODS)
    assert "2: 3" in text
    assert "+0.100 [+0.100, +0.100]" in text
    assert result.gain(iris.ONE, iris.AGAINST)[0] == pytest.approx(-0.1)
    assert iris_figure.figure(result, tmp_path / "iris.png").stat().st_size > 10_000


# Digits --------------------------------------------------------------------------------------------------------------


def test_digits_intervals_allow_for_images_that_splits_share(tmp_path):
    splits, rng = [digits.split(seed) for seed in range(3)], np.random.default_rng(0)
    made = {
        name: [digits.Prediction(rng.dirichlet(np.ones(10), size=digits.TEST), "gate passed") for _ in splits]
        for name in digits.METHODS
    }
    result = digits.Result(splits, made)
    value, half = result.means(digits.SCRATCH)["log score"]
    values = result.scores(digits.SCRATCH)["log score"]
    assert value == pytest.approx(values.mean())
    error = values.std(ddof=1) * np.sqrt(1 / 3 + digits.TEST / (len(digits.load_digits().target) - digits.TEST))
    assert half == pytest.approx(stats.t.ppf(0.975, 2) * error)
    assert result.means(digits.SCRATCH)[digits.GAIN] == (0.0, 0.0)
    text = digits.table(result)
    assert f"{value:.3f} +- {half:.3f}" in text
    assert text.count("gate passed: 3") == len(digits.METHODS)
    assert digits.figure(result, tmp_path / "digits.png").stat().st_size > 10_000
