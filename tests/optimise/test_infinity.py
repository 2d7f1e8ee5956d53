"""The likelihood at infinity: exact line searches, densities beside a hyperplane, and every hyperplane there is."""

import itertools

import numpy as np
import oracle
import pytest
from scipy import optimize
from scipy.special import expit, log_expit, log_softmax

from bayes_moe import contaminated, gaussian_gated
from bayes_moe.ground.data import float64
from mle import infinity, newton
from mle.optimise import hyperplanes
from mle.optimise.objective import Objective

ETA0 = np.array([[1.0, 0.0], [-0.5, 1.0], [0.0, 0.0]])
TRUTH = {"tau": 0.5, "beta": [0.5, -0.5], "eta": [[-1.0, 1.0], [-0.5, -1.5]]}
CLOSE = 1e-9
FEW = 14  # observations of which every division by a line is tried


def draw(n, seed, eta0=ETA0, **options):
    """Return a contaminated model with a tanh adapter, covariates and labels that do not depend on them."""
    moe = contaminated(eta0, frozen_activation="linear", activation="tanh", **options)
    rng = np.random.default_rng(seed)
    return moe, rng.normal(size=(n, eta0.shape[1])), rng.integers(len(eta0), size=n)


def land_of(moe, x, y, weights=None):
    """Return the search's view of the data."""
    return hyperplanes.Land(Objective(moe, moe.observe(x, y, weights)))


# Lines ---------------------------------------------------------------------------------------------------------------


def by_trying(lo, hi, scores, rates):
    """Return the highest sum on each line: one value of t between every two crossings, and beyond them."""
    best = []
    for rate in rates:
        crossings = np.unique(-scores[rate != 0] / rate[rate != 0])
        inner = (crossings[1:] + crossings[:-1]) / 2
        ends = [crossings[0] - 1, crossings[-1] + 1] if len(crossings) else [0.0]
        best.append(max(np.where(scores + t * rate < 0, lo, hi).sum() for t in [*inner, *ends]))
    return np.array(best)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("discrete", [False, True])
def test_line_search_finds_the_highest_of_all_places_on_its_lines(seed, discrete):
    rng = np.random.default_rng(seed)
    lo, hi, scores = rng.normal(size=(3, 15))
    rates = rng.normal(size=(4, 15))
    if discrete:  # observations that cross together, and some that never do
        scores, rates = np.round(scores), np.round(rates)
        scores[scores == 0] = 1.0
    value, line, t = hyperplanes.best_on_lines(lo, hi, scores, rates)
    expected = by_trying(lo, hi, scores, rates)
    assert value == pytest.approx(expected.max(), abs=CLOSE)
    assert expected[line] == pytest.approx(value, abs=CLOSE)
    assert np.where(scores + t * rates[line] < 0, lo, hi).sum() == pytest.approx(value, abs=CLOSE)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_line_search_reaches_beyond_the_first_and_the_last_crossing(sign):
    scores, rates = np.array([1.0, 2.0, 3.0]), np.ones((1, 3))
    value, _, t = hyperplanes.best_on_lines(np.zeros(3), np.full(3, sign), scores, rates)
    assert value == (3.0 if sign > 0 else 0.0)
    assert (t > -1) if sign > 0 else (t < -3)


# Sides ---------------------------------------------------------------------------------------------------------------


def sides_by_hand(x, y, params, row):
    """Return log densities with the gate's score (row 0) or a class's tanh at its limits, from the formula."""
    rows = np.arange(len(y))
    score = params["tau"][0] + x @ params["beta"][0]
    tanh = np.column_stack([np.tanh(x @ params["eta"][0].T), np.zeros(len(y))])
    frozen = log_softmax(x @ ETA0.T, axis=1)[rows, y]
    if row == 0:
        return frozen, log_softmax(tanh, axis=1)[rows, y]
    out = []
    for limit in (-1.0, 1.0):
        tanh[:, row - 1] = limit
        out.append(np.logaddexp(log_expit(-score) + frozen, log_expit(score) + log_softmax(tanh, axis=1)[rows, y]))
    return tuple(out)


@pytest.mark.parametrize("row", range(3))
@float64
def test_sides_are_the_formula_s_limits(row):
    moe, x, y = draw(50, 0)
    weights = np.random.default_rng(1).integers(1, 4, size=50)
    land, params = land_of(moe, x, y, weights), moe.params(**TRUTH)
    free = oracle.flatten(params)
    for found, expected in zip(land.sides(land.rows[row], free), sides_by_hand(x, y, params, row), strict=True):
        np.testing.assert_allclose(found, weights * expected, atol=CLOSE)


@pytest.mark.parametrize("activation", ["linear", "tanh", "sigmoid", "relu"])
@pytest.mark.parametrize("adapters", [1, 2])
@float64
def test_a_row_that_is_sent_to_infinity_has_the_density_of_its_side(activation, adapters):
    moe = contaminated(ETA0, frozen_activation="linear", activation=activation, adapters=adapters)
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(40, 2)), rng.integers(3, size=40)
    land = land_of(moe, x, y)
    free = rng.normal(size=len(land.places))
    assert len(land.rows) == adapters * 3
    for row in land.rows:
        direction = rng.normal(size=len(row.size))
        direction /= np.linalg.norm(direction)
        there = row.at(free, direction)
        low, high = land.sides(row, free)
        expected = np.where(direction @ row.design < 0, low, high)
        np.testing.assert_allclose(land.objective.log_densities(there), expected, atol=1e-6)
        assert land.value(there) == pytest.approx(expected.sum(), abs=1e-5)
        np.testing.assert_allclose(row.direction(there), direction)
        np.testing.assert_array_equal(land.sides(row, there), (low, high))  # its own size plays no part


