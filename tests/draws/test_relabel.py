"""Relabelling undoes a known shuffle, keeps the raw draws, and says how many experts are filled."""

import arviz_base
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from gaussian_cases import CENTRE, MOE

from bayes_moe import contaminated, gaussian_gated
from bayes_moe.draws import invariants, relabel
from bayes_moe.nuts.datatree import flat_variables

CHAINS, DRAWS, N = 2, 40, 80
X, Y = MOE.simulate_joint(0, CENTRE, N)
DATA = MOE.observe(X, Y)


def shuffled_tree(shuffle=True, seed=0):
    """Return draws around the centre, each with its experts in random order, and the orders."""
    rng = np.random.default_rng(seed)
    order = np.argsort(rng.random((CHAINS, DRAWS, 3)), axis=2) if shuffle else np.tile(np.arange(3), (CHAINS, DRAWS, 1))
    draws = {}
    for name, value in CENTRE.items():
        jitter = np.exp(0.02 * rng.normal(size=(CHAINS, DRAWS, *value.shape)))
        moved = value * jitter + (0.05 * rng.normal(size=jitter.shape) if name in ("a", "b", "c") else 0)
        moved = moved / moved.sum(axis=2, keepdims=True) if name == "pi" else moved
        draws[name] = np.take_along_axis(moved, order.reshape(*order.shape, *[1] * (moved.ndim - 3)), axis=2)
    dims = {name: list(field.dims) for name, field in MOE.fields.items()}
    stats = {"lp": rng.normal(size=(CHAINS, DRAWS))}
    return arviz_base.from_dict({"posterior": draws, "sample_stats": stats}, dims=dims), order


def spread(group):
    """Largest standard deviation of any location over draws, which a label left wrong makes large."""
    return float(group["c"].std(("chain", "draw")).max())


@pytest.mark.parametrize("method", relabel.METHODS)
def test_a_shuffle_is_undone_and_the_raw_draws_are_kept(method):
    tree, order = shuffled_tree()
    before = tree["posterior"].to_dataset().copy(deep=True)
    out = relabel.relabel(MOE, tree, X, Y, method=method)
    assert spread(tree["posterior"]) > 1  # negative control: raw labels are mixed
    assert spread(out["relabelled"]) < 0.2
    xr.testing.assert_identical(out["posterior"].to_dataset(), before)
    assert "relabelled" not in tree.children
    combined = np.take_along_axis(order, out["relabelled"]["permutation"].values, axis=2)
    assert len(np.unique(combined.reshape(-1, 3), axis=0)) == 1  # one global order is left to choose
    assert out["relabelled"]["Gamma"].dims == ("chain", "draw", "expert", "feature", "feature_bis")


@pytest.mark.parametrize("method", relabel.METHODS)
def test_each_draw_is_the_same_measure_after_relabelling(method):
    tree, _ = shuffled_tree(seed=1)
    out = relabel.relabel(MOE, tree, X, Y, method=method, thin=2)
    for one, two in ((0, 3), (1, 17)):
        raw, new = (
            {n: tree_group[n].values[one, two] for n in CENTRE} for tree_group in (out["posterior"], out["relabelled"])
        )
        np.testing.assert_allclose(MOE.log_density(raw, X, Y), MOE.log_density(new, X, Y), rtol=1e-12)


@pytest.mark.parametrize("method", ["ecr", "stephens"])
def test_draws_some_at_a_time_give_what_all_give(method, monkeypatch):
    tree, _ = shuffled_tree()
    whole = relabel.relabel(MOE, tree, X, Y, method=method)
    monkeypatch.setattr(relabel, "NUMBERS", 7 * N * 3)  # 80 draws in slices of seven
    sizes = [len(part) for part in relabel.Shares(MOE, flat_variables(tree["posterior"].dataset, MOE.fields), DATA)]
    assert sizes == [7] * 11 + [3]
    parts = relabel.relabel(MOE, tree, X, Y, method=method)
    xr.testing.assert_identical(parts["relabelled"].to_dataset(), whole["relabelled"].to_dataset())


