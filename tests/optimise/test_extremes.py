"""At the ends of double precision an answer is right or refused by name, never wrong."""

import jax
import numpy as np
import pytest

from bayes_moe import contaminated, gaussian_gated
from bayes_moe.ground.data import check_weights
from bayes_moe.theory import information, losses, solvability, voronoi

ETA0 = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
X = np.random.default_rng(0).normal(size=(100, 2))
VALUES = {"tau": [0.5], "beta": [[1.0, -1.0]], "eta": [[[2.0, 0.0], [0.0, -2.0]]]}
UNITS = [1e-140, 1e-50, 1e-13, 1e-3, 1e8, 1e13, 1e50, 1e140]


def bound(units, **options):
    """Cramér-Rao bounds with covariates in other units, carried back, flat."""
    units = np.broadcast_to(units, 2)
    moe = contaminated(ETA0 / units, activation="tanh", **options)
    params = moe.params(tau=VALUES["tau"], beta=VALUES["beta"] / units, eta=VALUES["eta"] / units)
    found = information.cramer_rao(moe, params, X * units, 50)
    return np.concatenate([found["tau"], (found["beta"] * units).ravel(), (found["eta"] * units).ravel()])


@pytest.mark.parametrize("unit", UNITS)
def test_cramer_rao_bounds_are_the_same_in_all_units(unit):
    plain = bound(1.0)
    np.testing.assert_allclose(bound(unit), plain, rtol=1e-9)
    np.testing.assert_allclose(bound([unit, 1.0]), plain, rtol=1e-9)
    np.testing.assert_allclose(bound([unit, 1 / unit]), plain, rtol=1e-9)


@pytest.mark.parametrize("unit", [1e-13, 1.0, 1e13])
def test_directions_without_information_are_infinite_in_all_units(unit):
    """Where the adapter is the frozen expert, its weight changes nothing."""
    eta = ETA0[:2] * [[1.0, 1.0], [1.0, 1.0]]
    moe = contaminated(ETA0 / unit, activation="linear")
    found = information.cramer_rao(
        moe, moe.params(tau=0.3, beta=np.array([[0.5, 0.2]]) / unit, eta=eta / unit), X * unit, 50
    )
    assert np.isinf(found["tau"]).all()
    assert np.isinf(found["beta"]).all()
    assert np.isfinite(found["eta"]).all()


@pytest.mark.parametrize("size", [1e-300, 1e-20, 1e300])
def test_fisher_weights_are_shares(size):
    moe = contaminated(ETA0, activation="tanh")
    weights = size * np.arange(1.0, 101.0) / 100
    expected = information.fisher(moe, VALUES, X, weights / size)
    np.testing.assert_allclose(information.fisher(moe, VALUES, X, weights), expected, rtol=1e-12)


A = {
    "pi": np.array([0.5, 0.5]),
    "c": np.array([[0.0], [1.0]]),
    "Gamma": np.ones((2, 1, 1)),
    "a": np.zeros((2, 1)),
    "b": np.zeros(2),
    "nu": np.ones(2),
}
B = A | {"c": A["c"] + 3.0}


def times(measure, unit):
    return {name: value if name == "pi" else value * unit for name, value in measure.items()}


@pytest.mark.slow
@pytest.mark.parametrize("unit", [1e-300, 1e-160, 1e-100, 1.0, 1e100, 1e160, 1e300])
def test_measures_are_compared_in_all_units(unit):
    one, two = times(A, unit), times(B, unit)
    for order in (1, 2.0, 17, 32):
        assert float(voronoi.wasserstein(one, two, order=order)) / unit == pytest.approx(3.0, rel=1e-12)
    np.testing.assert_array_equal(voronoi.cells(one, two), [[True, True], [False, False]])
    parts = voronoi.pieces(one, two, kind="linear")
    assert float(parts["c"][0]) / unit == pytest.approx(0.5 * 3.0 + 0.5 * 2.0, rel=1e-12)


def test_measures_of_many_draws_have_units_of_their_own():
    draws = {name: np.stack([times(B, unit)[name] for unit in (1e-200, 1.0, 1e200)]) for name in B}
    with jax.enable_x64(True):
        found, far = (np.asarray(jax.vmap(loss, (0, None))(draws, A)) for loss in (voronoi.cells, voronoi.wasserstein))
    for row, unit in enumerate((1e-200, 1.0, 1e200)):
        np.testing.assert_array_equal(found[row], voronoi.cells(times(B, unit), A))
        np.testing.assert_allclose(far[row], voronoi.wasserstein(times(B, unit), A), rtol=1e-12)


