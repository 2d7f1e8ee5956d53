"""Every bad input ends in a ValueError that names the argument; good inputs of all kinds agree."""

import re
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from bayes_moe import contaminated
from bayes_moe.model.experts import Frozen
from mle import newton

X = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [1.0, 3.0]])
Y = np.array([0, 1, 2, 1])
WEIGHTS = np.array([1.0, 0.0, 2.0, 0.5])
ETA0 = np.array([[1.0, 0.0], [-0.5, 1.0], [-0.5, -1.0]])
VALUES = {"tau": 0.5, "beta": [1.0, -1.0], "eta": [[1.0, 0.5], [-1.0, 0.2]]}


def with_entry(array, value):
    """Return a float copy with one entry replaced."""
    copy = np.array(array, dtype=float)
    copy.flat[2] = value
    return copy


def model(**options):
    """Return a small model."""
    return contaminated(**({"frozen": ETA0, "activation": "tanh"} | options))


def observe(x=X, y=Y, weights=None, **options):
    """Prepare data with a small model."""
    return model(**options).observe(x, y, weights=weights)


def params(**changes):
    """Make parameters with some of them changed, or left out where the change is None."""
    merged = VALUES | changes
    return model().params(**{name: value for name, value in merged.items() if value is not None})


frame = partial(pd.DataFrame, X)

# A row: id, callable, the argument that the message names, and something else that it says.
BAD_X = [
    ("NaN", lambda: observe(with_entry(X, np.nan)), "x", "finite"),
    ("infinite", lambda: observe(with_entry(X, -np.inf)), "x", "finite"),
    ("no rows", lambda: observe(X[:0], Y[:0]), "x", "row"),
    ("1-d", lambda: observe(X[:, 0]), "x", "two-dimensional"),
    ("3-d", lambda: observe(X[None]), "x", "two-dimensional"),
    ("scalar", lambda: observe(1.0), "x", "two-dimensional"),
    ("None", lambda: observe(None), "x", "object"),
    ("ragged", lambda: observe([[1.0, 2.0], [3.0]]), "x", ""),
    ("objects", lambda: observe(X.astype(object)), "x", "object"),
    ("strings", lambda: observe(X.astype(str)), "x", "dtype"),
    ("complex", lambda: observe(X.astype(complex)), "x", "complex"),
    ("dates", lambda: observe(X.astype("datetime64[s]")), "x", "datetime64"),
    ("masked", lambda: observe(np.ma.masked_equal(X, 3.0)), "x", "mask"),
    ("sparse matrix", lambda: observe(sparse.csr_matrix(X)), "x", "sparse"),
    ("sparse array", lambda: observe(sparse.csr_array(X)), "x", "sparse"),
    ("too many features", lambda: observe(np.ones((4, 3))), "x", "3"),
    ("too few features", lambda: observe(np.ones((4, 1))), "x", "1"),
    ("transposed", lambda: observe(X.T), "x", "4"),
    ("text column", lambda: observe(frame().assign(c="a")), "x", ""),
    ("missing in a frame", lambda: observe(frame().astype("Float64").replace(1.0, pd.NA)), "x", ""),
    ("other columns", lambda: observe(frame(columns=["a", "c"]), features=["a", "b"]), "x", "b"),
    ("reordered columns", lambda: observe(frame(columns=["b", "a"]), features=["a", "b"]), "x", "order"),
    (
        "an extra column",
        lambda: observe(frame(columns=["a", "b"]).assign(c=1.0), features=["a", "b"]),
        "x",
        "c",
    ),
]

