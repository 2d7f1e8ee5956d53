"""The local likelihood: kernels, windows, value, score and informations against slow code, steps that never fall."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracle_varying as oracle
import pytest
from curve_cases import at_one_u, some_theta
from scipy import integrate, optimize
from selection import quick

from bayes_moe import varying_coefficient
from bayes_moe.ground.compilation import jitted
from comparisons.peers import curve_race
from mle.local import engines as local_em
from mle.local import likelihood as local
from mle.local import windows
from mle.local.kernels import KERNELS

EPANECHNIKOV = KERNELS["epanechnikov"]
SAME_MAXIMUM = 1e-7  # of local log likelihood


def slow_value(model, family, rows, theta, u0=0.4, h=0.3):
    """Return the oracle's local log likelihood at theta (2 P,)."""
    like = {name: np.zeros(field.shape) for name, field in model.fields.items()}
    level, slope = (oracle.unflatten(like, part) for part in np.split(np.asarray(theta), 2))
    return oracle.local_log_likelihood(family, level, slope, rows, u0, h)


VALUE_HESSIAN, EXPECTED_HESSIAN = jax.hessian(local.value, 1), jax.hessian(local.expected, 1)


def responsibilities(model, theta, seen):
    at = local.predictors(model, theta, seen.data, seen.t)
    return jax.nn.softmax(model.log_joint_at(at, seen.data.y, seen.data.size), axis=0)


# Kernels and windows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_kernels_are_densities_and_their_constants_are_integrals(kernel):
    k = lambda t: float(kernel(np.array([t]))[0])  # noqa: E731
    area, square = (integrate.quad(lambda t, p=p: k(t) ** p, -kernel.reach, kernel.reach)[0] for p in (1, 2))
    assert area == pytest.approx(1, abs=1e-8)
    assert kernel.square == pytest.approx(square, rel=1e-6)
    assert k(1.01 * kernel.reach) == 0
    r_k, c_k = kernel.glrt_constants
    assert c_k == pytest.approx(k(0.0) - square / 2, rel=1e-6)
    assert {"epanechnikov": 2.1153, "gaussian": 2.5375}.get(kernel.name, r_k) == pytest.approx(r_k, abs=2e-4)
    assert {"epanechnikov": 2.5, "gaussian": 0.5}.get(kernel.name, kernel.slope_square) == pytest.approx(
        kernel.slope_square, rel=1e-5
    )


@pytest.mark.parametrize("whole", [False, True])
def test_windows_hold_every_observation_in_reach_with_its_weight(whole):
    u, grid, h = np.sort(np.random.default_rng(0).uniform(size=60)), np.linspace(0, 1, 7), 0.23
    cut = windows.build(u, grid, h, EPANECHNIKOV, whole=whole)
    slow = np.array([[oracle.epanechnikov((value - point) / h) / h for value in u] for point in grid])
    found = np.zeros_like(slow)
    found[np.arange(7)[:, None], cut.index] = cut.w
    np.testing.assert_allclose(found, slow, atol=1e-14)
    np.testing.assert_allclose(u - grid[cut.near], cut.t_near * h, atol=1e-14)
    assert (np.abs(cut.t_near * h) <= 1 / 12 + 1e-12).all()


# The local likelihood --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "components"),
    quick([*((one, 2) for one in oracle.FAMILIES), ("normal", 1), ("binomial", 3)], ("normal", 2), ("binomial", 3)),
)
def test_value_and_score_are_those_of_slow_code(family, components):
    with jax.enable_x64(True):
        model, seen, rows = at_one_u(family, components=components)
        theta = some_theta(model)
        score, _ = jitted(local.derivatives)(model, theta, seen, 0.5)
        value = float(jitted(local.value)(model, theta, seen))
    slow = partial(slow_value, model, family, rows)
    assert value == pytest.approx(slow(theta), rel=1e-10)
    numeric = optimize.approx_fprime(np.asarray(theta), slow, 1e-6)
    np.testing.assert_allclose(score, numeric, atol=1e-3 * np.abs(numeric).max())


