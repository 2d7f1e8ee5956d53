"""Draws are not lost to what comes after them: odd sites, models that can't predict, groups that don't fit a tree."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from numpyro import handlers

from bayes_moe import nuts
from bayes_moe.nuts import plainer

RUN = {"rng_key": 0, "num_warmup": 20, "num_samples": 8, "num_chains": 2, "progress_bar": False}
X = np.linspace(-1.0, 1.0, 6)


def draws(*shape):
    """Return numbers with leading axes (chain, draw)."""
    return np.random.default_rng(0).normal(size=(2, 8, *shape))


def assembled(**groups):
    """Build a tree as for a user's model."""
    dims = {"y": ["obs_id"]}
    return plainer.tree(plainer.renamed(groups, dims), dims, {}, {"library": "bayes-moe"})


ODD = {
    "chain": ({"chain": draws()}, {"chain_": ("chain", "draw")}),
    "draw, a vector": ({"draw": draws(3)}, {"draw_": ("chain", "draw", "draw__dim_0")}),
    "sample": ({"sample": draws()}, {"sample_": ("chain", "draw")}),
    "scoped": ({"a/b": draws(), "a_b": draws()}, {"a_b_": ("chain", "draw"), "a_b": ("chain", "draw")}),
    "a dim of another": (
        {"b": draws(3), "b_dim_0": draws(2)},
        {"b": ("chain", "draw", "b_dim_0"), "b_dim_0_": ("chain", "draw", "b_dim_0__dim_0")},
    ),
    "a dim of the data": ({"obs_id": draws(3)}, {"obs_id_": ("chain", "draw", "obs_id__dim_0")}),
}


@pytest.mark.parametrize(("sites", "dims"), ODD.values(), ids=ODD)
def test_sites_whose_names_mean_something_else_keep_their_draws(sites, dims):
    with pytest.warns(UserWarning, match="go by other names in the tree"):
        posterior = assembled(posterior=sites)["posterior"]
    assert {name: posterior[name].dims for name in posterior.data_vars} == dims
    for values, name in zip(sites.values(), dims, strict=True):
        np.testing.assert_array_equal(posterior[name], values)
    assert list(posterior["chain"].values) == [0, 1]


def test_sites_of_every_group_are_renamed_alike():
    with pytest.warns(UserWarning, match="other names"):
        tree = assembled(posterior={"a/b": draws()}, log_prior={"a/b": draws()})
    assert list(tree["posterior"].data_vars) == list(tree["log_prior"].data_vars) == ["a_b"]


def test_usual_sites_are_as_arviz_has_them():
    tree = assembled(posterior={"a": draws(3), "y": draws(5)}, observed_data={"y": np.ones(5)})
    assert tree["posterior"]["y"].dims == ("chain", "draw", "obs_id")
    assert tree["observed_data"]["y"].dims == ("obs_id",)
    assert tree.attrs["library"] == "bayes-moe"


def test_groups_that_do_not_fit_get_numbered_dims():
    """Two sizes of one dim in one group, and more dims than axes."""
    groups = {"posterior": {"y": draws(), "a": draws(3)}, "log_likelihood": {"y": draws(4), "w": draws(5)}}
    dims = {"y": ["obs_id"], "w": ["obs_id"], "a": ["k", "l"]}
    with pytest.warns(UserWarning, match="the draws are kept"):
        tree = plainer.tree(groups, dims, {}, {"library": "bayes-moe"})
    for name, own in groups.items():
        for site, values in own.items():
            np.testing.assert_array_equal(tree[name][site], values)
    assert tree["log_likelihood"]["w"].dims == ("chain", "draw", "w_dim_0")
    assert tree.attrs["library"] == "bayes-moe"


def cannot_predict(x, y):
    """Stand for a model that needs its responses."""
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(a * x, jnp.std(y) + 1.0), obs=y)


def test_a_model_that_cannot_predict_keeps_its_draws():
    with pytest.warns(UserWarning, match="without log_likelihood and posterior_predictive") as said:
        idata = nuts.sample(cannot_predict, X, X**2, **RUN, log_likelihood=True, posterior_predictive=True)
    assert len(said) == 1
    assert idata["posterior"]["a"].shape == (2, 8)
    assert idata["log_likelihood"]["y"].shape == (2, 8, 6)
    assert "posterior_predictive" not in idata.children
    assert {"sample_stats", "log_prior", "observed_data"} <= set(idata.children)


def odd(x, y=None):
    """Have names that a tree uses itself, within a scope, and a site that fails once it has a value."""
    a = numpyro.sample("draw", dist.Normal(0.0, 1.0))
    with handlers.scope(prefix="in"):
        b = numpyro.sample("b", dist.HalfNormal(1.0).expand([2]).to_event(1))
    with numpyro.plate("i", x.shape[0]):
        numpyro.sample("y", dist.Normal(a * x, b.sum()), obs=y)


@pytest.mark.slow
def test_a_model_with_odd_names_runs_to_its_end():
    with pytest.warns(UserWarning, match="other names"):
        idata = nuts.sample(odd, X, X**2, **RUN, log_likelihood=True, posterior_predictive=True)
    assert set(idata["posterior"].data_vars) == {"draw_", "in_b"}
    assert isinstance(idata, xr.DataTree)


def test_where_nothing_can_be_had_of_a_model_its_free_vectors_can(monkeypatch):
    from bayes_moe.nuts import datatree
    from bayes_moe.nuts.chains import Settings
    from bayes_moe.nuts.modes import Layout

    def fails(*args):
        raise RuntimeError("no")

    class Made:
        free, stats = draws(3), {name: draws() for name in ("potential_energy", "energy", "num_steps", "accept_prob")}

    Made.stats |= {"diverging": draws() > 9, "step_size": draws(), "virial": draws(3)}
    monkeypatch.setattr(datatree, "compiled", fails)
    where = Layout((("a", ()), ("b", (2,))))
    with pytest.warns(UserWarning, match="unconstrained as they were made, because of RuntimeError: no"):
        found = datatree.groups(odd, (X, X), where, Made, Settings(), None)
    np.testing.assert_array_equal(found["posterior"]["b_unconstrained"], Made.free[..., 1:])
    tree = datatree.assemble(found, None, (X, jnp.asarray(X)), {})
    np.testing.assert_array_equal(tree["posterior"]["a_unconstrained"], Made.free[..., 0])
