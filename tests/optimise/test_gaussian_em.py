"""EM for the Gaussian-gated mixture: closed forms, scikit-learn's steps, starts, floors, collapse, errors, criteria."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from selection import quick
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from bayes_moe import contaminated, gaussian_gated
from bayes_moe.ground import parameters
from comparisons.peers import gaussian_em
from mle import criteria, em, newton
from mle.optimise import responsibilities, uncertainty
from mle.optimise.objective import Objective
from mle.optimise.steps import maximise_closed, maximise_expected

M1 = {
    "pi": [0.3, 0.4, 0.3],
    "c": [[-0.1], [0.1], [0.5]],
    "Gamma": np.reshape([0.042824, 0.0175, 0.01], (3, 1, 1)),
    "a": [[0.4045395], [-0.7142857], [0.0]],
    "b": [0.3404540, -0.3285714, 0.2],
    "nu": [0.00887672, 0.02642857, 0.0175],
}
SAME_VALUE = 1e-8  # of log likelihood
FORMS = ("full", "diagonal", "spherical")
SHAPES = [(3, 2, 1), (2, 1, 2)]  # experts, features, responses


def draw_m1(n=200, seed=0):
    moe = gaussian_gated(3, 1)
    return moe, moe.params(**M1), *moe.simulate_joint(seed, M1, n)


def draw_objective(form, shape, n=200, weights=True):
    """Return an objective on structureless data, random responsibilities, and present values."""
    moe, rng = gaussian_gated(*shape[:2], covariance=form, responses=shape[2]), np.random.default_rng(0)
    y = rng.normal(size=(n, shape[2])) @ rng.normal(size=(shape[2], shape[2])) + 3
    w = rng.uniform(0, 2, n) if weights else np.ones(n)
    data = moe.observe(rng.normal(size=(n, shape[1])) - 1, y[:, 0] if shape[2] == 1 else y, w)
    r = w * rng.dirichlet(np.ones(shape[0]), n).T
    return Objective(moe, jax.tree.map(jnp.asarray, data)), jnp.asarray(r), np.zeros(parameters.size(moe.fields))


@jax.jit
@jax.value_and_grad
def expected(free, moe, data, r):
    """Expected complete log likelihood, from log_joint alone."""
    return jnp.sum(r * moe.log_joint(parameters.unflatten(moe.fields, free), data))


# The M-step ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [False, True], ids=["right", "planted error"])
@pytest.mark.parametrize("form", quick(FORMS, "full"))
@pytest.mark.parametrize("shape", SHAPES)
def test_the_closed_form_is_the_maximum_of_the_expected_log_likelihood(form, shape, wrong):
    with jax.enable_x64(True):
        objective, r, free = draw_objective(form, shape)
        found = maximise_closed(objective, free, r[:, ::-1] if wrong else r)
        value, gradient = expected(found, objective.moe, objective.data, r)
        assert (np.abs(gradient).max() > 1e-8) == wrong
        for step in np.random.default_rng(1).normal(scale=0.05, size=(5, len(free))):
            assert wrong or expected(found + step, objective.moe, objective.data, r)[0] < value


def test_the_experts_m_step_is_weighted_least_squares():
    with jax.enable_x64(True):
        objective, r, free = draw_objective("full", (3, 2, 1))
        params = parameters.unflatten(objective.moe.fields, jnp.asarray(maximise_closed(objective, free, r)))
    x, y, r = np.asarray(objective.data.x).T, np.asarray(objective.data.y)[0], np.asarray(r)
    for i, weight in enumerate(r):
        root = np.sqrt(weight)[:, None]
        beta, *_ = np.linalg.lstsq(root * np.column_stack([x, np.ones(len(x))]), root[:, 0] * y, rcond=None)
        np.testing.assert_allclose([*params["a"][i], params["b"][i]], beta, rtol=1e-10)
        np.testing.assert_allclose(params["Gamma"][i], np.cov(x.T, aweights=weight, bias=True), rtol=1e-10)


def test_an_expert_without_responsibility_keeps_its_parameters():
    with jax.enable_x64(True):
        objective, r, free = draw_objective("full", (3, 2, 1))
        found = maximise_closed(objective, free, r.at[1].set(0.0))
        moe = objective.moe
        before, after = (parameters.unflatten(moe.fields, jnp.asarray(v)) for v in (free, found))
        for name in ("c", "Gamma", "a", "b", "nu"):
            np.testing.assert_allclose(after[name][1], before[name][1], atol=1e-12)
        assert after["pi"][1] < 1e-100
        assert np.isfinite(objective.value(found))


# Step by step beside scikit-learn --------------------------------------------------------------------------


def sklearn_history(params, x, y, steps):
    """Log likelihood after each EM step of scikit-learn's full Gaussian mixture on (x, y)."""
    weights, means, covariances = zip(*oracle.joint_atoms(params), strict=True)
    points, precisions = np.column_stack([x, y]), np.linalg.inv(covariances)
    settings = {"weights_init": weights, "means_init": means, "precisions_init": precisions, "random_state": 0}
    mixture = GaussianMixture(len(weights), init_params="random", reg_covar=0, max_iter=1, warm_start=True, **settings)
    history = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in range(steps):
            history.append(mixture.fit(points).score(points) * len(points))
    return np.array(history)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_every_step_is_that_of_scikit_learn(shape):
    moe = gaussian_gated(*shape[:2], responses=shape[2])
    rng = np.random.default_rng(3)
    start = moe.params(
        pi=np.full(shape[0], 1 / shape[0]),
        c=rng.normal(size=shape[:2]),
        Gamma=np.eye(shape[1]),
        a=rng.normal(size=moe.fields["a"].shape),
        b=rng.normal(size=moe.fields["b"].shape),
        nu=1.0 if shape[2] == 1 else np.eye(shape[2]),
    )
    x, y = moe.simulate_joint(0, start | {"c": 2 * start["c"]}, 200)
    with jax.enable_x64(True):
        objective = Objective(moe, jax.tree.map(jnp.asarray, moe.observe(x, y)))
        free = np.asarray(parameters.flatten(moe.fields, start))
        climbed = em.climb(objective, free, 30, -1.0, maximise_expected)
    np.testing.assert_allclose(climbed.history[1:], sklearn_history(start, x, y, 30), atol=SAME_VALUE, rtol=0)


