"""Bands: critical values against simulation, sandwich against closed form, bootstrap, coverage, errors."""

import re
from functools import cache

import numpy as np
import oracle_varying as oracle
import pytest
from montecarlo import STANDARD_ERRORS, key

from bayes_moe import varying_coefficient
from mle.kernel import bands, kernel_em
from mle.kernel import bootstrap as curve_bootstrap
from mle.local import labels

SIMULATED = {0.90: 2.54, 0.95: 2.80}  # sup of smoothed noise, Epanechnikov, h = 0.21
NEAR = 0.025  # seven standard errors; Rice's constants lie .005 off, the published ones .12, one at each level
SETS, LEAST = 150, 0.8  # data sets; between what bands for whole curves hold, 91%, and pointwise ones, 66%


def regression_rows(seed, n):
    """Return the covariates of `regression_fit`, and u."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 1)), rng.uniform(size=n)


@cache
def regression_fit(seed=0, n=400, h=0.3):
    """Return a fit of one normal component whose curves are straight lines, without smoothing bias."""
    model = varying_coefficient("normal", 1, gate_features=0, expert_features=1)
    z, u = regression_rows(seed, n)
    y = model.simulate(seed, lines(u), np.zeros((n, 0)), z)
    return kernel_em.fit(model, np.zeros((n, 0)), z, u, y, h=h, random_state=0)


def lines(u):
    """Return the true curves of `regression_fit`, a row for each u."""
    alpha = np.stack([1 - u, 0.5 + u], axis=-1)[:, None]
    return {"beta": np.zeros((len(u), 0, 1)), "alpha": alpha, "delta": np.full((len(u), 1), -0.5)}


@cache
def mixture_fit():
    rng = np.random.default_rng(3)
    model = varying_coefficient("normal", 2)
    x, z, u = rng.normal(size=(300, 1)), rng.normal(size=(300, 1)), rng.uniform(size=300)
    return kernel_em.fit(model, x, z, u, model.simulate(3, oracle.standin(u), x, z), h=0.35, grid=8, random_state=0)


# Critical values -----------------------------------------------------------------------------------------------


def simulated_quantiles(h=0.21, paths=50_000, points=100, batches=8):
    """Return the 90 and 95% quantiles of the largest |smoothed noise| over u in [0, 1], noise reaching beyond.

    Their standard errors are 0.003; the maximum over 100 points is 0.001 below that over all.
    """
    rng, step = np.random.default_rng(key(0)), 1 / points
    width = round(h / step)
    weights = np.array([oracle.epanechnikov(j * step / h) for j in range(-width, width + 1)])
    smoother = np.zeros((points + 2 * width, points))
    for place in range(points):
        smoother[place : place + len(weights), place] = weights / np.sqrt((weights**2).sum())
    largest = [np.abs(rng.normal(size=(paths, len(smoother))) @ smoother).max(axis=1) for _ in range(batches)]
    return np.quantile(np.concatenate(largest), [0.90, 0.95])


@pytest.mark.statistical
def test_rices_constant_is_that_of_smoothed_noise_and_the_published_ones_are_not():
    simulated = simulated_quantiles()
    np.testing.assert_allclose(simulated, list(SIMULATED.values()), atol=0.02)
    found = {
        constant: np.array([bands.critical_value(level, 0.21, constant) for level in SIMULATED])
        for constant in ("rice", "fan-zhang", "package")
    }
    assert np.abs(found["rice"] - simulated).max() < NEAR
    assert np.abs(found["fan-zhang"] - simulated).max() > NEAR
    assert np.abs(found["package"] - simulated).max() > NEAR
    np.testing.assert_allclose(found["rice"], [2.54, 2.81], atol=0.006)
    np.testing.assert_allclose(found["fan-zhang"], [2.52, 2.93], atol=0.006)
    np.testing.assert_allclose(found["package"], [2.39, 2.80], atol=0.006)


# Asymptotic ----------------------------------------------------------------------------------------------------


def test_the_sandwich_of_one_component_is_that_of_weighted_least_squares():
    rng = np.random.default_rng(1)
    model = varying_coefficient("normal", 1, gate_features=0, expert_features=1)
    z, u = rng.normal(size=(200, 1)), rng.uniform(size=200)
    y = u * z[:, 0] + 0.3 * rng.normal(size=200)
    options = {"h": 0.3, "u_range": (0, 1), "random_state": 0, "fixed": {"delta": 0.0}}
    fit = kernel_em.fit(model, np.zeros((200, 0)), z, u, y, **options)
    se = bands.asymptotic(fit).se
    design = np.column_stack([np.ones(200), z])
    for g, u0 in enumerate(fit.grid):
        t = (u - u0) / 0.3
        weight = np.array([oracle.epanechnikov(value) for value in t])
        basis = np.column_stack([design, design * t[:, None]])
        residual = y - basis @ oracle.local_linear(z, u, y, u0, 0.3)
        bread = np.linalg.inv(basis.T @ (weight[:, None] * basis))
        filling = (basis * (weight * residual)[:, None]).T @ (basis * (weight * residual)[:, None])
        slow = np.sqrt(np.diag(bread @ filling @ bread))[:2]
        np.testing.assert_allclose(se[g, :2], slow, rtol=1e-8)
        assert se[g, 2] == 0  # held


@cache
def coverage(simultaneous):
    """Return the share of whole curves, intercept and slope of each data set, that bands hold."""
    hits = []
    for seed in range(key(0), key(0) + SETS):
        fit = regression_fit(seed)
        inside = bands.asymptotic(fit, simultaneous=simultaneous).covers(lines(fit.grid))
        hits.append(inside[:2] if simultaneous else inside[:, :2].all(axis=0))
    return np.mean(hits)


@pytest.mark.slow
@pytest.mark.statistical
def test_rice_bands_cover_whole_curves_and_pointwise_bands_do_not():
    assert coverage(True) > LEAST
    assert coverage(False) < LEAST


def test_bands_widen_with_level_and_for_whole_curves():
    fit = regression_fit()
    widths = [
        (band.upper["alpha"] - band.lower["alpha"]).mean()
        for band in (
            bands.asymptotic(fit, simultaneous=False),
            bands.asymptotic(fit, level=0.90),
            bands.asymptotic(fit, level=0.95),
            bands.asymptotic(fit, level=0.99),
        )
    ]
    assert (np.diff(widths) > 0).all()


def test_pointwise_bands_name_no_constant():
    found = [bands.asymptotic(regression_fit(), simultaneous=simultaneous).method for simultaneous in (True, False)]
    assert found == ["asymptotic, rice", "asymptotic"]


# Bootstrap -----------------------------------------------------------------------------------------------------


@cache
def mixture_band(workers=2):
    return bands.bootstrap(mixture_fit(), random_state=1, replicates=20, workers=workers)


@pytest.mark.slow
def test_the_bootstrap_does_not_depend_on_threads():
    np.testing.assert_array_equal(mixture_band(2).draws, mixture_band(1).draws)


def smoothed_again(fit, z, u):
    """Return the levels that the fit's own means have after a local-linear fit, in closed form."""
    mean = np.einsum("np,np->n", np.column_stack([np.ones(len(z)), z]), fit.at(u)["alpha"][:, 0])
    scaled = (u - u.min()) / np.ptp(u)
    return np.array([oracle.local_linear(z, scaled, mean, u0, fit.h)[:2] for u0 in fit.scaled_grid])