@pytest.mark.parametrize("unit", [1e-300, 1e-160, 1e160, 1e300])
def test_errors_are_distances_in_all_units(unit):
    truth = {name: np.zeros_like(value) for name, value in VALUES.items()}
    moved = truth | {"beta": np.array([[3.0, 4.0]]) * unit}
    assert float(losses.errors(moved, truth)["beta"]) / unit == pytest.approx(5.0, rel=1e-12)


def test_ratios_beyond_double_precision_are_infinitely_far_and_never_no_number():
    high, higher = {"tau": np.array([800.0])}, {"tau": np.array([801.0])}
    assert np.isinf(losses.errors(high, higher)["tau"])
    assert float(losses.errors(high, high)["tau"]) == 0.0
    truth = {name: np.asarray(value) for name, value in VALUES.items()}
    for regime in losses.REGIMES:
        lost = losses.contamination(truth | high, truth, frozen=ETA0, regime=regime)
        assert np.isinf(lost), regime
        assert float(losses.contamination(truth | high, truth | high, frozen=ETA0, regime=regime)) == 0.0


GATED = gaussian_gated(1, 1)


def gated(**changes):
    plain = {"pi": 1.0, "c": 0.0, "Gamma": np.ones((1, 1)), "a": 0.0, "b": 0.0, "nu": 1.0}
    return GATED.params(**plain | changes)


@pytest.mark.parametrize("sd", [1e-149, 1e-100, 1e-10, 1e10, 1e100, 1e149])
def test_normal_densities_are_right_for_sds_that_have_squares(sd):
    found = GATED.conditional_log_density(gated(nu=sd**2), [[0.5]], [0.7 * sd])
    np.testing.assert_allclose(found, -0.5 * 0.49 - np.log(sd) - 0.5 * np.log(2 * np.pi), rtol=1e-12)


CLASSES = contaminated(ETA0, activation="tanh")
ORDERS = [np.inf, np.nan, 0.5, 1000, True, None, "1", 1j]
SIZES = [0, -1, np.inf, np.nan, True, None, "1", 10**400]
RBARS = [(), (0.0,), (np.nan,), (-1, 2), "a", None, {1.0, 2.0}]
REFUSED = {
    "sd without a square": ("nu", lambda: gated(nu=1e-160**2 + 1e-320)),
    "covariance without a square": ("Gamma", lambda: gated(Gamma=[[1e-320]])),
    "x beyond squares": ("x", lambda: GATED.log_density(gated(), [[1e200]], [0.0])),
    "x below squares": ("x", lambda: CLASSES.prepare(X * 1e-160)),
    "a column below squares": ("x", lambda: CLASSES.prepare(X * [1.0, 1e-200])),
    "y beyond squares": ("y", lambda: GATED.log_density(gated(), [[0.0]], [-1e160])),
    "y below squares": ("y", lambda: GATED.observe([[0.0], [1.0]], [1e-170, 0.0])),
    "far beyond, of classes": ("x", lambda: CLASSES.class_probabilities(VALUES, X * 1e300)),
    "a product beyond": (
        "params and x",
        lambda: CLASSES.class_probabilities(VALUES | {"beta": [[1e200, -1e200]]}, [[1e140, 1e140]]),
    ),
    "weights without a sum": ("weights", lambda: information.fisher(CLASSES, VALUES, X, np.full(100, 1e307))),
    "the sum of weights": ("weights", lambda: check_weights([1e308, 1e308], 2)),
    **{f"order {o!r}": ("order", lambda o=o: voronoi.wasserstein(A, B, order=o)) for o in ORDERS},
    **{f"n {n!r:.9}": ("n", lambda n=n: information.cramer_rao(CLASSES, VALUES, X, n)) for n in SIZES},
    **{f"rbar {r!r}": ("rbar", lambda r=r: voronoi.voronoi(A, B, rbar=r)) for r in RBARS},
    **{f"eps {e!r}": ("eps", lambda e=e: solvability.counterexample(e)) for e in (1e-8, 1e-200, np.nan, True, "1")},
    **{f"m {m!r}": ("m", lambda m=m: solvability.rbar(m)) for m in (2.0, True, None, "2", 4)},
    "m of the bound": ("m", lambda: solvability.sign_change_bound(None)),
}


@pytest.mark.parametrize(("name", "call"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_computed_is_refused_by_name(name, call):
    with pytest.raises(ValueError, match=rf"^(params: )?{name} "):
        call()
