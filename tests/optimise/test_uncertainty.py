"""Standard errors: against the oracle's derivatives, against simulation, and refused where there are none."""

import functools
from typing import NamedTuple

import jax
import numpy as np
import oracle
import pytest
from montecarlo import STANDARD_ERRORS, key
from scipy.stats import norm
from selection import quick

from bayes_moe import contaminated
from bayes_moe.ground import parameters
from bayes_moe.theory import information
from mle import newton
from mle.optimise import uncertainty
from mle.optimise.objective import Objective

ROWS, FEATURES = 800, 2
ETA0 = np.array([[1.0, 0.0], [-0.5, 1.0], [0.0, 0.0]])
TRUTH = {"tau": 0.5, "beta": [0.5, -0.5], "eta": [[-1.0, 1.0], [-0.5, -1.5]]}

DIFFERENCES = 1e-4  # relative, of what rests on finite differences
EXACT = 1e-9
REPLICATES = 200


def build(activation="tanh", eta0=ETA0):
    """Return a heterogeneous contaminated model."""
    return contaminated(eta0, frozen_activation="linear", activation=activation)


@functools.cache
def fitted(activation="linear"):
    """Return a model, its fit, covariates and labels, the same ones at every call."""
    moe = build(activation)
    x = np.random.default_rng(0).normal(size=(ROWS, FEATURES))
    y = moe.simulate(0, moe.params(**TRUTH), x)
    fit = newton.fit(moe, x, y, init=TRUTH)
    assert fit.status == "maximum"
    return moe, fit, x, y


def oracle_scores(model, vector, x, y):
    """Return the oracle's score of each observation, (n, P)."""
    params, rows = oracle.unflatten(model, vector), range(len(y))
    return np.array([oracle.score(model, params, x[i : i + 1], y[i : i + 1]) for i in rows])


def hand_covariances(activation, fit, x, y, weights, step=1e-5):
    """Return J^-1 and J^-1 (sum_i w_i s_i s_i') J^-1, J by central differences of the oracle's score."""
    model, centre = oracle.Model(ETA0, "linear", activation), oracle.flatten(fit.params)
    ends = [[oracle_scores(model, centre + s * e, x, y) for s in (step, -step)] for e in np.eye(centre.size)]
    inverse = np.linalg.inv([-weights @ (above - below) / (2.0 * step) for above, below in ends])
    scores = oracle_scores(model, centre, x, y)
    return inverse, inverse @ (weights[:, None] * scores).T @ scores @ inverse


def assert_covariance(errors, expected):
    """Assert that standard errors rest on a covariance matrix."""
    deviations = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(errors.covariance / np.outer(deviations, deviations), scaled(expected), atol=DIFFERENCES)
    found = np.concatenate([np.ravel(value) for value in errors.values.values()])
    np.testing.assert_allclose(found, deviations, rtol=DIFFERENCES)
    assert errors.reason == ""


def scaled(covariance):
    """Return the correlations of a covariance matrix."""
    deviations = np.sqrt(np.diag(covariance))
    return covariance / np.outer(deviations, deviations)


@pytest.mark.parametrize("activation", quick(["linear", "tanh"], "tanh"))
def test_observed_and_sandwich_agree_with_the_oracle(activation):
    moe, fit, x, y = fitted(activation)
    observed, sandwich = hand_covariances(activation, fit, x, y, np.ones(ROWS))
    assert_covariance(uncertainty.standard_errors(moe, fit, x, y), observed)
    assert_covariance(uncertainty.standard_errors(moe, fit, x, y, kind="sandwich"), sandwich)
    np.testing.assert_array_equal(fit.covariance, uncertainty.standard_errors(moe, fit, x, y).covariance)
    assert list(fit.standard_errors) == ["tau", "beta", "eta"]
    assert {n: v.shape for n, v in fit.standard_errors.items()} == {n: v.shape for n, v in fit.params.items()}


@pytest.mark.slow
def test_weights_enter_both():
    moe, _, x, y = fitted()
    weights = np.random.default_rng(1).uniform(0.0, 2.0, ROWS)
    fit = newton.fit(moe, x, y, init=TRUTH, weights=weights)
    observed, sandwich = hand_covariances("linear", fit, x, y, weights)
    for kind, expected in (("observed", observed), ("sandwich", sandwich)):
        assert_covariance(uncertainty.standard_errors(moe, fit, x, y, kind=kind, weights=weights), expected)


