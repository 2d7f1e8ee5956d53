"""The contaminated mixture against the oracle: densities, derivatives, simulation, frozen experts, losses."""

import functools
import itertools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pandas as pd
import pytest
from montecarlo import FALSE_ALARM, key
from scipy.stats import chi2
from selection import quick
from sklearn.linear_model import LogisticRegression

from bayes_moe import contaminated
from bayes_moe.ground import parameters
from bayes_moe.model.experts import Frozen
from bayes_moe.theory import information, losses

ACTIVATIONS = ("linear", "tanh", "sigmoid", "gelu", "relu")
PAIRS = list(itertools.product(ACTIVATIONS, repeat=2))
SIZES = list(itertools.product((2, 3, 10), (1, 2, 8)))
ADAPTERS = [(name, "last") for name in ACTIVATIONS] + [(name, None) for name in ACTIVATIONS[1:]]

# Every pair of activations with either reference at one size; every adapter activation at every size. In the
# latter the frozen activation takes turns, as it reaches the likelihood only as numbers computed beforehand.
PAIR_KINDS = [(frozen, *adapter, 3, 2) for frozen in ACTIVATIONS for adapter in ADAPTERS]
SIZE_KINDS = [
    (ACTIVATIONS[(i + j) % 5], name, None if i % 2 and name != "linear" else "last", *size)
    for (j, name), (i, size) in itertools.product(enumerate(ACTIVATIONS), enumerate(SIZES))
    if size != (3, 2)
]
# Each adapter and size compiles anew: every fourth pair is quick, and of the sizes every fourth with one adapter each.
KINDS = PAIR_KINDS + SIZE_KINDS
QUICK_KINDS = (PAIR_KINDS + [kind for turn, kind in enumerate(SIZE_KINDS) if turn // 8 == turn % 5])[::7]

KIND_ID = "{0[0]}-{0[1]}-{0[2]}-K{0[3]}-d{0[4]}".format

ROWS = 7
EXACT = 1e-10
DIFFERENCES = 1e-6
EXTREME = 1e3
DRAWS_PER_ROW = 10_000


def draw_case(frozen_activation="tanh", activation="tanh", reference="last", **sizes):
    """Return an oracle model with random parameters, covariates and labels, the same ones at every call."""
    classes, features, rows = ({"classes": 3, "features": 2, "rows": ROWS} | sizes).values()
    rng = np.random.default_rng(classes * 100 + features)
    model = oracle.Model(rng.normal(size=(classes, features)), frozen_activation, activation, reference)
    params = oracle.unflatten(model, rng.normal(size=1 + features + np.prod(model.shape)))
    x = rng.normal(size=(rows, features))
    return model, params, x, oracle.simulate(model, params, x, rng)


def build(model, **options):
    """Return the package's model for an oracle model."""
    return contaminated(
        frozen=model.eta0,
        frozen_activation=model.frozen_activation,
        activation=model.activation,
        reference=model.reference,
        **options,
    )


def value_and_score(moe, vector, x, y):
    """Return the summed log density at a flat vector, and its gradient, through `log_joint`."""
    data = moe.observe(x, y)

    def total(flat):
        return jax.nn.logsumexp(moe.log_joint(parameters.unflatten(moe.fields, flat), data), axis=0).sum()

    with jax.enable_x64(True):
        value, gradient = jax.value_and_grad(total)(jnp.asarray(vector))
        return float(value), np.asarray(gradient)


def assert_close(actual, expected, tolerance):
    """Compare relative to the largest expected entry."""
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * scale)


def assert_near(actual, expected):
    """Compare entry by entry."""
    np.testing.assert_allclose(actual, expected, rtol=EXACT, atol=EXACT)


def draw_kind(kind):
    """Return the case of an entry of the tables above."""
    *names, classes, features = kind
    return draw_case(*names, classes=classes, features=features)


@pytest.mark.parametrize("kind", quick(KINDS, *QUICK_KINDS, ids=KIND_ID))
def test_density_and_score_agree_with_the_oracle(kind):
    model, params, x, y = draw_kind(kind)
    moe = build(model)
    with jax.disable_jit():
        density = moe.log_density(moe.params(**params), x, y)
        value, score = value_and_score(moe, oracle.flatten(params), x, y)
    expected = oracle.log_density(model, params, x, y)
    assert_close(density, expected, EXACT)
    assert_close(value, expected.sum(), EXACT)
    assert_close(score, oracle.score(model, params, x, y), EXACT)
    assert_close(score, oracle.score_by_differences(model, params, x, y), DIFFERENCES)


@pytest.mark.parametrize("kind", quick(KINDS, *QUICK_KINDS, ids=KIND_ID))
def test_information_agrees_with_the_oracle(kind):
    model, params, x, _ = draw_kind(kind)
    moe = build(model)
    assert_close(information.fisher(moe, moe.params(**params), x), oracle.fisher(model, params, x), EXACT)


@pytest.mark.parametrize("reference", quick(["last", None], None))
def test_compiled_and_step_by_step_calls_agree(reference):
    model, params, x, y = draw_case("sigmoid", "gelu", reference, classes=4, features=3)
    moe = build(model)
    given = moe.params(**params)
    assert_close(moe.log_density(given, x, y), oracle.log_density(model, params, x, y), EXACT)
    assert_close(information.fisher(moe, given, x), oracle.fisher(model, params, x), EXACT)
    _, score = value_and_score(moe, oracle.flatten(params), x, y)
    assert_close(score, oracle.score(model, params, x, y), EXACT)


def test_all_rows_are_refused_for_a_linear_adapter():
    for frozen_activation in ACTIVATIONS:
        with pytest.raises(ValueError, match="reference"):
            build(oracle.Model(np.eye(3), frozen_activation, "linear", reference=None))


def test_names_and_shapes_of_the_parameters():
    for reference, rows in (("last", 2), (None, 3)):
        moe = contaminated(frozen=np.ones((3, 4)), activation="tanh", reference=reference)
        shapes = {name: field.shape for name, field in moe.fields.items()}
        assert list(shapes.items()) == [("tau", (1,)), ("beta", (1, 4)), ("eta", (1, rows, 4))]
        given = moe.params(tau=1, beta=np.ones(4, np.float32), eta=np.zeros((rows, 4)))
        assert {name: value.shape for name, value in given.items()} == shapes
        assert all(type(value) is np.ndarray and value.dtype == np.float64 for value in given.values())


def test_flat_vector_is_tau_then_beta_then_eta_by_rows():
    model, params, _, _ = draw_case(features=4)
    moe = build(model)
    with jax.enable_x64(True):
        flat = parameters.flatten(moe.fields, moe.params(**params))
        back = parameters.unflatten(moe.fields, flat)
    np.testing.assert_array_equal(flat, oracle.flatten(params))
    for name, value in params.items():
        np.testing.assert_array_equal(back[name][0], value)


@pytest.mark.parametrize("kind", [("linear", "tanh", "last"), ("relu", "sigmoid", None)], ids=str)
@pytest.mark.parametrize(("classes", "features"), quick(SIZES, (2, 1), (3, 8), (10, 2)))
def test_class_probabilities_and_responsibilities(kind, classes, features):
    model, params, x, y = draw_case(*kind, classes=classes, features=features)
    moe = build(model)
    given = moe.params(**params)
    with jax.disable_jit():
        table, shares = moe.class_probabilities(given, x), moe.responsibilities(given, x, y)
    assert_close(table, oracle.class_probabilities(model, params, x), EXACT)
    assert_near(np.sum(table, axis=1), np.ones(ROWS))
    assert_close(shares, oracle.responsibilities(model, params, x, y), EXACT)


def test_class_probabilities_are_the_density_of_each_label():
    model, params, x, _ = draw_case(classes=4)
    moe = build(model)
    given = moe.params(**params)
    columns = [np.exp(moe.log_density(given, x, np.full(ROWS, label))) for label in range(4)]
    assert_close(moe.class_probabilities(given, x), np.column_stack(columns), EXACT)


def test_results_follow_a_permutation_of_the_rows():
    model, params, x, y = draw_case(rows=40)
    moe, order = build(model), np.random.default_rng(1).permutation(40)
    given = moe.params(**params)
    for method, arrays in ((moe.log_density, (x, y)), (moe.class_probabilities, (x,))):
        permuted = method(given, *(array[order] for array in arrays))
        assert_close(permuted, method(given, *arrays)[order], EXACT)
    assert_close(information.fisher(moe, given, x[order]), information.fisher(moe, given, x), EXACT)


EXTREME_PAIRS = [pair for pair in PAIRS if pair[0] in ("linear", pair[1])]
EXTREMES = {
    "gate": (EXTREME, 1.0, 1.0),
    "adapter": (1.0, EXTREME, 1.0),
    "frozen": (1.0, 1.0, EXTREME),
    "gate and adapter": (EXTREME, EXTREME, 1.0),
    "all": (EXTREME, EXTREME, EXTREME),
}


@pytest.mark.parametrize("scales", EXTREMES.values(), ids=EXTREMES)
@pytest.mark.parametrize("pair", quick(EXTREME_PAIRS, ("linear", "tanh"), ("relu", "relu"), ids=" ".join))
def test_no_nan_at_extreme_logits(pair, scales):
    gate, adapter, frozen = scales
    signs = np.array([[1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])
    model = oracle.Model(frozen * signs[::-1], *pair)
    params = {"tau": 0.0, "beta": gate * np.array([1.0, 0.5]), "eta": adapter * signs[:2]}
    rows = np.repeat(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [0.0, 0.0]]), 3, axis=0)
    y = np.tile([0, 1, 2], 5)
    moe = build(model)
    with jax.disable_jit():
        value, score = value_and_score(moe, oracle.flatten(params), rows, y)
        density = moe.log_density(moe.params(**params), rows, y)
        table = moe.class_probabilities(moe.params(**params), rows)
        shares = moe.responsibilities(moe.params(**params), rows, y)
    assert np.isfinite(value)
    assert np.isfinite(score).all()
    assert_near(density, oracle.log_density(model, params, rows, y))
    assert_near(np.sum(table, axis=1), np.ones(len(rows)))
    assert_near(shares, oracle.responsibilities(model, params, rows, y))


