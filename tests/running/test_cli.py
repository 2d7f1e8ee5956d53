"""The command: bad input ends in one line and status 2; status, report, export and compare read what run wrote."""

import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from fake_study import study as STUDY

from comparisons import cli
from comparisons.running import compare, recipe
from comparisons.running.cell import failure
from comparisons.running.store import FILE, Store
from comparisons.study.plan import Cell

FAKE = str(Path(__file__).parents[1] / "fake_study.py")
COMMAND = str(Path(sys.executable).with_name("bayes-moe"))
ONE = ["--estimators", "quick", "--sizes", "50", "--replicates", "1"]
EPILOGUE = """
from dataclasses import replace
def interrupted(folder):
    raise KeyboardInterrupt
study = replace(study, epilogue=interrupted)
"""


def call(monkeypatch, *arguments):
    """Exit status of the command."""
    monkeypatch.setattr("sys.argv", ["bayes-moe", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder, patch = tmp_path_factory.mktemp("results"), pytest.MonkeyPatch()
    with patch.context() as monkeypatch:
        assert call(monkeypatch, "study", "run", FAKE, "--results", folder) == 0
    with Store(folder / "fake" / FILE, STUDY) as store:
        store.write(replace(next(STUDY.cells()), replicate=50), failure("error", "RuntimeError: <planted>"))
    return folder


BAD = [
    (["run", "quikstart"], "Did you mean 'quickstart'?"),
    (["run", "contaminated-fig1a", "--estimators", "mlee"], "Did you mean 'mle'?"),
    (["run", "contaminated-fig1a", "--regimes", "flatt"], "Did you mean 'flat'?"),
    (["run", "quickstart", "--sizes", "10,many"], "sizes must be numbers"),
    (["run", "quickstart", "--sizes", "1.5"], "whole numbers"),
    (["run", "quickstart", "--sizes", "nan"], "whole numbers"),
    (["run", "quickstart", "--replicates", "0"], "--replicates"),
    (["run", "quickstart", "--workers", "two"], "--workers"),
    (["run", "quickstart", "--scheduler", "here"], "scheduler must be local"),
    (["run", "quickstart", "--timeout", "5"], "needs worker processes"),
    (["run", "absent.py"], "can't be read"),
    (["run", "quickstart", "--estimators", ""], "estimators must name at least one"),
    (["run", "quickstart", "--regimes", ","], "regimes must name at least one"),
    (["run", "quickstart", "--sizes", ""], "sizes must name at least one"),
    (["run"], "Missing argument"),
    (["walk"], "No such command"),
    (["report", "absent"], "there is no study with results 'absent'"),
    (["status", "quickstart"], "has no results"),
    (["status"], "there are no results"),
    (["status", "--results", "my runs"], "`bayes-moe study run NAME --results 'my runs'` makes them"),
]


@pytest.mark.parametrize(("arguments", "says"), BAD)
def test_bad_input_is_one_line_and_status_two(arguments, says, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "study", *arguments) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import nothing_of_that_name", "fails to import: ModuleNotFoundError"),
        ("def broken(:", "fails to import: SyntaxError"),
        ("raise SystemExit(3)", "fails to import: SystemExit"),
        ("x = 1", "exactly one Study, got 0"),
    ],
)
def test_a_study_file_that_fails_is_named(text, says, monkeypatch, capsys, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(text)
    assert call(monkeypatch, "study", "run", path, "--results", tmp_path / "results") == 2
    error = capsys.readouterr().err
    assert says in error
    assert str(path) in error
    assert error.count("\n") == 1


def test_results_of_another_study_or_schema_are_refused(results, monkeypatch, capsys, tmp_path):
    copied = tmp_path / "quickstart" / FILE
    copied.parent.mkdir()
    copied.write_bytes((results / "fake" / FILE).read_bytes())
    assert call(monkeypatch, "study", "run", "quickstart", "--results", tmp_path) == 2
    assert "holds the study 'fake', not 'quickstart'" in capsys.readouterr().err
    connection = sqlite3.connect(copied)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    for command in (["run", "quickstart"], ["status"], ["report", "quickstart"], ["export"]):
        assert call(monkeypatch, "study", *command, "--results", tmp_path) == 2
        assert "schema 99" in capsys.readouterr().err


def test_results_that_do_not_describe_their_study_are_named(monkeypatch, capsys, tmp_path):
    Store(tmp_path / "fake" / FILE, replace(STUDY, recipe=recipe.Recipe("gone"))).__exit__()
    assert call(monkeypatch, "study", "status", "--results", tmp_path) == 2
    assert "does not say how its study is made. `bayes-moe study run` there mends it" in capsys.readouterr().err


def test_fits_that_are_left_out_are_counted_in_one_line(results, monkeypatch, capsys, tmp_path):
    for command in (["run", FAKE, *ONE], ["status"], ["report"], ["export"], ["compare", "fake", "fake"]):
        if command[0] == "run":
            Store(tmp_path / "fake" / FILE, STUDY).__exit__()
            with Store(tmp_path / "fake" / FILE, replace(STUDY, seed=1)) as store:
                store.write(next(STUDY.cells()), failure("error", "planted"))
        assert call(monkeypatch, "study", *command, "--results", tmp_path) == 0
        assert "1 fits in" in (error := capsys.readouterr().err)
        assert "are left out" in error


def test_status_counts_what_is_planned_done_and_failed(results, monkeypatch, capsys):
    assert call(monkeypatch, "study", "status", "--results", results) == 0
    words = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("only, quick")).split()
    assert words[2:6] == ["12", "12", "0", "1"]  # the planted failure is beyond the plan


