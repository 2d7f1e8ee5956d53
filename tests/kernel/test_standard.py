"""Kernel estimates in any units: shifts and scales of covariates and responses change nothing but the numbers."""

from functools import cache

import jax
import numpy as np
import oracle_varying as oracle
import pytest
from curve_cases import draw_rows

from bayes_moe import varying_coefficient
from mle.kernel import bands, bandwidth, glrt, kernel_em, sandwich, standard
from mle.kernel import plan as curve_plan
from mle.kernel import starts as curve_starts
from mle.local.kernels import KERNELS

OPTIONS = {"h": 0.4, "grid": 5, "n_init": 2, "random_state": 0}
UNITS = {  # shift in standard deviations of x and of z, scale of both, scale of y
    "an offset of body height": (170 / 8, 100.0, 1.0, 1.0),
    "far offsets": (1e8, -1e8, 1.0, 1.0),
    "small covariates, far from zero": (30.0, 1e6, 1e-8, 1.0),
    "large covariates": (-30.0, 30.0, 1e8, 1.0),
    "small responses": (0.0, 0.0, 1.0, 1e-50),
    "large responses": (5.0, 5.0, 1.0, 1e50),
}
MODELS = {
    "free": ({}, {}),
    "constant slopes": ({"constant": ["alpha[:,1]"]}, {}),
    "a constant gate slope": ({"constant": ["beta[0,1]"]}, {}),
    "a fixed slope": ({}, {"fixed": {"alpha[1,1]": -0.4}}),
    "each u by itself": ({}, {"engine": "separate"}),
}


@cache
def rows():
    """Return data of two components whose slopes are constant in truth."""
    rng, model = np.random.default_rng(0), varying_coefficient("normal", 2)
    x, z, u = rng.normal(size=(200, 1)), rng.normal(size=(200, 1)), rng.uniform(size=200)
    truth = oracle.standin(u)
    truth["alpha"][..., 1] = [0.8, -0.4]
    return x, z, u, model.simulate(0, truth, x, z)


@cache
def fitted(which, at=(0.0, 0.0, 1.0, 1.0)):
    """Return a fit of a model to the data in other units, its fixed slope in the same."""
    (constants, options), (far_x, far_z, scale, unit), (x, z, u, y) = MODELS[which], at, rows()
    options = OPTIONS | options
    if "fixed" in options:
        options["fixed"] = {name: value * unit / scale for name, value in options["fixed"].items()}
    model = varying_coefficient("normal", 2, **constants)
    return kernel_em.fit(model, scale * (x + far_x), scale * (z + far_z), u, unit * y, **options)


def plain(params, at):
    """Return coefficients by name as they would be without shift and scales."""
    far_x, far_z, scale, unit = at
    out = {}
    for name, far, size in (("beta", far_x, 1.0), ("alpha", far_z, unit)):
        slopes = params[name][..., 1] * scale / size
        out[name] = np.stack([params[name][..., 0] / size + slopes * far, slopes], axis=-1)
    return out | {"delta": params["delta"] - np.log(unit)}


