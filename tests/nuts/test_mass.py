"""Where chains start: only where the posterior has its mass, judged by quadrature and closed forms."""

import arviz_stats as azs
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from bayes_moe import nuts
from bayes_moe.draws import diagnostics
from bayes_moe.nuts import mass, modes

RUN = {"num_chains": 4, "progress_bar": False}


def objective_of(log_density):
    """Return the negative log density and its gradient as NumPy numbers."""

    def negative(free):
        value, grad = jax.value_and_grad(log_density)(jnp.asarray(free))
        return -float(value), -np.asarray(grad)

    return negative


@jax.enable_x64(True)
@pytest.mark.parametrize(("narrow", "kept"), [(0.01, ["wide"]), (0.1, ["wide", "narrow"]), (0.9, ["narrow", "wide"])])
def test_chains_start_at_modes_by_mass_not_by_height(narrow, kept):
    sds = {"wide": np.array([1.0, 2.0]), "narrow": np.array([0.01, 0.05])}
    places, weights = {"wide": np.zeros(2), "narrow": np.array([8.0, 3.0])}, {"wide": 1 - narrow, "narrow": narrow}

    def log_density(free):  # two normals far apart, up to a constant
        each = [
            jnp.log(weights[n]) + jax.scipy.stats.norm.logpdf(free, places[n], sds[n]).sum() for n in ("wide", "narrow")
        ]
        return jax.scipy.special.logsumexp(jnp.stack(each))

    negative = objective_of(log_density)
    times = {"narrow": 2, "wide": 1}  # two searches ended at the narrow one
    ends = np.array([places["narrow"], places["narrow"], places["wide"]])
    heights = np.array([-negative(end)[0] for end in ends])
    assert heights[0] > heights[2] + 2, "the narrow one is the higher"
    spread = np.tile([0.01, 0.05], (3, 1))
    found = mass.heaviest(negative, modes.Modes(ends, heights, spread)).modes.free
    np.testing.assert_array_equal(found, [places[name] for name in kept for _ in range(times[name])])


def at(point, negative, spread=1.0):
    """Return log volumes at a point, as of an end of a search."""
    point = np.asarray(point, dtype=float)
    hessian = modes.curvature(negative, [point], np.full(len(point), spread))
    return mass.log_volume(hessian, negative(point)[1])


@jax.enable_x64(True)
def test_the_mass_of_a_normal_is_exact():
    precision = np.array([[4.0, 1.0], [1.0, 9.0]])
    found = at([0.0, 0.0], objective_of(lambda z: -0.5 * z @ precision @ z))
    assert found == pytest.approx(np.log(2 * np.pi) - 0.5 * np.log(np.linalg.det(precision)), rel=1e-6)


def scale_and_effects(z):
    """Log density of (log s, b) under b ~ N(0, s), four effects, and one observation each: no bound at s = 0."""
    return -4 * z[0] - 0.5 * jnp.sum(z[1:] ** 2) * jnp.exp(-2 * z[0]) + z[0] - 0.5 * jnp.sum((z[1:] - 0.1) ** 2)


NO_MODES = {
    "a spike": (scale_and_effects, [-40.0, 0, 0, 0, 0]),
    "the slope of a spike": (scale_and_effects, [-3.0, 0, 0, 0, 0]),
    "a saddle": (lambda z: z[0] ** 2 - z[1] ** 2, [0.0, 0.0]),
    "an edge": (lambda z: -jnp.exp(-z[0]) - 0.5 * z[1] ** 2 + 0.5 * z[0], [-1.0, 0.0]),
    "a slope far out": (lambda z: 0.2 * z[0] - 1e-9 * z[0] ** 2 - 0.5 * z[1] ** 2, [0.0, 0.0]),
    "no number": (lambda z: jnp.sqrt(z[0]) - z[1] ** 2, [-1.0, 0.0]),
}


@jax.enable_x64(True)
@pytest.mark.parametrize(("log_density", "end"), NO_MODES.values(), ids=NO_MODES)
def test_ends_that_are_no_modes_hold_no_mass(log_density, end):
    assert at(end, objective_of(log_density), spread=1e-3) == -np.inf
    free = np.array([end], dtype=float)
    held = mass.heaviest(objective_of(log_density), modes.Modes(free, np.zeros(1), np.full_like(free, 1e-3)))
    assert len(held.modes.free) == 0


# Posteriors whose density has no bound -----------------------------------------------------------------------------


def regression():
    """Return data of a regression with four coefficients."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 4))
    return x, x @ (rng.normal(size=4) * 0.5) + 0.3 + rng.normal(size=40)


def shrink(x, y=None):
    """A regression whose coefficients share a scale: the density has no bound where it vanishes."""
    s = numpyro.sample("s", dist.HalfNormal(1.0))
    b = numpyro.sample("b", dist.Normal(0, s).expand([4]).to_event(1))
    a = numpyro.sample("a", dist.Normal(0, 2))
    with numpyro.plate("i", x.shape[0]):
        numpyro.sample("y", dist.Normal(a + x @ b, 1.0), obs=y)


def exact_scale(x, y):
    """Mean and sd of s by quadrature; given s, y is normal."""
    grid = np.linspace(1e-4, 8, 4000)
    design = np.column_stack([np.ones(len(y)), x])
    logs = []
    for s in grid:
        variances = np.r_[4.0, np.full(4, s**2)]
        covariance = np.eye(len(y)) + design * variances @ design.T
        logs.append(-0.5 * (np.linalg.slogdet(covariance)[1] + y @ np.linalg.solve(covariance, y)) - s**2 / 2)
    share = np.exp(logs - np.max(logs))
    share /= share.sum()
    mean = share @ grid
    return mean, np.sqrt(share @ (grid - mean) ** 2)


@pytest.mark.parametrize("key", [1, 7])
def test_a_scale_that_may_vanish_is_where_quadrature_has_it(key):
    x, y = regression()
    idata = nuts.sample(shrink, x, y, rng_key=key, target_accept_prob=0.95, **RUN)
    draws, (mean, sd) = idata["posterior"]["s"].values, exact_scale(x, y)
    assert mean == pytest.approx(0.4526, abs=1e-4), "the published number"
    assert abs(draws.mean() - mean) < 5 * float(azs.mcse(draws, method="mean"))
    assert abs(draws.std() - sd) < 5 * float(azs.mcse(draws, method="sd"))


def test_values_given_to_start_from_are_kept_where_a_search_would_leave_the_mass():
    x, y = regression()
    deep = {"s": 1e-3, "b": np.zeros(4), "a": 0.0}  # every search from here ends in the spike
    idata = nuts.sample(shrink, x, y, rng_key=0, init=deep, num_samples=500, **RUN)
    assert idata.attrs["preconditioner"].startswith("identity: no search ended at a mode that holds mass")
    assert idata.attrs["num_warmup"] == 1000
    assert idata["posterior"]["s"].mean() > 0.3


def eight_schools(x, y=None):
    """The centred coding."""
    mu, tau = numpyro.sample("mu", dist.Normal(0, 5)), numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", 8):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, x), obs=y)


SCHOOLS = np.array([15.0, 10, 16, 11, 9, 11, 10, 18]), np.array([28.0, 8, -3, 7, -1, 1, 18, 12])


def test_eight_schools_are_never_wrong_and_passed():
    idata = nuts.sample(eight_schools, *SCHOOLS, rng_key=1, **RUN)
    assert idata["posterior"]["tau"].mean() > 2.0, "the chains are where the mass is"
    assert not diagnostics.check(idata).passed  # of the centred coding some transitions diverge
