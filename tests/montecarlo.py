"""What statistical tests share: keys that can all be shifted, and the Monte Carlo error of what is judged.

Chains are chaotic, so another processor draws others, as another key does here. A statistical test takes its keys from
:func:`key`, is marked ``statistical``, and holds under any shift: ``make test-keys`` runs them all under twenty.
"""

import os

import arviz_stats as azs
import numpy as np
from scipy import stats

from bayes_moe.draws import diagnostics

VARIABLE = "BAYES_MOE_TEST_KEYS"  # which keys: 0, as CI has it, or any other whole number
SHIFT = int(os.environ.get(VARIABLE, "0"))
STRIDE = 1_000_003  # more than any test counts up to
STANDARD_ERRORS = 5.0  # beyond them a normal score is in 6e-7 of cases: once in 80 runs of 20 keys and 1,000 scores
FALSE_ALARM = 1e-6  # of a p-value or of a share, for the same reason
UNIFORM = 1e-4  # smallest p-value of calibration's ranks, times their number: some 10 cases, each of hundreds of fits


def key(base):
    """Return the key or seed that a test uses for its ``base``."""
    return base + STRIDE * SHIFT


def score(draws, exact, method="mean", **prob):
    """|estimate - exact| in Monte Carlo standard errors, for each entry of ``draws`` (chain, draw, ...).

    The error is that of what is judged: the effective sample size of a mean says nothing about a standard deviation,
    since antithetic chains have means that are better than independent draws', and squares that are worse.
    """
    over = ("chain", "draw")
    found = {
        "mean": lambda: draws.mean(over),
        "sd": lambda: draws.std(over, ddof=1),
        "quantile": lambda: draws.quantile(prob["prob"], over),
    }[method]()
    return np.abs(np.asarray(found) - exact) / np.asarray(azs.mcse(draws, method=method, **prob))


def worst(draws, mean, sd):
    """Largest score of the means and of the standard deviations; chains that stand still are infinitely far off."""
    scores = np.stack([score(draws, mean), score(draws, sd, "sd")])
    return np.where(np.isnan(scores), np.inf, scores).max()


def share(hits, trials, claimed):
    """Two-sided p-value of so many hits where each has the probability ``claimed``, exact also of few trials."""
    return stats.binomtest(int(hits), int(trials), claimed).pvalue


def uniform(p_values):
    """Say whether ranks, a p-value for each quantity, are uniform."""
    return np.min(p_values) > UNIFORM / len(p_values)


def may_lie_between(hits, trials, low, high):
    """Say whether the share that the hits are drawn from may lie in [low, high]."""
    interval = stats.binomtest(int(hits), int(trials)).proportion_ci(1 - FALSE_ALARM)
    return interval.low <= high and interval.high >= low


def first_that_passes(sample, base, check=diagnostics.check, attempts=2):
    """Return what ``sample(base)`` drew, and its verdict; once more with another base where the gate says no.

    It says so of good chains too, now and then. A sampler that fails one run in ten fails this in one of a hundred; one
    that is wrong fails both.
    """
    for attempt in range(attempts):
        drawn = sample(base + 1000 * attempt)
        verdict = check(drawn)
        if verdict.passed:
            break
    return drawn, verdict
