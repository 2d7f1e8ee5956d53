"""Relabelling: which expert is which, draw by draw. The raw draws stay; relabelled ones are a group of their own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array
from scipy.optimize import linear_sum_assignment

from bayes_moe.data import Observations, check_count, float64
from bayes_moe.moe import MoE
from bayes_moe.parameters import Params

METHODS = ("ecr", "order", "stephens")
MAX_ITER = 100  # passes over the draws; each method stops at a fixed point, usually after a few
FILLED = 0.01  # weight from which an expert counts as filled


@float64
def relabel(
    moe: MoE,
    idata: xr.DataTree,
    x: object = None,
    y: object = None,
    *,
    method: str = "ecr",
    by: str = "c",
    thin: int = 1,
) -> xr.DataTree:
    """Permute the experts of each draw so that their labels mean the same in all.

    Parameters
    ----------
    moe : MoE
        With a generative gate, whose experts are exchangeable.
    idata : xarray.DataTree
        From :func:`bayes_moe.nuts.sample`; left as it is.
    x, y : array-like
        The data, for "ecr" and "stephens".
    method : "ecr", "order" or "stephens"
        "ecr": each draw's allocation of the observations is matched to that of the draw with the highest log density,
        the pivot, and then to the most frequent allocation so found, until it stays. "order": by the first coordinate
        of ``by``. "stephens": least Kullback-Leibler divergence of the responsibilities from their mean.
    by : str
        A parameter, for "order".
    thin : int
        "ecr" and "stephens" look at every thin-th observation.

    Returns
    -------
    xarray.DataTree
        A copy with the group ``relabelled``: the posterior's variables, and ``permutation`` (chain, draw, expert), such
        that expert i of the group is expert ``permutation[..., i]`` of the raw draw.

    Raises
    ------
    ValueError
        For an unknown method, missing or bad data, ``thin`` below one, or a model whose experts are not exchangeable.

    References
    ----------
    Papastamoulis and Iliopoulos (2010) for ECR; Stephens (2000).
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
    if not moe.gate.generative:
        raise ValueError("relabel is for exchangeable experts; a frozen expert or a reference has its label already.")
    if method != "order" and (x is None or y is None):
        raise ValueError(f"x and y are needed for method {method!r}; 'order' does without.")
    thin = check_count("thin", thin)
    posterior = idata["posterior"].to_dataset()
    shape = posterior.sizes["chain"], posterior.sizes["draw"]
    draws = {
        n: posterior[n].transpose("chain", "draw", ...).values.reshape(-1, *f.shape) for n, f in moe.fields.items()
    }
    if method == "order":
        order = by_order(draws, by)
    else:
        data = jax.tree.map(lambda a: jnp.asarray(a[..., ::thin]), moe.observe(x, y))
        share = np.asarray(_shares(moe, jax.tree.map(jnp.asarray, draws), data))  # (draws, n, experts)
        lp = idata["sample_stats"]["lp"].transpose("chain", "draw").values.ravel()
        order = ecr(share.argmax(axis=2), share.shape[2], int(lp.argmax())) if method == "ecr" else stephens(share)
    return _with_group(idata, posterior, moe, order.reshape(*shape, -1))