def test_a_diagonal_gate_is_not_that_of_scikit_learn():
    """Negative control: steps of another model differ."""
    moe, truth, *_ = draw_m1()
    wide = gaussian_gated(2, 2, covariance="diagonal")
    start = wide.params(pi=0.5, c=[[0, 0], [1, 1]], Gamma=1.0, a=1.0, b=0.0, nu=1.0)
    x = np.random.default_rng(0).normal(size=(300, 2)) @ [[1, 0.9], [0, 0.5]]
    y = x.sum(axis=1) + np.random.default_rng(1).normal(size=300)
    fit = em.fit(wide, x, y, init=start, max_iter=5, tol=0.0)
    assert np.abs(fit.history[1:] - sklearn_history(start, x, y, 5)).max() > 1e-3


# Starts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [None, *responsibilities.KINDS])
def test_each_kind_of_start_reaches_the_same_maximum_again_and_again(kind):
    moe, truth, x, y = draw_m1()
    fits = [em.fit(moe, x, y, n_init=3, random_state=4, init=kind) for _ in range(2)]
    assert fits[0].log_likelihood == fits[1].log_likelihood
    reference = em.fit(moe, x, y, init=truth)
    assert fits[0].status == "maximum"
    assert fits[0].log_likelihood == pytest.approx(reference.log_likelihood, abs=1e-4)
    assert len(fits[0].starts) == 3


@pytest.mark.slow
def test_integer_weights_are_repeated_rows():
    moe, truth, x, y = draw_m1()
    times = np.random.default_rng(0).integers(0, 4, 200)
    weighted = em.fit(moe, x, y, init=truth, weights=times, max_iter=20, tol=0.0)
    repeated = em.fit(moe, np.repeat(x, times, axis=0), np.repeat(y, times), init=truth, max_iter=20, tol=0.0)
    np.testing.assert_allclose(weighted.history, repeated.history, atol=1e-9)


