"""Subjects' intercepts: the density against SciPy, mixed-model regression in closed form, a known sd, bad input."""

import re
from dataclasses import replace
from functools import cache

import arviz_stats as azs
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import oracle_varying as oracle
import pytest
import xarray as xr
from curve_cases import BASES, SIZES, TIGHT, draw_rows, held, log_prior, slow_likelihood, with_switched_labels
from montecarlo import FALSE_ALARM, STANDARD_ERRORS, first_that_passes, key, share, worst
from numpyro.infer.util import log_density
from selection import quick

from bayes_moe import curves, varying_coefficient
from bayes_moe.curves import draws as curve_draws
from bayes_moe.curves.bases import HilbertGP
from bayes_moe.curves.smooth import SmoothModel
from bayes_moe.draws import diagnostics
from bayes_moe.ground.compilation import as_arrays
from bayes_moe.nuts import modes
from bayes_moe.varying.indexed import check_subject

QUICK = {"num_warmup": 300, "num_samples": 500, "num_chains": 2, "progress_bar": False}
MIN_ESS = 400
LEVEL = 0.99  # of the interval that must hold the truth

# The density -----------------------------------------------------------------------------------------------------

IDS = np.array(["b", "a", "c", "a", "b", "c", "c", "a", "d", "b", "a", "c", "d", "a", "e"])


def problem(family, kind="hilbert", components=2):
    """Return rows with subjects, as the package takes them, and what it runs on."""
    model, rows = draw_rows(family, n=len(IDS), components=components)
    positions, ids = check_subject(IDS, len(IDS))
    data = model.observe(*rows, size=SIZES[family], u_range=(0, 1))
    data, smooth = replace(data, subject=positions[data.order]), SmoothModel(model, BASES[kind], len(ids))
    u = [smooth.basis.rows(where) for where in (data.u, np.array([0.5]))]
    return model, rows, as_arrays((smooth, curves.priors_of(smooth), data, *u))


def some_values(smooth):
    """Return random values of all sites."""
    rng, sites = np.random.default_rng(4), smooth.fields | smooth.weights
    values = {name: 0.5 * rng.normal(size=field.shape) for name, field in sites.items()}
    return {n: np.exp(v) if n.split("_")[1] in ("amplitude", "lengthscale", "sd") else v for n, v in values.items()}


@pytest.mark.parametrize(
    ("family", "kind", "components"),
    quick(
        [("normal", "hilbert", 2), ("binomial", "bspline", 3), ("negative-binomial", "hilbert", 1)],
        ("binomial", "bspline", 3),
    ),
)
@jax.enable_x64(True)
def test_the_density_is_scipys(family, kind, components):
    model, rows, inputs = problem(family, kind, components)
    values = some_values(inputs[0])
    found = float(log_density(curves.posterior_model, (inputs, inputs[2].y), {}, values)[0])
    own = {one: values["subject_sd"] * weight for one, weight in zip("bacde", values["subject_weights"], strict=True)}
    each = [own[one] for one in IDS]
    likelihood = slow_likelihood(family, model, BASES[kind], values, rows, each)
    assert found == pytest.approx(log_prior(values) + likelihood, rel=1e-10)
    assert abs(slow_likelihood(family, model, BASES[kind], values, rows) - likelihood) > 1e-3  # intercepts matter


@jax.enable_x64(True)
def test_the_gradient_is_that_of_the_density():
    inputs = problem("normal")[2]
    args = (inputs, jnp.asarray(inputs[2].y))
    where = modes.layout(curves.posterior_model, args)
    negative = modes.objective(curves.posterior_model, where, args)
    rng = np.random.default_rng(0)
    at, along, step = rng.normal(size=where.size), rng.normal(size=where.size), 1e-5
    slope = (negative(at + step * along)[0] - negative(at - step * along)[0]) / (2 * step)
    assert np.isfinite(negative(at)[1]).all()
    assert negative(at)[1] @ along == pytest.approx(slope, rel=1e-6)


# A closed form ---------------------------------------------------------------------------------------------------

SIGMA, SD, MEAN_SD = 0.5, 0.8, 2.0
SUBJECTS, VISITS = 8, 6


