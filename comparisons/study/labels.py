"""Labels of exchangeable components: one order for all draws, and the truth's before intervals are judged.

Which of two adapters is the first is nobody's to say. Judged label by label, intervals of a good posterior held the
truth in 37 to 69% of cases, since half of the time they were the other's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

from bayes_moe import MoE
from bayes_moe.varying.model import VaryingCoefficient

if TYPE_CHECKING:
    from comparisons.study.contract import Draws, Estimate

ROUNDS = 20  # of aligning draws and averaging them
FEW = 6  # components whose orders can all be tried


def exchangeable(moe: MoE | VaryingCoefficient) -> int:
    """How many components may swap labels with nothing else changed: the leading axis of every parameter; 1 if none."""
    if not isinstance(moe, MoE):
        return 1
    leading = {field.shape[:1] for field in moe.fields.values()}
    dims = {field.dims[:1] for field in moe.fields.values()}
    (count,) = leading.pop() if len(leading) == len(dims) == 1 and () not in leading else (1,)
    return count


def settled(moe: MoE | VaryingCoefficient, draws: Draws) -> Draws:
    """Draws with the components of each in the order that is nearest to the mean of all, again and again.

    Distances are in units of each coordinate's standard deviation over draws and components.
    """
    count = exchangeable(moe)
    if count == 1 or count > FEW:
        return draws
    orders = np.array(list(permutations(range(count))))
    flat = np.concatenate([values.reshape(*values.shape[:2], -1) for values in draws.values()], axis=2)
    flat = flat / np.where((scale := flat.std(axis=(0, 1))) > 0, scale, 1.0)
    chosen = np.zeros(len(flat), dtype=int)
    pivot = flat[-1]
    for _ in range(ROUNDS):
        costs = np.stack([((flat[:, order] - pivot) ** 2).sum(axis=(1, 2)) for order in orders], axis=1)
        before, chosen = chosen, costs.argmin(axis=1)
        pivot = np.take_along_axis(flat, orders[chosen][:, :, None], axis=1).mean(axis=0)
        if np.array_equal(before, chosen):
            break
    rows = np.arange(len(flat))[:, None]
    return {name: values[rows, orders[chosen]] for name, values in draws.items()}


def nearest(moe: MoE | VaryingCoefficient, estimate: Estimate, truth: Mapping[str, np.ndarray]) -> Estimate:
    """Estimate whose intervals have the components in the order that is nearest to the truth's.

    One order for all parameters. Distances are in units of the intervals' widths; where no width is of use, plain.
    """
    count = exchangeable(moe)
    same = all(np.shape(truth.get(name)) == field.shape for name, field in moe.fields.items())
    if count == 1 or not same or (estimate.intervals is None and estimate.profile is None):
        return estimate
    pairs = [
        (np.reshape(truth[name], (count, 1, -1)) - estimate.draws[name].mean(axis=0).reshape(1, count, -1)) ** 2
        for name in moe.fields
    ]  # of the truth's component (row) and the estimate's (column)
    weights = [_weights(name, estimate, count) for name in moe.fields]
    if not any(np.any(weight) for weight in weights):
        weights = [1.0] * len(pairs)
    cost = sum((weight * squares).sum(axis=2) for weight, squares in zip(weights, pairs, strict=True))
    _, order = linear_sum_assignment(cost)
    return replace(estimate, intervals=_take(estimate.intervals, order), profile=_take(estimate.profile, order))


def _weights(name: str, estimate: Estimate, count: int) -> np.ndarray:
    """One over the mean squared width of each coordinate's intervals; zero where it has none, or none of use."""
    intervals = (estimate.intervals or {}).get(name, (estimate.profile or {}).get(name))
    if intervals is None:
        return np.zeros(1)
    squares = (np.diff(intervals, axis=-1).reshape(count, -1) ** 2).mean(axis=0)
    useful = np.isfinite(squares) & (squares > 0)
    return np.where(useful, 1 / np.where(useful, squares, 1.0), 0.0)


def _take(intervals: dict[str, np.ndarray] | None, order: np.ndarray) -> dict[str, np.ndarray] | None:
    return None if intervals is None else {name: values[order] for name, values in intervals.items()}