def test_newton_and_em_agree():
    moe, truth, x, y = draw_m1()
    one, two = em.fit(moe, x, y, init=truth, tol=1e-9), newton.fit(moe, x, y, init=truth)
    assert one.log_likelihood == pytest.approx(two.log_likelihood, abs=1e-6)
    assert one.status == two.status == "maximum"


# Floors and collapse ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nu", "Gamma"])
@pytest.mark.parametrize("form", quick(FORMS, "full"))
def test_a_floor_that_acts_is_reported_and_one_that_does_not_changes_nothing(form, name):
    moe = gaussian_gated(2, 2, covariance=form)
    truth = moe.params(pi=0.5, c=[[0, 0], [3, 3]], Gamma=np.eye(2) if form == "full" else 1, a=1, b=[0, 1], nu=[0.5, 1])
    x, y = moe.simulate_joint(0, truth, 300)
    plain = em.fit(moe, x, y, init=truth)
    low = em.fit(moe, x, y, init=truth, floors={name: 0.01})
    assert low.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-9)
    assert plain.certificate.at_bounds == low.certificate.at_bounds == ()
    high = em.fit(moe, x, y, init=truth, floors={name: 1.2})
    assert high.log_likelihood < plain.log_likelihood
    assert high.certificate.at_bounds
    assert all(name in label for label in high.certificate.at_bounds)
    assert high.status.startswith("at a bound: ")
    least = np.linalg.eigvalsh(high.params["Gamma"]) if (name, form) == ("Gamma", "full") else high.params[name]
    assert np.min(least) >= 1.2 - 1e-12


def test_a_collapsing_start_is_recorded_and_a_floor_saves_it():
    moe, truth, x, y = draw_m1(60)
    x, y = x.copy(), y.copy()
    x[:6] = np.linspace(3.0, 3.1, 6)[:, None]
    y[:6] = 0.25 + x[:6, 0]
    bad = truth | {"c": np.array([[3.0], [0.1], [0.5]]), "a": truth["a"] * 0 + 1, "b": truth["b"] * 0 + 0.25}
    fit = em.fit(moe, x, y, init=[bad, truth])
    messages = {start.index: start.message for start in fit.starts}
    assert "expert 0 has collapsed: its nu vanishes" in messages[0]
    assert np.isfinite(fit.log_likelihood)
    saved = em.fit(moe, x, y, init=bad, floors={"nu": 1e-4})
    assert saved.certificate.at_bounds == ("log nu[0]",)


def test_an_exact_line_is_fitted_where_a_floor_holds_its_variance():
    fit = em.fit(gaussian_gated(1, 1), Y40[:, None], 2 * Y40, n_init=2, random_state=0, floors={"nu": 0.01})
    assert fit.params["a"] == pytest.approx(2.0, abs=1e-8)


def duplicated(n=40):
    x = np.random.default_rng(0).normal(size=(n, 1))
    return np.hstack([x, x])