BAD_Y = [
    ("shorter", lambda: observe(y=Y[:3]), "y", "4"),
    ("longer", lambda: observe(y=np.append(Y, 0)), "y", "5"),
    ("empty", lambda: observe(y=Y[:0]), "y", "0"),
    ("2-d", lambda: observe(y=Y[:, None]), "y", "one-dimensional"),
    ("one-hot", lambda: observe(y=np.eye(3)[Y]), "y", "one-dimensional"),
    ("2-d list", lambda: observe(y=[[0], [1], [2], [1]]), "y", "one-dimensional"),
    ("frame", lambda: observe(y=pd.DataFrame({"y": Y})), "y", ""),
    ("wide frame", lambda: observe(X[:2], pd.DataFrame([[0, 1], [1, 0]])), "y", "one-dimensional"),
    ("ragged", lambda: observe(y=[[0], [1, 2], [1], [0]]), "y", ""),
    ("scalar", lambda: observe(y=1), "y", ""),
    ("None", lambda: observe(y=None), "y", ""),
    ("NaN", lambda: observe(y=with_entry(Y, np.nan)), "y", "nan"),
    ("None among labels", lambda: observe(y=[0, 1, None, 1]), "y", "None"),
    ("counted from one", lambda: observe(y=Y + 1), "y", "classes"),
    ("signs", lambda: observe(y=[-1, 1, 1, -1], frozen=ETA0[:2]), "y", "-1"),
    ("one half", lambda: observe(y=[0.0, 0.5, 1.0, 2.0]), "y", "0.5"),
    ("strings", lambda: observe(y=["0", "1", "2", "1"]), "y", "classes"),
    ("other strings", lambda: observe(y=["a", "b", "c", "d"], classes=["a", "b", "c"]), "y", "d"),
    ("far too large", lambda: observe(y=np.array([0, 1, 2, 2**40])), "y", str(2**40)),
]

BAD_WEIGHTS = [
    ("negative", lambda: observe(weights=with_entry(WEIGHTS, -1.0)), "weights", "non-negative"),
    ("NaN", lambda: observe(weights=with_entry(WEIGHTS, np.nan)), "weights", "finite"),
    ("infinite", lambda: observe(weights=with_entry(WEIGHTS, np.inf)), "weights", "finite"),
    ("shorter", lambda: observe(weights=WEIGHTS[:3]), "weights", "4"),
    ("2-d", lambda: observe(weights=WEIGHTS[:, None]), "weights", "shape"),
    ("scalar", lambda: observe(weights=1.0), "weights", "shape"),
    ("all zero", lambda: observe(weights=np.zeros(4)), "weights", "zero"),
    ("strings", lambda: observe(weights=["1", "1", "1", "1"]), "weights", "dtype"),
]

BAD_MODEL = [
    ("no classes", lambda: model(frozen=np.empty((0, 2))), "frozen", "two classes"),
    ("one class", lambda: model(frozen=ETA0[:1]), "frozen", "two classes"),
    ("table of one class", lambda: model(frozen=Frozen.table(np.zeros((4, 1))), features=2), "frozen", "two"),
    ("1-d eta0", lambda: model(frozen=ETA0[0]), "frozen", "shape"),
    ("3-d eta0", lambda: model(frozen=ETA0[None]), "frozen", "shape"),
    ("no features", lambda: model(frozen=np.empty((3, 0))), "features", "1"),
    ("NaN in eta0", lambda: model(frozen=with_entry(ETA0, np.nan)), "frozen", "finite"),
    ("strings in eta0", lambda: model(frozen=ETA0.astype(str)), "frozen", "dtype"),
    ("unfitted classifier", lambda: model(frozen=LogisticRegression()), "frozen", "[Ff]it"),
    ("classifier without probabilities", lambda: model(frozen=LinearSVC()), "frozen", "CalibratedClassifierCV"),
    ("probabilities", lambda: table_model(np.full((4, 3), 1 / 3)).prepare(X), "frozen", "log"),
    ("NaN in a table", lambda: table_model(np.full((4, 3), np.nan)).prepare(X), "frozen", "log"),
    ("table of other rows", lambda: table_model(np.full((5, 3), -np.log(3))).prepare(X), "frozen", "5"),
    ("table, no features", lambda: model(frozen=Frozen.table(np.zeros((4, 3)))), "features", "columns"),
    ("near activation", lambda: model(activation="tan"), "activation", "'tanh'"),
    ("other activation", lambda: model(activation="softplus"), "activation", "sigmoid"),
    ("number as activation", lambda: model(activation=3), "activation", "sigmoid"),
    ("list as activation", lambda: model(activation=["tanh"]), "activation", "sigmoid"),
    ("near frozen activation", lambda: model(frozen_activation="ReLU"), "frozen_activation", "'relu'"),
    ("all rows, linear", lambda: model(activation="linear", reference=None), "reference", "linear"),
    ("first class", lambda: model(reference="first"), "reference", "'last'"),
    ("no adapter", lambda: model(adapters=0), "adapters", "at least 1"),
    ("half an adapter", lambda: model(adapters=1.5), "adapters", "integer"),
    ("unknown gate", lambda: model(gate="softmx"), "gate", "softmax"),
    ("duplicate classes", lambda: model(classes=["a", "b", "a"]), "classes", "distinct"),
    ("unhashable classes", lambda: model(classes=[[0], [1], [2]]), "classes", ""),
    ("a count as classes", lambda: model(classes=3), "classes", ""),
    ("too few classes", lambda: model(classes=["a", "b"]), "classes", "3"),
    ("too many features", lambda: model(features=3), "features", "2"),
    ("other number of names", lambda: model(features=["a", "b", "c"]), "features", "2"),
    ("a fractional count", lambda: model(features=2.0), "features", "2.0"),
    (
        "names in another order",
        lambda: model(frozen=named_classifier(), features=["b", "a"]),
        "features",
        r"\['a', 'b'\]",
    ),
    ("duplicate names", lambda: model(features=["a", "a"]), "features", "distinct"),
    ("a string as names", lambda: model(features="ab"), "features", "string"),
]

