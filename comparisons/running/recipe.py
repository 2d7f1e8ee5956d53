"""Where a study comes from: the catalogue or a user's file. A recipe is small, and any process can follow it."""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from comparisons import catalogue
from comparisons.study.plan import Study, digest


@dataclass(frozen=True)
class Recipe:
    """How to make a study, here or on a worker that has not seen the user's file.

    Parameters
    ----------
    name : str
        In the catalogue, or the path of a Python file.
    quick : bool
    source : str, optional
        The text of that file.
    """

    name: str
    quick: bool = False
    source: str | None = None

    def study(self) -> Study:
        """Make the study; once in each process, so that compiled code is found again."""
        return _make(self)


def find(name: str, quick: bool = False) -> Recipe:
    """Find a study by its name in the catalogue, or in a Python file.

    Raises
    ------
    ValueError
        For an unknown name (near ones are suggested), or a file that can't be read, fails to import or has no study.
    """
    if name.endswith(".py"):
        try:
            recipe = Recipe(name, quick, Path(name).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the study file {name} can't be read: {error}.") from None
    else:
        known("study", [name], catalogue.STUDIES)
        recipe = Recipe(name, quick)
    recipe.study()
    return recipe


def known(kind: str, names: Iterable[str], choices: Iterable[str]) -> None:
    """Refuse names that are not among the choices, suggesting near ones."""
    choices = list(choices)
    for name in names:
        if name not in choices:
            near = difflib.get_close_matches(name, choices, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"there is no {kind} {name!r}; there are {', '.join(choices)}.{hint}")


def narrow(
    study: Study,
    *,
    regimes: Iterable[str] | None = None,
    estimators: Iterable[str] | None = None,
    sizes: tuple[int, ...] | None = None,
    replicates: int | None = None,
) -> Study:
    """Return the study with another plan: fewer regimes or estimators, other sizes or numbers of replicates.

    A cell's result does not depend on the plan, so what was computed under another plan still counts.

    Raises
    ------
    ValueError
        For unknown regimes or estimators.
    """
    regimes = [r.name for r in study.regimes] if regimes is None else list(regimes)
    estimators = list(study.sizes) if estimators is None else list(estimators)
    known("regime", regimes, [r.name for r in study.regimes])
    known("estimator", estimators, study.settings)
    return replace(
        study,
        regimes=tuple(r for r in study.regimes if r.name in regimes),
        sizes=_plan(estimators, study.sizes, sizes),
        replicates=_plan(estimators, study.replicates, replicates),
    )


def _plan(names: list[str], planned: Mapping, override: object) -> dict:
    """Plan of each estimator; one that the study settles but does not plan takes over the first one's."""
    default = next(iter(planned.values()), None)
    return {name: planned.get(name, default) if override is None else override for name in names}


@functools.cache
def _make(recipe: Recipe) -> Study:
    if recipe.source is None:
        if recipe.name not in catalogue.STUDIES:
            raise ValueError(
                f"the study {recipe.name!r} is not in this version's catalogue. Use the version that made its results."
            )
        return replace(catalogue.STUDIES[recipe.name](recipe.quick), recipe=recipe)
    module = ModuleType(f"study_{digest(recipe.source)[:12]}")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(recipe.source, recipe.name, "exec"), module.__dict__)
    except BaseException as error:  # whatever a user's file may raise, SystemExit too
        del sys.modules[module.__name__]
        if isinstance(error, KeyboardInterrupt):
            raise
        message = " ".join(str(error).split())
        raise ValueError(f"the study file {recipe.name} fails to import: {type(error).__name__}: {message}") from None
    found = [value for value in vars(module).values() if isinstance(value, Study)]
    if len(found) != 1:
        raise ValueError(f"the study file {recipe.name} must hold exactly one Study, got {len(found)}.")
    return replace(found[0].smaller() if recipe.quick else found[0], recipe=recipe)
