"""Estimators of coefficient curves for studies: kernel estimates with bands and test, and the posterior with bands."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import jax
import numpy as np
from jax import Array
from scipy.interpolate import CubicSpline

from bayes_moe.curves import credible
from bayes_moe.curves import draws as curve_draws
from bayes_moe.curves import posterior as curves
from bayes_moe.draws import diagnostics
from bayes_moe.ground.data import float64
from bayes_moe.ground.parameters import Params
from bayes_moe.nuts.datatree import flat_draws
from bayes_moe.nuts.modes import generator
from bayes_moe.varying.bands import Bands
from comparisons.curves.regimes import GRID, HYPOTHESIS
from comparisons.study import knobs
from comparisons.study.contract import LADDER, Estimate, Problem, account, ladder
from comparisons.study.estimators import SAMPLER
from mle.kernel import bands, glrt, kernel_em
from mle.kernel import plan as curve_plan
from mle.kernel.fit import CurveFit
from mle.kernel.sandwich import standard_errors

LEVELS = (0.90, 0.95)
CONSTANTS = ("rice", "fan-zhang", "package")
UNBIASED = "less smooth, of the smoothed truth"
OURS = ("undersmooth", "sandwiches", "bootstrap", "glrt", "from")  # settings that are not the fit's own


FIT = knobs.keywords(kernel_em.fit, ("h", "size", "u_range", "grid", "random_state", "init"))


@knobs.known(["h", "undersmooth", "sandwiches", "bootstrap", "glrt"], FIT)
@float64
def kernel(problem: Problem, rng_key: Array, settings: Mapping[str, object]) -> Estimate:
    """Kernel estimate with asymptotic bands at its bandwidth and below it, and on request bootstrap bands and the test.

    Settings are those of :func:`mle.kernel.kernel_em.fit`, and: ``undersmooth``, the share of h at which bands are
    fitted again; ``sandwiches``, those of the asymptotic bands; ``bootstrap`` and ``glrt``, replicates of each, 0 for
    neither.
    """
    rng = generator(rng_key)
    fit = fitted(problem, settings, random_state=rng)
    narrow = fitted(problem, settings, h=settings["undersmooth"] * settings["h"], init=fit.params)
    info = {"verdict_less_smooth": narrow.status}
    aims = {"less smooth": problem.truth, UNBIASED: smoothed(problem.truth, narrow)}
    for sandwich in settings["sandwiches"]:
        info |= _asymptotic(fit, narrow, sandwich, problem.truth, aims)
    info |= _bootstrapped(narrow, settings["bootstrap"], rng, aims) | tested(fit, settings["glrt"], rng)
    return _estimate(fit, info)


@knobs.known(["h", "glrt"], FIT)
@float64
def likelihood_ratio(problem: Problem, rng_key: Array, settings: Mapping[str, object]) -> Estimate:
    """Kernel estimate and nothing but the test, which ``glrt`` replicates bootstrap."""
    rng = generator(rng_key)
    fit = fitted(problem, settings, random_state=rng)
    return _estimate(fit, tested(fit, settings["glrt"], rng))


@knobs.known(["h", "from"], FIT)
@float64
def shrinking(problem: Problem, rng_key: Array, settings: Mapping[str, object]) -> Estimate:
    """Kernel estimate whose bandwidth is ``h`` at n = ``from`` and falls as n^-1/3."""
    h = settings["h"] * (len(problem.y) / settings["from"]) ** (-1 / 3)
    return _estimate(fitted(problem, settings, h=h, random_state=generator(rng_key)), {"h": h})


def fitted(problem: Problem, settings: Mapping[str, object], **others: object) -> CurveFit:
    """Kernel estimate on the studies' grid, with settings of :func:`mle.kernel.kernel_em.fit` and others."""
    model, (x, z, u, size), y, _ = problem
    given = {name: value for name, value in settings.items() if name not in OURS}
    options = {**given, "size": size, "u_range": (0.0, 1.0), "grid": GRID, **others}
    return kernel_em.fit(model, x, z, u, y, **options)


def _estimate(fit: CurveFit, info: dict[str, object]) -> Estimate:
    about = {"log_likelihood": fit.log_likelihood, "iterations": fit.n_iter, "verdict": fit.status}
    status = "ok" if fit.converged.all() else "not converged"
    return Estimate({name: value[None] for name, value in fit.params.items()}, status, about | info)