def by_order(draws: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Permutations that sort the first coordinate of a parameter, (draws, experts)."""
    if name not in draws:
        raise ValueError(f"by must be a parameter, one of {', '.join(draws)}, got {name!r}.")
    values = draws[name]
    return np.argsort(values.reshape(*values.shape[:2], -1)[..., 0], axis=1, kind="stable")


def ecr(allocations: np.ndarray, experts: int, pivot: int) -> np.ndarray:
    """Equivalence-classes representatives: match allocations to a pivot's, then to their own consensus.

    Parameters
    ----------
    allocations : ndarray of int, shape (draws, n)
        The likeliest expert of each observation.
    experts : int
    pivot : int
        The draw to match first.

    Returns
    -------
    ndarray of int, shape (draws, experts)
        Permutations: new label i is raw label ``order[draw, i]``.
    """
    target, order = allocations[pivot], None
    for _ in range(MAX_ITER):
        new = np.array([match(_overlap(target, row, experts)) for row in allocations])
        if order is not None and np.array_equal(new, order):
            break
        order = new
        inverse = np.argsort(order, axis=1)
        relabelled = np.take_along_axis(inverse, allocations, axis=1)
        target = np.argmax([(relabelled == i).sum(axis=0) for i in range(experts)], axis=0)
    return order


def stephens(share: np.ndarray) -> np.ndarray:
    """Stephens' algorithm: permutations that bring the responsibilities nearest to their mean.

    Minimises sum_draws sum_in r_in log(r_in / mean r_in) by turns, mean and permutations.

    Parameters
    ----------
    share : ndarray, shape (draws, n, experts)

    Returns
    -------
    ndarray of int, shape (draws, experts)
    """
    experts = share.shape[2]
    order = np.tile(np.arange(experts), (len(share), 1))
    for _ in range(MAX_ITER):
        mean = np.take_along_axis(share, order[:, None, :], axis=2).mean(axis=0)
        log_mean = np.log(np.maximum(mean, 1e-300))
        new = np.array([match(log_mean.T @ r) for r in share])  # the entropy of r is the same for every permutation
        if np.array_equal(new, order):
            break
        order = new
    return order


def filled(idata: xr.DataTree, threshold: float = FILLED) -> xr.DataArray:
    """Number of filled experts in each draw: those with pi_i of at least ``threshold``.

    Its distribution over draws is the posterior of the number of experts under a sparse prior on ``pi``.

    Parameters
    ----------
    idata : xarray.DataTree
    threshold : float

    Returns
    -------
    xarray.DataArray, dims (chain, draw)

    References
    ----------
    Malsiner-Walli, Frühwirth-Schnatter and Grün (2016).
    """
    return above(idata["posterior"]["pi"], threshold)


def above(weights: xr.DataArray, threshold: float = FILLED) -> xr.DataArray:
    """Number of experts in each draw whose weight (chain, draw, expert) reaches the threshold, (chain, draw)."""
    return (weights >= threshold).sum("expert").rename("filled")


def number_of_experts(idata: xr.DataTree, threshold: float = FILLED) -> xr.DataArray:
    """Posterior of the number of filled experts, by chain: chains that differ have not mixed over it.

    Parameters
    ----------
    idata : xarray.DataTree
    threshold : float
        See :func:`filled`.

    Returns
    -------
    xarray.DataArray, dims (chain, experts)
        Share of the chain's draws with so many filled experts, 1 to all; average over chains for the posterior.
    """
    return by_chain(filled(idata, threshold), idata["posterior"].sizes["expert"])


def by_chain(counts: xr.DataArray, experts: int) -> xr.DataArray:
    """Share of each chain's draws with 1, ..., ``experts`` filled ones, (chain, experts), from the numbers filled."""
    numbers = xr.DataArray(np.arange(1, experts + 1), dims="experts")
    shares = (counts == numbers).mean("draw").transpose("chain", "experts")
    return shares.assign_coords(experts=numbers.values).rename("number_of_experts")


def match(gain: np.ndarray) -> np.ndarray:
    """Raw label for each new label, with the largest total gain (new, raw).

    Parameters
    ----------
    gain : ndarray, shape (experts, experts)
        What each pair is worth.

    Returns
    -------
    ndarray of int, shape (experts,)
    """
    return linear_sum_assignment(gain, maximize=True)[1]


def _overlap(target: np.ndarray, row: np.ndarray, experts: int) -> np.ndarray:
    return np.bincount(target * experts + row, minlength=experts**2).reshape(experts, experts)


@jax.jit
def _shares(moe: MoE, draws: Params, data: Observations) -> Array:
    return jax.lax.map(lambda params: jax.nn.softmax(moe.log_joint(params, data), axis=0).T, draws)


def _with_group(idata: xr.DataTree, posterior: xr.Dataset, moe: MoE, order: np.ndarray) -> xr.DataTree:
    index = xr.DataArray(order, dims=("chain", "draw", "expert"), coords=posterior["pi"].coords)
    group = xr.Dataset(coords=posterior.coords, attrs=dict(posterior.attrs))
    for name in moe.fields:
        values = posterior[name].transpose("chain", "draw", "expert", ...)
        taken = np.take_along_axis(values.values, order.reshape(*order.shape, *[1] * (values.ndim - 3)), axis=2)
        group[name] = values.copy(data=taken)
    out = idata.copy()
    out["relabelled"] = xr.DataTree(group.assign(permutation=index))
    return out
