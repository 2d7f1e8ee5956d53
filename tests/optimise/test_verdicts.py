"""Verdicts of fits: rows that do not count, units and offsets, infinity by what is lost there, spikes, saddles."""

import functools
import itertools

import numpy as np
import pytest

from bayes_moe import contaminated, gaussian_gated
from bayes_moe.model.experts import Frozen
from bayes_moe.model.gates import Softmax
from bayes_moe.model.moe import MoE
from bayes_moe.model.normal import Normal
from mle import criteria, em, infinity, newton, profile
from mle.optimise import uncertainty

ETA0 = np.array([[1.0, 0.0], [-0.5, 1.0], [0.0, 0.0]])
TRUTH = {"tau": 0.5, "beta": [0.5, -0.5], "eta": [[-1.0, 1.0], [-0.5, -1.5]]}
FILLS = (-999.0, 1e9)


@functools.cache
def classes(n=120):
    """Return a contaminated model, covariates and labels."""
    moe = contaminated(ETA0, activation="tanh")
    x = np.random.default_rng(0).normal(size=(n, 2))
    return moe, x, moe.simulate(0, moe.params(**TRUTH), x)


@functools.cache
def crossing(n=60, seed=0):
    """Return covariates and responses of two regimes of opposite slopes."""
    rng = np.random.default_rng(seed)
    x = np.r_[rng.normal(size=n), rng.normal(size=n) + 5]
    return x[:, None], x * np.repeat([1.0, -1.0], n) + 0.3 * rng.normal(size=2 * n)


# Rows of weight zero --------------------------------------------------------------------------------------------------


def with_blanks(x, y, fill, label):
    """Return data with twenty more rows in between, and the weights that leave these out."""
    at = np.arange(20) * 3
    inserted = np.insert(x, at, fill, axis=0), np.insert(y, at, label), np.insert(np.ones(len(x)), at, 0.0)
    return inserted


@pytest.mark.slow
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("family", ["classes", "real"])
def test_rows_of_weight_zero_are_not_there(family, fill):
    if family == "classes":
        (moe, x, y), fit, label, ask = classes(), newton.fit, 2, {"n_init": 2}
    else:
        (x, y), moe, fit, label, ask = crossing(), gaussian_gated(2, 1), em.fit, -fill, {"n_init": 4}
    one = fit(moe, x, y, random_state=0, weights=np.ones(len(x)), **ask)
    more, labels, weights = with_blanks(x, y, fill, label)
    two = fit(moe, more, labels, random_state=0, weights=weights, **ask)
    assert [s.free.tolist() for s in two.starts] == [s.free.tolist() for s in one.starts]
    assert (two.status, two.n, two.ends) == (one.status, len(x), one.ends)
    np.testing.assert_array_equal(two.covariance, one.covariance)
    for kind in uncertainty.KINDS:
        found = uncertainty.standard_errors(moe, two, more, labels, kind=kind, weights=weights).covariance
        np.testing.assert_allclose(found, uncertainty.standard_errors(moe, one, x, y, kind=kind).covariance, rtol=1e-9)
    assert criteria.criteria(moe, two, more, labels, weights=weights) == pytest.approx(
        criteria.criteria(moe, one, x, y, weights=np.ones(len(x)))
    )
    name = "tau" if family == "classes" else "b"
    there = profile.intervals(moe, two, more, labels, names=[name], weights=weights)
    np.testing.assert_allclose(there[name], profile.intervals(moe, one, x, y, names=[name])[name], rtol=1e-6)


