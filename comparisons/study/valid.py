"""What was read is looked at before it is used: it may be damaged, or made to mislead. Each check returns its value."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

LONGEST = 16 * 2**20  # letters of a stored text
DEEPEST = 12  # lists and objects within each other
BIGGEST = 10**12  # of a count
WORDS = 200  # letters of a name


class Invalid(ValueError):
    """What was read is not what was written."""


def parsed(text: object, what: str) -> dict[str, object]:
    """JSON object of a text, of bounded depth."""
    if not isinstance(text, str) or len(text) > LONGEST:
        raise Invalid(f"{what} must be a text of at most {LONGEST:,} letters")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{what} is no JSON ({type(error).__name__})") from None
    if not isinstance(value, dict):
        raise Invalid(f"{what} must be a JSON object")
    _shallow(value, what, DEEPEST)
    return value


def _shallow(value: object, what: str, levels: int) -> None:
    """Refuse what is too deep, and texts that can't be written again."""
    if not levels:
        raise Invalid(f"{what} is nested too deep")
    if isinstance(value, str):
        text(value, what, longest=LONGEST, lines=True)
    parts = value if isinstance(value, list) else [*value, *value.values()] if isinstance(value, dict) else ()
    for part in parts:
        if isinstance(part, str | list | dict):
            _shallow(part, what, levels - 1)


def text(value: object, what: str, *, longest: int = WORDS, lines: bool = False) -> str:
    """Text that can be shown: no control characters, or with ``lines`` any that can be written as UTF-8."""
    if not isinstance(value, str) or len(value) > longest:
        raise Invalid(f"{what} must be a text of at most {longest:,} letters")
    if lines:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Invalid(f"{what} holds half a character") from None
    elif not value.isprintable():
        raise Invalid(f"{what} holds characters that can't be shown")
    return value


def whole(value: object, what: str, low: int = 0, high: int = BIGGEST) -> int:
    """Whole number within bounds."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise Invalid(f"{what} must be a whole number from {low} to {high:,}")
    return value


def number(value: object, what: str, low: float = -math.inf, high: float = math.inf, *, finite: bool = True) -> float:
    """Number within bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Invalid(f"{what} must be a number")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if (finite and not math.isfinite(found)) or found < low or found > high:
        limits = f" from {low:g}" * math.isfinite(low) + f" up to {high:g}" * math.isfinite(high)
        raise Invalid(f"{what} must be a {'finite ' * finite}number{limits}")
    return found


def mapping(value: object, what: str, item: Callable[[object, str], object]) -> dict:
    """Mapping of names to what a check takes."""
    if not isinstance(value, dict):
        raise Invalid(f"{what} must be a mapping of names")
    return {text(name, f"a name in {what}"): item(part, f"{what}[{name!r}]") for name, part in value.items()}


def several(value: object, what: str, item: Callable[[object, str], object], most: int = 10_000) -> tuple:
    """Tuple of what a check takes."""
    if not isinstance(value, list) or len(value) > most:
        raise Invalid(f"{what} must be a list of at most {most:,}")
    return tuple(item(part, what) for part in value)


def shown(value: str) -> str:
    """Text as a terminal may have it: what moves its cursor or changes its colours is left out."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value)
