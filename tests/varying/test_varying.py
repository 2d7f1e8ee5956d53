"""The varying-coefficient model: its density against SciPy, simulation, names of coefficients, data in."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import oracle_varying as oracle
import pytest
from montecarlo import FALSE_ALARM, key
from scipy import stats

from bayes_moe import varying_coefficient
from bayes_moe.ground.compilation import jitted
from bayes_moe.model.responses import RESPONSES
from bayes_moe.varying.model import VaryingCoefficient

ROWS, P, Q = 12, 2, 1
SIZES = {"normal": 1.0, "binomial": 9.0, "poisson": 2.5, "negative-binomial": 2.5}
DRAWS = 4000


def draw_case(family, components=2, rows=ROWS, seed=0):
    """Return a model, coefficients for each row, covariates, index, responses and size."""
    rng = np.random.default_rng(seed)
    model = varying_coefficient(family, components, gate_features=P, expert_features=Q)
    params = {
        "beta": rng.normal(size=(rows, components - 1, 1 + P)),
        "alpha": rng.normal(size=(rows, components, 1 + Q)),
        "delta": 0.3 * rng.normal(size=(rows, components)),
    }
    params = {name: value for name, value in params.items() if name in model.fields}
    y = rng.normal(size=rows) if family == "normal" else rng.integers(0, 9, rows).astype(float)
    return model, params, rng.normal(size=(rows, P)), rng.normal(size=(rows, Q)), rng.uniform(size=rows), y


@pytest.mark.parametrize("components", [1, 2, 3])
@pytest.mark.parametrize("family", oracle.FAMILIES)
def test_the_density_is_scipys(family, components):
    model, params, x, z, u, y = draw_case(family, components)
    with jax.enable_x64(True):
        data = model.observe(x, z, u, y, size=SIZES[family])
        sorted_params = {name: value[data.order] for name, value in params.items()}
        found = np.asarray(jitted(VaryingCoefficient.log_joint)(model, model.last(sorted_params, ROWS), data))
    for column, row in zip(found.T, data.order, strict=True):
        mine = {name: value[row] for name, value in params.items()}
        expected = oracle.log_joint(family, mine, x[row], z[row], y[row], SIZES[family])
        np.testing.assert_allclose(column, expected, rtol=1e-10)


def test_constant_coefficients_may_have_one_column():
    model, params, x, z, u, y = draw_case("normal")
    with jax.enable_x64(True):
        data = model.observe(x, z, u, y)
        one = {name: value[:1] for name, value in params.items()}
        short = model.log_joint({name: np.moveaxis(value, 0, -1) for name, value in one.items()}, data)
        whole = model.log_joint(model.last(one, ROWS), data)
    np.testing.assert_allclose(short, whole, rtol=1e-13)


@pytest.mark.parametrize("family", ["binomial", "poisson", "negative-binomial"])
def test_information_in_eta_is_the_expected_curvature(family):
    response, counts = RESPONSES[family], jnp.arange(600.0 if family != "binomial" else 10.0)
    with jax.enable_x64(True):
        counts = counts.astype(jnp.float64)
        eta, delta, size = (jnp.full_like(counts, value) for value in (0.7, 0.4, SIZES[family]))
        density = jnp.exp(response.log_density(eta, delta, counts, size))
        assert jnp.sum(density) == pytest.approx(1, abs=1e-10)
        second = jax.jit(jax.vmap(jax.grad(jax.grad(response.log_density))))(eta, delta, counts, size)
        information = response.information(eta, delta, counts, size)[0][0]
        mean = response.mean(eta, size)[0]
        assert -jnp.sum(density * second) == pytest.approx(float(information), rel=1e-6)
        assert jnp.sum(density * counts) == pytest.approx(float(mean), rel=1e-6)


@pytest.mark.parametrize("delta", [-30.0, 0.5, 17.9, 18.1, 30.0, 40.0, 100.0])
def test_a_negative_binomial_of_any_dispersion_is_exact(delta):
    """Written as a difference of log gammas, log densities are far above zero from log k = 35 on, and EM seeks them."""
    response, eta, size = RESPONSES["negative-binomial"], 1.0, 10.0
    counts, mpmath.mp.dps = (0.0, 1.0, 30.0, 20_000.0), 120
    k, mean = mpmath.exp(delta), size * mpmath.exp(eta)
    expected = [
        mpmath.loggamma(y + k) - mpmath.loggamma(k) - mpmath.loggamma(y + 1)
        + k * mpmath.log(k / (mean + k)) + y * mpmath.log(mean / (mean + k))
        for y in counts
    ]  # fmt: skip
    with jax.enable_x64(True):
        found = [response.log_density(*(jnp.float64(v) for v in (eta, delta, y, size))) for y in counts]
        slopes = [jax.grad(response.log_density, (0, 1))(eta, delta, y, size) for y in counts]
    np.testing.assert_allclose(found, np.array(expected, dtype=float), rtol=1e-7)
    assert np.isfinite(slopes).all()


# Simulation --------------------------------------------------------------------------------------------------


def p_value_of_simulated(family, wrong):
    """Return the p-value of a chi-square (or Kolmogorov-Smirnov) test of draws at one covariate against the density."""
    model, params, x, z, *_ = draw_case(family, rows=1, seed=3)
    drawn = model.simulate(key(1), params, np.repeat(x, DRAWS, 0), np.repeat(z, DRAWS, 0), size=SIZES[family])
    at = {name: value[0].copy() for name, value in params.items()}
    if wrong:
        at["alpha"][:, 0] += 0.4
    if family == "normal":
        grid = np.linspace(-15, 15, 6001)
        density = [np.exp(oracle.log_joint(family, at, x[0], z[0], v)).sum() for v in grid]
        return stats.kstest(drawn, lambda v: np.interp(v, grid, np.cumsum(density) * (grid[1] - grid[0]))).pvalue
    top = int(SIZES["binomial"]) if family == "binomial" else 400
    chances = [np.exp(oracle.log_joint(family, at, x[0], z[0], v, SIZES[family])).sum() for v in range(top + 1)]
    bins = np.flatnonzero(np.array(chances) * DRAWS > 10)
    seen = np.array([(drawn == v).sum() for v in bins])
    expected = DRAWS * np.array(chances)[bins]
    rest = np.array([DRAWS - seen.sum()]), np.array([DRAWS - expected.sum()])
    keep = rest[1] > 5
    seen, expected = np.append(seen, rest[0][keep]), np.append(expected, rest[1][keep])
    return stats.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("wrong", [False, True], ids=["right", "planted error"])
@pytest.mark.parametrize("family", oracle.FAMILIES)
def test_simulated_responses_follow_the_density(family, wrong):
    assert (p_value_of_simulated(family, wrong) < FALSE_ALARM) == wrong


# Names, and data in ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("delta",), ["delta[0]", "delta[1]"]),
        (("alpha[:,1]",), ["alpha[0,1]", "alpha[1,1]"]),
        (("alpha[0,1]", "beta"), ["beta[0,0]", "beta[0,1]", "beta[0,2]", "alpha[0,1]"]),
        ((), []),
    ],
)
def test_coefficients_are_chosen_by_name(names, chosen):
    model = varying_coefficient("normal", 2, gate_features=P, expert_features=Q)
    assert np.array(model.labels)[model.select(names)].tolist() == chosen


@pytest.mark.parametrize("name", ["gamma", "alpha[2,0]", "alpha[0,5]", "alpha[", "delta[0,0]", "", 3])
def test_a_coefficient_that_is_not_there_is_refused(name):
    with pytest.raises(ValueError, match=r"constant must name coefficients.*alpha\[0,0\]"):
        varying_coefficient("normal", 2, constant=[name])


def test_rows_of_z_that_are_missing_are_named():
    model, params, x, z, *_ = draw_case("normal")
    with pytest.raises(ValueError, match="z must have one row for each row of x"):
        model.simulate(0, params, x, z[:-1])


def test_rows_are_sorted_by_u_and_scaled():
    model, _, x, z, u, y = draw_case("normal")
    data = model.observe(x, z, 10 + 5 * u, y)
    assert (np.diff(data.u) > 0).all()
    assert (data.u[0], data.u[-1]) == (0, 1)
    np.testing.assert_array_equal(data.y, y[np.argsort(u)])
    np.testing.assert_array_equal(data.x[1:].T, x[np.argsort(u)])
    np.testing.assert_array_equal(data.z[0], 1)
    wide = model.observe(x, z, u, y, u_range=(-1, 1))
    np.testing.assert_allclose(wide.u, (np.sort(u) + 1) / 2)
