"""Draws are read with the model and the data that they were made from, or not at all; rows keep their names."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.linear_model import LogisticRegression

from bayes_moe import contaminated, gaussian_gated, nuts
from bayes_moe.draws.invariants import invariants
from bayes_moe.draws.loo import loo
from bayes_moe.draws.relabel import filled, relabel
from bayes_moe.model import origin
from bayes_moe.model.experts import Frozen

ETA0 = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
MOE = contaminated(ETA0, activation="tanh", adapters=2)
N = 30
X = np.random.default_rng(0).normal(size=(N, 2))
Y = np.random.default_rng(1).integers(0, 3, N)
INDEX = [f"row {i}" for i in range(N)]
RUN = {"rng_key": 0, "num_warmup": 100, "num_samples": 100, "num_chains": 2, "progress_bar": False}


@pytest.fixture(scope="module")
def idata():
    return nuts.sample(MOE, pd.DataFrame(X, index=INDEX), Y, log_likelihood=True, **RUN)


READERS = {
    "loo": lambda moe, tree, x=X, y=Y: loo(moe, tree, x, y),
    "relabel": lambda moe, tree, x=X, y=Y: relabel(moe, tree, x, y),
    "invariants": lambda moe, tree, x=X, y=Y: invariants(moe, tree, x[:3], y[:3]),
    "class_probabilities": lambda moe, tree, x=X, y=Y: nuts.class_probabilities(moe, tree, x[:3]),
}
OTHER_MODELS = {
    "activation": contaminated(ETA0, activation="sigmoid", adapters=2),
    "the user's activation": contaminated(ETA0, activation=lambda z: jnp.tanh(1.1 * z), adapters=2),
    "gate": contaminated(ETA0, activation="tanh", adapters=2, gate="sigmoid"),
    "no slopes": contaminated(ETA0, activation="tanh", adapters=3),
    "reference": contaminated(ETA0, activation="tanh", adapters=2, reference=None),
    "classes": contaminated(ETA0, activation="tanh", adapters=2, classes=[2, 1, 0]),
    "frozen vectors": contaminated(ETA0[::-1], activation="tanh", adapters=2),
    "frozen activation": contaminated(ETA0, frozen_activation="relu", activation="tanh", adapters=2),
    "classifier": contaminated(LogisticRegression().fit(X, Y), activation="tanh", adapters=2),
    "another family": gaussian_gated(2, 2),
}


@pytest.mark.filterwarnings("ignore:Estimated shape")
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_draws_of_another_model_are_refused(idata, read):
    read(MOE, idata)
    read(contaminated(ETA0, activation=lambda z: jnp.tanh(z), adapters=2), idata)  # the same function, by another name
    for name, moe in OTHER_MODELS.items():
        with pytest.raises(ValueError, match=r"^(moe must be the model|idata must hold draws of this model)"):
            read(moe, idata)
            pytest.fail(name)


@pytest.mark.parametrize("without", [[], ["constant_data"], ["constant_data", "observed_data"]])
@pytest.mark.parametrize("read", [READERS["loo"], READERS["relabel"]], ids=["loo", "relabel"])
def test_other_data_are_refused(idata, read, without):
    tree = idata.drop_nodes(without)
    for x, y in ((X, np.roll(Y, 1)), (X[::-1], Y), (X + 1e-3, Y), (X[:-1], Y[:-1])):
        with pytest.raises(ValueError, match=r"^(x|y|x and y) must be the data that idata was sampled with"):
            read(MOE, tree, x, y)


@pytest.mark.filterwarnings("ignore:Estimated shape")
def test_the_same_data_in_other_forms_are_taken(idata):
    rounded = X * (1 + 1e-15)  # standardised again, elsewhere
    for x, y in ((X.astype(np.float32), Y), (pd.DataFrame(X, index=INDEX), Y.astype(float)), (rounded, Y.tolist())):
        relabel(MOE, idata, x, y)
    assert loo(MOE, idata.drop_nodes(["constant_data"]), X, Y).elpd == loo(MOE, idata, X, Y).elpd


def test_names_of_rows_are_kept(idata):
    for group, name in (("observed_data", "y"), ("constant_data", "x"), ("log_likelihood", "y")):
        assert idata[group][name]["obs_id"].values.tolist() == INDEX, group
    assert loo(MOE, idata, X, Y).elpd_i["obs_id"].values.tolist() == INDEX


def test_a_table_of_other_rows_is_refused(idata):
    table = np.log(np.tile([0.2, 0.3, 0.5], (N, 1)))
    with pytest.raises(ValueError, match="^moe must be the model.*frozen expert"):
        loo(contaminated(Frozen.table(table), features=2, activation="tanh", adapters=2), idata, X, Y)


NO_TREE = {"dataset": lambda t: t["posterior"].to_dataset(), "node": lambda t: t["posterior"], "none": lambda t: None}


@pytest.mark.parametrize("other", NO_TREE.values(), ids=NO_TREE)
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_what_is_no_tree_is_named(idata, read, other):
    with pytest.raises(ValueError, match="^idata must be a DataTree with the group posterior"):
        read(MOE, other(idata))


def test_real_responses_have_no_class_probabilities():
    moe = gaussian_gated(2, 1)
    draws = {
        name: (("chain", "draw", *field.dims), np.ones((1, 2, *field.shape))) for name, field in moe.fields.items()
    }
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset(draws)})
    with pytest.raises(ValueError, match="^moe must be a model of classes"):
        nuts.class_probabilities(moe, tree, np.zeros((3, 1)))


SELECTIONS = {
    "chains": lambda t: t.isel(chain=[1]),
    "a chain": lambda t: t.isel(chain=1),
    "draws": lambda t: t.isel(draw=slice(3, 9)),
    "a draw": lambda t: t.isel(draw=3),
}


@pytest.mark.parametrize("select", SELECTIONS.values(), ids=SELECTIONS)
def test_some_chains_or_draws_are_read_like_all(idata, select):
    tree = select(idata)
    how = {"x": X, "y": Y} if "chain" not in tree["posterior"].dims else {"method": "order", "by": "tau"}
    out = relabel(MOE, tree, **how)["relabelled"]
    assert out["permutation"].dims == ("chain", "draw", "adapter")
    raw = origin.with_dims(tree["posterior"].to_dataset())["eta"].values
    order = out["permutation"].values[..., None, None]
    np.testing.assert_array_equal(out["eta"].values, np.take_along_axis(raw, order, axis=2))
    whole = invariants(MOE, idata, X[:3], Y[:3])
    np.testing.assert_array_equal(
        invariants(MOE, tree, X[:3], Y[:3])["sorted_tau"].values.ravel(), select(whole)["sorted_tau"].values.ravel()
    )
    nuts.class_probabilities(MOE, tree, X[:3])


def test_what_a_tree_lacks_is_named(idata):
    with pytest.raises(ValueError, match="^idata must be a DataTree with the group sample_stats"):
        relabel(MOE, idata.drop_nodes(["sample_stats"]), X, Y)
    with pytest.raises(ValueError, match="^idata must hold weights pi"):
        filled(idata)
