"""What has no order is refused; rows with other names are never paired; frozen tables know their own rows."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xarray as xr
from scipy import sparse

from bayes_moe import contaminated, gaussian_gated, nuts, varying_coefficient
from bayes_moe.ground.tables import as_floats, row_labels
from bayes_moe.model.experts import Frozen
from mle import em, newton

X = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [1.0, 3.0]])
Y = np.array([0, 1, 2, 1])
ETA0 = np.array([[1.0, 0.0], [-0.5, 1.0], [-0.5, -1.0]])
MOE = contaminated(ETA0, activation="tanh")
GIVEN = MOE.params(tau=0.5, beta=[1.0, -1.0], eta=[[1.0, 0.5], [-1.0, 0.2]])
INDEX = ["a", "b", "c", "d"]
LOG = np.log(np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]]))
DICT = {"a": 0, "b": 1, "c": 2}

UNORDERED = {
    "set": {"a", "b", "c"},
    "frozenset": frozenset("abc"),
    "dict": DICT,
    "keys": DICT.keys(),
    "values": DICT.values(),
    "items": DICT.items(),
}


@pytest.mark.parametrize("values", UNORDERED.values(), ids=UNORDERED)
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("classes", lambda v: contaminated(ETA0, classes=v)),
        ("features", lambda v: contaminated(ETA0[:, :1] * np.ones(3), features=v)),
        ("features", lambda v: gaussian_gated(2, v)),
        ("constant", lambda v: varying_coefficient("normal", constant=v)),
        ("x", lambda v: MOE.prepare(v)),
        ("y", lambda v: MOE.observe(X[:3], v)),
        ("y", lambda v: gaussian_gated(1, 2).observe(X[:3], v)),
        ("weights", lambda v: MOE.observe(X[:3], Y[:3], v)),
        ("frozen", lambda v: contaminated(v)),
        ("frozen", lambda v: Frozen.table(v)),
    ],
)
def test_what_has_no_order_is_refused(name, call, values):
    with pytest.raises(ValueError, match=rf"^{name} must have an order"):
        call(values)


ORDERED = [list("abc"), tuple("abc"), np.array(list("abc")), pd.Index(list("abc")), iter("abc")]


@pytest.mark.parametrize("ordered", ORDERED)
def test_what_has_an_order_names_classes(ordered):
    assert contaminated(ETA0, classes=ordered).classes == ("a", "b", "c")


@pytest.mark.parametrize("lone", [b"abc", "abc", 2.0, True, np.array(3), pd.DataFrame({"a": [1], "b": [2]}), None])
def test_what_is_no_sequence_names_no_features(lone):
    with pytest.raises(ValueError, match="^features must be a count or a list of names"):
        gaussian_gated(2, lone)


# Rows and their names ------------------------------------------------------------------------------------------------

FRAME, SERIES = pd.DataFrame(X, index=INDEX), pd.Series(Y, index=INDEX)
RESPONSE = pd.Series([0.1, 1.0, -0.5, 2.0], index=INDEX)
GATED = gaussian_gated(1, 2)
AT = GATED.params(pi=1.0, c=0.0, Gamma=np.eye(2), a=0.0, b=0.0, nu=1.0)
CURVES = varying_coefficient("normal", 1, gate_features=1, expert_features=1)
U = pd.Series([0.1, 0.4, 0.2, 0.9], index=INDEX)

ENTRIES = {
    "observe": ("y", lambda f: MOE.observe(FRAME, f(SERIES))),
    "prepared": ("y", lambda f: MOE.observe(MOE.prepare(FRAME), f(SERIES))),
    "weights": ("weights", lambda f: MOE.observe(FRAME, SERIES, f(SERIES + 1.0))),
    "log_density": ("y", lambda f: MOE.log_density(GIVEN, FRAME, f(SERIES))),
    "conditional": ("y", lambda f: GATED.conditional_log_density(AT, FRAME, f(RESPONSE))),
    "responsibilities": ("y", lambda f: GATED.responsibilities(AT, FRAME, f(RESPONSE))),
    "curves: z": ("z", lambda f: CURVES.observe(FRAME[[0]], f(FRAME)[[1]], U, RESPONSE)),
    "curves: u": ("u", lambda f: CURVES.observe(FRAME[[0]], FRAME[[1]], f(U), RESPONSE)),
    "curves: y": ("y", lambda f: CURVES.observe(FRAME[[0]], FRAME[[1]], U, f(RESPONSE))),
    "frozen": ("x", lambda f: contaminated(Frozen.table(pd.DataFrame(LOG, index=INDEX)), features=2).prepare(f(FRAME))),
}
FITS = {
    "newton": lambda x, y: newton.fit(MOE, x, y, init=GIVEN),
    "em": lambda x, y: em.fit(MOE, x, y, init=GIVEN),
    "nuts": lambda x, y: nuts.sample(MOE, x, y, rng_key=0),
    "nuts, prepared": lambda x, y: nuts.sample(MOE, MOE.prepare(x), y, rng_key=0),
    "nuts, own model": lambda x, y: nuts.sample(lambda x, y=None: None, x, y, rng_key=0),
}
OTHERS = {
    "reversed": lambda s: s.iloc[::-1],
    "numbered": lambda s: s.reset_index(drop=True),
    "one other": lambda s: s.rename(index={"b": "e"}),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize(("name", "call"), ENTRIES.values(), ids=ENTRIES)
def test_rows_with_other_names_are_refused(name, call, other):
    call(lambda same: same)
    with pytest.raises(ValueError, match=rf"^{name} must have the index of \w+: row \d is .*to_numpy"):
        call(other)


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_fits_refuse_rows_with_other_names(fit):
    with pytest.raises(ValueError, match=r"^y must have the index of x: row 0 is 'a' in x and 'd' in y"):
        fit(FRAME, SERIES.iloc[::-1])


def test_an_index_is_compared_by_its_values_and_arrays_have_none():
    numbered = pd.DataFrame(X), pd.Series(Y, index=pd.Index([0, 1, 2, 3], dtype="int32", name="row"))
    expected = MOE.log_density(GIVEN, X, Y)
    for pair in (numbered, (FRAME, Y), (X, SERIES), (xr.DataArray(FRAME), SERIES)):
        np.testing.assert_array_equal(MOE.log_density(GIVEN, *pair), expected)
    with pytest.raises(ValueError, match="y must have the index of x"):
        MOE.observe(xr.DataArray(FRAME), SERIES.iloc[::-1])
    with pytest.raises(ValueError, match="y must have one row for each row of x: x has 4 rows, y has 3"):
        MOE.observe(FRAME, SERIES.iloc[:3])


def test_names_of_rows_are_coordinates_that_can_be_kept():
    dates = pd.date_range("2020-01-01", periods=2)
    np.testing.assert_array_equal(row_labels(dates, 2), dates.to_numpy())
    pairs = pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])
    assert row_labels(pairs, 2).tolist() == ["('a', 1)", "('b', 2)"]
    assert row_labels(None, 3).tolist() == [0, 1, 2]


# Tables of other kinds -----------------------------------------------------------------------------------------------


class Polars:
    """What a data frame of polars offers of what is read here."""

    def __init__(self, values, names="ab"):
        self.columns, self.values = list(names), np.asarray(values)

    def __getitem__(self, name):
        return self.values[:, self.columns.index(name)]


def test_tables_of_arrow_and_polars_are_read():
    table = pa.table({"a": X[:, 0], "b": X[:, 1].astype(np.int64)})
    for x in (table, Polars(X)):
        np.testing.assert_array_equal(MOE.log_density(GIVEN, x, pa.array(Y)), MOE.log_density(GIVEN, X, Y))
    strings = contaminated(ETA0, classes=list("abc"))
    np.testing.assert_array_equal(strings.check_y(pa.chunked_array([["a", "c"], ["b"]])), [0, 2, 1])
    with pytest.raises(ValueError, match=r"^x must have the columns \['b', 'a'\].*got \['a', 'b'\]"):
        contaminated(ETA0, features=["b", "a"]).prepare(table)


class Raises:
    """An array of another library that can't be read, as one on a device."""

    def __array__(self, *args, **kwargs):
        raise RuntimeError("on another device")


