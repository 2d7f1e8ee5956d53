"""Priors: merged by name, shaped like the parameters, refused by name, and felt by the posterior."""

import warnings
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from scipy import stats

from bayes_moe import contaminated, gaussian_gated, nuts
from bayes_moe.parameters import Field
from bayes_moe.priors import check_scale, resolve

ETA0 = np.array([[1.0, 0.0], [-0.5, 1.0], [0.0, 0.0]])
SHAPES = {"tau": (1,), "beta": (1, 2), "eta": (1, 2, 2)}
COVARIANCE = np.array([[1.0, 0.6], [0.6, 2.0]])
EXACT = 1e-12


def model():
    """Return a model with three classes and two covariates."""
    return contaminated(ETA0, activation="tanh")


def values(name):
    """Return a value of the parameter's shape, the same one each time."""
    return np.random.default_rng(len(name)).normal(size=SHAPES[name])


def log_prob(name, prior=None):
    """Log prior density of one parameter at a fixed value, a scalar."""
    with jax.enable_x64(True):
        found = np.asarray(resolve(model(), prior)[name].log_prob(jnp.asarray(values(name))))
    assert found.shape == ()
    return float(found)


@pytest.mark.parametrize("name", SHAPES)
def test_defaults_are_normal_with_sd_two(name):
    np.testing.assert_allclose(log_prob(name), stats.norm(0, 2).logpdf(values(name)).sum(), rtol=EXACT)


def test_order_and_shapes_are_the_parameters():
    shaped = resolve(model(), {"eta": dist.Normal(), "tau": dist.Cauchy()})
    assert {name: prior.event_shape for name, prior in shaped.items()} == SHAPES
    assert list(shaped) == list(SHAPES)
    assert all(prior.batch_shape == () for prior in shaped.values())


PAIR = np.array([1.0, -1.0])
ROWS = np.array([[0.5], [3.0]])

# A row: parameter, prior, and the log density that it must have.
GIVEN = {
    "scalar": ("eta", dist.Normal(1.0, 0.5), lambda v: stats.norm(1.0, 0.5).logpdf(v).sum()),
    "integers": ("beta", dist.Laplace(0, 1), lambda v: stats.laplace().logpdf(v).sum()),
    "array": ("beta", dist.Normal(PAIR, 1.0), lambda v: stats.norm(PAIR, 1.0).logpdf(v).sum()),
    "a sd for each class": ("eta", dist.Normal(0.0, ROWS), lambda v: stats.norm(0.0, ROWS).logpdf(v).sum()),
    "whole shape": ("tau", dist.Normal(np.ones(1), 1.0), lambda v: stats.norm(1.0).logpdf(v).sum()),
    "over features": (
        "beta",
        dist.MultivariateNormal(np.zeros(2), COVARIANCE),
        lambda v: stats.multivariate_normal(np.zeros(2), COVARIANCE).logpdf(v[0]),
    ),
    "over features of each class": (
        "eta",
        dist.MultivariateNormal(np.ones(2), COVARIANCE),
        lambda v: stats.multivariate_normal(np.ones(2), COVARIANCE).logpdf(v[0]).sum(),
    ),
    "an event already": (
        "beta",
        dist.Normal(0.0, 1.0).expand([1, 2]).to_event(2),
        lambda v: stats.norm().logpdf(v).sum(),
    ),
    "of the model": (
        "beta",
        lambda moe: dist.Normal(0.0, 1.0 / moe.gate.features),
        lambda v: stats.norm(0.0, 0.5).logpdf(v).sum(),
    ),
}


@pytest.mark.parametrize("given", GIVEN)
def test_given_priors_have_their_own_density_and_leave_the_others_alone(given):
    name, prior, expected = GIVEN[given]
    np.testing.assert_allclose(log_prob(name, {name: prior}), expected(values(name)), rtol=1e-6)
    for other in SHAPES.keys() - {name}:
        assert log_prob(other, {name: prior}) == log_prob(other)