Y40 = np.random.default_rng(1).normal(size=40)
BAD = [
    (lambda: em.fit(gaussian_gated(5, 1), Y40[:4, None], Y40[:4], n_init=2, random_state=0), "experts must be at most"),
    (
        lambda: em.fit(gaussian_gated(2, 2), duplicated(), Y40, n_init=2, random_state=0),
        "x must have columns that vary",
    ),
    (
        lambda: em.fit(gaussian_gated(2, 1), Y40[:, None], np.ones(40), n_init=2, random_state=0),
        "y must not be constant",
    ),
    (
        lambda: em.fit(gaussian_gated(2, 1), np.ones((40, 1)), Y40, n_init=2, random_state=0),
        "x must have columns that vary",
    ),
    (lambda: em.fit(gaussian_gated(2, 1), Y40[:, None], Y40, n_init=2, random_state=0), "y must not be a linear"),
    (lambda: em.fit(gaussian_gated(2, 1), Y40[:, None], Y40, init="k-means", random_state=0), "init must be one of"),
    (lambda: em.fit(gaussian_gated(2, 1), Y40[:, None], Y40, random_state=0, floors={"c": 1.0}), "'c' is no variance"),
    (
        lambda: em.fit(
            gaussian_gated(2, 1), Y40[:, None], Y40, random_state=0, floors={"nu": 1.0}, bounds={"a": (-5, 5)}
        ),
        "floors can't be combined with bounds",
    ),
    (lambda: em.fit(gaussian_gated(2, 1), Y40[:, None], Y40, random_state=0, floors={"nu": 0.0}), "must be a positive"),
    (
        lambda: em.fit(contaminated(np.eye(2)), duplicated(), (Y40 > 0).astype(int), random_state=0, init="kmeans"),
        "init must be parameter values",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Standard errors and criteria ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", uncertainty.KINDS)
def test_standard_errors_of_one_expert_are_the_textbooks(kind):
    moe = gaussian_gated(1, 1)
    truth = moe.params(pi=1.0, c=2.0, Gamma=0.25, a=-1.0, b=3.0, nu=0.09)
    x, y = moe.simulate_joint(0, truth, 20_000)
    fit = em.fit(moe, x, y, n_init=1, random_state=0)
    found = uncertainty.standard_errors(moe, fit, x, y, kind=kind).values
    n, gamma, nu = len(x), fit.params["Gamma"][0, 0, 0], fit.params["nu"][0]
    textbook = {
        "c": np.sqrt(gamma / n),
        "Gamma": gamma * np.sqrt(2 / n),
        "a": np.sqrt(nu / gamma / n),
        "b": np.sqrt(nu * (1 + fit.params["c"][0, 0] ** 2 / gamma) / n),
        "nu": nu * np.sqrt(2 / n),
    }
    tolerance = 1e-6 if kind == "observed" else 0.05
    for name, value in textbook.items():
        np.testing.assert_allclose(found[name].ravel(), value, rtol=tolerance, err_msg=name)
    assert found["pi"] == 0


@pytest.mark.slow
def test_criteria_are_those_of_scikit_learn_and_choose_three():
    _, _, x, y = draw_m1(1500)
    table = {}
    for count in (1, 2, 3, 4):
        moe = gaussian_gated(count, 1)
        fit = em.fit(moe, x, y, n_init=4, random_state=0, max_iter=20_000)
        table[count] = criteria.criteria(moe, fit, x, y)
        if count == 3:
            weights, means, covariances = zip(*oracle.joint_atoms(fit.params), strict=True)
            mixture = GaussianMixture(3, reg_covar=0).fit(np.column_stack([x, y]))
            mixture.weights_, mixture.means_ = np.array(weights), np.array(means)
            mixture.precisions_cholesky_ = np.linalg.cholesky(np.linalg.inv(covariances))
            points = np.column_stack([x, y])
            np.testing.assert_allclose([table[3]["aic"], table[3]["bic"]], [mixture.aic(points), mixture.bic(points)])
            r = mixture.predict_proba(points)
            assert table[3]["icl"] == pytest.approx(table[3]["bic"] - 2 * np.sum(r * np.log(np.maximum(r, 1e-300))))
    assert criteria.best(table)["bic"] == 3


# Too many experts ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("experts", [4, 5])
def test_newton_ends_the_climb_that_em_begins(experts):
    moe = gaussian_gated(experts, 1)
    _, _, x, y = draw_m1(500)
    start = em.fit(moe, x, y, n_init=1, random_state=0, max_iter=20).params
    slow, fast = em.fit(moe, x, y, init=start, max_iter=20_000), newton.fit(moe, x, y, init=start)
    assert slow.converged
    assert fast.converged
    assert fast.log_likelihood == pytest.approx(slow.log_likelihood, abs=1e-4)
    assert 20 * fast.n_iter < slow.n_iter


@pytest.mark.slow
def test_the_race_with_scikit_learn_is_over_the_same_steps():
    _, _, apart = gaussian_em.race(400, 2, 1, 10, 0)
    assert apart < SAME_VALUE
    x, y, start = gaussian_em.problem(400, 2, 1, 0)
    _, here = gaussian_em.ours(x, y, start, 10)
    _, later = gaussian_em.theirs(x, y, start, 11)
    assert abs(here - later) > 10 * SAME_VALUE
