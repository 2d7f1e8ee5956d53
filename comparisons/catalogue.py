"""The named studies, each with a quick size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from comparisons import digits
from comparisons.regimes import drifting
from comparisons.study import Study

# Three classes in the plane, the last pinned at zero: a design whose Cramér–Rao bound for e^tau falls below the size of
# e^tau itself near n = 1e3, so that small studies show statistics rather than starting points.
ETA0 = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
DIRECTION = np.array([[2.0, 0.0], [0.0, -2.0], [0.0, 0.0]])

HOMOGENEOUS = drifting(
    "homogeneous",
    "tanh frozen, tanh adapter",
    eta0=ETA0,
    direction=DIRECTION,
    frozen_activation="tanh",
    activation="tanh",
)
HETEROGENEOUS = drifting(
    "heterogeneous",
    "linear frozen, tanh adapter",
    eta0=ETA0,
    direction=DIRECTION,
    frozen_activation="linear",
    activation="tanh",
)


def quickstart(quick: bool = False) -> Study:
    """Both regimes, a few sizes, both estimators on the same data; then the digits."""
    return Study(
        name="quickstart",
        title="How fast do MLE and posterior approach the truth?",
        regimes=(HOMOGENEOUS, HETEROGENEOUS),
        sizes={
            "mle": (300, 1000) if quick else (1000, 2000, 4000, 10_000, 30_000),
            "nuts": (300, 1000) if quick else (1000, 2000, 4000),
        },
        replicates={"mle": 4, "nuts": 2} if quick else {"mle": 20, "nuts": 4},
        settings={
            "mle": {"n_init": 4, "bound": 10.0},
            "nuts": {"num_warmup": 300, "num_samples": 1000, "num_chains": 2, "target_accept_prob": 0.9, "attempts": 2},
        },
        epilogue=partial(digits.study, count=1) if quick else digits.study,
    )


STUDIES: dict[str, Callable[[bool], Study]] = {"quickstart": quickstart}
