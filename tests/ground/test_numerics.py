"""Elementary functions against NumPy and SciPy, at the edges too; sums over blocks against one sum."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from selection import quick

from bayes_moe.ground import blocks, numerics
from bayes_moe.ground.data import float64

EDGES = [0.0, 1.0, -1.0, 1e-9, 36.0, -36.0, 745.0, -745.0, 1e3, -1e3, 1e8]
ULP = 2.3e-16


@float64
def evaluate(function, *args):
    return np.asarray(function(*(jnp.asarray(arg) for arg in args)))


def test_log_is_exact_to_the_last_digit():
    rng = np.random.default_rng(0)
    x = np.concatenate([1.0 + np.logspace(-16, 0, 500), rng.uniform(0.1, 10, 10_000), np.logspace(-300, 300, 2_000)])
    assert np.all(np.abs(evaluate(numerics.log, x) - np.log(x)) <= 2 * ULP * np.maximum(np.abs(np.log(x)), 1e-16))


def test_log_of_single_precision():
    x = np.linspace(1, 9, 50, dtype=np.float32)
    assert evaluate(numerics.log, x).dtype == np.float32
    np.testing.assert_allclose(evaluate(numerics.log, x), np.log(x), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_logsumexp_at_the_edges(count):
    rows = np.array(list(itertools.product(EDGES, repeat=min(count, 3)))).T
    rows = np.concatenate([rows, np.zeros((count - len(rows), rows.shape[1]))])
    ours = evaluate(lambda r: numerics.logsumexp(list(r)), rows)
    np.testing.assert_allclose(ours, special.logsumexp(rows, axis=0), rtol=1e-15, atol=2 * ULP)


@pytest.mark.parametrize("count", [2, 3])
def test_terms_of_no_mass(count):
    rows = np.array([[-np.inf, 1.0], *[[-np.inf, -np.inf]] * (count - 1)])
    with jax.enable_x64(True):
        value, grad = jax.vmap(jax.value_and_grad(lambda r: numerics.logsumexp(list(r))))(jnp.asarray(rows.T))
    np.testing.assert_array_equal(value, [-np.inf, 1.0])
    np.testing.assert_array_equal(np.asarray(grad)[1], np.eye(count)[0])


@pytest.mark.parametrize("count", [2, 3])
def test_nan_is_not_hidden(count):
    assert np.isnan(evaluate(lambda r: numerics.logsumexp(list(r)), np.array([np.nan, *[0.0] * (count - 1)])))


@float64
def derivatives(function, point):
    """Gradient, Hessian and third derivatives."""
    third = jax.jacfwd(jax.hessian(function))
    return [np.asarray(jax.jit(d)(jnp.asarray(point))) for d in (jax.grad(function), jax.hessian(function), third)]


@pytest.mark.parametrize(
    "point", [[0.3, -1.2, 2.0, 0.1, 0.5, -0.4], [0.0] * 6, [30.0, 1.0, 2.0, 50.0, 3.0, 1.0]], ids=str
)
@pytest.mark.parametrize("experts", quick([2, 3], 3))
def test_derivatives_of_every_order(point, experts):
    """Ties included, where a maximum has a kink and the function has none."""

    def mixed(z):
        return numerics.log_mean_exp(list(z[:experts]), list(z[3 : 3 + experts])) + numerics.logsumexp(list(z))

    def plain(z):
        lse = jax.nn.logsumexp
        return lse(z[:experts] + z[3 : 3 + experts]) - lse(z[3 : 3 + experts]) + lse(z)

    for ours, theirs in zip(derivatives(mixed, point), derivatives(plain, point), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-14)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_bounded_rows_need_no_maximum(count):
    rows = np.random.default_rng(0).uniform(-1, 1, (count, 50))
    for bounded in (False, True):
        ours = evaluate(lambda r, b=bounded: numerics.logsumexp(list(r), bounded=b), rows)
        np.testing.assert_allclose(ours, special.logsumexp(rows, axis=0), rtol=1e-14, atol=1e-15)
        slopes = evaluate(jax.vmap(jax.grad(lambda r, b=bounded: numerics.logsumexp(list(r), bounded=b))), rows.T)
        np.testing.assert_allclose(slopes, special.softmax(rows.T, axis=1), rtol=1e-14)


def test_a_constant_term_needs_no_derivative():
    slope = jax.grad(lambda z: numerics.logsumexp([z, jnp.zeros(()), jnp.ones(())]))(0.5)
    assert float(slope) == pytest.approx(special.softmax([0.5, 0.0, 1.0])[0], rel=1e-6)


@pytest.mark.parametrize("n", [1, 6, 7, 8, 13, 14, 15, 50])
def test_blocks_sum_to_the_whole(n, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 7)
    data = {"x": np.random.default_rng(n).normal(size=(3, n)), "weights": np.arange(n) + 1.0}
    sums = blocks.total(lambda block: {"s": (block["x"] * block["weights"]).sum(axis=1)}, data)
    np.testing.assert_allclose(sums["s"], (data["x"] * data["weights"]).sum(axis=1), rtol=1e-5)
