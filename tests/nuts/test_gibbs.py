"""Gibbs sweeps: each conditional is the joint density's, a sweep leaves the distribution as it is; errors are seen."""

import arviz_stats as azs
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from gaussian_cases import CENTRE, MOE
from montecarlo import STANDARD_ERRORS, key
from numpyro.distributions import biject_to
from numpyro.infer.hmc import HMCState
from numpyro.infer.util import potential_energy

from bayes_moe import contaminated, gaussian_gated
from bayes_moe.draws.invariants import invariants
from bayes_moe.ground import compilation
from bayes_moe.ground.data import Covariates, Observations, float64
from bayes_moe.nuts import gibbs, modes, priors
from bayes_moe.nuts import posterior as nuts
from bayes_moe.nuts.modes import layout

EXACT = 1e-9  # of log densities
SEEN = 1e-2  # a planted error changes log densities by more
REPEATS, ROWS = 4000, 6
PLANE = gaussian_gated(3, 2)
PRIOR = {
    "pi": dist.Dirichlet(np.full(3, 0.7)),
    "c": dist.Normal(0.5, 1.0),
    "Gamma": dist.InverseWishart(6.0, scale_tril=np.array([[1.0, 0.0], [0.5, 1.0]])),
    "a": dist.Normal(-0.5, 1.0),
    "b": dist.Normal(np.array([0.0, 0.5, 1.0]), 0.5),
    "nu": dist.InverseGamma(4.0, 1.0),
}
ALTERED = {
    "pi": dist.Dirichlet(np.full(3, 1.5)),
    "c": dist.Normal(0.5, 0.5),
    "Gamma": dist.InverseWishart(9.0, scale_tril=np.array([[1.0, 0.0], [0.5, 1.0]])),
    "a": dist.Normal(-0.2, 1.0),
    "b": dist.Normal(np.full(3, 0.5), 0.5),
    "nu": dist.InverseGamma(3.0, 1.0),
}
NAMES = {"line": ("a", "b")}  # of the parameters in a block; else the block's own


def drawn(prior, rng_key):
    """Parameters from the prior."""
    keys = jax.random.split(rng_key, len(prior))
    return {name: one.sample(each) for (name, one), each in zip(prior.items(), keys, strict=True)}


def simulated(rng_key, params, rows=ROWS):
    """Data at these parameters."""
    for_x, for_y = jax.random.split(rng_key)
    covariates = Covariates(PLANE.gate.draw_x(for_x, params, rows), None)
    return PLANE.condition(covariates, PLANE.draw(for_y, params, covariates))


# Each conditional against the joint density of parameters, allocations and data ------------------------------------


@pytest.fixture(scope="module")
def case():
    """Two parameter sets, data, an expert for each observation: none has expert 2."""
    with jax.enable_x64(True):
        prior = priors.resolve(PLANE, PRIOR)
        draw, simulate = jax.jit(lambda seed: drawn(prior, seed)), jax.jit(lambda seed, at: simulated(seed, at, 30))
        first, second = (draw(jax.random.key(seed)) for seed in (0, 1))
        data = simulate(jax.random.key(2), first)
        return prior, first, second, data, jnp.arange(3)[:, None] == jnp.arange(30) % 5 // 3


@float64
def gap(case, block, altered=None, dropped=0):
    """How far a conditional is from the joint density, both taken at two values of the block and subtracted."""
    prior, first, second, data, whose = case
    moved = first | {name: second[name] for name in NAMES.get(block, (block,))}
    kept = Observations(data.x[:, dropped:], data.y[:, dropped:])
    sums = gibbs.moments(whose[:, dropped:], kept, jnp.float64)
    base = {name: gibbs._base(one) for name, one in priors.resolve(PLANE, PRIOR | (altered or {})).items()}
    conditional = gibbs.CONDITIONALS[block](base, first, sums)

    def joint(params):
        terms = [jnp.sum(one.log_prob(params[name])) for name, one in prior.items()]
        return sum(terms) + jnp.sum(jnp.where(whose, PLANE.log_joint(params, data), 0.0))

    def density(params):
        line = jnp.concatenate([params["a"], params["b"][:, None]], axis=1)
        return jnp.sum(conditional.log_prob(line if block == "line" else params[block]))

    return abs(float(density(moved) - density(first) - joint(moved) + joint(first)))


@pytest.mark.parametrize("block", list(gibbs.CONDITIONALS))
def test_each_conditional_is_the_joint_density_up_to_a_constant(case, block):
    assert gap(case, block) < EXACT


@pytest.mark.parametrize("name", list(ALTERED))
def test_a_conditional_under_another_prior_is_found_out(case, name):
    block = "line" if name in NAMES["line"] else name
    assert gap(case, block, {name: ALTERED[name]}) > SEEN


@pytest.mark.parametrize("block", list(gibbs.CONDITIONALS))
def test_a_dropped_observation_is_found_out(case, block):
    assert gap(case, block, dropped=1) > SEEN