# The search ----------------------------------------------------------------------------------------------------------


def highest_of_all(x, y, eta0):
    """Return the highest log likelihood of a step adapter of two classes, over every line through the origin.

    For each division of the observations by a line the gate climbs by BFGS from three places, in plain NumPy.
    """
    angles = np.sort(
        np.concatenate([np.arctan2(x[:, 1], x[:, 0]) + turn * np.pi / 2 for turn in (-1, 1)]) % (2 * np.pi)
    )
    middles = (angles + np.append(angles[1:], angles[0] + 2 * np.pi)) / 2
    frozen = log_softmax(x @ eta0.T, axis=1)[np.arange(len(y)), y]
    best = -np.inf
    for angle in middles:
        step = np.sign(x @ [np.cos(angle), np.sin(angle)])
        own = log_softmax(np.column_stack([step, np.zeros(len(y))]), axis=1)[np.arange(len(y)), y]
        for start in itertools.product([-1.0, 1.0], repeat=2):
            best = max(best, gate_at(np.array([0.0, *start]), x, frozen, own))
    return best


def gate_at(start, x, frozen, own):
    """Climb in the gate alone; its coefficients stay below 200, where it too is a step."""
    rows = np.column_stack([np.ones(len(x)), x])

    def negative(v):
        score = rows @ v
        joint = np.stack([log_expit(-score) + frozen, log_expit(score) + own])
        r = expit(joint[1] - joint[0])
        return -np.logaddexp(*joint).sum(), -(rows.T @ (r - expit(score)))

    found = optimize.minimize(negative, start, jac=True, method="L-BFGS-B", bounds=[(-200, 200)] * 3)
    return -found.fun


@pytest.mark.parametrize("seed", range(6))
def test_the_search_reaches_the_highest_of_all_divisions_by_a_line(seed):
    eta0 = np.array([[1.0, -0.5], [0.0, 0.0]])
    moe, x, y = draw(FEW, seed, eta0)
    fit = infinity.search(moe, newton.fit(moe, x, y, n_init=4, random_state=0), x, y, random_state=0)
    assert fit.log_likelihood >= highest_of_all(x, y, eta0) - 1e-4


def test_climbs_alone_miss_what_the_search_finds():
    """Labels that are noise: the likelihood is highest at infinity, and no gradient leads there."""
    moe, x, y = draw(300, 1)
    climbed = newton.fit(moe, x, y, n_init=8, random_state=0)
    found = infinity.search(moe, climbed, x, y, random_state=0)
    assert found.log_likelihood > climbed.log_likelihood + 0.5
    assert "infinity" in found.status or "no finite maximum" in found.status
    assert found.standard_errors is None
    model = oracle.Model(ETA0, "linear", "tanh")
    with np.errstate(over="ignore"):
        independent = oracle.log_density(model, {n: v[0] for n, v in found.params.items()}, x, y).sum()
    assert found.log_likelihood == pytest.approx(independent, rel=1e-9)
    assert found.starts[1:] == climbed.starts


def test_a_clear_maximum_comes_back_as_it_was():
    moe, x, _ = draw(2000, 0)
    y = moe.simulate(1, moe.params(**TRUTH), x)
    fit = newton.fit(moe, x, y, n_init=4, random_state=0)
    assert fit.status == "maximum"
    assert infinity.search(moe, fit, x, y, random_state=0) is fit


def test_neither_cores_nor_units_nor_repeated_rows_change_what_is_found(monkeypatch):
    moe, x, y = draw(200, 3)
    fit = newton.fit(moe, x, y, n_init=4, random_state=0)
    found = infinity.search(moe, fit, x, y, random_state=0)
    monkeypatch.setenv("BAYES_MOE_CORES", "1")
    alone = infinity.search(moe, fit, x, y, random_state=0)
    assert alone.starts[0].free.tolist() == found.starts[0].free.tolist()
    counted = infinity.search(moe, fit, x, y, random_state=0, weights=np.ones(200))
    assert counted.log_likelihood == pytest.approx(found.log_likelihood, abs=1e-6)
    power = contaminated(ETA0 / 1024, frozen_activation="linear", activation="tanh")
    scaled = newton.fit(power, 1024 * x, y, n_init=4, random_state=0)
    assert scaled.log_likelihood == pytest.approx(fit.log_likelihood, abs=1e-6)
    there = infinity.search(power, scaled, 1024 * x, y, random_state=0)
    assert there.log_likelihood == pytest.approx(found.log_likelihood, abs=1e-6)


def test_discrete_covariates_and_rows_of_zeros():
    rng = np.random.default_rng(0)
    moe, x, y = contaminated(ETA0, activation="tanh"), rng.integers(0, 2, size=(120, 2)), rng.integers(3, size=120)
    fit = newton.fit(moe, x, y, n_init=4, random_state=0)
    found = infinity.search(moe, fit, x, y, random_state=0)
    assert np.isfinite(found.log_likelihood)
    assert found.log_likelihood >= fit.log_likelihood


def test_faults_are_named():
    moe, x, y = draw(60, 0)
    fit = newton.fit(moe, x, y, n_init=2, random_state=0)
    with pytest.raises(ValueError, match="must be those of the fit"):
        infinity.search(moe, fit, x, y[::-1], random_state=0)
    with pytest.raises(ValueError, match="patience"):
        infinity.search(moe, fit, x, y, random_state=0, patience=-1)
    with pytest.raises(ValueError, match="classes with a logistic gate"):
        infinity.search(gaussian_gated(2, 2), fit, x, y, random_state=0)
