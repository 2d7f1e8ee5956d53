"""The posterior: the model against plain NumPyro, the draws against quadrature, the settings against nonsense."""

import functools

import arviz_base
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import oracle
import pandas as pd
import pytest
from montecarlo import STANDARD_ERRORS, first_that_passes, key, score
from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, log_likelihood
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.util import log_density
from scipy import stats
from scipy.special import expit

from bayes_moe import contaminated
from bayes_moe.draws import diagnostics
from bayes_moe.ground import threads
from bayes_moe.nuts import posterior as nuts
from bayes_moe.nuts import sampler
from bayes_moe.nuts.priors import resolve

EXACT = 1e-10
MIN_ESS = 1000
NODES = 96
CONVERGED = 0.01  # what a third fewer nodes may change, in posterior sds
SIZE = 80
RUN = {"rng_key": key(1), "num_warmup": 500, "num_samples": 2000, "progress_bar": False}
NAMES = ("tau", "beta", "eta")
DEFAULT = stats.norm(0.0, 2.0)

# A row: the frozen activation, the adapter's, its true eta. The frozen eta0 is 1: in the homogeneous regime the
# adapter nearly merges with the frozen expert, and the posterior is wide and far from normal.
REGIMES = {"homogeneous": ("tanh", "tanh", 1.3), "heterogeneous": ("linear", "tanh", -1.5)}


def problem(regime):
    """Return the oracle's model with two classes and one covariate, the package's, covariates and labels."""
    frozen_activation, activation, eta = REGIMES[regime]
    rng = np.random.default_rng(5)
    model = oracle.Model(np.array([[1.0], [0.0]]), frozen_activation, activation)
    x = np.clip(rng.normal(scale=1.5, size=(SIZE, 1)), -4.0, 4.0)
    truth = {"tau": 0.5, "beta": np.array([1.0]), "eta": np.array([[eta]])}
    return model, build(model), x, oracle.simulate(model, truth, x, rng)


def build(model):
    """Return the package's model for an oracle model."""
    return contaminated(
        model.eta0,
        frozen_activation=model.frozen_activation,
        activation=model.activation,
        reference=model.reference,
    )


# Quadrature: independent of the package, and exact to far more digits than any sampler --------------------


def nodes(prior, count):
    """Gauss-Legendre nodes on the prior's range, and the log of weight times prior density."""
    low, high = prior.ppf([1e-7, 1 - 1e-7])
    points, weights = np.polynomial.legendre.leggauss(count)
    values = (low + high) / 2 + (high - low) / 2 * points
    return values, np.log(weights) + prior.logpdf(values)


