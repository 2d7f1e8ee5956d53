"""Posterior draws of coefficient curves: labels that mean the same in all draws, label-free quantities.

A tree from :func:`bayes_moe.curves.sample` holds its data and basis, so that the functions here ask for nothing else.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array

from bayes_moe.curves.smooth import SmoothModel
from bayes_moe.curves.tree import check_model, data_of, ends_of, smooth_of
from bayes_moe.draws import relabel as labelling
from bayes_moe.ground.compilation import jitted
from bayes_moe.ground.data import float64
from bayes_moe.ground.parameters import Params
from bayes_moe.nuts.datatree import flat_variables
from bayes_moe.varying.indexed import IndexedObservations, scale_points
from bayes_moe.varying.model import VaryingCoefficient, by_name, permute

PROBES = 8  # observations, evenly spaced along u, whose log density is a label-free quantity
BATCH = 50  # draws evaluated side by side


def _sites(smooth: SmoothModel, tree: xr.DataTree) -> Params:
    """Parameters and weights of all draws in a row."""
    draws = flat_variables(tree["posterior"].dataset, smooth.fields | smooth.weights)
    return {name: jnp.asarray(values) for name, values in draws.items()}


def flat_curves(group: xr.DataTree, model: VaryingCoefficient) -> np.ndarray:
    """Curves of all chains in a row, coefficients in the order of their labels: (draws, G, P).

    Parameters
    ----------
    group : xarray.DataTree
        ``posterior`` or ``relabelled``.
    model : VaryingCoefficient
    """
    check_model(model, group)
    draws = flat_variables(group.dataset, [name for name in model.fields if name in group])  # one component: no gate
    return np.concatenate([values.reshape(*values.shape[:2], -1) for values in draws.values()], axis=-1)


# Labels --------------------------------------------------------------------------------------------------------


@float64
def relabel(model: VaryingCoefficient, tree: xr.DataTree) -> xr.DataTree:
    """Permute the components of each draw, whole curves at once, so that their labels mean the same in all.

    Each draw's allocation of the observations to their likeliest components is matched to that of the likeliest draw,
    then to the consensus (:func:`bayes_moe.draws.relabel.ecr`). Experts are then numbered by their mean predictors at
    the covariates' means, ascending, as kernel estimates are. Where ``constant`` tells components apart they keep their
    numbers.

    Parameters
    ----------
    model : VaryingCoefficient
    tree : xarray.DataTree
        From :func:`bayes_moe.curves.sample`, which has done this already; left as it is.

    Returns
    -------
    xarray.DataTree
        A copy with the group ``relabelled``: the curves, and ``permutation`` (chain, draw, expert), such that expert i
        of the group is expert ``permutation[..., i]`` of the raw draw. With three components or more the default prior
        treats the gate's reference, component 0, unlike others; the draws are permuted all the same.

    References
    ----------
    Papastamoulis and Iliopoulos (2010).
    """
    posterior = tree["posterior"].to_dataset()
    flat = flat_curves(tree["posterior"], model)
    order = np.tile(np.arange(model.components), (len(flat), 1))
    if model.components > 1 and exchangeable(model):
        lp = tree["sample_stats"]["lp"].transpose("chain", "draw").values.ravel()
        order = labelling.ecr(allocations(model, tree), model.components, int(lp.argmax()))
        level = by_name(model, permute(model, flat, order[:, None]).mean(axis=(0, 1)))
        middle = data_of(model, tree).z.mean(axis=1)  # intercepts alone would depend on where z has its zero
        order = order[:, np.argsort(level["alpha"] @ middle, kind="stable")]
    named = by_name(model, permute(model, flat, order[:, None]))
    group = xr.Dataset(coords=posterior.coords, attrs=dict(posterior.attrs))
    shape = posterior.sizes["chain"], posterior.sizes["draw"]
    for name, values in ((name, values) for name, values in named.items() if values.size):
        group[name] = posterior[name].copy(data=values.reshape(*shape, *values.shape[1:]))
    group["permutation"] = ("chain", "draw", "expert"), order.reshape(*shape, -1)
    out = tree.copy()
    out["relabelled"] = xr.DataTree(group)
    return out


def exchangeable(model: VaryingCoefficient) -> bool:
    """Whether ``constant`` lets components be renumbered: what is constant is so in all of them."""
    constant = by_name(model, model.select(model.constant))
    return all((mask == mask[:1]).all() for mask in constant.values())


@float64
def allocations(model: VaryingCoefficient, tree: xr.DataTree) -> np.ndarray:
    """Likeliest component of each observation in each draw, (draws, n), observations as in the user's rows."""
    smooth, data = smooth_of(model, tree), data_of(model, tree)
    rows = smooth.basis.rows(np.asarray(data.u))
    by_u = np.asarray(jitted(_allocations)(smooth, _sites(smooth, tree), data, rows))
    return by_u[:, np.argsort(data.order)]


def _allocations(smooth: SmoothModel, draws: Params, data: IndexedObservations, rows: Array) -> Array:
    def one(values: Params) -> Array:
        joint = smooth.model.log_joint(smooth.coefficients(values, rows, data.subject), data)
        return jnp.argmax(joint, axis=0)

    return jax.lax.map(one, draws, batch_size=BATCH)


