"""What an estimator may return or raise: the row says so, the others run, and nothing is overwritten."""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from fake_study import quick
from fake_study import study as FAKE

from comparisons.running import cell, engine
from comparisons.running.store import FILE, Store
from comparisons.study import returned
from comparisons.study.contract import Estimate
from comparisons.study.plan import Cell

ONE = Cell("only", 50, 0, "odd")


def plan(estimator, settings=None, replicates=1):
    """Study whose only estimator is that one."""
    own = {"settings": {"odd": settings or {}}, "estimators": {"odd": estimator}, "sizes": {"odd": (50,)}}
    return replace(FAKE, replicates={"odd": replicates}, **own)


def returning(change):
    """Estimator that returns a good estimate, or what is made of it."""
    return lambda problem, key, settings: change(quick(problem, key, {"seconds": 0.0}))


def outcome(change):
    return cell.run(plan(returning(change)), ONE).payload


def info(**values):
    return lambda e: replace(e, info=values)


def part(name, value):
    return lambda e: replace(e, draws={**e.draws, name: value(e.draws[name])})


def intervals(**values):
    return lambda e: replace(e, intervals=values)


RESERVED = ("n", "regime", "estimator", "replicate", "status", "error", "id", "seconds", "commit", "device", "study")
RESERVED += ("error_tau", "loss_beta", "radius_eta", "spread_tau", "cover_tau", "width_tau", "profile_cover_tau")
BAD = {
    "nothing": (lambda e: None, "must return an Estimate.*got NoneType"),
    "a tuple": (lambda e: (e.draws, "ok"), "must return an Estimate.*got tuple"),
    "the class": (lambda e: Estimate, "must return an Estimate.*got type"),
    "no status": (lambda e: replace(e, status=None), "status must be .*got None"),
    "an empty status": (lambda e: replace(e, status=" "), "status must be .*got ' '"),
    "a number as status": (lambda e: replace(e, status=0), "status must be .*got 0"),
    "a status that is no text": (lambda e: replace(e, status="\ud800"), "status must be"),
    "the engine's status": (lambda e: replace(e, status="crashed"), "status must not be 'crashed'"),
    "no info": (lambda e: replace(e, info=None), "info must be a dict"),
    "info of numbers": (lambda e: replace(e, info={1: 2}), "info must be a dict"),
    "info that is not UTF-8": (info(a="\ud800"), "surrogates"),
    "a word for a number": (info(likelihood_ratio="high"), "'likelihood_ratio' must be a number"),
    "nothing for a number": (info(attempt=None), "'attempt' must be a number"),
    "no draws": (lambda e: replace(e, draws=None), "draws must be a dict"),
    "an unknown parameter": (lambda e: replace(e, draws=e.draws | {"rho": np.zeros(3)}), "draws must have .*got .*rho"),
    "a missing parameter": (lambda e: replace(e, draws={"tau": e.draws["tau"]}), "draws must have .*got tau"),
    "no leading axis": (part("beta", lambda v: v[0]), r"draws of beta must have .*got \(1, 2\)"),
    "a shape that broadcasts": (part("eta", lambda v: v[..., :1]), "draws of eta must have"),
    "a scalar": (part("tau", lambda v: 1.0), r"draws of tau must have .*got \(\)"),
    "zero draws": (part("tau", lambda v: v[:0]), "draws of tau must have"),
    "fewer of one": (part("tau", lambda v: v[:1]), "as many of each parameter"),
    "texts": (part("tau", lambda v: v.astype(str)), "draws of tau must be real numbers"),
    "complex numbers": (part("tau", lambda v: v + 0j), "draws of tau must be real numbers, got complex128"),
    "ragged lists": (part("tau", lambda v: [[1.0], [1.0, 2.0]]), "draws of tau must be an array"),
    "NaN": (part("tau", lambda v: v * np.nan), "not finite: .*error_tau"),
    "bounds that cross": (intervals(tau=np.array([[1.0, -1.0]])), "intervals of tau must have low <= high"),
    "bounds of NaN": (intervals(tau=np.full((1, 2), np.nan)), "intervals of tau must have low <= high and no NaN"),
    "bounds that broadcast": (intervals(beta=np.array([-9.0, 9.0])), r"intervals of beta must have shape \(1, 2, 2\)"),
    "bounds of nothing": (intervals(rho=np.zeros((1, 2))), "intervals are of 'rho'"),
    "bounds that are a list": (lambda e: replace(e, profile=[0, 1]), "profile must be a dict"),
    **{f"info {name!r}": (info(**{name: 1}), f"reserved names: {name}") for name in RESERVED},
}


