"""Standard units: densities, estimates and draws carried there and back agree."""

import numpy as np
import pytest
import xarray as xr

from bayes_moe import gaussian_gated
from bayes_moe.model import units
from mle import em

EXACT = 1e-9


def case(features=2, seed=0):
    rng = np.random.default_rng(seed)
    moe = gaussian_gated(2, features)
    roots = rng.normal(size=(2, features, features))
    gamma = roots @ np.swapaxes(roots, 1, 2) + 0.3 * np.eye(features)
    real = {name: rng.normal(size=moe.fields[name].shape) for name in ("c", "a", "b")}
    return moe, moe.params(pi=[0.3, 0.7], Gamma=gamma, nu=[0.2, 0.5], **real)


def data(seed=1, n=50):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) * [0.1, 30.0] + [5.0, -200.0], 4.0 * rng.normal(size=n) - 7.0


def test_standard_data_have_mean_zero_and_standard_deviation_one():
    x, y = data()
    for part in units.Units.of(x, y).standard(x, y):
        np.testing.assert_allclose(part.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(part.std(axis=0), 1, rtol=1e-12)


@pytest.mark.parametrize("forgotten", [None, "c", "Gamma", "a", "b", "nu"])
def test_the_density_changes_by_the_jacobian_alone(forgotten):
    """A parameter left in standard units is found out."""
    moe, params = case()
    x, y = data()
    there = units.Units.of(x, y)
    back = there.original(params) | ({} if forgotten is None else {forgotten: params[forgotten]})
    jacobian = np.log(there.x_sd).sum() + np.log(there.y_sd)
    gap = moe.log_density(back, x, y) - (moe.log_density(params, *there.standard(x, y)) - jacobian)
    assert (np.abs(gap).max() > 1e-3) == (forgotten is not None)
    assert forgotten is not None or np.abs(gap).max() < EXACT * 1e3


def test_draws_are_carried_back_one_by_one():
    moe, params = case()
    there = units.Units.of(*data())
    draws = {name: np.stack([value, value]) for name, value in params.items()}
    for name, value in there.original(draws).items():
        np.testing.assert_array_equal(value[1], there.original(params)[name])
        assert value.shape[1:] == moe.fields[name].shape


def test_trees_of_draws_are_carried_back():
    moe, params = case()
    there = units.Units.of(*data())
    dims = {
        name: ("draw", "chain", *(f"{name}_{axis}" for axis in range(value.ndim))) for name, value in params.items()
    }
    draws = {name: (dims[name], np.stack([np.stack([value, value])] * 3)) for name, value in params.items()}
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset(draws)})
    for form in (tree, tree["posterior"], tree["posterior"].to_dataset()):
        for name, value in there.original(form).items():
            assert value.shape == (2, 3, *moe.fields[name].shape)
            np.testing.assert_array_equal(value[1, 2], there.original(params)[name])


@pytest.mark.slow
def test_the_estimate_is_the_same_in_either_units():
    moe, params = case(2)
    x, y = moe.simulate_joint(0, params, 300)
    there = units.Units.of(x, y)
    start = {"init": params, "tol": 1e-10, "max_iter": 500}
    direct = em.fit(moe, x, y, **start)
    standard = em.fit(moe, *there.standard(x, y), init=in_units(there, params), tol=1e-10, max_iter=500)
    for name, value in there.original(standard.params).items():
        np.testing.assert_allclose(value, direct.params[name], rtol=1e-4, atol=1e-5)


def in_units(there, params):
    """Return the parameters in standard units: the way back, undone by hand."""
    a = np.asarray(params["a"]) * there.x_sd / there.y_sd
    return {
        "pi": params["pi"],
        "c": (params["c"] - there.x_mean) / there.x_sd,
        "Gamma": params["Gamma"] / np.outer(there.x_sd, there.x_sd),
        "a": a,
        "b": (params["b"] + params["a"] @ there.x_mean - there.y_mean) / there.y_sd,
        "nu": params["nu"] / there.y_sd**2,
    }


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: units.Units.of(np.ones((5, 1)), np.arange(5.0)), "vary"),
        (lambda: units.Units.of(np.arange(5.0)[:, None], np.ones(5)), "vary"),
        (lambda: units.Units.of(np.arange(5.0)[:, None], np.ones((5, 2))), "one response"),
        (lambda: units.Units.of(*data()).original(case()[1] | {"Gamma": np.ones(2)}), "full"),
        (lambda: units.Units.of(*data()).original({"c": np.zeros((2, 2))}), "params must hold pi, c"),
        (lambda: units.Units.of(*data()).original(xr.DataTree()), "params must hold pi, c.*missing: pi"),
        (lambda: units.Units.of(*data()).original(None), "params must hold"),
        (lambda: units.Units.of(np.arange(5.0), np.arange(5.0)), r"^x must have shape \(n, d\)"),
        (lambda: units.Units.of([["a"]], [1.0]), "^x must hold real numbers"),
        (lambda: units.Units.of(np.full((5, 1), np.nan), np.arange(5.0)), "^x must be finite"),
        (lambda: units.Units.of(np.arange(6.0)[:, None], np.arange(5.0)), "^y must have one response"),
        (lambda: units.Units.of(*data()).standard(np.ones((5, 1)), np.arange(5.0)), r"^x must have shape \(n, 2\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
