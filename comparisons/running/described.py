"""A study as data: what reading its results needs, written by ``run`` beside them, and checked when it is read.

Tables, figures and reports ask a study for titles, exponents, scales, bounds and the identity of its cells. A
:class:`Described` answers as a :class:`comparisons.study.Study` does, from numbers and texts alone: nothing that came
with a results folder is run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from comparisons.report import rates
from comparisons.report.pictures import Picture
from comparisons.study import valid
from comparisons.study.plan import Cell, Regime, Study
from comparisons.study.valid import Invalid

FORMAT = 1
MOST_CELLS = 10**9
LARGE = 1e100  # bound or scale
STEEP = 100.0  # exponent
TITLE = 2000  # letters of a title or an assumption


@dataclass(frozen=True)
class Free:
    """Shape of a parameter in the free vector, which is all that tables ask of it."""

    free_shape: tuple[int, ...]


@dataclass(frozen=True)
class Parameters:
    """What is fitted, by name."""

    fields: Mapping[str, Free]


@dataclass(frozen=True)
class AtSize:
    """What a regime says at one sample size.

    Parameters
    ----------
    fingerprint : dict
        Of :meth:`comparisons.study.Regime.fingerprint`.
    bounds : dict
        For each statistic, the efficient limit's error of each parameter; empty without.
    scales : dict
        Size of each parameter; empty without.
    vanishing : tuple of bool
        Of each true atom, whether its c is zero.
    """

    fingerprint: Mapping[str, object]
    bounds: Mapping[str, Mapping[str, float]]
    scales: Mapping[str, float]
    vanishing: tuple[bool, ...]


@dataclass(frozen=True, eq=False)
class DescribedRegime:
    """A regime as data; fields are those of :class:`comparisons.study.Regime`, and what it says at each size."""

    name: str
    title: str
    moe: Parameters
    exponents: Mapping[str, float]
    assumptions: tuple[str, ...]
    bounded: bool
    at: Mapping[int, AtSize]

    main = Regime.main

    @property
    def scales(self) -> Callable[[int], Mapping[str, float]] | None:
        """Size of each parameter at a sample size; None where there is no bound to set beside it."""
        return self.scale if self.bounded else None

    def scale(self, n: int) -> Mapping[str, float]:
        """Size of each parameter at n."""
        return self.at[n].scales

    def fingerprint(self, n: int) -> Mapping[str, object]:
        """What a cell's result depends on at n."""
        return self.at[n].fingerprint

    def bound(self, n: int, statistic: str) -> Mapping[str, float]:
        """Error of an efficient estimator at n."""
        return self.at[n].bounds[statistic]

    def vanishing(self, n: int) -> tuple[bool, ...]:
        """Of each true atom at n, whether its c is zero."""
        return self.at[n].vanishing


@dataclass(frozen=True, eq=False)
class Described:
    """A study as data; fields are those of :class:`comparisons.study.Study`."""

    name: str
    title: str
    seed: object
    numerics: object
    dtype: str
    regimes: tuple[DescribedRegime, ...]
    sizes: Mapping[str, tuple[int, ...]]
    replicates: Mapping[str, int | Mapping[int, int]]
    settings: Mapping[str, Mapping[str, object]]
    flags: Mapping[str, object] = field(default_factory=dict)
    found: Found | None = None
    recipe: None = None

    count, regime, plans, identity = Study.count, Study.regime, Study.plans, Study.identity

    def unusual(self) -> Mapping[str, object]:
        """JAX's settings of the last ``run``, as :meth:`comparisons.study.Study.unusual` has them."""
        return self.flags

    def has(self, cell: Cell) -> bool:
        """Whether this study has such a cell, and says what is needed at its size."""
        return cell.estimator in self.settings and any(
            regime.name == cell.regime and cell.n in regime.at for regime in self.regimes
        )

    @property
    def findings(self) -> Callable[[Sequence[object]], tuple[str, Picture]] | None:
        """What ``run`` found, whichever rows are there now."""
        return None if self.found is None else self.found.of


@dataclass(frozen=True)
class Found:
    """Text and figure of a study's own findings, as ``run`` drew them, and of how many fits."""

    text: str
    picture: Picture
    fits: int

    def of(self, rows: Sequence[object]) -> tuple[str, Picture]:
        """Text and figure, with a word where there are other fits by now."""
        late = f"(of {self.fits} fits; there are {len(rows)} now: `bayes-moe study run` brings this up to date)\n\n"
        return late * (self.fits != len(rows)) + self.text, self.picture


# Read and looked at -----------------------------------------------------------------------------------------------


