"""Labels of exchangeable components: intervals are judged in the truth's, and draws have one order."""

from dataclasses import replace
from itertools import permutations

import jax
import numpy as np
import pytest

from bayes_moe import contaminated, gaussian_gated
from comparisons import catalogue
from comparisons.curves.regimes import regime as curves
from comparisons.gaussian import regimes as gaussian_regimes
from comparisons.running import cell
from comparisons.study import contract, estimators, labels
from comparisons.study.contract import Estimate
from comparisons.study.plan import Cell, Study

TWO = catalogue.beyond().regime("adapters-same")
REPLICATES = 120
SD = 0.3
NOMINAL = 0.95, 4 * np.sqrt(0.95 * 0.05 / (2 * REPLICATES))


def switched(problem, rng_key, settings):
    """Exact normal errors around the truth with their exact intervals, its components in an order of their own."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(rng_key)).tolist())
    order = rng.permutation(len(next(iter(problem.truth.values()))))
    point = {name: (value + SD * rng.normal(size=value.shape))[order] for name, value in problem.truth.items()}
    draws = {name: value[None] for name, value in point.items()}
    bounds = {name: np.stack([value - 1.96 * SD, value + 1.96 * SD], axis=-1) for name, value in point.items()}
    return Estimate(draws, "ok", {}, bounds, {"tau": bounds["tau"]} if "tau" in bounds else None)


def covered(regime, estimator, monkeypatch):
    monkeypatch.setattr(cell, "measure", lambda *_: {})  # which would be compiled
    plan = {"a": (50,)}, {"a": REPLICATES}, {"a": {}}
    study = Study("one", "one", (regime,), *plan, estimators={"a": estimator})
    rows = [cell.run(study, Cell(regime.name, 50, i, "a")).payload for i in range(REPLICATES)]
    assert {row["status"] for row in rows} == {"ok"}
    names = {name.split("cover_")[1]: name for name in rows[0] if "cover_" in name}
    return {name: np.mean([row[column] for row in rows]) for name, column in names.items()}


@pytest.mark.slow
def test_intervals_of_exchangeable_adapters_are_judged_in_the_truth_s_order(monkeypatch):
    for share in covered(TWO, switched, monkeypatch).values():
        assert share == pytest.approx(NOMINAL[0], abs=NOMINAL[1])
    monkeypatch.setattr(labels, "exchangeable", lambda moe: 1)  # planted: label by label
    assert covered(TWO, switched, monkeypatch)["eta"] < 0.8


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_nearest_order_is_that_of_brute_force(count):
    moe = gaussian_gated(count, 2)
    rng = np.random.default_rng(count)

    def some():
        values = {name: rng.normal(size=field.shape) for name, field in moe.fields.items()}
        return values

    truth, point = some(), some()
    widths = {name: np.abs(value) + 0.1 for name, value in some().items()}
    bounds = {name: np.stack([point[name] - widths[name], point[name] + widths[name]], axis=-1) for name in point}
    found = labels.nearest(moe, Estimate({n: v[None] for n, v in point.items()}, "ok", {}, bounds), truth)

    def cost(order):
        scale = {name: 2 * np.sqrt((width**2).mean(axis=0)) for name, width in widths.items()}
        return sum((((point[name][list(order)] - truth[name]) / scale[name]) ** 2).sum() for name in point)

    best = list(min(permutations(range(count)), key=cost))
    for name, value in bounds.items():
        np.testing.assert_array_equal(found.intervals[name], value[best])


def test_which_models_have_exchangeable_components():
    frozen = [[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
    assert labels.exchangeable(contaminated(frozen)) == 1
    assert labels.exchangeable(contaminated(frozen, adapters=3, gate="constant")) == 3
    assert labels.exchangeable(gaussian_gated(4, 1)) == 4
    assert labels.exchangeable(curves("normal").moe) == 1


def test_one_component_or_another_number_than_the_truth_s_keeps_its_labels():
    truth = catalogue.HETEROGENEOUS.truth(50)
    one = Estimate({name: value[None] for name, value in truth.items()}, "ok", {}, {"tau": np.zeros((1, 2))})
    assert labels.nearest(catalogue.HETEROGENEOUS.moe, one, truth) is one
    more = gaussian_gated(4, 1)
    values = {name: np.zeros((1, *field.shape)) for name, field in more.fields.items()}
    over = Estimate(values, "ok", {}, {"b": np.zeros((3, 2))})
    assert labels.nearest(more, over, gaussian_regimes.truth("m1")) is over


def test_draws_whose_labels_switch_are_put_in_one_order():
    rng = np.random.default_rng(0)
    truth = TWO.truth(50)
    draws = {name: value + 0.1 * rng.normal(size=(400, *value.shape)) for name, value in truth.items()}
    swap = rng.integers(2, size=400).astype(bool)
    mixed = {name: np.where(swap.reshape(-1, *[1] * (v.ndim - 1)), v[:, ::-1], v) for name, v in draws.items()}
    found = labels.settled(TWO.moe, mixed)
    same = all(np.array_equal(found[name], draws[name]) for name in draws)
    assert same or all(np.array_equal(found[name], draws[name][:, ::-1]) for name in draws)
    widths = [np.diff(contract.credible(d)["eta"], axis=-1).mean() for d in (mixed, found)]
    assert widths[1] < 0.5 * widths[0]
    alone = {"tau": np.ones((5, 1))}
    assert labels.settled(catalogue.HETEROGENEOUS.moe, alone) is alone


# Parameters with a support ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("near", [pytest.param(False, marks=pytest.mark.slow), True])
def test_maximum_likelihood_fits_parameters_with_a_constraint(near):
    """The built-in estimator on positive, simplex and positive-definite parameters; the oracle is EM."""
    from mle import em  # noqa: PLC0415

    regime = replace(gaussian_regimes.regime("m1", 3), generator=None)
    truth = regime.truth(400)
    x, y = regime.moe.simulate_joint(3, truth, 400)
    problem = contract.Problem(regime.moe, x, y, truth)
    settings = {"n_init": 1 if near else 6, "bound": 20.0, "spread": 0.1}
    found = estimators.mle(problem, jax.random.key(0), settings, near=near)
    best = em.fit(regime.moe, x, y, init=[truth])
    assert found.info["log_likelihood"] >= best.log_likelihood - 1e-3
    assert np.all(found.draws["nu"] > 0)
    np.testing.assert_allclose(found.draws["pi"].sum(axis=1), 1.0)


def test_starts_near_the_truth_are_inside_the_support():
    moe, truth = gaussian_gated(3, 2), gaussian_regimes.truth("m3")
    rng = np.random.default_rng(0)
    for _ in range(20):
        moe.params(**estimators._moved(moe, truth, 3.0, rng))
