"""How many experts: information criteria of maximum-likelihood fits, the smaller the better."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import jax
import numpy as np
from jax import Array
from scipy.special import xlogy

from bayes_moe.ground import parameters
from bayes_moe.ground.data import Observations, float64
from bayes_moe.model.moe import MoE
from mle.optimise.fit import Fit
from mle.optimise.problem import pose

CRITERIA = ("aic", "bic", "icl")
MAXIMA = ("maximum", "at a bound", "flat")  # statuses of fits whose likelihood is a maximum, if not an interior one


class NoMaximum(UserWarning):
    """A criterion is asked for at a fit that is no maximum of its likelihood."""


@float64
def criteria(moe: MoE, fit: Fit, x: object, y: object, *, weights: object | None = None) -> dict[str, float | str]:
    """AIC, BIC and ICL of a fit.

    With log likelihood l, P free parameters, n observations (their total weight) and responsibilities r,

        AIC = 2 P - 2 l,   BIC = P log n - 2 l,   ICL = BIC - 2 sum_in r_in log r_in.

    AIC and BIC assume a regular model; with spare experts the information is singular, and both are heuristics. All
    three compare maxima: of a fit that is none, as where it has not converged or ended at a saddle, the status says so
    and :class:`NoMaximum` warns. A maximum inside bounds or floors is one, and so is one that is flat.

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
    dict of str to float or str
        Also ``log_likelihood``, ``parameters``, the count P, and ``status``, the fit's.

    Raises
    ------
    ValueError
        If the data are not those of the fit.

    References
    ----------
    Akaike (1974); Schwarz (1978); Biernacki, Celeux and Govaert (2000) for ICL.
    """
    objective = pose(moe, x, y, weights)
    free, data = np.asarray(parameters.flatten(moe.fields, fit.params)), objective.data
    objective.check_fit(free, fit.log_likelihood)
    if not fit.status.startswith(MAXIMA):
        remedy = "Compare maxima: raise max_iter or n_init, use fewer experts, or set bounds."
        warnings.warn(
            f"criteria of a fit that is no maximum ({fit.status}) mean little. {remedy}", NoMaximum, stacklevel=3
        )
    count, total = parameters.size(moe.fields), objective.total
    r = np.asarray(objective.call(_responsibilities, free))
    entropy = -xlogy(r, r).sum(axis=0)
    bic = count * np.log(total) - 2 * fit.log_likelihood
    return {
        "aic": 2 * count - 2 * fit.log_likelihood,
        "bic": bic,
        "icl": bic + 2 * float(np.sum(entropy if data.weights is None else data.weights * entropy)),
        "log_likelihood": fit.log_likelihood,
        "parameters": count,
        "status": fit.status,
    }


def _responsibilities(free: Array, moe: MoE, data: Observations) -> Array:
    return jax.nn.softmax(moe.log_joint(parameters.unflatten(moe.fields, free), data), axis=0)


def best(table: Mapping[int, Mapping[str, float | str]]) -> dict[str, int]:
    """Number of experts that each criterion chooses, among fits that are maxima if there are any.

    Parameters
    ----------
    table : mapping of int to mapping
        Number of experts -> what :func:`criteria` says of its fit.

    Returns
    -------
    dict of str to int
    """
    proper = [count for count, row in table.items() if str(row.get("status", MAXIMA[0])).startswith(MAXIMA)]
    return {name: min(proper or table, key=lambda count: table[count][name]) for name in CRITERIA}
