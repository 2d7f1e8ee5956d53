"""From outcomes to rows of one long table. No ratio for a method whose posterior disagrees with ours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import arviz_stats as azs
import numpy as np
import xarray as xr

from bayes_moe.draws.diagnostics import MAX_RHAT, MIN_ESS_PER_CHAIN
from comparisons.peers import scipy_em
from comparisons.peers.jobs import Outcome
from comparisons.peers.mle_race import SAME
from comparisons.peers.problem import Problem, coordinates

MAX_Z = 4.0  # posterior means further apart than this many Monte Carlo standard errors disagree
FAR = 100.0  # a coordinate beyond this is on its way to infinity
THIN = 10  # log likelihoods are computed for every tenth draw


@dataclass(frozen=True)
class Row:
    """One measured quantity: median and range over the repeats.

    Parameters
    ----------
    part, case, method, quantity, unit : str
    median, low, high : float
        NaN where there is no number, and ``note`` says why.
    repeats : int
    note : str
    """

    part: str
    case: str
    method: str
    quantity: str
    unit: str
    median: float
    low: float
    high: float
    repeats: int
    note: str = ""


def row(head: tuple[str, str, str], quantity: str, unit: str, values: Iterable[float], note: str = "") -> Row:
    """Summarise the repeats of one quantity."""
    found = np.array([v for v in values if np.isfinite(v)])
    summary = (np.median(found), found.min(), found.max()) if found.size else (np.nan,) * 3
    return Row(*head, quantity, unit, *map(float, summary), len(found), note)


def rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """Every quantity of every part."""
    out = []
    for part, case in dict.fromkeys((o.job.part, o.job.case) for o in outcomes):
        mine = [o for o in outcomes if (o.job.part, o.job.case) == (part, case)]
        by_method = {
            name: [o for o in mine if o.job.method == name] for name in dict.fromkeys(o.job.method for o in mine)
        }
        out += _PARTS[part](part, case, by_method)
    return out


def dataset(draws: np.ndarray) -> xr.Dataset:
    """(chain, draw, quantity) as ArviZ takes it."""
    return xr.Dataset({"q": (("chain", "draw", "quantity"), draws)})


def smallest_ess(draws: np.ndarray, method: str = "bulk") -> float:
    """Smallest effective sample size over the coordinates."""
    return float(azs.ess(dataset(draws), method=method)["q"].min())


def converged(draws: np.ndarray) -> bool:
    """Whether R-hat, bulk and tail ESS of every coordinate pass the thresholds of our sampling gate."""
    least = MIN_ESS_PER_CHAIN * len(draws)
    rhat = float(azs.rhat(dataset(draws))["q"].max())
    return rhat < MAX_RHAT and min(smallest_ess(draws, "bulk"), smallest_ess(draws, "tail")) >= least


def moments(problem: Problem, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and their Monte Carlo standard errors: each coordinate's, and the log likelihood's.

    The log likelihood is the same for all labels and has light tails where the coordinates' are heavy.
    """
    thinned = draws[:, ::THIN]
    likelihood = np.apply_along_axis(lambda free: scipy_em.log_likelihood(problem, free), 2, thinned)
    pieces = [_mean(draws), _mean(likelihood[..., None])]
    means, errors = zip(*pieces, strict=True)
    return np.concatenate(means), np.concatenate(errors)


