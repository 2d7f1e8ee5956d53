"""Settings that an estimator knows: those it needs and those it takes, so that a study is refused before it runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple


class Known(NamedTuple):
    """Names of settings.

    Parameters
    ----------
    needs, takes : tuple of str
        Without the first there is no fit; the second may be left out.
    """

    needs: tuple[str, ...]
    takes: tuple[str, ...] = ()


def known[F: Callable](needs: Iterable[str], takes: Iterable[str] = (), **when: Iterable[str]) -> Callable[[F], F]:
    """Say which settings an estimator knows; a decorator.

    Parameters
    ----------
    needs, takes : iterable of str
    **when : iterable of str
        What it needs besides where :func:`functools.partial` gives it this argument as true.
    """

    def mark(estimator: F) -> F:
        estimator.knobs = Known(tuple(needs), tuple(takes)), {name: tuple(more) for name, more in when.items()}
        return estimator

    return mark


def of(estimator: Callable) -> Known | None:
    """Settings that an estimator knows; None for one that does not say."""
    given: dict[str, object] = {}
    while isinstance(estimator, partial):
        given, estimator = {**estimator.keywords, **given}, estimator.func
    if not hasattr(estimator, "knobs"):
        return None
    found, when = estimator.knobs
    return Known((*found.needs, *(name for key, more in when.items() if given.get(key) for name in more)), found.takes)


def keywords(function: Callable, without: Iterable[str] = ()) -> tuple[str, ...]:
    """Names of a function's keyword arguments, but some."""
    kinds = inspect.signature(function).parameters.values()
    return tuple(p.name for p in kinds if p.kind == p.KEYWORD_ONLY and p.name not in without)


def check(name: str, estimator: Callable, settings: Mapping[str, object]) -> None:
    """Refuse settings that an estimator does not know, and their lack.

    Raises
    ------
    ValueError
    """
    found = of(estimator)
    if found is None:
        return
    unknown = [key for key in settings if key not in (*found.needs, *found.takes)]
    missing = [key for key in found.needs if key not in settings]
    if unknown or missing:
        said = [f"unknown: {', '.join(unknown)}"] if unknown else []
        said += [f"missing: {', '.join(missing)}"] if missing else []
        optional = f"; it may have {', '.join(found.takes)}" if found.takes else ""
        raise ValueError(f"settings[{name!r}]: {'; '.join(said)}. It needs {', '.join(found.needs)}{optional}.")
