"""Kernel EM: closed forms, both engines, labels along u, constants, errors."""

import itertools
import pickle
import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import oracle_varying as oracle
import pytest
from curve_cases import at_one_u, draw_rows, draw_standin, some_theta
from montecarlo import key
from scipy.special import logsumexp

from bayes_moe import varying_coefficient
from bayes_moe.ground.compilation import jitted
from mle.kernel import kernel_em
from mle.kernel import plan as curve_plan
from mle.kernel import starts as curve_starts
from mle.local import engines as local_em
from mle.local import labels
from mle.local import likelihood as local

SAME_CLOSED_FORM = 1e-8


@pytest.mark.parametrize("engine", curve_plan.ENGINES)
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


@pytest.mark.parametrize("engine", curve_plan.ENGINES)
def test_the_curves_of_simulation_1_are_found(engine):
    fit = standin_fit(engine)
    truth = oracle.standin(fit.grid)
    error = {name: np.sqrt(np.mean((fit.params[name] - truth[name]) ** 2)) for name in truth}
    assert fit.status == "converged"
    assert error["alpha"] < 0.15
    assert error["alpha"] < error["beta"] < 0.6


def test_a_fit_can_be_pickled():
    fit = standin_fit("consistent")
    again = pickle.loads(pickle.dumps(fit))
    np.testing.assert_array_equal(again.at([0.5])["alpha"], fit.at([0.5])["alpha"])


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
    plan = curve_plan.plan_of(fit)
    with jax.enable_x64(True):
        seen = local.around(jax.tree.map(jnp.asarray, fit.data), plan.windows)
        scores, information = jitted(observed_derivatives)(fit.model, fit.theta, seen)
    assert (np.linalg.eigvalsh(information)[:, 0] > 0).all()
    moved = np.linalg.solve(information, np.asarray(scores)[..., None])[..., 0]
    assert np.abs(moved).max() < 1e-3


@pytest.mark.slow
def test_the_consistent_engine_is_at_its_fixed_point():
    fit = standin_fit("consistent")
    plan = curve_plan.plan_of(fit)
    with jax.enable_x64(True):
        r = local_em.responsibilities(fit.model, jnp.asarray(fit.theta), fit.data, plan.windows)
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
    plan = curve_plan.make_plan(model, data, h, engine="separate")
    rng, out = np.random.default_rng(0), []
    for g in range(len(plan.grid)):
        r = jnp.asarray(curve_starts.draw(model, data, 3, rng)[2])
        blank = plan.held(curve_starts.blank(model, data, plan.grid))
        start = jitted(local_em.consistent)(model, data, plan.windows, blank, r, plan.free, 15, 1e-6).theta
        alone = jitted(local_em.separate)(model, data, plan.windows, start, plan.free, 300, 1e-8)
        out.append(np.asarray(alone.theta)[g])
    return np.array(out)[:, 1 + 1]  # beta[0,0], alpha[0,0], alpha[0,1]


@pytest.mark.slow
def test_where_components_cross_only_fits_of_each_u_alone_switch_labels():
    model, rows = draw_crossing()
    with jax.enable_x64(True):
        assert switches(fit_each_u_alone(model, rows, 0.2)) > 0
    for engine in curve_plan.ENGINES:
        fit = kernel_em.fit(model, *rows, h=0.2, engine=engine, random_state=0)
        assert switches(fit.params["alpha"][:, 0, 1]) == 0
        truth = crossing(fit.grid)["alpha"]
        if fit.params["alpha"][0, 0, 1] < 0:  # mean intercepts are both zero: either number will do
            truth = truth[:, ::-1]
        assert np.abs(fit.params["alpha"] - truth).max() < 0.4


def test_the_separate_engine_mends_shuffled_labels():
    fit = standin_fit("separate")
    plan = curve_plan.plan_of(fit)
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


