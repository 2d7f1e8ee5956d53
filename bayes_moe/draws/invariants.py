"""What a posterior of exchangeable experts says whatever their labels: the quantities on which to judge a sampler."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array

from bayes_moe.ground.data import Observations, float64
from bayes_moe.ground.parameters import Params
from bayes_moe.model import origin
from bayes_moe.model.moe import MoE
from bayes_moe.theory import voronoi


@float64
def invariants(moe: MoE, idata: xr.DataTree, x: object, y: object, truth: Params | None = None) -> xr.Dataset:
    """Label-invariant quantities of each draw, to pass to :func:`bayes_moe.draws.diagnostics.check`.

    Parameters
    ----------
    moe : MoE
        With exchangeable experts: a Gaussian gate, or several adapters beside a frozen expert.
    idata : xarray.DataTree
        From :func:`bayes_moe.nuts.sample`.
    x, y : array-like, shapes (m, d) and (m,)
        A few fixed points.
    truth : dict of str to array, optional
        A mixing measure to be near to, with as many atoms as it likes; with a Gaussian gate alone.

    Returns
    -------
    xarray.Dataset, dims (chain, draw, ...)
        ``log_density``, log p(x, y) or log p(y | x) at the points, as the likelihood has it; with a Gaussian gate
        ``log_conditional``, log p(y | x) there; ``sorted_pi`` and so on: of each parameter's coordinates, the values of
        all experts or adapters in ascending order; with a truth, ``voronoi``.

    Raises
    ------
    ValueError
        For a model whose experts are not exchangeable, or draws of another model.
    """
    posterior = origin.check_exchangeable("invariants", moe, idata)
    if truth is not None and not moe.gate.generative:
        raise ValueError("truth must be left out with this gate: Voronoi losses are of Gaussian-gated mixtures.")
    draws = {name: posterior[name].values for name in moe.fields}
    data = jax.tree.map(jnp.asarray, moe.observe(x, y))
    target = None if truth is None else {name: jnp.asarray(value) for name, value in truth.items()}
    found = _of_draws(moe, jax.tree.map(jnp.asarray, draws), data, target)
    return xr.Dataset(
        {
            name: (("chain", "draw", *(f"{name}_{axis}" for axis in range(np.ndim(value) - 2))), np.asarray(value))
            for name, value in found.items()
        },
        coords={name: posterior.coords[name] for name in ("chain", "draw")},
    )


@jax.jit
def _of_draws(moe: MoE, draws: Params, data: Observations, truth: Params | None) -> dict[str, Array]:
    return jax.lax.map(lambda chain: jax.vmap(lambda params: of(moe, params, data, truth))(chain), draws)


def of(moe: MoE, params: Params, data: Observations, truth: Params | None = None) -> dict[str, Array]:
    """Label-invariant quantities of one parameter set; pure.

    Parameters
    ----------
    moe : MoE
    params : dict of str to array
    data : Observations
        A few fixed points.
    truth : dict of str to array, optional
    """
    out = {"log_density": moe.log_densities(params, data)}
    out |= {"log_conditional": moe.log_conditional(params, data)} if moe.gate.generative else {}
    out |= {f"sorted_{name}": jnp.sort(value, axis=0) for name, value in params.items()}
    return out if truth is None else out | {"voronoi": voronoi.voronoi(params, truth)}
