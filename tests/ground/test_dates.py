"""An index of dates: one number for one instant, whatever it comes as; missing ones, by row; rows with names."""

import datetime
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from bayes_moe import varying_coefficient
from bayes_moe.ground.data import same_rows
from bayes_moe.ground.dates import index_values
from bayes_moe.varying.indexed import make_grid, scale_points
from mle.kernel import kernel_em

N = 60
MODEL = varying_coefficient("normal", 1, gate_features=0)
TIMES = pd.date_range("1968-03-04 05:06:07.123", periods=N, freq="37h")
SECONDS = np.array([time.timestamp() for time in TIMES.tz_localize("UTC")])  # of Python's own clock
RNG = np.random.default_rng(0)
Z, Y, NONE = RNG.normal(size=(N, 1)), RNG.normal(size=N), np.zeros((N, 0))

SAME = {
    "nanoseconds": TIMES.as_unit("ns"),
    "microseconds": TIMES.as_unit("us"),
    "milliseconds": TIMES.as_unit("ms").to_numpy(),
    "a series": TIMES.to_series().reset_index(drop=True),
    "timestamps in a list": list(TIMES),
    "Python's": TIMES.to_pydatetime(),
    "with a time zone": TIMES.tz_localize("UTC").tz_convert("Asia/Tokyo"),
    "a series with a time zone": pd.Series(TIMES.tz_localize("UTC").tz_convert("America/Lima")),
    "Python's with a time zone": [time.to_pydatetime() for time in TIMES.tz_localize("UTC").tz_convert("Asia/Tokyo")],
    "periods": TIMES.to_period("ms"),
    "periods in a list": list(TIMES.to_period("ms")),
    "Arrow's": pa.array(TIMES),
    "Arrow's in a series": pd.Series(TIMES, dtype="timestamp[ns][pyarrow]"),
    "objects": pd.Series(TIMES, dtype=object),
}


@pytest.mark.parametrize("times", SAME.values(), ids=SAME)
def test_the_same_instants_are_the_same_days(times):
    days = index_values("u", times)
    np.testing.assert_allclose(days, SECONDS / 86400, rtol=1e-12)
    np.testing.assert_array_equal(days, index_values("u", TIMES.as_unit("ns").to_numpy()))


def test_a_fit_does_not_depend_on_the_resolution_of_its_dates():
    options = {"h": 0.5, "grid": 4, "random_state": 0}
    fits = [kernel_em.fit(MODEL, NONE, Z, times, Y, **options) for times in (SAME["nanoseconds"], SAME["objects"])]
    np.testing.assert_array_equal(fits[0].theta, fits[1].theta)
    np.testing.assert_allclose(fits[0].grid[[0, -1]], SECONDS[[0, -1]] / 86400, rtol=1e-12)
    by_number = kernel_em.fit(MODEL, NONE, Z, SECONDS, Y, **options)
    np.testing.assert_allclose(by_number.theta, fits[0].theta, atol=1e-6)
    at = [fits[0].at(times)["alpha"] for times in (TIMES[3:5], SECONDS[3:5] / 86400, [TIMES[3].date(), TIMES[4]][1:])]
    np.testing.assert_allclose(at[0], at[1], atol=1e-9)
    np.testing.assert_array_equal(at[0][1:], at[2])


def test_grids_and_ranges_may_be_dates_too():
    wide = [datetime.date(1968, 1, 1), datetime.date(1969, 1, 1)]
    data = MODEL.observe(NONE, Z, TIMES, Y, u_range=wide)
    np.testing.assert_array_equal(data.range, [-731.0, -365.0])
    np.testing.assert_allclose(make_grid(data, np.array(["1968-01-01", "1968-07-02"], "M8[D]")), [0.0, 0.5])
    np.testing.assert_allclose(scale_points(pd.Timestamp("1968-07-02"), data.range), [0.5])


