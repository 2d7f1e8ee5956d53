"""The DataTree: what ArviZ gets, that it is right, and that it survives the disk."""

import json
import tomllib
from pathlib import Path

import arviz as az
import matplotlib as mpl
import numpy as np
import oracle
import pytest
import xarray as xr
from montecarlo import STANDARD_ERRORS, key
from scipy import stats
from scipy.special import expit, softmax

import bayes_moe
from bayes_moe import contaminated, nuts
from bayes_moe.draws import diagnostics
from bayes_moe.nuts import datatree

MODEL = oracle.Model(np.array([[1.0, 0.0], [-0.5, 1.0], [0.0, 0.0]]), "linear", "tanh")
CLASSES = ["cat", "dog", "emu"]
FEATURES = ["age", "dose"]
SIZE = 60
CHAINS, DRAWS = 4, 512
RUN = {"rng_key": key(3), "num_warmup": 300, "num_samples": DRAWS, "progress_bar": False}
GROUPS = {"posterior", "sample_stats", "log_prior", "observed_data", "constant_data"}
ON_REQUEST = {"log_likelihood", "posterior_predictive"}
DIMS = {"tau": ["adapter"], "beta": ["adapter", "gate_feature"], "eta": ["adapter", "class", "feature"]}
EXACT = 1e-10
SINGLE = 1e-6  # of sums whose terms are in single precision


def problem():
    """Return the package's model, covariates and label positions."""
    rng = np.random.default_rng(7)
    moe = contaminated(MODEL.eta0, activation="tanh", features=FEATURES, classes=CLASSES)
    x = rng.normal(size=(SIZE, 2))
    truth = {"tau": 1.0, "beta": np.array([1.0, 0.0]), "eta": np.array([[2.0, 0.0], [0.0, -2.0]])}
    return moe, x, oracle.simulate(MODEL, truth, x, rng)


def labels(codes):
    """Name class positions."""
    return [CLASSES[code] for code in codes]


@pytest.fixture(scope="module")
def idata():
    """Return a posterior with every group, drawn once."""
    moe, x, codes = problem()
    return nuts.sample(moe, x, labels(codes), **RUN, log_likelihood=True, posterior_predictive=True)


def one_draw(idata, chain, draw):
    """Return the parameters of one draw as the oracle takes them."""
    picked = idata["posterior"].to_dataset().isel(chain=chain, draw=draw)
    return {name: picked[name].values[0] for name in DIMS}


def class_probabilities(idata, x):
    """Class probabilities of every draw in plain NumPy, shape (chain, draw, n, classes)."""
    tau, beta, eta = (idata["posterior"][name].values[:, :, 0] for name in DIMS)
    weight = expit(np.einsum("...d,nd->...n", beta, x) + tau[..., None])[..., None]
    scores = np.tanh(np.einsum("...kd,nd->...nk", eta, x))
    adapter = softmax(np.concatenate([scores, np.zeros_like(scores[..., :1])], axis=-1), axis=-1)
    return (1 - weight) * softmax(x @ MODEL.eta0.T, axis=-1) + weight * adapter


# Layout ----------------------------------------------------------------------------------------------------


def test_groups_dims_and_coords(idata):
    assert set(idata.children) == GROUPS | ON_REQUEST
    posterior = idata["posterior"].to_dataset()
    assert {name: list(values.dims) for name, values in posterior.items()} == {
        name: ["chain", "draw", *dims] for name, dims in DIMS.items()
    }
    coords = {name: values.values.tolist() for name, values in posterior.coords.items()}
    assert coords == {
        "chain": list(range(CHAINS)),
        "draw": list(range(DRAWS)),
        "adapter": [0],
        "class": CLASSES[:2],
        "gate_feature": FEATURES,
        "feature": FEATURES,
    }
    assert posterior["eta"].sel({"class": "dog", "feature": "dose"}).shape == (CHAINS, DRAWS, 1)


def test_no_dim_bears_the_name_of_a_variable(idata):
    dims = {dim for node in idata.subtree for dim in node.dims}
    variables = {name for node in idata.subtree for name in node.data_vars}
    assert {"tau", "beta", "eta", "y", "x", "lp"} <= variables
    assert not dims & variables


def test_each_group_has_its_variables_and_axes(idata):
    sizes = {
        f"{group}/{name}": dict(values.sizes)
        for group in ("log_prior", "log_likelihood", "posterior_predictive", "observed_data", "constant_data")
        for name, values in idata[group].data_vars.items()
    }
    each = {"chain": CHAINS, "draw": DRAWS}
    assert sizes == {f"log_prior/{name}": each for name in DIMS} | {
        "log_likelihood/y": each | {"obs_id": SIZE},
        "posterior_predictive/y": each | {"obs_id": SIZE},
        "observed_data/y": {"obs_id": SIZE},
        "constant_data/x": {"obs_id": SIZE, "feature": 2},
        "constant_data/frozen_log_proba": {"obs_id": SIZE, "class": 3},
    }
    stats = idata["sample_stats"].dataset
    assert dict(stats["virial"].sizes) == each | {"free": sum(idata["posterior"][name][0, 0].size for name in DIMS)}
    assert all(list(values.sizes) == list(each) for values in stats.drop_vars("virial").data_vars.values())


