"""Which of a test's many cases are run by `make test`, and which only by `make test-all`."""

from collections.abc import Callable, Iterable, Mapping

import pytest


def quick(cases: Mapping | Iterable, *chosen: object, ids: Callable | None = None) -> list:
    """Parameters for `pytest.mark.parametrize`: those chosen are quick, by name or as they are, the others slow."""
    named = cases if isinstance(cases, Mapping) else None
    cases = list(cases)
    unknown = [one for one in chosen if one not in cases]
    assert not unknown, f"no such cases: {unknown}"
    made = []
    for case in cases:
        values = (named[case],) if named else case if isinstance(case, tuple) and ids is None else (case,)
        name = case if named else ids(case) if ids else None
        made.append(pytest.param(*values, id=name, marks=() if case in chosen else pytest.mark.slow))
    return made
