"""Bases: Gaussian processes against their exact covariance, splines against their definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.contrib.hsgp.spectral_densities import diag_spectral_density_squared_exponential
from scipy.interpolate import BSpline

from bayes_moe.curves.bases import BSplines, HilbertGP, basis_named

GRID = np.linspace(0, 1, 41)
NEAR = 0.02  # of the variance, over length scales that the prior makes likely
AMPLITUDE = 0.7


@jax.enable_x64(True)
def covariance(basis, amplitude, lengthscale, u=GRID):
    """Covariance of the curve at u: the basis is linear in its weights."""
    smoothness = {"amplitude": jnp.array([amplitude]), "lengthscale": jnp.array([lengthscale]), "trend": jnp.zeros(1)}
    rows = jnp.asarray(basis.rows(u))
    root = [basis.curves(smoothness, weight[None], rows)[0] for weight in jnp.eye(basis.weights)]
    return np.array(root).T @ np.array(root)


def exact(amplitude, lengthscale, u=GRID):
    return amplitude**2 * np.exp(-0.5 * ((u[:, None] - u) / lengthscale) ** 2)


@pytest.mark.parametrize("lengthscale", [1.75 * 1.5 / 20, 0.15, 0.2, 0.3, 0.45, 0.66])
def test_the_covariance_of_the_hilbert_space_process_is_the_gaussian_processs(lengthscale):
    error = covariance(HilbertGP(), AMPLITUDE, lengthscale) - exact(AMPLITUDE, lengthscale)
    assert np.abs(error).max() < NEAR * AMPLITUDE**2


@pytest.mark.parametrize(("amplitude", "lengthscale"), [(AMPLITUDE**0.5, 0.3), (AMPLITUDE, 0.33)])
def test_a_wrong_amplitude_or_length_scale_would_show(amplitude, lengthscale):
    error = covariance(HilbertGP(), amplitude, lengthscale) - exact(AMPLITUDE, 0.3)
    assert np.abs(error).max() > NEAR * AMPLITUDE**2


@pytest.mark.parametrize(("boundary", "lengthscale"), [(1.5, 0.6), (1.2, 0.5)])
def test_the_variance_at_the_ends_falls_short_as_stated(boundary, lengthscale):
    short = 1 - covariance(HilbertGP(40, boundary), 1.0, lengthscale)[0, 0]
    assert short == pytest.approx(np.exp(-2 * (boundary - 0.5) ** 2 / lengthscale**2), rel=0.01)


def test_more_functions_on_a_wider_interval_come_nearer():
    lengthscales = (0.1, 0.8)
    for lengthscale in lengthscales:
        coarse, fine = (
            np.abs(covariance(HilbertGP(*size), 1.0, lengthscale) - exact(1.0, lengthscale)).max()
            for size in ((20, 1.5), (120, 4.0))
        )
        assert fine < 1e-4 < coarse


@jax.enable_x64(True)
def test_the_spectral_density_is_numpyros():
    basis, rows = HilbertGP(7, 1.2), jnp.ones((7, 1))
    smoothness = {"amplitude": jnp.array([AMPLITUDE]), "lengthscale": jnp.array([0.3])}
    roots = [basis.curves(smoothness, weight[None], rows)[0, 0] for weight in jnp.eye(7)]
    density = diag_spectral_density_squared_exponential(AMPLITUDE**2, 0.3, 1.2, 7, 1)
    np.testing.assert_allclose(np.square(roots), density, rtol=1e-12)


@jax.enable_x64(True)
def test_gradients_are_finite_where_the_spectral_density_underflows():
    basis = HilbertGP()
    rows = jnp.asarray(basis.rows(GRID))

    def total(lengthscale):
        smoothness = {"amplitude": jnp.ones(1), "lengthscale": lengthscale}
        return jnp.sum(basis.curves(smoothness, jnp.ones((1, basis.weights)), rows))

    assert jnp.isfinite(jax.grad(total)(jnp.array([50.0])))


@pytest.mark.parametrize("functions", [5, 12, 30])
def test_the_amplitude_of_splines_is_a_standard_deviation_whatever_their_number(functions):
    u = np.linspace(0, 1, 401)
    variance = np.diag(covariance(BSplines(functions), AMPLITUDE, 1.0, u))
    assert variance.mean() == pytest.approx(AMPLITUDE**2, rel=0.01)


@jax.enable_x64(True)
def test_splines_have_independent_second_differences_and_a_line_apart():
    basis, u = BSplines(9), np.linspace(0, 1, 60)
    weights = np.random.default_rng(0).normal(size=(1, basis.weights))
    smoothness = {"amplitude": jnp.ones(1), "trend": jnp.array([2.0])}
    curve = np.asarray(basis.curves(smoothness, jnp.asarray(weights), jnp.asarray(basis.rows(u))))[0]
    knots = np.arange(-3, 10) / 6
    design = np.array([[BSpline.basis_element(knots[k : k + 5], False)(v) for k in range(9)] for v in u[:-1]])
    coefficients, residual, *_ = np.linalg.lstsq(np.nan_to_num(design), curve[:-1] - 2.0 * (u[:-1] - 0.5))
    assert residual < 1e-20
    ratio = np.diff(coefficients, 2) / weights[0]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)
    straight = basis.curves(smoothness, jnp.zeros((1, basis.weights)), jnp.asarray(basis.rows(u)))[0]
    np.testing.assert_allclose(straight, 2.0 * (u - 0.5), atol=1e-12)


BAD = {
    "no such basis": (lambda: basis_named("fourier"), "basis"),
    "no basis at all": (lambda: basis_named(None), "basis"),
    "no functions": (lambda: HilbertGP(0), "functions"),
    "too few splines": (lambda: BSplines(4), "functions"),
    "a boundary inside": (lambda: HilbertGP(boundary=0.5), "boundary"),
    "no boundary": (lambda: HilbertGP(boundary=np.inf), "boundary"),
    "a boundary in words": (lambda: HilbertGP(boundary="1.5"), "boundary"),
}


@pytest.mark.parametrize(("call", "argument"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_by_name(call, argument):
    with pytest.raises(ValueError, match=rf"^{argument}\b"):
        call()
