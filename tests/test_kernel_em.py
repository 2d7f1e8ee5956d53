"""Kernel EM: kernels and local likelihood against slow code, closed forms, labels along u, constants, errors."""

import itertools
import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import oracle_varying as oracle
import pytest
from scipy import integrate, optimize
from scipy.special import logsumexp

from bayes_moe import varying_coefficient
from bayes_moe.compilation import jitted
from mle import bandwidth, kernel_em, labels, local, local_em, windows
from mle.kernels import KERNELS

EPANECHNIKOV = KERNELS["epanechnikov"]
SIZES = {"normal": 1.0, "binomial": 9.0, "poisson": 2.5, "negative-binomial": 2.5}
SAME_CLOSED_FORM = 1e-8
SAME_MAXIMUM = 1e-7  # of local log likelihood


def draw_rows(family, n=40, components=2, seed=0):
    """Return a model and structureless data (x, z, u, y)."""
    rng = np.random.default_rng(seed)
    model = varying_coefficient(family, components, gate_features=1, expert_features=2)
    y = rng.normal(size=n) if family == "normal" else rng.integers(0, 9, n).astype(float)
    return model, (rng.normal(size=(n, 1)), rng.normal(size=(n, 2)), rng.uniform(size=n), y)


@cache
def draw_standin(seed=0, n=500):
    """Return the model of Simulation 1 and data from its stand-in curves."""
    model, rng = varying_coefficient("normal", 2), np.random.default_rng(seed)
    x, z, u = rng.normal(size=(n, 1)), rng.normal(size=(n, 1)), rng.uniform(size=n)
    return model, (x, z, u, model.simulate(seed, oracle.standin(u), x, z))


def at_one_u(family, u0=0.4, h=0.3, **options):
    """Return a model, its data at one u as the engine sees them, and as the oracle does."""
    model, (x, z, u, y) = draw_rows(family, **options)
    data = model.observe(x, z, u, y, size=SIZES[family], u_range=(0, 1))
    cut = windows.build(data.u, np.array([u0]), h, EPANECHNIKOV)
    seen = jax.tree.map(lambda a: a[0], local.around(jax.tree.map(jnp.asarray, data), cut))
    return model, seen, (x, z, u, y, np.full(len(y), SIZES[family]))


def slow_value(model, family, rows, theta, u0=0.4, h=0.3):
    """Return the oracle's local log likelihood at theta (2 P,)."""
    like = {name: np.zeros(field.shape) for name, field in model.fields.items()}
    level, slope = (oracle.unflatten(like, part) for part in np.split(np.asarray(theta), 2))
    return oracle.local_log_likelihood(family, level, slope, rows, u0, h)


VALUE_HESSIAN, EXPECTED_HESSIAN = jax.hessian(local.value, 1), jax.hessian(local.expected, 1)


def responsibilities(model, theta, seen):
    at = local.predictors(model, theta, seen.data, seen.t)
    return jax.nn.softmax(model.log_joint_at(at, seen.data.y, seen.data.size), axis=0)


def some_theta(model, seed=5):
    return jnp.asarray(0.4 * np.random.default_rng(seed).normal(size=2 * model.size))


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


@pytest.mark.parametrize("components", [1, 2, 3])
@pytest.mark.parametrize("family", oracle.FAMILIES)
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


@pytest.mark.parametrize("family", oracle.FAMILIES)
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


@pytest.mark.parametrize("family", oracle.FAMILIES)
def test_an_m_step_never_lowers_its_aim_nor_a_climb_the_local_likelihood(family):
    with jax.enable_x64(True):
        model, seen, _ = at_one_u(family, n=120)
        free = jnp.ones(2 * model.size, bool)
        for seed in range(3):
            theta = some_theta(model, seed)
            r = jnp.asarray(np.random.default_rng(seed).dirichlet([1, 1], seen.t.shape[0]).T)
            after, aim = jitted(local_em.m_step)(model, theta, seen, r, free), jitted(local.expected)
            assert aim(model, after, seen, r) >= aim(model, theta, seen, r)
            climb = jitted(local_em.climb)
            steps = [climb(model, theta, seen, free, limit, 1e-10)[1] for limit in (0, 1, 2, 4, 8, 16)]
            assert (np.diff(steps) >= -1e-10).all()


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


