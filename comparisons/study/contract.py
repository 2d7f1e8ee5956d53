"""The contract of an estimator: a problem, a key and settings in; draws with a leading axis, and how the fit went, out.

A maximum-likelihood estimate is one draw, so ``vmap(loss)(draws, truth)`` is estimation error or posterior contraction
by the same line. What samples climbs a ladder of settings until the sampling gate is passed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
import xarray as xr
from jax import Array

from bayes_moe import MoE
from bayes_moe.draws import diagnostics
from bayes_moe.ground.data import float64
from bayes_moe.varying.model import VaryingCoefficient

Draws = dict[str, np.ndarray]
LEVEL = 0.95  # nominal coverage of every interval
FAILED = ("error", "crashed", "timeout")  # statuses that say that there is no result
ATTEMPTS = 3  # rungs of the ladder; a study may set fewer
LADDER = ("num_warmup", "num_samples")  # settings that it climbs


class Problem(NamedTuple):
    """What an estimator is given. Only the published protocol, starts near the truth, looks at the truth."""

    moe: MoE | VaryingCoefficient
    x: np.ndarray | tuple[np.ndarray, ...]
    y: np.ndarray
    truth: dict[str, np.ndarray]


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
    intervals : dict of str to ndarray, optional
        With a trailing axis (low, high), at 95%; None where there are none.
    profile : dict of str to ndarray, optional
        Profile-likelihood intervals, likewise.
    """

    draws: Draws
    status: str
    info: dict[str, object]
    intervals: dict[str, np.ndarray] | None = None
    profile: dict[str, np.ndarray] | None = None


Estimator = Callable[[Problem, Array, Mapping[str, object]], Estimate]


def ladder(
    sample: Callable[..., xr.DataTree],
    judge: Callable[[xr.DataTree], diagnostics.Verdict],
    rng_key: Array,
    settings: Mapping[str, object],
) -> tuple[xr.DataTree, list[diagnostics.Verdict]]:
    """Sample and judge, rung by rung, until the gate is passed or the attempts are used up.

    Parameters
    ----------
    sample : callable
        From ``rng_key`` and the settings of a rung to draws.
    judge : callable
    rng_key : JAX key
    settings : mapping
        Of the first rung, and ``attempts``.
    """
    verdicts: list[diagnostics.Verdict] = []
    rest = {name: value for name, value in settings.items() if name != "attempts"}
    for attempt in range(settings.get("attempts", ATTEMPTS)):
        rung = climb(rest, attempt, verdicts[-1] if verdicts else None)
        idata = sample(rng_key=jax.random.fold_in(rng_key, attempt), **rung)
        verdicts.append(judge(idata))
        if verdicts[-1].passed:
            break
    return idata, verdicts


def account(verdicts: Sequence[diagnostics.Verdict]) -> dict[str, object]:
    """What the ladder found, as plain numbers."""
    last = verdicts[-1]
    return {
        "attempt": len(verdicts) - 1,
        "verdicts": [str(verdict) for verdict in verdicts],
        "divergences": last.divergences,
        "max_rhat": last.max_rhat,
        "min_ess": min(last.min_ess_bulk, last.min_ess_tail),
    }


def credible(draws: Draws) -> dict[str, np.ndarray]:
    """Equal-tailed intervals of each coordinate."""
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    return {name: np.moveaxis(np.quantile(values, tails, axis=0), 0, -1) for name, values in draws.items()}


def climb(settings: Mapping[str, object], attempt: int, last: diagnostics.Verdict | None) -> dict[str, object]:
    """Settings of an attempt.

    (0) As given; (1) twice the draws, and where the geometry was at fault (divergences, low E-BFMI) smaller steps and
    twice the warm-up; (2) four times both, steps smaller still, dense mass matrix. The target acceptance rises to
    0.95 or half of the way to 1, then to 0.99 or nine tenths of the way, whichever is higher.
    """
    warmup, draws = settings["num_warmup"], settings["num_samples"]
    rejected = 1 - settings.get("target_accept_prob", 0.8)
    if attempt == 0:
        return dict(settings)
    if attempt == ATTEMPTS - 1:
        steps = {"num_warmup": 4 * warmup, "target_accept_prob": max(0.99, round(1 - rejected / 10, 6))}
        return {**settings, **steps, "num_samples": 4 * draws, "dense_mass": True}
    geometry = last.divergences > 0 or last.min_ebfmi < diagnostics.MIN_EBFMI
    steps = {"num_warmup": 2 * warmup, "target_accept_prob": max(0.95, round(1 - rejected / 2, 6))}
    return {**settings, **(steps if geometry else {}), "num_samples": 2 * draws}


@float64
def mean(draws: Draws) -> dict[str, np.ndarray]:
    """Posterior mean of each parameter; the estimate itself for one draw."""
    return {name: values.mean(axis=0) for name, values in draws.items()}