@pytest.mark.statistical
@float64
def test_allocations_are_drawn_from_the_responsibilities(case):
    _, params, other, data, _ = case
    keys = jax.random.split(jax.random.key(key(3)), REPEATS)
    share = jax.jit(lambda p: jax.vmap(lambda one: gibbs.allocate(one, PLANE, p, data))(keys).mean(axis=0))
    expected, wrong = (jax.nn.softmax(PLANE.log_joint(p, data), axis=0) for p in (params, other))
    error = jnp.sqrt(expected * (1 - expected) / REPEATS) + 1 / REPEATS
    assert (jnp.abs(share(params) - expected) < STANDARD_ERRORS * error).all()
    assert (jnp.abs(share(params) - wrong) > STANDARD_ERRORS * error).any()


# In the sampler's coordinates --------------------------------------------------------------------------------------


@pytest.fixture
def chain(case):
    """A state of NUTS in whitened coordinates, and what moves it."""
    prior, _, _, data, _ = case
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        args = compilation.as_arrays(((PLANE, prior, data),))
        where = layout(nuts.summed_model, args)
        centre, z = 0.3 * rng.normal(size=(2, where.size))
        factor = np.eye(where.size) + 0.1 * rng.normal(size=(where.size, where.size))
        potential = jax.jit(lambda u: potential_energy(nuts.summed_model, args, {}, where.sites(centre + factor @ u)))
        value, grad = jax.value_and_grad(potential)(z)
        point = {"z": jnp.asarray(z), "potential_energy": value, "z_grad": grad, "rng_key": jax.random.key(4)}
    state = HMCState(**dict.fromkeys(HMCState._fields, "kept"))._replace(**point)
    return state, lambda: gibbs.refreshed(state, (args, centre, factor), where, potential, 2), potential


@pytest.mark.slow
@float64
def test_a_refreshed_state_has_its_own_potential_and_gradient_and_what_was_adapted(chain):
    state, refresh, potential = chain
    moved = refresh()
    value, grad = jax.value_and_grad(potential)(moved.z)
    np.testing.assert_allclose(moved.potential_energy, value, rtol=EXACT)
    np.testing.assert_allclose(moved.z_grad, grad, rtol=EXACT)
    assert (moved.z != state.z).all()
    assert moved.rng_key != state.rng_key
    changed = {"z", "potential_energy", "z_grad", "rng_key"}
    assert {name for name, part in moved._asdict().items() if not isinstance(part, str)} == changed


@float64
def test_a_sweep_that_moves_nothing_comes_back_to_the_same_point(chain, monkeypatch):
    state, refresh, _ = chain
    monkeypatch.setattr(gibbs, "sweep", lambda key, moe, prior, params, data: params)
    np.testing.assert_allclose(refresh().z, state.z, atol=EXACT)
    monkeypatch.setattr(gibbs, "sweep", lambda key, moe, prior, params, data: params | {"nu": 1.01 * params["nu"]})
    assert np.abs(refresh().z - state.z).max() > 1e-4


@float64
def test_a_point_without_a_finite_density_is_not_moved_to(chain, monkeypatch):
    state, refresh, _ = chain
    monkeypatch.setattr(gibbs, "sweep", lambda key, moe, prior, params, data: params | {"nu": 0 * params["nu"]})
    kept = refresh()
    np.testing.assert_array_equal(kept.z, state.z)
    np.testing.assert_array_equal(kept.potential_energy, state.potential_energy)


# Sweeps as a whole -------------------------------------------------------------------------------------------------


def quantities(params, data):
    """Numbers whose distribution a sweep must not change: moments of the parameters, and the log likelihood."""
    gamma, rest = params["Gamma"], [params[name] for name in ("pi", "c", "a", "b")] + [jnp.log(params["nu"])]
    plain = jnp.concatenate([jnp.ravel(value) for value in rest])
    correlation = gamma[:, 0, 1] / jnp.sqrt(gamma[:, 0, 0] * gamma[:, 1, 1])
    likely = PLANE.log_likelihood(params, data)[None]
    return jnp.concatenate([plain, plain**2, jnp.linalg.slogdet(gamma)[1], correlation, likely])


@jax.jit
def changes(keys, prior, used):
    """Changes of the quantities over two sweeps under the prior ``used``, where the truth comes from ``prior``."""

    def one(rng_key):
        for_params, for_data, first, second = jax.random.split(rng_key, 4)
        params = drawn(prior, for_params)
        data = simulated(for_data, params)
        moved = gibbs.sweep(second, PLANE, used, gibbs.sweep(first, PLANE, used, params, data), data)
        return quantities(moved, data) - quantities(params, data)

    return jax.vmap(one)(keys)


@float64
def largest(altered):
    """Largest change of a mean over two sweeps, in standard errors."""
    prior, used = (jax.tree.map(jnp.asarray, priors.resolve(PLANE, one)) for one in (PRIOR, PRIOR | altered))
    found = np.asarray(changes(jax.random.split(jax.random.key(key(0)), REPEATS), prior, used))
    return np.abs(found.mean(axis=0) / (found.std(axis=0) / np.sqrt(REPEATS))).max()