BAD_PARAMS = [
    ("unknown", lambda: params(alpha=1.0), "alpha", "tau, beta, eta"),
    ("missing", lambda: params(beta=None), "beta", "tau, beta, eta"),
    ("missing and unknown", lambda: params(beta=None, betas=[1.0, 1.0]), "betas", "missing: beta"),
    ("too long", lambda: params(beta=[1.0, 2.0, 3.0]), "beta", "shape"),
    ("all rows of eta", lambda: params(eta=ETA0), "eta", "shape"),
    ("transposed", lambda: params(eta=np.ones((3, 2)).T), "eta", "shape"),
    ("two adapters", lambda: params(tau=[0.5, 0.5]), "tau", "shape"),
    ("NaN", lambda: params(tau=np.nan), "tau", "finite"),
    ("infinite", lambda: params(eta=[[np.inf, 0.0], [0.0, 0.0]]), "eta", "finite"),
    ("string", lambda: params(tau="half"), "tau", "numbers"),
    ("complex", lambda: params(tau=1j), "tau", "numbers"),
    ("ragged", lambda: params(eta=[[1.0], [1.0, 2.0]]), "eta", "numbers"),
]

TABLES = {"x": BAD_X, "y": BAD_Y, "weights": BAD_WEIGHTS, "model": BAD_MODEL, "params": BAD_PARAMS}
BAD = [pytest.param(*row[1:], id=f"{table}: {row[0]}") for table, rows in TABLES.items() for row in rows]


def named_classifier():
    """Return a classifier fitted on the columns a and b."""
    return LogisticRegression().fit(frame(columns=["a", "b"]), Y)


def table_model(table):
    """Return a model whose frozen expert is a table."""
    return model(frozen=Frozen.table(table), features=2)


@pytest.mark.parametrize(("call", "argument", "hint"), BAD)
def test_bad_input_is_refused_by_name(call, argument, hint):
    with pytest.raises(ValueError, match=rf"(?<!\w){argument}(?!\w)") as caught:
        call()
    assert re.search(hint, str(caught.value)), str(caught.value)


@pytest.mark.parametrize("init", [[], [VALUES, 1.0], 3.0])
def test_starts_that_are_no_parameter_values_are_refused(init):
    with pytest.raises(ValueError, match=r"^init must be a mapping.*fit\.params"):
        newton.fit(model(), X, Y, init=init)


