"""The named studies, each with a quick size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from comparisons.contaminated.regimes import drifting
from comparisons.curves import studies as curve_studies
from comparisons.gaussian import regimes as gaussian_regimes
from comparisons.gaussian import studies as gaussian_studies
from comparisons.study.plan import Regime, Study

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

MLE = {"n_init": 4, "bound": 10.0, "profile": ["tau"]}
NEAR = {"n_init": 1, "bound": 10.0, "spread": 0.1}
NUTS = {"num_warmup": 300, "num_samples": 1000, "num_chains": 2, "target_accept_prob": 0.9, "attempts": 2}


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
        settings={"mle": MLE, "nuts": NUTS},
        epilogue=partial(fine_tuning, count=1) if quick else fine_tuning,
    )


def fine_tuning(folder: Path, count: int | None = None) -> tuple[str, Path]:
    """Run the digits, which only the quickstart needs, and which take a second to import."""
    from comparisons.contaminated import digits  # noqa: PLC0415

    return digits.study(folder, count or digits.SPLITS)


# The paper's experiments -------------------------------------------------------------------------------------------

FIGURES = {
    "fig1a": ("tanh", "tanh", 1 / 8),
    "fig1b": ("gelu", "gelu", 1 / 8),
    "fig2a": ("linear", "tanh", 1 / 8),
    "fig2b": ("tanh", "linear", 1 / 8),
    "fig3": ("linear", "tanh", 0.0),
}
FARTHEST = "fig1a"  # the one whose maximum-likelihood estimates go on to n = 1e7
GATES = {"flat": ("beta* = 0", (0.0, 0.0)), "sloped": ("beta* = (0.7, -0.7)", (0.7, -0.7))}

OURS = (
    "The paper's K, d, beta*, tau*, eta0 and sizes are not known to us. Ours: K = 3, d = 2, tau* = 0, x standard "
    "normal, eta0 three unit vectors at 0, 120 and 240 degrees, eta* = eta0 + n^-power x 2 x (eta0 turned by 1.2 rad), "
    "so that the Cramér–Rao bound of e^tau falls below a fifth of e^tau within reach of a computer.",
    "The paper's homogeneous pairs are not known to us; tanh and GELU both satisfy its identifiability condition.",
    "At beta* = 0 the paper's uniform rates are attained; at a fixed beta* != 0 the homogeneous rates are faster.",
    "MLE over the box |parameter| <= 10, by Newton steps (L-BFGS-B where they leave the box), where the paper used EM "
    "with BFGS: the same maximum, once found.",
)
PUBLISHED = (
    "The paper's K, d, beta*, tau*, eta0 and sizes are not known to us. Here: those that its regression sibling, "
    "arXiv:2505.18455, prints: d = 8, beta* = 1/sqrt(d), tau* = 1, eta* = eta0 (1 + n^-1/8), 20 sizes from 1e3 to 1e5; "
    "with K = 3 and unit vectors for the rows of eta0; 10 runs a size, as in the paper.",
    "One start close to the truth (normal noise of sd 0.1), as published.",
    "With these settings the Cramér–Rao bound of e^tau exceeds e^tau at every size: slopes show mostly the start.",
)


def circle(size: float = 1.0, turn: float = 0.0) -> np.ndarray:
    """Three vectors of one length at 0, 120 and 240 degrees, turned by an angle in radians; shape (3, 2)."""
    angles = 2 * np.pi * np.arange(3) / 3 + turn
    return size * np.stack([np.cos(angles), np.sin(angles)], axis=1)


OPEN = "The exponents shown are the theorem's, which is for one adapter, a softmax gate and identifiable experts."


def designed(
    name: str, title: str, frozen: str, adapter: str, *, beta: object = 0.0, power: float = 1 / 8, **changes: object
) -> Regime:
    """Regime of our own design, see :data:`OURS`, or one that differs from it in what ``drifting`` takes."""
    return drifting(
        name,
        f"{frozen} frozen, {adapter} adapter, {title}",
        frozen_activation=frozen,
        activation=adapter,
        beta=beta,
        power=power,
        reference="last" if adapter == "linear" else None,
        **{"eta0": circle(), "direction": circle(2.0, 1.2), "assumptions": OURS, **changes},
    )


def _plan(quick: bool) -> dict[str, Mapping]:
    """Sizes and replicates of our own studies: NUTS costs a hundred times an MLE."""
    if quick:
        return {
            "sizes": {"mle": (1000, 4000), "mle-near": (1000, 4000, 16_000), "nuts": (1000, 4000)},
            "replicates": {"mle": 8, "mle-near": 20, "nuts": 4},
        }
    large = (1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
    return {
        "sizes": {"mle": large[:5], "mle-near": large, "nuts": (1000, 3000, 10_000, 100_000)},
        "replicates": {"mle": 200, "mle-near": 200, "nuts": {1000: 40, 3000: 40, 10_000: 40, 100_000: 10}},
    }


def figure(name: str, quick: bool = False) -> Study:
    """One of the paper's figures at our size: both gates, sizes that reach the asymptotic window."""
    frozen, adapter, power = FIGURES[name]
    moves = "eta* nears eta0 as n^-1/8" if power else "fixed truth"
    plan = _plan(quick)
    if name == FARTHEST and not quick:
        plan["replicates"]["mle-near"] = dict.fromkeys(plan["sizes"]["mle-near"], 200) | {10**7: 40}
        plan["sizes"]["mle-near"] += (10**7,)
    return Study(
        name=f"contaminated-{name}",
        title=f"{name}: {frozen} frozen, {adapter} adapter, {moves}",
        regimes=tuple(
            designed(gate, title, frozen, adapter, beta=beta, power=power) for gate, (title, beta) in GATES.items()
        ),
        settings={"mle": MLE, "mle-near": NEAR, "nuts": NUTS},
        **plan,
    )


