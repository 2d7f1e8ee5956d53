"""EM: it never lowers the likelihood, follows the oracle step by step, and reaches the maxima that others reach."""

import functools
import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit, log_softmax
from selection import quick
from threadpoolctl import threadpool_limits

from bayes_moe import contaminated
from mle import em, newton
from mle.optimise.steps import maximise_expected

ROWS, FEATURES = 300, 2
ETA0 = np.array([[1.0, 0.0], [-0.5, 1.0], [0.0, 0.0]])
TRUTH = {"tau": 0.5, "beta": [1.0, -1.0], "eta": [[-1.0, 1.0], [-1.0, -1.0]]}
PAIRS = list(itertools.product(("linear", "tanh"), ("linear", "tanh", "sigmoid", "gelu", "relu")))

NEVER_DROPS = 1e-9  # of log likelihood, for each observation
SAME_STEP = 1e-5
SAME_VALUE = 1e-8
SAME_MAXIMUM = 1e-6  # of log likelihood
BOX = 6.0
APART = 0.5  # between starts that are worth going on with, in any coordinate


def draw_data(frozen_activation="linear", activation="tanh", seed=0, **truth):
    """Return a model with the truth that its labels were drawn from, covariates and labels."""
    moe = contaminated(ETA0, frozen_activation=frozen_activation, activation=activation)
    params = moe.params(**(TRUTH | truth))
    x = np.random.default_rng(seed).normal(size=(ROWS, FEATURES))
    return moe, params, x, moe.simulate(seed, params, x)


def worst_drop(fit):
    """Return the largest fall of the log likelihood between two steps of any start, for each observation."""
    return max(-np.diff(start.history).min() for start in fit.starts) / fit.n


# The likelihood never falls ----------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", quick(PAIRS, ("linear", "tanh"), ("tanh", "relu"), ids=" ".join))
def test_a_step_never_lowers_the_likelihood(pair):
    moe, _, x, y = draw_data(*pair)
    fit = em.fit(moe, x, y, n_init=3, random_state=1, max_iter=15)
    assert len(fit.starts) == 3
    assert all(len(start.history) > 3 for start in fit.starts)
    assert worst_drop(fit) < NEVER_DROPS


def test_a_step_never_lowers_the_likelihood_inside_bounds_or_with_weights():
    moe, _, x, y = draw_data()
    weights = np.random.default_rng(2).uniform(0.0, 2.0, ROWS)
    for options in ({"bounds": {"tau": (-1.0, 1.0), "eta": (-2.0, 2.0)}}, {"weights": weights}):
        fit = em.fit(moe, x, y, n_init=3, random_state=1, max_iter=15, **options)
        assert worst_drop(fit) < NEVER_DROPS


def flipped(objective, free, r):
    """M-step in which gate and adapter learn from the other expert's responsibilities."""
    return maximise_expected(objective, free, r[::-1])


def hardened(objective, free, r):
    """M-step with responsibilities rounded to zero or one."""
    return maximise_expected(objective, free, jnp.round(r))


def overshooting(objective, free, r):
    """M-step that goes three times too far."""
    return free + 3.0 * (maximise_expected(objective, free, r) - free)


@pytest.mark.parametrize("wrong", [flipped, hardened, overshooting])
def test_a_wrong_step_is_found_out(wrong):
    moe, _, x, y = draw_data()
    fit = em.fit(moe, x, y, n_init=3, random_state=1, max_iter=15, m_step=wrong)
    assert worst_drop(fit) > 1e3 * NEVER_DROPS


def test_a_start_whose_likelihood_fell_has_not_converged():
    moe, truth, x, y = draw_data()
    fit = em.fit(moe, x, y, init=truth, max_iter=15, m_step=lambda objective, free, r: free - 0.3)
    assert np.diff(fit.history).min() < 0
    assert not fit.converged


# Step by step --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["linear", "tanh"])
@pytest.mark.parametrize("weighted", quick([False, True], True))
def test_one_step_is_the_oracle_step(activation, weighted):
    moe, truth, x, y = draw_data(activation=activation)
    model = oracle.Model(ETA0, "linear", activation)
    start = {"tau": 0.0, "beta": np.array([0.5, 0.0]), "eta": np.array([[-0.5, 0.5], [0.0, -0.5]])}
    weights = np.random.default_rng(3).uniform(0.0, 2.0, ROWS) if weighted else None
    fit = em.fit(moe, x, y, init=start, max_iter=1, weights=weights)
    expected = oracle.em_step(model, start, x, y, weights)
    for name, value in expected.items():
        np.testing.assert_allclose(fit.params[name][0], value, atol=SAME_STEP)
    share = np.ones(ROWS) if weights is None else weights
    values = [share @ oracle.log_density(model, params, x, y) for params in (start, expected)]
    np.testing.assert_allclose(fit.history, values, rtol=SAME_VALUE)


