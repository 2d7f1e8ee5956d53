"""Direct maximisation: the certificate, equivariance, bounds, plain regression, and faults that end in a status."""

import functools
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from selection import quick
from sklearn.linear_model import LogisticRegression

from bayes_moe import contaminated
from bayes_moe.model.experts import Frozen
from mle import em, newton
from mle.optimise import objective

ROWS, FEATURES = 800, 2
ETA0 = np.array([[1.0, 0.0], [-0.5, 1.0], [0.0, 0.0]])
TRUTH = {"tau": 0.5, "beta": [0.5, -0.5], "eta": [[-1.0, 1.0], [-0.5, -1.5]]}
ACTIVATIONS = ("linear", "tanh", "sigmoid", "gelu", "relu")
ORIGIN = {"tau": 0.0, "beta": 0.0, "eta": 0.0}

MEAN_SCORE = 1e-7  # at an optimum, for each observation
SAME_VALUE = 1e-9  # relative, of log likelihoods at one optimum
SAME_PLACE = 1e-5  # of parameters at one optimum
DIFFERENCES = 1e-5


def build(activation="tanh", eta0=ETA0, frozen_activation="linear", **options):
    """Return a contaminated model."""
    return contaminated(eta0, frozen_activation=frozen_activation, activation=activation, **options)


@functools.cache
def draw_data(activation="tanh"):
    """Return a model, the truth, covariates and labels, the same ones at every call."""
    moe = build(activation)
    truth = moe.params(**TRUTH)
    x = np.random.default_rng(0).normal(size=(ROWS, FEATURES))
    return moe, truth, x, moe.simulate(0, truth, x)


def assert_same_fit(one, other):
    """Assert that two fits are at one optimum."""
    assert one.log_likelihood == pytest.approx(other.log_likelihood, rel=SAME_VALUE)
    for name, value in one.params.items():
        np.testing.assert_allclose(value, other.params[name], atol=SAME_PLACE, rtol=SAME_PLACE)


def oracle_hessian(model, params, x, y, step=1e-5):
    """Return second derivatives of the log likelihood, by central differences of the oracle's score."""
    centre = oracle.flatten(params)
    rows = []
    for shift in step * np.eye(centre.size):
        ends = [oracle.unflatten(model, centre + sign * shift) for sign in (1.0, -1.0)]
        above, below = (oracle.score(model, end, x, y) for end in ends)
        rows.append((above - below) / (2.0 * step))
    return np.array(rows)


def plain(params):
    """Return parameters as the oracle takes them: one adapter, without its axis."""
    return {name: value[0] for name, value in params.items()}


def test_a_climb_that_rounding_ends_has_converged():
    moe, _, x, y = draw_data()
    fit = newton.fit(moe, x, y, n_init=4, random_state=0)
    again = newton.fit(moe, x, y, init=fit.params, tol=1e-30)  # no score is that small
    assert again.converged
    assert "rounding" in again.starts[0].message
    short = newton.fit(moe, x, y, init=ORIGIN, max_iter=2, tol=1e-30)
    assert not short.converged


# The optimum and its certificate -------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["linear", "tanh"])
def test_score_vanishes_and_the_certificate_says_so(activation):
    moe, truth, x, y = draw_data(activation)
    fit = newton.fit(moe, x, y, n_init=4, random_state=0)
    model, at = oracle.Model(ETA0, "linear", activation), plain(fit.params)
    assert fit.converged
    assert fit.status == "maximum"
    assert fit.log_likelihood == pytest.approx(oracle.log_density(model, at, x, y).sum(), rel=SAME_VALUE)
    assert fit.log_likelihood > moe.log_density(truth, x, y).sum()
    assert np.abs(oracle.score(model, at, x, y)).max() < MEAN_SCORE * ROWS
    assert fit.certificate.stationary
    assert fit.certificate.positive_definite
    assert fit.certificate.at_bounds == fit.certificate.at_infinity == fit.certificate.separated == ()