def test_data_are_those_given(idata):
    _, x, codes = problem()
    constant = idata["constant_data"]
    np.testing.assert_array_equal(constant["x"], x)
    np.testing.assert_array_equal(idata["observed_data"]["y"], codes)
    np.testing.assert_allclose(np.exp(constant["frozen_log_proba"]), softmax(x @ MODEL.eta0.T, axis=1), rtol=EXACT)
    assert constant["class"].values.tolist() == CLASSES
    assert constant["feature"].values.tolist() == FEATURES


def test_expensive_groups_come_only_on_request():
    moe, x, codes = problem()
    plain = nuts.sample(moe, x, labels(codes), **RUN)
    assert set(plain.children) == GROUPS


def test_attributes_say_how_it_was_made(idata):
    expected = {
        "library": "bayes-moe",
        "library_version": bayes_moe.__version__,
        "seed": str(key(3)),
        "dtype": "mixed",
        "init": "mode",
        "num_warmup": 300,
        "num_samples": DRAWS,
        "num_chains": CHAINS,
        "target_accept_prob": 0.8,
        "max_tree_depth": 10,
        "dense_mass": "false",
    }
    assert expected.items() <= idata.attrs.items()
    assert json.loads(idata.attrs["classes"]) == CLASSES
    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())["project"]
    assert bayes_moe.__version__ == project["version"]


def test_data_hash_is_of_the_data_alone(idata):
    moe, x, codes = problem()
    assert len(idata.attrs["data_hash"]) == 64
    arrays = (x, codes)
    assert datatree.data_hash(arrays) == datatree.data_hash((x.copy(), codes.copy()))
    assert datatree.data_hash(arrays) != datatree.data_hash((x + 1e-12, codes))
    assert datatree.data_hash(arrays) != datatree.data_hash((x, codes[::-1]))
    assert datatree.data_hash(x) != datatree.data_hash(x.reshape(2, SIZE))


@pytest.mark.parametrize(
    "given, expected",
    [
        ([1, 2], [1, 2]),
        ([0.5, 1.5], [0.5, 1.5]),
        (["a", "b"], ["a", "b"]),
        ([1, "b"], ["1", "b"]),
        ([True, False], ["True", "False"]),
        ([("a", 1), ("a", 2)], ["('a', 1)", "('a', 2)"]),
    ],
    ids=str,
)
def test_labels_become_coordinates_that_a_file_can_hold(given, expected):
    found = datatree.labels_for_coords(given)
    assert found == expected
    assert len({type(label) for label in found}) == 1


# Numbers ---------------------------------------------------------------------------------------------------


def test_log_prior_is_scipys(idata):
    for name, dims in DIMS.items():
        draws = idata["posterior"][name]
        expected = stats.norm(0, 2).logpdf(draws).sum(axis=tuple(range(2, 2 + len(dims))))
        np.testing.assert_allclose(idata["log_prior"][name], expected, rtol=EXACT)


def test_log_likelihood_is_the_models_and_the_oracles(idata):
    moe, x, codes = problem()
    for chain, draw in ((0, 0), (1, 250), (3, DRAWS - 1)):
        params = one_draw(idata, chain, draw)
        found = idata["log_likelihood"]["y"].values[chain, draw]
        np.testing.assert_allclose(found, moe.log_density(moe.params(**params), x, labels(codes)), rtol=EXACT)
        np.testing.assert_allclose(found, oracle.log_density(MODEL, params, x, codes), rtol=EXACT)


def test_in_double_the_log_density_is_exact():
    moe, x, codes = problem()
    run = RUN | {"num_samples": 20, "num_warmup": 50}
    idata = nuts.sample(moe, x, labels(codes), **run, dtype="float64", log_likelihood=True)
    whole = idata["log_likelihood"]["y"].sum("obs_id") + sum(idata["log_prior"].data_vars.values())
    np.testing.assert_allclose(idata["sample_stats"]["lp"], whole, rtol=EXACT)


@pytest.mark.statistical
def test_statistics_hang_together(idata):
    found, likelihood = idata["sample_stats"].to_dataset(), idata["log_likelihood"]["y"].sum("obs_id")
    prior = sum(idata["log_prior"].data_vars.values())
    np.testing.assert_allclose(found["lp"], likelihood + prior, rtol=SINGLE)
    assert (found["energy"] + found["lp"] >= 0).all()  # what is left is kinetic
    assert found["diverging"].dtype == found["reached_max_treedepth"].dtype == bool
    assert (found["n_steps"] >= 2 ** (found["tree_depth"] - 1)).all()
    assert (found["n_steps"] < 2 ** found["tree_depth"]).all()
    assert not found["reached_max_treedepth"].any()
    assert ((found["acceptance_rate"] > 0) & (found["acceptance_rate"] <= 1)).all()
    assert (found["step_size"].std("draw") < EXACT).all()  # adaptation ended with the warm-up
    assert len(np.unique(found["step_size"].isel(draw=0))) == CHAINS