GIVEN = model().params(**VALUES)
ENTRANCES = {
    "prepare": lambda x: model().prepare(x),
    "log_density": lambda x: model().log_density(GIVEN, x, Y),
    "responsibilities": lambda x: model().responsibilities(GIVEN, x, Y),
    "class_probabilities": lambda x: model().class_probabilities(GIVEN, x),
    "simulate": lambda x: model().simulate(0, GIVEN, x),
}


@pytest.mark.parametrize("entrance", ENTRANCES.values(), ids=ENTRANCES)
def test_every_entrance_checks_the_covariates(entrance):
    with pytest.raises(ValueError, match=r"(?<!\w)x(?!\w).*finite"):
        entrance(with_entry(X, np.nan))


@pytest.mark.parametrize("method", ["log_density", "responsibilities", "class_probabilities"])
def test_every_entrance_checks_the_parameters(method):
    arguments = (X,) if method == "class_probabilities" else (X, Y)
    with pytest.raises(ValueError, match="tau"):
        getattr(model(), method)({"beta": [1.0, 1.0], "eta": VALUES["eta"]}, *arguments)


@pytest.mark.parametrize("rng_key", [None, True, 1.5, "0"])
def test_simulation_needs_a_key(rng_key):
    with pytest.raises(ValueError, match="rng_key"):
        model().simulate(rng_key, GIVEN, X)


def read_only(array):
    """Return a copy that nobody can write to."""
    copy = np.array(array)
    copy.flags.writeable = False
    return copy


SIGNS = np.array([[0, 1], [1, 0], [1, 1], [0, 0]])
GOOD_X = {
    "float32": (X, X.astype(np.float32)),
    "float16": (X, X.astype(np.float16)),
    "int64": (X, X.astype(np.int64)),
    "int8": (X, X.astype(np.int8)),
    "uint16": (X, X.astype(np.uint16)),
    "bool": (SIGNS, SIGNS.astype(bool)),
    "big-endian": (X, X.astype(">f8")),
    "Fortran-ordered": (X, np.asfortranarray(X)),
    "strided": (X, np.repeat(X, 2, axis=0)[::2]),
    "read-only": (X, read_only(X)),
    "list": (X, X.tolist()),
    "frame": (X, frame()),
    "named frame": (X, frame(columns=["a", "b"], index=[7, 3, 3, 1])),
    "mixed frame": (X, frame(columns=["a", "b"]).astype({"a": np.int32, "b": np.float32})),
    "frame with a bool": (
        SIGNS,
        pd.DataFrame({"a": SIGNS[:, 0].astype(float), "b": SIGNS[:, 1].astype(bool)}),
    ),
    "nullable frame": (X, frame().astype("Float64")),
}

GOOD_Y = {
    "int8": Y.astype(np.int8),
    "uint64": Y.astype(np.uint64),
    "float64": Y.astype(float),
    "objects": Y.astype(object),
    "strided": np.repeat(Y, 2)[::2],
    "read-only": read_only(Y),
    "list": Y.tolist(),
    "tuple": tuple(Y.tolist()),
    "series": pd.Series(Y, index=[7, 3, 3, 1]),
    "nullable series": pd.Series(Y, dtype="Int64"),
    "categorical": pd.Series(Y).astype("category"),
}

GOOD_WEIGHTS = {
    "float32": WEIGHTS.astype(np.float32),
    "read-only": read_only(WEIGHTS),
    "strided": np.repeat(WEIGHTS, 2)[::2],
    "list": WEIGHTS.tolist(),
    "series": pd.Series(WEIGHTS, index=[7, 3, 3, 1]),
}


def fingerprint(values):
    """Return the bytes, dtype and layout of an input."""
    if isinstance(values, pd.DataFrame):
        return [(name, fingerprint(values[name])) for name in values]
    if isinstance(values, pd.Series):
        return values.to_numpy().tobytes(), values.dtype, values.index.tolist()
    array = np.asarray(values)
    return array.tobytes(), array.dtype, array.strides


