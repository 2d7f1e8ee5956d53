"""JAX's settings: a study's data, keys and fits are the same whatever they are; threads inherit what is in force."""

import contextlib
import json

import jax
import numpy as np
import pytest

from bayes_moe.ground import flags, threads
from comparisons import catalogue
from comparisons.running import cell, described, description
from comparisons.study import plan as study_module
from comparisons.study.plan import Cell, Study, key_of

STUDIES = {name: catalogue.STUDIES[name](True) for name in ("quickstart", "vc-sim2")}
# The key of a fit and the first covariates under JAX's defaults, as results of earlier versions have them.
KNOWN = {
    "quickstart": ([3631262774, 2284407714], [2.3549420678607746, -0.7316124073122859]),
    "vc-sim2": ([31422909, 3089456940], [0.8051741298241895, -0.007578181682458889]),
}
OTHERS = {  # what a user may have set
    "generator": {
        "default_prng_impl": "rbg",
        "enable_custom_prng": True,
        "numpy_dtype_promotion": "strict",
        "numpy_rank_promotion": "raise",
        "default_matmul_precision": "bfloat16",
        "debug_nans": True,
        "debug_infs": True,
    },
    "partitionable": {"threefry_partitionable": False},
}


@contextlib.contextmanager
def other(settings):
    with contextlib.ExitStack() as stack:
        for name, value in settings.items():
            stack.enter_context(getattr(jax, name)(value))
        yield


def data(study):
    one = next(study.cells())
    x, y, truth = study.data(one)
    return one, [*(x if isinstance(x, tuple) else (x,)), y, *truth.values()]


@pytest.mark.slow
@pytest.mark.parametrize("settings", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("name", STUDIES)
def test_a_cell_has_the_same_data_and_key_under_other_settings(name, settings, monkeypatch):
    monkeypatch.setattr(study_module, "NUMERICS", 8)  # that of the keys below
    study = STUDIES[name]
    one, expected = data(study)
    key, first = KNOWN[name]
    assert jax.random.key_data(study.fit_key(one)).tolist() == key
    np.testing.assert_allclose(np.ravel(expected[0])[:2], first, rtol=1e-12)
    study.regime(one.regime).fingerprint.cache_clear()
    with other(settings):
        for here, there in zip(data(study)[1], expected, strict=True):
            np.testing.assert_array_equal(here, there)
        assert jax.random.key_data(study.fit_key(one)).tolist() == key


def draws(problem, rng_key, settings):
    """Estimator whose draws are made by JAX in other threads, from a key of its own and the study's."""
    one = jax.tree.map(np.asarray, threads.each(lambda seed: jax.random.normal(jax.random.key(seed), (2,)), [0, 1], 2))
    key = jax.random.normal(rng_key, ())
    values = {name: value[None] + 0.0 for name, value in problem.truth.items()}
    return cell.contract.Estimate(values, "ok", {"own": np.concatenate(one), "given": np.asarray(key)})


@pytest.mark.parametrize("settings", OTHERS.values(), ids=OTHERS)
def test_a_fit_in_threads_of_its_own_is_the_same_under_other_settings(settings):
    study = Study("one", "one", (catalogue.HETEROGENEOUS,), {"a": (50,)}, {"a": 1}, {"a": {}}, estimators={"a": draws})
    one = Cell("heterogeneous", 50, 0, "a")
    expected = cell.run(study, one).payload
    with other(settings):
        assert cell.run(study, one).payload == expected
        assert not np.array_equal(expected["own"][:2], expected["own"][2:])


def test_settings_are_as_they_were_afterwards():
    with other(OTHERS["generator"]):
        before = flags.in_force()
        key_of([1])
        with flags.defaults():
            assert flags.in_force() != before
        assert flags.in_force() == before


def test_what_can_t_be_held_is_in_the_identity():
    study = STUDIES["quickstart"]
    one = next(study.cells())
    plain = study.identity(one)
    assert "flags" not in plain
    before = jax.config.jax_random_seed_offset
    jax.config.update("jax_random_seed_offset", 7)
    try:
        assert study.identity(one) == plain | {"flags": {"random_seed_offset": 7}}
    finally:
        jax.config.update("jax_random_seed_offset", before)


def test_a_study_as_data_knows_the_fits_that_were_made_under_other_settings():
    study = STUDIES["quickstart"]
    one = next(study.cells())
    before = jax.config.jax_random_seed_offset
    jax.config.update("jax_random_seed_offset", 7)
    try:
        stored = study.identity(one)
        about = description.describe(study)
        at = {"regime": one.regime, "n": one.n, **description.describe_at(study.regime(one.regime), one.n)}
    finally:
        jax.config.update("jax_random_seed_offset", before)
    read = described.read(json.loads(json.dumps(about)), [json.loads(json.dumps(at))])
    assert read.identity(one) == json.loads(json.dumps(stored))  # of a reader whose own settings are the usual ones