# A row: the parameter that the message must name, the prior, and what else it must say.
BAD = {
    "unknown, a near name": ("taw", dist.Normal(), "tau, beta, eta.*Did you mean 'tau'"),
    "unknown, none near": ("Gamma", dist.Normal(), "tau, beta, eta"),
    "too long": ("beta", dist.Normal(np.zeros(3), 1.0), r"\(1, 2\).*\(3,\)"),
    "too many axes": ("tau", dist.Normal(np.zeros((2, 1)), 1.0), r"\(1,\).*\(2, 1\)"),
    "event of another size": ("eta", dist.MultivariateNormal(np.zeros(3), np.eye(3)), r"\(1, 2, 2\).*\(3,\)"),
    "event of too many axes": ("tau", dist.LKJCholesky(3), r"\(1,\)"),
    "a simplex": ("beta", dist.Dirichlet(np.ones(3)), r"\(1, 2\)"),
    "discrete": ("tau", dist.Poisson(1.0), "discrete Poisson"),
    "a number": ("tau", 2.0, "2.0"),
    "a SciPy distribution": ("tau", stats.norm(), "NumPyro distribution"),
    "a string": ("tau", "normal", "'normal'"),
    "a class": ("tau", dist.Normal, "class Normal"),
    "a function that gives none": ("eta", lambda moe: 1.0, "1.0"),
    "improper": ("tau", dist.ImproperUniform(constraints.real, (), ()), "ImproperUniform"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_priors_are_named(bad):
    name, prior, said = BAD[bad]
    with pytest.raises(ValueError, match=f"^prior: '?{name}\\b.*({said})"):
        resolve(model(), {name: prior})


def test_a_prior_outside_the_support_is_refused():
    positive = SimpleNamespace(fields={"tau": Field((1,), ("adapter",), constraints.positive)})
    with pytest.raises(ValueError, match="prior: tau must lie in Positive.*Normal does not"):
        resolve(positive, {"tau": dist.Normal()})
    assert resolve(positive, {"tau": dist.HalfNormal()})["tau"].event_shape == (1,)


def test_a_family_without_defaults_takes_given_priors():
    own = SimpleNamespace(fields={"slope": Field((2,), ("expert",))})
    assert resolve(own, {"slope": dist.Normal()})["slope"].event_shape == (2,)
    with pytest.raises(ValueError, match="prior: slope"):
        resolve(own)


def test_neither_the_mapping_nor_the_defaults_change():
    prior = {"tau": dist.Normal(5.0, 1.0)}
    before = log_prob("tau")
    resolve(model(), prior)
    assert list(prior) == ["tau"]
    assert log_prob("tau") == before


@pytest.mark.parametrize(
    ("x_unit", "y_unit", "x_place", "y_place", "given", "named"),
    [
        (1, 1, 0, 0, (), []),
        (1, 13, 0, 70, (), ["y has mean 70"]),
        (13, 13, 70, 70, (), ["x has mean 70", "y has mean 70"]),
        (0.01, 1, 0, 0, (), ["x has mean"]),
        (13, 13, 70, 70, ("c", "Gamma"), ["y has mean 70"]),
        (13, 13, 70, 70, ("c", "Gamma", "b", "nu"), []),
    ],
)
def test_data_that_default_priors_hold_to_be_impossible_are_warned_of(x_unit, y_unit, x_place, y_place, given, named):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 50)), rng.normal(size=50)
    x, y = ((v - v.mean(axis=-1, keepdims=True)) for v in (x, y))
    x[1] = x_place + x_unit * x[1]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        check_scale(gaussian_gated(2, features=2), dict.fromkeys(given), x, y_place + y_unit * y)
        check_scale(model(), None, 100 * x, y)  # no prior of places
    assert [str(each.message)[: len(start)] for each, start in zip(seen, named, strict=True)] == named


def test_a_tight_prior_moves_the_posterior():
    rng = np.random.default_rng(0)
    moe, x = model(), rng.normal(size=(60, 2))
    y = moe.simulate(1, moe.params(tau=1.0, beta=[1.0, 0.0], eta=[[2.0, 0.0], [0.0, -2.0]]), x)
    options = {"rng_key": 0, "num_warmup": 300, "num_samples": 512, "progress_bar": False}
    free = nuts.sample(moe, x, y, **options)["posterior"]
    tight = nuts.sample(moe, x, y, prior={"tau": dist.Normal(-3.0, 0.01)}, **options)["posterior"]
    assert free["tau"].mean() > -1.0
    np.testing.assert_allclose(tight["tau"].mean(), -3.0, atol=0.01)
    np.testing.assert_allclose(tight["tau"].std(), 0.01, rtol=0.3)
    assert abs(tight["eta"].std(("chain", "draw"))).min() > 0.1