def published(name: str, quick: bool = False) -> Study:
    """One of the paper's figures at the published size, with the sibling's settings: see :data:`PUBLISHED`."""
    frozen, adapter, power = FIGURES[name]
    eta0 = np.eye(3, 8)
    regime = drifting(
        "published",
        f"{frozen} frozen, {adapter} adapter, d = 8",
        eta0=eta0,
        direction=eta0,
        frozen_activation=frozen,
        activation=adapter,
        tau=1.0,
        beta=np.full(8, 8**-0.5),
        power=power,
        reference="last" if adapter == "linear" else None,
        assumptions=PUBLISHED,
    )
    sizes = tuple(int(n) for n in np.geomspace(1e3, 1e5, 20).round())
    return Study(
        name=f"contaminated-{name}-published",
        title=f"{name} as published: 10 runs a size, started near the truth",
        regimes=(regime,),
        sizes={"mle-near": sizes[:8:3] if quick else sizes},
        replicates={"mle-near": 4 if quick else 10},
        settings={"mle-near": NEAR},
    )


def exponents(quick: bool = False) -> Study:
    """How fast eta* nears eta0, varied: the slower, the nearer to a fixed truth."""
    powers = {"eighth": 1 / 8, "sixth": 1 / 6, "quarter": 1 / 4, "fixed": 0.0}
    titles = {name: f"|eta* - eta0| ~ n^-{power:.3g}" if power else "fixed truth" for name, power in powers.items()}
    plan = _plan(quick)
    return Study(
        name="contaminated-exponents",
        title="Homogeneous experts: the phase change as eta* nears eta0 faster",
        regimes=tuple(designed(name, titles[name], "tanh", "tanh", power=power) for name, power in powers.items()),
        sizes={"mle-near": plan["sizes"]["mle-near"]},
        replicates={"mle-near": plan["replicates"]["mle-near"]},
        settings={"mle-near": NEAR},
    )


def beyond(quick: bool = False) -> Study:
    """What the theorem leaves open: experts that are not identifiable, several adapters, other gates."""
    two = np.stack([circle(2.0, 1.2), circle(2.0, -1.2)])
    notes = {"assumptions": (*OURS, OPEN)}
    regimes = (
        designed("relu", "not strongly identifiable", "relu", "relu", **notes),
        designed("adapters-same", "two adapters", "tanh", "tanh", direction=two, **notes),
        designed("adapters-other", "two adapters", "linear", "tanh", direction=two, **notes),
        *(designed(f"{gate}-same", f"{gate} gate", "tanh", "tanh", gate=gate, **notes) for gate in OTHER_GATES),
        *(designed(f"{gate}-other", f"{gate} gate", "linear", "tanh", gate=gate, **notes) for gate in OTHER_GATES),
    )
    plan = _plan(quick)
    return Study(
        name="contaminated-beyond",
        title="Beyond the theorem: ReLU experts, two adapters, sigmoid and constant gates",
        regimes=regimes,
        sizes={"mle-near": plan["sizes"]["mle-near"]},
        replicates={"mle-near": plan["replicates"]["mle-near"]},
        settings={"mle-near": NEAR},
    )


OTHER_GATES = ("sigmoid", "constant")

STUDIES: dict[str, Callable[[bool], Study]] = {
    "quickstart": quickstart,
    **{f"contaminated-{name}": partial(figure, name) for name in FIGURES},
    **{f"contaminated-{name}-published": partial(published, name) for name in FIGURES},
    "contaminated-exponents": exponents,
    "contaminated-beyond": beyond,
    **{f"gaussian-gated-{model}": partial(gaussian_studies.study, model) for model in gaussian_regimes.MODELS},
    "vc-sim1": partial(curve_studies.study, "normal"),
    "vc-sim2": partial(curve_studies.study, "binomial"),
    "vc-power": curve_studies.power,
    "vc-constant": curve_studies.constants,
    "vc-cells": curve_studies.cells,
}
