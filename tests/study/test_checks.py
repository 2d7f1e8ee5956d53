"""Regimes and studies that can't be run are refused when they are made, by name and with the remedy."""

from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from bayes_moe import contaminated, gaussian_gated
from comparisons import catalogue
from comparisons.curves import regimes as curve_regimes
from comparisons.curves import studies as curve_studies
from comparisons.gaussian import regimes as gaussian_regimes
from comparisons.gaussian import studies as gaussian_studies
from comparisons.study import estimators, knobs
from comparisons.study.plan import Cell, Study

GOOD = catalogue.HETEROGENEOUS
GAUSSIAN = gaussian_regimes.regime("m1", 3)
CURVES = curve_regimes.regime("normal")


def study(regime=GOOD, **changes):
    plan = {"sizes": {"mle": (50, 100)}, "replicates": {"mle": 1}, "settings": {"mle": catalogue.MLE}}
    return Study("one", "one", (regime,), **{**plan, **changes})


def losing(change):
    """Losses of the good regime, changed."""
    return lambda params, truth: change(GOOD.losses(params, truth))


def at_100(n):
    if n == 100:
        raise RuntimeError("planted")
    return GOOD.truth(n)


REGIMES = {
    "name": ({"name": ""}, "name must be a text"),
    "lines": ({"title": "a\nb"}, "title must be a text of one line"),
    "model": ({"moe": None}, "moe must be an MoE"),
    "truth": ({"truth": GOOD.truth(10)}, "truth must be a function"),
    "no losses": ({"losses": None}, "losses must be a function"),
    "draw": ({"draw": 3}, "draw must be a function"),
    "generator": ({"generator": "moe"}, "generator must be an MoE"),
    "exponents": ({"exponents": {"tau": "-1/2"}}, "exponents must be"),
    "infinite exponent": ({"exponents": {"tau": -np.inf}}, "exponents must be"),
    "listed exponents": ({"exponents": ["tau"]}, "exponents must be"),
    "assumptions": ({"assumptions": "a text"}, "assumptions must be a tuple of texts"),
}


@pytest.mark.parametrize(("changes", "says"), REGIMES.values(), ids=REGIMES)
def test_a_regime_of_wrong_parts_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        replace(GOOD, **changes)


@pytest.mark.parametrize("regime", [GAUSSIAN, CURVES], ids=["real responses", "curves"])
def test_scales_where_there_is_no_bound_are_refused_before_any_fit(regime):
    with pytest.raises(ValueError, match=r"scales ask for Cramér–Rao bounds, .* Leave scales out"):
        replace(regime, scales=lambda truth: dict.fromkeys(truth, 1.0))


def test_a_model_with_an_index_needs_draw():
    with pytest.raises(ValueError, match="needs draw"):
        replace(CURVES, draw=None)


LATER = {
    "truth fails": ({"truth": at_100}, r"truth\(100\) fails: RuntimeError: planted"),
    "truth is no dict": ({"truth": lambda n: [1.0]}, r"truth\(50\) fails"),
    "truth lacks": ({"truth": lambda n: {"tau": np.zeros(1)}}, r"truth\(50\) must have .* got tau"),
    "truth's shape": ({"truth": lambda n: GOOD.truth(n) | {"tau": np.zeros(2)}}, r"tau must have shape \(1,\)"),
    "truth is NaN": ({"truth": lambda n: GOOD.truth(n) | {"tau": np.full(1, np.nan)}}, "tau must be finite"),
    "losses fail": ({"losses": losing(lambda found: found["rho"])}, "losses fail at the truth: KeyError"),
    "losses leave JAX": ({"losses": losing(lambda f: {"tau": float(f["tau"])})}, "losses fail at the truth"),
    "losses are arrays": ({"losses": lambda params, truth: dict(params)}, "losses must return a dict from names to sc"),
    "losses are a list": ({"losses": losing(lambda found: list(found.values()))}, "losses must return a dict"),
    "losses have no names": ({"losses": losing(lambda found: {1: jnp.zeros(())})}, "losses"),
    "exponents of nothing": ({"exponents": {"rho": -0.5}}, "losses say nothing of rho, which exponents"),
    "scales of fewer": ({"scales": lambda truth: {"tau": 1.0}}, "scales must be positive, one for each of tau, beta"),
    "scales of zero": ({"scales": lambda truth: dict.fromkeys(truth, 0.0)}, "scales must be positive"),
    "scales fail": ({"scales": lambda truth: 1 / 0}, "scales fail at the truth: ZeroDivisionError"),
    "losses lack a scale's": (
        {"losses": losing(lambda f: {k: v for k, v in f.items() if k != "eta"}), "exponents": {"tau": -0.5}},
        "losses say nothing of eta",
    ),
}


@pytest.mark.parametrize(("changes", "says"), LATER.values(), ids=LATER)
def test_a_regime_that_fails_at_planned_sizes_is_refused_with_the_study(changes, says):
    regime = replace(GOOD, **changes)
    with pytest.raises(ValueError, match=says):
        study(regime)


