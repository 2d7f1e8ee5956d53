"""Fisher information where some of it is missing, the Cramér–Rao slopes of the regimes, strong identifiability."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from montecarlo import STANDARD_ERRORS, key
from selection import quick

from bayes_moe import contaminated
from bayes_moe.ground import parameters
from bayes_moe.theory import information
from bayes_moe.theory.information import strong_identifiability
from mle.optimise.objective import Objective

ETA0 = np.array([[1.0, 0.0], [-0.5, 1.0], [0.0, 0.0]])
TRUTH = {"tau": 0.5, "beta": [0.5, -0.5], "eta": [[-1.0, 1.0], [-0.5, -1.5]]}
BLOCKS = ("tau", "beta", "eta")

EXACT = 1e-8
SLOPE = 0.02  # between a measured Cramér–Rao slope and the reference
POWER = 0.05  # between an exponent of the distance from the frozen expert and its limit


def build(frozen_activation="linear", activation="tanh", eta0=ETA0, **options):
    """Return a contaminated model."""
    return contaminated(eta0, frozen_activation=frozen_activation, activation=activation, **options)


def draw_x(rows=500, features=2):
    """Return normal covariates, the same ones at every call."""
    return np.random.default_rng(0).normal(size=(rows, features))


@functools.cache
def normal_nodes(per_axis=64):
    """Return Gauss-Hermite nodes and weights for N(0, I_2)."""
    points, weights = np.polynomial.hermite_e.hermegauss(per_axis)
    return np.array(np.meshgrid(points, points)).reshape(2, -1).T, np.outer(weights, weights).ravel()


def bound_by_block(moe, params, n):
    """Return the root of the summed squared Cramér–Rao bounds of tau, beta and eta, for X ~ N(0, I_2)."""
    x, weights = normal_nodes()
    bound = information.cramer_rao(moe, params, x, n, weights=weights)
    return np.array([np.sqrt(np.sum(bound[name] ** 2)) for name in BLOCKS])


def log_slopes(at, values):
    """Return least-squares slopes of log values on a log scale, one for each column."""
    return np.polyfit(np.log(at), np.log(values), 1)[0]


# The information itself ------------------------------------------------------------------------------------------


def score_z(drawn_at):
    """Return z-scores of the mean products of simulated scores at the truth against the Fisher information."""
    moe, x = build(), draw_x(5000)
    truth = moe.params(**TRUTH)
    y = moe.simulate(key(1), moe.params(**(TRUTH | drawn_at)), x)
    with jax.enable_x64(True):
        scores = Objective(moe, moe.observe(x, y)).scores(np.asarray(parameters.flatten(moe.fields, truth)))
    products = scores[:, :, None] * scores[:, None, :]
    spread = products.std(axis=0) / np.sqrt(len(x))
    return np.abs(products.mean(axis=0) - information.fisher(moe, truth, x)) / spread


@pytest.mark.statistical
def test_information_is_the_mean_product_of_scores():
    assert score_z({}).max() < STANDARD_ERRORS
    assert score_z({"tau": -1.0}).max() > STANDARD_ERRORS


def test_bound_falls_with_the_root_of_n():
    moe, x = build(), draw_x()
    base, more = (information.cramer_rao(moe, moe.params(**TRUTH), x, n) for n in (100, 10_000))
    for name in BLOCKS:
        np.testing.assert_allclose(more[name], base[name] / 10.0, rtol=EXACT)


@pytest.mark.parametrize("units", [(100.0, 0.01), (1e4, 1e-3)], ids=str)
def test_bound_follows_units(units):
    moe, scaled, x = build(), build(eta0=ETA0 / units), draw_x()
    truth = moe.params(**TRUTH)
    there = {name: value if name == "tau" else value / units for name, value in truth.items()}
    base, moved = (information.cramer_rao(*at, 100) for at in ((moe, truth, x), (scaled, there, x * units)))
    for name in BLOCKS:
        back = moved[name] if name == "tau" else moved[name] * units
        np.testing.assert_allclose(back, base[name], rtol=EXACT)


@pytest.mark.parametrize("n", [0, -5, np.nan])
def test_a_sample_size_that_is_not_positive_is_refused(n):
    moe = build()
    with pytest.raises(ValueError, match="n must be positive"):
        information.cramer_rao(moe, moe.params(**TRUTH), draw_x(), n)


# Where information is missing ------------------------------------------------------------------------------------

SAME_EXPERTS = {
    "homogeneous, eta = eta0": (build("tanh"), ETA0[:2]),
    "heterogeneous, both uniform": (build(eta0=0.0 * ETA0), np.zeros((2, 2))),
}


@pytest.mark.parametrize("beta", [[0.0, 0.0], [1.0, -1.0]], ids=["constant gate", "varying gate"])
@pytest.mark.parametrize(("moe", "eta"), SAME_EXPERTS.values(), ids=SAME_EXPERTS)
def test_equal_experts_leave_the_gate_unknown_and_eta_as_if_the_gate_were_known(moe, eta, beta):
    x, params = draw_x(), moe.params(tau=0.5, beta=beta, eta=eta)
    bound, matrix = information.cramer_rao(moe, params, x, 100), information.fisher(moe, params, x)
    np.testing.assert_allclose(matrix[:3], 0.0, atol=1e-16)
    assert np.isinf(bound["tau"]).all()
    assert np.isinf(bound["beta"]).all()
    expected = np.sqrt(np.diag(np.linalg.inv(100 * matrix[3:, 3:])))
    np.testing.assert_allclose(bound["eta"].ravel(), expected, rtol=EXACT)


def test_a_duplicated_column_leaves_its_slopes_unknown_and_the_intercept_known():
    moe, x = build(), draw_x()[:, [0, 0]]
    truth = moe.params(**TRUTH)
    bound = information.cramer_rao(moe, truth, x, 100)
    single = build(eta0=ETA0.sum(axis=1, keepdims=True))
    sums = {name: v if name == "tau" else v.sum(axis=-1, keepdims=True) for name, v in truth.items()}
    assert np.isinf(bound["beta"]).all()
    assert np.isinf(bound["eta"]).all()
    alone = information.cramer_rao(single, sums, x[:, :1], 100)
    np.testing.assert_allclose(bound["tau"], alone["tau"], rtol=1e-6)


def test_a_column_of_zeros_leaves_only_its_own_slopes_unknown():
    moe, x = build(), draw_x() * [1.0, 0.0]
    bound = information.cramer_rao(moe, moe.params(**TRUTH), x, 100)
    np.testing.assert_array_equal(np.isinf(bound["beta"]), [[False, True]])
    np.testing.assert_array_equal(np.isinf(bound["eta"]), [[[False, True]] * 2])
    assert np.isfinite(bound["tau"]).all()


def test_a_constant_column_leaves_its_sum_with_the_intercept_known():
    moe, x = build(), np.column_stack([np.ones(500), draw_x()[:, 0]])
    bound = information.cramer_rao(moe, moe.params(**TRUTH), x, 100)
    assert np.isinf(bound["tau"]).all()
    np.testing.assert_array_equal(np.isinf(bound["beta"]), [[True, False]])
    assert np.isfinite(bound["eta"]).all()


# Cramér–Rao slopes, X ~ N(0, I_2) by Gauss-Hermite quadrature through the weights ---------------------------------

ONE_ROW = np.array([[0.0, 1.0], [0.0, 0.0]])
NULL, SLOPED = [0.0, 0.0], [1.0, -1.0]
SLOPES = {
    "homogeneous, beta = 0": ("tanh", NULL, (-0.276, -0.398, -0.418)),
    "homogeneous, beta = (1, -1)": ("tanh", SLOPED, (-0.387, -0.390, -0.531)),
    "heterogeneous, beta = 0": ("linear", NULL, (-0.498, -0.503, -0.528)),
}


def drifting_slopes(frozen_activation, beta, sizes):
    """Return slopes of the bounds over n at eta* = eta0 + n^-1/8 e_2, tau* = 0.5."""
    moe = build(frozen_activation, eta0=ONE_ROW)
    truths = [moe.params(tau=0.5, beta=beta, eta=[[0.0, 1.0 + n**-0.125]]) for n in sizes]
    return log_slopes(sizes, [bound_by_block(moe, truth, n) for truth, n in zip(truths, sizes, strict=True)])


@pytest.mark.parametrize(("frozen_activation", "beta", "expected"), SLOPES.values(), ids=SLOPES)
def test_slopes_of_the_drifting_regimes(frozen_activation, beta, expected):
    found = drifting_slopes(frozen_activation, beta, np.logspace(3, 6, 7))
    np.testing.assert_allclose(found, expected, atol=SLOPE)


def test_slopes_tell_the_regimes_apart():
    rows = np.array([expected for *_, expected in SLOPES.values()])
    assert min(np.abs(a - b).max() for i, a in enumerate(rows) for b in rows[:i]) > 2 * SLOPE


LIMITS = {
    "homogeneous, beta = 0": ("tanh", NULL, (-0.25, -0.375, -0.375)),
    "homogeneous, beta = (1, -1)": ("tanh", SLOPED, (-0.375, -0.375, -0.5)),
    "heterogeneous, beta = 0": ("linear", NULL, (-0.5, -0.5, -0.5)),
}


@pytest.mark.parametrize(("frozen_activation", "beta", "expected"), LIMITS.values(), ids=LIMITS)
def test_slopes_reach_their_limits_for_very_large_n(frozen_activation, beta, expected):
    found = drifting_slopes(frozen_activation, beta, np.logspace(8, 12, 5))
    np.testing.assert_allclose(found, expected, atol=SLOPE)


POWERS = {"constant gate": (NULL, (-2.0, -1.0, -1.0)), "varying gate": (SLOPED, (-1.0, -1.0, 0.0))}


@pytest.mark.parametrize(("beta", "expected"), POWERS.values(), ids=POWERS)
def test_bounds_grow_as_the_adapter_nears_the_frozen_expert(beta, expected):
    moe, distances = build("tanh", eta0=ONE_ROW), np.array([0.04, 0.02, 0.01])
    truths = [moe.params(tau=0.5, beta=beta, eta=[[0.0, 1.0 + distance]]) for distance in distances]
    found = log_slopes(distances, [bound_by_block(moe, truth, 1000) for truth in truths])
    np.testing.assert_allclose(found, expected, atol=POWER)


# Strong identifiability --------------------------------------------------------------------------------------------


def check(expert, features, seed, offset=False, **options):
    """Check Definition 1 at random class vectors, none of them near zero."""
    eta = np.random.default_rng([7, seed]).normal(size=(3, features + offset))
    eta *= 1.0 + 0.3 / np.linalg.norm(eta, axis=1, keepdims=True)
    return strong_identifiability(expert, eta, draw_x(1000, features), offset=offset, **options)


@pytest.mark.slow
@pytest.mark.parametrize("features", [1, 2, 3])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "gelu"])
def test_smooth_nonlinear_activations_are_strongly_identifiable(activation, features):
    assert all(check(activation, features, seed).holds for seed in range(4))


@pytest.mark.parametrize("features", [1, 2, 3])
@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_activations_without_curvature_are_not(activation, features):
    for seed in range(4):
        found = check(activation, features, seed)
        assert not found.holds
        assert found.second_order < EXACT < found.first_order


@pytest.mark.parametrize("features", quick([1, 2], 1))
@pytest.mark.parametrize("activation", quick(["linear", "tanh", "sigmoid", "gelu", "relu"], "linear", "gelu"))
def test_no_activation_with_an_offset_is(activation, features):
    for seed in range(3):
        found = check(activation, features, seed, offset=True)
        assert not found.holds
        assert found.first_order < EXACT


def test_the_answer_does_not_depend_on_rows_units_of_the_gate_or_order():
    eta, x = np.array([[0.5, 1.0], [-1.0, 0.3]]), draw_x(1000)
    base = strong_identifiability("tanh", eta, x)
    turned = strong_identifiability("tanh", eta[::-1], x[::-1])
    assert turned.second_order == pytest.approx(base.second_order)
    assert turned.first_order == pytest.approx(base.first_order)
    assert strong_identifiability("tanh", eta, x, beta=[2.0, 0.0]).holds
    flat = strong_identifiability("tanh", eta, x, beta=[0.0, 0.0])
    assert flat.first_order < EXACT < flat.second_order


def test_a_function_of_covariates_and_vector_is_the_activation_it_wraps():
    assert check(lambda x, eta: jnp.tanh(eta @ x), 2, 0) == check(jnp.tanh, 2, 0) == check("tanh", 2, 0)
    assert check(lambda x, eta: jax.nn.relu(eta @ x), 2, 0) == check("relu", 2, 0)


def test_an_activation_with_an_option_is_an_activation():
    assert not check(jax.nn.leaky_relu, 2, 0).holds
    assert check(jax.nn.silu, 2, 0).holds


def test_softplus_is_refused_since_its_second_derivative_is_its_first_less_its_square():
    found = check(jax.nn.softplus, 2, 0)
    assert found.second_order < EXACT < found.first_order


REDUNDANT = {
    "their sum": lambda x, eta: jnp.tanh((eta[0] + eta[1]) * x[0]),
    "their product": lambda x, eta: jnp.tanh(eta[0] * eta[1] * x[0]),
}


@pytest.mark.parametrize("expert", REDUNDANT.values(), ids=REDUNDANT)
def test_two_parameters_that_enter_only_through_one_number_are_refused(expert):
    eta = np.array([[1.2, 0.5], [-0.4, 0.9]])
    assert not strong_identifiability(expert, eta, draw_x(1000, 1)).holds


def unpacking(x, eta):
    """Return an expert that takes its parameters apart."""
    scale, slope, other = eta
    return scale * jnp.tanh(slope * x[0] + other * x[1])


TWO_ARGUMENTS = {
    "compiled": jax.jit(lambda x, eta: jnp.tanh(eta @ x)),
    "with an option": lambda x, eta, scale=1.0: jnp.tanh(scale * (eta @ x)),
    "partial": functools.partial(lambda c, x, eta: jnp.tanh(c * (eta @ x)), 1.0),
}


@pytest.mark.parametrize("expert", TWO_ARGUMENTS.values(), ids=TWO_ARGUMENTS)
def test_any_callable_of_two_arguments_will_do(expert):
    assert check(expert, 2, 0).second_order == pytest.approx(check("tanh", 2, 0).second_order)


def test_an_expert_may_take_its_parameters_apart():
    eta = np.array([[1.0, 0.5, -1.0], [2.0, -0.3, 0.8]])
    assert strong_identifiability(unpacking, eta, draw_x(1000)).first_order > 0


BAD = {
    "unknown activation": (("tahn", [[1.0]], [[1.0]]), "Did you mean 'tanh'"),
    "eta not a table": (("tanh", [1.0], [[1.0]]), "two-dimensional"),
    "x not a table": (("tanh", [[1.0]], [1.0]), "two-dimensional"),
    "an offset without a column": (("tanh", np.ones((1, 3)), draw_x(50)), "eta must have 2 columns"),
    "few rows": (("tanh", [[1.0, 2.0]], draw_x(11)), "x must have at least 12 rows.*got 11"),
    "NaN": (("tanh", [[1.0, np.nan]], draw_x(50)), "eta must be finite"),
    "no derivative": ((lambda z: z**0.5, [[1.0, 2.0]], draw_x(50)), "expert must have finite derivatives"),
    "words": (("tanh", [["a"]], [[1.0]]), "real numbers"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        strong_identifiability(*arguments)


def test_gate_slopes_have_one_entry_for_each_column():
    with pytest.raises(ValueError, match=r"beta must have shape \(2,\).*got \(3,\)"):
        strong_identifiability("tanh", [[1.0, 2.0]], draw_x(50), beta=np.ones(3))
