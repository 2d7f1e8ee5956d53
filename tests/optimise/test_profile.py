"""Profile intervals against a slow profile, a closed form, and what they promise."""

import numpy as np
import oracle
import pytest
from scipy import optimize, stats
from scipy.special import log_expit, log_softmax

from bayes_moe import contaminated, gaussian_gated
from mle import criteria, em, newton, profile
from mle.optimise import uncertainty

ETA0 = np.array([[1.0, 0.0], [-0.5, 1.0], [0.0, 0.0]])
TRUTH = {"tau": 0.5, "beta": [0.5, -0.5], "eta": [[-1.0, 1.0], [-0.5, -1.5]]}
DROP = stats.chi2.ppf(0.95, 1) / 2
STARTS = 20
SHORT = ("tau", "low")  # beside it a branch at infinity, which no start of the search reaches, is .1 higher


@pytest.fixture(scope="module")
def fitted():
    moe = contaminated(ETA0, activation="tanh")
    x = np.random.default_rng(0).normal(size=(400, 2))
    y = moe.simulate(0, moe.params(**TRUTH), x)
    return moe, x, y, newton.fit(moe, x, y, n_init=4, random_state=0)


def slow_profile(x, y, start, j, t):
    """Maximum of the oracle's log likelihood over all coordinates but one, climbed from a start."""
    model, others = oracle.Model(ETA0, "linear", "tanh"), np.arange(start.size) != j

    def negative(rest):
        free = np.insert(rest, j, t)
        return -oracle.log_density(model, oracle.unflatten(model, free), x, y).sum()

    return -optimize.minimize(negative, start[others], method="BFGS", options={"gtol": 1e-4}).fun


def climbs(x, y, start, j, t):
    """Ends of many quick climbs, the highest first: values and places. Beside tau's low end three branches lie."""
    starts = [start, *np.random.default_rng(0).normal(scale=2.0, size=(STARTS, start.size))]
    return sorted((quick_profile(x, y, one, j, t) for one in starts), key=lambda end: -end[0])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "j"), [("tau", 0), ("beta", 1), ("eta", 5)])
def test_ends_lie_where_a_slow_profile_has_fallen(fitted, name, j):
    moe, x, y, fit = fitted
    ends = profile.intervals(moe, fit, x, y, names=[name])[name].reshape(-1, 2)
    place = j - {"tau": 0, "beta": 1, "eta": 3}[name]
    start = np.concatenate([fit.params[n].ravel() for n in moe.fields])
    for side, end in zip(("low", "high"), ends[place], strict=True):
        branches = climbs(x, y, start, j, end)
        fall = fit.log_likelihood - slow_profile(x, y, branches[0][1], j, end)
        assert fall < DROP + 1e-3  # never too long
        assert min(abs(fit.log_likelihood - value - DROP) for value, _ in branches) < 1e-3  # on a branch of maxima
        assert abs(fall - DROP) < 1e-3 or (name, side) == SHORT
    wald = uncertainty.wald(fit)[name].reshape(-1, 2)[place]
    missed = [abs(fit.log_likelihood - slow_profile(x, y, start, j, end) - DROP) for end in wald]
    assert max(missed) > 1e-2  # the test tells them from Wald's


def test_newton_and_bisection_agree(fitted, monkeypatch):
    moe, x, y, fit = fitted
    quick = profile.intervals(moe, fit, x, y, level=0.9)
    monkeypatch.setattr(profile._Curve, "_newton", lambda self, j, sign: None)
    slow = profile.intervals(moe, fit, x, y, level=0.9)
    for name, value in quick.items():
        np.testing.assert_allclose(value, slow[name], rtol=1e-5, atol=1e-6)
        assert (value[..., 0] < fit.params[name]).all()
        assert (fit.params[name] < value[..., 1]).all()


def test_a_normal_mean_has_its_closed_form():
    moe = gaussian_gated(1, 1)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 1))
    y = 1.0 + 2.0 * x[:, 0] + rng.normal(size=60)
    fit = em.fit(moe, x, y, n_init=1, random_state=0)
    low, high = profile.intervals(moe, fit, x, y, names=["c"])["c"][0, 0]
    half = x.std() * np.sqrt(np.expm1(stats.chi2.ppf(0.95, 1) / 60))  # n log(1 + (c - mean)^2 / variance) = q
    np.testing.assert_allclose([low, high], x.mean() + np.array([-half, half]), rtol=1e-5)