@cache
def mixed_model():
    """Return a posterior of one normal component, constant in u, both scales held, and its data."""
    rng, n = np.random.default_rng(3), SUBJECTS * VISITS
    model = varying_coefficient("normal", 1, gate_features=0, expert_features=1, constant=["alpha", "delta"])
    subject = rng.permutation(np.repeat(np.arange(SUBJECTS), VISITS))
    z, u = rng.normal(size=(n, 1)), rng.uniform(size=n)
    y = 1 - z[:, 0] + SD * rng.normal(size=SUBJECTS)[subject] + SIGMA * rng.normal(size=n)
    prior = {"subject_sd": held(SD), "delta_mean": dist.Normal(np.log(SIGMA), TIGHT)}
    none, settings = np.zeros((n, 0)), QUICK | {"num_samples": 2000, "grid": 2, "n_init": 1}
    tree = curves.sample(model, none, z, u, y, rng_key=key(0), prior=prior, subject=subject, **settings)
    return tree, (z, subject, y)


def deviations(sd):
    """Largest |difference| of means and sds from a mixed model's, in Monte Carlo standard errors."""
    tree, (z, subject, y) = mixed_model()
    design = np.column_stack([np.ones(len(y)), z, np.eye(SUBJECTS)[subject]])
    before = np.diag([MEAN_SD**-2.0] * 2 + [sd**-2.0] * SUBJECTS)
    covariance = np.linalg.inv(before + design.T @ design / SIGMA**2)
    mean, spread = covariance @ design.T @ y / SIGMA**2, np.sqrt(np.diag(covariance))
    posterior = tree["posterior"]
    intercepts = posterior["subject_intercept"].sel(subject=np.arange(SUBJECTS))
    scores = []
    for draws, where in ((posterior["alpha"][:, :, 0, 0], slice(2)), (intercepts, slice(2, None))):
        assert min(azs.ess(draws, method=method).min() for method in ("mean", "sd")) > MIN_ESS
        scores.append(worst(draws, mean[where], spread[where]))
    return max(scores)


@pytest.mark.statistical
def test_one_normal_component_is_mixed_model_regression():
    assert deviations(SD) < STANDARD_ERRORS


@pytest.mark.statistical
@pytest.mark.parametrize("sd", [0.5 * SD, 1e-3], ids=["half as much", "no subjects"])
def test_another_spread_of_subjects_would_show(sd):
    assert deviations(sd) > STANDARD_ERRORS


# A mixture -------------------------------------------------------------------------------------------------------

TRUE_SD, TRUE_SIGMA = 0.8, np.exp(-1.0)
DRAWS = 600


@cache
def mixture(shuffled=False, base=1, longer=False):
    """Return a model, a posterior given 20 subjects with 7 visits each, and its data; shuffled: with wrong ids."""
    rng, n = np.random.default_rng(0), 140
    model = varying_coefficient("normal", 2, constant=["delta", "beta", "alpha[:,1]"])
    subject = rng.permutation(np.repeat(np.arange(20), 7))
    x, z, u = rng.normal(size=(n, 1)), rng.normal(size=(n, 1)), rng.uniform(2, 4, size=n)
    own = TRUE_SD * rng.normal(size=20)[subject]
    levels, slopes = [np.sin(2 * u) - 1, np.cos(2 * u) + 1], [np.ones(n), -np.ones(n)]
    alpha = np.stack([np.stack([own + levels[c], slopes[c]], 1) for c in (0, 1)], 1)
    y = model.simulate(0, {"beta": [[[0.0, 1.0]]], "alpha": alpha, "delta": [[np.log(TRUE_SIGMA)] * 2]}, x, z)
    names = np.array([f"patient {s}" for s in (rng.permutation(subject) if shuffled else subject)])
    settings = QUICK | {"num_samples": DRAWS, "target_accept_prob": 0.95, "basis": HilbertGP(5), "n_init": 2}
    settings |= {"u_range": (2, 4), "grid": 5, "log_likelihood": True, "posterior_predictive": True}
    if longer:  # for the gate, which half of the shorter runs fail by a divergence or two, and 0 of 24 of these
        settings |= {"num_warmup": 600, "num_samples": 2 * DRAWS, "target_accept_prob": 0.99}
    return model, curves.sample(model, x, z, u, y, rng_key=key(base), subject=names, **settings), (x, z, u, y, names)


