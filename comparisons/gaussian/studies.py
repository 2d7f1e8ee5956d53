"""The studies of the Gaussian-gated mixture, one for each published model."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from comparisons.gaussian import estimators as mixtures
from comparisons.gaussian import regimes as gaussian_regimes
from comparisons.study.plan import Study

EXPERTS = (3, 4, 5)
ONE_STEP = {"n_init": 1, "max_iter": 1, "tol": 1e-5}
NEAR = {"n_init": 1, "max_iter": 200, "tol": 1e-5, "newton": 300}
DATA = NEAR | {"n_init": 6}
NUTS = {
    "n_init": 4,
    "max_iter": 300,
    "tol": 1e-4,
    "thin": 20,
    "prior_sd": 1.0,
    "num_warmup": 500,
    "num_samples": 2000,
    "num_chains": 4,
    "sweeps": 20,  # with NUTS alone a spare expert comes and goes too slowly
    "max_tree_depth": 5,  # sweeps do the rest
    "target_accept_prob": 0.9,
    "attempts": 2,
}

# The published sizes, linspace(100, 500, 5) and linspace(500, 1e5, 95), thinned: every fifth of the latter.
PUBLISHED = tuple(int(n) for n in dict.fromkeys([*np.linspace(100, 500, 5), *np.linspace(500, 1e5, 95)[::5].round()]))
CONVERGED = (500, 2000, 8000, 30_000, 100_000)


def study(model: str, quick: bool = False) -> Study:
    """One published model, fitted with the right number of experts, with one more and with two more.

    "em-one-step" is what the published code computed: one EM step from a start near the truth. "em-near" goes on
    from there to a maximum, its last steps Newton's; "em" from starts that the data give. M1 ends with the irises.

    Parameters
    ----------
    model : "m1", "m2", "m3" or "m4"
    quick : bool
    """
    settings = {"em-one-step": ONE_STEP, "em-near": NEAR, "em": DATA, "nuts": NUTS}
    sizes = {"em-one-step": PUBLISHED, "em-near": CONVERGED, "em": CONVERGED, "nuts": (500, 2000)}
    replicates = {"em-one-step": 40, "em-near": 40, "em": 40, "nuts": 20}
    if quick:
        settings["em"] = DATA | {"n_init": 3}
        sizes = {"em-one-step": (500, 2000, 8000), "em-near": (500, 2000), "em": (500, 2000)}
        replicates = {"em-one-step": 10, "em-near": 4, "em": 4}
    return Study(
        name=f"gaussian-gated-{model}",
        title=f"{model.upper()}: Gaussian-gated experts, 3 true and 3 to 5 fitted",
        regimes=tuple(gaussian_regimes.regime(model, count) for count in EXPERTS),
        sizes=sizes,
        replicates=replicates,
        settings={name: settings[name] for name in sizes},
        estimators=mixtures.ESTIMATORS,
        epilogue=(partial(irises, count=2) if quick else irises) if model == "m1" else None,
    )


def irises(folder: Path, count: int | None = None) -> tuple[str, Path]:
    """Run the irises, which only M1 needs, and which take a second to import."""
    from comparisons.gaussian import iris_figure  # noqa: PLC0415

    return iris_figure.study(folder, count or iris_figure.SPLITS)
