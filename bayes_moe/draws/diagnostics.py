"""The sampling gate: one plain verdict for each posterior, from thresholds that live here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

import arviz_stats as azs
import numpy as np
import xarray as xr

from bayes_moe.draws import movement

MAX_RHAT = 1.01
MIN_ESS_PER_CHAIN = 100
MIN_EBFMI = 0.3
LABELS = (
    "each {dim}'s parameters were judged, whose labels may have switched: judge quantities without labels, "
    "diagnostics.check(idata, invariants.invariants(moe, idata, x, y))"
)
NEEDED = ("diverging", "energy", "lp")


@dataclass(frozen=True)
class Verdict:
    """Whether a posterior may be trusted, and why not.

    Parameters
    ----------
    reasons : tuple of str
        What failed; empty if nothing did.
    divergences : int
    max_rhat, min_ess_bulk, min_ess_tail, min_ebfmi : float
        The worst over the log density and all parameters or quantities; NaN if it could not be computed.
    """

    reasons: tuple[str, ...]
    divergences: int
    max_rhat: float
    min_ess_bulk: float
    min_ess_tail: float
    min_ebfmi: float

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return not self.reasons

    def __str__(self) -> str:
        """One line."""
        return "passed" if self.passed else "FAILED: " + "; ".join(self.reasons)


def check(idata: xr.DataTree, quantities: xr.Dataset | None = None) -> Verdict:
    """Apply the sampling gate to a posterior.

    It looks at the log density ``lp`` and at each parameter, or at the quantities given. Passing takes: no divergence;
    rank-normalised split R-hat below 1.01; bulk and tail ESS of at least 100 for each chain; E-BFMI of at least
    0.3 in every chain; finite draws; no constant chain; and that chains moved as a sampler of this posterior does: see
    :mod:`bayes_moe.draws.movement`. What is missing counts as failed. Entries that are one number
    in all draws of all chains are constants, such as the weight of a single expert, and left out; ``lp`` is not.

    Parameters
    ----------
    idata : xarray.DataTree
        With groups ``posterior`` and ``sample_stats``.
    quantities : xarray.Dataset, dims (chain, draw, ...), optional
        What to judge in place of the parameters, whose labels may switch: for exchangeable experts, what
        :func:`bayes_moe.draws.invariants.invariants` returns.

    Returns
    -------
    Verdict

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter and Bürkner (2021); Betancourt (2016) for E-BFMI.
    """
    stats = idata["sample_stats"].to_dataset() if "sample_stats" in idata.children else xr.Dataset()
    missing = [f"sample_stats lacks {name}" for name in NEEDED if name not in stats]
    draws = _varying(idata["posterior"].to_dataset() if quantities is None else quantities)
    if "lp" in stats:
        draws = draws.assign(lp=(("chain", "draw"), stats["lp"].transpose("chain", "draw").values))
    bad = _degenerate(draws)
    if "energy" in stats and not np.isfinite(stats["energy"]).all():
        bad.append("energies are not finite")
    if missing or bad:
        nan = float("nan")
        return Verdict(tuple(missing + bad), int(stats.get("diverging", np.array(0)).sum()), nan, nan, nan, nan)
    if draws.sizes["chain"] < 2:
        return Verdict(
            ("one chain: R-hat needs at least 2 chains",), int(stats["diverging"].sum()), *[float("nan")] * 4
        )
    worst = {name: _extreme(function(draws), pick) for name, function, pick in _CONVERGENCE}
    ebfmi = float(azs.bfmi(idata)["energy"].min())
    divergences = int(stats["diverging"].sum())
    reasons = (
        *movement.faults(stats, draws, idata.attrs.get("mode_lp")),
        *_reasons(worst, ebfmi, divergences, draws.sizes["chain"]),
    )
    unmixed = worst["rhat"] >= MAX_RHAT or min(worst["ess_bulk"], worst["ess_tail"]) < MIN_ESS_PER_CHAIN * len(
        draws.chain
    )
    if unmixed and quantities is None and (dim := idata.attrs.get("exchangeable")):
        reasons += (LABELS.format(dim=dim),)
    return Verdict(reasons, divergences, worst["rhat"], worst["ess_bulk"], worst["ess_tail"], ebfmi)


_CONVERGENCE = (
    ("rhat", lambda draws: azs.rhat(draws), np.max),
    ("ess_bulk", lambda draws: azs.ess(draws, method="bulk"), np.min),
    ("ess_tail", lambda draws: azs.ess(draws, method="tail"), np.min),
)


def _extreme(values: xr.Dataset, pick: object) -> float:
    return float(pick([pick(values[name].values) for name in values.data_vars]))


def _varying(draws: xr.Dataset) -> xr.Dataset:
    """Keep the entries that vary, in one axis for each quantity."""
    out = {}
    for name, values in draws.data_vars.items():
        array = values.transpose("chain", "draw", ...).values
        flat = array.reshape(*array.shape[:2], -1)
        moves = (flat != flat[:1, :1]).any(axis=(0, 1))
        if moves.any():
            out[name] = (("chain", "draw", f"{name}_entry"), flat[..., moves])
    return xr.Dataset(out, {"chain": np.arange(draws.sizes["chain"]), "draw": np.arange(draws.sizes["draw"])})


def _degenerate(draws: xr.Dataset) -> list[str]:
    out = []
    for name, values in draws.data_vars.items():
        array = values.transpose("chain", "draw", ...).values
        if not np.isfinite(array).all():
            out.append(f"{name} has draws that are not finite")
        elif (np.ptp(array, axis=1) == 0).any():
            out.append(f"{name} has a constant chain")
    return out


def _reasons(worst: dict[str, float], ebfmi: float, divergences: int, chains: int) -> tuple[str, ...]:
    least = MIN_ESS_PER_CHAIN * chains
    checks = [
        (divergences == 0, f"{divergences} divergences"),
        (worst["rhat"] < MAX_RHAT, f"R-hat {worst['rhat']:.3f} (must be below {MAX_RHAT})"),
        (worst["ess_bulk"] >= least, f"bulk ESS {worst['ess_bulk']:.0f} (must be at least {least})"),
        (worst["ess_tail"] >= least, f"tail ESS {worst['ess_tail']:.0f} (must be at least {least})"),
        (ebfmi >= MIN_EBFMI, f"E-BFMI {ebfmi:.2f} (must be at least {MIN_EBFMI})"),
    ]
    return tuple(reason for ok, reason in checks if not ok)