def test_eigenvalues_are_those_of_the_observed_information():
    moe, truth, x, y = draw_data()
    x = x * [3.0, 0.2]
    fit = newton.fit(moe, x, y, init=truth)
    size = np.sqrt((x**2).mean(axis=0))
    scale = np.concatenate([[1.0], size, size, size])
    observed = -oracle_hessian(oracle.Model(ETA0, "linear", "tanh"), plain(fit.params), x, y)
    expected = np.linalg.eigvalsh(observed / np.outer(scale, scale) / ROWS)
    np.testing.assert_allclose(fit.certificate.hessian_eigenvalues, expected, atol=DIFFERENCES)


def test_gradient_norm_counts_standard_errors_to_the_maximum():
    moe, truth, x, y = draw_data()
    fit = newton.fit(moe, x, y, init=truth, max_iter=1)
    assert not fit.converged
    assert "not stationary" in fit.status
    model = oracle.Model(ETA0, "linear", "tanh")
    score = oracle.score(model, plain(fit.params), x, y)
    observed = -oracle_hessian(model, plain(fit.params), x, y)
    expected = np.sqrt(score @ np.linalg.solve(observed, score))
    assert fit.certificate.gradient_norm == pytest.approx(expected, rel=DIFFERENCES)


def test_half_the_squared_gradient_norm_is_left_to_gain_near_a_maximum():
    moe, truth, x, y = draw_data("linear")
    history = newton.fit(moe, x, y, init=truth).history
    fit = newton.fit(moe, x, y, init=truth, max_iter=len(history) - 4)
    left = history[-1] - fit.log_likelihood
    assert left == pytest.approx(fit.certificate.gradient_norm**2 / 2, rel=0.1)
    assert left > 1e-4


# Starts --------------------------------------------------------------------------------------------------------


def test_every_start_is_kept_best_first():
    moe, _, x, y = draw_data()
    fit = newton.fit(moe, x, y, n_init=6, random_state=0)
    values = [start.log_likelihood for start in fit.starts]
    assert sorted(start.index for start in fit.starts) == list(range(6))
    assert values == sorted(values, reverse=True)
    assert fit.log_likelihood == values[0] == fit.history[-1]
    assert all(len(start.history) == start.n_iter + 1 for start in fit.starts)


def test_replication_counts_the_starts_at_the_best_value():
    moe, truth, x, y = draw_data()
    near = {name: value + 0.1 for name, value in truth.items()}
    saturated = {"tau": -1e150, "beta": 0.0, "eta": 0.0}
    fit = newton.fit(moe, x, y, init=[saturated, truth, near])
    assert fit.certificate.replicated == 2
    assert fit.starts[-1].index == 0
    assert fit.starts[-1].log_likelihood < fit.log_likelihood - 1.0
    assert newton.fit(moe, x, y, init=truth).certificate.replicated == 1


def test_a_start_near_the_truth_and_random_starts_reach_the_same_maximum():
    moe, truth, x, y = draw_data()
    assert_same_fit(newton.fit(moe, x, y, init=truth), newton.fit(moe, x, y, n_init=4, random_state=0))


def test_random_starts_are_a_function_of_their_seed():
    moe, _, x, y = draw_data()
    run = functools.partial(newton.fit, moe, x, y, n_init=2, max_iter=1)
    first, again, other = (run(random_state=seed) for seed in (3, np.random.default_rng(3), 4))
    np.testing.assert_array_equal(first.history, again.history)
    assert set(first.history) != set(other.history)


OVERFLOWING = {"tau": 0.5, "beta": [1.0, -1.0], "eta": [[1e3, -0.3], [0.2, 0.1]]}
NEVER_LARGE = {"tau": 0.5, "beta": [1.0, -1.0], "eta": 0.1}


@functools.cache
def draw_exponential():
    """Return a model whose activation overflows, with data."""
    moe = build(jnp.exp)
    x = np.random.default_rng(0).normal(size=(ROWS, FEATURES))
    return moe, x, moe.simulate(0, moe.params(tau=0.5, beta=[1, -1], eta=[[0.3, -0.3], [0.2, 0.1]]), x)


