"""One table, every property: what any model of the house must satisfy. A new gate or expert adds one row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from selection import quick

from bayes_moe import contaminated, gaussian_gated
from bayes_moe.ground import parameters
from bayes_moe.model.experts import Frozen
from mle import em, newton

N, D = 60, 2
X = np.random.default_rng(0).normal(size=(N, D))
ETA0 = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
TABLE = np.log(np.random.default_rng(1).dirichlet(np.ones(3), N))
GRADIENT = 1e-6  # relative error allowed to central differences
ROUNDING = 1e-9  # by which EM may seem to fall, for each observation

MODELS = {
    **{f"linear frozen, {a}": contaminated(ETA0, activation=a) for a in ("linear", "tanh", "sigmoid", "gelu", "relu")},
    "tanh frozen, tanh": contaminated(ETA0, frozen_activation="tanh", activation="tanh"),
    "all classes free": contaminated(ETA0, activation="tanh", reference=None),
    "own activation": contaminated(ETA0, activation=jnp.sin),
    "sigmoid gate": contaminated(ETA0, gate="sigmoid"),
    "constant gate": contaminated(ETA0, gate="constant"),
    "two adapters": contaminated(ETA0, adapters=2),
    "two adapters, sigmoid gate": contaminated(ETA0, adapters=2, gate="sigmoid"),
    "frozen table": contaminated(Frozen.table(TABLE), features=D, activation="tanh"),
    **{f"gaussian, {form}": gaussian_gated(3, D, covariance=form) for form in ("full", "diagonal", "spherical")},
}


GATES = {
    "softmax": lambda s: np.exp(s),
    "sigmoid": lambda s: 1 / (1 + np.exp(-s)),
    "constant": lambda s: np.exp(s),
}


@pytest.mark.parametrize("adapters", [1, 2, 3])
@pytest.mark.parametrize("gate", GATES)
def test_gates_are_their_formulas(gate, adapters):
    moe = contaminated(ETA0, adapters=adapters, gate=gate)
    params = draw_params(moe)
    slopes = params.get("beta", np.zeros((adapters, D)))
    scores = np.column_stack([np.zeros(N), X @ slopes.T + params["tau"]])
    weights = GATES[gate](scores)
    with jax.enable_x64(True):
        found = np.exp(moe.log_memberships(params, jnp.asarray(X.T)))
    np.testing.assert_allclose(found.T, weights / weights.sum(axis=1, keepdims=True), rtol=1e-12)


def test_adapters_may_change_places():
    moe = contaminated(ETA0, adapters=2)
    params = draw_params(moe)
    y = moe.simulate(0, params, X)
    turned = {name: value[::-1] for name, value in params.items()}
    np.testing.assert_allclose(moe.log_density(turned, X, y), moe.log_density(params, X, y), rtol=1e-12)


QUICK = (
    *("linear frozen, linear", "linear frozen, tanh", "all classes free", "own activation", "sigmoid gate"),
    *("constant gate", "two adapters", "frozen table", "gaussian, full"),
)


@pytest.fixture(params=quick(MODELS, *QUICK))
def moe(request):
    return request.param


def draw_params(moe, seed=0):
    free = np.random.default_rng(seed).normal(size=parameters.size(moe.fields))
    with jax.enable_x64(True):
        return {k: np.asarray(v) for k, v in parameters.unflatten(moe.fields, jnp.asarray(free)).items()}


def bounds(moe):
    """A box where the likelihood might have no finite maximum."""
    return None if moe.real else {name: (-20, 20) for name in moe.fields}


def mass(moe, params, row):
    """Integral or sum of p(y | x) over y, from the density alone."""
    if moe.real:
        y = np.linspace(-200, 200, 40_001)
        return np.trapezoid(np.exp(moe.conditional_log_density(params, np.repeat(row[None], len(y), axis=0), y)), y)
    return moe.class_probabilities(params, X).sum(axis=1)


def test_probabilities_sum_to_one(moe):
    np.testing.assert_allclose(mass(moe, draw_params(moe), X[0]), 1.0, rtol=1e-12)


def test_density_is_the_probability_of_the_class_seen(moe):
    if moe.real:
        pytest.skip("real responses have no class")
    params, y = draw_params(moe), moe.simulate(0, draw_params(moe), X)
    probabilities = moe.class_probabilities(params, X)[np.arange(N), y]
    np.testing.assert_allclose(np.exp(moe.log_density(params, X, y)), probabilities, rtol=1e-12)


def test_responsibilities_sum_to_one(moe):
    params = draw_params(moe)
    np.testing.assert_allclose(moe.responsibilities(params, X, moe.simulate(0, params, X)).sum(axis=1), 1.0, rtol=1e-12)


def test_the_order_of_the_experts_is_arbitrary(moe):
    if not moe.gate.generative:
        pytest.skip("a frozen expert cannot change places")
    params = draw_params(moe)
    turned = {name: np.roll(value, 1, axis=0) for name, value in params.items()}
    y = moe.simulate(0, params, X)
    np.testing.assert_allclose(moe.log_density(turned, X, y), moe.log_density(params, X, y), rtol=1e-12)


def test_free_vector_round_trip(moe):
    params = draw_params(moe)
    with jax.enable_x64(True):
        back = parameters.unflatten(moe.fields, parameters.flatten(moe.fields, params))
    for name, value in params.items():
        np.testing.assert_allclose(back[name], value, rtol=1e-12)


def test_gradient_equals_central_differences(moe):
    params = draw_params(moe, 3)
    with jax.enable_x64(True):
        data = moe.observe(X, moe.simulate(0, params, X))
        free = np.asarray(parameters.flatten(moe.fields, params))
        value = jax.jit(lambda v: moe.log_likelihood(parameters.unflatten(moe.fields, v), data))
        exact, step = np.asarray(jax.grad(value)(free)), 1e-6
        numeric = [(value(free + step * e) - value(free - step * e)) / (2 * step) for e in np.eye(len(free))]
    np.testing.assert_allclose(exact, numeric, rtol=GRADIENT, atol=GRADIENT * np.abs(exact).max())


def test_em_never_falls(moe):
    y = moe.simulate(1, draw_params(moe, 1), X)
    fit = em.fit(moe, X, y, init=draw_params(moe, 2), max_iter=5, bounds=bounds(moe))
    assert np.diff(fit.history).min() >= -ROUNDING * N


def test_maximum_is_at_least_the_truth(moe):
    truth = draw_params(moe, 4)
    y = moe.simulate(2, truth, X)
    fit = newton.fit(moe, X, y, init=truth, bounds=bounds(moe))
    assert fit.log_likelihood >= moe.log_density(truth, X, y).sum() - ROUNDING * N
