"""Studies: plan, keys, store, engine, table, figure, command."""

import sqlite3
from dataclasses import replace

import jax
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits
from typer.testing import CliRunner

from bayes_moe.draws import diagnostics
from comparisons import catalogue, cli
from comparisons.contaminated import digits
from comparisons.peers.clock import CompileClock
from comparisons.report import figures, summary
from comparisons.running import cell, engine
from comparisons.running.store import Store
from comparisons.study import contract, estimators
from comparisons.study.plan import Cell, Study, key_of
from mle import newton

SMALL = Study(
    name="small",
    title="small",
    regimes=(catalogue.HETEROGENEOUS,),
    sizes={"mle": (200, 400)},
    replicates={"mle": 3},
    settings={"mle": {"n_init": 2, "bound": 5.0}},
)


def run(study, path, workers=2):
    with Store(path, study) as store:
        engine.run(study, store, lambda cell, row: None, workers)
        return store.rows()


def without_time(rows):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return run(SMALL, tmp_path_factory.mktemp("study") / "results.sqlite")


def test_rows_are_the_plan_and_no_cell_failed(rows):
    assert [(r["regime"], r["n"], r["replicate"]) for r in rows] == [
        (c.regime, c.n, c.replicate) for c in SMALL.cells()
    ]
    assert {r["status"] for r in rows} == {"ok"}


def test_workers_and_order_change_nothing(rows, tmp_path):
    assert without_time(run(SMALL, tmp_path / "serial.sqlite", workers=1)) == without_time(rows)


