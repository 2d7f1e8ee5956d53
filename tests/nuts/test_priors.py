"""Priors: merged by name, shaped like the parameters, refused by name, and felt by the posterior."""

import re
import warnings
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from montecarlo import key
from numpyro.distributions import constraints
from scipy import stats

from bayes_moe import contaminated, gaussian_gated, nuts
from bayes_moe.ground.parameters import Field
from bayes_moe.nuts.priors import check_scale, check_slopes, resolve
from bayes_moe.nuts.repulsion import Repulsive

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


# What a prior says is looked at when it is given --------------------------------------------------------------------


def raises(moe):
    raise RuntimeError("boom")


UNCHECKED = {"validate_args": False}  # as in NumPyro's functions, and in compiled code
BROKEN = {
    "NaN scale": ("eta", dist.Normal(0.0, np.nan, **UNCHECKED), "NaN"),
    "NaN place": ("eta", dist.Normal(np.nan, 1.0, **UNCHECKED), "NaN"),
    "a NaN among scales": ("beta", dist.Laplace(0.0, np.array([1.0, np.nan]), **UNCHECKED), "NaN"),
    "infinite scale": ("tau", dist.Normal(0.0, np.inf), "infinite"),
    "negative scale": ("tau", dist.Normal(0.0, -1.0, **UNCHECKED), "scales that are not positive"),
    "no scale": ("beta", dist.Laplace(0.0, 0.0, **UNCHECKED), "scales that are not positive"),
    "low above high": ("beta", dist.Uniform(1.0, -1.0, **UNCHECKED), "low above high"),
    "low is high": ("beta", dist.Uniform(1.0, 1.0, **UNCHECKED), "spread"),
    "truncated to nothing": ("tau", dist.TruncatedNormal(0.0, 1.0, low=2.0, high=1.0, **UNCHECKED), "low above high"),
    "a point": ("tau", dist.Delta(0.0), "spread"),
    "narrower than rounding": ("tau", dist.Normal(5.0, 1e-30), "spread"),
    "complex": ("tau", dist.Normal(1j, 1.0, **UNCHECKED), "complex128"),
    "raises": ("tau", raises, "RuntimeError: boom"),
    "raises what NumPyro does": ("eta", lambda moe: dist.Normal(0.0, np.nan), "invalid scale"),
    "takes no model": ("tau", lambda: dist.Normal(), "TypeError"),
    "gives a class": ("tau", lambda moe: dist.Normal, "class"),
    "gives nothing": ("tau", lambda moe: None, "None"),
    "atoms that attract": (
        "eta",
        lambda moe: Repulsive((1, 2, 2), distance=-1.0),
        "distance must be a positive number",
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_priors_are_named(broken):
    name, prior, said = BROKEN[broken]
    with pytest.raises(ValueError, match=f"(?s)^prior: {name}\\b.*({said})"):
        resolve(model(), {name: prior})


@pytest.mark.parametrize("prior", [[1], {"tau"}, "tau", dist.Normal(), ("tau", dist.Normal())])
def test_priors_are_a_mapping(prior):
    with pytest.raises(ValueError, match="^prior must be a mapping"):
        resolve(model(), prior)


def test_wide_and_sparse_priors_are_taken():
    gated = gaussian_gated(2, features=1)
    resolve(gated, {"pi": dist.Dirichlet(np.full(2, 0.001)), "c": dist.Cauchy(0.0, 1.0)})


# Covariates in other units -------------------------------------------------------------------------------------------


def warned(x, moe=None, prior=None):
    """Return what is said of covariates (n, 2) before sampling."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        check_slopes(moe or model(), prior, np.asarray(x).T)
    return [str(each.message) for each in seen]


PLAIN = np.random.default_rng(0).normal(size=(200, 2))
INDICATOR = (np.arange(200) < 2).astype(float)  # one row in a hundred
UNITS = {
    "standard": (PLAIN, False),
    "a tenth": (PLAIN / 10, False),
    "tenfold": (PLAIN * 10, False),
    "uniform": (np.random.default_rng(1).random((200, 2)), False),
    "a place": (PLAIN + [5.0, 0.0], False),
    "an intercept": (np.column_stack([np.ones(200), PLAIN[:, 0]]), False),
    "a rare indicator": (np.column_stack([INDICATOR, PLAIN[:, 0]]), False),
    "counts": (np.random.default_rng(2).poisson(0.05, (200, 2)).astype(float), False),
    "metres for centimetres": (PLAIN * [1.0, 0.01], True),
    "grams for kilograms": (PLAIN * [1.0, 1000.0], True),
    "years": (2000 + 10 * PLAIN, True),
    "a small indicator": (np.column_stack([0.001 * INDICATOR, PLAIN[:, 0]]), True),
    "a small constant": (np.column_stack([np.full(200, 0.001), PLAIN[:, 0]]), True),
}


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("gate", ["softmax", "sigmoid", "constant"])
def test_covariates_in_other_units_are_warned_of(units, gate):
    x, far = UNITS[units]
    said = warned(x, contaminated(ETA0, activation="tanh", gate=gate))
    if gate == "constant" and units == "years":
        return  # no intercept that a place could need
    assert len(said) == far
    assert not said or re.search(r"x: covariate [01] has centre .* priors of (beta and )?eta.*Standardise", said[0])


def test_only_default_priors_are_judged():
    own = {"beta": dist.Normal(0, 200), "eta": dist.Normal(0, 200)}
    small = PLAIN * 0.01
    assert warned(small, prior={"beta": own["beta"]})[0].count("beta") == 0
    assert "beta" in warned(small, prior={"eta": own["eta"]})[0]
    assert warned(small, prior=own) == []
    named = contaminated(ETA0, features=["height", "mass"])
    assert "'mass'" in warned(PLAIN * [1.0, 0.01], named)[0]
    assert warned(PLAIN * 0.01, gaussian_gated(2, 2)) == []  # check_scale speaks of those


@pytest.mark.parametrize("unit", [0.01, 30.0])
def test_the_advised_prior_is_the_default_in_other_units(unit):
    """The advice leaves the posterior as it is: its density moves by the Jacobian alone."""
    moe, other = model(), contaminated(ETA0 / unit, activation="tanh")
    x, y = PLAIN[:20], np.arange(20) % 3
    given = moe.params(**{name: values(name) for name in SHAPES})
    moved = given | {name: given[name] / unit for name in ("beta", "eta")}
    prior = {name: dist.Normal(0.0, 2.0 / unit) for name in ("beta", "eta")}
    assert warned(x * unit, other)
    assert not warned(x * unit, other, prior)
    np.testing.assert_allclose(moe.log_density(given, x, y), other.log_density(moved, x * unit, y), rtol=1e-12)
    with jax.enable_x64(True):
        before, after = (
            sum(float(p.log_prob(jnp.asarray(at[n]))) for n, p in resolve(m, q).items())
            for m, q, at in ((moe, None, given), (other, prior, moved))
        )
    np.testing.assert_allclose(after - before, 6 * np.log(unit), rtol=1e-10)


def test_sampling_warns_of_them():
    with pytest.warns(UserWarning, match="x: covariate 0 has centre"), pytest.raises(ValueError, match="missing"):
        nuts.sample(model(), PLAIN * 0.01, np.arange(200) % 3, rng_key=0, init=[{"tau": 1.0}], progress_bar=False)


@pytest.mark.statistical
def test_a_tight_prior_moves_the_posterior():
    rng = np.random.default_rng(0)
    moe, x = model(), rng.normal(size=(60, 2))
    y = moe.simulate(1, moe.params(tau=1.0, beta=[1.0, 0.0], eta=[[2.0, 0.0], [0.0, -2.0]]), x)
    options = {"rng_key": key(0), "num_warmup": 300, "num_samples": 512, "progress_bar": False}
    free = nuts.sample(moe, x, y, **options)["posterior"]
    tight = nuts.sample(moe, x, y, prior={"tau": dist.Normal(-3.0, 0.01)}, **options)["posterior"]
    assert free["tau"].mean() > -1.0
    np.testing.assert_allclose(tight["tau"].mean(), -3.0, atol=0.01)  # a standard deviation; the data move it by less
    np.testing.assert_allclose(tight["tau"].std(), 0.01, rtol=0.3)
    assert abs(tight["eta"].std(("chain", "draw"))).min() > 0.1