def test_a_maximum_is_a_fixed_point():
    moe, truth, x, y = draw_data(activation="linear")
    best = newton.fit(moe, x, y, init=truth)
    assert best.status == "maximum"
    step = em.fit(moe, x, y, init=best.params, max_iter=1)
    for name, value in best.params.items():
        np.testing.assert_allclose(step.params[name], value, atol=SAME_STEP)


def test_weights_are_repeats():
    moe, _, x, y = draw_data()
    counts = np.bincount(np.random.default_rng(4).integers(0, ROWS, ROWS), minlength=ROWS)
    start = {"tau": 0.0, "beta": 0.1, "eta": 0.2}
    weighted = em.fit(moe, x, y, init=start, max_iter=5, weights=counts)
    repeated = em.fit(moe, np.repeat(x, counts, axis=0), np.repeat(y, counts), init=start, max_iter=5)
    np.testing.assert_allclose(weighted.history, repeated.history, rtol=SAME_VALUE)


# When it stops -------------------------------------------------------------------------------------------------


def test_remaining_gain_of_a_geometric_series_is_its_tail():
    history = [-(0.9**k) for k in range(20)]
    assert em.remaining_gain(history) == pytest.approx(0.9**19)
    assert em.remaining_gain(history[:2]) == np.inf
    assert em.remaining_gain([-3.0, -2.0, -1.0]) == np.inf


def test_it_stops_within_the_tolerance_of_the_maximum():
    moe, truth, x, y = draw_data(activation="linear")
    best = newton.fit(moe, x, y, init=truth).log_likelihood
    loose, tight = (em.fit(moe, x, y, init=truth, tol=tol, max_iter=5000) for tol in (1e-2, 1e-7))
    assert loose.converged
    assert tight.converged
    assert loose.n_iter < tight.n_iter
    assert best - tight.log_likelihood < SAME_MAXIMUM < best - loose.log_likelihood


def test_exhausted_iterations_are_recorded():
    moe, _, x, y = draw_data()
    fit = em.fit(moe, x, y, n_init=3, random_state=1, max_iter=4)
    assert not fit.converged
    assert fit.status.startswith("not converged")
    assert fit.standard_errors is None
    for start in fit.starts:
        assert start.n_iter == 4 == len(start.history) - 1
        assert start.message == "no convergence after 4 EM steps"


def test_the_fit_is_a_function_of_its_seed():
    moe, _, x, y = draw_data()
    run = functools.partial(em.fit, moe, x, y, n_init=2, max_iter=3)
    first, again, other = (run(random_state=seed) for seed in (0, np.random.default_rng(0), 1))
    np.testing.assert_array_equal(first.history, again.history)
    assert set(first.history) != set(other.history)


# EM, Newton and brute force reach the same maximum ---------------------------------------------------------------


def tanh_slope(z):
    """Return the derivative of tanh."""
    return 1.0 - np.tanh(z) ** 2


def value_and_score(vector, model, x, y):
    """Return the oracle's log likelihood and score, for all observations at once (adapters with tanh)."""
    vectors = oracle.class_vectors(model, vector[1 + FEATURES :])
    gate, logits, rows = vector[0] + x @ vector[1 : 1 + FEATURES], x @ vectors.T, np.arange(len(y))
    known = x @ model.eta0.T if model.frozen_activation == "linear" else np.tanh(x @ model.eta0.T)
    log_expert = log_softmax(np.tanh(logits), axis=1)
    frozen = log_expit(-gate) + log_softmax(known, axis=1)[rows, y]
    adapter = log_expit(gate) + log_expert[rows, y]
    density = np.logaddexp(frozen, adapter)
    share = np.exp(adapter - density)
    residuals = share[:, None] * (np.eye(len(vectors))[y] - np.exp(log_expert)) * tanh_slope(logits)
    surplus = share - expit(gate)
    pieces = [[surplus.sum()], surplus @ x, (residuals[:, :-1].T @ x).ravel()]
    return density.sum(), np.concatenate(pieces)


