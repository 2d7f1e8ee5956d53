"""The Gaussian-gated mixture against the Gaussian mixture in (x, y) that it is."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pandas as pd
import pytest
from montecarlo import STANDARD_ERRORS, key
from scipy.integrate import quad
from scipy.special import logsumexp
from selection import quick

from bayes_moe import gaussian_gated
from bayes_moe.ground import parameters

EXACT = 1e-10
SHAPES = [(1, 1, 1), (3, 1, 1), (3, 2, 1), (2, 3, 1), (3, 2, 2)]  # experts, features, responses
FORMS = ("full", "diagonal", "spherical")


def draw_params(moe, seed=0):
    free = np.random.default_rng(seed).normal(size=parameters.size(moe.fields))
    with jax.enable_x64(True):
        return {k: np.asarray(v) for k, v in parameters.unflatten(moe.fields, jnp.asarray(free)).items()}


def draw_case(form, shape, seed=0, n=40):
    """Return a model with random parameters, and points that are not especially likely under it."""
    moe = gaussian_gated(*shape[:2], covariance=form, responses=shape[2])
    rng = np.random.default_rng(seed + 1)
    y = 2 * rng.normal(size=(n, shape[2]))
    return moe, draw_params(moe, seed), 2 * rng.normal(size=(n, shape[1])), y[:, 0] if shape[2] == 1 else y


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", quick(SHAPES, (3, 2, 2), ids=str))
def test_densities_and_responsibilities_are_those_of_the_mixture_in_x_and_y(form, shape):
    moe, params, x, y = draw_case(form, shape)
    joint, marginal = oracle.joint_log_densities(params, x, y), oracle.x_log_densities(params, x)
    log_p = logsumexp(joint, axis=1)
    np.testing.assert_allclose(moe.log_density(params, x, y), log_p, rtol=EXACT)
    np.testing.assert_allclose(
        moe.conditional_log_density(params, x, y), log_p - logsumexp(marginal, axis=1), rtol=EXACT, atol=EXACT
    )
    np.testing.assert_allclose(moe.responsibilities(params, x, y), np.exp(joint - log_p[:, None]), atol=EXACT)
    np.testing.assert_allclose(
        moe.memberships(params, x), np.exp(marginal - logsumexp(marginal, axis=1)[:, None]), atol=EXACT
    )


def test_far_and_tiny_covariances_keep_ten_digits():
    moe = gaussian_gated(2, 2)
    gamma = np.array([[[1e-8, 0.9e-10], [0.9e-10, 1e-10]], [[4.0, 1.0], [1.0, 2.0]]])
    params = moe.params(
        pi=[0.9, 0.1], c=[[1e3, -1e3], [0, 0]], Gamma=gamma, a=[[1, 2], [-1, 0]], b=[0, 5], nu=[1e-6, 3]
    )
    x = np.array([[1e3 + 1e-4, -1e3], [50.0, 50.0]])
    y = np.array([-1000.0, 1e4])
    parts = [oracle.joint_log_densities(params, x[[i]], y[[i]]) for i in range(2)]
    assert np.isfinite(moe.log_density(params, x, y)).all()
    np.testing.assert_allclose(moe.log_density(params, x, y)[1], logsumexp(parts[1]), rtol=EXACT)


def test_the_conditional_density_integrates_to_one_and_has_the_predicted_moments():
    moe, params, x, _ = draw_case("full", (3, 2, 1), seed=4, n=4)
    predicted = moe.predict(params, x)
    for i, row in enumerate(x):
        density = lambda y, row=row: np.exp(moe.conditional_log_density(params, row[None], [y])[0])  # noqa: E731
        low, high = predicted.mean[i] - 12 * predicted.sd[i], predicted.mean[i] + 12 * predicted.sd[i]
        grid = np.linspace(low, high, 4001)
        p = np.exp(moe.conditional_log_density(params, np.repeat(row[None], len(grid), 0), grid))
        moments = [np.trapezoid(p * grid**k, grid) for k in range(3)]
        np.testing.assert_allclose(moments[:2], [1.0, predicted.mean[i]], rtol=1e-6)
        np.testing.assert_allclose(moments[2] - moments[1] ** 2, predicted.sd[i] ** 2, rtol=1e-5)
        assert quad(density, low, grid[10])[0] < 1e-6
    np.testing.assert_allclose(predicted.memberships, moe.memberships(params, x))


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("shape", [(3, 2, 1), (2, 1, 2)])
@pytest.mark.parametrize("wrong", [False, True], ids=["right", "planted error"])
def test_simulated_moments_are_those_of_the_mixture(shape, wrong):
    moe, params, *_ = draw_case("full", shape, seed=2)
    n = 40_000
    x, y = moe.simulate_joint(key(5), params, n)
    if wrong:
        y = moe.simulate(key(6), params | {"nu": 1.1 * params["nu"], "b": params["b"] + 0.05}, x)
    points = np.column_stack([x, y])
    atoms = oracle.joint_atoms(params)
    mean = sum(w * m for w, m, _ in atoms)
    second = sum(w * (s + np.outer(m, m)) for w, m, s in atoms)
    products = points[:, :, None] * points[:, None, :]
    z = np.abs(points.mean(0) - mean) / (points.std(0) / np.sqrt(n))
    zz = np.abs(products.mean(0) - second) / (products.std(0) / np.sqrt(n))
    assert (max(z.max(), zz.max()) > STANDARD_ERRORS) == wrong


@pytest.mark.statistical
def test_simulation_given_x_follows_the_conditional_moments():
    moe, params, *_ = draw_case("diagonal", (3, 2, 1), seed=3)
    x = np.repeat([[0.3, -0.2]], 40_000, axis=0)
    y, predicted = moe.simulate(key(1), params, x), moe.predict(params, x[:1])
    assert abs(y.mean() - predicted.mean[0]) < STANDARD_ERRORS * predicted.sd[0] / 200
    assert abs(y.std() / predicted.sd[0] - 1) < 0.05
    np.testing.assert_array_equal(y, moe.simulate(key(1), params, x))


def test_labels_name_what_the_free_coordinate_is():
    moe = gaussian_gated(2, ["u", "v"])
    names = parameters.labels(moe.fields)
    assert names[:1] == ["pi[stick 0]"]
    assert names[5:8] == ["Gamma[0,L(1,0)]", "Gamma[0,log L(0,0)]", "Gamma[0,log L(1,1)]"]
    assert names[-2:] == ["log nu[0]", "log nu[1]"]
    assert moe.coords["feature_bis"] == ["u", "v"]
    params = draw_params(moe, 1)
    with jax.enable_x64(True):
        free = dict(zip(names, np.asarray(parameters.flatten(moe.fields, params)), strict=True))
    root = np.linalg.cholesky(params["Gamma"][0])
    np.testing.assert_allclose(free["Gamma[0,L(1,0)]"], root[1, 0])
    np.testing.assert_allclose(free["Gamma[0,log L(1,1)]"], np.log(root[1, 1]))
    np.testing.assert_allclose(free["log nu[1]"], np.log(params["nu"][1]))
    np.testing.assert_allclose(free["pi[stick 0]"], np.log(params["pi"][0] / params["pi"][1]))


MOE = gaussian_gated(2, 1)
X, Y = np.linspace(0, 1, 4)[:, None], np.linspace(0, 1, 4)
GOOD = {"pi": [0.5, 0.5], "c": 0.0, "Gamma": 1.0, "a": 0.0, "b": 0.0, "nu": 1.0}
BAD = [
    (lambda: gaussian_gated(0, 1), "experts must be an integer of at least 1"),
    (lambda: gaussian_gated(2.0, 1), "experts must be an integer"),
    (lambda: gaussian_gated(2, 0), "features must be at least 1"),
    (lambda: gaussian_gated(2, 1, covariance="tied"), "covariance must be one of full, diagonal, spherical"),
    (lambda: gaussian_gated(2, 1, responses=0), "responses must be"),
    (lambda: MOE.observe(X[:, 0], Y), "x must be two-dimensional"),
    (lambda: MOE.observe(X, Y[:, None]), r"y must have shape \(n,\).*y.ravel"),
    (lambda: MOE.observe(X, Y[:3]), "x has 4 rows, y has 3"),
    (lambda: MOE.observe(X, [0, 1, np.nan, 2]), "y must be finite, got nan at index"),
    (lambda: MOE.observe(X, [0, 1, np.inf, 2]), "y must be finite"),
    (lambda: MOE.observe(X, list("abcd")), "y must hold real numbers"),
    (lambda: MOE.observe(X, Y * 1j), "y must hold real numbers"),
    (lambda: MOE.params(**GOOD | {"pi": [0.5, 0.6]}), "pi must lie in"),
    (lambda: MOE.params(**GOOD | {"nu": 0.0}), "nu must lie in"),
    (lambda: gaussian_gated(1, 2).params(**GOOD | {"pi": 1.0, "Gamma": [[1, 2], [2, 1]]}), "Gamma must lie in"),
    (lambda: MOE.class_probabilities(GOOD, X), "Use predict"),
    (lambda: MOE.simulate_joint(0, GOOD, 1e2), "n must be an integer"),
    (lambda: gaussian_gated(2, ["u"]).observe(pd.DataFrame({"v": X[:, 0]}), Y), "x must have the columns"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_pandas_and_integers_are_taken_as_they_are():
    frame = pd.DataFrame({"u": [1, 2, 3, 4]})
    moe = gaussian_gated(2, ["u"])
    given = moe.log_density(GOOD, frame, pd.Series([1, 2, 3, 5]))
    np.testing.assert_array_equal(given, moe.log_density(GOOD, frame.to_numpy(float), [1.0, 2.0, 3.0, 5.0]))