def test_report_holds_all_in_one_file(results, monkeypatch, capsys):
    assert call(monkeypatch, "study", "report", "fake", "--results", results) == 0
    made = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert {path.name for path in made} == {"report.html", "slopes.csv", "efficiency.csv"} | {
        f"{name}.{kind}" for name in ("rates", "efficiency") for kind in ("png", "svg")
    }
    page = made[0].read_text()
    assert "data:image/svg+xml;base64," in page
    assert "http://" not in page
    assert "https://" not in page
    assert "RuntimeError: &lt;planted&gt;" in page
    assert "<td>jaxlib</td>" in page  # though the last row has no provenance
    assert (results / "fake" / "slopes.csv").read_text().startswith('"study","commit","regime","parameter"')


@pytest.mark.slow
def test_a_report_of_archived_results_is_written_elsewhere(results, monkeypatch, capsys, tmp_path):
    before = {path.name: path.stat().st_mtime_ns for path in (results / "fake").iterdir()}
    assert call(monkeypatch, "study", "report", results / "fake", "--to", tmp_path / "new") == 0
    assert {Path(line).parent for line in capsys.readouterr().out.splitlines()} == {tmp_path / "new"}
    assert {path.name: path.stat().st_mtime_ns for path in (results / "fake").iterdir()} == before


def test_export_and_compare(results, monkeypatch, capsys, tmp_path):
    assert call(monkeypatch, "study", "export", results / "fake", "--to", tmp_path / "fits.csv") == 0
    assert (tmp_path / "fits.csv").read_text().count("\n") == 14
    assert call(monkeypatch, "study", "compare", results / "fake", results / "fake") == 0
    assert "13 fits in both, 13 of them identical" in capsys.readouterr().out


def test_a_second_run_has_nothing_to_do_and_fails_if_all_of_its_fits_do(results, monkeypatch, capsys):
    assert call(monkeypatch, "study", "run", FAKE, "--results", results) == 0
    assert "12 fits, 12 of them finished before" in capsys.readouterr().out
    assert call(monkeypatch, "study", "run", FAKE, "--results", results, "--estimators", "fails", "--sizes", "50") == 1
    out = capsys.readouterr().out
    assert out.count("error: fails, only, n = 50") == 4
    assert "RuntimeError: planted" in out


def test_retrying_leaves_failures_outside_the_plan(monkeypatch, tmp_path):
    outside, inside = (Cell("only", 50, 0, name) for name in ("fails", "quick"))
    with Store(tmp_path / "fake" / FILE, STUDY) as store:
        for cell in (outside, inside):
            store.write(cell, failure("crashed", "planted"))
    assert call(monkeypatch, "study", "run", FAKE, "--results", tmp_path, *ONE, "--retry") == 0
    with Store(tmp_path / "fake" / FILE, STUDY) as store:
        assert {row["estimator"]: row["status"] for row in store.rows()} == {"quick": "ok", "fails": "crashed"}


def test_a_run_of_which_nothing_comes_fails(monkeypatch, tmp_path):
    plan = ["--estimators", "fails", "--sizes", "50", "--replicates", "1"]
    assert call(monkeypatch, "study", "run", FAKE, "--results", tmp_path, *plan) == 1