def _asymptotic(
    fit: CurveFit, narrow: CurveFit, sandwich: str, truth: Params, aims: Mapping[str, Params]
) -> dict[str, object]:
    """With every constant, and with Rice's at the smaller bandwidth, where the curves to hold have names."""
    out, errors, fewer = {}, *(standard_errors(one, sandwich) for one in (fit, narrow))
    for level in LEVELS:
        for constant in CONSTANTS:
            band = bands.from_errors(fit, errors, level=level, constant=constant)
            out |= judged(band, f"{constant}, {sandwich}", truth)
        band = bands.from_errors(narrow, fewer, level=level)
        for name, aim in aims.items():
            out |= judged(band, f"rice, {sandwich}, {name}", aim)
    return out


def _bootstrapped(
    fit: CurveFit, replicates: int, rng: np.random.Generator, aims: Mapping[str, Params]
) -> dict[str, object]:
    if not replicates:
        return {}
    draws, problems = bands.replicate_curves(fit, rng, replicates, workers=1)
    out = {"bootstrap_problems": "; ".join(problems)}
    for level in LEVELS:
        band = bands.from_replicates(fit, draws, level=level)
        for name, aim in aims.items():
            out |= judged(band, f"bootstrap, {name}", aim)
    return out


def smoothed(truth: Params, fit: CurveFit) -> dict[str, np.ndarray]:
    """Local-linear smooth of true curves at a fit's observations and bandwidth: to leading order what it estimates.

    Bands that hold it, but not the truth, miss the truth for the smoothing bias only.

    Parameters
    ----------
    truth : dict of str to ndarray
        On the fit's grid, a row for each point.
    fit : CurveFit
    """
    cut = curve_plan.plan_of(fit).windows
    basis = np.stack([np.ones_like(cut.t), cut.t], axis=-1)
    weighted = np.asarray(cut.w)[..., None] * basis
    normal = np.einsum("gma,gmb->gab", weighted, basis)

    def smooth(curves: np.ndarray) -> np.ndarray:
        flat = curves.reshape(len(fit.grid), -1)
        seen = CubicSpline(fit.grid, flat)(fit.data.u)[cut.index]
        return np.linalg.solve(normal, np.einsum("gma,gmp->gap", weighted, seen))[:, 0].reshape(curves.shape)

    return {name: smooth(curves) for name, curves in truth.items()}


def tested(fit: CurveFit, replicates: int, rng: np.random.Generator) -> dict[str, object]:
    """p-values of the hypothesis that the experts' slopes are constant: chi-square, and with replicates bootstrap.

    Where a fit is none to test there is no p-value, and ``glrt_refused`` says why: tables count such data sets.
    """
    methods = {"chi-square": {}} | ({"bootstrap": {"replicates": replicates}} if replicates else {})
    try:
        return {
            f"p_{method}": glrt.test(
                fit, constant=[HYPOTHESIS], method=method, random_state=rng, workers=1, **options
            ).p_value
            for method, options in methods.items()
        }
    except glrt.Unsound as refused:
        return {"glrt_refused": str(refused)}


def judged(band: Bands, kind: str, truth: Params) -> dict[str, float]:
    """Of each coefficient's band, whether it holds a whole curve, and its mean width; keys name kind and level.

    Where the local information is singular a band would be infinitely wide and hold everything: it counts as missing.

    Parameters
    ----------
    band : Bands
        Simultaneous, on the regime's grid.
    kind : str
    truth : dict of str to ndarray
        Of each coefficient, the curve to hold.
    """
    inside, widths = band.covers(truth), 2 * band.half.mean(axis=0)
    out = {f"missing {kind} {band.level:g}": float((~np.isfinite(widths)).mean())}
    for label, one, width in zip(band.fit.model.labels, inside, widths, strict=True):
        if np.isfinite(width):
            out |= {f"holds {kind} {band.level:g} {label}": float(one), f"width {kind} {band.level:g} {label}": width}
    return out


@knobs.known(LADDER, ["basis", "n_init", *SAMPLER])
@float64
def posterior(problem: Problem, rng_key: Array, settings: Mapping[str, object]) -> Estimate:
    """Posterior of the curves, judged by the gate on label-free quantities; the estimate is its mean."""
    model, (x, z, u, size), y, _ = problem
    sample = partial(curves.sample, model, x, z, u, y, size=size, u_range=(0.0, 1.0), grid=GRID, progress_bar=False)

    def judge(tree: object) -> diagnostics.Verdict:
        return diagnostics.check(tree, curve_draws.invariants(model, tree))

    tree, verdicts = ladder(sample, judge, rng_key, settings)
    info = account(verdicts)
    for level in LEVELS:
        info |= judged(credible.bands(model, tree, level=level), "credible", problem.truth)
    draws = jax.tree.map(np.asarray, flat_draws(tree["relabelled"], model))
    return Estimate(draws, "ok" if verdicts[-1].passed else "failed_gate", info)