@pytest.mark.parametrize("kind", uncertainty.KINDS)
def test_weights_are_repeats(kind):
    moe, _, x, y = fitted()
    counts = np.bincount(np.random.default_rng(2).integers(0, ROWS, ROWS), minlength=ROWS)
    many = np.repeat(x, counts, axis=0), np.repeat(y, counts)
    fits = newton.fit(moe, x, y, init=TRUTH, weights=counts), newton.fit(moe, *many, init=TRUTH)
    weighted = uncertainty.standard_errors(moe, fits[0], x, y, kind=kind, weights=counts)
    repeated = uncertainty.standard_errors(moe, fits[1], *many, kind=kind)
    for name, value in repeated.values.items():
        np.testing.assert_allclose(weighted.values[name], value, rtol=1e-6)


# Refused, with a reason ----------------------------------------------------------------------------------------


def at(moe, params, x, y, kind="observed"):
    """Return standard errors at any parameters."""
    with jax.enable_x64(True):
        free = np.asarray(parameters.flatten(moe.fields, moe.params(**params)))
        return uncertainty.at(Objective(moe, moe.observe(x, y)), free, kind)


def test_a_duplicated_column_is_refused_and_named():
    moe, _, x, _ = fitted()
    doubled = x[:, [0, 0]]
    y = moe.simulate(3, moe.params(**TRUTH), doubled)
    fit = newton.fit(moe, doubled, y, init=TRUTH)
    for errors in (at(moe, fit.params, doubled, y), at(moe, fit.params, doubled, y, "sandwich")):
        assert errors.values is None
        assert errors.covariance is None
        assert errors.reason.startswith("the observed information is singular, chiefly along")
        assert "tau" not in errors.reason
        assert "[0,0]" in errors.reason or "[0,0,0]" in errors.reason or "[0,1,0]" in errors.reason


def test_a_point_that_is_no_maximum_is_refused():
    moe, _, x, y = fitted("tanh")
    errors = at(moe, {"tau": 3.0, "beta": [4.0, 4.0], "eta": [[3.0, 3.0], [-3.0, 3.0]]}, x, y)
    assert errors.values is None
    assert "not positive definite" in errors.reason or "singular" in errors.reason


def test_a_fit_at_a_bound_is_refused():
    moe, _, x, y = fitted()
    fit = newton.fit(moe, x, y, init=TRUTH, bounds={"tau": (-0.2, -0.1)})
    errors = uncertainty.standard_errors(moe, fit, x, y)
    assert errors == uncertainty.StandardErrors(None, None, "at a bound: tau[0]")
    with pytest.raises(ValueError, match=r"no standard errors: at a bound: tau\[0\]"):
        uncertainty.wald(fit)


def test_an_unknown_kind_is_refused():
    moe, fit, x, y = fitted()
    with pytest.raises(ValueError, match="kind must be one of observed, sandwich, got 'huber'"):
        uncertainty.standard_errors(moe, fit, x, y, kind="huber")


# Wald intervals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "z"), [(0.95, 1.959964), (0.5, 0.674490), (0.99, 2.575829)])
def test_wald_intervals_are_so_many_standard_errors_wide(level, z):
    _, fit, _, _ = fitted()
    for name, interval in uncertainty.wald(fit, level).items():
        assert interval.shape == (*fit.params[name].shape, 2)
        np.testing.assert_allclose(interval.mean(axis=-1), fit.params[name], rtol=EXACT)
        np.testing.assert_allclose(np.diff(interval)[..., 0], 2 * z * fit.standard_errors[name], rtol=1e-6)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, 95, np.nan])
def test_a_level_outside_zero_and_one_is_refused(level):
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        uncertainty.wald(fitted()[1], level)


class Simulated(NamedTuple):
    """Estimates and standard errors of simulated fits, (replicates, P), their statuses, and the truth."""

    estimates: np.ndarray
    errors: np.ndarray
    statuses: list[str]
    truth: np.ndarray

    def z(self):
        """Return errors of the estimates in standard errors."""
        return (self.estimates - self.truth) / self.errors


def join(params):
    """Return parameters as one vector."""
    return np.concatenate([np.ravel(value) for value in params.values()])


