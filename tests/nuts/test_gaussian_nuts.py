"""The Gaussian-gated posterior: its density, its default priors, and draws that pass the gate."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from montecarlo import STANDARD_ERRORS, first_that_passes, key
from numpyro.infer.util import log_density
from scipy import stats
from selection import quick

from bayes_moe import gaussian_gated, nuts
from bayes_moe.draws import relabel
from bayes_moe.nuts import priors
from mle import em

EXACT = 1e-10


def case(responses=1, form="full", n=30):
    moe = gaussian_gated(2, 2, covariance=form, responses=responses)
    gamma, nu = (np.eye(2) if form == "full" else 0.7), (0.3 if responses == 1 else 0.3 * np.eye(responses))
    params = moe.params(pi=[0.4, 0.6], c=[[-1, 0], [1, 0]], Gamma=gamma, a=1.0, b=0.5, nu=nu)
    return moe, params, *moe.simulate_joint(0, params, n)


@pytest.mark.parametrize("responses", quick([1, 2], 2))
def test_the_distribution_is_the_models_density(responses):
    moe, params, x, y = case(responses)
    with jax.enable_x64(True):
        mixture = nuts.Mixture(moe, params, x)
        many = mixture.log_prob(jnp.stack([jnp.asarray(y), jnp.asarray(y) + 1]))
        drawn = mixture.sample(jax.random.key(0), (3,))
    np.testing.assert_allclose(many[0], moe.log_density(params, x, y), rtol=EXACT)
    np.testing.assert_allclose(many[1], moe.log_density(params, x, y + 1), rtol=EXACT)
    assert drawn.shape == (3, *y.shape)
    assert not mixture.is_discrete


def test_the_posterior_density_is_priors_times_likelihood():
    moe, params, x, y = case()
    with jax.enable_x64(True):
        total, _ = log_density(nuts.model(moe), (x, jnp.asarray(y)), {}, {k: jnp.asarray(v) for k, v in params.items()})
    scale = priors.SCALE
    log_prior = (
        stats.dirichlet(np.full(2, priors.SPARSE)).logpdf(params["pi"])
        + sum(stats.norm(0, 2).logpdf(params[name]).sum() for name in ("c", "a", "b"))
        + sum(stats.invwishart(4, scale * np.eye(2)).logpdf(gamma) for gamma in params["Gamma"])
        + stats.invgamma(1.5, scale=scale / 2).logpdf(params["nu"]).sum()
    )
    assert float(total) == pytest.approx(log_prior + moe.log_density(params, x, y).sum(), rel=EXACT)


@pytest.mark.parametrize("form", ["full", "diagonal", "spherical"])
@pytest.mark.parametrize("responses", [1, 2])
def test_every_parameter_has_a_default_prior_of_its_shape(form, responses):
    moe, params, *_ = case(responses, form)
    resolved = priors.resolve(moe, {"pi": dist.Dirichlet(np.ones(2))})
    assert {name: d.event_shape for name, d in resolved.items()} == {name: v.shape for name, v in params.items()}


@pytest.mark.slow
@pytest.mark.statistical
def test_single_precision_and_a_single_expert():
    moe = gaussian_gated(1, 1)
    x, y = moe.simulate_joint(0, moe.params(pi=[1.0], c=0.0, Gamma=1.0, a=1.0, b=0.0, nu=0.3), 50)
    idata, verdict = first_that_passes(
        lambda base: nuts.sample(moe, x, y, rng_key=base, dtype="float32", progress_bar=False), key(0)
    )
    assert idata["posterior"]["c"].dtype == np.float32
    assert verdict.passed  # the weight of a single expert is a constant


@pytest.mark.slow
@pytest.mark.statistical
def test_draws_pass_the_gate_and_agree_with_the_mle():
    moe = gaussian_gated(2, 1)
    truth = moe.params(
        pi=[0.4, 0.6], c=[[-1], [1]], Gamma=[[[0.2]], [[0.3]]], a=[[0.5], [-0.5]], b=[0, 1], nu=[0.1, 0.2]
    )
    x, y = moe.simulate_joint(key(1), truth, 500)
    fit = em.fit(moe, x, y, n_init=3, random_state=0)
    settings = {"num_chains": 2, "num_warmup": 300, "num_samples": 1000, "progress_bar": False}
    tree, verdict = first_that_passes(
        lambda base: nuts.sample(moe, x, y, rng_key=base, init=fit.params, **settings), key(0)
    )
    assert verdict.passed, str(verdict)
    assert (relabel.filled(tree) == 2).all()
    for name in ("c", "a", "b"):
        mean = tree["posterior"][name].mean(("chain", "draw")).values
        assert (np.abs(mean - fit.params[name]) < fit.standard_errors[name]).all()
        assert (np.abs(mean - truth[name]) < STANDARD_ERRORS * fit.standard_errors[name]).all()
    assert list(tree["posterior"]["Gamma"].dims)[2:] == ["expert", "gate_feature", "gate_feature_bis"]