@pytest.mark.parametrize("engine", kernel_em.ENGINES)
def test_one_component_is_local_linear_regression_in_closed_form(engine):
    rng = np.random.default_rng(1)
    z, u = rng.normal(size=(150, 2)), rng.uniform(size=150)
    y = np.sin(5 * u) + z @ [1.0, -1.0] * u + 0.3 * rng.normal(size=150)
    model = varying_coefficient("normal", 1, gate_features=0, expert_features=2)
    none = np.zeros((150, 0))
    fit = kernel_em.fit(
        model, none, z, u, y, h=0.2, u_range=(0, 1), engine=engine, random_state=0, fixed={"delta": -1.0}
    )
    for g, u0 in enumerate(fit.grid):
        expected = oracle.local_linear(z, u, y, u0, 0.2)
        np.testing.assert_allclose(fit.params["alpha"][g, 0], expected[:3], atol=SAME_CLOSED_FORM)
        np.testing.assert_allclose(fit.theta[g, model.size : model.size + 3], expected[3:], atol=SAME_CLOSED_FORM)
    assert (fit.params["delta"] == -1).all()
    assert fit.status == "converged"


# Engines -------------------------------------------------------------------------------------------------------


@cache
def standin_fit(engine, seed=0):
    model, rows = draw_standin(seed)
    return kernel_em.fit(model, *rows, h=0.21, engine=engine, random_state=0)


@pytest.mark.parametrize("engine", kernel_em.ENGINES)
def test_the_curves_of_simulation_1_are_found(engine):
    fit = standin_fit(engine)
    truth = oracle.standin(fit.grid)
    error = {name: np.sqrt(np.mean((fit.params[name] - truth[name]) ** 2)) for name in truth}
    assert fit.status == "converged"
    assert error["alpha"] < 0.15
    assert error["alpha"] < error["beta"] < 0.6


def test_the_log_likelihood_is_that_of_slow_code():
    fit = standin_fit("consistent")
    low, high = fit.data.range
    x, z, y = fit.data.x[1:].T, fit.data.z[1:].T, fit.data.y
    at = fit.at(np.clip(low + fit.data.u * (high - low), low, high))
    total = 0.0
    for row in range(fit.data.n):
        own = {name: value[row] for name, value in at.items()}
        total += logsumexp(oracle.log_joint("normal", own, x[row], z[row], y[row]))
    assert fit.log_likelihood == pytest.approx(total, rel=1e-9)


def observed_derivatives(model, theta, seen):
    return jax.vmap(lambda t, s: local.derivatives(model, t, s, 0.0))(theta, seen)


def complete_derivatives(model, theta, seen, r):
    return jax.vmap(partial(local.expected_derivatives, model))(theta, seen, r)


def test_the_separate_engine_maximises_each_local_likelihood():
    fit, other = standin_fit("separate"), standin_fit("consistent")
    assert (fit.local_log_likelihood >= other.local_log_likelihood - 1e-6).all()
    plan = kernel_em.plan_of(fit)
    with jax.enable_x64(True):
        seen = local.around(jax.tree.map(jnp.asarray, fit.data), plan.windows)
        scores, information = jitted(observed_derivatives)(fit.model, fit.theta, seen)
    assert (np.linalg.eigvalsh(information)[:, 0] > 0).all()
    moved = np.linalg.solve(information, np.asarray(scores)[..., None])[..., 0]
    assert np.abs(moved).max() < 1e-3


