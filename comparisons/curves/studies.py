"""The studies of the varying-coefficient mixture: errors of the curves, coverage of their bands, size and power."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from comparisons.curves import estimators as curve_estimators
from comparisons.curves import regimes as curve_regimes
from comparisons.study.contract import Estimator
from comparisons.study.plan import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = 500
BANDWIDTHS = (0.18, 0.21, 0.24)  # the published ones
ENGINES = {"consistent": ("joint", "local"), "separate": ("local",)}  # and the sandwiches of their bands
KERNEL = {"n_init": 6, "undersmooth": 0.85}
REPLICATES = 200  # of each bootstrap
RESAMPLED = 0.21  # the bandwidth at which bands are bootstrapped and the test is made
NUTS = {"num_warmup": 500, "num_samples": 1000, "num_chains": 4, "target_accept_prob": 0.95, "attempts": 3}
QUICK = {"num_warmup": 300, "num_samples": 400, "num_chains": 2, "target_accept_prob": 0.95, "attempts": 1}
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the slopes' variation, at which the test's power is measured
SIZES = (500, 1000, 2000, 4000, 8000)  # at which constant slopes are
SHRINKING = {"h": 0.24, "from": 500, "n_init": 3}
TITLES = {"normal": "vc-sim1: Gaussian", "binomial": "vc-sim2: binomial"}


def study(family: str, quick: bool = False) -> Study:
    """Simulation 1 ("normal") or 2 ("binomial"), with all curves varying and with constant slopes.

    Both engines at every bandwidth, by name, as "consistent-0.18"; the posterior with Gaussian processes ("hilbert")
    and with splines ("bspline"). Quick: one bandwidth, Gaussian processes, few replicates of everything.

    Parameters
    ----------
    family : "normal" or "binomial"
    quick : bool
    """
    settings = _settings(quick)
    many, few = (2, 2) if quick else (200, 100)
    kernels = [name for name in settings if not name.startswith("posterior")]
    return Study(
        name=f"vc-sim{1 if family == 'normal' else 2}",
        title=f"{TITLES[family]} experts with varying coefficients",
        regimes=tuple(curve_regimes.regime(family, share) for share in (1.0, 0.0)),
        sizes={name: (ROWS,) for name in settings},
        replicates={name: many if name in kernels else few for name in settings},
        settings=settings,
        estimators={name: _estimator(name) for name in settings},
        findings=findings,
    )


def _estimator(name: str) -> Estimator:
    return curve_estimators.posterior if name.startswith("posterior") else curve_estimators.kernel


def _settings(quick: bool) -> dict[str, Mapping[str, object]]:
    replicates, nuts, bases = (20, QUICK, ("hilbert",)) if quick else (REPLICATES, NUTS, ("hilbert", "bspline"))
    bandwidths = (RESAMPLED,) if quick else BANDWIDTHS
    out = {}
    for engine, sandwiches in ENGINES.items():
        for h in bandwidths:
            resampled = replicates if h == RESAMPLED else 0
            own = {"engine": engine, "h": h, "sandwiches": sandwiches}
            out[f"{engine}-{h:g}"] = {**own, **KERNEL, "bootstrap": resampled, "glrt": resampled}
    return out | {f"posterior-{basis}": {"basis": basis, **nuts} for basis in bases}


def power(quick: bool = False) -> Study:
    """Likelihood-ratio test of constant slopes, which vary not at all, and more and more.

    Parameters
    ----------
    quick : bool
    """
    settings = {"h": RESAMPLED, "n_init": KERNEL["n_init"], "glrt": 20 if quick else REPLICATES}
    return Study(
        name="vc-power",
        title="Generalised likelihood-ratio test of constant slopes: size and power",
        regimes=tuple(curve_regimes.regime("normal", share) for share in SHARES),
        sizes={"test": (ROWS,)},
        replicates={"test": 2 if quick else 100},
        settings={"test": settings},
        estimators={"test": curve_estimators.likelihood_ratio},
        findings=rejections,
    )


def constants(quick: bool = False) -> Study:
    """Slopes that are constant, and fitted as such: their errors, and those of the intercepts, which are curves.

    Parameters
    ----------
    quick : bool
    """
    return Study(
        name="vc-constant",
        title="Constant coefficients beside curves: root-n and slower",
        regimes=(curve_regimes.regime("normal", share=0.0, constant=(curve_regimes.HYPOTHESIS,)),),
        sizes={"kernel": SIZES[:2] if quick else SIZES},
        replicates={"kernel": 2 if quick else 100},
        settings={"kernel": SHRINKING},
        estimators={"kernel": curve_estimators.shrinking},
    )


def cells(quick: bool = False) -> Study:
    """Real data, and nothing but: FTL on S100A4 in 700 blood cells, both estimators. Needs the extra ``cells``."""
    return Study(
        name="vc-cells",
        title="Real data: FTL on S100A4 in 700 blood cells along a score, two latent groups",
        regimes=(),
        sizes={},
        replicates={},
        settings={},
        epilogue=partial(real_cells, quick=quick),
    )


def real_cells(folder: Path, quick: bool) -> tuple[str, Path]:
    """Run the blood cells, which no other study needs."""
    from comparisons.curves import blood_study  # noqa: PLC0415

    return blood_study.study(folder, quick)


def rejections(rows: Sequence[dict[str, object]]) -> tuple[str, Figure]:
    """Table and figure of the test's size and power, and of its p-values under the null."""
    from comparisons.curves import power as curve_power  # noqa: PLC0415 - matplotlib takes a second to import

    return curve_power.table(rows), curve_power.figure(rows)


def findings(rows: Sequence[dict[str, object]]) -> tuple[str, Figure]:
    """Tables of errors, coverage and tests, and a figure of the first two."""
    from comparisons.curves import summary as curve_summary  # noqa: PLC0415 - matplotlib takes a second to import

    return curve_summary.table(rows), curve_summary.figure(rows)