@pytest.mark.parametrize(
    ("fixed", "free"),
    [({}, True), ({"delta": -1.0}, True), ({"beta": 0.0}, True), ({"beta": 1.0}, False), ({"alpha[1,1]": 0.0}, False)],
)
def test_components_are_renumbered_only_where_what_is_held_allows_it(fixed, free):
    model, rows = draw_standin()
    plan = curve_plan.make_plan(model, model.observe(*rows), 0.3).holding(fixed)
    assert plan.interchangeable == free


def test_a_component_keeps_the_number_that_it_is_fixed_by():
    model, rows = draw_standin()
    for engine in curve_plan.ENGINES:
        fit = kernel_em.fit(model, *rows, h=0.3, engine=engine, random_state=0, fixed={"alpha[1,1]": 0.7})
        assert (fit.params["alpha"][:, 1, 1] == 0.7).all()
        assert np.median(fit.params["alpha"][:, 0, 1]) < 0.2  # the component whose slope is about -0.1


@pytest.mark.slow
@pytest.mark.parametrize("engine", curve_plan.ENGINES)
@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_units_change_nothing_but_the_numbers(engine, unit):
    model, (x, z, u, y) = draw_standin()
    options = {"h": 0.3, "grid": 6, "engine": engine, "n_init": 2, "random_state": 0}
    plain = kernel_em.fit(model, x, z, u, y, **options)
    for values, scale in (((x, z, u, unit * y), unit), ((x, z / unit, u, y), np.array([1.0, unit]))):
        fit = kernel_em.fit(model, *values, **options)
        assert fit.status == plain.status == "converged"
        np.testing.assert_allclose(fit.params["beta"], plain.params["beta"], atol=1e-3)
        np.testing.assert_allclose(fit.params["alpha"], plain.params["alpha"] * scale, rtol=1e-3, atol=1e-3 * unit)


# Constants -----------------------------------------------------------------------------------------------------


def draw_hybrid(n, seed):
    """Return data whose expert slopes and sds are constant, and the model that says so."""
    model = varying_coefficient("normal", 2, constant=("alpha[:,1]", "delta"))
    rng = np.random.default_rng(seed)
    x, z, u = rng.normal(size=(n, 1)), rng.normal(size=(n, 1)), rng.uniform(size=n)
    truth = oracle.standin(u)
    truth["alpha"][..., 1], truth["delta"][:] = [0.8, -0.4], np.log([0.3, 0.4])
    return model, (x, z, u, model.simulate(seed, truth, x, z))


@pytest.mark.parametrize("engine", curve_plan.ENGINES)
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


@pytest.mark.parametrize("other", [False, True])
def test_data_decide_which_component_has_the_constant_slope(other):
    model, rows = draw_hybrid(500, seed=1)
    x, z, u, y = rows
    upper = y > np.median(y)
    bent = np.where(upper == other, 0.0, 1.5 * (u - 0.5)) * z[:, 0]  # of either the upper or the lower expert
    model = varying_coefficient("normal", 2, constant=("alpha[0,1]",))
    fit = kernel_em.fit(model, x, z, u, y + bent, h=0.3, random_state=0)
    slopes, intercepts = fit.params["alpha"][:, :, 1], fit.params["alpha"][:, :, 0].mean(axis=0)
    assert np.ptp(slopes[:, 0]) == 0
    assert np.ptp(slopes[:, 1]) > 0.8
    assert (intercepts[0] > intercepts[1]) == other


@pytest.mark.slow
@pytest.mark.statistical
def test_constant_coefficients_are_root_n():
    sizes, replicates, errors = (250, 1000, 4000), 12, []
    for n in sizes:
        h = 0.25 * (n / 250) ** -0.2
        fits = [kernel_em.fit(*_flat(draw_hybrid(n, key(seed))), h=h, random_state=0) for seed in range(replicates)]
        slopes = np.array([fit.params["alpha"][0, :, 1] for fit in fits])
        errors.append(np.sqrt(np.mean((slopes - [0.8, -0.4]) ** 2)))
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert -0.75 < slope < -0.3