def test_the_consistent_engine_is_at_its_fixed_point():
    fit = standin_fit("consistent")
    plan = kernel_em.plan_of(fit)
    with jax.enable_x64(True):
        r = kernel_em._responsibilities(fit.model, fit.data, plan.windows, jnp.asarray(fit.theta))
        seen = local.around(jax.tree.map(jnp.asarray, fit.data), plan.windows)
        own = jnp.moveaxis(r[:, plan.windows.index], 1, 0)
        gradient, information = jitted(complete_derivatives)(fit.model, fit.theta, seen, own)
    moved = np.linalg.solve(information, np.asarray(gradient)[..., None])[..., 0]
    assert np.abs(moved).max() < 1e-4


def test_every_own_location_may_be_a_grid_point():
    model, rows = draw_standin()
    coarse = standin_fit("consistent")
    fine = kernel_em.fit(model, *rows, h=0.21, grid="own", init=coarse.at(np.sort(rows[2])))
    assert len(fine.grid) == 500
    np.testing.assert_allclose(coarse.at(fine.grid)["alpha"], fine.params["alpha"], atol=0.1)


def test_values_by_name_start_a_fit():
    model, rows = draw_standin()
    grid = np.linspace(rows[2].min(), rows[2].max(), 20)
    fit = kernel_em.fit(model, *rows, h=0.21, init=oracle.standin(grid))
    assert fit.log_likelihood == pytest.approx(standin_fit("consistent").log_likelihood, abs=0.01)


# Labels --------------------------------------------------------------------------------------------------------


def draw_crossing(n=600, seed=2):
    """Return two components whose intercepts cross at u = 1/2 and whose slopes in z do not vanish."""
    model, rng = varying_coefficient("normal", 2, gate_features=0), np.random.default_rng(seed)
    x, z, u = np.zeros((n, 0)), rng.normal(size=(n, 1)), rng.uniform(size=n)
    return model, (x, z, u, model.simulate(seed, crossing(u), x, z))


def crossing(u):
    one = np.ones_like(u)
    first = np.stack([2 * u - 1, one], axis=-1)
    second = np.stack([1 - 2 * u, -one], axis=-1)
    return {
        "beta": np.full((len(u), 1, 1), 0.3),
        "alpha": np.stack([first, second], axis=1),
        "delta": np.full((len(u), 2), np.log(0.3)),
    }


def switches(slopes):
    """Return how often the sign of the first expert's slope changes along the grid."""
    return int((np.diff(np.sign(slopes)) != 0).sum())


def fit_each_u_alone(model, rows, h):
    """Return the slopes (G,) of the first expert when each u starts from k-means in its own window, unaligned."""
    data = model.observe(*rows)
    plan = kernel_em.make_plan(model, data, h, engine="separate")
    rng, out = np.random.default_rng(0), []
    for g in range(len(plan.grid)):
        r = jnp.asarray(kernel_em.curve_starts.draw(model, data, 3, rng)[2])
        blank = plan.held(kernel_em.curve_starts.blank(model, data, plan.grid))
        start = jitted(local_em.consistent)(model, data, plan.windows, blank, r, plan.free, 15, 1e-6).theta
        alone = jitted(local_em.separate)(model, data, plan.windows, start, plan.free, 300, 1e-8)
        out.append(np.asarray(alone.theta)[g])
    return np.array(out)[:, 1 + 1]  # beta[0,0], alpha[0,0], alpha[0,1]


def test_where_components_cross_only_fits_of_each_u_alone_switch_labels():
    model, rows = draw_crossing()
    with jax.enable_x64(True):
        assert switches(fit_each_u_alone(model, rows, 0.2)) > 0
    for engine in kernel_em.ENGINES:
        fit = kernel_em.fit(model, *rows, h=0.2, engine=engine, random_state=0)
        assert switches(fit.params["alpha"][:, 0, 1]) == 0
        truth = crossing(fit.grid)["alpha"]
        if fit.params["alpha"][0, 0, 1] < 0:  # mean intercepts are both zero: either number will do
            truth = truth[:, ::-1]
        assert np.abs(fit.params["alpha"] - truth).max() < 0.4