@pytest.mark.parametrize("bounds", [None, {"eta": (-2e3, 2e3)}], ids=["free", "box"])
@pytest.mark.parametrize("fit", [newton.fit, functools.partial(em.fit, max_iter=5)], ids=["newton", "em"])
def test_a_start_that_fails_is_recorded_and_not_fatal(fit, bounds):
    moe, x, y = draw_exponential()
    result = fit(moe, x, y, init=[OVERFLOWING, NEVER_LARGE], bounds=bounds)
    good, failed = result.starts
    assert np.isfinite(good.log_likelihood)
    assert good.index == 1
    assert failed.log_likelihood == -np.inf
    assert not failed.converged
    assert "not finite" in failed.message


@pytest.mark.parametrize("bounds", [None, {"eta": (-2e3, 2e3)}], ids=str)
def test_no_start_that_succeeds_is_an_error(bounds):
    moe, x, y = draw_exponential()
    with pytest.raises(ValueError, match="no start"):
        newton.fit(moe, x, y, init=OVERFLOWING, bounds=bounds)


BAD_ARGUMENTS = {
    "no seed": ({}, "random_state"),
    "no starts": ({"n_init": 0, "random_state": 0}, "n_init"),
    "fractional starts": ({"n_init": 2.5, "random_state": 0}, "n_init"),
    "boolean starts": ({"n_init": True, "random_state": 0}, "n_init"),
    "unknown bound": ({"bounds": {"gamma": (0, 1)}, "random_state": 0}, "gamma"),
    "empty interval": ({"bounds": {"tau": (1, -1)}, "random_state": 0}, "low < high"),
    "single point": ({"bounds": {"tau": (1, 1)}, "random_state": 0}, "low < high"),
    "NaN bound": ({"bounds": {"tau": (np.nan, 1)}, "random_state": 0}, "low < high"),
    "three bounds": ({"bounds": {"tau": (0, 1, 2)}, "random_state": 0}, "broadcast"),
    "incomplete start": ({"init": {"tau": 0.0}}, "missing: beta, eta"),
    "start of another shape": ({"init": ORIGIN | {"beta": [1.0, 2.0, 3.0]}}, "beta must have shape"),
    "infinite start": ({"init": ORIGIN | {"tau": np.inf}}, "tau must be finite"),
    "one bad start of two": ({"init": [ORIGIN, {"tau": 0.0}]}, "missing"),
}