def beyond(tree, name, truth):
    """How far the truth lies outside the interval, in Monte Carlo errors of its ends; negative: how far within."""
    draws, tail = tree["posterior"][name], (1 - LEVEL) / 2
    low, high = (draws.quantile(p, ("chain", "draw")).values for p in (tail, 1 - tail))
    errors = (azs.mcse(draws, method="quantile", prob=p).values for p in (tail, 1 - tail))
    return [(end / error).max() for end, error in zip((low - truth, truth - high), errors, strict=True)]


def holds(tree, name, truth):
    return max(beyond(tree, name, truth)) < 0


def gate(drawn):
    model, tree, _ = drawn
    return diagnostics.check(tree, curve_draws.invariants(model, tree))


@pytest.mark.slow
@pytest.mark.statistical
def test_a_known_sd_is_found_and_the_gate_passes():
    (_, tree, _), verdict = first_that_passes(lambda base: mixture(base=base, longer=True), 1, gate)
    assert verdict.passed, str(verdict)
    assert holds(tree, "subject_sd", TRUE_SD)
    assert holds(tree, "delta", np.log(TRUE_SIGMA))


@pytest.mark.slow
@pytest.mark.statistical
def test_subjects_that_are_mixed_up_would_show():
    _, tree, _ = mixture(shuffled=True)
    assert not holds(tree, "subject_sd", TRUE_SD)
    assert not holds(tree, "delta", np.log(TRUE_SIGMA))


def test_intercepts_are_named_by_subject_and_rows_by_their_order():
    _, tree, (*_, names) = mixture()
    posterior = tree["posterior"]
    assert posterior["subject_intercept"].dims == ("chain", "draw", "subject")
    assert posterior["subject"].values.tolist() == list(dict.fromkeys(names))
    np.testing.assert_allclose(posterior["subject_intercept"], posterior["subject_sd"] * posterior["subject_weights"])
    position = tree["constant_data"]["subject_position"].values
    np.testing.assert_array_equal(posterior["subject"].values[position], names)


def test_what_is_evaluated_again_has_the_intercepts_and_curves_do_not():
    model, tree, (x, z, _, y, _) = mixture()
    total = tree["log_likelihood"]["y"].sum("obs_id")
    np.testing.assert_allclose(curve_draws.invariants(model, tree)["log_likelihood"], total, rtol=1e-9)
    draw, order = {"chain": 1, "draw": 17}, tree["observed_data"]["obs_id"].values
    one = tree["posterior"].dataset.isel(draw)
    curve = curve_draws.at(model, tree, tree["constant_data"]["u"].values)  # labels as relabelled
    params = {name: value[DRAWS + 17] for name, value in curve.items()}
    own = one["subject_intercept"].values[tree["constant_data"]["subject_position"].values]
    slow = []
    for i, row in enumerate(order):
        at = {name: value[i].copy() for name, value in params.items()}
        at["alpha"][:, 0] += own[i]
        slow.append(oracle.log_joint("normal", at, x[row], z[row], y[row]))
    np.testing.assert_allclose(tree["log_likelihood"]["y"].isel(draw), np.logaddexp.reduce(slow, axis=1), rtol=1e-9)
    allocated = tree["relabelled"]["permutation"].isel(draw).values[np.argmax(slow, axis=1)]
    np.testing.assert_array_equal(curve_draws.allocations(model, tree)[DRAWS + 17], allocated)
    on_grid = curve_draws.at(model, tree, tree["posterior"]["grid"].values)["alpha"]
    np.testing.assert_allclose(on_grid, tree["relabelled"]["alpha"].values.reshape(on_grid.shape), rtol=1e-8)


def test_predictive_draws_are_of_the_same_subjects():
    """Averages over visits follow subjects' own; subjects alike in the data would leave no correlation."""
    _, tree, _ = mixture()
    position = tree["constant_data"]["subject_position"].values
    mean = tree["posterior_predictive"]["y"].mean(("chain", "draw")).values
    of_subjects = np.bincount(position, mean) / np.bincount(position)
    intercepts = tree["posterior"]["subject_intercept"].mean(("chain", "draw")).values
    assert np.corrcoef(of_subjects, intercepts)[0, 1] > 0.8


def test_switched_labels_change_nothing_that_is_label_free():
    model, tree, _ = mixture()
    switched = with_switched_labels(tree)
    same = curve_draws.invariants(model, switched)
    for name, values in curve_draws.invariants(model, tree).data_vars.items():
        np.testing.assert_allclose(same[name], values, rtol=1e-8, atol=1e-8)
    found = curve_draws.relabel(model, switched)["relabelled"]
    for name in model.fields:
        np.testing.assert_allclose(found[name], tree["relabelled"][name], atol=1e-10)