def read(about: Mapping[str, object], sizes: Sequence[Mapping[str, object]], found: Found | None = None) -> Described:
    """Study of its description, every part of which is looked at.

    Parameters
    ----------
    about : dict
        Of :func:`comparisons.running.description.describe`.
    sizes : sequence of dict
        Of :func:`comparisons.running.description.describe_at`, each with its regime and n.
    found : Found, optional

    Raises
    ------
    Invalid
        Where it is no description of a study.
    """
    if about.get("format") != FORMAT:
        raise Invalid(f"its format must be {FORMAT}, as this version reads it")
    parts = valid.several(about.get("regimes"), "regimes", _read_regime)
    at = [(valid.text(one.get("regime"), "regime"), valid.whole(one.get("n"), "n", 1), one) for one in sizes]
    regimes = tuple(
        DescribedRegime(**part, at={n: _read_size(one, part) for name, n, one in at if name == part["name"]})
        for part in parts
    )
    if len({regime.name for regime in regimes}) < len(regimes):
        raise Invalid("each of its regimes must have a name of its own")
    study = Described(
        valid.text(about.get("name"), "name"),
        _read_line(about.get("title"), "title"),
        valid.whole(about.get("seed"), "seed", -(2**64), 2**64),
        valid.whole(about.get("numerics"), "numerics"),
        valid.text(about.get("dtype"), "dtype"),
        regimes,
        valid.mapping(about.get("sizes"), "sizes", _read_sizes),
        valid.mapping(about.get("replicates"), "replicates", _read_counts),
        valid.mapping(about.get("settings"), "settings", _read_settings),
        _read_settings(about.get("flags", {}), "flags"),
        found,
    )
    lacking = [name for name in study.sizes if name not in study.replicates or name not in study.settings]
    if lacking:
        raise Invalid(f"replicates and settings must have {lacking[0]!r}, as sizes have")
    return study


def _read_regime(value: object, what: str) -> dict[str, object]:
    about = valid.mapping(value, what, lambda part, _: part)
    fields = valid.mapping(about.get("fields"), "fields", _read_shape)
    exponents = valid.mapping(about.get("exponents"), "exponents", lambda x, name: valid.number(x, name, -STEEP, STEEP))
    if not isinstance(about.get("bounded"), bool):
        raise Invalid("bounded must be true or false")
    return {
        "name": valid.text(about.get("name"), "name of a regime"),
        "title": _read_line(about.get("title"), "title of a regime"),
        "moe": Parameters(fields),
        "exponents": exponents,
        "assumptions": valid.several(about.get("assumptions"), "assumptions", _read_line),
        "bounded": about["bounded"],
    }


def _read_line(value: object, what: str) -> str:
    return valid.shown(valid.text(value, what, longest=TITLE, lines=True))


def _read_shape(value: object, what: str) -> Free:
    shape = valid.several(value, what, lambda part, name: valid.whole(part, name, high=10**6), most=8)
    if math.prod(shape) > valid.BIGGEST:
        raise Invalid(f"{what} is too large")
    return Free(shape)


def _read_size(about: Mapping[str, object], regime: Mapping[str, object]) -> AtSize:
    names = regime["moe"].fields.keys()
    bounds = valid.mapping(about.get("bounds"), "bounds", _read_positive)
    scales = _read_positive(about.get("scales"), "scales")
    wanted = set(rates.STATISTICS) if regime["bounded"] else set()
    if bounds.keys() != wanted or any(part.keys() != names for part in bounds.values()):
        raise Invalid("bounds must be those of every parameter, or none")
    if wanted and not names <= scales.keys():
        raise Invalid("scales must be those of every parameter")
    fingerprint = valid.mapping(about.get("fingerprint"), "fingerprint", lambda part, _: part)
    return AtSize(fingerprint, bounds, scales, valid.several(about.get("vanishing"), "vanishing", _read_flag))


def _read_positive(value: object, what: str) -> dict[str, float]:
    return valid.mapping(value, what, lambda part, name: valid.number(part, name, 1 / LARGE, LARGE))


def _read_flag(value: object, what: str) -> bool:
    if not isinstance(value, bool):
        raise Invalid(f"{what} must be true or false")
    return value


def _read_sizes(value: object, what: str) -> tuple[int, ...]:
    return valid.several(value, what, lambda part, name: valid.whole(part, name, low=2))


def _read_counts(value: object, what: str) -> int | dict[int, int]:
    if not isinstance(value, list):
        return valid.whole(value, what, 1, MOST_CELLS)
    pairs = valid.several(value, what, lambda part, name: valid.several(part, name, valid.whole, most=2))
    if not pairs or any(len(pair) != 2 or not 1 <= pair[1] <= MOST_CELLS for pair in pairs):
        raise Invalid(f"{what} must be pairs of a size and a number of data sets")
    return dict(pairs)


def _read_settings(value: object, what: str) -> dict[str, object]:
    return valid.mapping(value, what, lambda part, _: part)
