"""Data and local likelihoods that the tests of varying coefficients share."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import oracle_varying as oracle
import xarray as xr
from scipy import stats
from scipy.special import logsumexp

from bayes_moe import varying_coefficient
from bayes_moe.curves.bases import BSplines, HilbertGP
from mle.local import likelihood as local
from mle.local import windows
from mle.local.kernels import KERNELS

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


# The posterior of curves -------------------------------------------------------------------------------------------

BASES = {"hilbert": HilbertGP(6), "bspline": BSplines(7)}
TIGHT = 0.005  # sd of the logarithm of what is held: enough for five standard errors

# Of each part of a curve, the default prior in SciPy's words.
PRIORS = {
    "mean": stats.norm(0, 2),
    "trend": stats.norm(0, 2),
    "amplitude": stats.halfnorm(0, 1),
    "lengthscale": stats.lognorm(0.4, scale=0.3),
    "weights": stats.norm(0, 1),
    "delta_mean": stats.norm(0, 1),
    "delta_trend": stats.norm(0, 1),
    "delta_amplitude": stats.halfnorm(0, 0.5),
    "subject_sd": stats.halfnorm(0, 1),
    "subject_weights": stats.norm(0, 1),
}


def log_prior(values):
    """Log density of all sites under the default priors."""
    own = {name: PRIORS[name if name in PRIORS else name.split("_")[-1]] for name in values}
    return sum(own[name].logpdf(value).sum() for name, value in values.items())


def slow_curves(basis, values, name, label, u):
    """Return one coefficient at u: its mean, and the sum over basis functions where it varies."""
    flat = dict(zip(label["all"], np.ravel(values[f"{name}_mean"]), strict=True))
    out = {one: np.full(len(u), mean) for one, mean in flat.items()}
    for v, one in enumerate(label["varying"]):
        w = values[f"{name}_weights"][v]
        amplitude, rows = values[f"{name}_amplitude"][v], basis.rows(u)
        if basis.name == "bspline":
            out[one] += values[f"{name}_trend"][v] * rows[0] + amplitude * (w @ rows[1:])
            continue
        length = values[f"{name}_lengthscale"][v]
        omega = np.arange(1, basis.functions + 1) * np.pi / (2 * basis.boundary)
        density = amplitude**2 * np.sqrt(2 * np.pi) * length * np.exp(-0.5 * (length * omega) ** 2)
        phi = np.sin(omega[:, None] * (u - 0.5 + basis.boundary)) / np.sqrt(basis.boundary)
        out[one] += (np.sqrt(density) * w) @ phi
    return out


def slow_likelihood(family, model, basis, values, rows, intercepts=None):
    """Sum of log densities, row by row; an intercept of each row is added to every expert's."""
    x, z, u, y = rows
    by_label = {}
    for name in ("beta", "alpha", "delta"):
        if name in model.fields and np.prod(model.fields[name].shape):
            every = [one for one in model.labels if one.startswith(name)]
            fixed = set(np.array(model.labels)[model.select(model.constant)])
            label = {"all": every, "varying": [one for one in every if one not in fixed]}
            by_label |= slow_curves(basis, values, name, label, u)
    total = 0.0
    for i in range(len(y)):
        flat = np.array([by_label[one][i] for one in model.labels])
        like = {name: np.zeros(field.shape) for name, field in model.fields.items()}
        params = oracle.unflatten(like, flat)
        params["alpha"][:, 0] += 0.0 if intercepts is None else intercepts[i]
        total += logsumexp(oracle.log_joint(family, params, x[i], z[i], y[i], SIZES[family]))
    return total


def held(value):
    """Prior of a parameter that is as good as known."""
    return dist.LogNormal(np.log(value), TIGHT)


def with_switched_labels(tree):
    """Return a copy in which every other draw has its two components the other way round."""
    out = tree.copy()
    posterior = out["posterior"].to_dataset().copy(deep=True)
    for name, values in posterior.data_vars.items():
        array = values.values
        some = array[:, ::2]
        if name.startswith("subject"):
            continue  # an intercept is that of every expert
        if name.startswith("beta"):
            sign = 1 if name in ("beta_amplitude", "beta_lengthscale") else -1
            array[:, ::2] = sign * some
        elif name in ("alpha", "delta"):
            array[:, ::2] = some[:, :, :, ::-1]
        elif name.endswith("_mean"):
            array[:, ::2] = some[:, :, ::-1]
        else:
            array[:, ::2] = np.roll(some, some.shape[2] // 2, axis=2)  # the first half are of one expert
        posterior[name] = values.copy(data=array)
    out["posterior"] = xr.DataTree(posterior)
    return out