def test_a_tree_survives_a_file(tmp_path):
    model, tree, _ = mixture()
    tree.to_netcdf(tmp_path / "tree.nc", engine="h5netcdf")
    read = xr.open_datatree(tmp_path / "tree.nc", engine="h5netcdf").load()
    xr.testing.assert_equal(curve_draws.invariants(model, read), curve_draws.invariants(model, tree))


# Too narrow without ----------------------------------------------------------------------------------------------

REPLICATES, NOMINAL = 100, 0.9


def p_value_of_held(with_subjects):
    """p-value of how many data sets' 90% intervals of the mean level hold the truth, 0."""
    rng, n = np.random.default_rng(key(5)), SUBJECTS * VISITS
    model = varying_coefficient("normal", 1, gate_features=0, expert_features=0, constant=["alpha", "delta"])
    subject, none, u = np.repeat(np.arange(SUBJECTS), VISITS), np.zeros((n, 0)), np.linspace(0, 1, n)
    given = {"subject": subject} if with_subjects else {}
    held = 0
    for seed in range(REPLICATES):
        y = SD * rng.normal(size=SUBJECTS)[subject] + SIGMA * rng.normal(size=n)
        tree = curves.sample(model, none, none, u, y, rng_key=key(seed), grid=2, n_init=1, **QUICK, **given)
        low, high = tree["posterior"]["alpha_mean"].quantile([(1 - NOMINAL) / 2, (1 + NOMINAL) / 2]).values
        held += low <= 0 <= high
    return share(held, REPLICATES, NOMINAL)


@pytest.mark.slow
@pytest.mark.statistical
def test_intervals_of_the_mean_level_hold_it_as_often_as_they_say():
    assert p_value_of_held(True) > FALSE_ALARM


@pytest.mark.slow
@pytest.mark.statistical
def test_without_subjects_intervals_are_too_narrow():
    assert p_value_of_held(False) < FALSE_ALARM


# Bad input -------------------------------------------------------------------------------------------------------


def attempt(subject, **changes):
    model, (x, z, u, y) = draw_rows("normal", n=4)
    return curves.sample(model, x, z, u, y, rng_key=0, subject=subject, **changes)


BAD = {
    "too few ids": (["a", "b", "a"], "x has 4 rows, subject has 3"),
    "a table": ([["a", "b", "a", "b"]], "one-dimensional"),
    "a string": ("abab", "sequence"),
    "a missing id": (["a", "b", None, "a"], "None at row 2"),
    "NaN": ([1.0, np.nan, 2.0, 1.0], "nan at row 1"),
    "NaN among strings": (["a", "b", "a", np.nan], "nan at row 3"),
    "no time": (np.array(["2020-01-01", "NaT", "2020-01-01", "2020-01-02"], "datetime64[D]"), "row 1.*Drop"),
    "ids that cannot be keys": (np.array([{}, {}, {}, {}]), "hashable"),
    "one subject": (["a"] * 4, "at least 2 subjects.*Leave subject out"),
    "one observation each": (["a", "b", "c", "d"], "at least 2 observations.*Leave subject out"),
}


@pytest.mark.parametrize(("subject", "hint"), BAD.values(), ids=BAD)
def test_bad_subjects_are_refused_by_name(subject, hint):
    with pytest.raises(ValueError, match=r"^subject(?!\w)") as caught:
        attempt(subject)
    assert re.search(hint, str(caught.value)), str(caught.value)


def test_a_prior_of_their_spread_without_subjects_is_refused():
    with pytest.raises(ValueError, match="'subject_sd' is no parameter"):
        attempt(None, prior={"subject_sd": dist.HalfNormal()})
    with pytest.raises(ValueError, match="subject_sd must lie in"):
        attempt([1, 1, 2, 2], prior={"subject_sd": dist.Normal()})


@pytest.mark.parametrize("ids", [[(1, "a"), (1, "b"), (1, "a")], [True, False, True], ["1", 1, "1"]], ids=repr)
def test_any_hashable_is_an_id(ids):
    positions, labels = check_subject(ids, 3)
    assert (positions.tolist(), labels) == ([0, 1, 0], tuple(ids[:2]))