def test_blas_has_one_thread_in_every_cell_also_when_others_end(tmp_path, monkeypatch):
    seen, original = [], cell.measure

    def look(*args):
        seen.extend(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")
        return original(*args)

    monkeypatch.setattr(cell, "measure", look)
    with threadpool_limits(2, user_api="blas"):
        run(SMALL, tmp_path / "watched.sqlite")
        cell.run(SMALL, next(SMALL.cells()))
    assert len(seen) >= 7
    assert set(seen) == {1}


def test_a_study_compiles_once_for_each_size(rows, tmp_path):
    with CompileClock() as clock:
        run(replace(SMALL, seed=8), tmp_path / "other.sqlite")  # other data, other starts
    assert clock.programs == 0
    with CompileClock() as clock:
        run(replace(SMALL, sizes={"mle": (300,)}), tmp_path / "size.sqlite")
    assert clock.programs > 0


def test_a_study_resumes_where_it_stopped(rows, tmp_path, monkeypatch):
    path, first = tmp_path / "results.sqlite", list(SMALL.cells())[:2]
    with Store(path, SMALL) as store:
        for one in first:
            store.write(one, cell.run(SMALL, one).payload)
    ran = []
    original = cell.run
    monkeypatch.setattr(cell, "run", lambda study, one, **kw: ran.append(one) or original(study, one, **kw))
    assert without_time(run(SMALL, path)) == without_time(rows)
    assert not set(ran) & set(first)


def test_the_first_writer_wins(tmp_path):
    first = next(iter(SMALL.cells()))
    with Store(tmp_path / "results.sqlite", SMALL) as store:
        store.write(first, {"status": "first"})
        store.write(first, {"status": "second"})
        assert [row["status"] for row in store.rows()] == ["first"]


def test_a_newer_schema_is_refused(tmp_path):
    path = tmp_path / "results.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ValueError, match="schema 99"):
        Store(path, SMALL)


def test_all_estimators_see_the_same_data():
    study = catalogue.quickstart(quick=True)
    mle, nuts = (study.data(Cell("homogeneous", 300, 0, name)) for name in ("mle", "nuts"))
    np.testing.assert_array_equal(mle[0], nuts[0])
    np.testing.assert_array_equal(mle[1], nuts[1])


def test_other_replicates_see_other_data():
    study = catalogue.quickstart(quick=True)
    x = [study.data(Cell("homogeneous", 300, replicate, "mle"))[0] for replicate in (0, 1)]
    assert not np.array_equal(*x)


def test_keys_come_from_the_identity():
    def words(identity):
        return jax.random.key_data(key_of(identity)).tolist()

    assert words([1, "a"]) == words([1, "a"])
    assert words([1, "a"]) != words([1, "b"])


def test_a_fault_in_a_cell_is_a_row(monkeypatch):
    def broken(*_):
        raise RuntimeError("planted")

    monkeypatch.setitem(estimators.ESTIMATORS, "mle", broken)
    row = cell.run(SMALL, next(iter(SMALL.cells()))).payload
    assert row["status"] == "error"
    assert row["error"] == "RuntimeError: planted"


@pytest.mark.parametrize(("seed", "strays"), [(0, False), (5, True)])
def test_a_climb_from_near_the_truth_that_strays_is_not_taken_for_the_mle(seed, strays):
    regime, settings = catalogue.figure("fig1b").regimes[0], {"n_init": 1, "bound": 10.0, "spread": 1.5}
    truth = regime.truth(3000)
    x = np.random.default_rng(seed).normal(size=(3000, 2))
    problem = contract.Problem(regime.moe, x, regime.moe.simulate(seed, truth, x), truth)
    found = estimators.mle(problem, jax.random.key(seed), settings, near=True)
    start = estimators._moved(regime.moe, truth, 1.5, estimators.generator(jax.random.key(seed)))
    alone = newton.fit(*problem[:3], init=[start], bounds=dict.fromkeys(regime.moe.fields, (-10.0, 10.0)), tol=1e-7)
    at_the_truth = regime.moe.log_density(truth, problem.x, problem.y).sum()
    assert found.info["likelihood_ratio"] > 0
    assert (alone.log_likelihood < at_the_truth) == strays
    assert (alone.log_likelihood < found.info["log_likelihood"]) == strays


@pytest.mark.parametrize(("target", "expected"), [(None, [0.95, 0.99]), (0.9, [0.95, 0.99]), (0.98, [0.99, 0.998])])
def test_the_ladder_takes_more_draws_and_smaller_steps_until_the_gate_is_passed(target, expected):
    settings = {"num_warmup": 100, "num_samples": 200, "attempts": 3} | (
        {"target_accept_prob": target} if target else {}
    )
    poor = diagnostics.Verdict(("divergences",), 3, 1.0, 900.0, 900.0, 0.9)
    tried = []

    def sample(rng_key, **rung):
        tried.append(rung)
        return len(tried)

    last, verdicts = contract.ladder(sample, lambda idata: poor, jax.random.key(0), settings)
    assert (last, len(verdicts)) == (3, 3)
    assert [rung["num_samples"] for rung in tried] == [200, 400, 800]
    assert [rung["num_warmup"] for rung in tried] == [100, 200, 400]
    assert [rung["target_accept_prob"] for rung in tried[1:]] == expected
    good = diagnostics.Verdict((), 0, 1.0, 900.0, 900.0, 0.9)
    last, verdicts = contract.ladder(sample, lambda idata: good if idata == 5 else poor, jax.random.key(0), settings)
    assert (last, verdicts) == (5, [poor, good])


def test_smaller_steps_are_for_poor_geometry_only():
    few = diagnostics.Verdict(("ESS 80",), 0, 1.02, 80.0, 80.0, 0.9)
    settings = {"num_warmup": 100, "num_samples": 200, "target_accept_prob": 0.9}
    assert contract.climb(settings, 1, few) == settings | {"num_samples": 400}


def test_one_draw_has_equal_error_and_loss(rows):
    for row in rows:
        assert row["error_eta"] == pytest.approx(row["loss_eta"])
        assert row["spread_eta"] == 0.0


def test_measure_against_hand_computed_errors():
    regime = catalogue.HETEROGENEOUS
    truth = regime.truth(1000)
    draws = {name: np.stack([value + 0.1, value - 0.3]) for name, value in truth.items()}
    measured = cell.measure(regime, draws, truth)
    assert measured["error_beta"] == pytest.approx(0.1 * np.sqrt(2))
    assert measured["loss_beta"] == pytest.approx(0.2 * np.sqrt(2))
    assert measured["spread_beta"] == pytest.approx(0.2 * np.sqrt(2))
    assert measured["error_tau"] == pytest.approx(1 - np.exp(-0.1))


def test_table_and_figure(rows, tmp_path):
    text = summary.table(rows, SMALL)
    assert "Cramér–Rao bound" in text
    assert "mle: 6 fits, none failed" in text
    assert figures.rate_plot(rows, SMALL, tmp_path / "rates.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["study", "run", "quikstart"], "Did you mean 'quickstart'?"), (["study", "run", "x"], "there is no study 'x'")],
)
def test_bad_arguments_end_in_one_line_and_status_two(arguments, says, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bayes-moe", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_list_names_every_study():
    assert "quickstart" in CliRunner().invoke(cli.app, ["study", "list"]).output


# Digits ------------------------------------------------------------------------------------------------------


def test_digits_split_keeps_test_and_training_apart_and_source_upright():
    data = digits.split(0)
    assert data.x.shape == (digits.LABELS, digits.COMPONENTS)
    assert data.x_test.shape == (digits.TEST, digits.COMPONENTS)
    assert not {tuple(row) for row in data.x} & {tuple(row) for row in data.x_test}


def test_scores_of_perfect_and_uniform_predictions():
    y = np.array([0, 1, 1])
    perfect, uniform = digits.scores(np.eye(2)[y], y), digits.scores(np.full((3, 2), 0.5), y)
    assert perfect == {"log score": 0.0, "accuracy": 1.0, "Brier": 0.0, "calibration error": 0.0}
    assert uniform["log score"] == pytest.approx(np.log(0.5))
    assert uniform["Brier"] == pytest.approx(0.5)
    assert uniform["calibration error"] == pytest.approx(abs(0.5 - 1 / 3))