def test_durations_are_days_and_far_dates_do_not_overflow():
    np.testing.assert_array_equal(index_values("u", pd.to_timedelta(["36h", "1D"])), [1.5, 1.0])
    np.testing.assert_array_equal(index_values("u", [datetime.timedelta(1.5)]), [1.5])
    np.testing.assert_array_equal(index_values("u", np.array([0, 43_200 * 10**12], "m8[ps]")), [0.0, 0.5])
    years = index_values("u", np.array(["-4000-01-01", "9000-01-01"], "M8[D]"))
    assert np.ptp(years) == 13_000 * 365 + 13_000 // 4 - 130 + 32 + 1  # Gregorian leap years


MISSING = {
    "NaT": TIMES.where(np.arange(N) != 7),
    "NaT of NumPy": TIMES.where(np.arange(N) != 7).to_numpy(),
    "NaT of periods": TIMES.where(np.arange(N) != 7).to_period("D"),
    "None among dates": [None if row == 7 else time for row, time in enumerate(TIMES)],
    "NaN among numbers": np.where(np.arange(N) == 7, np.nan, np.arange(N)),
    "NA": pd.Series(np.arange(N), dtype="Int64").where(np.arange(N) != 7),
    "None among numbers": [None if row == 7 else row for row in range(N)],
    "masked": np.ma.masked_array(np.arange(N), np.arange(N) == 7),
    "Arrow's null": pa.array([None if row == 7 else time for row, time in enumerate(TIMES)]),
    "durations": (TIMES - TIMES[0]).where(np.arange(N) != 7),
}


@pytest.mark.parametrize("times", MISSING.values(), ids=MISSING)
def test_missing_values_are_refused_by_row(times):
    with pytest.raises(ValueError, match=r"^u must be finite, got .* at row 7.*[Dd]rop these rows"):
        MODEL.observe(NONE, Z, times, Y)


BAD = {
    "strings": (lambda: TIMES.astype(str), "to_datetime"),
    "strings of NumPy": (lambda: np.array(TIMES.astype(str)).astype("U"), "to_datetime"),
    "dates and numbers": (lambda: [TIMES[0], 3.0] * (N // 2), "a date at row 0 and a number at row 1"),
    "time zones and none": (lambda: [TIMES[0], TIMES[1].tz_localize("UTC")] * (N // 2), "time zone at row 1"),
    "durations in months": (lambda: np.arange(N).astype("m8[M]"), "months"),
    "words": (lambda: pd.Categorical(["a", "b"] * (N // 2)), "'a' at row 0"),
}


@pytest.mark.parametrize(("times", "hint"), BAD.values(), ids=BAD)
def test_what_is_no_date_is_refused(times, hint):
    with pytest.raises(ValueError, match=r"^u must (?!be finite)") as caught:
        MODEL.observe(NONE, Z, times(), Y)
    assert re.search(hint, str(caught.value)), str(caught.value)


# Rows ------------------------------------------------------------------------------------------------------------

FRAME = pd.DataFrame({"z": Z[:, 0], "u": np.arange(N), "y": Y, "size": 1.0}, index=np.arange(N) + 100)
ROWS = {
    "y": lambda: MODEL.observe(NONE, FRAME[["z"]], FRAME.u, FRAME.y[::-1]),
    "u": lambda: MODEL.observe(NONE, FRAME[["z"]], FRAME.u.sample(frac=1, random_state=0), FRAME.y),
    "size": lambda: MODEL.observe(NONE, FRAME[["z"]], FRAME.u, FRAME.y, size=FRAME["size"].reset_index(drop=True)),
    "z": lambda: MODEL.observe(FRAME[[]], FRAME[["z"]][::-1], FRAME.u.to_numpy(), Y),
}


@pytest.mark.parametrize(("name", "call"), ROWS.items(), ids=ROWS)
def test_rows_of_other_names_are_refused(name, call):
    with pytest.raises(ValueError, match=rf"^{name} must have the index of .*row 0 is .*Pass {name}.loc\["):
        call()


def test_rows_of_the_same_names_and_arrays_will_do():
    MODEL.observe(NONE, FRAME[["z"]], FRAME.u, Y)
    same_rows(x=[1, 2], y=pd.Series([1, 2], index=["a", "b"]), u=pd.Series([1.0, 2.0], index=["a", "b"]))
    with pytest.raises(ValueError, match="^u must have one row for each row of y: y has 2 rows, u has 1"):
        same_rows(y=pd.Series([1, 2]), u=pd.Series([1]))
