"""Credible bands of coefficient curves, in the same object as the confidence bands of ``mle.kernel.bands``."""

from __future__ import annotations

import xarray as xr

from bayes_moe.curves.draws import flat_curves
from bayes_moe.varying.bands import Bands, Centre, check_level, critical
from bayes_moe.varying.model import VaryingCoefficient


def bands(model: VaryingCoefficient, tree: xr.DataTree, *, level: float = 0.95, simultaneous: bool = True) -> Bands:
    """Bands around the posterior mean that hold a whole curve, or each of its points, with this posterior probability.

    mean(u) +- c sd(u). Simultaneous: c is the ``level`` quantile over draws of max_u |draw(u) - mean(u)| / sd(u), for
    each curve; pointwise: that of |draw(u) - mean(u)| / sd(u), at each u.

    Parameters
    ----------
    model : VaryingCoefficient
    tree : xarray.DataTree
        From :func:`bayes_moe.curves.sample`; curves are taken from its group ``relabelled``.
    level : float
    simultaneous : bool
        Over the grid.

    Returns
    -------
    Bands

    Raises
    ------
    ValueError
        For a level outside (0, 1), or fewer than two draws.

    References
    ----------
    Ruppert, Wand and Carroll (2003), section 6.5, for the supremum.
    """
    check_level(level)
    draws = flat_curves(tree["relabelled"], model)
    if len(draws) < 2:
        raise ValueError(f"tree must have at least 2 draws for bands, got {len(draws)}. Raise num_samples.")
    centre, sd = draws.mean(axis=0), draws.std(axis=0, ddof=1)
    c = critical(draws, centre, sd, level, simultaneous)
    fit = Centre(model, tree["relabelled"]["grid"].values, centre)
    return Bands(fit, level, simultaneous, "credible", sd, c, draws=draws)
