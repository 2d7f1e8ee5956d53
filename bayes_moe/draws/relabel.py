"""Relabelling: which expert is which, draw by draw. The raw draws stay; relabelled ones are a group of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array
from scipy.optimize import linear_sum_assignment

from bayes_moe.ground.data import Observations, check_count, float64
from bayes_moe.ground.parameters import Params
from bayes_moe.model import origin
from bayes_moe.model.moe import MoE
from bayes_moe.nuts.datatree import flat_variables

METHODS = ("ecr", "order", "stephens")
MAX_ITER = 100  # passes over the draws; each method stops at a fixed point, usually after a few
NUMBERS = 2**23  # responsibilities held at once: 64 MiB
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
    """Permute the exchangeable experts of each draw so that their labels mean the same in all.

    Parameters
    ----------
    moe : MoE
        With exchangeable experts: a Gaussian gate, or several adapters beside a frozen expert, which are permuted among
        themselves.
    idata : xarray.DataTree
        From :func:`bayes_moe.nuts.sample`, or some of its chains or draws; left as it is.
    x, y : array-like
        The data, for "ecr" and "stephens".
    method : "ecr", "order" or "stephens"
        "ecr": each draw's allocation of the observations is matched to that of the draw with the highest log density,
        the pivot, and then to the most frequent allocation so found, until it stays. "order": by the first coordinate
        of ``by``. "stephens": least Kullback-Leibler divergence of the responsibilities from their mean. Both are
        allocations and responsibilities among the exchangeable experts alone.
    by : str
        A parameter, for "order".
    thin : int
        "ecr" and "stephens" look at every thin-th observation.

    Returns
    -------
    xarray.DataTree
        A copy with the group ``relabelled``: the posterior's variables, and ``permutation`` (chain, draw, expert) or
        (chain, draw, adapter), such that expert i of the group is expert ``permutation[..., i]`` of the raw draw.

    Raises
    ------
    ValueError
        For an unknown method, missing or bad data, ``thin`` below one, a model whose experts are not exchangeable,
        draws of another model, or data other than those that they were made with.

    References
    ----------
    Papastamoulis and Iliopoulos (2010) for ECR; Stephens (2000).
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
    if method != "order" and (x is None or y is None):
        raise ValueError(f"x and y are needed for method {method!r}; 'order' does without.")
    thin = check_count("thin", thin)
    posterior = origin.check_exchangeable("relabel", moe, idata)
    draws = flat_variables(posterior, moe.fields)
    if method == "order":
        order = by_order(draws, by)
    else:
        shares = Shares(moe, draws, _data(moe, idata, x, y, thin))
        order = stephens(shares) if method == "stephens" else ecr(shares.allocations(), shares.experts, _pivot(idata))
    return _with_group(idata, posterior, moe, order.reshape(posterior.sizes["chain"], posterior.sizes["draw"], -1))


def _data(moe: MoE, idata: xr.DataTree, x: object, y: object, thin: int) -> Observations:
    """Every thin-th observation, after a look at whether they are the tree's own."""
    covariates = moe.prepare(x)
    origin.check_data(idata, covariates, moe.check_y(y, covariates.n))
    return jax.tree.map(lambda a: jnp.asarray(a[..., ::thin]), moe.observe(covariates, y))


def _pivot(idata: xr.DataTree) -> int:
    """Position of the likeliest draw."""
    stats = origin.group(idata, "sample_stats", needed=True)
    if "lp" not in stats:
        raise ValueError("idata must hold the log density lp in sample_stats for method 'ecr'. Use 'stephens'.")
    return int(origin.with_dims(stats[["lp"]])["lp"].values.argmax())


