"""Formulas: the arrays they make, other rows, fits, errors."""

import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from bayes_moe import varying_coefficient
from bayes_moe.varying import formula
from mle.kernel import kernel_em

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "y": RNG.normal(size=90),
        "z1": RNG.normal(size=90),
        "x1": RNG.normal(size=90),
        "batch": np.repeat(["a", "b", "c"], 30),
        "time": RNG.uniform(size=90),
    }
)


def test_a_formula_makes_the_arrays_that_one_would_make_by_hand():
    made = formula.design("y ~ z1 + batch | x1", FRAME, u="time")
    by_hand = np.column_stack([FRAME.z1, FRAME.batch == "b", FRAME.batch == "c"]).astype(float)
    np.testing.assert_array_equal(made.z, by_hand)
    np.testing.assert_array_equal(made.x, FRAME[["x1"]])
    np.testing.assert_array_equal(made.y, FRAME.y)
    np.testing.assert_array_equal(made.u, FRAME.time)
    assert made.x_names == ("x1",)
    assert made.z_names == ("z1", "batch[T.b]", "batch[T.c]")
    assert made.sizes == {"gate_features": 1, "expert_features": 3}


def test_other_rows_are_encoded_alike():
    made = formula.design("y ~ center(z1) + batch | x1", FRAME, u="time")
    again = made.again(FRAME.iloc[:5])
    np.testing.assert_allclose(again["z"], made.z[:5])  # centred by the first data's mean, all batches kept
    np.testing.assert_allclose(again["x"], made.x[:5])


@pytest.mark.parametrize(
    ("rows", "hint"),
    [(FRAME[:5].assign(batch="q"), "levels.*'q'"), (FRAME[:5].drop(columns="z1"), "z1")],
    ids=["level", "column"],
)
def test_other_rows_with_another_level_or_no_column_are_refused(rows, hint):
    made = formula.design("y ~ z1 + batch | x1", FRAME, u="time")
    with pytest.raises(ValueError, match=f"^frame must have.*{hint}"):
        made.again(rows)


def test_without_a_bar_the_gate_has_an_intercept_alone():
    made = formula.design("y ~ z1", FRAME, u="time")
    model = varying_coefficient("normal", 2, **made.sizes)
    assert model.labels[:2] == ["beta[0,0]", "alpha[0,0]"]
    fit = kernel_em.fit(model, **made.data, h=0.6, grid=4, random_state=0)
    other = kernel_em.fit(model, np.zeros((90, 0)), FRAME[["z1"]], FRAME.time, FRAME.y, h=0.6, grid=4, random_state=0)
    np.testing.assert_array_equal(fit.theta, other.theta)
    assert made.again(FRAME)["x"].shape == (90, 0)


BAD = {
    "no response": ("z1 | x1", "time", "formula", "one response"),
    "two responses": ("y + x1 ~ z1", "time", "formula", "one response"),
    "two bars": ("y ~ z1 | x1 | x1", "time", "formula", "one bar"),
    "no intercept": ("y ~ 0 + z1 | x1", "time", "formula", "intercepts"),
    "an unknown column": ("y ~ z9 | x1", "time", "formula", "z9"),
    "an index of words": ("y ~ z1 | x1", "batch", "u", "'batch'"),
    "an unknown index": ("y ~ z1 | x1", "age", "u", "time"),
}


@pytest.mark.parametrize(("text", "u", "argument", "hint"), BAD.values(), ids=BAD)
def test_bad_formulas_are_refused_by_name(text, u, argument, hint):
    with pytest.raises(ValueError, match=rf"^{argument}(?!\w)") as caught:
        formula.design(text, FRAME, u)
    assert re.search(hint, str(caught.value)), str(caught.value)


def test_missing_values_are_refused():
    with pytest.raises(ValueError, match="formula"):
        formula.design("y ~ z1 | x1", FRAME.assign(z1=FRAME.z1.where(FRAME.z1 < 1)), "time")


# What a column is ------------------------------------------------------------------------------------------------