def brute_force(model, x, y, starts):
    """Return the maxima of the log likelihood over the box that L-BFGS-B finds from many starts."""

    def negative(vector):
        value, score = value_and_score(vector, model, x, y)
        return -value / len(y), -score / len(y)

    options = {"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 30}
    bounds = [(-BOX, BOX)] * starts.shape[1]
    search = functools.partial(minimize, negative, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    with threadpool_limits(1, user_api="blas"):
        found = [search(start) for start in starts]
    return np.array([-len(y) * result.fun for result in found])


def test_the_vectorised_oracle_is_the_oracle():
    x = np.random.default_rng(5).normal(size=(40, FEATURES))
    y = np.random.default_rng(6).integers(0, 3, 40)
    for frozen_activation in ("linear", "tanh"):
        model = oracle.Model(ETA0, frozen_activation, "tanh")
        vector = np.random.default_rng(7).normal(size=7)
        params = oracle.unflatten(model, vector)
        value, score = value_and_score(vector, model, x, y)
        assert value == pytest.approx(oracle.log_density(model, params, x, y).sum(), rel=1e-12)
        np.testing.assert_allclose(score, oracle.score(model, params, x, y), atol=1e-10)


class Effort(NamedTuple):
    """How many starts the direct methods and EM have; EM's advance in stages: so many steps, so many kept."""

    direct: int
    em: int
    stages: tuple[tuple[int, int], ...]


QUICK = Effort(direct=30, em=8, stages=((10, 2),))
THOROUGH = Effort(direct=160, em=60, stages=((10, 24), (40, 6)))


def random_problem(seed):
    """Return one random data set, homogeneous for even seeds, heterogeneous for odd ones."""
    rng = np.random.default_rng([2602, seed])
    eta0 = np.vstack([1.5 * np.linalg.qr(rng.normal(size=(2, FEATURES)))[0], np.zeros(FEATURES)])
    x = rng.normal(size=(ROWS, FEATURES))
    model = oracle.Model(eta0, ("tanh", "linear")[seed % 2], "tanh")
    moe = contaminated(eta0, frozen_activation=model.frozen_activation, activation="tanh")
    eta = -eta0[:2] + 0.5 * rng.normal(size=(2, FEATURES))
    truth = moe.params(tau=0.3 * rng.normal(), beta=rng.normal(size=FEATURES), eta=eta)
    return model, moe, x, moe.simulate(seed, truth, x)


def spread_starts(rng, count):
    """Return starts over the whole box, some near its centre."""
    return rng.uniform(-1.0, 1.0, (count, 7)) * rng.choice([1.0, 0.5 * BOX, BOX], (count, 1))


def by_name(starts):
    """Return free vectors as mappings by name."""
    return [{"tau": v[:1], "beta": v[None, 1:3], "eta": v[3:].reshape(1, 2, 2)} for v in starts]


def best_apart(starts, kept):
    """Return free vectors of the best starts that lie apart from better ones: a hill is climbed once."""
    out = []
    for start in starts:
        if all(np.abs(start.free - other).max() > APART for other in out):
            out.append(start.free)
    return out[:kept]


def fit_by_em(moe, x, y, starts, stages):
    """Return EM's fit: some steps from each start, then on from the best (Biernacki, Celeux and Govaert, 2003)."""
    run = functools.partial(em.fit, moe, x, y, bounds=dict.fromkeys(moe.fields, (-BOX, BOX)))
    for steps, kept in stages:
        starts = best_apart(run(init=by_name(starts), max_iter=steps, tol=1e-3).starts, kept)
    return run(init=by_name(starts), max_iter=5000, tol=1e-7)


def maxima(seed, effort):
    """Return the best log likelihoods by brute force, Newton and EM on one data set, each from its own starts."""
    model, moe, x, y = random_problem(seed)
    rng, bounds = np.random.default_rng(seed), dict.fromkeys(moe.fields, (-BOX, BOX))
    direct = brute_force(model, x, y, spread_starts(rng, effort.direct))
    starts = by_name(spread_starts(rng, effort.direct))
    by_newton = newton.fit(moe, x, y, init=starts, bounds=bounds, tol=1e-9)
    by_em = fit_by_em(moe, x, y, spread_starts(rng, effort.em), effort.stages)
    return np.array([direct.max(), by_newton.log_likelihood, by_em.log_likelihood])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 4, 9])
def test_three_methods_reach_the_same_maximum(seed):
    assert np.ptp(maxima(seed, QUICK)) < SAME_MAXIMUM


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_three_methods_reach_the_same_maximum_on_fifty_data_sets(seed):
    assert np.ptp(maxima(seed, THOROUGH)) < SAME_MAXIMUM


def test_too_few_starts_are_found_out():
    assert np.ptp(maxima(31, Effort(direct=5, em=2, stages=()))) > SAME_MAXIMUM