def test_the_search_at_infinity_and_tables_of_a_frozen_expert_heed_weights_of_zero():
    _, x, _ = classes()
    y = np.random.default_rng(1).integers(3, size=len(x))
    more, labels, weights = with_blanks(x, y, 50.0, 0)
    table = np.log(np.full((len(x), 3), 1 / 3))
    moes = [contaminated(Frozen.table(np.log(np.full((n, 3), 1 / 3))), features=2) for n in (len(x), len(more))]
    one = newton.fit(moes[0], x, y, n_init=2, random_state=0)
    two = newton.fit(moes[1], more, labels, n_init=2, random_state=0, weights=weights)
    assert two.log_likelihood == pytest.approx(one.log_likelihood, abs=1e-6)
    assert len(table) == one.n == two.n
    found = [
        infinity.search(*a, random_state=0, patience=0).log_likelihood
        for a in ((moes[0], one, x, y), (contaminated(Frozen.table(table), features=2), one, x, y))
    ]
    weighted = infinity.search(moes[1], two, more, labels, random_state=0, patience=0, weights=weights)
    assert weighted.log_likelihood == pytest.approx(found[0], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "tiny"), [("kmeans", 1e-300), ("centres", 1e-300), ("short_em", 1e-30)])
def test_starts_heed_weights(kind, tiny):
    (x, y), moe = crossing(), gaussian_gated(2, 1)
    one = em.fit(moe, x, y, n_init=2, random_state=0)
    far = np.random.default_rng(2).normal(size=20)
    both = np.vstack([x, far[:, None] - 999]), np.r_[y, far + 1e3]
    two = em.fit(moe, *both, n_init=2, random_state=0, init=kind, weights=np.repeat([1.0, tiny], [len(x), 20]))
    assert two.log_likelihood == pytest.approx(one.log_likelihood, abs=1e-3)
    assert two.status == one.status == "maximum"


# Units and offsets ----------------------------------------------------------------------------------------------------

CHANGES = {
    "small": (1e-8, 0.0),
    "large": (1e8, 0.0),
    "height": (8.0, 170.0),
    "far": (1.0, 1e4),
    "both": (1e-3, -7.0),
}