@pytest.mark.parametrize("fit", [newton.fit, em.fit], ids=["newton", "em"])
@pytest.mark.parametrize(("options", "message"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_bad_arguments_are_named(fit, options, message):
    moe, _, x, y = draw_data()
    with pytest.raises(ValueError, match=message):
        fit(moe, x, y, **options)


# Bounds --------------------------------------------------------------------------------------------------------


def test_bounds_are_respected_and_reported():
    moe, truth, x, y = draw_data()
    free = newton.fit(moe, x, y, init=truth)
    low = float(free.params["tau"][0]) + 0.3
    fit = newton.fit(moe, x, y, n_init=3, random_state=0, bounds={"tau": (low, low + 1.0)})
    assert fit.certificate.at_bounds == ("tau[0]",)
    assert fit.params["tau"][0] == low
    assert fit.status == "at a bound: tau[0]"
    assert fit.log_likelihood < free.log_likelihood
    assert fit.certificate.stationary
    assert fit.standard_errors is None
    assert fit.reason == fit.status


def test_bounds_that_do_not_bind_change_nothing():
    moe, truth, x, y = draw_data()
    bounds = dict.fromkeys(moe.fields, (-10.0, 10.0))
    assert_same_fit(newton.fit(moe, x, y, init=truth, bounds=bounds), newton.fit(moe, x, y, init=truth))


def test_a_start_outside_the_bounds_begins_at_the_nearest_point():
    moe, truth, x, y = draw_data()
    fit = newton.fit(moe, x, y, init=truth | {"tau": [50.0]}, bounds={"tau": (-2.0, 2.0)})
    expected = moe.log_density(truth | {"tau": [2.0]}, x, y).sum()
    assert fit.history[0] == pytest.approx(expected, rel=SAME_VALUE)


def test_a_corner_that_the_score_leaves_is_not_stationary():
    moe, _, x, y = draw_data()
    corner = dict.fromkeys(moe.fields, -3.0)
    fit = em.fit(moe, x, y, init=corner, bounds=dict.fromkeys(moe.fields, (-3.0, 3.0)), max_iter=0)
    assert not fit.certificate.stationary


# Equivariance --------------------------------------------------------------------------------------------------

MAPS = {"units": 1e3 * np.eye(2), "shear": np.array([[2.0, 1.0], [-0.5, 1.5]])}


def map_slopes(params, matrix):
    """Return parameters whose slopes are multiplied by a matrix from the right."""
    return {name: value if name == "tau" else value @ matrix for name, value in params.items()}


@pytest.mark.parametrize("matrix", MAPS.values(), ids=MAPS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_linear_map_of_the_covariates_moves_slopes_by_its_inverse(activation, matrix):
    moe, truth, x, y = draw_data(activation)
    inverse = np.linalg.inv(matrix)
    mapped, mapped_x = build(activation, ETA0 @ inverse), x @ matrix.T
    expected = newton.fit(moe, x, y, init=truth)
    there = map_slopes(expected.params, inverse)
    assert mapped.log_density(there, mapped_x, y).sum() == pytest.approx(expected.log_likelihood, rel=SAME_VALUE)
    if activation == "relu":  # its likelihood has kinks, where paths part
        return
    fit = newton.fit(mapped, mapped_x, y, init=map_slopes(truth, inverse))
    assert fit.log_likelihood == pytest.approx(expected.log_likelihood, rel=SAME_VALUE)
    for name, value in map_slopes(fit.params, matrix).items():
        np.testing.assert_allclose(value, expected.params[name], atol=SAME_PLACE)


def test_random_starts_do_not_depend_on_units():
    moe, _, x, y = draw_data()
    units = np.array([1e3, 1e-2])
    mapped = build("tanh", ETA0 / units)
    run = functools.partial(newton.fit, n_init=4, random_state=0, max_iter=1)
    pairs = [(moe, x, y), (mapped, x * units, y)]
    first, second = ({s.index: s.history[0] for s in run(*pair).starts} for pair in pairs)
    assert first == pytest.approx(second, rel=SAME_VALUE)


def test_rows_may_be_permuted():
    moe, truth, x, y = draw_data()
    order = np.random.default_rng(1).permutation(ROWS)
    assert_same_fit(newton.fit(moe, x, y, init=truth), newton.fit(moe, x[order], y[order], init=truth))


def test_weights_are_repeats():
    moe, truth, x, y = draw_data("linear")
    counts = np.bincount(np.random.default_rng(2).integers(0, ROWS, ROWS), minlength=ROWS)
    weighted = newton.fit(moe, x, y, init=truth, weights=counts)
    repeated = newton.fit(moe, np.repeat(x, counts, axis=0), np.repeat(y, counts), init=truth)
    assert_same_fit(weighted, repeated)
    assert weighted.certificate.gradient_norm < 0.01
    for name, value in repeated.standard_errors.items():
        np.testing.assert_allclose(weighted.standard_errors[name], value, rtol=SAME_PLACE)
    unweighted = newton.fit(moe, x, y, init=truth)
    assert np.abs(unweighted.params["eta"] - weighted.params["eta"]).max() > 0.01


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 0, 1)], ids=["within", "reference"])
def test_classes_may_be_renamed(order):
    moe, truth, x, y = draw_data("linear")
    order = np.array(order)
    renamed = build("linear", ETA0[order])
    vectors = np.vstack([truth["eta"][0], np.zeros(FEATURES)])[order]
    start = truth | {"eta": (vectors - vectors[-1])[:-1]}
    first, second = newton.fit(moe, x, y, init=truth), newton.fit(renamed, x, np.argsort(order)[y], init=start)
    vectors = np.vstack([first.params["eta"][0], np.zeros(FEATURES)])[order]
    np.testing.assert_allclose(second.params["eta"][0], (vectors - vectors[-1])[:-1], atol=SAME_PLACE)
    assert first.log_likelihood == pytest.approx(second.log_likelihood, rel=SAME_VALUE)


