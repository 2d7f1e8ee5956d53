"""How many experts: information criteria of maximum-likelihood fits, the smaller the better."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import xlogy

from bayes_moe import parameters
from bayes_moe.data import float64
from bayes_moe.moe import MoE
from mle.fit import Fit
from mle.objective import Objective

CRITERIA = ("aic", "bic", "icl")


@float64
def criteria(moe: MoE, fit: Fit, x: object, y: object, *, weights: object | None = None) -> dict[str, float]:
    """AIC, BIC and ICL of a fit.

    With log likelihood l, P free parameters, n observations (their total weight) and responsibilities r,

        AIC = 2 P - 2 l,   BIC = P log n - 2 l,   ICL = BIC - 2 sum_in r_in log r_in.

    AIC and BIC assume a regular model; with spare experts the information is singular, and both are heuristics.

    Parameters
    ----------
    moe : MoE
    fit : Fit
    x, y : array-like
        The data of the fit.
    weights : array-like, optional
        As in the fit.

    Returns
    -------
    dict of str to float
        Also ``log_likelihood`` and ``parameters``, the count P.

    Raises
    ------
    ValueError
        If the data are not those of the fit.

    References
    ----------
    Akaike (1974); Schwarz (1978); Biernacki, Celeux and Govaert (2000) for ICL.
    """
    data = moe.observe(x, y, weights)
    Objective(moe, data).check_fit(np.asarray(parameters.flatten(moe.fields, fit.params)), fit.log_likelihood)
    count, total = parameters.size(moe.fields), data.n if data.weights is None else float(data.weights.sum())
    r = moe.responsibilities(fit.params, np.asarray(data.x).T, y)
    entropy = -xlogy(r, r).sum(axis=1)
    bic = count * np.log(total) - 2 * fit.log_likelihood
    return {
        "aic": 2 * count - 2 * fit.log_likelihood,
        "bic": bic,
        "icl": bic + 2 * float(np.sum(entropy if data.weights is None else data.weights * entropy)),
        "log_likelihood": fit.log_likelihood,
        "parameters": count,
    }


def best(table: Mapping[int, Mapping[str, float]]) -> dict[str, int]:
    """Number of experts that each criterion chooses.

    Parameters
    ----------
    table : mapping of int to mapping
        Number of experts -> what :func:`criteria` says of its fit.

    Returns
    -------
    dict of str to int
    """
    return {name: min(table, key=lambda count: table[count][name]) for name in CRITERIA}