def test_the_separate_engine_mends_shuffled_labels():
    fit = standin_fit("separate")
    plan = kernel_em.plan_of(fit)
    rng = np.random.default_rng(0)
    orders = np.array([rng.permutation(2) for _ in fit.grid])
    orders[0] = [0, 1]
    shuffled = labels.permute(fit.model, fit.theta, orders)
    assert np.abs(shuffled - fit.theta).max() > 0.5
    with jax.enable_x64(True):
        mended = kernel_em.aligned(plan, fit.data, shuffled)
    np.testing.assert_allclose(mended, fit.theta, atol=1e-12)


@pytest.mark.parametrize("components", [2, 3])
def test_the_path_is_the_best_of_all(components):
    rng = np.random.default_rng(components)
    r = rng.dirichlet(np.ones(components), (5, 9)).transpose(0, 2, 1)
    w = rng.uniform(size=(5, 9))
    every = list(itertools.permutations(range(components)))

    def cost(chosen):
        pairs = [(g, g + gap) for gap in (1, 2) for g in range(5 - gap)]
        return sum(
            (np.sqrt(w[g] * w[k]) * (r[g][list(chosen[g])] - r[k][list(chosen[k])]) ** 2).sum() for g, k in pairs
        )

    best = min(itertools.product(every[:1], *[every] * 4), key=cost)
    np.testing.assert_array_equal(labels.path(r, w), best)


@pytest.mark.parametrize("family", oracle.FAMILIES)
def test_renumbering_leaves_the_density_alone(family):
    with jax.enable_x64(True):
        model, seen, _ = at_one_u(family, components=3)
        theta = np.asarray(some_theta(model))
        for order in itertools.permutations(range(3)):
            value, other = jitted(local.value), labels.permute(model, theta, np.array(order))
            np.testing.assert_allclose(value(model, other, seen), value(model, theta, seen), rtol=1e-12)
        np.testing.assert_allclose(labels.permute(model, labels.permute(model, theta, [1, 2, 0]), [2, 0, 1]), theta)


# Constants -----------------------------------------------------------------------------------------------------


def draw_hybrid(n, seed):
    """Return data whose expert slopes and sds are constant, and the model that says so."""
    model = varying_coefficient("normal", 2, constant=("alpha[:,1]", "delta"))
    rng = np.random.default_rng(seed)
    x, z, u = rng.normal(size=(n, 1)), rng.normal(size=(n, 1)), rng.uniform(size=n)
    truth = oracle.standin(u)
    truth["alpha"][..., 1], truth["delta"][:] = [0.8, -0.4], np.log([0.3, 0.4])
    return model, (x, z, u, model.simulate(seed, truth, x, z))


@pytest.mark.parametrize("engine", kernel_em.ENGINES)
def test_constant_coefficients_are_constant_and_close(engine):
    model, rows = draw_hybrid(500, 0)
    fit = kernel_em.fit(model, *rows, h=0.25, engine=engine, random_state=0)
    slopes, sds = fit.params["alpha"][:, :, 1], np.exp(fit.params["delta"])
    assert (np.ptp(slopes, axis=0) == 0).all()
    assert (np.ptp(sds, axis=0) == 0).all()
    assert np.ptp(fit.params["alpha"][:, 0, 0]) > 0.3
    np.testing.assert_allclose(slopes[0], [0.8, -0.4], atol=0.12)
    np.testing.assert_allclose(sds[0], [0.3, 0.4], atol=0.08)
    assert (np.ptp(fit.at(fit.grid[3] + np.linspace(0, 0.01, 5))["delta"], axis=0) == 0).all()


