"""Both estimators behind one contract: draws with a leading axis, and a record of how the fit went.

A maximum-likelihood estimate is one draw, so ``vmap(loss)(draws, truth)`` is estimation error or posterior contraction
by the same line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import numpy as np
from jax import Array

from bayes_moe import MoE, diagnostics, nuts
from bayes_moe.data import float64
from mle import newton

Draws = dict[str, np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """What an estimator returns.

    Parameters
    ----------
    draws : dict of str to ndarray
        Parameter arrays with a leading axis of draws.
    status : str
        "ok", or what went wrong.
    info : dict
        Plain numbers and strings about the fit.
    """

    draws: Draws
    status: str
    info: dict[str, object]


def mle(moe: MoE, x: np.ndarray, y: np.ndarray, rng_key: Array, settings: Mapping[str, object]) -> Estimate:
    """Maximum likelihood by Newton steps from data-driven random starts, inside a box of half-width ``bound``."""
    bounds = {name: (-settings["bound"], settings["bound"]) for name in moe.fields}
    seed = np.asarray(jax.random.key_data(rng_key)).tolist()
    fit = newton.fit(
        moe,
        x,
        y,
        n_init=settings["n_init"],
        random_state=np.random.default_rng(seed),
        bounds=bounds,
        tol=1e-7,
    )
    info = {
        "log_likelihood": fit.log_likelihood,
        "replicated": fit.certificate.replicated,
        "at_bounds": len(fit.certificate.at_bounds),
        "certificate": fit.status,
    }
    status = "ok" if fit.certificate.stationary else "not stationary"
    return Estimate({name: value[None] for name, value in fit.params.items()}, status, info)


ATTEMPTS = 3  # rungs of the ladder; a study may set fewer


def posterior(moe: MoE, x: np.ndarray, y: np.ndarray, rng_key: Array, settings: Mapping[str, object]) -> Estimate:
    """NUTS, judged by the sampling gate; what fails climbs the ladder, what still fails is marked, not dropped."""
    verdicts: list[diagnostics.Verdict] = []
    rest = {name: value for name, value in settings.items() if name != "attempts"}
    for attempt in range(settings.get("attempts", ATTEMPTS)):
        rung = climb(rest, attempt, verdicts[-1] if verdicts else None)
        idata = nuts.sample(moe, x, y, rng_key=jax.random.fold_in(rng_key, attempt), progress_bar=False, **rung)
        verdicts.append(diagnostics.check(idata))
        if verdicts[-1].passed:
            break
    last = verdicts[-1]
    sampled = idata["posterior"].dataset.stack(sample=("chain", "draw")).transpose("sample", ...)
    info = {
        "attempt": attempt,
        "verdicts": [str(verdict) for verdict in verdicts],
        "divergences": last.divergences,
        "max_rhat": last.max_rhat,
        "min_ess": min(last.min_ess_bulk, last.min_ess_tail),
    }
    return Estimate({name: sampled[name].values for name in moe.fields}, "ok" if last.passed else "failed_gate", info)


def climb(settings: Mapping[str, object], attempt: int, last: diagnostics.Verdict | None) -> dict[str, object]:
    """Settings of an attempt.

    (0) As given; (1) twice the draws, and where the geometry was at fault (divergences, low E-BFMI) smaller steps and
    twice the warm-up; (2) four times both, steps smaller still, dense mass matrix.
    """
    warmup, draws = settings["num_warmup"], settings["num_samples"]
    if attempt == 0:
        return dict(settings)
    if attempt == ATTEMPTS - 1:
        steps = {"num_warmup": 4 * warmup, "target_accept_prob": 0.99, "dense_mass": True}
        return {**settings, **steps, "num_samples": 4 * draws}
    geometry = last.divergences > 0 or last.min_ebfmi < diagnostics.MIN_EBFMI
    steps = {"num_warmup": 2 * warmup, "target_accept_prob": 0.95} if geometry else {}
    return {**settings, **steps, "num_samples": 2 * draws}


ESTIMATORS: dict[str, Callable[..., Estimate]] = {"mle": mle, "nuts": posterior}


@float64
def mean(draws: Draws) -> dict[str, np.ndarray]:
    """Posterior mean of each parameter; the estimate itself for one draw."""
    return {name: values.mean(axis=0) for name, values in draws.items()}