def simulate_fits(moe, truth, rows, seeds):
    """Fit fresh data sets, each from the truth."""
    estimates, errors, statuses = [], [], []
    for seed in seeds:
        x = np.random.default_rng([8, key(seed)]).normal(size=(rows, FEATURES))
        fit = newton.fit(moe, x, moe.simulate(key(seed), truth, x), init=truth)
        estimates.append(join(fit.params))
        errors.append(join(fit.standard_errors or {n: np.full(v.shape, np.nan) for n, v in truth.items()}))
        statuses.append(fit.status)
    return Simulated(np.array(estimates), np.array(errors), statuses, join(truth))


def off(z, level=0.95):
    """Return how far the share of intervals that hold the truth is above ``level``, in standard errors.

    A data set's intervals, a row, are not independent of each other; data sets are.
    """
    held = np.mean(np.abs(z) < norm.ppf(0.5 + level / 2), axis=1)
    return (held.mean() - level) / (held.std(ddof=1) / np.sqrt(len(held)))


@pytest.mark.statistical
def test_wald_intervals_cover_the_truth():
    moe = build("linear")
    fits = simulate_fits(moe, moe.params(**TRUTH), ROWS, range(REPLICATES))
    assert fits.statuses.count("maximum") == REPLICATES
    assert abs(off(fits.z())) < STANDARD_ERRORS
    assert off(1.5 * fits.z()) < -STANDARD_ERRORS
    assert off(fits.z() / 1.6) > STANDARD_ERRORS  # few intervals miss, but some do


# Efficiency: the fit attains the Cramér–Rao bound ------------------------------------------------------------------

MANY = 100_000
HEXAGON = np.array([[1.0, 0.0], [-0.5, 0.75**0.5], [0.0, 0.0]])
EFFICIENT = {"tau": 0.5, "beta": [1.0, -1.0], "eta": [[-1.0, 1.0], [-1.0, -1.0]]}
LARGEST_BOUND = 0.1
BLOCKS = {"tau": slice(0, 1), "beta": slice(1, 3), "eta": slice(3, 7)}


@functools.cache
def efficient_fits():
    """Return fits of many large data sets, and the bound for X ~ N(0, I_2) by Gauss-Hermite quadrature."""
    moe = build("tanh", HEXAGON)
    truth = moe.params(**EFFICIENT)
    points, weights = np.polynomial.hermite_e.hermegauss(64)
    nodes = np.array(np.meshgrid(points, points)).reshape(2, -1).T
    bound = information.cramer_rao(moe, truth, nodes, MANY, weights=np.outer(weights, weights).ravel())
    return simulate_fits(moe, truth, MANY, range(REPLICATES)), join(bound)


def above_bound(fits, bound):
    """Return how far the mean squared error of each block is above the squared bound, in standard errors or more.

    The square of a normal error has twice the variance of its mean squared; sums of several have less, beside theirs.
    """
    squared = np.mean((fits.estimates - fits.truth) ** 2, axis=0)
    error = np.sqrt(2 / len(fits.estimates))
    return np.array([(squared[b].sum() / np.sum(bound[b] ** 2) - 1) / error for b in BLOCKS.values()])


@pytest.mark.slow
@pytest.mark.statistical
def test_the_fit_attains_the_bound():
    fits, bound = efficient_fits()
    assert bound.max() < LARGEST_BOUND
    assert fits.statuses.count("maximum") == REPLICATES
    assert np.abs(above_bound(fits, bound)).max() < STANDARD_ERRORS
    noise = 1.5 * np.random.default_rng(key(0)).normal(size=fits.estimates.shape)
    spoilt = above_bound(fits._replace(estimates=fits.estimates + bound * noise), bound)
    assert spoilt.min() > STANDARD_ERRORS


@pytest.mark.slow
@pytest.mark.statistical
def test_wald_intervals_cover_the_truth_at_large_n():
    fits, _ = efficient_fits()
    scores = {name: off(fits.z()[:, b]) for name, b in (BLOCKS | {"all": slice(None)}).items()}
    assert max(map(abs, scores.values())) < STANDARD_ERRORS, scores
    assert off(1.5 * fits.z()) < -STANDARD_ERRORS


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("seed", range(3))
def test_random_starts_reach_the_maximum_near_the_truth(seed):
    fits, _ = efficient_fits()
    moe = build("tanh", HEXAGON)
    x = np.random.default_rng([8, key(seed)]).normal(size=(MANY, FEATURES))
    fit = newton.fit(moe, x, moe.simulate(key(seed), moe.params(**EFFICIENT), x), n_init=3, random_state=key(seed))
    np.testing.assert_allclose(join(fit.params), fits.estimates[seed], atol=1e-4)