@pytest.mark.parametrize("pair", quick(["tanh tanh", "linear tanh", "linear linear", "relu gelu"], "linear tanh"))
def test_score_at_extreme_logits_agrees_with_the_oracle(pair):
    model, params, x, y = draw_case(*pair.split())
    far = {name: EXTREME * np.asarray(value) for name, value in params.items()}
    moe = build(model)
    _, score = value_and_score(moe, oracle.flatten(far), x, y)
    assert_close(score, oracle.score(model, far, x, y), EXACT)
    assert_close(information.fisher(moe, moe.params(**far), x), oracle.fisher(model, far, x), EXACT)


def count_labels(labels, classes, distinct):
    """Count labels at each distinct row, where the rows were tiled."""
    by_row = np.asarray(labels).reshape(-1, distinct).T
    return np.array([np.bincount(row, minlength=classes) for row in by_row])


def chi_square_p_value(counts, probabilities):
    """Return the p-value of Pearson's statistic, summed over the distinct rows."""
    expected = counts.sum(axis=1, keepdims=True) * probabilities
    degrees = counts.shape[0] * (counts.shape[1] - 1)
    return chi2.sf(np.sum((counts - expected) ** 2 / expected), degrees)


@pytest.mark.statistical
def test_simulated_frequencies():
    model, params, x, _ = draw_case("linear", "tanh", rows=5)
    moe = build(model)
    tiled = np.tile(x, (DRAWS_PER_ROW, 1))
    labels = moe.simulate(jax.random.key(key(7)), moe.params(**params), tiled)
    counts = count_labels(labels, classes=3, distinct=5)
    assert chi_square_p_value(counts, oracle.class_probabilities(model, params, x)) > FALSE_ALARM
    wrong = params | {"tau": params["tau"] + 0.5}
    assert chi_square_p_value(counts, oracle.class_probabilities(model, wrong, x)) < FALSE_ALARM
    swapped = {"tau": -params["tau"], "beta": -params["beta"], "eta": params["eta"]}
    assert chi_square_p_value(counts, oracle.class_probabilities(model, swapped, x)) < FALSE_ALARM