def test_an_interval_without_an_end_is_open():
    moe = contaminated([[-2.0], [2.0]], activation="linear")
    x = np.random.default_rng(2).normal(size=(30, 1))
    y = moe.simulate(3, moe.params(tau=3.0, beta=[0.0], eta=[[1.0]]), x)
    fit = newton.fit(moe, x, y, n_init=8, random_state=0)
    assert fit.covariance is not None
    found = profile.intervals(moe, fit, x, y, names=["tau"], level=0.95)["tau"][0]
    assert np.isinf(found[1])
    assert found[0] < fit.params["tau"][0]


def quick_profile(x, y, start, j, t):
    """Maximum over all coordinates but one of the log likelihood, in NumPy for all observations at once; and where."""
    known, others, rows = log_softmax(x @ ETA0.T, axis=1), np.arange(start.size) != j, np.arange(len(y))

    def negative(rest):
        free = np.insert(rest, j, t)
        gate = free[0] + x @ free[1:3]
        logits = np.column_stack([np.tanh(x @ free[3:].reshape(2, 2).T), np.zeros(len(y))])
        own = log_softmax(logits, axis=1)[rows, y]
        return -np.logaddexp(log_expit(-gate) + known[rows, y], log_expit(gate) + own).sum()

    end = optimize.minimize(negative, start[others], method="BFGS", options={"gtol": 1e-4})
    return -end.fun, np.insert(end.x, j, t)


@pytest.fixture(scope="module")
def few():
    """Few observations, where branches of maxima cross; a fit for each of two seeds."""
    moe, out = contaminated(ETA0, activation="tanh"), {}
    for seed in (2, 4):
        x = np.random.default_rng(seed).normal(size=(150, 2))
        y = moe.simulate(seed, moe.params(**TRUTH), x)
        out[seed] = moe, x, y, newton.fit(moe, x, y, n_init=4, random_state=0)
    return out


def test_an_end_moves_on_where_another_branch_is_above_the_level(few):
    moe, x, y, fit = few[4]
    low = profile.intervals(moe, fit, x, y, names=["eta"])["eta"][0, 1, 0, 0]
    start = np.concatenate([fit.params[n].ravel() for n in moe.fields])
    beyond = -5.0  # the branch that continues from the estimate is below the level there
    assert low < beyond < start[5]
    assert quick_profile(x, y, start, 5, beyond)[0] < fit.log_likelihood - DROP
    rows = [np.arange(3), np.arange(3, 5), np.arange(5, 7)]
    out = [start * np.where(np.isin(np.arange(7), row), 30.0, 1.0) for row in rows]
    assert max(quick_profile(x, y, far, 5, beyond)[0] for far in out) > fit.log_likelihood - DROP


def test_a_likelihood_above_the_fit_s_is_told(few):
    moe, x, y, fit = few[2]
    with pytest.warns(profile.NotHighest, match=r"beta\[0,1\].* above the fit's"):
        profile.intervals(moe, fit, x, y, names=["beta"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"names": ["gamma"]}, "names must be among tau, beta, eta"),
        ({"level": 1.0}, "level must lie between 0 and 1"),
        ({"level": 95}, "level must lie between 0 and 1"),
    ],
)
def test_bad_arguments_are_named(fitted, change, words):
    moe, x, y, fit = fitted
    with pytest.raises(ValueError, match=words):
        profile.intervals(moe, fit, x, y, **change)


def test_a_fit_that_is_no_maximum_is_refused(fitted):
    moe, x, y, _ = fitted
    shut = newton.fit(moe, x, y, n_init=2, random_state=0, bounds={"tau": (3.0, 4.0)})
    with pytest.raises(ValueError, match="fit must be an interior maximum"):
        profile.intervals(moe, shut, x, y)


def test_a_weighted_fit_is_profiled_with_its_weights(fitted):
    moe, x, y, _ = fitted
    fit = newton.fit(moe, x, y, n_init=4, random_state=0, weights=np.full(len(x), 2.0))
    twice = np.concatenate([x, x]), np.concatenate([y, y])
    ends = profile.intervals(moe, fit, x, y, names=["beta"], weights=np.full(len(x), 2.0))
    np.testing.assert_allclose(ends["beta"], profile.intervals(moe, fit, *twice, names=["beta"])["beta"], rtol=1e-5)


@pytest.mark.parametrize("ask", [profile.intervals, uncertainty.standard_errors, criteria.criteria])
def test_other_data_than_those_of_the_fit_are_refused(fitted, ask):
    moe, x, y, fit = fitted
    with pytest.raises(ValueError, match="x, y and weights must be those of the fit"):
        ask(moe, fit, x, y, weights=np.full(len(x), 2.0))
    with pytest.raises(ValueError, match="x, y and weights must be those of the fit"):
        ask(moe, fit, x[:300], y[:300])
