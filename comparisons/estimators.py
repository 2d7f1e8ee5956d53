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


LADDER: tuple[dict[str, object], ...] = (
    {},
    {"num_warmup": 2, "num_samples": 2, "target_accept_prob": 0.95},
    {"num_warmup": 4, "num_samples": 4, "target_accept_prob": 0.99, "dense_mass": True},
)


def posterior(moe: MoE, x: np.ndarray, y: np.ndarray, rng_key: Array, settings: Mapping[str, object]) -> Estimate:
    """NUTS, judged by the sampling gate; what fails climbs the ladder, what still fails is marked, not dropped."""
    for attempt, rung in enumerate(LADDER):
        idata = nuts.sample(
            moe,
            x,
            y,
            rng_key=jax.random.fold_in(rng_key, attempt),
            progress_bar=False,
            **_climb(settings, rung),
        )
        verdict = diagnostics.check(idata)
        if verdict.passed:
            break
    sampled = idata["posterior"].dataset.stack(sample=("chain", "draw")).transpose("sample", ...)
    info = {
        "attempt": attempt,
        "verdict": str(verdict),
        "divergences": verdict.divergences,
        "max_rhat": verdict.max_rhat,
        "min_ess": min(verdict.min_ess_bulk, verdict.min_ess_tail),
    }
    draws = {name: sampled[name].values for name in moe.fields}
    return Estimate(draws, "ok" if verdict.passed else "failed_gate", info)


def _climb(settings: Mapping[str, object], rung: Mapping[str, object]) -> dict[str, object]:
    lengths = {name: int(settings[name] * rung.get(name, 1)) for name in ("num_warmup", "num_samples")}
    return {**settings, **rung, **lengths}


ESTIMATORS: dict[str, Callable[..., Estimate]] = {"mle": mle, "nuts": posterior}


@float64
def mean(draws: Draws) -> dict[str, np.ndarray]:
    """Posterior mean of each parameter; the estimate itself for one draw."""
    return {name: values.mean(axis=0) for name, values in draws.items()}