@pytest.mark.slow
def test_constant_coefficients_are_root_n():
    sizes, replicates, errors = (250, 1000, 4000), 12, []
    for n in sizes:
        h = 0.25 * (n / 250) ** -0.2
        fits = [kernel_em.fit(*_flat(draw_hybrid(n, seed)), h=h, random_state=0) for seed in range(replicates)]
        slopes = np.array([fit.params["alpha"][0, :, 1] for fit in fits])
        errors.append(np.sqrt(np.mean((slopes - [0.8, -0.4]) ** 2)))
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert -0.75 < slope < -0.3


def _flat(case):
    return case[0], *case[1]


# Bandwidth -----------------------------------------------------------------------------------------------------


def test_cross_validation_scores_are_those_of_fits_without_the_fold():
    model, rows = draw_standin(n=500)
    rows = [values[:200] for values in rows]
    found = bandwidth.select(model, *rows, candidates=[0.3, 0.6], folds=2, grid=8, random_state=0, tol=1e-6)
    assert found.h == pytest.approx(0.85 * found.best)
    data = model.observe(*rows)
    plan = kernel_em.make_plan(model, data, 0.3, grid=8, max_iter=200)
    with jax.enable_x64(True):
        start, _ = kernel_em.first_guess(plan, data, 2, np.random.default_rng(0))
        fold = np.arange(200) % 2
        scored = bandwidth.held_out(plan, data, start, fold)
        spoilt = jax.tree.map(np.copy, data)
        spoilt.y[fold == 1] += 100 * (np.arange(100) % 2)
        again = bandwidth.held_out(plan, spoilt, start, fold)
    assert np.abs(again[fold == 1] - scored[fold == 1]).max() > 1  # held-out responses are scored ...
    kept = data.y[fold == 1] == spoilt.y[fold == 1]
    np.testing.assert_allclose(again[fold == 1][kept], scored[fold == 1][kept], atol=1e-4)  # ... and never fitted


def test_cross_validation_avoids_far_too_much_smoothing():
    rng = np.random.default_rng(0)
    model = varying_coefficient("normal", 1, gate_features=0, expert_features=0)
    u = rng.uniform(size=300)
    y = np.sin(12 * u) + 0.3 * rng.normal(size=300)
    none = np.zeros((300, 0))
    found = bandwidth.select(model, none, none, u, y, candidates=[0.12, 0.9], undersmooth=1, random_state=0)
    assert found.best == 0.12
    assert found.errors[1] > 0
    assert found.scores[1] < found.scores[0] - 5 * found.errors[1]


# Bad input -----------------------------------------------------------------------------------------------------

N = 60
X, Z, U, Y = (values[:N] for values in draw_rows("normal", n=N)[1])
GAP = np.concatenate([np.linspace(0, 0.3, 30), np.linspace(0.8, 1, 30)])


def fitted(family="normal", *, x=X, z=Z, u=U, y=Y, **options):
    model = varying_coefficient(family, 2, gate_features=1, expert_features=2)
    return kernel_em.fit(model, x, z, u, y, **({"h": 0.5, "random_state": 0} | options))


def replaced(values, where, what):
    copy = np.array(values)
    copy[where] = what
    return copy


