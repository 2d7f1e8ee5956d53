"""Gibbs sweeps of a Gaussian-gated mixture: whose observation is whose, then each expert's parameters given that.

With more experts than are needed NUTS is slow: an empty expert ranges over its prior, a filled one sits on a few
observations, and the way between is narrow. A sweep crosses it in one step. It leaves the posterior as it is, so sweeps
may go between the transitions of NUTS. Its conditionals are conjugate: those of the default priors' families.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import Distribution, biject_to
from numpyro.infer.hmc import HMCState

from bayes_moe.ground.data import Observations
from bayes_moe.ground.parameters import Params
from bayes_moe.model.gates import Gaussian
from bayes_moe.model.moe import MoE
from bayes_moe.model.normal import Normal
from bayes_moe.nuts.modes import Layout

CONJUGATE = {
    "pi": dist.Dirichlet,
    "c": dist.Normal,
    "Gamma": dist.InverseWishart,
    "a": dist.Normal,
    "b": dist.Normal,
    "nu": dist.InverseGamma,
}

Priors = Mapping[str, Distribution]


def check(moe: object, args: tuple, sweeps: int) -> None:
    """Refuse sweeps for what has none.

    Parameters
    ----------
    moe : MoE
    args : tuple
        Of :func:`bayes_moe.nuts.numpyro_model.summed_model`.
    sweeps : int

    Raises
    ------
    ValueError
        For another model than a Gaussian-gated one with full covariances and one response, or priors not conjugate.
    """
    if not sweeps:
        return
    if not _has_sweeps(moe):
        raise ValueError(
            "sweeps must be 0 for all models but gaussian_gated with full covariances and one response, got "
            f"sweeps={sweeps} with {getattr(moe, 'gate', moe)!r}. Leave sweeps out, or choose that model."
        )
    for name, family in CONJUGATE.items():
        given = _base(args[0][1][name])
        if not isinstance(given, family):
            raise ValueError(
                f"sweeps must be 0 unless the prior of {name} is of the family {family.__name__}, got "
                f"sweeps={sweeps} with {type(given).__name__}. Leave sweeps out, or give such a prior."
            )


def _has_sweeps(moe: object) -> bool:
    if not isinstance(moe, MoE) or not isinstance(moe.gate, Gaussian) or moe.gate.covariance != "full":
        return False
    return len(moe.experts) == 1 and isinstance(moe.experts[0], Normal) and moe.experts[0].responses == 1


def _base(prior: Distribution) -> Distribution:
    while isinstance(prior, dist.Independent | dist.ExpandedDistribution):
        prior = prior.base_dist
    return prior


def sweep(key: Array, moe: MoE, prior: Priors, params: Params, data: Observations) -> Params:
    """Draw allocations given the parameters, then the parameters, block by block, given the allocations; pure.

    Parameters
    ----------
    key : JAX key
    moe : MoE
    prior : mapping of str to Distribution
        That :func:`check` accepts.
    params : dict of str to array
    data : Observations
        Each counts once, whatever its weight.

    Returns
    -------
    dict of str to array

    References
    ----------
    Diebolt and Robert (1994); Malsiner-Walli, Frühwirth-Schnatter and Grün (2016), for sparse priors.
    """
    first, *keys = jax.random.split(key, 1 + len(CONDITIONALS))
    sums = moments(allocate(first, moe, params, data), data, params["pi"].dtype)
    base = {name: _base(one) for name, one in prior.items()}
    for each, (block, conditional) in zip(keys, CONDITIONALS.items(), strict=True):
        drawn = conditional(base, params, sums).sample(each)
        params = params | ({"a": drawn[:, :-1], "b": drawn[:, -1]} if block == "line" else {block: drawn})
    return params


def allocate(key: Array, moe: MoE, params: Params, data: Observations) -> Array:
    """Draw each observation's expert from its responsibilities: whose it is, (experts, n), in the data's precision.

    Parameters
    ----------
    key : JAX key
    moe : MoE
    params : dict of str to array
    data : Observations
    """
    log_joint = moe.log_joint(jax.tree.map(lambda value: value.astype(data.x.dtype), params), data)
    ends = jnp.cumsum(jnp.exp(log_joint - jnp.max(log_joint, axis=0)), axis=0)
    which = jnp.sum(ends[:-1] <= ends[-1] * jax.random.uniform(key, ends.shape[1:], ends.dtype), axis=0)
    return jnp.arange(len(ends))[:, None] == which


def moments(whose: Array, data: Observations, dtype: jnp.dtype) -> Array:
    """Sums of (x, 1, y)(x, 1, y)' over each expert's observations, (experts, d + 2, d + 2).

    Parameters
    ----------
    whose : array of bool, shape (experts, n)
    data : Observations
    dtype : dtype
        In which to add up.
    """
    rows = jnp.concatenate([data.x, jnp.ones_like(data.y), data.y]).astype(dtype)
    return (whose[:, None] * rows) @ rows.T


# What each block of parameters follows, given the others and the allocations -----------------------------------------


def _weights(base: Priors, params: Params, sums: Array) -> Distribution:
    return dist.Dirichlet(base["pi"].concentration + sums[:, -2, -2])


def _locations(base: Priors, params: Params, sums: Array) -> Distribution:
    precision = jnp.linalg.inv(params["Gamma"])
    shift = jnp.einsum("kij,kj->ki", precision, sums[:, :-2, -2])
    return _normal(base["c"].loc, base["c"].scale, sums[:, -2, -2, None, None] * precision, shift)


def _covariances(base: Priors, params: Params, sums: Array) -> Distribution:
    c, count, total = params["c"], sums[:, -2, -2], sums[:, :-2, -2]
    cross = c[:, :, None] * total[:, None]
    outer = count[:, None, None] * c[:, :, None] * c[:, None]
    scatter = sums[:, :-2, :-2] - cross - jnp.swapaxes(cross, 1, 2) + outer
    root = base["Gamma"].scale_tril
    scale = root @ jnp.swapaxes(root, -1, -2) + scatter
    return dist.InverseWishart(base["Gamma"].concentration + count, scale_matrix=scale)


def _lines(base: Priors, params: Params, sums: Array) -> Distribution:
    """(a, b), shape (experts, d + 1)."""
    loc, scale = (_joined(base["a"], base["b"], name, sums[:, :-1, -1].shape) for name in ("loc", "scale"))
    nu = params["nu"][:, None]
    return _normal(loc, scale, sums[:, :-1, :-1] / nu[:, None], sums[:, :-1, -1] / nu)


def _variances(base: Priors, params: Params, sums: Array) -> Distribution:
    off = jnp.concatenate([-params["a"], -params["b"][:, None], jnp.ones_like(params["b"])[:, None]], axis=1)
    squares = jnp.maximum(jnp.einsum("ki,kij,kj->k", off, sums, off), 0.0)  # of residuals; rounding may go below 0
    return dist.InverseGamma(base["nu"].concentration + sums[:, -2, -2] / 2, base["nu"].rate + squares / 2)


CONDITIONALS: dict[str, Callable[[Priors, Params, Array], Distribution]] = {
    "pi": _weights,
    "c": _locations,
    "Gamma": _covariances,
    "line": _lines,
    "nu": _variances,
}


def _joined(slopes: Distribution, intercept: Distribution, name: str, shape: tuple[int, int]) -> Array:
    """Prior locations or scales of (a, b), shape (experts, d + 1)."""
    first = jnp.broadcast_to(getattr(slopes, name), (shape[0], shape[1] - 1))
    last = jnp.broadcast_to(getattr(intercept, name), (shape[0],))
    return jnp.concatenate([first, last[:, None]], axis=1)


def _normal(loc: Array, scale: Array, precision: Array, shift: Array) -> Distribution:
    """N(loc, scale^2) times exp(shift'v - v' precision v / 2), normalised; (experts, coordinates)."""
    weight = jnp.broadcast_to(1 / jnp.square(scale), shift.shape)
    total = precision + weight[:, :, None] * jnp.eye(shift.shape[1])
    mean = jnp.linalg.solve(total, (shift + weight * loc)[..., None])[..., 0]
    return dist.MultivariateNormal(mean, precision_matrix=total)


def refreshed(
    state: HMCState, problem: tuple, where: Layout, potential: Callable[[Array], Array], count: int
) -> HMCState:
    """State of NUTS after ``count`` sweeps; as it was where rounding leaves no finite density.

    What NUTS has adapted stays as it is: only the point, its potential and gradient, and the key change.

    Parameters
    ----------
    state : HMCState
        In whitened coordinates.
    problem : tuple
        Arguments of :func:`bayes_moe.nuts.numpyro_model.summed_model`, centre and factor of the whitening.
    where : Layout
    potential : callable
        Of whitened coordinates.
    count : int

    Returns
    -------
    HMCState
    """
    ((moe, prior, data),), centre, factor = problem[:3]
    maps = {name: biject_to(prior[name].support) for name, _ in where.shapes}
    keys = jax.random.split(state.rng_key, count + 1)
    sites = where.sites(centre + factor @ state.z)
    params = {name: maps[name](value) for name, value in sites.items()}
    params, _ = jax.lax.scan(lambda now, key: (sweep(key, moe, prior, now, data), None), params, keys[1:])
    free = where.free({name: maps[name].inv(value) for name, value in params.items()})
    z = jnp.linalg.solve(factor, free - centre)
    old = state.z, state.potential_energy, state.z_grad
    new = z, *jax.value_and_grad(potential)(z)
    fine = jnp.isfinite(new[1]) & jnp.isfinite(new[2]).all()
    z, value, grad = (jnp.where(fine, one, other) for one, other in zip(new, old, strict=True))
    return state._replace(z=z, potential_energy=value, z_grad=grad, rng_key=keys[0])


def rotated(args: tuple, where: Layout, free: np.ndarray) -> list[np.ndarray]:
    """Free vectors of the same mixing measure in which every expert has every label once.

    Sweeps switch labels. Whitened for one labelling, a chain in another takes far too long steps: it diverges.

    Parameters
    ----------
    args : tuple
        Of :func:`bayes_moe.nuts.numpyro_model.summed_model`.
    where : Layout
    free : ndarray
    """
    ((moe, prior, _),) = args
    maps = {name: biject_to(prior[name].support) for name, _ in where.shapes}
    params = {name: maps[name](value) for name, value in where.sites(jnp.asarray(free)).items()}

    def turned(shift: int) -> np.ndarray:
        sites = {name: maps[name].inv(jnp.roll(value, shift, axis=0)) for name, value in params.items()}
        return np.asarray(where.free(sites))

    return [turned(shift) for shift in range(moe.gate.experts)]