@pytest.mark.parametrize(("change", "says"), BAD.values(), ids=BAD)
def test_an_estimate_that_breaks_the_contract_is_a_row_with_the_reason(change, says):
    payload = outcome(change)
    assert payload["status"] == "error"
    assert re.search(says, payload["error"])


def test_every_name_that_a_row_has_is_reserved(tmp_path):
    study = plan(returning(lambda e: replace(e, intervals={"tau": np.array([[-9.0, 9.0]])}, profile={})))
    with Store(tmp_path / FILE, study) as store:
        engine.run(study, store, workers=1)
        (row,) = store.records()
    free = [n for n in row if n not in returned.RESERVED and not n.startswith((*returned.MEASURED, returned.VERSIONS))]
    assert free == ["mean_x"]  # the estimator's own


def test_infinite_bounds_and_other_arrays_are_good():
    def change(e):
        draws = {name: jnp.asarray(value) for name, value in e.draws.items()}
        return replace(e, draws=draws, intervals={"tau": [[-np.inf, np.inf]]}, info={"n_iter": 3})

    payload = outcome(change)
    assert (payload["status"], payload["cover_tau"], payload["n_iter"]) == ("ok", 1.0, 3)


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class Own(BaseException):
    pass


RAISED = [SystemExit(4), KeyboardInterrupt("mine"), GeneratorExit(), asyncio.CancelledError(), Own("own"), Mute()]
RAISED += [RuntimeError("\ud800"), StopIteration(3), MemoryError()]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_whatever_an_estimator_raises_is_a_row_and_the_others_run(error, tmp_path):
    def raising(problem, key, settings):
        if settings["bad"]:
            raise error
        return quick(problem, key, {"seconds": 0.0})

    both = {"odd": raising, "quick": raising}
    study = replace(plan(raising), settings={"odd": {"bad": True}, "quick": {"bad": False}}, estimators=both)
    study = replace(study, sizes=dict.fromkeys(both, (50,)), replicates=dict.fromkeys(both, 2))
    with Store(tmp_path / FILE, study) as store:
        engine.run(study, store, workers=1)
        rows = store.rows()
    assert [r["status"] for r in rows if r["estimator"] == "quick"] == ["ok", "ok"]
    (said,) = {r["error"] for r in rows if r["estimator"] == "odd"}
    assert said.startswith(type(error).__name__)


def test_what_an_estimator_does_to_its_arguments_changes_nothing_else():
    def clumsy(problem, key, settings):
        estimate = quick(problem, key, {"seconds": 0.0})
        for value in problem.truth.values():
            value += 100.0
        settings.pop("a")
        return estimate

    study = plan(clumsy, {"a": 1}, replicates=2)
    atoms = study.regimes[0].truth(50)
    study = replace(study, regimes=(replace(study.regimes[0], truth=lambda n: atoms),))
    cells = list(study.cells())
    before = [study.identity(one) for one in cells]
    first, _ = (cell.run(study, one).payload for one in cells)
    assert first["error_beta"] < 1.0
    assert [study.identity(one) for one in cells] == before
    assert cell.run(study, cells[0]).payload == first


def test_a_worker_that_makes_another_cell_stops_the_run(tmp_path, monkeypatch):
    study = plan(returning(lambda e: e))
    original = cell.run
    monkeypatch.setattr(cell, "run", lambda source, one, **o: original(replace(study, seed=1), one, **o))
    with Store(tmp_path / FILE, study) as store, pytest.raises(engine.EngineError, match="made another cell"):
        engine.run(study, store, workers=1)


def test_ctrl_c_in_the_main_thread_is_the_user_s():
    def stopped(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cell.run(plan(stopped), ONE)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(cell.run, plan(stopped), ONE).result().payload["error"] == "KeyboardInterrupt: "
