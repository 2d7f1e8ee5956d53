"""The sparse prior of a gate: its density and draws, its place among the priors, and how many components it finds."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from montecarlo import FALSE_ALARM, first_that_passes, key
from scipy import integrate, stats

from bayes_moe import curves, varying_coefficient
from bayes_moe.curves import draws as curve_draws
from bayes_moe.curves.bases import HilbertGP
from bayes_moe.curves.smooth import SmoothModel
from bayes_moe.curves.sparsity import SparseGate
from bayes_moe.draws import diagnostics, relabel
from bayes_moe.nuts.priors import resolve

DRAWS = 4000


def weights(levels):
    """Weights of all components but the last from log ratios to the first."""
    return jax.nn.softmax(jnp.concatenate([jnp.zeros(1), levels]))[:-1]


@pytest.mark.parametrize("a", [0.1, 2.5])
@pytest.mark.parametrize("shape", [(1, 1), (3, 3)])
@jax.enable_x64(True)
def test_the_density_is_scipys_dirichlets_with_its_jacobian(shape, a):
    value = np.random.default_rng(0).normal(size=shape)
    first = np.asarray(weights(value[:, 0]))
    _, jacobian = np.linalg.slogdet(jax.jacobian(weights)(jnp.asarray(value[:, 0])))
    dirichlet = stats.dirichlet([a] * (shape[0] + 1)).logpdf([*first, 1 - first.sum()])
    slopes = stats.norm(0, 0.7).logpdf(value[:, 1:]).sum()
    found = SparseGate(shape, a, 0.7).log_prob(jnp.asarray(value))
    assert float(found) == pytest.approx(dirichlet + jacobian + slopes, rel=1e-10)
    assert abs(float(found) - dirichlet - slopes) > 0.1  # without the Jacobian


@jax.enable_x64(True)
def test_the_density_integrates_to_one():
    prior = SparseGate((1, 1), 0.3)
    total = integrate.quad(lambda b: np.exp(float(prior.log_prob(jnp.array([[b]])))), -200, 200, points=[0], limit=200)
    assert total[0] == pytest.approx(1, abs=1e-7)


@pytest.mark.statistical
def test_draws_of_weights_are_dirichlet_whichever_the_component():
    a, components = 0.2, 3
    with jax.enable_x64(True):
        drawn = np.asarray(SparseGate((components - 1, 2), a, 1.5).sample(jax.random.key(key(0)), (DRAWS,)))
    shares = np.exp(np.concatenate([np.zeros((DRAWS, 1)), drawn[..., 0]], axis=1))
    shares /= shares.sum(axis=1, keepdims=True)
    marginal = stats.beta(a, (components - 1) * a)
    for share in shares.T:
        assert stats.kstest(share, marginal.cdf).pvalue > FALSE_ALARM
    assert stats.kstest(shares[:, 0], stats.beta(2 * a, 2 * (components - 1) * a).cdf).pvalue < FALSE_ALARM
    assert stats.kstest(drawn[..., 1].ravel(), stats.norm(0, 1.5).cdf).pvalue > FALSE_ALARM


def test_it_takes_its_place_among_the_priors():
    smooth = SmoothModel(varying_coefficient("poisson", 3, gate_features=2), HilbertGP(4))
    found = curves.priors_of(smooth, curves.sparse_gate(0.05) | {"alpha_mean": dist.Normal(0, 1)})
    assert isinstance(found["beta_mean"], SparseGate)
    assert found["beta_mean"].event_shape == smooth.fields["beta_mean"].shape == (2, 3)
    assert found["beta_amplitude"] is not None


def test_one_component_has_no_gate_to_make_sparse():
    smooth = SmoothModel(varying_coefficient("normal", 1), HilbertGP(4))
    with pytest.raises(ValueError, match="^prior: 'beta_mean' is about the gate"):
        curves.priors_of(smooth, curves.sparse_gate())


BAD = {
    "no concentration": (lambda: curves.sparse_gate(0.0), "^concentration must be a positive"),
    "an infinite one": (lambda: curves.sparse_gate(np.inf), "^concentration must be a positive"),
    "a string": (lambda: curves.sparse_gate("small"), "^concentration must be a positive"),
    "no spread": (lambda: curves.sparse_gate(0.1, slope_sd=-1), "^slope_sd must be a positive"),
    "no gate": (
        lambda: resolve(SmoothModel(varying_coefficient("normal", 1), HilbertGP(4)), curves.sparse_gate(), {}),
        "^prior: 'beta_mean' is no parameter",
    ),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# How many components ---------------------------------------------------------------------------------------------


def rows_of(components, n=150, seed=0):
    """Return data of one component, or of two that lie four of their standard deviations apart or more."""
    rng = np.random.default_rng(seed)
    x, z, u = rng.normal(size=(n, 1)), rng.normal(size=(n, 1)), rng.uniform(size=n)
    levels, slopes = [-2 + 0.5 * np.sin(4 * u), 2 - u], [np.ones(n), 0.5 * u - 1]
    alpha = np.stack([np.stack(pair, 1) for pair in zip(levels, slopes, strict=True)], 1)[:, :components]
    truth = {"beta": np.array([[[0.0, 1.0]]])[:, : components - 1], "alpha": alpha, "delta": [[-1.0] * components]}
    return x, z, u, varying_coefficient("normal", components).simulate(seed, truth, x, z)


SPARE = 4  # components fitted
SETTINGS = {
    "num_warmup": 1000,
    "num_samples": 1000,
    "target_accept_prob": 0.99,
    "max_tree_depth": 8,
    "progress_bar": False,
}


def likeliest(components, concentration):
    """Likeliest number of filled components in each chain, and the verdict of the gate."""
    model, rows = varying_coefficient("normal", SPARE, constant=["delta"]), rows_of(components)
    settings = SETTINGS | {"basis": HilbertGP(6), "prior": curves.sparse_gate(concentration)}
    tree, verdict = first_that_passes(
        lambda base: curves.sample(model, *rows, rng_key=base, grid=5, **settings),
        key(1),
        lambda tree: diagnostics.check(tree, curve_draws.invariants(model, tree)),
    )
    return relabel.by_chain(curve_draws.filled(model, tree), SPARE).idxmax("experts").values.tolist(), verdict


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("components", [1, 2])
def test_as_many_components_are_filled_as_there_are(components):
    found, verdict = likeliest(components, 0.1)
    assert verdict.passed, str(verdict)
    assert found == [components] * 4


@pytest.mark.slow
@pytest.mark.statistical
def test_a_gate_that_is_not_sparse_fills_more():
    found, _ = likeliest(2, 5.0)
    assert min(found) > 2