@dataclass(frozen=True)
class Shares:
    """Responsibilities of the exchangeable experts in each draw, some draws at a time: all at once need gigabytes.

    Parameters
    ----------
    moe : MoE
    draws : dict of str to ndarray
        With one leading axis.
    data : Observations
    """

    moe: MoE
    draws: dict[str, np.ndarray]
    data: Observations

    @property
    def experts(self) -> int:
        """How many experts are exchangeable."""
        return len(self.moe.exchangeable)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Slices (some draws, n, experts), in order; computed anew each time."""
        count = len(next(iter(self.draws.values())))
        step = min(count, max(1, NUMBERS // (self.data.n * self.experts)))
        for first in range(0, count, step):
            rows = np.arange(first, first + step).clip(max=count - 1)  # of one length: another would compile again
            part = {name: jnp.asarray(values[rows]) for name, values in self.draws.items()}
            yield np.asarray(_shares(self.moe, part, self.data))[: count - first]

    def allocations(self) -> np.ndarray:
        """The likeliest expert of each observation in each draw, (draws, n), a byte or two each."""
        return np.concatenate([share.argmax(axis=2).astype(np.min_scalar_type(self.experts)) for share in self])


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
        counts = np.zeros((experts, allocations.shape[1]), dtype=np.int64)
        for row, inverse in zip(allocations, np.argsort(order, axis=1), strict=True):
            counts[inverse[row], np.arange(len(row))] += 1
        target = counts.argmax(axis=0)
    return order


def stephens(shares: np.ndarray | Iterable[np.ndarray]) -> np.ndarray:
    """Stephens' algorithm: permutations that bring the responsibilities nearest to their mean.

    Minimises sum_draws sum_in r_in log(r_in / mean r_in) by turns, mean and permutations.

    Parameters
    ----------
    shares : ndarray, shape (draws, n, experts), or iterable of such of some draws at a time
        Gone through twice for each turn.

    Returns
    -------
    ndarray of int, shape (draws, experts)
    """
    parts = [shares] if isinstance(shares, np.ndarray) else shares
    order = np.concatenate([np.tile(np.arange(part.shape[2]), (len(part), 1)) for part in parts])
    for _ in range(MAX_ITER):
        rows, total = iter(order), 0.0
        for part in parts:
            total = total + sum(r[:, o] for r, o in zip(part, rows, strict=False))
        log_mean = np.log(np.maximum(total / len(order), 1e-300))
        # The entropy of r is the same for every permutation.
        new = np.array([match(log_mean.T @ r) for part in parts for r in part])
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
    return above(_weights(idata), threshold)


def _weights(idata: xr.DataTree) -> xr.DataArray:
    posterior = origin.group(idata, "posterior", needed=True)
    if "pi" not in posterior:
        raise ValueError(f"idata must hold weights pi, as of a Gaussian gate, got {', '.join(posterior.data_vars)}.")
    return origin.with_dims(posterior)["pi"]


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
    return by_chain(filled(idata, threshold), _weights(idata).sizes["expert"])


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
    pairs = target.astype(np.intp) * experts + row
    return np.bincount(pairs, minlength=experts**2).reshape(experts, experts)


@jax.jit
def _shares(moe: MoE, draws: Params, data: Observations) -> Array:
    where = np.array(moe.exchangeable)
    return jax.lax.map(lambda params: jax.nn.softmax(moe.log_joint(params, data)[where], axis=0).T, draws)


def _with_group(idata: xr.DataTree, posterior: xr.Dataset, moe: MoE, order: np.ndarray) -> xr.DataTree:
    dim = next(iter(moe.fields.values())).dims[0]
    group = xr.Dataset(coords=posterior.coords, attrs=dict(posterior.attrs))
    for name in moe.fields:
        values = posterior[name].transpose("chain", "draw", dim, ...)
        taken = np.take_along_axis(values.values, order.reshape(*order.shape, *[1] * (values.ndim - 3)), axis=2)
        group[name] = values.copy(data=taken)
    out = idata.copy()
    out["relabelled"] = xr.DataTree(group.assign(permutation=(("chain", "draw", dim), order)))
    return out
