"""What is written of a study beside its results, so that they can be read without its code."""

from __future__ import annotations

from collections.abc import Mapping

from comparisons.report import rates
from comparisons.running.described import FORMAT
from comparisons.study.plan import Regime, Study


def describe(study: Study) -> dict[str, object]:
    """Return a study as what JSON can write: titles, exponents, plan, settings."""
    return {
        "format": FORMAT,
        "name": study.name,
        "title": study.title,
        "seed": study.seed,
        "numerics": study.numerics,
        "dtype": study.dtype,
        "flags": study.unusual(),
        "regimes": [_regime(regime) for regime in study.regimes],
        "sizes": {name: list(sizes) for name, sizes in study.sizes.items()},
        "replicates": {
            name: [[n, count] for n, count in counts.items()] if isinstance(counts, Mapping) else counts
            for name, counts in study.replicates.items()
        },
        "settings": {name: dict(settings) for name, settings in study.settings.items()},
    }


def _regime(regime: Regime) -> dict[str, object]:
    return {
        "name": regime.name,
        "title": regime.title,
        "fields": {name: list(field.free_shape) for name, field in regime.moe.fields.items()},
        "exponents": {name: float(value) for name, value in regime.exponents.items()},
        "assumptions": list(regime.assumptions),
        "bounded": regime.scales is not None,
    }


def describe_at(regime: Regime, n: int) -> dict[str, object]:
    """Return what a regime says at one size as what JSON can write.

    Raises
    ------
    ValueError
        If there is no Cramér–Rao bound, though the regime has scales.
    """
    bounds, scales = {}, {}
    if regime.scales is not None:
        try:
            scales = {name: float(value) for name, value in regime.scales(regime.truth(n)).items()}
            bounds = {
                statistic: {name: float(value[0]) for name, value in rates.bound(regime, [n], statistic).items()}
                for statistic in rates.STATISTICS
            }
        except Exception as error:  # a user's own model and truth may raise anything
            raise ValueError(
                f"regime {regime.name!r} has scales, but its Cramér–Rao bound at n = {n} can't be computed "
                f"({type(error).__name__}: {error}). Leave scales out."
            ) from error
    return {
        "fingerprint": regime.fingerprint(n),
        "bounds": bounds,
        "scales": scales,
        "vanishing": list(regime.vanishing(n)),
    }
