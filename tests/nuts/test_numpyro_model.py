"""Every model of the house as NumPyro code: under NUTS, SVI and Predictive, in single and in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro import handlers, optim
from numpyro.infer import NUTS, SVI, Predictive, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.util import potential_energy
from test_conformance import MODELS, N, X

from bayes_moe import gaussian_gated, nuts

MORE = {
    "two responses": gaussian_gated(2, 2, responses=2),
    "two responses, diagonal": gaussian_gated(2, 2, responses=2, covariance="diagonal"),
}
ALL = {**MODELS, **MORE}
QUICK = ("two adapters", "frozen table", "gaussian, full", "two responses")  # the others take a second each


def case(name, double):
    """Return one row of the table of models."""
    quick = name in QUICK and double is (name == "two responses")
    words = f"{name}, {'double' if double else 'single'}"
    return pytest.param(ALL[name], double, id=words, marks=[] if quick else [pytest.mark.slow])


CASES = [case(name, double) for name in ALL for double in (False, True)]
DOUBLE = pytest.mark.parametrize("double", [False, True], ids=["single", "double"])


def responses(moe):
    """Return responses of the kind that a model has."""
    rng = np.random.default_rng(3)
    if not moe.real:
        return rng.integers(0, 3, size=N)
    several = moe.experts[-1].responses
    return rng.normal(size=N if several == 1 else (N, several))


@pytest.mark.parametrize(("moe", "double"), CASES)
def test_nuts_svi_and_predictive_take_every_model(moe, double):
    """Abstractly: a wrong dtype or shape shows in the trace, and nothing need be compiled."""
    y, key = responses(moe), random.PRNGKey(0)
    with jax.enable_x64(double):
        model = nuts.model(moe)
        kernel, guide = NUTS(model), AutoNormal(model)
        svi = SVI(model, guide, optim.Adam(0.01), Trace_ELBO())

        def moved(key):
            return kernel.sample(kernel.init(key, 2, None, (X, y), {}), (X, y), {})

        def fitted(key):
            return svi.update(svi.init(key, X, y), X, y)[1]

        def predicted(key):
            return Predictive(model, num_samples=2)(key, X)

        dtype = jnp.result_type(float)
        assert {part.dtype for part in jax.eval_shape(moved, key).z.values()} == {dtype}
        assert jax.eval_shape(fitted, key).dtype == dtype
        drawn = jax.eval_shape(predicted, key)
        assert drawn["y"].shape == (2, *y.shape)
        assert {drawn[name].dtype for name in moe.fields} == {dtype}


def test_both_precisions_have_one_density():
    moe, values = MODELS["gaussian, full"], []
    for double in (False, True):
        with jax.enable_x64(double):
            model = nuts.model(moe)
            sites = jax.eval_shape(lambda model=model: traced(model)).items()
            shapes = {name: dist.biject_to(moe.fields[name].support).inverse_shape(site.shape) for name, site in sites}
            free = {name: np.full(shape, 0.1, dtype=jnp.result_type(float)) for name, shape in shapes.items()}
            energy = jax.jit(lambda free, model=model: potential_energy(model, (X, responses(moe)), {}, free))
            values.append(float(energy(free)))
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def traced(model):
    """Draw every latent site."""
    trace = handlers.trace(handlers.seed(model, 0)).get_trace(X)
    return {name: site["value"] for name, site in trace.items() if site["type"] == "sample" and name != "y"}


@DOUBLE
def test_ones_own_model_around_the_mixture_runs_too(double):
    moe, y = gaussian_gated(2, 2), responses(MODELS["gaussian, full"])
    covariates = moe.prepare(X)
    with jax.enable_x64(double):

        def density():
            return nuts.Mixture(moe, traced(nuts.model(moe)), covariates).log_prob(jnp.asarray(y, dtype=float))

        found = jax.eval_shape(density)
    assert found.dtype == ("float64" if double else "float32")