BAD = {
    "masked labels": ("y", lambda: MOE.observe(X, np.ma.masked_equal(Y, 2))),
    "masked rows in a list": ("x", lambda: MOE.prepare([np.ma.masked_equal(row, 3.0) for row in X])),
    "arrow text": ("x", lambda: MOE.prepare(pa.table({"a": X[:, 0], "b": list("abcd")}))),
    "arrow null": ("x", lambda: MOE.prepare(pa.table({"a": X[:, 0], "b": [1.0, None, 0.0, 1.0]}))),
    "polars text": ("x", lambda: MOE.prepare(Polars(X.astype(str)))),
    "no array": ("x", lambda: MOE.prepare(Raises())),
    "no labels": ("y", lambda: MOE.observe(X, Raises())),
    "bytes": ("y", lambda: MOE.observe(X, b"\x00\x01\x02\x01")),
    "sets as labels": ("y", lambda: MOE.observe(X, [{0}, {1}, {2}, {1}])),
    "dicts as labels": ("y", lambda: MOE.observe(X, [{0: 1}] * 4)),
    "tuples of lists": ("y", lambda: MOE.observe(X, [([0],)] * 4)),
    "classes of lists": ("classes", lambda: contaminated(ETA0, classes=[([0],), 1, 2])),
    "sparse labels": ("y", lambda: MOE.observe(X, sparse.csr_array(Y[:, None]))),
}


@pytest.mark.parametrize(("name", "call"), BAD.values(), ids=BAD)
def test_what_cannot_be_read_is_named(name, call):
    with pytest.raises(ValueError, match=rf"^{name} "):
        call()


def test_missing_values_of_nullable_series_are_missing():
    assert np.isnan(as_floats("y", pd.Series([1, None], dtype="Int64"))[1])


# Frozen tables -------------------------------------------------------------------------------------------------------


def table(x=None):
    return contaminated(Frozen.table(LOG, x), features=2)


def test_a_table_is_for_the_rows_that_it_was_made_for():
    moe = table(X)
    moe.prepare(X)
    for other in (X[::-1], X + 1e-9):
        with pytest.raises(
            ValueError, match=r"^frozen holds log-probabilities of other rows than those of x.*Frozen.table"
        ):
            moe.prepare(other)


def test_a_table_without_rows_belongs_to_those_that_it_meets_first():
    moe = table()
    moe.log_density(GIVEN, X, Y)
    moe.class_probabilities(GIVEN, X.astype(np.float32))  # the same rows, in another form
    with pytest.raises(ValueError, match="^frozen holds log-probabilities of other rows"):
        moe.class_probabilities(GIVEN, X + 1.0)
    table().class_probabilities(GIVEN, X + 1.0)


def test_a_table_of_other_length_than_its_rows_is_refused():
    with pytest.raises(ValueError, match="^frozen holds log-probabilities of 4 rows, x has 3"):
        Frozen.table(LOG, X[:3])


@pytest.mark.parametrize("says", [lambda x: x[:, :2], lambda x: None, lambda x: 1 / 0, lambda x: "a"])
def test_what_a_source_says_is_checked(says):
    with pytest.raises(ValueError, match="^frozen must give log-probabilities of"):
        contaminated(Frozen(3, says, 2)).prepare(X)