def predictive_scores(idata, codes):
    """Frequencies of each class in each row less their exact expectation, in standard errors."""
    expected = class_probabilities(idata, problem()[1])
    frequencies = np.mean(codes[..., None] == np.arange(3), axis=(0, 1))
    errors = np.sqrt(np.sum(expected * (1 - expected), axis=(0, 1))) / (CHAINS * DRAWS)
    return np.abs(frequencies - expected.mean(axis=(0, 1))) / errors


@pytest.mark.statistical
def test_posterior_predictive_follows_the_class_probabilities(idata):
    codes = idata["posterior_predictive"]["y"].values
    assert predictive_scores(idata, codes).max() < STANDARD_ERRORS
    for wrong in (2 - codes, codes[..., ::-1], np.broadcast_to(codes[:1, :1], codes.shape)):
        assert predictive_scores(idata, wrong).max() > STANDARD_ERRORS


@pytest.mark.statistical
def test_draws_of_the_predictive_are_independent_of_each_other(idata):
    codes = idata["posterior_predictive"]["y"].values.reshape(-1, SIZE)
    assert len(np.unique(codes, axis=0)) > 0.99 * len(codes)


def test_class_probabilities_at_new_covariates_are_means_over_the_draws(idata):
    new = np.random.default_rng(1).normal(size=(5, 2))
    expected = class_probabilities(idata, new).mean(axis=(0, 1))
    np.testing.assert_allclose(nuts.class_probabilities(problem()[0], idata, new), expected, rtol=EXACT)


# On disk, and in ArviZ -------------------------------------------------------------------------------------

FORMATS = {"netcdf": ("to_netcdf", "h5netcdf", "fit.nc"), "zarr": ("to_zarr", "zarr", "fit.zarr")}


@pytest.mark.parametrize("kind", FORMATS)
def test_round_trip_keeps_everything(kind, idata, tmp_path):
    write, engine, name = FORMATS[kind]
    options = {"engine": engine} if kind == "netcdf" else {}
    getattr(idata, write)(tmp_path / name, **options)
    with xr.open_datatree(tmp_path / name, engine=engine) as back:
        xr.testing.assert_identical(back.load(), idata)
        assert {node.path for node in back.subtree} == {node.path for node in idata.subtree}
        for node in idata.subtree:
            for variable, values in node.data_vars.items():
                assert back[node.path][variable].dtype == values.dtype, f"{node.path}/{variable}"
    assert diagnostics.check(back).passed == diagnostics.check(idata).passed


@pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto")  # of the data: an influential row
def test_a_user_can_ask_arviz_for_the_usual(idata):
    summary = az.summary(idata)
    rows = ["tau[0]", *(f"beta[0, {f}]" for f in FEATURES)]
    rows += [f"eta[0, {label}, {f}]" for label in CLASSES[:2] for f in FEATURES]
    assert sorted(summary.index) == sorted(rows)
    for order in (["tau", "beta", "eta"], ["eta", "beta", "tau"]):  # labels are those of the numbers beside them
        means = az.summary(idata, var_names=order, round_to="none")["mean"]
        for name in order:
            draws = idata["posterior"][name].mean(("chain", "draw"))
            for place in np.ndindex(draws.shape):
                where = ", ".join(str(draws[dim].values[i]) for dim, i in zip(draws.dims, place, strict=True))
                assert means[f"{name}[{where}]"] == pytest.approx(float(draws[place]))
    loo = az.loo(idata)
    assert loo.n_data_points == SIZE
    assert loo.elpd < 0.0
    sensitivity = az.psense_summary(idata)
    assert len(sensitivity) == len(summary)
    assert np.isfinite(sensitivity[["prior", "likelihood"]].to_numpy(float)).all()


def test_arviz_plots_it(idata, tmp_path):
    with mpl.rc_context({"backend": "Agg"}):
        plot = az.plot_trace_dist(idata, backend="matplotlib")
        plot.savefig(tmp_path / "trace.png")
    assert (tmp_path / "trace.png").stat().st_size > 10_000


@pytest.mark.statistical
def test_single_precision_is_an_option_and_agrees(idata):
    moe, x, codes = problem()
    single = nuts.sample(moe, x, labels(codes), **RUN, dtype="float32")
    assert single.attrs["dtype"] == "float32"
    for group in ("posterior", "log_prior"):
        assert {values.dtype for values in single[group].data_vars.values()} == {np.dtype("float32")}
    assert single["sample_stats"]["lp"].dtype == np.float32
    assert idata["posterior"]["tau"].dtype == np.float64
    summary = az.summary(idata, kind="stats", round_to="none")
    other = az.summary(single, kind="stats", round_to="none")
    assert (abs(other["mean"] - summary["mean"]) < 0.25 * summary["sd"]).all()
