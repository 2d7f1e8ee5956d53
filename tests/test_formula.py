"""Formulas: the arrays they make, other rows, fits, errors."""

import re

import numpy as np
import pandas as pd
import pytest

from bayes_moe import formula, varying_coefficient
from mle import kernel_em

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