@pytest.mark.parametrize("method", relabel.METHODS)
def test_adapters_beside_a_frozen_expert_are_permuted_among_themselves(method):
    moe = contaminated([[0.0, 0.5], [0.5, 0.0]], activation="linear", adapters=2)
    truth = moe.params(tau=[-1.0, 1.0], beta=[[1.0, 0.0], [-1.0, 0.0]], eta=[[[3.0, 0.0]], [[0.0, -3.0]]])
    x = np.random.default_rng(0).normal(size=(N, 2))
    y = moe.simulate(0, truth, x)
    swap = np.random.default_rng(1).random((CHAINS, DRAWS)) < 0.5
    dims = {name: (("chain", "draw", *field.dims)) for name, field in moe.fields.items()}
    draws = {}
    for name, value in truth.items():
        one = value + 0.01 * np.random.default_rng(2).normal(size=(CHAINS, DRAWS, *value.shape))
        draws[name] = dims[name], np.where(swap.reshape(CHAINS, DRAWS, *[1] * value.ndim), one[:, :, ::-1], one)
    stats = xr.Dataset({"lp": (("chain", "draw"), np.zeros((CHAINS, DRAWS)))})
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset(draws), "sample_stats": stats})
    assert list(moe.exchangeable) == [1, 2]
    assert list(contaminated([[0.0], [1.0]], adapters=1).exchangeable) == []
    out = relabel.relabel(moe, tree, x, y, method=method, by="tau")["relabelled"]
    assert float(tree["posterior"]["tau"].std(("chain", "draw")).max()) > 0.9  # negative control: raw labels are mixed
    assert float(out["tau"].std(("chain", "draw")).max()) < 0.05
    found = invariants.invariants(moe, tree, x[:4], y[:4])
    assert set(found) == {"log_density", "sorted_tau", "sorted_beta", "sorted_eta"}
    raw = {name: values[1][0, 3] for name, values in draws.items()}
    np.testing.assert_allclose(found["log_density"][0, 3], moe.log_density(raw, x[:4], y[:4]), rtol=1e-12)
    np.testing.assert_allclose(found["sorted_tau"].mean(("chain", "draw")), [-1.0, 1.0], atol=0.01)


def test_stephens_lowers_the_divergence_of_every_single_swap():
    rng = np.random.default_rng(0)
    share = rng.dirichlet(np.ones(3), (20, 30))
    order = relabel.stephens(share)
    mean = np.take_along_axis(share, order[:, None], axis=2).mean(axis=0)
    gain = lambda r, o: np.sum(r[:, o] * np.log(mean))  # noqa: E731
    for r, o in zip(share, order, strict=True):
        assert all(gain(r, o) >= gain(r, p) - 1e-12 for p in ([0, 1, 2], [1, 0, 2], [2, 1, 0], [0, 2, 1], [1, 2, 0]))


def test_filled_counts_weights_above_the_threshold():
    tree, _ = shuffled_tree()
    tree["posterior"]["pi"][0, 0] = [0.995, 0.004, 0.001]
    counts = relabel.filled(tree)
    assert counts.dims == ("chain", "draw")
    assert counts.values[0, 0] == 1
    assert (counts.values.ravel()[1:] == 3).all()


def test_the_posterior_of_the_number_of_experts_is_told_by_chain():
    tree, _ = shuffled_tree()
    tree["posterior"]["pi"][0, : DRAWS // 2] = [0.995, 0.004, 0.001]
    found = relabel.number_of_experts(tree)
    assert found.dims == ("chain", "experts")
    np.testing.assert_array_equal(found["experts"], [1, 2, 3])
    np.testing.assert_array_equal(found, [[0.5, 0.0, 0.5], [0.0, 0.0, 1.0]])
    assert (relabel.number_of_experts(tree, threshold=0.002).sel(experts=2) == [0.5, 0.0]).all()


def renamed():
    """Return what a model whose covariate has another name says."""
    return relabel.relabel(gaussian_gated(3, ["u"]), shuffled_tree()[0], pd.DataFrame(X, columns=["v"]), Y)


BAD = [
    (renamed, "x must have the columns"),
    (lambda: relabel.relabel(MOE, shuffled_tree()[0], X, Y, thin=0), "thin must be an integer"),
    (lambda: relabel.relabel(MOE, shuffled_tree()[0], method="sort"), "method must be one of"),
    (lambda: relabel.relabel(MOE, shuffled_tree()[0]), "x and y are needed"),
    (lambda: relabel.relabel(MOE, shuffled_tree()[0], method="order", by="tau"), "by must be a parameter"),
    (lambda: relabel.relabel(contaminated(np.eye(2)), shuffled_tree()[0], method="order"), "exchangeable experts"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