def _flat(case):
    return case[0], *case[1]


@pytest.mark.slow
def test_discrete_u_will_do():
    rng = np.random.default_rng(0)
    u, z = rng.integers(0, 12, 400).astype(float), rng.normal(size=(400, 1))
    y = 1 + u / 12 + z[:, 0] + 0.3 * rng.normal(size=400)
    model = varying_coefficient("normal", 1, gate_features=0, expert_features=1)
    fit = kernel_em.fit(model, np.zeros((400, 0)), z, u, y, h=0.4, random_state=0)
    assert fit.status == "converged"
    np.testing.assert_allclose(fit.params["alpha"][:, 0, 0], 1 + fit.grid / 12, atol=0.15)


def test_an_expert_of_nothing_but_zeros_is_named():
    rng = np.random.default_rng(0)
    y = np.where(rng.uniform(size=300) < 0.4, 0, rng.poisson(8, size=300))
    model, none = varying_coefficient("poisson", 2, gate_features=0, expert_features=0), np.zeros((300, 0))
    fit = kernel_em.fit(model, none, none, rng.uniform(size=300), y, h=0.4, grid=6, random_state=0)
    assert "expert 0 explains nothing but zeros" in fit.status


def test_a_coefficient_that_ran_away_does_not_decide_labels():
    model = varying_coefficient("negative-binomial", 2, gate_features=0, expert_features=0)
    target = np.zeros((3, 2 * model.size))
    target[:, : model.size] = [-0.3, 1.0, 2.6, 2.0, 6.0]  # gate, two log means, two log k
    theta = target.copy()
    theta[:, 3] = 85.0  # log k of the first, whose counts show no overdispersion
    np.testing.assert_array_equal(labels.nearest(model, theta, target, np.full(model.size, 0.1)), [0, 1])


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
    "few values of u": (lambda: fitted(u=np.round(U)), "u", "distinct values"),
    "x with another column": (lambda: fitted(x=Z), "x", "1 columns"),
    "z with a row less": (lambda: fitted(z=Z[1:]), "z", "60 rows"),
    "z not finite": (lambda: fitted(z=replaced(Z, (2, 1), np.inf)), "z", "finite"),
    "x constant": (lambda: fitted(x=np.full((N, 1), 0.1)), "x", "column 0 constant .* 20 of 20"),
    "z constant in a window": (lambda: fitted(z=np.stack([Z[:, 0], U > 0.6], axis=1)), "z", "column 1 constant"),
    "z collinear": (lambda: fitted(z=np.stack([Z[:, 0], 3 * Z[:, 0] - 1], axis=1)), "z", "collinear"),
    "z a line in u": (lambda: fitted(z=np.stack([Z[:, 0], 10 * U + 1], axis=1)), "z", "with u"),
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
    "a grid short of the ends": (lambda: fitted(grid=[0.55, 0.6, 0.65]), "h", "ends of the data"),
    "max_iter negative": (lambda: fitted(max_iter=-1), "max_iter", "at least 1"),
    "max_iter no number": (lambda: fitted(max_iter="a"), "max_iter", "integer"),
    "tol missing": (lambda: fitted(tol=None), "tol", "number"),
    "fixed without values": (lambda: fitted(fixed=["delta"]), "fixed", "mapping"),
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


@pytest.mark.slow
def test_separation_within_a_window_is_named():
    rng = np.random.default_rng(0)
    model, n = varying_coefficient("binomial", 1, gate_features=0, expert_features=1), 300
    z, u = rng.normal(size=(n, 1)), rng.uniform(size=n)
    y = np.where(u > 0.5, z[:, 0] > 0, rng.uniform(size=n) < 0.5).astype(float)
    fit = kernel_em.fit(model, np.zeros((n, 0)), z, u, y, h=0.2, random_state=0)
    assert "expert 0 separates" in fit.status