BAD = {
    "u constant": (lambda: fitted(u=np.ones(N)), "u", "vary"),
    "u not finite": (lambda: fitted(u=replaced(U, 3, np.nan)), "u", "row 3"),
    "u of another length": (lambda: fitted(u=U[:-1]), "u", r"\(60,\)"),
    "u outside its range": (lambda: fitted(u_range=(0.2, 0.8)), "u", "within.*extrapolated"),
    "an empty range": (lambda: fitted(u_range=(1, 1)), "u_range", "low < high"),
    "a gap wider than h": (lambda: fitted(u=GAP, h=0.45), "h", r"0\.3 to 0\.8.*smallest workable h is 0\.5"),
    "h too small": (lambda: fitted(h=0.05), "h", "smallest workable h"),
    "h negative": (lambda: fitted(h=-1.0), "h", "positive"),
    "h not a number": (lambda: fitted(h="wide"), "h", "positive"),
    "few values of u": (lambda: fitted(u=np.round(2 * U)), "u", "distinct values"),
    "x with another column": (lambda: fitted(x=Z), "x", "1 columns"),
    "z with a row less": (lambda: fitted(z=Z[1:]), "z", "60 rows"),
    "z not finite": (lambda: fitted(z=replaced(Z, (2, 1), np.inf)), "z", "finite"),
    "y constant": (lambda: fitted(y=np.ones(N)), "y", "vary"),
    "y not finite": (lambda: fitted(y=replaced(Y, 0, np.nan)), "y", "finite"),
    "y no count": (lambda: fitted("poisson", y=np.abs(Y)), "y", "counts"),
    "y negative": (lambda: fitted("negative-binomial", y=np.round(10 * Y)), "y", "counts"),
    "y above size": (lambda: fitted("binomial", y=np.full(N, 3.0), size=2), "y", "number of trials"),
    "size broken": (lambda: fitted("binomial", y=np.ones(N), size=1.5), "size", "whole"),
    "size zero": (lambda: fitted("poisson", y=np.ones(N), size=0), "size", "positive"),
    "size of another length": (lambda: fitted("poisson", y=np.ones(N), size=[1, 2]), "size", r"\(60,\)"),
    "no random_state": (lambda: fitted(random_state=None), "random_state", "None"),
    "no starts": (lambda: fitted(n_init=0), "n_init", "at least 1"),
    "an unknown kernel": (lambda: fitted(kernel="boxcar"), "kernel", "epanechnikov"),
    "an unknown engine": (lambda: fitted(engine="global"), "engine", "consistent"),
    "grid of one point": (lambda: fitted(grid=1), "grid", "2 points"),
    "grid outside": (lambda: fitted(grid=[0.5, 3.0]), "grid", "range of u"),
    "grid descending": (lambda: fitted(grid=[0.5, 0.2]), "grid", "ascending"),
    "init with a name missing": (lambda: fitted(init={"alpha": 0}), "params", "missing"),
    "fixed at no number": (lambda: fitted(fixed={"delta": np.nan}), "fixed", "finite"),
    "fixed unknown": (lambda: fitted(fixed={"gamma": 0}), "fixed", "alpha"),
    "unknown experts": (lambda: varying_coefficient("gamma"), "experts", "poisson"),
    "no component": (lambda: varying_coefficient(components=0), "components", "at least 1"),
    "constant as a string": (lambda: varying_coefficient(constant="delta"), "constant", "sequence"),
    "prediction outside": (lambda: standin_fit("consistent").at([2.0]), "u", "extrapolated"),
}


@pytest.mark.parametrize(("call", "argument", "hint"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_by_name(call, argument, hint):
    with pytest.raises(ValueError, match=rf"^{argument}(?!\w)") as caught:
        call()
    assert re.search(hint, str(caught.value)), str(caught.value)


def test_an_empty_component_is_named_with_its_place():
    rng = np.random.default_rng(0)
    model, n = varying_coefficient("normal", 2, gate_features=0, expert_features=0), 400
    u, none = rng.uniform(size=n), np.zeros((n, 0))
    second = (rng.uniform(size=n) < 0.5) & (u > 0.6)
    fit = kernel_em.fit(model, none, none, u, 5.0 * second + 0.1 * rng.normal(size=n), h=0.15, random_state=0)
    assert re.search(r"component \d has fewer|collapsed|infinity", fit.status)
    assert "raise h" in fit.status


def test_separation_within_a_window_is_named():
    rng = np.random.default_rng(0)
    model, n = varying_coefficient("binomial", 1, gate_features=0, expert_features=1), 300
    z, u = rng.normal(size=(n, 1)), rng.uniform(size=n)
    y = np.where(u > 0.5, z[:, 0] > 0, rng.uniform(size=n) < 0.5).astype(float)
    fit = kernel_em.fit(model, np.zeros((n, 0)), z, u, y, h=0.2, random_state=0)
    assert "expert 0 separates" in fit.status