def answers(x, y, weights):
    """Return everything that prepared data lead to."""
    moe = model()
    data = moe.observe(x, y, weights=weights)
    outputs = [
        moe.log_density(GIVEN, x, y),
        moe.responsibilities(GIVEN, x, y),
        moe.class_probabilities(GIVEN, x),
    ]
    return [np.asarray(output) for output in (*outputs, data.x, data.y, data.frozen, data.weights)]


CASES = [pytest.param((x, Y, WEIGHTS), (other, Y, WEIGHTS), id=f"x: {name}") for name, (x, other) in GOOD_X.items()]
CASES += [pytest.param((X, Y, WEIGHTS), (X, other, WEIGHTS), id=f"y: {name}") for name, other in GOOD_Y.items()]
CASES += [pytest.param((X, Y, WEIGHTS), (X, Y, other), id=f"weights: {n}") for n, other in GOOD_WEIGHTS.items()]


@pytest.mark.parametrize(("plain", "other"), CASES)
def test_inputs_of_any_kind_give_the_same_answer_and_stay_as_they_are(plain, other):
    before = [fingerprint(values) for values in other]
    for mine, theirs in zip(answers(*plain), answers(*other), strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == theirs.dtype == np.float64
    assert [fingerprint(values) for values in other] == before


ETA0_KINDS = {
    "float32": ETA0.astype(np.float32),
    "Fortran-ordered": np.asfortranarray(ETA0),
    "read-only": read_only(ETA0),
    "list": ETA0.tolist(),
    "frame": pd.DataFrame(ETA0),
}


def test_a_count_of_features_may_be_a_numpy_integer():
    assert model(features=np.int64(2)).params(**VALUES)["beta"].shape == (1, 2)


@pytest.mark.filterwarnings("error")
def test_a_classifier_with_named_features_takes_an_array_without_a_warning():
    named = pd.DataFrame(X, columns=["a", "b"])
    moe = model(frozen=named_classifier())
    expected = moe.log_density(GIVEN, named, Y)
    np.testing.assert_array_equal(moe.log_density(GIVEN, X, Y), expected)


@pytest.mark.parametrize("frozen", ETA0_KINDS.values(), ids=ETA0_KINDS)
def test_frozen_vectors_of_any_kind_give_the_same_answer(frozen):
    expected = model().log_density(GIVEN, X, Y)
    np.testing.assert_array_equal(model(frozen=frozen).log_density(GIVEN, X, Y), expected)


@pytest.mark.parametrize("features", [1, 2])
def test_prepared_data_do_not_follow_later_changes(features):
    inputs = X[:, :features].copy(), Y.copy(), WEIGHTS.copy()
    data = model(frozen=ETA0[:, :features]).observe(inputs[0], inputs[1], weights=inputs[2])
    parts = {"x": data.x, "y": data.y, "frozen": data.frozen, "weights": data.weights}
    before = {name: np.array(part) for name, part in parts.items()}
    for array in inputs:
        array[:] = 0
    changed = [name for name, part in parts.items() if not np.array_equal(part, before[name])]
    assert changed == []


def test_frozen_vectors_do_not_follow_later_changes():
    eta0 = ETA0.copy()
    moe = model(frozen=eta0)
    expected = moe.log_density(GIVEN, X, Y)
    eta0[:] = 0.0
    np.testing.assert_array_equal(moe.log_density(GIVEN, X, Y), expected)


def test_a_frozen_table_does_not_follow_later_changes():
    table = np.log(np.tile([0.5, 0.25, 0.25], (4, 1)))
    moe = table_model(table)
    expected = moe.log_density(GIVEN, X, Y)
    table[:] = -np.log(3.0)
    np.testing.assert_array_equal(moe.log_density(GIVEN, X, Y), expected)


def test_parameters_do_not_follow_later_changes():
    beta = np.array([[1.0, -1.0]])
    given = model().params(**(VALUES | {"beta": beta}))
    beta[:] = 0.0
    np.testing.assert_array_equal(given["beta"], [[1.0, -1.0]])