@pytest.mark.parametrize("at", UNITS.values(), ids=UNITS)
@pytest.mark.parametrize("which", MODELS)
def test_a_fit_is_the_same_in_any_units(which, at):
    fit, other = fitted(which), fitted(which, at)
    assert other.status == fit.status == "converged"
    assert other.log_likelihood + 200 * np.log(at[3]) == pytest.approx(fit.log_likelihood, abs=1e-5)
    for name, values in plain(other.params, at).items():
        np.testing.assert_allclose(values, fit.params[name], atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("at", UNITS.values(), ids=UNITS)
def test_tests_and_errors_are_the_same_in_any_units(at):
    fit, other = fitted("free"), fitted("free", at)
    tests = [glrt.test(one, constant=["alpha[:,1]"], method="chi-square") for one in (fit, other)]
    assert tests[1].statistic == pytest.approx(tests[0].statistic, abs=1e-4)
    assert tests[0].p_value > 0.05  # the truth's slopes are constant
    far_x, _, scale, unit = at
    wanted = np.array([np.nan, 1 / scale, np.nan, unit / scale, np.nan, unit / scale, 1.0, 1.0])
    slopes = np.isfinite(wanted)
    for kind in sandwich.KINDS:
        se, se_other = (sandwich.standard_errors(one, kind)[:, slopes] for one in (fit, other))
        np.testing.assert_allclose(se_other, se * wanted[slopes], rtol=1e-4)


def test_bootstrap_bands_of_slopes_do_not_depend_on_offsets():
    fit, other = fitted("free"), fitted("free", UNITS["an offset of body height"])
    draws, moved = (bands.replicate_curves(one, 0, 4, workers=1, pilot=3)[0] for one in (fit, other))
    np.testing.assert_allclose(moved[..., [1, 3, 5]], draws[..., [1, 3, 5]], atol=1e-3)


@pytest.mark.slow
def test_an_intercept_that_is_held_absorbs_no_shift():
    """One component, its sd known: local least squares, through a given point where z is zero."""
    rng = np.random.default_rng(1)
    z, u = 100 + rng.normal(size=(150, 1)), rng.uniform(size=150)
    y, none = 0.03 * z[:, 0] + u + 0.3 * rng.normal(size=150), np.zeros((150, 0))
    model = varying_coefficient("normal", 1, gate_features=0)
    fit = kernel_em.fit(
        model, none, z, u, y, **OPTIONS | {"fixed": {"alpha[0,0]": 2.0, "delta": -1.0}, "u_range": (0, 1)}
    )
    assert fit.status == "converged"
    for g, u0 in enumerate(fit.grid):
        t = (u - u0) / fit.h
        root = np.sqrt(KERNELS["epanechnikov"](t))
        basis = np.column_stack([z[:, 0], z[:, 0] * t]) * root[:, None]
        slope, change = np.linalg.lstsq(basis, (y - 2.0) * root)[0]
        np.testing.assert_allclose(fit.theta[g, [1, 4]], [slope, change], rtol=1e-7)
    assert (fit.params["alpha"][:, 0, 0] == 2).all()
    other = kernel_em.fit(
        model, none, z - 100, u, y, **OPTIONS | {"fixed": {"alpha[0,0]": 2.0, "delta": -1.0}, "u_range": (0, 1)}
    )
    assert abs(other.log_likelihood - fit.log_likelihood) > 1  # another model


def test_what_is_held_takes_the_rest_with_it():
    """Least squares by brute force: predictors change as little as they can where slopes are moved."""
    model, (x, z, u, y) = draw_rows("normal", n=60)
    data = model.observe(x, 50 * u[:, None] + z, u, y, u_range=(0, 1))
    plan = curve_plan.make_plan(model, data, 0.9, grid=3).holding({"alpha[1,2]": 0.3})
    theta = np.random.default_rng(0).normal(size=(3, 2 * model.size))
    with jax.enable_x64(True):
        found = curve_starts.held(plan, data, theta)
    own = np.array([model.labels.index(f"alpha[1,{k}]") for k in range(3)])
    own = np.concatenate([own, own + model.size])
    assert (found[:, own[[2, 5]]] == [0.3, 0.0]).all()
    for g in range(3):
        columns = data.z[:, plan.windows.index[g]]
        basis = np.concatenate([columns, columns * plan.windows.t[g]]).T * np.sqrt(plan.windows.w[g])[:, None]
        wanted = basis @ theta[g, own] - basis[:, 2] * 0.3
        best = np.linalg.lstsq(basis[:, [0, 1, 3, 4]], wanted)[0]
        np.testing.assert_allclose(found[g, own[[0, 1, 3, 4]]], best, rtol=1e-6, atol=1e-6)
    rest = np.setdiff1d(np.arange(2 * model.size), own)
    np.testing.assert_array_equal(found[:, rest], theta[:, rest])


def test_units_go_there_and_back():
    model, (x, z, u, y) = draw_rows("normal", n=60, components=3)
    data = model.observe(1e3 + x, z * [1e-4, 1e5] - 7, u, 1e6 * y + 3, u_range=(0, 1))
    plan = curve_plan.make_plan(model, data, 0.9, grid=3)
    units = standard.of(plan, data)
    theta = np.random.default_rng(0).normal(size=(3, 2 * model.size))
    np.testing.assert_allclose(units.out(units.into(theta)), theta, rtol=1e-6, atol=1e-6)
    inside = units.data(data)
    for values in (inside.x[1:], inside.z[1:], inside.y[None]):
        np.testing.assert_allclose(
            [values.mean(axis=1), values.std(axis=1)], [[0] * len(values), [1] * len(values)], atol=1e-9
        )
    with jax.enable_x64(True):
        level = theta[:1, : model.size].T
        predictors = [
            np.asarray(model.predictors(kernel_em.varying.as_params(model, one), rows))
            for one, rows in ((level, data), (units.into(level.T).T, inside))
        ]
    scores = predictors[0][:2]
    np.testing.assert_allclose(predictors[1][:2], scores, atol=1e-8)
    np.testing.assert_allclose(predictors[1][2:5] * units.y[1] + units.y[0], predictors[0][2:5], atol=1e-6)


# Verdicts ----------------------------------------------------------------------------------------------------------


def test_a_fit_that_did_not_converge_is_not_tested():
    x, z, u, y = rows()
    fit = kernel_em.fit(varying_coefficient("normal", 2), x, z, u, y, **OPTIONS | {"max_iter": 1, "tol": 0.0})
    for method in glrt.METHODS:
        with pytest.raises(glrt.Unsound, match=r"^fit must have converged.* got: no convergence: raise max_iter"):
            glrt.test(fit, constant=["alpha[:,1]"], method=method, random_state=0)


def test_a_fit_with_a_collapsed_expert_is_not_tested():
    x, z, u, y = rows()
    y = np.where(np.arange(200) < 20, 1.0, y)  # twenty responses to the digit
    params = {"beta": [[[-2.0, 0.0]]], "alpha": [[[0.0, 0.0], [1.0, 0.0]]], "delta": [[0.0, -15.0]]}
    fit = kernel_em.fit(varying_coefficient("normal", 2), x, z, u, y, **OPTIONS | {"init": params, "max_iter": 2})
    assert "collapsed" in fit.status
    with pytest.raises(glrt.Unsound, match="^fit must have converged.*collapsed onto too few"):
        glrt.test(fit, constant=["alpha[:,1]"], method="chi-square")


def test_a_candidate_whose_fits_do_not_converge_is_not_chosen(monkeypatch):
    x, z, u, y = rows()
    model, options = varying_coefficient("normal", 2), {"candidates": [0.4, 0.8], "folds": 2, "grid": 5, "n_init": 2}
    found = bandwidth.select(model, x, z, u, y, random_state=0, **options)
    assert found.statuses == ("converged", "converged")
    assert "converged" not in str(found)
    worse, scored = 1 - int(found.scores.argmax()), bandwidth._scored
    monkeypatch.setattr(bandwidth, "_scored", lambda plan, *_: _spoilt(scored(plan, *_), plan.h == found.best))
    other = bandwidth.select(model, x, z, u, y, random_state=0, **options)
    assert other.best == found.candidates[worse]
    assert "1 of 2 folds: no convergence" in str(other)
    monkeypatch.setattr(bandwidth, "_scored", lambda *arguments: _spoilt(scored(*arguments), True))
    with pytest.raises(ValueError, match=r"^candidates must hold a bandwidth whose fits converge, got none \(h = 0.4"):
        bandwidth.select(model, x, z, u, y, random_state=0, **options)


def _spoilt(found, yes):
    return (found[0], "1 of 2 folds: no convergence: raise max_iter (u = 0)") if yes else found


def test_the_status_of_a_candidate_is_that_of_its_fits():
    x, z, u, y = rows()
    with pytest.raises(ValueError, match=r"^candidates .*2 of 2 folds: no convergence: raise max_iter"):
        bandwidth.select(
            varying_coefficient("normal", 2),
            x,
            z,
            u,
            y,
            candidates=[0.4],
            folds=2,
            grid=5,
            n_init=2,
            random_state=0,
            max_iter=1,
            tol=0.0,
        )


def test_a_start_that_collapsed_is_not_preferred_for_its_likelihood():
    rng, n = np.random.default_rng(8), 150
    model = varying_coefficient("normal", components=2)
    x, z, u = rng.normal(size=(n, 1)), rng.normal(size=(n, 1)), rng.uniform(size=n)
    alpha = np.stack([np.stack([np.sin(3 * u) - 1.5, 1 + u], 1), np.stack([1.5 - u, -np.ones(n)], 1)], 1)
    y = model.simulate(8, {"beta": [[[0.0, 1.0]]], "alpha": alpha, "delta": [[-1.0, -1.0]]}, x, z)
    fit = kernel_em.fit(model, x, z, u, y, h=0.3, random_state=8, grid=8)
    assert fit.status == "converged"  # fitted at each u alone, a component has next to no observations at the right end
    assert fit.log_likelihood == pytest.approx(-100.70648, abs=1e-3)
