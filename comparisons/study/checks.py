"""What is wrong with a regime or a study, found when it is made: nothing is fitted first."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING

import jax
import numpy as np

from bayes_moe import MoE
from bayes_moe.ground import flags
from bayes_moe.ground.data import float64
from bayes_moe.varying.model import VaryingCoefficient
from comparisons.study import knobs

if TYPE_CHECKING:
    from comparisons.study.plan import Regime, Study


def regime(made: Regime) -> None:
    """Refuse a regime whose parts are not what they must be.

    Raises
    ------
    ValueError
    """
    for name in ("name", "title"):
        _text(f"a regime's {name}", getattr(made, name))
    where = f"regime {made.name!r}: "
    if not isinstance(made.moe, MoE | VaryingCoefficient):
        raise ValueError(f"{where}moe must be an MoE or a VaryingCoefficient, got {type(made.moe).__name__}.")
    if made.generator is not None and not isinstance(made.generator, MoE):
        raise ValueError(f"{where}generator must be an MoE, got {type(made.generator).__name__}.")
    for name in ("truth", "losses", "scales", "draw"):
        value = getattr(made, name)
        if not callable(value) and (value is not None or name in ("truth", "losses")):
            raise ValueError(f"{where}{name} must be a function, got {value!r:.100}.")
    if made.draw is None and isinstance(made.moe, VaryingCoefficient):
        raise ValueError(f"{where}a model with an index needs draw, from a key and n to (x, z, u, size) and y.")
    _exponents(where, made.exponents)
    if isinstance(made.assumptions, str) or not all(isinstance(line, str) for line in made.assumptions):
        raise ValueError(f"{where}assumptions must be a tuple of texts, got {made.assumptions!r:.100}.")
    if made.scales is not None and not _bounded(made):
        raise ValueError(
            f"{where}scales ask for Cramér–Rao bounds, which studies have for models of classes, fitted to data drawn "
            "from themselves. Leave scales out."
        )


def _bounded(made: Regime) -> bool:
    classes = isinstance(made.moe, MoE) and not made.moe.real and not made.moe.gate.generative
    return classes and made.generator is None


def _exponents(where: str, exponents: object) -> None:
    good = isinstance(exponents, Mapping) and all(
        isinstance(name, str) and isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
        for name, value in exponents.items()
    )
    if not good:
        raise ValueError(f"{where}exponents must be a dict from the name of an error to a number, got {exponents!r}.")


@flags.defaults()
@float64
def losses(made: Regime, sizes: Sequence[int]) -> None:
    """Refuse a regime whose truth, losses or scales fail at sizes that are planned; nothing is compiled or computed.

    Raises
    ------
    ValueError
    """
    where = f"regime {made.name!r}: "
    truths = {n: _truth(where, made, n) for n in sizes}
    if not truths:
        return
    truth = truths[min(truths)]
    found = _losses_at(where, made, truth)
    lacking = [name for name in made.exponents if name not in found]
    lacking += [name for name in made.moe.fields if made.scales is not None and name not in (*found, *lacking)]
    if lacking:
        raise ValueError(
            f"{where}losses say nothing of {', '.join(lacking)}, which exponents or scales ask for. They have "
            f"{', '.join(found)}."
        )
    if made.scales is not None:
        for one in truths.values():
            _scales(where, made, one)


def _truth(where: str, made: Regime, n: int) -> dict[str, np.ndarray]:
    try:
        truth = {name: np.asarray(value, dtype=np.float64) for name, value in made.truth(n).items()}
    except Exception as error:  # whatever a user's function raises
        raise ValueError(f"{where}truth({n}) fails: {type(error).__name__}: {error}") from error
    source = made.source.fields
    if set(truth) != set(source):
        raise ValueError(f"{where}truth({n}) must have the parameters {', '.join(source)}, got {', '.join(truth)}.")
    for name, value in truth.items():
        if made.draw is None and value.shape != source[name].shape:
            raise ValueError(f"{where}truth({n}): {name} must have shape {source[name].shape}, got {value.shape}.")
        if not np.isfinite(value).all():
            raise ValueError(f"{where}truth({n}): {name} must be finite, got {value.tolist()}.")
        if made.draw is None and not np.all(source[name].support(value)):
            raise ValueError(f"{where}truth({n}): {name} must lie in {source[name].support!r}, got {value.tolist()}.")
    return truth


def _losses_at(where: str, made: Regime, truth: Mapping[str, np.ndarray]) -> list[str]:
    def abstract(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, np.float64)

    known = {name: abstract(value.shape) for name, value in truth.items()}
    fitted = {name: known[name] if made.draw is not None else abstract(f.shape) for name, f in made.moe.fields.items()}
    try:
        found = jax.eval_shape(made.losses, fitted, known)
    except Exception as error:
        said = " ".join(str(error).split())
        raise ValueError(
            f"{where}losses fail at the truth: {type(error).__name__}: {said:.300}. They must be pure functions of JAX "
            "arrays, from an estimate and the truth to a dict of scalars."
        ) from error
    good = isinstance(found, Mapping) and all(
        isinstance(name, str) and getattr(value, "shape", None) == () for name, value in found.items()
    )
    if not good or not found:
        raise ValueError(f"{where}losses must return a dict from names to scalars, got {found!r:.200}.")
    return list(found)


def _scales(where: str, made: Regime, truth: Mapping[str, np.ndarray]) -> None:
    try:
        found = {name: float(value) for name, value in made.scales(truth).items()}
    except Exception as error:
        raise ValueError(f"{where}scales fail at the truth: {type(error).__name__}: {error}") from error
    lacking = [name for name in made.moe.fields if name not in found]
    if lacking or not all(math.isfinite(value) and value > 0 for value in found.values()):
        raise ValueError(f"{where}scales must be positive, one for each of {', '.join(made.moe.fields)}, got {found}.")


def study(made: Study, regime_type: type[Regime]) -> None:
    """Refuse a plan that can't be run, for instance one whose regimes are none.

    Raises
    ------
    ValueError
    """
    for name in ("name", "title"):
        _text(f"a study's {name}", getattr(made, name))
    for name in ("sizes", "replicates", "settings", "estimators"):
        value = getattr(made, name)
        if not isinstance(value, Mapping) or not all(isinstance(key, str) and key.strip() for key in value):
            raise ValueError(f"{name} must be a dict with the names of estimators, got {value!r:.200}.")
    if isinstance(made.seed, bool) or not isinstance(made.seed, int):
        raise ValueError(f"seed must be a whole number (int), got {made.seed!r}.")
    for name in ("epilogue", "findings"):
        if getattr(made, name) is not None and not callable(getattr(made, name)):
            raise ValueError(f"{name} must be a function, got {getattr(made, name)!r:.100}.")
    _fits_together(made, regime_type)
    for name, estimator in made.estimators.items():
        if not callable(estimator):
            raise ValueError(f"estimators[{name!r}] must be a function, got {estimator!r:.100}.")
    for name, sizes in made.sizes.items():
        _sizes(name, sizes)
    for name, counts in made.replicates.items():
        _replicates(name, counts)
    for name, settings in made.settings.items():
        _settings(name, settings)
        knobs.check(name, made.estimators[name], settings)


def _fits_together(made: Study, regime_type: type[Regime]) -> None:
    if isinstance(made.regimes, regime_type) or not all(isinstance(one, regime_type) for one in made.regimes):
        raise ValueError(f"regimes must be a tuple of Regime, got {made.regimes!r:.200}. A single one is (regime,).")
    names = [one.name for one in made.regimes]
    if len(set(names)) < len(names):
        raise ValueError(f"regimes: each needs a name of its own, got {', '.join(names)}.")
    if made.sizes and not names:
        raise ValueError("regimes must be at least one, since sizes ask for fits.")
    for asked, given in (("sizes", "replicates"), ("sizes", "settings"), ("settings", "estimators")):
        lacking = [name for name in getattr(made, asked) if name not in getattr(made, given)]
        if lacking:
            raise ValueError(f"{given} has no entry {lacking[0]!r}, which {asked} has. Add one.")


def _sizes(name: str, sizes: object) -> None:
    if isinstance(sizes, str) or not isinstance(sizes, Sequence) or not all(counts(n, 2) for n in sizes) or not sizes:
        raise ValueError(f"sizes[{name!r}] must be whole numbers (int) from 2 up in a tuple, got {sizes!r}.")
    if len(set(sizes)) < len(sizes):
        raise ValueError(f"sizes[{name!r}] must be different from each other, got {sizes!r}.")


def _replicates(name: str, found: object) -> None:
    several = found.values() if isinstance(found, Mapping) else [found]
    keys = found.keys() if isinstance(found, Mapping) else ()
    if not several or not all(counts(count, 1) for count in several) or not all(counts(n, 2) for n in keys):
        raise ValueError(
            f"replicates[{name!r}] must be a whole number (int) from 1 up, or one for each size, got {found!r}."
        )


def _settings(name: str, settings: object) -> None:
    if not isinstance(settings, Mapping) or not all(isinstance(key, str) for key in settings):
        raise ValueError(f"settings[{name!r}] must be a dict from names to values, got {settings!r:.200}.")
    try:
        json.dumps(dict(settings))
    except (TypeError, ValueError) as error:
        raise ValueError(f"settings[{name!r}] must be names and what JSON can write: {error}.") from None


def counts(value: object, least: int) -> bool:
    """Whether a value is a whole number of at least that."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _text(what: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError(f"{what} must be a text of one line, got {value!r:.100}.")