@pytest.mark.parametrize("fit", [newton.fit, em.fit], ids=["newton", "em"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("of", ["x", "y"])
def test_a_gaussian_gated_fit_does_not_depend_on_units_and_offsets(fit, change, of):
    (x, y), moe, (scale, shift) = crossing(), gaussian_gated(2, 1), change
    one = fit(moe, x, y, n_init=2, random_state=0)
    mapped = (scale * x + shift, y) if of == "x" else (x, scale * y + shift)
    two = fit(moe, *mapped, n_init=2, random_state=0)
    assert two.status == one.status == "maximum"
    assert two.log_likelihood == pytest.approx(one.log_likelihood - len(x) * np.log(scale), abs=1e-5)
    name, power = ("c", 1) if of == "x" else ("nu", 2)
    order = [np.argsort(f.params["c"].ravel()) for f in (one, two)]
    for found in ("params", "standard_errors"):
        before, after = (getattr(f, found)[name].ravel()[o] for f, o in zip((one, two), order, strict=True))
        moved = shift if found == "params" and name == "c" else 0.0
        np.testing.assert_allclose((after - moved) / scale**power, before, rtol=1e-4)


def test_columns_of_very_different_units_are_not_collinear_and_equal_ones_are():
    rng = np.random.default_rng(1)
    x = np.vstack([rng.normal(size=(60, 2)), rng.normal(size=(60, 2)) + 6])
    y = x[:, 0] * np.repeat([1, -1], 60) + rng.normal(size=120)
    moe = gaussian_gated(2, 2)
    one, two = (em.fit(moe, x * units, y, n_init=1, random_state=0) for units in (1.0, [1e9, 1e-6]))
    assert two.status == one.status == "maximum"
    assert two.log_likelihood == pytest.approx(one.log_likelihood - 120 * np.log(1e3), abs=1e-4)
    with pytest.raises(ValueError, match="not collinear"):
        em.fit(moe, np.column_stack([x[:, 0], 10 - 1e-3 * x[:, 0]]), y, n_init=1, random_state=0)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_em_of_classes_does_not_depend_on_units(scale):
    moe, x, y = classes()
    one = em.fit(moe, x, y, n_init=1, random_state=0, max_iter=8)
    two = em.fit(contaminated(ETA0 / scale), scale * x, y, n_init=1, random_state=0, max_iter=8)
    assert two.log_likelihood == pytest.approx(one.log_likelihood, abs=1e-3)


@functools.cache
def affine(scale, shift):
    """Return the fit of normal experts behind a softmax gate, which takes up any shift, in these units of x."""
    rng = np.random.default_rng(5)
    z = rng.normal(size=120)
    y = z * np.where(rng.uniform(size=120) < 1 / (1 + np.exp(-2 * z)), 2.0, -2.0) + 0.5 * rng.normal(size=120) + 1
    moe = MoE(Softmax(2, 1), (Normal(2, 1),))
    return newton.fit(moe, (scale * z + shift)[:, None], y, n_init=3, random_state=0)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_gate_s_covariate_may_be_anywhere(change):
    one, two = affine(1.0, 0.0), affine(*change)
    scale, shift = change
    assert two.status == one.status == "maximum"
    assert two.log_likelihood == pytest.approx(one.log_likelihood, abs=1e-6)
    sign = np.sign(one.params["beta"] * two.params["beta"]).item()  # which expert comes first
    np.testing.assert_allclose(sign * scale * two.params["beta"], one.params["beta"], rtol=1e-3)
    np.testing.assert_allclose(scale * two.standard_errors["beta"], one.standard_errors["beta"], rtol=1e-3)
    gate = two.params["tau"] + shift * two.params["beta"][:, 0]
    np.testing.assert_allclose(sign * gate, one.params["tau"], rtol=1e-3)


# Infinity -------------------------------------------------------------------------------------------------------------


@functools.cache
def steep(slope=25.0, n=4000):
    """Return a linear adapter with steep slopes, and data that know them well."""
    moe = contaminated([[0.0, 0.0], [0.0, 0.0]], activation="linear")
    x = np.random.default_rng(0).normal(size=(n, 2))
    return moe, x, moe.simulate(0, moe.params(tau=1.0, beta=0.0, eta=[[slope, -slope]]), x)


def test_a_large_slope_that_the_likelihood_knows_is_a_maximum():
    moe, x, y = steep()
    fit = newton.fit(moe, x, y, n_init=1, random_state=0)
    assert np.abs(fit.params["eta"]).min() > 12
    assert fit.status == "maximum"
    further = fit.params | {"eta": 1.5 * fit.params["eta"]}
    assert moe.log_density(further, x, y).sum() < fit.log_likelihood - 1.5
    assert (fit.standard_errors["eta"] < 0.3 * np.abs(fit.params["eta"])).all()


def test_a_slope_that_costs_nothing_at_infinity_is_there():
    moe, x, _ = steep(n=300)
    frozen = contaminated([[1.0, 0.0], [0.0, 0.0]], activation="tanh")
    y = (x @ [3.0, -3.0] < 0).astype(int)
    y[:20] = 1 - y[:20]
    fit = newton.fit(frozen, x, y, n_init=2, random_state=0)
    assert fit.status.startswith(("at infinity: eta", "separated"))
    assert fit.standard_errors is None


# Spikes, saddles, and what was seen -----------------------------------------------------------------------------------


def test_a_spike_is_named_and_no_fit_prefers_it():
    x, y = crossing(40, 1)
    table = {}
    for count in (2, 4):
        moe = gaussian_gated(count, 1)
        fit = newton.fit(moe, x, y, n_init=8, random_state=1)
        assert fit.status == "maximum"
        assert fit.params["nu"].min() > 1e-10
        table[count] = criteria.criteria(moe, fit, x, y)
    spikes = [end for end in fit.ends if "has collapsed" in end.kind]
    assert spikes
    assert all(end.log_likelihood == -np.inf and "floors" in end.kind for end in spikes)
    assert "has collapsed" in str(fit)
    assert criteria.best(table)["bic"] == 2


def test_criteria_of_a_fit_that_is_no_maximum_say_so():
    (x, y), moe = crossing(), gaussian_gated(2, 1)
    fit = em.fit(moe, x, y, n_init=1, random_state=0, max_iter=1)
    with pytest.warns(criteria.NoMaximum, match="not converged"):
        row = criteria.criteria(moe, fit, x, y)
    assert row["status"] == fit.status
    good = {"aic": 1.0, "bic": 1.0, "icl": 1.0, "status": "maximum"}
    assert criteria.best({2: good, 3: row | {"aic": 0.0, "bic": 0.0, "icl": 0.0}}) == {"aic": 2, "bic": 2, "icl": 2}


def test_a_start_with_equal_components_is_refused():
    (x, y), moe = crossing(), gaussian_gated(2, 1)
    equal = moe.params(pi=[0.3, 0.7], c=0.0, Gamma=np.eye(1), a=0.0, b=0.0, nu=1.0)
    with pytest.raises(ValueError, match="init must have components that differ, got experts 0 and 1"):
        em.fit(moe, x, y, init=equal)
    labels = contaminated(ETA0, adapters=2)
    with pytest.raises(ValueError, match="got experts 1 and 2"):
        em.fit(labels, *classes()[1:], init={"tau": [0.0, 1.0], "beta": 0.0, "eta": 0.0})


def test_a_saddle_is_no_maximum():
    (x, y), moe = crossing(), gaussian_gated(2, 1)
    nearly = moe.params(pi=0.5, c=[[0.0], [1e-13]], Gamma=np.eye(1), a=0.0, b=0.0, nu=1.0)
    fit = em.fit(moe, x, y, init=nearly)
    assert fit.converged
    assert fit.status.startswith("saddle")
    assert fit.standard_errors is None


def test_distinct_ends_are_told_and_counted():
    moe, x, y = classes()
    fit = newton.fit(moe, x, y, n_init=8, random_state=0)
    values = np.array([start.log_likelihood for start in fit.starts])
    assert sum(end.starts for end in fit.ends) == 8
    assert fit.ends[0].log_likelihood == values.max()
    for one, two in itertools.pairwise(fit.ends):
        assert two.log_likelihood < one.log_likelihood - 1e-4
    assert fit.ends[0].kind == fit.certificate.kind
    assert f"{len(fit.ends)} distinct ends seen in 8 starts" in str(fit) or len(fit.ends) == 1
    assert "others may be higher" in str(fit)


# Extremes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y: (x, y, np.full(len(x), 1e307)), "weights must have a finite sum"),
        (lambda x, y: (x, y, np.full(len(x), 1e-200)), "weights must have a sum"),
        (lambda x, y: (1e150 * x, y, None), "x must be of a scale"),
        (lambda x, y: (1e-150 * x, y, None), "x must have columns"),
    ],
)
def test_numbers_whose_products_overflow_are_refused(change, words):
    moe, x, y = classes()
    x, y, weights = change(x, y)
    with pytest.raises(ValueError, match=words):
        newton.fit(moe, x, y, n_init=1, random_state=0, weights=weights)


@pytest.mark.parametrize("scale", [1e-13, 1e13])
def test_standard_errors_in_extreme_units_are_those_of_plain_ones(scale):
    moe, x, y = classes()
    other = contaminated(ETA0 / scale)
    one, two = (
        newton.fit(moe, x, y, init=TRUTH),
        newton.fit(other, scale * x, y, init=TRUTH | {k: np.divide(TRUTH[k], scale) for k in ("beta", "eta")}),
    )
    for kind in uncertainty.KINDS:
        plain = uncertainty.standard_errors(moe, one, x, y, kind=kind).values
        there = uncertainty.standard_errors(other, two, scale * x, y, kind=kind).values
        for name, power in (("tau", 0), ("beta", 1), ("eta", 1)):
            np.testing.assert_allclose(there[name] * scale**power, plain[name], rtol=1e-5)
