"""What is run: regimes (a model and its truth), a study (regimes x sizes x replicates x estimators), its cells."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax import Array

from bayes_moe import MoE
from bayes_moe.ground import flags
from bayes_moe.ground.parameters import Params
from bayes_moe.varying.model import VaryingCoefficient
from comparisons.study import checks
from comparisons.study.contract import Estimator
from comparisons.study.estimators import ESTIMATORS

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # takes a second to import

NUMERICS = 9  # raise it when the same cell gives another answer
DTYPE = "float64"
DIGITS = 9  # of the numbers in a cell's identity: libraries differ in the last bits
LONGEST = 100  # name of a study, in letters
FEW = 3  # points at which regimes are told apart


class MissingExtra(ImportError):
    """What a study needs is in an optional extra that is not installed; the message says how to get it."""


@dataclass(frozen=True, eq=False)
class Regime:
    """A model with a truth that may drift with n.

    Parameters
    ----------
    name, title : str
        For the command line, and for people.
    moe : MoE or VaryingCoefficient
        What is fitted.
    truth : callable
        From n to parameters.
    losses : callable
        From an estimate and the truth to numbers by name: pure, compiled and mapped over draws.
    exponents : mapping of str to float
        What theory says of each error: n to this power.
    scales : callable, optional
        From the truth to the size of each parameter, beside which its Cramér–Rao bound is set; without, there is none.
        For models of classes.
    generator : MoE, optional
        What data are drawn from, where it is not what is fitted.
    draw : callable, optional
        From a key and n to covariates and responses, for models whose covariates are more than one array.
    assumptions : tuple of str
        What the settings take for granted, for the report.

    Raises
    ------
    ValueError
        For parts that do not fit together.
    """

    name: str
    title: str
    moe: MoE | VaryingCoefficient
    truth: Callable[[int], Params]
    losses: Callable[[Params, Params], dict[str, Array]]
    exponents: Mapping[str, float]
    scales: Callable[[Params], dict[str, float]] | None = None
    generator: MoE | None = None
    draw: Callable[[Array, int], tuple[object, np.ndarray]] | None = None
    assumptions: tuple[str, ...] = ()

    def __post_init__(self):
        """Refuse what can't be a regime."""
        checks.regime(self)

    @functools.lru_cache(maxsize=256)  # noqa: B019 - as below
    def rehearse(self, sizes: tuple[int, ...]) -> None:
        """Refuse truths, losses and scales that fail at these sizes."""
        checks.losses(self, sizes)

    @property
    def source(self) -> MoE:
        """What data are drawn from."""
        return self.generator or self.moe

    @property
    def main(self) -> list[str]:
        """Errors to show first: those of the parameters, or of what else theory speaks of."""
        return [name for name in self.moe.fields if name in self.exponents] or list(self.exponents)

    def vanishing(self, n: int) -> tuple[bool, ...]:
        """Of each true atom of a mixture at n, whether its c is zero, where theory has other rates; else nothing."""
        return tuple(not np.any(c) for c in self.truth(n).get("c", ()))

    @functools.lru_cache(maxsize=4096)  # noqa: B019 - regimes live as long as the process
    @flags.defaults()
    def fingerprint(self, n: int) -> dict[str, object]:
        """Truth at n, and what the model says there of a few points: a regime with another model is another regime."""
        truth = self.truth(n)
        values = {name: _digits(value) for name, value in truth.items()}
        if self.draw is not None:
            x, y = self.draw(jax.random.key(0), FEW)
            fitted = {
                "constant": getattr(self.moe, "constant", ()),
                **{name: f.shape for name, f in self.moe.fields.items()},
            }
            return {"truth": values, "draws": [_digits(part) for part in (*x, y)], "fitted": fitted}
        points = np.cos(np.arange(FEW * self.moe.gate.features)).reshape(FEW, -1)
        if not self.moe.real:
            said = {"says": _digits(self.moe.class_probabilities(truth, points))}
        else:
            density = self.source.log_density(truth, points, points[:, 0])
            said = {"says": _digits(density), "fitted": {name: f.shape for name, f in self.moe.fields.items()}}
        return {"truth": values, **said}


def _digits(values: np.ndarray) -> list[str]:
    return [f"{value:.{DIGITS}g}" for value in np.ravel(values)]


@dataclass(frozen=True)
class Cell:
    """One fit: an estimator on one data set."""

    regime: str
    n: int
    replicate: int
    estimator: str

    @classmethod
    def of(cls, record: Mapping[str, object]) -> Cell:
        """Cell of a row or of a stored identity."""
        return cls(*(record[field.name] for field in fields(cls)))


