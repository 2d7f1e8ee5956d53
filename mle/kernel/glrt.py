"""Generalised likelihood-ratio test of coefficients that are constant in u, or zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from bayes_moe.ground.data import float64
from bayes_moe.varying.indexed import IndexedObservations
from mle.kernel import bootstrap as curve_bootstrap
from mle.kernel import kernel_em
from mle.kernel import plan as curve_plan
from mle.kernel.fit import CurveFit
from mle.kernel.plan import Plan

METHODS = ("bootstrap", "chi-square")
LOWER = 0.1  # log likelihood by which a fit must be below another of the same model to be refused


class Unsound(ValueError):  # noqa: N818 - what a fit is, as its ``unsound`` says
    """A fit whose log likelihood is none to test."""


@dataclass(frozen=True)
class Result:
    """A generalised likelihood-ratio test.

    Parameters
    ----------
    statistic : float
        lambda = log likelihood of the full fit minus that of the null fit, each coefficient at the observation's own u.
    p_value : float
    monte_carlo_error : float
        Standard error of ``p_value`` over bootstrap replicates; zero for the chi-square.
    method : "bootstrap" or "chi-square"
    null : CurveFit
        The fit under the hypothesis.
    degrees : float
        Degrees of freedom of the chi-square.
    draws : ndarray
        lambda of each bootstrap replicate; infinite for those that failed, which count against rejection.
    """

    statistic: float
    p_value: float
    monte_carlo_error: float
    method: str
    null: CurveFit
    degrees: float
    draws: np.ndarray

    @property
    def failed(self) -> int:
        """How many bootstrap replicates failed."""
        return int(np.isinf(self.draws).sum())

    def __str__(self) -> str:
        """Statistic and p-value."""
        error = f" +- {self.monte_carlo_error:.2g}" if self.method == "bootstrap" else ""
        failed = f", {self.failed} refits failed" if self.failed else ""
        return f"lambda = {self.statistic:.4g}, p = {self.p_value:.4g}{error} ({self.method}{failed})"


@float64
def test(
    fit: CurveFit,
    *,
    constant: Sequence[str] = (),
    zero: Sequence[str] = (),
    method: str = "bootstrap",
    replicates: int = 200,
    random_state: int | np.random.Generator | None = None,
    workers: int | None = None,
) -> Result:
    """Test that coefficients are constant in u, or zero, against curves.

    lambda = l(full) - l(null), both local linear with the fit's bandwidth. Bootstrap: responses are drawn from the null
    fit and both models fitted again; p = (1 + #{lambda_b >= lambda}) / (1 + B). Chi-square: r_K lambda has about
    delta = r_K p (K(0) - int K^2 / 2) / h degrees of freedom, for p coefficients and u on [0, 1].

    Parameters
    ----------
    fit : CurveFit
        The full model.
    constant, zero : sequence of str
        The hypothesis: names as in ``varying_coefficient(constant=...)``. What depends on how experts are numbered
        (one expert's coefficient) is about the fit's numbering.
    method : "bootstrap" or "chi-square"
    replicates : int
    random_state : int or Generator
        Needed for the bootstrap.
    workers : int, optional
        Threads; by default one for each core.

    Returns
    -------
    Result

    Raises
    ------
    Unsound
        A ValueError: if the fit, or that under the hypothesis, did not converge or has a collapsed expert; or if the
        fit is at a lower maximum than one that begins at the hypothesis' curves.
    ValueError
        For an empty hypothesis, unknown coefficients or bad settings.

    References
    ----------
    Fan, Zhang and Zhang (2001), "Generalized likelihood ratio statistics and Wilks phenomenon"; arXiv:2601.01699.

    Examples
    --------
    >>> print(glrt.test(fit, constant=["alpha[:,1]"], random_state=0))
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
    full, null = curve_plan.plan_of(fit), null_plan(fit, constant, zero)
    _check_sound(fit, "fit")
    null_fit = _fit(null, fit.data, fit.theta)
    _check_sound(null_fit, "fit under the hypothesis")
    statistic = fit.log_likelihood - null_fit.log_likelihood
    if statistic < 0:
        _check_highest(fit, _fit(full, fit.data, null_fit.theta))
    tested = fit.model.select([*constant, *zero], "constant").sum()
    r_k, c_k = fit.kernel.glrt_constants
    degrees = float(r_k * tested * c_k / fit.h)
    if method == "chi-square":
        p = float(stats.chi2.sf(r_k * max(statistic, 0.0), degrees))
        return Result(statistic, p, 0.0, method, null_fit, degrees, np.zeros(0))
    curve_bootstrap.check_replicates(replicates)

    def refit(data: IndexedObservations) -> float:
        _, large = kernel_em.estimate(full, data, null_fit.theta, sweep=True, order=False)
        _, small = kernel_em.estimate(null, data, large.theta, sweep=True, order=False)
        return float(large.log_likelihood - small.log_likelihood)

    key = curve_bootstrap.root_key(random_state)
    draws = np.array(curve_bootstrap.run(null_fit, null.windows, refit, replicates, key, workers))
    draws = np.where(np.isfinite(draws), draws, np.inf)
    p = float((1 + (draws >= statistic).sum()) / (1 + replicates))
    return Result(statistic, p, float(np.sqrt(p * (1 - p) / (1 + replicates))), method, null_fit, degrees, draws)


def _check_sound(fit: CurveFit, what: str) -> None:
    if fit.unsound:
        raise Unsound(
            f"{what} must have converged, without a collapsed expert, for its log likelihood to be tested, got: "
            f"{fit.unsound}."
        )


def _check_highest(fit: CurveFit, other: CurveFit) -> None:
    """Refuse a fit below one of the same model that begins elsewhere."""
    gain = other.log_likelihood - fit.log_likelihood
    if gain > LOWER and not other.unsound:
        raise Unsound(
            f"fit must be the highest known, got one {gain:.4g} below what a fit from the hypothesis' curves reaches. "
            "Fit again with more starts (n_init), or with init=."
        )


def null_plan(fit: CurveFit, constant: Sequence[str], zero: Sequence[str]) -> Plan:
    """Plan of the null model: more coefficients constant, or held at zero."""
    both = fit.model.select(constant) & fit.model.select(zero, "zero")
    if not (len(constant) or len(zero)):
        raise ValueError("constant or zero must name a coefficient to test, got neither.")
    if both.any():
        raise ValueError(f"zero must not repeat what constant names, got {np.array(fit.model.labels)[both].tolist()}.")
    if (~fit.free[: fit.model.size] & fit.model.select([*constant, *zero])).any():
        raise ValueError("constant and zero must name coefficients that vary in the fit, got some that it holds.")
    model = replace(fit.model, constant=(*fit.model.constant, *constant))
    return replace(curve_plan.plan_of(fit), model=model).holding(dict.fromkeys(zero, 0.0))


def _fit(plan: Plan, data: IndexedObservations, theta: np.ndarray) -> CurveFit:
    used, solved = kernel_em.estimate(plan, data, theta, sweep=True, order=False)
    return kernel_em.describe(plan, data, used, solved, np.zeros(0))
