"""What the sampler does besides sampling: stopping early, saying what it did, and summing the likelihood in blocks."""

import threading
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from montecarlo import key
from numpyro.infer.util import log_density
from scipy import optimize
from selection import quick

from bayes_moe import contaminated, gaussian_gated
from bayes_moe.ground import blocks, compilation, threads
from bayes_moe.nuts import chains, modes, sampler
from bayes_moe.nuts import posterior as nuts

ETA0 = [[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
ROWS = 61
RUN = {"num_warmup": 100, "num_chains": 2, "progress_bar": False}


def problem():
    """Return a model, covariates and labels."""
    moe = contaminated(ETA0, activation="tanh")
    x = np.random.default_rng(0).normal(size=(ROWS, 2))
    return moe, x, moe.simulate(0, moe.params(tau=0.5, beta=[1.0, -1.0], eta=[[1.0, 0.0], [0.0, -1.0]]), x)


@pytest.mark.parametrize("block", [7, 1000])
def test_nuts_moves_on_the_model_that_users_see(block, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", block)
    moe, x, y = problem()
    with jax.enable_x64(True):
        summed, prepare, model, args = nuts._problem(moe, x, y, None)
        summed_args = prepare(args)
        z = {name: jnp.full(field.shape, 0.3) for name, field in moe.fields.items()}
        values = [float(log_density(m, a, {}, z)[0]) for m, a in ((summed, summed_args), (model, args))]
        gradients = [
            jax.grad(lambda z, m=m, a=a: log_density(m, a, {}, z)[0])(z)
            for m, a in ((summed, summed_args), (model, args))
        ]
    assert values[0] == pytest.approx(values[1], rel=1e-13)
    for name in z:
        np.testing.assert_allclose(gradients[0][name], gradients[1][name], rtol=1e-11)


def test_it_stops_when_the_ess_is_reached():
    moe, x, y = problem()
    idata = nuts.sample(moe, x, y, rng_key=0, num_samples=4000, until_ess=150, **RUN)
    draws = idata["posterior"].sizes["draw"]
    assert chains.CHECK <= draws < 4000
    assert draws % chains.CHECK == 0
    assert "reached" in idata.attrs["ended"]
    free = np.concatenate([idata["posterior"][name].values.reshape(2, draws, -1) for name in moe.fields], axis=-1)
    assert min(chains.array_stats.ess(free[..., i], method="bulk") for i in range(free.shape[-1])) >= 150
    whole = nuts.sample(moe, x, y, rng_key=0, num_samples=draws, **RUN)
    np.testing.assert_array_equal(idata["posterior"]["eta"], whole["posterior"]["eta"])


def test_an_ess_out_of_reach_is_said():
    moe, x, y = problem()
    idata = nuts.sample(moe, x, y, rng_key=0, num_samples=250, until_ess=1e6, **RUN)
    assert idata["posterior"].sizes["draw"] == 250
    assert "not reached" in idata.attrs["ended"]


@pytest.mark.parametrize("value", [0, -5, "many"])
def test_an_ess_that_is_not_positive_is_refused(value):
    moe, x, y = problem()
    with pytest.raises(ValueError, match="until_ess"):
        nuts.sample(moe, x, y, rng_key=0, until_ess=value)


def interrupt_after(transitions, monkeypatch):
    """Press Ctrl-C, as the main thread sees it, once so many transitions are made."""
    made, pressed = [], threading.Event()

    class Future:
        def __init__(self, future):
            self.future = future

        def result(self):
            pressed.wait()
            raise KeyboardInterrupt

    class Pool(chains.ThreadPoolExecutor):
        def submit(self, *args):
            return Future(super().submit(*args))

    def report(self, count=1):
        made.append(count)
        if sum(made) >= transitions:
            pressed.set()

    monkeypatch.setattr(chains, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(chains, "wait", lambda futures: [future.future.result() for future in futures])
    monkeypatch.setattr(nuts.tqdm, "update", report)


def test_an_interrupt_keeps_the_draws_made(monkeypatch):
    moe, x, y = problem()
    interrupt_after(10_000, monkeypatch)
    idata = nuts.sample(moe, x, y, rng_key=0, num_samples=1_000_000, **RUN)
    monkeypatch.undo()
    draws = idata["posterior"].sizes["draw"]
    assert 0 < draws < 1_000_000
    assert idata.attrs["ended"] == "interrupted"
    whole = nuts.sample(moe, x, y, rng_key=0, num_samples=draws, **RUN)
    np.testing.assert_array_equal(idata["posterior"]["eta"], whole["posterior"]["eta"])


def test_draws_do_not_hang_on_how_often_progress_is_told(monkeypatch):
    moe, x, y = problem()
    runs, told = [], []
    for pace in (0.0, np.inf):
        counts = []
        monkeypatch.setattr(chains, "PACE", pace)
        monkeypatch.setattr(nuts.tqdm, "update", lambda self, count, counts=counts: counts.append(count))
        runs.append(nuts.sample(moe, x, y, rng_key=0, num_samples=71, **RUN | {"num_warmup": 30}))
        told.append(sorted(counts))
    assert told == [[1] * 2 * 101, [1, 1, 4, 4, 16, 16, 16, 16, 64, 64]]
    for group in ("posterior", "sample_stats"):
        xr.testing.assert_equal(runs[0][group].dataset, runs[1][group].dataset)


def test_chains_that_wait_for_others_keep_up_with_them(monkeypatch):
    moe, x, y = problem()
    monkeypatch.setattr(threads, "cores", lambda: 1)
    interrupt_after(2 * (chains.CHECK + RUN["num_warmup"]) - chains.CHECK // 2, monkeypatch)
    idata = nuts.sample(moe, x, y, rng_key=0, num_samples=100_000, **RUN)
    assert 0 < idata["posterior"].sizes["draw"] <= chains.CHECK
    monkeypatch.undo()
    whole = nuts.sample(moe, x, y, rng_key=0, num_samples=idata["posterior"].sizes["draw"], **RUN)
    np.testing.assert_array_equal(idata["posterior"]["eta"], whole["posterior"]["eta"])


def test_an_interrupt_during_warm_up_is_an_interrupt(monkeypatch):
    moe, x, y = problem()
    interrupt_after(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        nuts.sample(moe, x, y, rng_key=0, num_samples=1000, **RUN | {"num_warmup": 1_000_000})


# What is compiled --------------------------------------------------------------------------------------------------


def line(x, y=None):
    """Return a user's model of a line through x, a dict."""
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(slope * x["x"], 1.0), obs=y)


def contaminated_in(dtype):
    moe, x, y = problem()
    return moe, x, y, {"dtype": dtype}


def gaussian_gated_with_sweeps():
    x = np.random.default_rng(0).normal(size=(30, 1))
    return gaussian_gated(2, 1), x, x[:, 0] ** 2, {"sweeps": 1}


COMPILED = {dtype: lambda dtype=dtype: contaminated_in(dtype) for dtype in ("mixed", "float64", "float32")} | {
    "given a raw key": lambda: (*problem(), {"rng_key": jax.random.PRNGKey(0)}),
    "sweeps": gaussian_gated_with_sweeps,
    "a user's": lambda: (line, {"x": np.arange(5.0)}, [0.0, 1.0, 1.0, 3.0, 2.0], {}),
}


@pytest.mark.parametrize("case", quick(COMPILED, "mixed", "a user's"))
def test_what_is_compiled_ahead_is_what_runs(case):
    moe, x, y, more = case()
    compilation.forget()
    nuts.sample(moe, x, y, **{"rng_key": 0} | more, num_samples=100, **RUN)
    assert Counter(key[0].__name__ for key in compilation._TABLE) == dict.fromkeys(
        ("init", "advance", "potential", "evaluate"), 1
    )


def test_edits_of_the_users_arrays_reach_no_model():
    memory = np.zeros(72)
    for first in range(8):  # JAX shares memory that begins at a multiple of 64 bytes
        given = memory[first : first + 64]
        with jax.enable_x64(True):
            taken = compilation.as_arrays(given)
        given[:] = 1.0
        assert not np.any(taken)
        given[:] = 0.0


# What was done where curvature fails -------------------------------------------------------------------------------


def own(log_prior):
    """Return a user's model of two numbers with a density of their own."""

    def model(x, y=None):
        z = numpyro.sample("z", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
        numpyro.factor("own", log_prior(z))
        numpyro.sample("y", dist.Normal(z[0], 1.0), obs=y)

    return model


PRECONDITIONERS = {
    "bowl": (lambda z: -0.5 * jnp.sum(z**2), "curvature at the mode"),
    "flat direction": (
        lambda z: 0.5 * (z[1] / 10.0) ** 2 - 1e-12 * z[1] ** 4 - 5e-8 * z[1] ** 2,
        "1 of 2 directions flat or rising (mostly z)",
    ),
    "saddle": (lambda z: 0.5 * (z[1] / 3.0) ** 2 - 1e-4 * z[1] ** 4, "identity: no search ended at a mode that holds"),
}
PAIR = modes.Layout((("a", (1,)), ("b", (1,))))


@pytest.mark.filterwarnings("ignore:next to nothing bounds")
@pytest.mark.parametrize(("density", "words"), PRECONDITIONERS.values(), ids=PRECONDITIONERS)
def test_the_preconditioner_says_what_it_is(density, words):
    start = {"z": np.zeros(2)}
    y = np.array(0.0)
    idata = nuts.sample(own(density), np.zeros(1), y, rng_key=0, num_samples=100, init=start, **RUN)
    assert words in idata.attrs["preconditioner"]


def test_a_curvature_that_is_not_finite_leaves_the_identity():
    found = modes.Modes(np.zeros((1, 2)), np.zeros(1), np.ones((1, 2)))
    factor, words = modes.whitening(lambda free: (0.0, np.full(2, np.nan)), found, PAIR)
    np.testing.assert_array_equal(factor, np.eye(2))
    assert "not finite" in words


def test_curvature_is_that_of_the_density():
    precision = np.array([[4.0, 1.0], [1.0, 9.0]])
    found = modes.Modes(np.array([[0.5, -2.0]]), np.zeros(1), np.ones((1, 2)))
    factor, _ = modes.whitening(lambda free: (0.0, precision @ (free - found.free[0])), found, PAIR)
    np.testing.assert_allclose(factor @ factor.T, np.linalg.inv(precision), rtol=1e-8)


def test_curvature_is_averaged_over_points():
    points = np.array([[0.0, 1.0], [2.0, -1.0], [0.5, 3.0]])
    found = modes.Modes(points[:1], np.zeros(1), np.ones((1, 2)))
    factor, words = modes.whitening(lambda free: (0.0, free + free**3), found, PAIR, points)
    np.testing.assert_allclose(factor @ factor.T, np.diag(1 / np.mean(1 + 3 * points**2, axis=0)), rtol=1e-6)
    assert "averaged over 3 labellings" in words


def test_a_mode_at_infinity_under_a_flat_prior_is_named():
    moe = contaminated([[-9.0], [9.0]], activation="linear")
    x = np.linspace(-1.0, 1.0, 40)[:, None]
    y = (x[:, 0] > 0).astype(int)  # the adapter separates them
    prior = {"tau": dist.Normal(3.0, 0.1), "beta": dist.Normal(0.0, 0.1), "eta": dist.Normal(0.0, 1e5)}
    with pytest.warns(UserWarning, match=r"along 1 of 3 directions, mostly eta: .* Give these parameters a proper"):
        nuts.sample(moe, x, y, rng_key=0, num_samples=50, prior=prior, **RUN)


def test_a_prior_with_bounded_support_is_kept():
    moe, x, y = problem()
    prior = {"tau": dist.Uniform(0.2, 0.4), "beta": dist.HalfNormal(1.0)}
    idata = nuts.sample(moe, x, y, rng_key=0, num_samples=200, prior=prior, **RUN)
    assert 0.2 < float(idata["posterior"]["tau"].min()) < float(idata["posterior"]["tau"].max()) < 0.4
    assert float(idata["posterior"]["beta"].min()) > 0


def two_peaks(x, y=None):
    """The lower peak, at -1, holds exp(-30) of the mass; as many starts lead to it as to the other."""
    a = numpyro.sample("a", dist.Normal(0, 10))
    numpyro.factor("peaks", jnp.logaddexp(-50 * (a - 1.0) ** 2, -50 * (a + 1.0) ** 2 - 30))
    numpyro.sample("y", dist.Normal(0, 1).expand([1]), obs=y)


@pytest.mark.statistical
def test_two_chains_do_not_both_start_at_a_peak_without_mass(monkeypatch):
    """Where all searches end at the lower peak, one run in 16, nobody knows of the other; with one a chain, in 4."""
    ends, search = [], sampler.find_modes
    monkeypatch.setattr(sampler, "find_modes", lambda *args: ends.append(search(*args)) or ends[-1])
    settings = {"num_chains": 2, "num_warmup": 50, "num_samples": 50, "progress_bar": False}
    for base in range(8):
        idata = nuts.sample(two_peaks, np.zeros(1), np.zeros(1), rng_key=key(base), **settings)
        found = ends[-1].free[:, 0] > 0
        assert len(found) == 4
        assert (idata["posterior"]["a"] > 0).all() or not found.any()
    assert len({sign for one in ends for sign in np.sign(one.free[:, 0])}) == 2  # both peaks are found


def test_one_observation_is_enough_for_a_posterior():
    moe, x, y = problem()
    idata = nuts.sample(moe, x[:1], y[:1], rng_key=0, num_samples=300, **RUN)
    assert np.isfinite(idata["posterior"]["eta"]).all()
    assert float(idata["posterior"]["beta"].std()) > 1.0  # the prior's, nearly


def test_rounded_data_change_the_log_density_by_little_and_it_is_said():
    moe, x, y = problem()
    runs = {dtype: nuts.sample(moe, x, y, rng_key=0, num_samples=100, dtype=dtype, **RUN) for dtype in DTYPES}
    assert "single precision: log density within" in runs["mixed"].attrs["rounding"]
    assert runs["float64"].attrs["rounding"].startswith("none")
    mixed = runs["mixed"]["posterior"].dataset.stack(sample=("chain", "draw")).transpose("sample", ...)
    draws = {name: jnp.asarray(mixed[name].values) for name in moe.fields}
    lp = runs["mixed"]["sample_stats"]["lp"].values.ravel()
    exact = [float(np.sum(moe.log_density({k: v[i] for k, v in draws.items()}, x, y))) for i in range(0, 200, 20)]
    exact += runs["mixed"]["log_prior"].dataset.to_dataarray().sum("variable").values.ravel()[::20]
    errors = lp[::20] - exact
    assert 0 < np.abs(errors).max() < 1e-4  # rounded indeed, and to single precision


DTYPES = ("mixed", "float64")


def far_away():
    """Return a model, data that single precision can't tell apart, and how to sample it all the same."""
    moe, x, y = problem()
    far = x + [3e6, 0.0]  # in single precision its first column has steps of a quarter
    start = moe.params(tau=-3e6, beta=[1.0, -1.0], eta=[[0.0, 0.5], [0.0, -0.5]])
    return moe, far, y, {"rng_key": 0, "init": start, "prior": {"tau": dist.Normal(-3e6, 1.0)}, **RUN}


def test_an_interrupt_where_rounding_matters_ends_the_run(monkeypatch):
    moe, far, y, run = far_away()
    interrupt_after(1_000, monkeypatch)
    with pytest.warns(UserWarning, match="run it again with dtype='float64'"):
        idata = nuts.sample(moe, far, y, num_samples=1_000_000, **run)
    assert idata.attrs["ended"] == "interrupted"
    assert idata.attrs["rounding"].startswith("data in single precision")


def test_where_rounding_matters_the_chains_run_again_in_double():
    moe, far, y, run = far_away()
    mixed, double = (nuts.sample(moe, far, y, dtype=dtype, num_samples=50, **run) for dtype in DTYPES)
    assert "run again in double" in mixed.attrs["rounding"]
    for name in moe.fields:
        np.testing.assert_array_equal(mixed["posterior"][name], double["posterior"][name])


def test_variances_that_rounding_left_negative_are_not_used(monkeypatch):
    end = optimize.OptimizeResult(x=np.zeros(2), fun=1.0, hess_inv=np.diag([4.0, -1.0]))
    monkeypatch.setattr(optimize, "minimize", lambda *args, **options: end)
    np.testing.assert_array_equal(modes.find_modes(None, np.zeros((1, 2))).spread, [[2.0, 1.0]])