@pytest.mark.statistical
def test_bootstrap_errors_are_those_of_theory_where_theory_is_exact():
    fit, (z, u), replicates = regression_fit(), regression_rows(0, 400), 200
    found = bands.bootstrap(fit, random_state=key(0), replicates=replicates, pilot=0)
    ratio = found.se / bands.asymptotic(fit).se
    assert 0.8 < np.median(ratio) < 1.2
    assert found.problems == ()
    assert (found.critical > 1.96).all()
    allowed = STANDARD_ERRORS * found.se[:, :2] / np.sqrt(replicates)
    assert (np.abs(found.bias[:, :2] - (smoothed_again(fit, z, u) - fit.level[:, :2])) < allowed).all()
    assert (np.abs(found.bias[:, :2]) > allowed).any()  # the test tells this bias from none
    assert -1 < (found.bias / found.se)[:, 2].mean() < 0  # residuals of a fit are small


@pytest.mark.slow
@pytest.mark.statistical
def test_a_pilot_bootstrap_frees_the_noise_of_its_bias():
    fit = regression_fit(n=60)
    plain, freed = (bands.bootstrap(fit, random_state=key(0), replicates=400, pilot=pilot) for pilot in (0, 400))
    bias = np.median(plain.draws[..., 2], axis=0) - fit.level[:, 2]
    assert bias.max() < -0.02  # the log sd comes out too small
    wider = np.log(freed.se / plain.se)[:, :2]  # errors of a line are as large as the noise, the draws being the same
    assert wider.mean() == pytest.approx(-bias.mean(), abs=0.04)  # a third of it, and five standard errors of medians


@pytest.mark.slow
@pytest.mark.statistical
def test_a_pilot_bootstrap_finds_the_smoothing_bias():
    """A sine comes out flatter by a factor; drawn from the fit as it is, responses show that factor of its bias."""
    rng, grid, h = np.random.default_rng(0), np.linspace(0, 1, 20), 0.25
    model = varying_coefficient("normal", 1, gate_features=0, expert_features=0)
    u, none = np.linspace(0, 1, 600), np.zeros((600, 0))
    y = np.sin(2 * np.pi * u) + rng.normal(scale=0.05, size=600)
    fit = kernel_em.fit(model, none, none, u, y, h=h, grid=grid, random_state=0, fixed={"delta": np.log(0.05)})
    inside = (grid > h) & (grid < 1 - h)
    sine = np.sin(2 * np.pi * grid[inside])
    kept, true = fit.level[inside, 0] @ sine / (sine @ sine), fit.level[inside, 0] - sine
    shares = []
    for pilot in (0, 50):
        found = bands.bootstrap(fit, random_state=key(0), replicates=100, pilot=pilot).bias[inside, 0]
        shares.append(found @ true / (true @ true))
    plain, freed = shares  # near the share that smoothing keeps, and nearer to one; not it, since true bias has ends
    assert abs(plain - kept) < 0.1
    assert plain + 0.1 < freed
    assert abs(freed - 1) < 0.15