def filled(model: VaryingCoefficient, tree: xr.DataTree, threshold: float = labelling.FILLED) -> xr.DataArray:
    """Number of components in each draw that observations are allocated to: at least this share of them.

    An observation is allocated to its likeliest component. Under :func:`bayes_moe.curves.sparse_gate`, and with more
    components than are needed, the distribution over draws tells how many the data need.

    Parameters
    ----------
    model : VaryingCoefficient
    tree : xarray.DataTree
        From :func:`bayes_moe.curves.sample`.
    threshold : float
        Share of the observations.

    Returns
    -------
    xarray.DataArray, dims (chain, draw)
        See :func:`bayes_moe.draws.relabel.by_chain`: chains that differ have not mixed over it.
    """
    allocated, posterior = allocations(model, tree), tree["posterior"]
    shares = np.stack([(allocated == c).mean(axis=1) for c in range(model.components)], axis=-1)
    shape = posterior.sizes["chain"], posterior.sizes["draw"]
    coords = {"chain": posterior["chain"], "draw": posterior["draw"], "expert": np.arange(model.components)}
    return labelling.above(xr.DataArray(_unstacked(shares, shape), coords, list(coords)), threshold)


# For ArviZ -----------------------------------------------------------------------------------------------------

TAKEN = {"alpha": "alpha_u"}  # ArviZ 1.3 has a dim ``alpha`` for the powers of its sensitivity analysis


def for_sensitivity(tree: xr.DataTree) -> xr.DataTree:
    """Return a copy in which ``alpha`` is called ``alpha_u``, for ``az.plot_psense_dist`` and its like.

    ArviZ lays draws of several powers of prior and likelihood along a dim that it calls ``alpha``; no variable of the
    posterior may have that name.

    Parameters
    ----------
    tree : xarray.DataTree
        From :func:`bayes_moe.curves.sample`, with ``log_likelihood=True``; left as it is.

    Examples
    --------
    >>> az.plot_psense_dist(curve_draws.for_sensitivity(tree), var_names=["alpha_u"], coords={"grid": [0.5]})
    """
    out = tree.copy()
    for name in ("posterior", "relabelled"):
        if name in out.children:
            group = out[name].to_dataset()
            out[name] = xr.DataTree(group.rename({old: new for old, new in TAKEN.items() if old in group}))
    return out


# Other quantities ----------------------------------------------------------------------------------------------


@float64
def invariants(model: VaryingCoefficient, tree: xr.DataTree) -> xr.Dataset:
    """Quantities of each draw that do not depend on labels, to pass to :func:`bayes_moe.draws.diagnostics.check`.

    Parameters
    ----------
    model : VaryingCoefficient
    tree : xarray.DataTree
        From :func:`bayes_moe.curves.sample`.

    Returns
    -------
    xarray.Dataset, dims (chain, draw, ...)
        ``log_likelihood``, its sum; ``log_density``, log p(y | x, z, u) of a few observations along u; ``sorted_alpha``
        and ``sorted_delta``, the curves' averages over the grid, each coefficient's in ascending order of components;
        with subjects ``subject_sd``, and ``subject_intercept`` of a few.
    """
    smooth, data = smooth_of(model, tree), data_of(model, tree)
    rows = smooth.basis.rows(np.asarray(data.u))
    densities = np.asarray(jitted(_log_densities)(smooth, _sites(smooth, tree), data, rows))
    probes = np.linspace(0, data.n - 1, PROBES).astype(int)
    averages = by_name(model, flat_curves(tree["posterior"], model).mean(axis=1))
    found = {"log_likelihood": densities.sum(axis=1), "log_density": densities[:, probes]}
    found |= {f"sorted_{name}": np.sort(value, axis=1) for name, value in averages.items() if name != "beta"}
    if smooth.subjects:
        some = np.linspace(0, smooth.subjects - 1, min(PROBES, smooth.subjects)).astype(int)
        shared = flat_variables(tree["posterior"].dataset, ["subject_sd", "subject_intercept"])
        found |= {"subject_sd": shared["subject_sd"], "subject_intercept": shared["subject_intercept"][:, some]}
    shape = tree["posterior"].sizes["chain"], tree["posterior"].sizes["draw"]
    return xr.Dataset(
        {
            name: (("chain", "draw", *(f"{name}_{axis}" for axis in range(value.ndim - 1))), _unstacked(value, shape))
            for name, value in found.items()
        },
        {name: tree["posterior"].coords[name] for name in ("chain", "draw")},
    )


def _unstacked(value: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return value.reshape(*shape, *value.shape[1:])


def _log_densities(smooth: SmoothModel, draws: Params, data: IndexedObservations, rows: Array) -> Array:
    def one(values: Params) -> Array:
        return smooth.model.log_densities(smooth.coefficients(values, rows, data.subject), data)

    return jax.lax.map(one, draws, batch_size=BATCH)


@float64
def at(model: VaryingCoefficient, tree: xr.DataTree, u: object) -> dict[str, np.ndarray]:
    """Coefficients at any u in every draw, components numbered as in ``relabelled``.

    Parameters
    ----------
    model : VaryingCoefficient
    tree : xarray.DataTree
        From :func:`bayes_moe.curves.sample`.
    u : array-like, shape (m,)
        In the user's units, within the range of the data.

    Returns
    -------
    dict of str to ndarray
        Draws of all chains in a row, then a row for each u: ``alpha`` (draws, m, C, 1 + q).

    Raises
    ------
    ValueError
        If u is not finite, or leaves the range: coefficients are not extrapolated.
    """
    smooth = smooth_of(model, tree)
    rows = smooth.basis.rows(scale_points(u, ends_of(tree)))
    flat = np.asarray(jitted(_curves)(smooth, _sites(smooth, tree), rows))
    order = tree["relabelled"]["permutation"].values.reshape(len(flat), 1, -1)
    return by_name(model, permute(model, flat, order))


def _curves(smooth: SmoothModel, draws: Params, rows: Array) -> Array:
    def one(values: Params) -> Array:
        parts = smooth.coefficients(values, rows)
        return jnp.concatenate([part.reshape(-1, rows.shape[1]) for part in parts.values()]).T

    return jax.lax.map(one, draws, batch_size=BATCH)