# One component is plain regression -----------------------------------------------------------------------------


@functools.cache
def plain_regression():
    """Return covariates, labels and scikit-learn's coefficients relative to the last class."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(ROWS, FEATURES))
    logits = x @ np.array([[1.0, -0.5], [-0.5, 1.0], [0.0, 0.0]]).T
    y = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)
    coefficients = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(x, y).coef_
    return x, y, coefficients[:-1] - coefficients[-1]


@pytest.mark.parametrize("fit", [newton.fit, em.fit], ids=["newton", "em"])
def test_a_gate_that_is_held_open_leaves_plain_regression(fit):
    x, y, expected = plain_regression()
    bounds = {"tau": (30.0, 31.0), "beta": (-1e-6, 1e-6)}
    result = fit(build("linear"), x, y, init=ORIGIN, bounds=bounds)
    np.testing.assert_allclose(result.params["eta"][0], expected, atol=SAME_PLACE)


def always_wrong(y):
    """Return a model whose frozen expert is sure of a class that was not observed."""
    table = np.full((len(y), 3), -60.0)
    table[np.arange(len(y)), (y + 1) % 3] = 0.0
    return contaminated(Frozen.table(table), features=FEATURES, activation="linear")


def test_a_frozen_expert_that_is_always_wrong_leaves_plain_regression():
    x, y, expected = plain_regression()
    moe = always_wrong(y)
    bounds = {"tau": (-25.0, 25.0), "beta": (-1.0, 1.0)}
    result = newton.fit(moe, x, y, n_init=2, random_state=0, bounds=bounds)
    np.testing.assert_allclose(result.params["eta"][0], expected, atol=SAME_PLACE)
    closed = {"tau": (-31.0, -30.0), "beta": (-1e-6, 1e-6)}
    shut = newton.fit(moe, x, y, init=ORIGIN, bounds=closed)
    assert shut.log_likelihood < result.log_likelihood - 10.0 * ROWS


# Faults end in a status ----------------------------------------------------------------------------------------

FEW = 60
CLOSE = (-5.0, 5.0)


def fault(name):
    """Return covariates and labels of a fault; all but two have the same shape."""
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(FEW, FEATURES)), rng.integers(0, 3, FEW)
    split = np.argmax(x @ np.array([[1.0, 0.0], [-0.5, 0.9], [-0.5, -0.9]]).T, axis=1)
    at_origin, touching = np.vstack([np.zeros((6, FEATURES)), x[6:]]), np.r_[0, 1, 2, 0, 1, 2, split[6:]]
    return {
        "complete separation": (x, split),
        "quasi-separation": (at_origin, touching),
        "one class only": (x, np.zeros(FEW, int)),
        "a class absent": (x, noise % 2),
        "duplicated column": (x[:, [0, 0]], noise),
        "constant column": (np.column_stack([np.ones(FEW), x[:, 0]]), noise),
        "column of zeros": (x * [1.0, 0.0], noise),
        "all zero": (0.0 * x, noise),
        "n = 1": (x[:1], noise[:1]),
        "n < p": (x[:4], noise[:4]),
        "large covariates": (1e8 * x, noise),
        "small covariates": (1e-8 * x, noise),
        "far from the origin": (x + 1e6, noise),
    }[name]


NO_MAXIMUM = ("complete separation", "quasi-separation", "one class only", "n = 1", "n < p")
FLAT = ("duplicated column", "constant column", "column of zeros", "all zero", "small covariates")
OTHERS = ("a class absent", "far from the origin")


def assert_recorded(result):
    """Assert that a fit that is no proper maximum says so and claims nothing."""
    assert np.isfinite(result.log_likelihood)
    assert all(np.isfinite(value).all() for value in result.params.values())
    assert result.status != "maximum"
    assert result.standard_errors is None
    assert result.covariance is None
    assert result.reason


@pytest.mark.parametrize("activation", quick(["linear", "tanh"], "tanh"))
@pytest.mark.parametrize("name", NO_MAXIMUM + FLAT + OTHERS)
def test_a_fault_ends_in_a_status(name, activation):
    x, y = fault(name)
    result = newton.fit(build(activation, frozen_activation="tanh"), x, y, n_init=3, random_state=0)
    assert_recorded(result)
    assert f"no standard errors: {result.reason}" in str(result)


@pytest.mark.parametrize("name", NO_MAXIMUM + FLAT + OTHERS)
def test_a_fault_ends_in_a_status_with_em(name):
    x, y = fault(name)
    assert_recorded(em.fit(build(frozen_activation="tanh"), x, y, n_init=2, random_state=0, max_iter=10))


def test_large_covariates_are_small_ones_in_other_units():
    x, y = fault("large covariates")
    large = newton.fit(build("linear", frozen_activation="tanh"), x, y, n_init=3, random_state=0)
    other = build("linear", 1e8 * ETA0, "tanh")
    small = newton.fit(other, 1e-8 * x, y, n_init=3, random_state=0)
    assert large.status == small.status == "maximum"
    assert large.log_likelihood == pytest.approx(small.log_likelihood, rel=SAME_VALUE)


@pytest.mark.parametrize("name", NO_MAXIMUM)
def test_separation_is_recognised(name):
    x, y = fault(name)
    result = newton.fit(build("linear", frozen_activation="tanh"), x, y, n_init=3, random_state=0)
    assert "expert 1" in result.certificate.separated
    assert result.status.startswith("separated: ")
    assert "set bounds or use a prior" in result.status


@pytest.mark.parametrize("name", NO_MAXIMUM)
def test_inside_bounds_separation_ends_at_them(name):
    x, y = fault(name)
    moe = build("linear", frozen_activation="tanh")
    result = newton.fit(moe, x, y, n_init=3, random_state=0, bounds=dict.fromkeys(moe.fields, CLOSE))
    assert result.converged
    assert result.status.startswith("at a bound: ")
    assert set(result.certificate.at_bounds) & {"eta[0,0,0]", "eta[0,0,1]", "eta[0,1,0]", "eta[0,1,1]"}
    assert max(np.abs(value).max() for value in result.params.values()) == CLOSE[1]


@pytest.mark.parametrize("name", FLAT)
def test_inside_bounds_a_singular_design_is_flat_or_at_a_bound(name):
    x, y = fault(name)
    moe = build("linear", frozen_activation="tanh")
    result = newton.fit(moe, x, y, n_init=3, random_state=0, bounds=dict.fromkeys(moe.fields, CLOSE))
    assert result.status.startswith(("flat", "at a bound"))
    assert not result.certificate.positive_definite


@functools.cache
def fit_duplicated_column(activation, seed=3):
    """Return the fit with a column given twice, and the fit with it given once."""
    moe, truth, x, _ = draw_data(activation)
    doubled = x[:, [0, 0]]
    y = moe.simulate(seed, truth, doubled)
    single = build(activation, ETA0.sum(axis=1)[:, None])
    start = {name: value if name == "tau" else value.sum(axis=-1, keepdims=True) for name, value in truth.items()}
    return newton.fit(moe, doubled, y, init=truth), newton.fit(single, x[:, :1], y, init=start)


@pytest.mark.parametrize("activation", ["linear", "tanh"])
def test_a_duplicated_column_fits_as_well_as_one(activation):
    twice, once = fit_duplicated_column(activation)
    assert twice.converged
    assert not twice.certificate.positive_definite
    assert_recorded(twice)
    assert once.status == "maximum"
    assert twice.log_likelihood == pytest.approx(once.log_likelihood, rel=SAME_VALUE)
    for name in ("beta", "eta"):
        np.testing.assert_allclose(twice.params[name].sum(axis=-1), once.params[name][..., 0], rtol=1e-3)


FLAT_CASES = ("linear", 3), ("tanh", 3), ("linear", 0), ("tanh", 10)


@pytest.mark.parametrize(("activation", "seed"), FLAT_CASES)
def test_a_duplicated_column_is_flat_and_not_at_infinity(activation, seed):
    twice, once = fit_duplicated_column(activation, seed)
    assert once.status == "maximum"
    assert twice.status.startswith("flat")


def test_labels_of_the_frozen_expert_alone_leave_the_adapter_unknown():
    moe, truth, x, _ = draw_data()
    y = moe.simulate(1, truth | {"tau": [-40.0], "beta": 0.0 * truth["beta"]}, x)
    result = newton.fit(moe, x, y, n_init=4, random_state=0)
    assert_recorded(result)
    never = truth | {"tau": [-40.0]}
    assert result.log_likelihood > moe.log_density(never, x, y).sum() - 1e-6


def test_a_bounded_parameter_is_not_at_infinity():
    x, y = fault("far from the origin")
    moe = build("linear", frozen_activation="tanh")
    result = newton.fit(moe, x, y, n_init=3, random_state=0, bounds=dict.fromkeys(moe.fields, CLOSE))
    assert "set bounds" not in result.status


def test_one_bound_is_enough():
    x, y, _ = plain_regression()
    bounds = {"tau": (-np.inf, 20.0), "beta": (-1.0, 1.0)}
    result = newton.fit(always_wrong(y), x, y, init=ORIGIN, bounds=bounds)
    assert result.certificate.at_bounds == ("tau[0]",)
    assert result.status == "at a bound: tau[0]"


def test_a_steep_gate_with_a_finite_maximum_is_not_separated():
    moe = build()
    x = np.random.default_rng(34).normal(size=(300, FEATURES))
    y = moe.simulate(34, moe.params(tau=0.5, beta=[2.0, -1.0], eta=[[-2.0, 2.0], [-1.0, -2.0]]), x)
    fit = newton.fit(moe, x, y, n_init=5, random_state=0)
    assert fit.converged
    assert np.abs(fit.params["beta"]).max() > 100.0
    for factor in (0.9, 1.1, 100.0):
        steeper = fit.params | {name: factor * fit.params[name] for name in ("tau", "beta")}
        assert moe.log_density(steeper, x, y).sum() < fit.log_likelihood - 1e-3
    assert fit.certificate.separated == ()


def test_rows_of_weight_zero_do_not_hide_separation():
    x, y = fault("complete separation")
    moe = build("linear", frozen_activation="tanh")
    tripled, labels = np.tile(x, (3, 1)), np.concatenate([y, (y + 1) % 3, (y + 2) % 3])
    weights = np.repeat([1.0, 0.0, 0.0], FEW)
    without = newton.fit(moe, x, y, n_init=3, random_state=0)
    within = newton.fit(moe, tripled, labels, n_init=3, random_state=0, weights=weights)
    assert within.log_likelihood == pytest.approx(without.log_likelihood, abs=1e-4)
    assert within.status == without.status


def test_many_rows_are_thinned_first_and_end_at_the_same_maximum(monkeypatch):
    moe, truth, _, _ = draw_data()
    x = np.random.default_rng(1).normal(size=(8000, FEATURES))
    y = moe.simulate(1, truth, x)
    plain = newton.fit(moe, x, y, n_init=4, random_state=0)
    monkeypatch.setattr(newton, "THIN", 800)
    thinned = newton.fit(moe, x, y, n_init=4, random_state=0)
    assert_same_fit(plain, thinned)
    assert min(start.n_iter for start in thinned.starts) < min(start.n_iter for start in plain.starts)


def test_a_climb_inside_the_bounds_takes_newton_steps():
    moe, truth, x, y = draw_data()
    wide = dict.fromkeys(moe.fields, (-50.0, 50.0))
    inside, free = newton.fit(moe, x, y, init=truth, bounds=wide), newton.fit(moe, x, y, init=truth)
    np.testing.assert_array_equal(inside.history, free.history)
    low = float(free.params["tau"][0]) + 0.1
    held = newton.fit(moe, x, y, init=truth, bounds={"tau": (low, 50.0)})
    assert held.params["tau"] == low
    assert held.certificate.stationary


SHARDED = """
import numpy as np
from bayes_moe import contaminated
from bayes_moe.ground.data import float64
from mle.optimise.objective import Objective
import jax

