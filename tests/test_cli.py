"""The command: bad input ends in one line and status 2; status, report, export and compare read what run wrote."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from fake_study import study as STUDY

from comparisons import cli, recipe
from comparisons.cell import failure
from comparisons.store import FILE, Store

FAKE = str(Path(__file__).with_name("fake_study.py"))


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
    (["run"], "Missing argument"),
    (["walk"], "No such command"),
    (["report", "absent"], "there is no study with results 'absent'"),
    (["status", "quickstart"], "has no results"),
    (["status"], "there are no results"),
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


def test_status_counts_what_is_planned_done_and_failed(results, monkeypatch, capsys):
    assert call(monkeypatch, "study", "status", "--results", results) == 0
    words = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("only, quick")).split()
    assert words[2:5] == ["12", "13", "1"]


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
    assert (results / "fake" / "slopes.csv").read_text().startswith('"study","commit","regime","parameter"')


def test_export_and_compare(results, monkeypatch, capsys, tmp_path):
    assert call(monkeypatch, "study", "export", results / "fake", "--to", tmp_path / "fits.csv") == 0
    assert (tmp_path / "fits.csv").read_text().count("\n") == 14
    assert call(monkeypatch, "study", "compare", results / "fake", results / "fake") == 0
    assert "13 fits in both, 13 of them identical" in capsys.readouterr().out


def test_a_second_run_has_nothing_to_do_and_retries_failures_on_request(results, monkeypatch, capsys):
    assert call(monkeypatch, "study", "run", FAKE, "--results", results) == 0
    assert "12 fits, 12 of them finished before" in capsys.readouterr().out
    assert call(monkeypatch, "study", "run", FAKE, "--results", results, "--estimators", "fails", "--sizes", "50") == 0
    out = capsys.readouterr().out
    assert out.count("error: fails, only, n = 50") == 4
    assert "RuntimeError: planted" in out


def test_a_run_of_which_nothing_comes_fails(monkeypatch, tmp_path):
    plan = ["--estimators", "fails", "--sizes", "50", "--replicates", "1"]
    assert call(monkeypatch, "study", "run", FAKE, "--results", tmp_path, *plan) == 1


def test_narrowing_changes_the_plan_and_no_identity():
    narrowed = recipe.narrow(STUDY, estimators=["slower"], sizes=(50,), replicates=2)
    cells = list(narrowed.cells())
    assert [(c.estimator, c.n, c.replicate) for c in cells] == [("slower", 50, 0), ("slower", 50, 1)]
    assert [narrowed.identity(c) for c in cells] == [STUDY.identity(c) for c in cells]
