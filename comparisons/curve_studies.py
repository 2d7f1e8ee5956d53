"""The studies of the varying-coefficient mixture: errors of the curves, coverage of their bands, size and power."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from comparisons import curve_estimators, curve_regimes
from comparisons.estimators import Estimator
from comparisons.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = 500
BANDWIDTHS = (0.18, 0.21, 0.24)  # the published ones
ENGINES = {"consistent": ("joint", "local"), "separate": ("local",)}  # and the sandwiches of their bands
KERNEL = {"n_init": 6, "undersmooth": 0.85}
REPLICATES = 200  # of each bootstrap
RESAMPLED = 0.21  # the bandwidth at which bands are bootstrapped and the test is made
NUTS = {"num_warmup": 500, "num_samples": 1000, "num_chains": 4, "target_accept_prob": 0.95, "attempts": 2}
QUICK = {"num_warmup": 300, "num_samples": 400, "num_chains": 2, "target_accept_prob": 0.95, "attempts": 1}
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
        regimes=tuple(curve_regimes.regime(family, null) for null in (False, True)),
        sizes={name: (ROWS,) for name in settings},
        replicates={name: many if name in kernels else few for name in settings},
        settings=settings,
        estimators={name: _estimator(name) for name in settings},
        findings=findings,
    )


def _estimator(name: str) -> Estimator:
    return curve_estimators.ESTIMATORS["posterior" if name.startswith("posterior") else "kernel"]


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
    from comparisons import blood_fits  # noqa: PLC0415

    return blood_fits.study(folder, quick)


def findings(rows: Sequence[dict[str, object]]) -> tuple[str, Figure]:
    """Tables of errors, coverage and tests, and a figure of the first two."""
    from comparisons import curve_summary  # noqa: PLC0415 - matplotlib takes a second to import

    return curve_summary.table(rows), curve_summary.figure(rows)
