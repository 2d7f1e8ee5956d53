"""Data and local likelihoods that the tests of varying coefficients share."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import oracle_varying as oracle

from bayes_moe import varying_coefficient
from mle import local, windows
from mle.kernels import KERNELS

SIZES = {"normal": 1.0, "binomial": 9.0, "poisson": 2.5, "negative-binomial": 2.5}


def draw_rows(family, n=40, components=2, seed=0):
    """Return a model and structureless data (x, z, u, y)."""
    rng = np.random.default_rng(seed)
    model = varying_coefficient(family, components, gate_features=1, expert_features=2)
    y = rng.normal(size=n) if family == "normal" else rng.integers(0, 9, n).astype(float)
    return model, (rng.normal(size=(n, 1)), rng.normal(size=(n, 2)), rng.uniform(size=n), y)


@cache
def draw_standin(seed=0, n=500):
    """Return the model of Simulation 1 and data from its stand-in curves."""
    model, rng = varying_coefficient("normal", 2), np.random.default_rng(seed)
    x, z, u = rng.normal(size=(n, 1)), rng.normal(size=(n, 1)), rng.uniform(size=n)
    return model, (x, z, u, model.simulate(seed, oracle.standin(u), x, z))


def at_one_u(family, u0=0.4, h=0.3, **options):
    """Return a model, its data at one u as the engine sees them, and as the oracle does."""
    model, (x, z, u, y) = draw_rows(family, **options)
    data = model.observe(x, z, u, y, size=SIZES[family], u_range=(0, 1))
    cut = windows.build(data.u, np.array([u0]), h, KERNELS["epanechnikov"])
    seen = jax.tree.map(lambda a: a[0], local.around(jax.tree.map(jnp.asarray, data), cut))
    return model, seen, (x, z, u, y, np.full(len(y), SIZES[family]))


def some_theta(model, seed=5):
    """Return arbitrary coefficients (2 P,)."""
    return jnp.asarray(0.4 * np.random.default_rng(seed).normal(size=2 * model.size))