def test_a_study_file_that_was_edited_needs_a_word(monkeypatch, capsys, tmp_path):
    path, arguments = tmp_path / "mine.py", [*ONE, "--results", tmp_path]
    path.write_text(Path(FAKE).read_text())
    assert call(monkeypatch, "study", "run", path, *arguments) == 0
    path.write_text(path.read_text().replace("** -0.5", "** -0.25"))
    assert call(monkeypatch, "study", "run", path, *arguments) == 2
    error = capsys.readouterr().err
    assert "another text of it" in error
    assert error.count("\n") == 1
    assert call(monkeypatch, "study", "run", path, *arguments, "--edited") == 0


@pytest.mark.slow
def test_the_report_says_which_commands_ran_and_keeping_draws_which_fits_have_none(monkeypatch, capsys, tmp_path):
    plan = ["--estimators", "quick", "--sizes", "50,60", "--replicates", "2"]
    assert call(monkeypatch, "study", "run", FAKE, *plan, "--results", tmp_path) == 0
    assert (
        call(monkeypatch, "study", "run", FAKE, *plan[:4], *plan[4:5], "3", "--keep-draws", "--results", tmp_path) == 0
    )
    assert "4 finished fits have no draws" in capsys.readouterr().err
    call(monkeypatch, "study", "report", "--results", tmp_path)
    page = (tmp_path / "fake" / "report.html").read_text(encoding="utf-8")
    for replicates in (2, 3):
        line = f"bayes-moe study run {FAKE} --estimators quick --sizes 50,60 --replicates {replicates}\n"
        assert page.count(line) == 1


@pytest.mark.slow
def test_work_after_the_fits_is_for_the_whole_plan_and_does_not_resume(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cli, "_leave", sys.exit)
    path, arguments = tmp_path / "mine.py", ["--results", tmp_path]
    path.write_text(Path(FAKE).read_text() + EPILOGUE)
    assert call(monkeypatch, "study", "run", path, *ONE, *arguments) == 0
    assert "it is for the whole plan" in capsys.readouterr().out
    assert call(monkeypatch, "study", "run", path, *arguments) == 130
    assert "the work after them begins anew" in (error := capsys.readouterr().err)
    assert "resumes" not in error


def test_comparing_says_in_what_the_studies_differ(tmp_path):
    other = replace(STUDY, name="other", seed=1)
    with Store(tmp_path / "a", STUDY) as a, Store(tmp_path / "b", other) as b:
        for store in (a, b):
            store.write(next(STUDY.cells()), failure("error", "planted"))
        assert "they differ" not in compare.table((STUDY, a), (STUDY, a))
        assert "they differ in seed, study" in compare.table((STUDY, a), (other, b))


def test_a_file_that_can_t_be_written_is_one_line(results, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cli, "_leave", sys.exit)
    (tmp_path / "file").touch()
    assert call(monkeypatch, "study", "export", results / "fake", "--to", tmp_path / "file" / "fits.csv") == 1
    error = capsys.readouterr().err
    assert "a file or a connection failed: " in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_a_terminal_without_accents_stops_nothing(results):
    plain = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    for command in (["run", FAKE, "--results", results], ["report", results / "fake"]):
        done = subprocess.run([COMMAND, "study", *command], env=plain, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    assert "Cramér" in (results / "fake" / "report.html").read_text(encoding="utf-8")


def test_version_and_list(monkeypatch, capsys):
    assert call(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"bayes-moe {version('bayes-moe')}\n"
    assert call(monkeypatch, "study", "list") == 0
    assert "flat, sloped; mle, mle-near, nuts" in capsys.readouterr().out


def test_a_comma_at_the_end_is_no_size():
    assert cli._sizes("1e2, 50,") == (50, 100)


def test_narrowing_changes_the_plan_and_no_identity():
    narrowed = recipe.narrow(STUDY, estimators=["slower"], sizes=(50,), replicates=2)
    cells = list(narrowed.cells())
    assert [(c.estimator, c.n, c.replicate) for c in cells] == [("slower", 50, 0), ("slower", 50, 1)]
    assert [narrowed.identity(c) for c in cells] == [STUDY.identity(c) for c in cells]


@pytest.mark.parametrize(("estimators", "expected"), [("fails", 1), ("quick,fails", 1), ("quick", 0)])
def test_an_estimator_whose_every_fit_failed_is_said_and_ends_in_status_one(
    estimators, expected, monkeypatch, capsys, tmp_path
):
    plan = ["--estimators", estimators, "--sizes", "50", "--replicates", "2"]
    assert call(monkeypatch, "study", "run", FAKE, *plan, "--results", tmp_path) == expected
    said = "Every fit of fails in the regime only failed (2). The first: RuntimeError: planted"
    assert (said in capsys.readouterr().err) == bool(expected)