def grid_log_likelihood(model, x, y, tau, beta, eta):
    """Summed log density at every combination of tau, beta, eta, shape (tau, beta, eta)."""
    sign, x = 1.0 - 2.0 * y, x[:, 0]
    gate = expit(tau[:, None, None] + beta[:, None] * x)
    frozen_act, act = (np.vectorize(oracle.ACTIVATIONS[a]) for a in (model.frozen_activation, model.activation))
    frozen = expit(sign * (frozen_act(model.eta0[0, 0] * x) - frozen_act(0.0)))
    adapter = expit(sign * (act(eta[:, None] * x) - act(0.0)))
    total = np.zeros((len(tau), len(beta), len(eta)))
    for part in np.array_split(np.arange(len(x)), len(x) // 10):
        product = np.ones_like(total)
        for i in part:
            product *= ((1.0 - gate[..., i]) * frozen[i])[..., None] + gate[..., i, None] * adapter[:, i]
        total += np.log(product)
    return total


def quadrature(model, x, y, count=NODES, **priors):
    """Return posterior mean and sd of each parameter by quadrature in three dimensions."""
    axes = {name: nodes(priors.get(name, DEFAULT), count) for name in NAMES}
    values = [axes[name][0] for name in NAMES]
    log_prior = sum(np.meshgrid(*(axes[name][1] for name in NAMES), indexing="ij"))
    log_mass = grid_log_likelihood(model, x, y, *values) + log_prior
    mass = np.exp(log_mass - log_mass.max())
    moments = {}
    for index, name in enumerate(NAMES):
        marginal = mass.sum(axis=tuple(i for i in range(3) if i != index)) / mass.sum()
        mean = marginal @ values[index]
        moments[name] = mean, np.sqrt(marginal @ (values[index] - mean) ** 2)
    return moments


def assert_equals_quadrature(idata, moments):
    """Require enough ESS, then means and sds within the threshold, in Monte Carlo standard errors."""
    verdict = diagnostics.check(idata)
    assert verdict.passed, verdict
    assert min(verdict.min_ess_bulk, verdict.min_ess_tail) > MIN_ESS, "too few effective draws to judge"
    for name, exact in moments.items():
        draws = idata["posterior"][name].squeeze(drop=True)
        for method, value in zip(("mean", "sd"), exact, strict=True):
            found = score(draws, value, method)
            assert found < STANDARD_ERRORS, f"{method} of {name}: {found:.1f} Monte Carlo standard errors"


@pytest.mark.parametrize("regime", REGIMES)
def test_quadrature_agrees_with_the_oracle(regime):
    model, _, x, y = problem(regime)
    values = np.random.default_rng(2).normal(scale=2.0, size=(3, 2))
    grid = grid_log_likelihood(model, x, y, *values)
    for index in np.ndindex(grid.shape):
        params = oracle.unflatten(model, [axis[i] for axis, i in zip(values, index, strict=True)])
        np.testing.assert_allclose(grid[index], oracle.log_density(model, params, x, y).sum(), rtol=EXACT)


# Draws against quadrature ----------------------------------------------------------------------------------

# A row: regime, priors for `nuts.sample`, the same for the quadrature, and the least value that tau may take.
POSTERIORS = {
    "homogeneous": ("homogeneous", {}, {}, -np.inf),
    "heterogeneous": ("heterogeneous", {}, {}, -np.inf),
    "half-normal": ("heterogeneous", {"tau": dist.HalfNormal(1.5)}, {"tau": stats.halfnorm(0, 1.5)}, 0.0),
    "uniform": ("homogeneous", {"tau": dist.Uniform(-1.0, 1.5)}, {"tau": stats.uniform(-1.0, 2.5)}, -1.0),
}


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_quadrature_has_converged(posterior):
    regime, _, priors, _ = POSTERIORS[posterior]
    model, _, x, y = problem(regime)
    coarse, fine = (quadrature(model, x, y, count, **priors) for count in (NODES * 2 // 3, NODES))
    for name, (mean, sd) in fine.items():
        np.testing.assert_allclose(coarse[name], (mean, sd), rtol=0, atol=CONVERGED * sd)


@pytest.fixture(scope="module")
def fits():
    """Return a posterior with the default priors for each regime, drawn once."""
    return {regime: sound(regime) for regime in REGIMES}


def draw(regime, **options):
    """Draw from the posterior of a regime."""
    _, moe, x, y = problem(regime)
    return nuts.sample(moe, x, y, **(RUN | options))


def sound(regime, **options):
    """Draw, and once more where the gate refuses the draws."""
    return first_that_passes(lambda base: draw(regime, rng_key=base, **options), RUN["rng_key"])[0]


@pytest.mark.statistical
@pytest.mark.parametrize("posterior", POSTERIORS)
def test_posterior_equals_quadrature(posterior, fits):
    regime, prior, same, least = POSTERIORS[posterior]
    model, _, x, y = problem(regime)
    idata = sound(regime, prior=prior) if prior else fits[regime]
    assert_equals_quadrature(idata, quadrature(model, x, y, **same))
    assert idata["posterior"]["tau"].min() > least


def dropped(x, y):
    """Leave out the dozen observations with the largest covariates."""
    kept = np.argsort(x[:, 0])[:-12]
    return x[kept], y[kept]


# A row: what happens to the data, and to the priors, on the quadrature's side.
PLANTED = {
    "a dozen observations dropped": (dropped, {}),
    "labels swapped": (lambda x, y: (x, 1 - y), {}),
    "covariate's sign flipped": (lambda x, y: (-x, y), {}),
    "sd taken for precision": (lambda x, y: (x, y), dict.fromkeys(NAMES, stats.norm(0.0, 0.25))),
    "sd taken for variance": (lambda x, y: (x, y), dict.fromkeys(NAMES, stats.norm(0.0, np.sqrt(2.0)))),
    "one prior forgotten": (lambda x, y: (x, y), {"beta": stats.norm(0.0, 4.0)}),
}


@pytest.mark.statistical
@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("error", PLANTED)
def test_a_planted_error_is_found(error, regime, fits):
    model, _, x, y = problem(regime)
    change, priors = PLANTED[error]
    moments = quadrature(model, *change(x, y), **priors)
    with pytest.raises(AssertionError, match="Monte Carlo standard errors"):
        assert_equals_quadrature(fits[regime], moments)


@pytest.mark.statistical
def test_a_planted_prior_is_found_in_the_draws():
    model, _, x, y = problem("heterogeneous")
    idata = sound("heterogeneous", prior=dict.fromkeys(NAMES, dist.Normal(0.0, 0.25)))
    with pytest.raises(AssertionError, match="Monte Carlo standard errors"):
        assert_equals_quadrature(idata, quadrature(model, x, y))
    assert_equals_quadrature(idata, quadrature(model, x, y, **dict.fromkeys(NAMES, stats.norm(0.0, 0.25))))


BAD_FACTOR = np.array([[0.3, 0.0, 0.5], [0.0, -1.0, 0.0], [0.0, 0.0, 3.0]])


@pytest.mark.statistical
@pytest.mark.parametrize("regime", REGIMES)
def test_whitening_is_a_preconditioner_only(regime, monkeypatch, fits):
    model, _, x, y = problem(regime)
    monkeypatch.setattr(sampler, "whitening", lambda *_: (BAD_FACTOR, "bad"))
    idata = sound(regime)
    assert not np.array_equal(idata["posterior"]["tau"], fits[regime]["posterior"]["tau"])
    assert_equals_quadrature(idata, quadrature(model, x, y))


OWN = problem("homogeneous")[1]


def own_model(x, y=None):
    """A user's own model around `nuts.Mixture`: the same posterior in other words."""
    tau, beta, eta = (2.0 * numpyro.sample(f"{name}_unit", dist.Normal()) for name in NAMES)
    params = {"tau": tau[None], "beta": beta[None, None], "eta": eta[None, None, None]}
    for name in NAMES:
        numpyro.deterministic(name, params[name])
    with numpyro.plate("obs_id", x.n):
        numpyro.sample("y", nuts.Mixture(OWN, params, x), obs=y)


@pytest.mark.statistical
def test_own_model_gives_the_same_posterior():
    model, moe, x, y = problem("homogeneous")
    run = RUN | {"log_likelihood": True, "posterior_predictive": True}
    idata, _ = first_that_passes(
        lambda base: nuts.sample(own_model, moe.prepare(x), y, **run | {"rng_key": base}), key(1)
    )
    assert_equals_quadrature(idata, quadrature(model, x, y))
    assert idata["log_likelihood"]["y"].dims == idata["posterior_predictive"]["y"].dims
    assert idata["log_likelihood"]["y"].dims == ("chain", "draw", "obs_id")


def test_own_models_without_a_parameter_or_with_raw_covariates_are_told_so():
    _, _, x, y = problem("homogeneous")

    def raw(x, y=None):
        tau, beta, eta = (numpyro.sample(name, dist.Normal()) for name in NAMES)
        params = {"tau": tau[None], "beta": beta[None, None], "eta": eta[None, None, None]}
        with numpyro.plate("obs_id", len(x)):
            numpyro.sample("y", nuts.Mixture(OWN, params, x), obs=y)

    with pytest.raises(ValueError, match=r"^x must be moe.prepare\(x\)"):
        nuts.sample(raw, x, y, **RUN)
    with pytest.raises(ValueError, match="^params must have every parameter.*missing: beta, eta"):
        nuts.Mixture(OWN, {"tau": np.zeros(1)}, OWN.prepare(x))


def test_own_model_states_its_priors_itself():
    _, moe, x, y = problem("homogeneous")
    with pytest.raises(ValueError, match="prior"):
        nuts.sample(own_model, moe.prepare(x), y, prior={"tau": dist.Normal()}, **RUN)


# The model as ordinary NumPyro code ------------------------------------------------------------------------

LITERAL = [("linear", "tanh", "last"), ("tanh", "tanh", None), ("sigmoid", "linear", "last")]


def literal(model, x, y=None):
    """The contaminated mixture in plain NumPyro, from eq. (2.1) of the paper."""
    rows, features = model.shape
    tau = numpyro.sample("tau", dist.Normal(0, 2).expand([1]).to_event(1))
    beta = numpyro.sample("beta", dist.Normal(0, 2).expand([1, features]).to_event(2))
    eta = numpyro.sample("eta", dist.Normal(0, 2).expand([1, rows, features]).to_event(3))[0]
    act0, act = (getattr(jax.nn, name, lambda z: z) for name in (model.frozen_activation, model.activation))
    eta = jnp.concatenate([eta, jnp.zeros((len(model.eta0) - rows, features))])
    weight = 1 / (1 + jnp.exp(-(x @ beta[0] + tau[0])))
    experts = [dist.Categorical(logits=act0(x @ model.eta0.T)), dist.Categorical(logits=act(x @ eta.T))]
    gate = dist.Categorical(probs=jnp.stack([1 - weight, weight], axis=-1))
    with numpyro.plate("obs_id", len(x)):
        numpyro.sample("y", dist.MixtureGeneral(gate, experts), obs=y)


def densities(target, args):
    """Return a compiled function of the parameters: the log density, and that of each observation."""

    def both(params):
        total, trace = log_density(target, args, {}, params)
        return total, trace["y"]["fn"].log_prob(args[-1])

    return jax.jit(both)


@pytest.mark.parametrize("kind", LITERAL, ids=str)
def test_log_density_equals_that_of_the_literal_model(kind):
    rng = np.random.default_rng(3)
    model = oracle.Model(rng.normal(size=(3, 2)), *kind)
    moe, x, y = build(model), rng.normal(size=(20, 2)), rng.integers(3, size=20)
    plain = densities(functools.partial(literal, model), (x, y))
    ours = densities(nuts.model(moe), (moe.prepare(x), y))
    for flat in rng.normal(scale=2.0, size=(4, 3 + np.prod(model.shape))):
        params = moe.params(**oracle.unflatten(model, flat))
        with jax.enable_x64(True):
            (expected, each), (total, mixture) = jax.tree.map(np.asarray, (plain(params), ours(params)))
        np.testing.assert_allclose(total, expected, rtol=EXACT)
        np.testing.assert_allclose(mixture, each, rtol=EXACT)
        np.testing.assert_allclose(moe.log_density(params, x, y), each, rtol=EXACT)


def test_model_observes_y_in_a_plate_of_observations():
    _, moe, x, y = problem("homogeneous")
    trace = numpyro.handlers.trace(numpyro.handlers.seed(nuts.model(moe), 0)).get_trace(x, y)
    assert list(trace) == [*NAMES, "obs_id", "y"]
    assert trace["y"]["is_observed"]
    assert not any(trace[name]["is_observed"] for name in NAMES)
    assert [(frame.name, frame.size) for frame in trace["y"]["cond_indep_stack"]] == [("obs_id", SIZE)]


@pytest.mark.slow
@pytest.mark.statistical
def test_numpyro_nuts_and_predictive_work_on_the_model():
    model, moe, x, y = problem("heterogeneous")
    target, covariates = nuts.model(moe), moe.prepare(x)
    options = {"num_warmup": 300, "num_samples": 1500, "num_chains": 4, "chain_method": "vectorized"}
    with jax.enable_x64(True):
        mcmc = MCMC(NUTS(target, target_accept_prob=0.9), progress_bar=False, **options)

        def run(base):
            mcmc.run(jax.random.key(base), covariates, y, extra_fields=("energy", "diverging", "potential_energy"))
            return tree(mcmc)

        assert_equals_quadrature(first_that_passes(run, key(0))[0], quadrature(model, x, y))
        few = {name: values[:3] for name, values in mcmc.get_samples().items()}
        predicted = np.asarray(Predictive(target, few)(jax.random.key(1), covariates)["y"])
        pointwise = np.asarray(log_likelihood(target, few, covariates, y)["y"])
    assert predicted.shape == (3, SIZE)
    assert set(np.unique(predicted)) == {0, 1}
    params = {name: np.asarray(values)[1] for name, values in few.items()}
    np.testing.assert_allclose(pointwise[1], moe.log_density(params, x, y), rtol=EXACT)


def tree(mcmc):
    """Turn NumPyro's own draws into what the checks read."""
    extra = mcmc.get_extra_fields(group_by_chain=True)
    sample_stats = {"energy": extra["energy"], "diverging": extra["diverging"], "lp": -extra["potential_energy"]}
    groups = {"posterior": mcmc.get_samples(group_by_chain=True), "sample_stats": sample_stats}
    return arviz_base.from_dict(jax.tree.map(np.asarray, groups))


@pytest.mark.slow
def test_variational_inference_works_on_the_model():
    _, moe, x, y = problem("heterogeneous")
    with jax.enable_x64(True):
        target = nuts.model(moe)
        svi = SVI(target, AutoNormal(target), numpyro.optim.Adam(0.05), Trace_ELBO())
        result = svi.run(jax.random.key(0), 300, moe.prepare(x), y, progress_bar=False)
        losses = np.asarray(result.losses)
    assert np.isfinite(losses).all()
    assert losses[-50:].mean() < losses[:50].mean()


def test_prior_predictive_takes_covariates_as_they_are():
    _, moe, x, _ = problem("homogeneous")
    draws = Predictive(nuts.model(moe), num_samples=200)(jax.random.key(0), x)
    shapes = {"tau": (200, 1), "beta": (200, 1, 1), "eta": (200, 1, 1, 1), "y": (200, SIZE)}
    assert {name: value.shape for name, value in draws.items()} == shapes
    assert set(np.unique(draws["y"])) == {0, 1}


def test_model_works_without_double_precision():
    _, moe, x, y = problem("homogeneous")
    params = moe.params(tau=0.5, beta=1.0, eta=-1.0)
    single, each = densities(nuts.model(moe), (moe.prepare(x), y))(params)
    assert single.dtype == each.dtype == np.float32
    np.testing.assert_allclose(each, moe.log_density(params, x, y), rtol=1e-5)


def mixture():
    """Return a mixture as a distribution, and its class probabilities."""
    _, moe, x, _ = problem("heterogeneous")
    params = moe.params(tau=0.3, beta=-1.0, eta=2.0)
    return nuts.Mixture(moe, params, x), moe.class_probabilities(params, x)


@pytest.mark.statistical
def test_mixture_draws_follow_the_class_probabilities():
    distribution, expected = mixture()
    draws = np.asarray(jax.jit(lambda rng_key: distribution.sample(rng_key, (50, 40)))(jax.random.key(key(0))))
    assert draws.shape == (50, 40, SIZE)
    variance = expected[:, 1] * (1 - expected[:, 1]) / 2000
    assert np.abs((draws.mean(axis=(0, 1)) - expected[:, 1]) / np.sqrt(variance)).max() < STANDARD_ERRORS


def test_mixture_gives_the_log_density_of_many_draws_at_once():
    distribution, expected = mixture()
    draws = np.random.default_rng(0).integers(2, size=(2, 3, SIZE))
    with jax.enable_x64(True):
        found = np.asarray(jax.jit(distribution.log_prob)(draws))
    each = np.take_along_axis(np.log(expected), draws.reshape(6, SIZE).T, axis=1).T
    np.testing.assert_allclose(found, each.reshape(2, 3, SIZE), rtol=EXACT)


# Randomness ------------------------------------------------------------------------------------------------


def draws_of(idata):
    """All posterior draws and statistics as one list of arrays."""
    return [array.values for group in ("posterior", "sample_stats") for array in idata[group].values()]


def test_the_same_key_gives_the_same_draws_as_int_and_as_key(fits):
    first, seed = draws_of(fits["homogeneous"]), int(fits["homogeneous"].attrs["seed"])
    for given in (seed, np.int64(seed), jax.random.key(seed)):
        again = draws_of(draw("homogeneous", rng_key=given))
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_other_keys_and_other_chains_give_other_draws(fits):
    first, other = draws_of(fits["homogeneous"])[0], draws_of(draw("homogeneous", rng_key=2))[0]
    chains = [chain.tobytes() for chain in (*first, *other)]
    assert len(set(chains)) == 8


@pytest.mark.parametrize("cores", [1, 64])
def test_the_number_of_threads_does_not_change_the_draws(cores, monkeypatch, fits):
    monkeypatch.setattr(threads, "cores", lambda: cores)
    again = draws_of(draw("homogeneous", rng_key=int(fits["homogeneous"].attrs["seed"])))
    assert all(np.array_equal(a, b) for a, b in zip(draws_of(fits["homogeneous"]), again, strict=True))


@pytest.mark.statistical
def test_a_start_given_by_the_user_leads_to_the_same_posterior():
    model, _, x, y = problem("heterogeneous")
    idata = sound("heterogeneous", init={"tau": 3.0, "beta": -2.0, "eta": 2.0})
    assert idata.attrs["init"] == "given"
    assert_equals_quadrature(idata, quadrature(model, x, y))


class Bar:
    """Stands in for the progress bar and keeps what it is told."""

    def __init__(self, total, **options):
        self.total, self.options, self.done = total, options, []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.update = None

    def update(self, transitions):
        self.done.append(transitions)


def test_lengths_need_not_be_whole_blocks_and_progress_is_told(monkeypatch):
    bars = []
    monkeypatch.setattr(nuts, "tqdm", lambda **options: bars.append(Bar(**options)) or bars[0])
    idata = draw("homogeneous", num_warmup=130, num_samples=67, progress_bar=True)
    step_size = idata["sample_stats"]["step_size"]
    assert step_size.shape == (4, 67)
    assert (step_size.values == step_size.values[:, :1]).all(), "warm-up draws are among those kept"
    assert sum(bars[0].done) == bars[0].total == 4 * (130 + 67)
    assert len(bars[0].done) >= 4 * 5  # 1, 4, 16, 64 and what is left, or more often
    assert not bars[0].options["disable"]


def test_sampling_leaves_the_precision_of_jax_alone(fits):
    assert fits["homogeneous"]["posterior"]["tau"].dtype == np.float64
    assert not jax.config.jax_enable_x64
    assert jnp.zeros(1).dtype == np.float32


# Settings --------------------------------------------------------------------------------------------------

BAD_SETTINGS = [
    ("num_chains", 0),
    ("num_chains", 2.0),
    ("num_samples", 0),
    ("num_samples", True),
    ("num_warmup", -1),
    ("max_tree_depth", 0),
    ("target_accept_prob", 1.5),
    ("target_accept_prob", 0.0),
    ("target_accept_prob", np.nan),
    ("target_accept_prob", "high"),
    ("init", "foo"),
    ("init", None),
    ("init", 1.0),
    ("init", {"tau": 0.0, "beta": 0.0}),
    ("dtype", "float16"),
    ("rng_key", None),
    ("rng_key", 1.5),
    ("rng_key", True),
    ("prior", {"tua": dist.Normal()}),
    ("moe", "contaminated"),
    ("moe", None),
    ("y", np.zeros(3, int)),
    ("x", np.zeros((SIZE, 2))),
]


@pytest.mark.parametrize(
    ("name", "value"), BAD_SETTINGS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(BAD_SETTINGS)]
)
def test_bad_settings_are_named(name, value):
    _, moe, x, y = problem("homogeneous")
    arguments = {"moe": moe, "x": x, "y": y} | RUN | {name: value}
    said = {"init": "init|params"}.get(name, name)
    with pytest.raises(ValueError, match=f"^({said})\\b"):
        nuts.sample(**arguments)


def nothing_to_sample(x, y=None):
    """Observe, and nothing else."""
    numpyro.sample("y", dist.Normal(x), obs=y)


def discrete_latent(x, y=None):
    """A latent site that NUTS can't move."""
    numpyro.sample("y", dist.Normal(x + numpyro.sample("z", dist.Bernoulli(0.5))), obs=y)


@pytest.mark.parametrize("own, said", [(nothing_to_sample, "no latent"), (discrete_latent, "discrete.*z")])
def test_models_that_nuts_cannot_sample_are_refused(own, said):
    with pytest.raises(ValueError, match=said):
        nuts.sample(own, np.zeros(3), np.zeros(3), **RUN)


CENTRE = 0.0


def reads_from_outside(x, y=None):
    """A model of somebody's own that reads a global."""
    mu = numpyro.sample("mu", dist.Normal(CENTRE, 0.01))
    with numpyro.plate("n", len(x)):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def test_a_model_of_your_own_is_what_it_is_now(monkeypatch):
    settings = {"num_warmup": 50, "num_samples": 50, "num_chains": 2, "progress_bar": False}
    for centre in (0.0, 5.0, 0.0):
        monkeypatch.setitem(globals(), "CENTRE", centre)
        idata = nuts.sample(reads_from_outside, np.zeros(5), [0.0] * 5, rng_key=0, **settings)
        assert idata["posterior"]["mu"].mean() == pytest.approx(centre, abs=0.02)


def test_a_model_of_your_own_takes_labels_as_a_series():
    _, moe, x, y = problem("heterogeneous")
    priors = resolve(moe)

    def own(x, y=None):
        params = {name: numpyro.sample(name, prior) for name, prior in priors.items()}
        with numpyro.plate("obs_id", x.n):
            numpyro.sample("y", nuts.Mixture(moe, params, x), obs=y)

    settings = {"num_warmup": 50, "num_samples": 50, "num_chains": 1, "progress_bar": False}
    runs = [nuts.sample(own, moe.prepare(x), labels, rng_key=0, **settings) for labels in (y, list(y), pd.Series(y))]
    for run in runs[1:]:
        np.testing.assert_array_equal(run["posterior"]["beta"], runs[0]["posterior"]["beta"])