def _mean(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return draws.mean(axis=(0, 1)), azs.mcse(dataset(draws), method="mean")["q"].values


def disagreement(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> float:
    """Largest difference of two sets of means, in standard errors of the difference."""
    return float(np.max(np.abs(one[0] - other[0]) / np.hypot(one[1], other[1])))


def _alive(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [o for o in outcomes if not o.error]


def _failed(head: tuple[str, str, str], outcomes: Sequence[Outcome]) -> list[Row]:
    return [row(head, "failed", "", [], next(o.error for o in outcomes if o.error))]


def _posterior(part: str, case: str, by_method: dict[str, list[Outcome]]) -> list[Row]:
    rates = {name: [_rate(o) for o in _alive(found)] for name, found in by_method.items()}
    out = []
    for name, found in by_method.items():
        head, alive = (part, case, name), _alive(found)
        if len(alive) < len(found):
            out += _failed(head, found)
            continue
        passed = [_passed(o) for o in alive]
        note = f"{'sampling gate' if name == 'ours' else 'R-hat and ESS'}: {sum(passed)} of {len(passed)} pass"
        out.append(row(head, "min-ESS per second", "1/s", rates[name], note))
        out.append(row(head, "run", "s", [float(o.arrays["run"]) for o in alive]))
        out.append(row(head, "compile", "s", [float(o.arrays["compile"]) for o in alive]))
        if name != "ours" and by_method["ours"] and not any(o.error for o in by_method["ours"]):
            out += _ratio(head, rates["ours"], rates[name], _difference(by_method["ours"], found))
    return out


@cache  # these are asked after every job, for all jobs so far
def _rate(outcome: Outcome) -> float:
    return smallest_ess(coordinates(outcome.arrays)) / float(outcome.arrays["run"])


@cache
def _passed(outcome: Outcome) -> bool:
    given = outcome.arrays.get("passed")
    return converged(coordinates(outcome.arrays)) if given is None else bool(given)


def _difference(ours: list[Outcome], others: list[Outcome]) -> float:
    """Largest difference of means, over the data sets that both have run: the last round may be under way."""
    count = min(len(ours), len(others))
    return disagreement(*(_average([_moments(o) for o in found[:count]]) for found in (ours, others)))


@cache
def _moments(outcome: Outcome) -> tuple[np.ndarray, np.ndarray]:
    return moments(outcome.job.problems[0], coordinates(outcome.arrays))


def _average(each: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Means averaged over data sets, with their errors: one sharp comparison in place of many blunt ones."""
    means, errors = map(np.array, zip(*each, strict=True))
    return means.mean(axis=0), np.sqrt((errors**2).sum(axis=0)) / len(each)


def _ratio(head: tuple[str, str, str], top: Sequence[float], bottom: Sequence[float], z: float) -> list[Row]:
    """How many times as fast ours is, in each repeat; or the word "disagrees"."""
    agreement = row(head, "largest difference of means", "MCSE", [z])
    if not z <= MAX_Z:
        return [agreement, row(head, "ratio", "x", [], f"disagrees (z = {z:.1f})")]
    return [
        agreement,
        row(head, "ratio", "x", [a / b for a, b in zip(top, bottom, strict=False)]),
    ]  # the last round may be under way


def _first(part: str, case: str, by_method: dict[str, list[Outcome]]) -> list[Row]:
    def rows(head: tuple[str, str, str], found: list[Outcome]) -> list[Row]:
        return [
            row(head, "call, compilation included", "s", _calls(found)),
            row(head, "whole process, imports included", "s", [o.process for o in found]),
        ]

    return _beside_ours(part, case, by_method, rows, _difference)


def _beside_ours(
    part: str,
    case: str,
    by_method: dict[str, list[Outcome]],
    rows: Callable[..., list[Row]],
    difference: Callable[..., float],
) -> list[Row]:
    """Rows of each method, and the ratio of its whole calls to ours where the means agree."""
    out = []
    for name, found in by_method.items():
        head = (part, case, name)
        if any(o.error for o in found):
            out += _failed(head, found)
            continue
        out += rows(head, found)
        ours = by_method["ours"]
        if name != "ours" and not any(o.error for o in ours):
            out += _ratio(head, _calls(found), _calls(ours), difference(ours, found))
    return out


def _calls(outcomes: Sequence[Outcome]) -> list[float]:
    """Seconds of whole calls, compilation included."""
    return [float(o.arrays["compile"] + o.arrays["run"]) for o in outcomes]


def _likelihood(part: str, case: str, by_method: dict[str, list[Outcome]]) -> list[Row]:
    found = by_method["ours"]
    if any(o.error for o in found):
        return _failed((part, case, "ours"), found)
    out = []
    for i, n in enumerate(found[0].arrays["sizes"]):
        times = {name: [float(o.arrays[name][i]) for o in found] for name in ("ours", "jax", "numba")}
        out += [row((part, f"n = {n:,}", name), "value and gradient", "s", values) for name, values in times.items()]
        for limit in ("bandwidth", "transcendental"):
            values = [float(n * o.arrays[limit]) for o in found]
            out.append(row((part, f"n = {n:,}", limit), "limit", "s", values))
        best = np.minimum(times["jax"], times["numba"])
        ratios = np.array(times["ours"]) / best
        out.append(row((part, f"n = {n:,}", "ours"), "over the faster fused kernel", "x", ratios))
    return out


def _mle(part: str, case: str, by_method: dict[str, list[Outcome]]) -> list[Row]:
    found = by_method["ours"]
    if any(o.error for o in found):
        return _failed((part, case, "ours"), found)
    a = {name: np.concatenate([np.atleast_1d(o.arrays[name]) for o in found]) for name in found[0].arrays}
    gap = (a["ours_value"] - a["em_value"]) / np.abs(a["em_value"])
    worse, ahead, far = gap < -SAME, gap > SAME, a["em_largest"] > FAR
    note = (
        f"{len(gap)} data sets: same optimum {len(gap) - worse.sum() - ahead.sum()}, ours better {ahead.sum()}, "
        f"ours worse {worse.sum()} (with EM's at infinity in {(worse & far).sum()}); "
        f"EM converged from every start in {a['em_converged'].sum()}; "
        f"ours certifies a maximum in {a['ours_maximum'].sum()}"
    )
    same = np.abs(gap) <= SAME
    return [
        row((part, case, "ours"), "all starts", "s", a["ours_seconds"]),
        row((part, case, "ours"), "compile", "s", a["compile"]),
        row((part, case, "EM, BFGS M-steps"), "all starts", "s", a["em_seconds"]),
        row((part, case, "EM, BFGS M-steps"), "ratio, same optimum", "x", (a["em_seconds"] / a["ours_seconds"])[same]),
        row((part, case, "EM, BFGS M-steps"), "ratio", "x", a["em_seconds"] / a["ours_seconds"], note),
    ]


def _many(part: str, case: str, by_method: dict[str, list[Outcome]]) -> list[Row]:
    def rows(head: tuple[str, str, str], found: list[Outcome]) -> list[Row]:
        return [
            row(head, "total, compilation included", "s", _calls(found)),
            row(head, "compile", "s", [float(o.arrays["compile"]) for o in found]),
        ]

    def difference(ours: list[Outcome], others: list[Outcome]) -> float:
        return disagreement(_mean_of_all(ours), _mean_of_all(others))

    return _beside_ours(part, case, by_method, rows, difference)


def _mean_of_all(outcomes: Sequence[Outcome]) -> tuple[np.ndarray, np.ndarray]:
    each = []
    for i in range(len(outcomes[0].arrays["tau"])):
        fits = [coordinates({name: o.arrays[name][i] for name in ("tau", "beta", "eta")}) for o in outcomes]
        each.append(_mean(np.concatenate(fits)))
    return _average(each)


_PARTS = {"posterior": _posterior, "first": _first, "likelihood": _likelihood, "mle": _mle, "many": _many}
