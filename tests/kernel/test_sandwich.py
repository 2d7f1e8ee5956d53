"""Sandwiches of coefficient curves: the label-consistent EM's against refits with perturbed weights and a bootstrap."""

import re
from dataclasses import replace
from functools import cache

import jax
import numpy as np
import pytest
from curve_cases import draw_standin
from montecarlo import key

from bayes_moe import varying_coefficient
from mle.kernel import bands, kernel_em, sandwich
from mle.kernel import plan as curve_plan

STEP = 1e-3  # by which an observation's weight is changed, up and down


@cache
def standin_fit(n=500, **options):
    model, rows = draw_standin(n=n)
    return kernel_em.fit(model, *rows, **({"h": 0.21, "random_state": 0, "engine": "consistent"} | options))


def test_with_one_component_the_two_are_the_same():
    model, rng = varying_coefficient("poisson", 1, gate_features=0), np.random.default_rng(0)
    z, u = rng.normal(size=(150, 1)), rng.uniform(size=150)
    fit = kernel_em.fit(model, np.zeros((150, 0)), z, u, rng.poisson(np.exp(0.5 + u * z[:, 0])), h=0.3, random_state=0)
    joint, local = (sandwich.standard_errors(fit, kind) for kind in sandwich.KINDS)
    np.testing.assert_allclose(joint, local, rtol=1e-8)


def refitted(fit, index, change):
    """Return theta where the weight of one observation has changed, from the fit's theta on."""
    plan = replace(curve_plan.plan_of(fit), tol=1e-11, max_iter=5000)
    w = plan.windows.w * np.where(plan.windows.index == index, 1 + change, 1.0)
    solved = kernel_em._consistent(replace(plan, windows=replace(plan.windows, w=w)), fit.data, fit.theta)
    assert solved.converged.all()
    return solved.theta


@pytest.mark.slow
def test_influences_are_what_refits_with_changed_weights_say():
    fit = standin_fit(200, h=0.35, grid=6, tol=1e-11, max_iter=5000)
    found = sandwich.influences(fit)
    with jax.enable_x64(True):
        for index in (3, 90, 181):
            slow = (refitted(fit, index, STEP) - refitted(fit, index, -STEP)) / (2 * STEP)
            np.testing.assert_allclose(found[..., index], slow, atol=1e-4 * np.abs(slow).max())


@pytest.mark.slow
def test_of_many_grid_points_some_do(monkeypatch):
    fit = standin_fit(200, h=0.35, grid="own")
    few = sandwich.standard_errors(fit)
    monkeypatch.setattr(sandwich, "MOST", 200)
    every = sandwich.standard_errors(fit)
    assert few.shape == every.shape == (200, 8)
    apart = np.abs(few / every - 1)
    assert 0 < np.median(apart) < 0.01
    assert np.quantile(apart, 0.95) < 0.05  # the rest lies at the ends of u


def test_many_grid_points_far_apart_for_their_bandwidth_will_do():
    model, rng = varying_coefficient("normal", 1, gate_features=0, expert_features=0), np.random.default_rng(0)
    ends = [0.0005, 0.001, 0.999, 0.9995]  # a window wants three values of u
    u, none = np.repeat([*np.linspace(0, 1, 120), *ends], 4), np.zeros((496, 0))
    fit = kernel_em.fit(model, none, none, u, rng.normal(size=496), h=0.012, grid="own", random_state=0)
    assert np.sum(np.diff(fit.scaled_grid) > fit.h / 2) > sandwich.MOST
    assert (sandwich.standard_errors(fit, "joint") > 0).all()


@pytest.mark.slow
@pytest.mark.statistical
def test_where_components_overlap_the_joint_sandwich_agrees_with_the_bootstrap():
    """The other is singular somewhere: the label-consistent EM ends at no maximum of the local likelihood."""
    fit = standin_fit()
    draws, problems = bands.replicate_curves(fit, key(0), 60)
    assert problems == ()
    spread = 1.4826 * np.median(np.abs(draws - np.median(draws, axis=0)), axis=0)
    assert 0.85 < np.median(spread / sandwich.standard_errors(fit)) < 1.15
    assert np.isinf(sandwich.standard_errors(fit, "local")).any()


def test_what_is_held_has_no_error():
    model, rows = draw_standin(n=200)
    fit = kernel_em.fit(model, *rows, h=0.35, grid=6, random_state=0, fixed={"alpha[0,1]": 0.7})
    held = [label == "alpha[0,1]" for label in fit.model.labels]
    se = sandwich.standard_errors(fit)
    assert (se[:, held] == 0).all()
    assert (se[:, ~np.array(held)] > 0).all()


def test_each_engine_has_its_own_and_others_are_named():
    consistent, separate = (standin_fit(200, h=0.35, grid=6, engine=name) for name in curve_plan.ENGINES)
    for fit, kind in ((consistent, "joint"), (separate, "local")):
        np.testing.assert_array_equal(bands.asymptotic(fit).se, bands.asymptotic(fit, sandwich=kind).se)
    with pytest.raises(ValueError, match=re.escape("sandwich must be one of joint, local, got 'global'.")):
        bands.asymptotic(consistent, sandwich="global")
