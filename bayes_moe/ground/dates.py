"""An index u that may be dates: one rule for numbers, dates and durations, whoever asks.

Dates and durations become days, dates those since 1970 (UTC). Days and their fractions are converted apart, so that the
same instants are the same numbers whatever the resolution that they came in.
"""

from __future__ import annotations

import datetime
import math
from numbers import Real

import numpy as np

from bayes_moe.ground.data import check_real

DAY = 86_400_000_000_000  # nanoseconds
NUMBER, DATE, ZONED, DURATION = "a number", "a date", "a date with a time zone", "a duration"
KINDS = {"M": DATE, "m": DURATION}  # NumPy's letters
REMEDY = "Convert it to float, or words that are dates by pandas.to_datetime."
FINER = ("ps", "fs", "as")  # than nanoseconds, which are kept
NO_LENGTH = ("Y", "M", "generic")  # units of durations: years, months, none


def index_values(name: str, values: object) -> np.ndarray:
    """Values of an index as float64: numbers as they are, dates and durations in days.

    Parameters
    ----------
    name : str
        The argument's, for errors.
    values : array-like
        Numbers; or dates: ``datetime64`` of any unit, pandas' timestamps (those with time zones in UTC) and periods
        (where they begin), Python's dates; or durations.

    Raises
    ------
    ValueError
        For missing dates, by row; kinds that are mixed; strings; durations in months or years, which have no length.
    """
    raw = _read(name, values)
    if raw.dtype.kind in KINDS:
        _refuse_missing(name, np.isnat(raw), raw)
        return _days(name, raw)
    if raw.dtype.kind in "USTV":
        raise ValueError(f"{name} must hold numbers or dates, got dtype {raw.dtype}. {REMEDY}")
    return _of_objects(name, raw) if raw.dtype.kind == "O" else check_real(name, raw)


def _read(name: str, values: object) -> np.ndarray:
    """Return an array of numbers, dates, durations or objects; pandas' own kinds of missing values are refused."""
    if np.ma.is_masked(values):
        _refuse_missing(name, np.ma.getmaskarray(values), values)
    if hasattr(values, "isna") and hasattr(values, "to_numpy") and not hasattr(values, "columns"):
        _refuse_missing(name, np.asarray(values.isna()), values.to_numpy(dtype=object))
        numbers = getattr(values.dtype, "kind", "O") in "fiub"  # nullable ones would become objects
        values = values.to_numpy(dtype=float) if numbers else values.to_numpy()
    try:
        return np.asarray(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a rectangular array of numbers or dates: {error}") from None


def _refuse_missing(name: str, missing: np.ndarray, values: np.ndarray) -> None:
    rows = np.argwhere(missing)
    if len(rows):
        place = tuple(rows[0].tolist())
        row = place[0] if len(place) == 1 else place
        found = f"got {values[place]} at row {row} ({len(rows)} such values)"
        raise ValueError(f"{name} must be finite, {found}. Drop these rows.")


def _of_objects(name: str, raw: np.ndarray) -> np.ndarray:
    """Objects as numbers or days, all of one kind."""
    flat = raw.ravel()
    _refuse_missing(name, np.array([missing(one) for one in flat], dtype=bool), flat)
    found = [_understood(name, one, row) for row, one in enumerate(flat)]
    other = next((row for row, (kind, _) in enumerate(found) if kind != found[0][0]), None)
    if other is not None:
        kinds = f"got {found[0][0]} at row 0 and {found[other][0]} at row {other}"
        raise ValueError(f"{name} must be of one kind throughout, {kinds}. Convert them.")
    return np.array([value for _, value in found], dtype=float).reshape(raw.shape)


def missing(one: object) -> bool:
    """Whether this is None, NaN, or pandas' NA or NaT."""
    if isinstance(one, np.datetime64 | np.timedelta64):
        return bool(np.isnat(one))
    return one is None or (isinstance(one, Real) and math.isnan(one)) or type(one).__name__ in ("NAType", "NaTType")


def _understood(name: str, one: object, row: int) -> tuple[str, float]:
    """What an object is, and its number."""
    if isinstance(one, Real) and not isinstance(one, np.timedelta64):
        return NUMBER, float(one)
    kind = ZONED if getattr(one, "tzinfo", None) is not None else DATE
    if hasattr(one, "to_timestamp"):  # pandas' periods
        one = one.to_timestamp()
    if isinstance(one, datetime.datetime):
        one = one if kind == DATE else one.astimezone(datetime.UTC).replace(tzinfo=None)
        one = one.to_datetime64() if hasattr(one, "to_datetime64") else np.datetime64(one, "us")
    elif isinstance(one, datetime.date):
        one = np.datetime64(one, "D")
    elif isinstance(one, datetime.timedelta):
        one, kind = one.to_timedelta64() if hasattr(one, "to_timedelta64") else np.timedelta64(one, "us"), DURATION
    if not isinstance(one, np.datetime64 | np.timedelta64):
        raise ValueError(f"{name} must hold numbers or dates, got {one!r:.80} at row {row}. {REMEDY}")
    return (DURATION if isinstance(one, np.timedelta64) else kind), float(_days(name, np.asarray(one)))


def _days(name: str, values: np.ndarray) -> np.ndarray:
    """Days of dates or durations; their whole days are integers, what remains is below one: both exact."""
    unit = np.datetime_data(values.dtype)[0]
    if values.dtype.kind == "m" and unit in NO_LENGTH:
        raise ValueError(
            f"{name} must be durations of some length, got {values.dtype}: years, months and "
            "bare numbers have none. Convert them."
        )
    if unit in FINER:
        values = values.astype(f"{values.dtype.kind}8[ns]")
    whole = values.astype(f"{values.dtype.kind}8[D]")
    rest = (values - whole).astype("m8[ns]").astype(np.int64)
    return whole.astype(np.int64) + rest / DAY