@dataclass(frozen=True)
class Study:
    """A plan of fits.

    Parameters
    ----------
    name, title : str
    regimes : tuple of Regime
    sizes : mapping of str to tuple of int
        For each estimator, the sample sizes; none where all work is the epilogue's.
    replicates : mapping of str to int, or to mapping of int to int
        For each estimator, the number of data sets at every size, or at each. The first are shared by all estimators.
    settings : mapping of str to mapping
        For each estimator, its settings.
    seed : int
    estimators : mapping of str to callable
        The estimators by name; a study of your own may bring others.
    epilogue : callable, optional
        What to do after the cells: from the results folder to a text and the path of a figure.
    findings : callable, optional
        What the rows say beside errors by size: from them to a text and a figure, for the terminal and the report.
    recipe : Recipe, optional
        How another process makes the same study; set by what loads it.

    Raises
    ------
    ValueError
        For a plan that does not fit together.
    """

    name: str
    title: str
    regimes: tuple[Regime, ...]
    sizes: Mapping[str, tuple[int, ...]]
    replicates: Mapping[str, int | Mapping[int, int]]
    settings: Mapping[str, Mapping[str, object]]
    seed: int = 0
    estimators: Mapping[str, Estimator] = field(default_factory=lambda: ESTIMATORS)
    epilogue: Callable[[Path], tuple[str, Path]] | None = None
    findings: Callable[[Sequence[dict[str, object]]], tuple[str, Figure]] | None = None
    recipe: object = None

    @property
    def numerics(self) -> int:
        """Version of what a cell answers."""
        return NUMERICS

    @property
    def dtype(self) -> str:
        """Precision of the fits."""
        return DTYPE

    def __post_init__(self):
        """Refuse a plan that can't be run, before anything is."""
        _refuse_name(self.name)
        checks.study(self, Regime)
        sizes = tuple(sorted({n for sizes in self.sizes.values() for n in sizes}))
        for regime in self.regimes:
            regime.rehearse(sizes)

    def regime(self, name: str) -> Regime:
        """Look a regime up."""
        return next(regime for regime in self.regimes if regime.name == name)

    def smaller(self) -> Study:
        """Quick version of a study that declares none: its two smallest sizes, two replicates."""
        return replace(
            self,
            sizes={name: tuple(sorted(sizes)[:2]) for name, sizes in self.sizes.items()},
            replicates={name: 2 for name in self.replicates},
        )

    def cells(self) -> Iterator[Cell]:
        """Every fit, replicate by replicate, so that the time left is known after the first."""
        counts = {(name, n): self.count(name, n) for name, sizes in self.sizes.items() for n in sizes}
        for replicate in range(max(counts.values(), default=0)):
            for regime in self.regimes:
                for (estimator, n), count in counts.items():
                    if replicate < count:
                        yield Cell(regime.name, n, replicate, estimator)

    def count(self, estimator: str, n: int) -> int:
        """Replicates of an estimator at a size."""
        counts = self.replicates[estimator]
        return counts if isinstance(counts, int) else counts.get(n, max(counts.values()))

    def plans(self, cell: Cell) -> bool:
        """Whether a cell is in the plan."""
        return (
            any(regime.name == cell.regime for regime in self.regimes)
            and cell.n in self.sizes.get(cell.estimator, ())
            and cell.replicate < self.count(cell.estimator, cell.n)
        )

    def unusual(self) -> Mapping[str, object]:
        """JAX's settings that results depend on and that can't be held, where they are not the usual ones."""
        return flags.unusual()

    def identity(self, cell: Cell) -> dict[str, object]:
        """Everything that a cell's result depends on."""
        return {
            "numerics": self.numerics,
            "dtype": self.dtype,
            "study": self.name,
            "seed": self.seed,
            "regime": cell.regime,
            **self.regime(cell.regime).fingerprint(cell.n),
            "n": cell.n,
            "replicate": cell.replicate,
            "estimator": cell.estimator,
            "settings": dict(self.settings[cell.estimator]),
            **({"flags": unusual} if (unusual := self.unusual()) else {}),
        }

    def data_key(self, cell: Cell) -> Array:
        """Key of a cell's data: without the estimator, so that all estimators see the same."""
        return key_of([self.seed, "data", self.name, cell.regime, cell.n, cell.replicate])

    def fit_key(self, cell: Cell) -> Array:
        """Key of what is random in a cell's fit."""
        return key_of([self.seed, "fit", self.identity(cell)])

    @flags.defaults()
    def data(self, cell: Cell) -> tuple[object, np.ndarray, dict[str, np.ndarray]]:
        """Covariates (the regime's, the gate's own, or standard normal), responses and truth of a cell."""
        regime, key = self.regime(cell.regime), self.data_key(cell)
        if regime.draw is not None:
            return *regime.draw(key, cell.n), regime.truth(cell.n)
        if regime.source.gate.generative:
            truth = regime.truth(cell.n)
            return *regime.source.simulate_joint(key, truth, cell.n), truth
        x_key, y_key = jax.random.split(key)
        with jax.enable_x64(True):
            x = np.asarray(jax.random.normal(x_key, (cell.n, regime.moe.gate.features)))
        truth = regime.truth(cell.n)
        return x, regime.source.simulate(y_key, truth, x), truth


def _refuse_name(name: object) -> None:
    """Refuse a name that is no plain folder's: results are kept in a folder of that name, and never elsewhere."""
    plain = isinstance(name, str) and 0 < len(name) <= LONGEST and name.isprintable() and name == name.strip()
    if not plain or name[0] in ".-" or set(name) & set("/\\:"):
        raise ValueError(
            f"name must be that of a folder, at most {LONGEST} letters without / \\ :, not beginning with . or -; "
            f"got {name!r}. Results are kept in a folder of that name."
        )


def digest(identity: object) -> str:
    """SHA-256 of anything that JSON can write, keys sorted."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@flags.defaults()
def key_of(identity: object) -> Array:
    """JAX key derived from an identity: independent of order, workers, retries and JAX's settings."""
    words = np.frombuffer(bytes.fromhex(digest(identity)), dtype="<u4")
    key = jax.random.key(0)
    for word in words[:4]:
        key = jax.random.fold_in(key, word)
    return key
