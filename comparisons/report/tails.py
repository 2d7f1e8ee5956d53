"""How heavy the tail of errors is, and how wide an interval of their mean must be for it.

Student's interval of a mean supposes that the mean of few errors is nearly normal. With heavy tails it is not: most
samples lack the rare errors that make the mean, and such intervals held the truth in 40 to 90% of trials. So the errors
of all sizes, each over its size's median, are pooled; above their upper tenth they are taken for a power law, whose
index Hill's estimator gives. Trials from that law with the same numbers of replicates say how many standard errors hold
95%. There is no interval where the index says that the variance may be infinite, where errors are too few to say, or
where the largest at a size is hardly a draw from the law of the others: then the sizes have no one law.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

KNOWN = 8  # errors at a size below which its median is too uncertain a unit
FEWEST = 40  # pooled errors, below which their tail can't be judged
SHARE = 0.1  # of them, taken for the tail
HEAVY = 0.5  # tail index from which the variance is infinite
ALIEN = 0.1  # p-value of a size's largest error under the law of the others, below which the sizes have no one law
TRIALS = 1000
EXACT = 1e-24  # variance of a log mean that is rounding alone
Influence = tuple[float, np.ndarray]  # a mean, and how much each replicate moves its logarithm


@dataclass(frozen=True)
class Tail:
    """Empirical distribution whose upper end is a power law.

    Parameters
    ----------
    body : ndarray
        What lies below the tail, and its edge.
    count : int
        How many lay above.
    index : float
        P(term > t) falls as t^(-1 / index).
    """

    body: np.ndarray
    count: int
    index: float

    @property
    def heavy(self) -> bool:
        """Whether the variance may be infinite."""
        return self.index >= HEAVY

    @property
    def mean(self) -> float:
        """Mean; the index is below one."""
        top = self.count * self.body[-1] / (1 - self.index)
        return float((self.body.sum() + top) / (len(self.body) + self.count))

    def beyond(self, term: float) -> float:
        """Probability of a larger term."""
        every = len(self.body) + self.count
        if term <= self.body[-1]:
            return 1 - np.searchsorted(self.body, term) / every
        return self.count / every * float(term / self.body[-1]) ** (-1 / max(self.index, 1e-9))

    def draw(self, rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        """Draw terms."""
        place = rng.integers(len(self.body) + self.count, size=size)
        above = place >= len(self.body)
        drawn = self.body[np.minimum(place, len(self.body) - 1)]
        drawn[above] *= rng.random(int(above.sum())) ** -self.index
        return drawn


def tail(terms: Sequence[np.ndarray]) -> Tail | None:
    """Tail of positive terms at several sizes, pooled; None where they are too few, or half of a size's are zero.

    Parameters
    ----------
    terms : sequence of ndarray
        For each size, what is averaged.
    """
    medians = [float(np.median(part)) for part in terms]
    if min(medians) <= 0:
        return None
    parts = [part / unit for part, unit in zip(terms, medians, strict=True)]
    known = [part for part in parts if len(part) >= KNOWN]
    if sum(map(len, known)) < FEWEST or any(_alien(place, parts) for place in range(len(parts))):
        return None
    return _fit(known)


def _fit(parts: Sequence[np.ndarray]) -> Tail:
    every = np.sort(np.concatenate(parts))
    count = int(np.ceil(SHARE * len(every)))
    body, top = every[:-count], every[-count:]
    return Tail(body, count, float(np.log(top / body[-1]).mean()))


def _alien(place: int, parts: Sequence[np.ndarray]) -> bool:
    """Whether the largest term at a size is too large for the law of the other sizes, if these say enough of it."""
    others = [part for k, part in enumerate(parts) if k != place and len(part) >= KNOWN]
    if sum(map(len, others)) < FEWEST:
        return False
    chance = 1 - (1 - _fit(others).beyond(float(parts[place].max()))) ** len(parts[place])
    return chance < ALIEN / len(parts)


def multiplier(found: Tail, weights: np.ndarray, counts: Sequence[int], level: float, seed: int) -> float:
    """How many standard errors to either side hold a weighted sum of log means in a share ``level`` of trials.

    Parameters
    ----------
    found : Tail
        Not heavy.
    weights : ndarray
        Of the sizes.
    counts : sequence of int
        Terms at each size, at least two.
    level : float
    seed : int
    """
    rng = np.random.default_rng(seed)
    off, variance = np.zeros(TRIALS), np.zeros(TRIALS)
    for weight, count in zip(weights, counts, strict=True):
        drawn = found.draw(rng, (TRIALS, count))
        mean = drawn.mean(axis=1)
        off += weight * np.log(mean / found.mean)
        variance += weight**2 * drawn.var(axis=1, ddof=1) / (count * mean**2)
    with np.errstate(divide="ignore", invalid="ignore"):  # terms that are all alike have no error at all
        return float(np.quantile(np.nan_to_num(np.abs(off) / np.sqrt(variance), nan=0.0), level))


def influence(terms: np.ndarray) -> Influence:
    """Of a mean."""
    mean = float(terms.mean())
    return mean, terms / mean - 1 if mean else np.zeros(len(terms))


def contrast(terms: np.ndarray, others: np.ndarray) -> Influence:
    """Of the ratio of two means over the same replicates."""
    (one, moved), (two, also) = influence(terms), influence(others)
    return (one / two if two else 0.0), moved - also


def pooled(each: Sequence[np.ndarray]) -> Influence:
    """Of the mean over all errors of several replicates."""
    total, count = np.array([[values.sum(), len(values)] for values in each], dtype=float).T
    mean = float(total.sum() / count.sum())
    return mean, (total - mean * count) / (mean * count.mean()) if mean else np.zeros(len(each))


def margin(
    found: Sequence[Tail | None], influences: Sequence[Influence], weights: np.ndarray, level: float, seed: int
) -> tuple[float, float] | None:
    """Half the width of the interval of a weighted sum of log means, and Satterthwaite's degrees of freedom.

    Parameters
    ----------
    found : sequence of Tail or None
        Of each kind of terms that is averaged.
    influences : sequence of Influence
        For each size.
    weights : ndarray
        Of the sizes.
    level : float
    seed : int

    Returns
    -------
    tuple of float, or None
        Infinite degrees of freedom where the log means have no error at all. None where no interval is to be trusted.
    """
    counts = np.array([len(moved) for _, moved in influences])
    if counts.min() < 2:
        return None
    parts = weights**2 * np.array([moved.var(ddof=1) for _, moved in influences]) / counts
    total = float(parts.sum())
    if total < EXACT:
        return 0.0, np.inf
    if any(one is None or one.heavy for one in found):
        return None
    df = total**2 / float((parts**2 / (counts - 1)).sum())
    student = float(stats.t.ppf(0.5 + level / 2, df))
    return max(student, *(multiplier(one, weights, counts, level, seed) for one in found)) * total**0.5, df