def test_what_is_held_stays_held():
    rng = np.random.default_rng(0)
    z, u, none = rng.normal(size=(80, 1)), rng.uniform(size=80), np.zeros((80, 0))
    fit = kernel_em.fit(
        regression_fit().model, none, z, u, rng.normal(size=80), h=0.4, random_state=0, fixed={"delta": 0.0}
    )
    draws, _ = bands.replicate_curves(fit, 0, 20, pilot=20)
    assert (draws[..., 2] == 0).all()


def test_refits_whose_dispersion_collapsed_are_left_out_and_counted(monkeypatch):
    fit = regression_fit()
    whole = bands.bootstrap(fit, random_state=0, replicates=20, pilot=0)
    run = curve_bootstrap.run

    def spoilt(*arguments):
        (curve, converged), *rest = run(*arguments)
        curve = curve.copy()
        curve[3, 2] = -40.0
        return [(curve, converged), *rest]

    monkeypatch.setattr(curve_bootstrap, "run", spoilt)
    found = bands.bootstrap(fit, random_state=0, replicates=20, pilot=0)
    np.testing.assert_array_equal(found.draws, whole.draws[1:])
    assert found.problems == ("1 of 20 refits failed and are left out",)


@pytest.mark.slow
def test_replicates_are_aligned_and_unaligned_ones_would_show():
    found = mixture_band()
    model, draws = found.fit.model, found.draws.copy()
    slopes = draws.reshape(*draws.shape[:2], -1)[..., 5]  # alpha[1,1], far below alpha[0,1]
    assert (np.abs(slopes - found.fit.level[:, 5]).mean(axis=1) < 0.5).all()
    theta = np.concatenate([draws, np.zeros_like(draws)], axis=2)
    target = found.fit.theta.copy()
    target[:, model.size :] = 0
    for replicate in theta[:5]:
        swapped = labels.permute(model, replicate, np.array([1, 0]))
        assert np.abs(swapped - replicate).max() > 0.5
        order = labels.nearest(model, swapped, target, np.ones(model.size))
        np.testing.assert_array_equal(order, [1, 0])
        np.testing.assert_allclose(labels.permute(model, swapped, order), replicate, atol=1e-12)


def test_the_simultaneous_constant_is_the_quantile_of_the_studentised_supremum():
    found = mixture_band()
    for j in range(found.fit.model.size):
        sup = [np.max(np.abs(draw[:, j] - found.fit.level[:, j]) / found.se[:, j]) for draw in found.draws]
        assert np.mean(np.array(sup) <= found.critical[j] + 1e-12) >= 0.95
        assert np.isclose(sup, found.critical[j]).any()


# Bad input -----------------------------------------------------------------------------------------------------


def hybrid_fit():
    model = varying_coefficient("normal", 1, gate_features=0, expert_features=0, constant=["delta"])
    u = np.linspace(0, 1, 50)
    none = np.zeros((50, 0))
    return kernel_em.fit(model, none, none, u, np.cos(9 * np.arange(50)), h=0.4, random_state=0)


BAD = {
    "level above one": (lambda: bands.asymptotic(regression_fit(), level=95.0), "level", "between 0 and 1"),
    "an unknown constant": (lambda: bands.asymptotic(regression_fit(), constant="bonferroni"), "constant", "rice"),
    "an unknown constant, of no use": (
        lambda: bands.asymptotic(regression_fit(), simultaneous=False, constant="ricee"),
        "constant",
        "rice",
    ),
    "h too large for it": (lambda: bands.critical_value(0.9, 1.5, "fan-zhang"), "h", "rice"),
    "constants": (lambda: bands.asymptotic(hybrid_fit()), "fit", "bands.bootstrap"),
    "no random_state": (lambda: bands.bootstrap(regression_fit(), random_state=None), "random_state", "None"),
    "no pilot count": (lambda: bands.bootstrap(regression_fit(), random_state=0, pilot=-1), "pilot", "at least 0"),
    "few replicates": (lambda: bands.bootstrap(regression_fit(), random_state=0, replicates=5), "replicates", "20"),
}


@pytest.mark.parametrize(("call", "argument", "hint"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_by_name(call, argument, hint):
    with pytest.raises(ValueError, match=rf"^{argument}(?!\w)") as caught:
        call()
    assert re.search(hint, str(caught.value)), str(caught.value)


# Simulation 1: slow --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_hundred_bootstrap_refits_take_less_than_a_minute():
    import time  # noqa: PLC0415

    rng = np.random.default_rng(0)
    model = varying_coefficient("normal", 2)
    x, z, u = rng.normal(size=(500, 1)), rng.normal(size=(500, 1)), rng.uniform(size=500)
    fit = kernel_em.fit(model, x, z, u, model.simulate(0, oracle.standin(u), x, z), h=0.21, random_state=0)
    started = time.perf_counter()
    bands.bootstrap(fit, random_state=0, replicates=200)
    assert time.perf_counter() - started < 60