SITES = FRAME.assign(site=np.tile(["101", "102", "103"], 30), when=pd.date_range("2020", periods=90), kind=[1, 2] * 45)
AS = {
    "convert_dtypes": lambda frame: frame.convert_dtypes(),
    "strings of Python": lambda frame: frame.astype({"site": "string[python]"}),
    "strings of Arrow": lambda frame: frame.astype({"site": "string[pyarrow]"}),
    "objects": lambda frame: frame.astype({"site": object}),
    "categories": lambda frame: frame.astype({"site": "category"}),
    "categories of Arrow": lambda frame: frame.assign(site=frame.site.astype("string[pyarrow]").astype("category")),
    "Arrow throughout": lambda frame: pa.Table.from_pandas(frame).to_pandas(types_mapper=pd.ArrowDtype),
    "a table of Arrow": pa.Table.from_pandas,
    "seconds": lambda frame: frame.assign(when=frame.when.astype("datetime64[s]")),
    "rows of one name": lambda frame: frame.set_index(np.zeros(len(frame))),
}


@pytest.mark.parametrize("of", AS.values(), ids=AS)
def test_a_column_of_words_is_a_factor_and_a_date_an_index_whatever_their_dtypes(of):
    text = "y ~ z1 + site | C(kind)"
    made, plain = formula.design(text, of(SITES), u="when"), formula.design(text, SITES, u="when")
    assert made.z_names == plain.z_names == ("z1", "site[T.102]", "site[T.103]")
    assert made.x_names == ("C(kind)[T.2]",)
    np.testing.assert_array_equal(plain.z[:, 1:].sum(axis=0), [30, 30])
    np.testing.assert_array_equal(plain.u, 18262 + np.arange(90))  # 2020-01-01 is day 18262
    for name, values in plain.data.items():
        np.testing.assert_array_equal(made.data[name], values)
    again = made.again(of(SITES[40:50]))
    np.testing.assert_array_equal(again["z"], plain.z[40:50])
    np.testing.assert_array_equal(again["u"], plain.u[40:50])


def double(values):
    return 2 * values


def test_a_formula_uses_what_its_caller_sees_and_so_do_other_rows():
    shift, frame = 3.0, None  # ``frame`` is a name of the package's own code as well

    def moved(values):
        return values - shift

    made = formula.design("y ~ double(z1) + moved(z1) | np.exp(x1)", FRAME, u="time")
    by_hand = np.column_stack([2 * FRAME.z1, FRAME.z1 - 3])
    np.testing.assert_array_equal(made.z, by_hand)
    np.testing.assert_array_equal(made.again(FRAME[:4])["z"], by_hand[:4])
    given = formula.design("y ~ twice(z1)", FRAME, u="time", context={"twice": double})
    np.testing.assert_array_equal(given.z[:, 0], by_hand[:, 0])
    assert frame is None


OUTSIDE = np.arange(90.0)
GONE = SITES.kind.where(SITES.index != 7).astype("Int64")
WRONG = {
    "our own name": ("y ~ frame", SITES, "when", "formula", "frame"),
    "rows from outside": ("y ~ OUTSIDE", SITES, "when", "formula", "'OUTSIDE', which is a variable outside"),
    "a date as covariate": ("y ~ when", SITES, "when", "formula", r"\['when'\] are dates"),
    "a date in a product": ("y ~ z1:when", SITES, "when", "formula", r"\['when'\] are dates"),
    "a duration as covariate": ("y ~ t", SITES.assign(t=SITES.when - SITES.when[0]), "when", "formula", "timedelta"),
    "a date as response": ("when ~ z1", SITES, "when", "formula", r"\['when'\] are dates"),
    "a missing date": ("y ~ z1", SITES.assign(when=SITES.when.where(SITES.index != 7)), "when", "u", "NaT at row 7"),
    "missing words": ("y ~ site", SITES.assign(site=SITES.site.where(SITES.index != 7)), "when", "formula", "row 7"),
    "NA": (
        "y ~ kind",
        SITES.assign(kind=GONE),
        "when",
        "formula",
        "row 7",
    ),
    "words as index": ("y ~ z1", SITES.astype({"when": str}), "when", "u", "to_datetime"),
    "no frame": ("y ~ z1", {"y": [1.0], "z1": [1.0]}, "when", "frame", "dict"),
    "two columns of a name": ("y ~ z1", pd.concat([SITES, SITES.y], axis=1), "when", "frame", "'y'"),
}


@pytest.mark.parametrize(("text", "frame", "u", "argument", "hint"), WRONG.values(), ids=WRONG)
def test_columns_of_the_wrong_kind_are_refused_by_name(text, frame, u, argument, hint):
    with pytest.raises(ValueError, match=rf"^{argument}(?!\w)") as caught:
        formula.design(text, frame, u)
    assert re.search(hint, str(caught.value)), str(caught.value)