@pytest.mark.statistical
def test_simulated_labels_are_independent_across_equal_rows():
    model, params, _, _ = draw_case("linear", "tanh")
    moe = build(model)
    labels = np.asarray(moe.simulate(key(5), moe.params(**params), np.ones((6000, 2))))
    pairs = np.histogram2d(labels[0::2], labels[1::2], bins=[range(4), range(4)])[0]
    probabilities = oracle.class_probabilities(model, params, np.ones((1, 2)))[0]
    joint = np.outer(probabilities, probabilities).reshape(1, -1)
    assert chi_square_p_value(pairs.reshape(1, -1), joint) > FALSE_ALARM


def test_simulation_is_a_function_of_its_key():
    model, params, x, _ = draw_case(rows=50)
    moe = build(model)
    given = moe.params(**params)
    first, again, other = (np.asarray(moe.simulate(one, given, x)) for one in (3, jax.random.key(3), 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def same_answers(one, other, given, x, y):
    """Assert that two models give the same densities, probabilities and responsibilities."""
    for name in ("log_density", "responsibilities"):
        assert_close(getattr(one, name)(given, x, y), getattr(other, name)(given, x, y), EXACT)
    assert_close(one.class_probabilities(given, x), other.class_probabilities(given, x), EXACT)


@pytest.mark.parametrize("classes", [2, 4])
def test_a_frozen_table_is_the_frozen_expert_it_tabulates(classes):
    model, params, x, y = draw_case("sigmoid", "tanh", classes=classes)
    by_vectors = build(model)
    never = params | {"tau": -1e6, "beta": np.zeros(2)}
    table = oracle.log_class_probabilities(model, never, x)
    by_table = contaminated(frozen=Frozen.table(table), features=2, activation="tanh")
    same_answers(by_table, by_vectors, by_vectors.params(**params), x, y)


def test_a_frozen_table_may_hold_probabilities_of_zero():
    _, params, x, _ = draw_case()
    y = np.array([0, 1, 2, 0, 1, 2, 0])
    with np.errstate(divide="ignore"):
        table = np.log(np.tile([0.5, 0.5, 0.0], (ROWS, 1)))
    moe = contaminated(frozen=Frozen.table(table), features=2, activation="tanh")
    value, score = value_and_score(moe, oracle.flatten(params), x, y)
    assert np.isfinite(value)
    assert np.isfinite(score).all()
    shares = np.asarray(moe.responsibilities(moe.params(**params), x, y))
    np.testing.assert_array_equal(shares[y == 2], [[0.0, 1.0]] * np.sum(y == 2))


def test_a_frozen_table_of_other_rows_is_refused():
    _, params, x, y = draw_case()
    moe = contaminated(frozen=Frozen.table(np.full((ROWS + 1, 3), -np.log(3))), features=2, activation="tanh")
    with pytest.raises(ValueError, match="frozen"):
        moe.log_density(moe.params(**params), x, y)


@pytest.mark.parametrize("names", [None, ["dose", "age"]])
def test_a_frozen_classifier_is_the_frozen_expert_with_its_coefficients(names):
    rng = np.random.default_rng(11)
    x = rng.normal(size=(60, 2))
    labels = np.array(["high", "low", "none"])[oracle.simulate(*draw_case()[:2], x, rng)]
    covariates = x if names is None else pd.DataFrame(x, columns=names)
    classifier = LogisticRegression(fit_intercept=False).fit(covariates, labels)
    by_classifier = contaminated(frozen=classifier, activation="tanh")
    by_vectors = contaminated(frozen=classifier.coef_, activation="tanh", classes=classifier.classes_, features=names)
    given = by_vectors.params(**draw_case()[1])
    same_answers(by_classifier, by_vectors, given, covariates, labels)
    same_answers(by_classifier, by_classifier, given, covariates, pd.Series(labels))


class Calibrated:
    """A classifier of somebody's own, which knows no log-probabilities."""

    def __init__(self, fitted):
        self.fitted, self.classes_, self.n_features_in_ = fitted, fitted.classes_, fitted.n_features_in_

    def predict_proba(self, x):
        return self.fitted.predict_proba(x)


def test_models_are_pickled_whatever_their_experts():
    _, params, x, y = draw_case()
    classifier = LogisticRegression(fit_intercept=False).fit(x, y)
    frozen = [classifier, Calibrated(classifier), classifier.coef_]
    moes = [contaminated(each, activation=name) for each in frozen for name in ACTIVATIONS]
    moes.append(contaminated(Frozen.table(classifier.predict_log_proba(x)), features=2, activation="tanh"))
    for moe in moes:
        given = moe.params(**params)
        again = pickle.loads(pickle.dumps(moe))
        np.testing.assert_array_equal(again.log_density(given, x, y), moe.log_density(given, x, y))
        of_vectors = contaminated(classifier.coef_, activation=moe.experts[1].activation)
        np.testing.assert_allclose(moe.log_density(given, x, y), of_vectors.log_density(given, x, y), rtol=1e-10)


def test_labels_may_be_strings():
    model, params, x, y = draw_case()
    names = ["setosa", "versicolor", "virginica"]
    plain, named = build(model), build(model, classes=names)
    labels = np.array(names)[y]
    given = named.params(**params)
    expected = plain.log_density(given, x, y)
    for kind in (np.array, pd.Series, pd.Categorical, list, lambda values: np.array(values, object)):
        given_labels = kind(labels)
        np.testing.assert_array_equal(named.log_density(given, x, given_labels), expected)
    simulated = named.simulate(0, given, x)
    np.testing.assert_array_equal(simulated, np.array(names)[np.asarray(plain.simulate(0, given, x))])


def test_order_of_declared_classes_is_the_order_of_the_frozen_rows():
    model, params, x, y = draw_case()
    backwards = build(model, classes=[2, 1, 0])
    given = backwards.params(**params)
    expected = build(model).log_density(given, x, y)
    np.testing.assert_array_equal(backwards.log_density(given, x, 2 - y), expected)


LOSS_REFERENCES = [("homogeneous", "tanh", "tanh"), ("heterogeneous", "linear", "tanh")]


def oracle_loss(regime, model, params, truth):
    """Return the oracle's contamination loss."""
    if regime == "homogeneous":
        return oracle.loss_homogeneous(model, params, truth)
    return oracle.loss_heterogeneous(params, truth)


def perturb(params, seed):
    """Return parameters near the given ones."""
    rng = np.random.default_rng(seed)
    return {name: value + 0.3 * rng.normal(size=np.shape(value)) for name, value in params.items()}


@pytest.mark.parametrize("reference", ["last", None])
@pytest.mark.parametrize(("regime", "frozen_activation", "activation"), LOSS_REFERENCES)
def test_contamination_losses(regime, frozen_activation, activation, reference):
    model, truth, _, _ = draw_case(frozen_activation, activation, reference)
    if reference == "last":
        model.eta0[-1] = 0.0
    moe = build(model)
    many = [perturb(truth, seed) for seed in range(5)]
    draws = {name: np.stack([moe.params(**one)[name] for one in many]) for name in truth}
    true = moe.params(**truth)
    loss = functools.partial(losses.contamination, truth=true, frozen=model.eta0, regime=regime)
    with jax.enable_x64(True):
        batched = jax.vmap(loss)(draws)
        nothing = loss(true)
    assert_close(batched, [oracle_loss(regime, model, one, truth) for one in many], EXACT)
    assert float(nothing) == 0.0


def test_homogeneous_loss_vanishes_where_both_adapters_equal_the_frozen_expert():
    model, truth, _, _ = draw_case(reference=None)
    moe = build(model)
    one, other = (moe.params(**(truth | {"tau": tau, "eta": model.eta0})) for tau in (0.1, 2.0))
    assert float(losses.contamination(one, other, frozen=model.eta0, regime="homogeneous")) == 0.0
    assert float(losses.contamination(one, other, frozen=model.eta0, regime="heterogeneous")) > 1.0


def test_losses_refuse_what_does_not_fit():
    model, truth, _, _ = draw_case(reference=None)
    true = build(model).params(**truth)
    draws = {name: np.stack([value] * 5) for name, value in true.items()}
    loss = functools.partial(losses.contamination, truth=true)
    with pytest.raises(ValueError, match=r"regime.*heterogeneous"):
        loss(true, frozen=model.eta0, regime="heterogenous")
    for frozen in (model.eta0[:2], model.eta0[:, :1], np.vstack([model.eta0, np.ones(2)])):
        with pytest.raises(ValueError, match="frozen"):
            loss(true, frozen=frozen, regime="homogeneous")
    for regime in losses.REGIMES:
        with pytest.raises(ValueError, match="shape"):
            loss(draws, frozen=model.eta0, regime=regime)


def test_losses_take_lists():
    model, truth, _, _ = draw_case(reference=None)
    lists = {name: value.tolist() for name, value in build(model).params(**truth).items()}
    assert all(float(error) == 0 for error in losses.errors(lists, lists).values())


def test_the_contamination_loss_is_of_one_adapter():
    model, truth, _, _ = draw_case(reference=None)
    two = {name: np.concatenate([value, value]) for name, value in build(model).params(**truth).items()}
    with pytest.raises(ValueError, match=r"truth: tau must have shape \(1,\).*\(2,\)"):
        losses.contamination(two, two, frozen=model.eta0, regime="heterogeneous")


@pytest.mark.slow
@pytest.mark.parametrize("reference", ["last", None])
def test_hellinger(reference):
    model, truth, x, _ = draw_case("linear", "tanh", reference)
    moe = build(model)
    many = [perturb(truth, seed) for seed in range(5)]
    draws = {name: np.stack([moe.params(**one)[name] for one in many]) for name in truth}
    true = moe.params(**truth)
    with jax.enable_x64(True):
        batched = jax.vmap(lambda one: losses.hellinger(moe, one, true, x))(draws)
    expected = [oracle.hellinger(model, one, truth, x) for one in many]
    assert_close(batched, expected, EXACT)
    assert_close(losses.hellinger(moe, moe.params(**many[0]), true, x), expected[0], EXACT)
    assert float(losses.hellinger(moe, true, true, x)) == 0.0


@pytest.mark.parametrize(("frozen_activation", "activation"), [("tanh", "tanh"), ("linear", "gelu")])
def test_cramer_rao_bound_is_the_inverse_information(frozen_activation, activation):
    model, params, x, _ = draw_case(frozen_activation, activation, rows=60)
    moe = build(model)
    given = moe.params(**params)
    bound = information.cramer_rao(moe, given, x, n=500)
    inverse = np.linalg.inv(500 * oracle.fisher(model, params, x))
    expected = oracle.unflatten(model, np.sqrt(np.diag(inverse)))
    assert list(bound) == list(given)
    for name, value in expected.items():
        assert np.shape(bound[name]) == given[name].shape
        assert_close(bound[name][0], value, 1e-7)


def test_cramer_rao_bound_is_infinite_without_information():
    model, params, x, _ = draw_case(reference=None, rows=60)
    moe = build(model)
    bound = information.cramer_rao(moe, moe.params(**(params | {"eta": model.eta0})), x, n=500)
    assert np.isinf(bound["tau"]).all()
    assert np.isinf(bound["beta"]).all()
    assert np.isfinite(bound["eta"]).all()


def test_information_is_a_weighted_mean_over_the_rows_in_pieces_of_any_size(monkeypatch):
    model, params, x, _ = draw_case()
    moe, counts = build(model), np.array([1, 2, 0, 3, 1, 1, 2])
    given, expected = moe.params(**params), oracle.fisher(model, params, np.repeat(x, counts, axis=0))
    assert_close(information.fisher(moe, given, x, weights=counts), expected, EXACT)
    monkeypatch.setattr(information, "CHUNK", 3)
    assert_close(information.fisher(moe, given, x, weights=counts), expected, EXACT)


@pytest.mark.parametrize("reference", ["last", None])
def test_log_joint_is_gate_and_expert_with_observations_last(reference):
    model, params, x, y = draw_case("sigmoid", "relu", reference)
    moe = build(model)
    data = moe.observe(x, y)
    with jax.enable_x64(True):
        joint = np.asarray(moe.log_joint(moe.params(**params), data))
    assert data.n == ROWS
    assert joint.shape == (2, ROWS)
    assert_close(np.logaddexp(*joint), oracle.log_density(model, params, x, y), EXACT)
    assert_close((joint - np.logaddexp(*joint)).T, np.log(oracle.responsibilities(model, params, x, y)), EXACT)


def test_the_model_is_an_argument_of_compiled_code():
    model, params, x, y = draw_case()
    moe = build(model)
    data, given = moe.observe(x, y), moe.params(**params)
    covariates = moe.prepare(x)
    with jax.enable_x64(True):
        paired = jax.jit(lambda m, codes: m.condition(covariates, codes))(moe, y)
        joint = jax.jit(lambda m, p, d: m.log_joint(p, d))(moe, given, paired)
    np.testing.assert_array_equal(paired.y, data.y)
    np.testing.assert_array_equal(paired.frozen, data.frozen)
    assert_close(np.logaddexp(*joint), oracle.log_density(model, params, x, y), EXACT)