@pytest.mark.slow
@pytest.mark.statistical
def test_a_sweep_changes_no_distribution():
    assert largest({}) < STANDARD_ERRORS


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("name", list(ALTERED))
def test_a_sweep_under_another_prior_is_found_out(name):
    assert largest({name: ALTERED[name]}) > STANDARD_ERRORS


# Refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moe", "prior", "says"),
    [
        (gaussian_gated(2, 1, covariance="diagonal"), {}, "full covariances"),
        (gaussian_gated(2, 1, responses=2), {}, "one response"),
        (contaminated([[1.0], [0.0]]), {}, "gaussian_gated"),
        (gaussian_gated(2, 1), {"nu": dist.HalfNormal(1.0)}, "nu is of the family InverseGamma, .* with HalfNormal"),
        (gaussian_gated(2, 1), priors.repulsive("c"), "c is of the family Normal, .* with Repulsive"),
    ],
)
def test_what_has_no_sweep_is_refused(moe, prior, says):
    y = np.array([0.0, 1.0, 0.0, 1.0, 1.0, 0.0])
    y = np.stack([y, y], axis=1) if moe.real and moe.experts[-1].responses == 2 else y
    with pytest.raises(ValueError, match=says):
        nuts.sample(moe, np.arange(6.0)[:, None], y, rng_key=0, prior=prior, sweeps=1, progress_bar=False)


@float64
def test_every_expert_has_every_label_once_in_the_same_mixing_measure(case):
    prior, params, _, data, _ = case
    args = compilation.as_arrays(((PLANE, prior, data),))
    where = layout(nuts.summed_model, args)
    free = where.free({name: biject_to(prior[name].support).inv(value) for name, value in params.items()})
    points = gibbs.rotated(args, where, np.asarray(free))
    np.testing.assert_allclose(points[0], free, rtol=EXACT)
    found = []
    for point in points:
        sites = where.sites(jnp.asarray(point))
        found.append({name: biject_to(prior[name].support)(value) for name, value in sites.items()})
        density = PLANE.log_likelihood(found[-1], data)
        np.testing.assert_allclose(density, PLANE.log_likelihood(params, data), rtol=EXACT)
    assert [int(np.argmin(np.abs(each["nu"] - params["nu"][0]))) for each in found] == [0, 1, 2]


@pytest.mark.slow
@float64
def test_whitened_over_labellings_no_labelling_is_stiff():
    """Leapfrog steps are stable up to 2 / root of the largest whitened curvature."""
    x, y = MOE.simulate_joint(5, CENTRE, 400)
    args = compilation.as_arrays(((MOE, priors.resolve(MOE), MOE.observe(x, y)),))
    where = modes.layout(nuts.summed_model, args)
    negative = modes.objective(nuts.summed_model, where, args)
    starts = modes.draw_starts(nuts.summed_model, where, args, jax.random.key(0), 1, [CENTRE])
    found = modes.find_modes(negative, starts)
    points = gibbs.rotated(args, where, found.free[0])
    curvature = jax.hessian(lambda free: potential_energy(nuts.summed_model, args, {}, where.sites(free)))

    def stiffest(factor):
        return max(np.linalg.eigvalsh(factor.T @ np.asarray(curvature(point)) @ factor)[-1] for point in points)

    over_all, _ = modes.whitening(negative, found, where, points)
    at_one, _ = modes.whitening(negative, found, where)
    assert stiffest(over_all) < 1.1 * len(points)
    assert stiffest(at_one) > 4 * len(points)


@pytest.mark.parametrize("sweeps", [-1, 1.5])
def test_a_bad_number_of_sweeps_is_named(sweeps):
    with pytest.raises(ValueError, match="sweeps"):
        nuts.sample(MOE, np.zeros((3, 1)), np.zeros(3), rng_key=0, sweeps=sweeps)


@pytest.mark.slow
@pytest.mark.statistical
def test_the_posterior_is_the_same_with_sweeps_and_without():
    x, y = MOE.simulate_joint(5, CENTRE, 90)
    settings = {"num_warmup": 300, "num_samples": 1000, "num_chains": 4, "init": CENTRE, "progress_bar": False}
    found, errors = [], []
    for sweeps in (0, 3):
        tree = nuts.sample(MOE, x, y, rng_key=key(3), sweeps=sweeps, **settings)
        assert tree.attrs["sweeps"] == sweeps
        assert tree.attrs["rounding"].startswith("data in single precision")
        values = invariants(MOE, tree, x[:3], y[:3])
        found.append(values.mean(("chain", "draw")))
        errors.append(azs.mcse(values))
    for name in found[0]:
        error = np.hypot(errors[0][name], errors[1][name])
        assert (np.abs(found[0][name] - found[1][name]) < STANDARD_ERRORS * error).all(), name