PLANS = {
    "no size": ({"sizes": {"mle": ()}}, r"sizes\['mle'\] must be whole numbers"),
    "a bool": ({"sizes": {"mle": (True, 50)}}, r"sizes\['mle'\] must be whole numbers"),
    "one": ({"sizes": {"mle": (1,)}}, r"sizes\['mle'\] must be whole numbers"),
    "a text": ({"sizes": {"mle": "50"}}, r"sizes\['mle'\] must be whole numbers"),
    "twice": ({"sizes": {"mle": (50, 50)}}, r"sizes\['mle'\] must be different"),
    "no dict": ({"sizes": (50, 100)}, "sizes must be a dict with the names of estimators"),
    "negative": ({"replicates": {"mle": -1}}, r"replicates\['mle'\] must be a whole number .* got -1"),
    "bool count": ({"replicates": {"mle": True}}, r"replicates\['mle'\] must be a whole number"),
    "half": ({"replicates": {"mle": {50: 1.5}}}, r"replicates\['mle'\] must be a whole number"),
    "text key": ({"replicates": {"mle": {"50": 1}}}, r"replicates\['mle'\] must be a whole number"),
    "seed": ({"seed": 1.5}, "seed must be a whole number"),
    "numpy's seed": ({"seed": np.int64(1)}, "seed must be a whole number"),
    "estimator": ({"estimators": {"mle": "newton"}}, r"estimators\['mle'\] must be a function, got 'newton'"),
    "no settings": ({"settings": {"mle": None}}, r"settings\['mle'\] must be a dict"),
    "numbered": ({"settings": {"mle": {1: 2}}}, r"settings\['mle'\] must be a dict from names"),
    "findings": ({"findings": "text"}, "findings must be a function"),
    "epilogue": ({"epilogue": 1}, "epilogue must be a function"),
    "regimes": ({"regimes": GOOD}, "regimes must be a tuple of Regime"),
    "no regime": ({"regimes": ()}, "regimes must be at least one"),
    "something else": ({"regimes": ("homogeneous",)}, "regimes must be a tuple of Regime"),
    "name": ({"name": " "}, "name must be that of a folder"),
}


@pytest.mark.parametrize(("changes", "says"), PLANS.values(), ids=PLANS)
def test_a_plan_that_can_t_be_run_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        replace(study(), **changes)


MLE, NUTS = catalogue.MLE, catalogue.NUTS
SETTINGS = {
    "typed wrongly": (
        "mle",
        {"n_inti": 4, "bound": 1.0},
        "unknown: n_inti; missing: n_init. It needs n_init, bound;",
    ),
    "near": ("mle-near", MLE, r"settings\['mle-near'\]: missing: spread"),
    "nothing": ("mle", {}, "missing: n_init, bound"),
    "another's": ("nuts", {**NUTS, "bound": 1.0}, "unknown: bound"),
    "the study's own": ("nuts", {**NUTS, "rng_key": 1}, "unknown: rng_key"),
    "no draws": ("nuts", {"num_warmup": 10}, "missing: num_samples"),
}


@pytest.mark.parametrize(("name", "settings", "says"), SETTINGS.values(), ids=SETTINGS)
def test_settings_are_refused_by_name_when_a_study_is_made(name, settings, says):
    with pytest.raises(ValueError, match=says):
        study(sizes={name: (50,)}, replicates={name: 1}, settings={name: settings})


def test_estimators_of_every_family_know_their_settings():
    gaussian, curves = gaussian_studies.study("m1"), curve_studies.study("normal")
    for made in (gaussian, curves, curve_studies.power(), curve_studies.constants(), study()):
        for name, settings in made.settings.items():
            assert knobs.of(made.estimators[name]) is not None
            with pytest.raises(ValueError, match="unknown: bandwith"):
                replace(made, settings={**made.settings, name: {**settings, "bandwith": 1}})
            with pytest.raises(ValueError, match="missing"):
                replace(made, settings={**made.settings, name: {}})


def test_a_user_s_estimator_may_say_what_it_knows_or_not():
    def silent(problem, key, settings):
        return None

    @knobs.known(["a"], ["b"], c=["d"])
    def says(problem, key, settings, c=False):
        return None

    assert knobs.of(silent) is None
    assert knobs.of(says) == (("a",), ("b",))
    assert knobs.of(partial(partial(says, c=True), x=1)) == (("a", "d"), ("b",))
    assert knobs.of(partial(partial(says, c=True), c=False)) == (("a",), ("b",))
    assert study(estimators={"mle": silent}, settings={"mle": {"whatever": 1}}).settings == {"mle": {"whatever": 1}}


def test_data_come_from_the_generator_also_without_a_gaussian_gate():
    other = contaminated([[9.0, 0.0], [0.0, -9.0], [0.0, 0.0]], activation="tanh")
    regime = replace(GOOD, generator=other, scales=None)
    one = Cell(GOOD.name, 50, 0, "mle")
    x, y, truth = study(regime).data(one)
    assert not np.array_equal(y, study().data(one)[1])
    np.testing.assert_array_equal(x, study().data(one)[0])


def test_truths_outside_their_support_are_refused():
    def truth(n):
        return GAUSSIAN.truth(n) | {"nu": np.array([1.0, -1.0, 1.0])}

    regime = replace(GAUSSIAN, truth=truth, moe=gaussian_gated(3, 1))
    with pytest.raises(ValueError, match="nu must lie in"):
        study(regime, estimators={"mle": estimators.mle})