@float64
def derivatives():
    moe = contaminated([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]], activation="tanh")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_001, 2))
    data = moe.observe(x, moe.simulate(0, moe.params(tau=0.0, beta=[1.0, -1.0], eta=np.eye(2)), x))
    free = rng.normal(size=7)
    objective, whole = Objective(moe, data), Objective(moe, data)
    object.__setattr__(whole, "_parts", (data,))
    assert len(objective.parts) == len(jax.local_devices()) == 3
    assert {part.x.devices().pop() for part in objective.parts} == set(jax.local_devices())
    one, other = ([*o.value_and_grad(free), o.hessian(free)] for o in (whole, objective))
    print(max(np.max(np.abs(a - b)) / np.max(np.abs(a)) for a, b in zip(one, other, strict=True)))

derivatives()
"""


@pytest.mark.slow
def test_several_devices_share_the_data():
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}
    done = subprocess.run([sys.executable, "-c", SHARDED], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-12


@pytest.mark.parametrize("fit", [newton.fit, em.fit], ids=["newton", "em"])
def test_a_device_without_memory_is_named(fit, monkeypatch):
    moe, _, x, y = draw_data()
    monkeypatch.setattr(objective, "jitted", lambda function: lambda *arguments: jnp.zeros(2**50))
    with pytest.raises(MemoryError, match="ran out of memory. Fit fewer observations"):
        fit(moe, x, y, n_init=1, random_state=0)


@pytest.mark.parametrize("unit", [1e-6, 1e3, 1e8])
def test_units_of_the_covariates_change_nothing_but_the_numbers(unit):
    moe, _, x, y = draw_data()
    plain = newton.fit(moe, x, y, n_init=2, random_state=0)
    fit = newton.fit(build(eta0=ETA0 / unit), unit * x, y, n_init=2, random_state=0)
    assert plain.status == fit.status == "maximum"
    assert fit.log_likelihood == pytest.approx(plain.log_likelihood, rel=SAME_VALUE)
    for name in ("beta", "eta"):
        np.testing.assert_allclose(unit * fit.params[name], plain.params[name], rtol=1e-4, atol=1e-4)


def test_an_intercept_that_makes_up_for_an_offset_is_not_at_infinity():
    v = np.random.default_rng(3).normal(size=(2000, 2))
    table, x = np.tile(np.log([0.95, 0.05]), (len(v), 1)), v + [0, 1000.0]
    plain, moe = (contaminated(Frozen.table(table, rows), features=2, activation="tanh") for rows in (v, x))
    truth = {"tau": 0.3, "beta": [0.5, 1.5], "eta": [[-1.0, 1.0]]}
    y = plain.simulate(0, plain.params(**truth), v)
    offset = {**truth, "tau": 0.3 - 1500.0, "eta": 0.0}
    fit = newton.fit(moe, x, y, init=moe.params(**offset))
    assert "tau" not in fit.status
    assert abs(fit.params["tau"][0]) > 100


@pytest.mark.parametrize(
    "settings", [{"tol": np.nan}, {"tol": -1.0}, {"tol": "a"}, {"max_iter": -1}, {"max_iter": 1.5}]
)
@pytest.mark.parametrize("fit", [newton.fit, em.fit])
def test_settings_that_are_no_settings_are_named(fit, settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must be"):
        fit(contaminated(np.zeros((2, 1))), [[0.0], [1.0], [2.0]], [0, 1, 0], random_state=0, **settings)
