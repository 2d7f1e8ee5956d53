"""What an estimator must return, checked after each fit: what breaks the contract is an error of that cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields as fields_of

import numpy as np

from bayes_moe.varying.model import VaryingCoefficient
from comparisons.study.contract import FAILED, Estimate
from comparisons.study.plan import Cell, Regime

MEASURED = ("error_", "loss_", "radius_", "spread_", "cover_", "width_", "profile_cover_", "profile_width_")
# What every row has besides: its cell, its outcome, where and when it was computed.
RESERVED = {field.name for field in fields_of(Cell)} | {"id", "study", "status", "error"}
RESERVED |= {"seconds", "finished", "process", "threads", "peak_memory_mib", "commit", "dirty", "system", "machine"}
RESERVED |= {"device", "cores", "xla_flags"}
VERSIONS = "version_"
NUMBERS = ("likelihood_ratio", "log_likelihood", "at_bounds", "attempt")  # what tables read of info, where it is there


def check(estimate: object, estimator: str, regime: Regime, truth: Mapping[str, np.ndarray]) -> Estimate:
    """Return what an estimator gave, its draws and intervals as arrays.

    Raises
    ------
    ValueError
        If it is no :class:`Estimate`, or has parameters, shapes, a status or names of info that can't be kept.
    """
    if not isinstance(estimate, Estimate):
        raise ValueError(
            f"the estimator {estimator!r} must return an Estimate(draws, status, info), got {type(estimate).__name__}."
        )
    _check_status(estimate.status)
    _check_info(estimate.info)
    shapes = _shapes(regime, truth)
    draws = _check_draws(estimate.draws, shapes)
    known = {name: np.shape(value) for name, value in truth.items()}
    intervals, profile = (_check_intervals(name, getattr(estimate, name), known) for name in ("intervals", "profile"))
    return Estimate(draws, estimate.status, dict(estimate.info), intervals, profile)


def _shapes(regime: Regime, truth: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """Shape of each parameter of one draw; coefficients that are curves have a row for each point of the truth's."""
    if isinstance(regime.moe, VaryingCoefficient):
        return {name: np.shape(truth[name]) for name in regime.moe.fields}
    return {name: field.shape for name, field in regime.moe.fields.items()}


def _check_status(status: object) -> None:
    if not isinstance(status, str) or not status.strip() or not status.isprintable():
        raise ValueError(f'an estimate\'s status must be "ok" or a text that says what went wrong, got {status!r}.')
    if status in FAILED:
        raise ValueError(f"an estimate's status must not be {status!r}, which says that there is none. Raise an error.")


def _check_info(info: object) -> None:
    if not isinstance(info, Mapping) or not all(isinstance(name, str) for name in info):
        raise ValueError(f"an estimate's info must be a dict with texts for names, got {info!r:.200}.")
    taken = [name for name in info if name in RESERVED or name.startswith((*MEASURED, VERSIONS))]
    if taken:
        raise ValueError(
            f"an estimate's info has reserved names: {', '.join(taken)}. They would overwrite what the study itself "
            f"says of a fit. Rename them; {', '.join(sorted(RESERVED))} and names that begin with "
            f"{', '.join((*MEASURED, VERSIONS))} are the study's."
        )
    for name in NUMBERS:
        if name in info and not (np.ndim(info[name]) == 0 and np.asarray(info[name]).dtype.kind in "fiub"):
            raise ValueError(
                f"an estimate's info {name!r} must be a number, which tables read, got {info[name]!r:.100}."
            )


def _check_draws(draws: object, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    arrays = _arrays("draws", draws)
    if set(arrays) != set(shapes):
        raise ValueError(f"an estimate's draws must have the parameters {', '.join(shapes)}, got {', '.join(arrays)}.")
    counts = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    for name, array in arrays.items():
        if not counts[name] or array.shape[1:] != shapes[name]:
            raise ValueError(
                f"an estimate's draws of {name} must have a leading axis of draws and shape (draws, "
                f"{', '.join(map(str, shapes[name]))}), got {array.shape}. A single estimate is one draw: value[None]."
            )
    if len(set(counts.values())) > 1:
        raise ValueError(f"an estimate's draws must be as many of each parameter, got {counts}.")
    return {name: arrays[name] for name in shapes}


def _check_intervals(
    what: str, intervals: object, known: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray] | None:
    if intervals is None:
        return None
    arrays = _arrays(what, intervals)
    for name, array in arrays.items():
        if name not in known:
            raise ValueError(f"an estimate's {what} are of {name!r}; parameters with a truth are {', '.join(known)}.")
        expected = (*known[name], 2)
        if array.shape != expected:
            raise ValueError(f"an estimate's {what} of {name} must have shape {expected}, got {array.shape}.")
        if not np.all(array[..., 0] <= array[..., 1]):  # NaN too
            raise ValueError(f"an estimate's {what} of {name} must have low <= high and no NaN, got {array.tolist()}.")
    return arrays


def _arrays(what: str, values: object) -> dict[str, np.ndarray]:
    if not isinstance(values, Mapping):
        raise ValueError(f"an estimate's {what} must be a dict from parameter to array, got {type(values).__name__}.")
    out = {}
    for name, value in values.items():
        try:
            array = np.asarray(value)
        except Exception as error:  # whatever an object's own conversion raises
            raise ValueError(f"an estimate's {what} of {name} must be an array: {error}.") from None
        if array.dtype.kind not in "fiu":
            raise ValueError(f"an estimate's {what} of {name} must be real numbers, got {array.dtype}.")
        out[str(name)] = np.asarray(array, dtype=np.float64)
    return out
