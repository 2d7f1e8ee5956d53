"""Leave-one-out cross-validation when the pointwise log likelihood does not fit in memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import arviz_base
import arviz_stats as azs
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from arviz_stats.utils import ELPDDataLOO
from jax import Array

from bayes_moe.ground.compilation import compiled, memory_named
from bayes_moe.ground.data import Covariates, check_count, float64, same_rows
from bayes_moe.ground.parameters import Params
from bayes_moe.ground.tables import row_labels
from bayes_moe.model import origin
from bayes_moe.model.moe import MoE
from bayes_moe.nuts import datatree

NUMBERS = 2**24  # of the log likelihood held at once: 128 MiB
LEAST = 25  # draws: ArviZ fits a Pareto tail to a fifth of them, and needs five
BATCH = 50  # draws evaluated side by side


@float64
@memory_named()
def loo(
    moe: MoE, idata: xr.DataTree, x: object, y: object, *, rows: int | None = None, conditional: bool = False
) -> ELPDDataLOO:
    """PSIS leave-one-out cross-validation, some observations at a time.

    The numbers of ``az.loo`` on a posterior with a ``log_likelihood`` group, of which only a slice exists at a time.

    Parameters
    ----------
    moe : MoE
    idata : xarray.DataTree
        From :func:`bayes_moe.nuts.sample`; needs the ``posterior`` group alone.
    x : array-like, shape (n, d)
    y : array-like, shape (n,)
        The data of that posterior.
    rows : int, optional
        Observations at a time; as many as need 128 MiB by default.
    conditional : bool
        Of log p(y | x), every x kept and one y left out at a time, also where a Gaussian gate models x: to be compared
        with regressions of y on x. By default of what the likelihood is of, (x, y) with a Gaussian gate.

    Returns
    -------
    arviz_stats.utils.ELPDDataLOO
        With ``elpd_i`` and ``pareto_k`` of each observation, for ``az.compare``.

    Raises
    ------
    ValueError
        For bad data, draws of another model or other data, fewer than 25 draws in all, or ``rows`` below one.

    References
    ----------
    Vehtari, Gelman and Gabry (2017); Vehtari, Simpson, Gelman, Yao and Gabry (2024).

    Examples
    --------
    >>> idata = nuts.sample(moe, x, y, rng_key=0)
    >>> loo(moe, idata, x, y)
    """
    posterior = origin.check_model(moe, idata)
    covariates = moe.prepare(x)
    index = same_rows(x=covariates, y=y)
    codes = np.asarray(moe.check_y(y, covariates.n))
    origin.check_data(idata, covariates, codes)
    chains, length = posterior.sizes["chain"], posterior.sizes["draw"]
    if chains * length < LEAST:
        raise ValueError(
            f"idata must have at least {LEAST} draws, all chains together, got {chains * length}. Raise num_samples."
        )
    rows = max(1, NUMBERS // (chains * length)) if rows is None else check_count("rows", rows)
    draws = jax.tree.map(jnp.asarray, datatree.flat_variables(posterior, moe.fields))
    pointwise, tables = CONDITIONAL if conditional else LIKELIHOOD, []
    for first in range(0, covariates.n, rows):
        part = jax.tree.map(lambda a, s=first: jnp.asarray(a[..., s : s + rows]), covariates)
        arguments = (draws, moe, part, jnp.asarray(codes[first : first + rows]))
        values = np.asarray(compiled(pointwise, *arguments)(*arguments)).reshape(chains, length, -1)
        tables.append(_loo_of(posterior, values))
    elpd_i, lppd_i, pareto_k = (np.concatenate(column) for column in zip(*tables, strict=True))
    good_k = min(1 - 1 / np.log10(chains * length), 0.7)
    elpd, p = float(elpd_i.sum()), float((lppd_i - elpd_i).sum())
    observed = origin.group(idata, "observed_data")
    names = observed["obs_id"].values if "obs_id" in observed else row_labels(index, covariates.n)
    coords = {"obs_id": names}
    return ELPDDataLOO(
        elpd=elpd,
        se=float(np.sqrt(covariates.n * np.var(elpd_i, ddof=1))),
        p=p,
        n_samples=chains * length,
        n_data_points=covariates.n,
        scale="log",
        warning=bool((pareto_k > good_k).any()),
        good_k=good_k,
        elpd_i=xr.DataArray(elpd_i, coords, ["obs_id"]),
        pareto_k=xr.DataArray(pareto_k, coords, ["obs_id"]),
    )


def _pointwise(density: Callable[..., Array], draws: Params, moe: MoE, covariates: Covariates, codes: Array) -> Array:
    """Log density of each draw and observation, (draws, n)."""
    data = moe.condition(covariates, codes)
    return jax.lax.map(lambda params: density(moe, params, data), draws, batch_size=BATCH)


# Made once, since compiled code is kept by the identity of the function.
LIKELIHOOD, CONDITIONAL = partial(_pointwise, MoE.log_densities), partial(_pointwise, MoE.log_conditional)


def _loo_of(posterior: xr.Dataset, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ArviZ's elpd_i, the log of the mean density, and Pareto k, of some observations."""
    part = arviz_base.from_dict({"log_likelihood": {"y": values}})
    part["posterior"] = xr.DataTree(posterior)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of large Pareto k: the whole's are returned
        found = azs.loo(part, pointwise=True)
    lppd = np.logaddexp.reduce(values, axis=(0, 1)) - np.log(values.shape[0] * values.shape[1])
    return found.elpd_i.values, lppd, found.pareto_k.values