@pytest.mark.parametrize("family", quick(oracle.FAMILIES, "normal", "binomial"))
def test_informations_scores_and_the_em_gradient(family):
    with jax.enable_x64(True):
        model, seen, _ = at_one_u(family)
        theta = some_theta(model)
        score, observed = jitted(local.derivatives)(model, theta, seen, 0.0)
        np.testing.assert_allclose(observed, -jitted(VALUE_HESSIAN)(model, theta, seen), atol=1e-9)
        np.testing.assert_allclose(jitted(local.observed_scores)(model, theta, seen).sum(axis=1), score, atol=1e-9)
        r = jitted(responsibilities)(model, theta, seen)
        gradient, complete = jitted(local.expected_derivatives)(model, theta, seen, r)
        np.testing.assert_allclose(gradient, score, atol=1e-9)  # Fisher's identity
        np.testing.assert_allclose(complete, jitted(local.derivatives)(model, theta, seen, 1.0)[1], atol=1e-9)
        assert np.linalg.eigvalsh(complete)[0] > 0
        if family in ("binomial", "poisson"):  # canonical links: nothing random in the complete information
            slow = -jitted(EXPECTED_HESSIAN)(model, theta, seen, r)
            np.testing.assert_allclose(complete, slow, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("family", oracle.DISPERSED)  # those whose information is not the curvature itself
def test_an_m_step_never_lowers_its_aim_nor_a_climb_the_local_likelihood(family):
    with jax.enable_x64(True):
        model, seen, _ = at_one_u(family, n=120)
        free = jnp.ones(2 * model.size, bool)
        thetas = jnp.stack([some_theta(model, seed) for seed in range(3)])
        r = jnp.moveaxis(np.random.default_rng(0).dirichlet([1, 1], (3, seen.t.shape[0])), 2, 1)
        places = jax.tree.map(lambda a: jnp.broadcast_to(a, (3, *jnp.shape(a))), seen)
        after, aim = jitted(local_em.m_steps)(model, thetas, places, r, free), jitted(local.expected)
        for place, theta in enumerate(thetas):
            assert aim(model, after[place], seen, r[place]) >= aim(model, theta, seen, r[place])
            climb = jitted(local_em.climb)
            steps = [climb(model, theta, seen, free, limit, 1e-10)[1] for limit in (0, 1, 2, 4, 8, 16)]
            assert (np.diff(steps) >= -1e-10).all()


@pytest.mark.slow
def test_a_climb_reaches_what_a_generic_optimiser_reaches():
    with jax.enable_x64(True):
        model, seen, rows = at_one_u("binomial", n=60, components=1)
        theta, value, converged, _ = jitted(local_em.climb)(
            model, some_theta(model), seen, jnp.ones(2 * model.size, bool), 200, 1e-12
        )
    slow = partial(slow_value, model, "binomial", rows)
    found = optimize.minimize(lambda t: -slow(t), np.zeros(2 * model.size), method="BFGS", options={"gtol": 1e-6})
    assert converged
    assert float(value) == pytest.approx(-found.fun, abs=SAME_MAXIMUM)
    np.testing.assert_allclose(theta, found.x, atol=1e-3)


def test_the_race_climbs_the_same_local_likelihood():
    model, data = varying_coefficient("normal", 2), curve_race.problem(80, 0)
    x, z, u, y = data
    theta, t = np.asarray(some_theta(model)), (u - 0.4) / curve_race.BANDWIDTH
    seen = np.abs(t) < 1
    fast = curve_race.local(theta, x[seen], z[seen], t[seen], y[seen])
    rows = (x, z, u, y, np.ones(len(y)))
    assert fast == pytest.approx(slow_value(model, "normal", rows, theta, 0.4, curve_race.BANDWIDTH), rel=1e-12)
