"""Did chains move? What R-hat and effective sample sizes do not see: they are blind to the scale of a quantity.

A chain that stands still but for rounding has draws like any other's, only a hundred digits smaller. These checks
compare scales with what they must be.
"""

from __future__ import annotations

import arviz_stats as azs
import numpy as np
import xarray as xr

STILL_LP = 0.05  # sd of the log density; that of a normal of one dimension is 0.7, of more dimensions larger
ROUNDING = 1e4  # spread of a quantity in units of the rounding of its largest value
REPEATS = 0.5  # share of draws that may equal the one before
DEEPEST = 10  # the usual greatest depth; a user who sets less wants short trees
AT_DEPTH = 0.2  # share of trees that may reach it
LEAST_STEP = 1e-10
MOST_KINETIC = 1e6  # half the number of dimensions is right
LEAST_ACCEPTANCE = 0.1
FALL, FALLS = 50.0, 2.0  # from a mode to the draws, at most, and for each dimension; that of a normal is 1/2 for each
VIRIAL, VIRIAL_ERRORS = 0.25, 6.0  # deviation from one, by itself and in Monte Carlo standard errors


def faults(stats: xr.Dataset, draws: xr.Dataset, mode_lp: float | None = None) -> list[str]:
    """What says that chains did not move, or not as a sampler of this posterior would; nothing if all is well.

    Parameters
    ----------
    stats : xarray.Dataset, dims (chain, draw)
        Of the group ``sample_stats``.
    draws : xarray.Dataset, dims (chain, draw, ...)
        What is judged.
    mode_lp : float, optional
        Log density at the mode that holds most mass.
    """
    out = [_beside_rounding(name, values) for name, values in draws.data_vars.items()]
    out += [check(stats) for check in (_still, _energy, _trees, _steps, _virial)]
    out.append("" if mode_lp is None else _below(stats, mode_lp))
    return [fault for fault in out if fault]


def _below(stats: xr.Dataset, mode_lp: float) -> str:
    """Draws of d dimensions lie about d/2 below a mode that holds mass; chains far lower are elsewhere."""
    if "virial" not in stats:
        return ""
    fall = mode_lp - float(stats["lp"].mean())
    size = stats["virial"].sizes[next(dim for dim in stats["virial"].dims if dim not in ("chain", "draw"))]
    most = FALL + FALLS * size
    return "" if fall <= most else f"the log density is {fall:.0f} below that of a mode that holds mass"


def _beside_rounding(name: str, values: xr.DataArray) -> str:
    array = values.transpose("chain", "draw", ...).values
    if array.dtype.kind != "f":
        return ""
    array = array.reshape(*array.shape[:2], -1)
    spread, size = array.std(axis=1), np.abs(array).max(axis=1)
    still = (size > 0) & (spread <= ROUNDING * np.finfo(array.dtype).eps * size)
    if still.any():
        worst = float(np.min(spread[still] / size[still]))
        return f"{name} did not move in {_chains(still.any(axis=1))}: its spread is {worst:.1g} of its size"
    repeats = (np.diff(array, axis=1) == 0).mean(axis=1)
    if array.shape[1] > 1 and repeats.max() > REPEATS:
        return f"{name} repeats the draw before in {repeats.max():.0%} of a chain"
    return ""


def _chains(which: np.ndarray) -> str:
    return f"{int(which.sum())} chain{'s' if which.sum() > 1 else ''}"


def _still(stats: xr.Dataset) -> str:
    spread = float(stats["lp"].std("draw").min())
    return "" if spread >= STILL_LP else f"the log density hardly varies in a chain (sd {spread:.1g}): it did not move"


def _energy(stats: xr.Dataset) -> str:
    kinetic = float(np.abs(stats["energy"] + stats["lp"]).mean("draw").max())
    return "" if kinetic <= MOST_KINETIC else f"energies are absurd: {kinetic:.1g} from minus the log density"


def _trees(stats: xr.Dataset) -> str:
    if "reached_max_treedepth" not in stats or "tree_depth" not in stats:
        return ""
    deep = stats["reached_max_treedepth"].astype(bool) & (stats["tree_depth"] >= DEEPEST)
    share = float(deep.mean("draw").max())
    return "" if share <= AT_DEPTH else f"{share:.0%} of a chain's trees reached their greatest depth"


def _steps(stats: xr.Dataset) -> str:
    if "step_size" in stats and not (stats["step_size"].min() > LEAST_STEP and np.isfinite(stats["step_size"]).all()):
        return f"the step size fell to {float(stats['step_size'].min()):.1g}"
    if "acceptance_rate" in stats and not stats["acceptance_rate"].mean("draw").min() >= LEAST_ACCEPTANCE:
        return f"a chain accepted {float(stats['acceptance_rate'].mean('draw').min()):.0%} of its proposals"
    return ""


def _virial(stats: xr.Dataset) -> str:
    """Integration by parts: the mean of (z - mean) dU/dz is one for each coordinate z of exp(-U)."""
    if "virial" not in stats:
        return ""
    means = stats["virial"].mean(("chain", "draw")).values
    errors = azs.mcse(stats[["virial"]], method="mean")["virial"].values
    off = np.abs(means - 1.0)
    bad = ~(off <= np.maximum(VIRIAL, VIRIAL_ERRORS * np.nan_to_num(errors)))
    if not bad.any():
        return ""
    worst = float(means[bad][np.argmax(off[bad])])
    return (
        f"draws do not fit the density's slopes in {int(bad.sum())} of {bad.size} directions: the mean of "
        f"(z - mean) dU/dz is {worst:.2g}, not 1"
    )
