"""What rows are made into: panels of regimes that differ, progress; and what becomes of odd estimates."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from fake_study import quick
from fake_study import study as FAKE

from comparisons import catalogue
from comparisons.report import figures, summary
from comparisons.running import cell
from comparisons.running import page as report
from comparisons.running.store import Store
from comparisons.study.plan import Cell

SIZES = (300, 3000)
BEYOND = catalogue.beyond()
ONE = Cell("only", 50, 0, "odd")


def unlike(names=("relu", "constant-same")):
    """Return a study of regimes of which one has no beta."""
    return replace(BEYOND, regimes=tuple(BEYOND.regime(name) for name in names))


def rows_of(study, error=None, count=3, **columns):
    """Return rows of made-up errors, or of one error."""
    rng = np.random.default_rng(0)
    made = []
    for regime in study.regimes:
        for n in SIZES:
            for replicate in range(count):
                values = {name: n**-0.5 * np.exp(rng.normal()) if error is None else error for name in regime.exponents}
                row = {"regime": regime.name, "estimator": "mle-near", "n": n, "replicate": replicate, "status": "ok"}
                for kind in ("error", "loss", "radius", "spread"):
                    row |= {f"{kind}_{name}": value for name, value in values.items()}
                made.append(row | {f"cover_{name}": 1.0 for name in regime.moe.fields} | columns)
                made[-1] |= {f"width_{name}": 1.0 for name in regime.moe.fields}
    return made


def drawn(rows, study, folder):
    """Return every figure, drawn, where a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        efficiency = summary.efficiency(rows, study)
        made = {name: figure for name, figure in report.draw(rows, study, efficiency).items() if figure is not None}
        for name, figure in made.items():
            figures.save(figure, folder / f"{name}.png")
        figures.rate_plot(rows, study, folder / "main.png")
        summary.table(rows, study)
        summary.slopes(rows, study)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("names", [("relu", "constant-same"), ("constant-same", "relu")])
def test_regimes_with_other_parameters_have_their_own_panels(names, tmp_path):
    study = unlike(names)
    rows = rows_of(study)
    made = drawn(rows + [row | {"estimator": "nuts"} for row in rows], study, tmp_path)
    assert {name: sum(axis.get_visible() for axis in figure.axes) for name, figure in made.items()} == {
        "rates": 4 + 3,
        "contraction": 4 + 3,
        "efficiency": 3 + 2,
        "coverage": 3 + 2,
    }
    for figure in made.values():
        shown = [axis for axis in figure.axes if axis.get_visible()]
        assert sum(axis.get_ylabel() != "" for axis in shown) == len(names)
        assert sum(axis.get_xlabel() != "" for axis in shown) == len({axis.get_title() for axis in shown})


@pytest.mark.parametrize("count", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_errors_of_zero_make_no_warning(count, tmp_path):
    study = unlike()
    assert set(drawn(rows_of(study, error=0.0, count=count), study, tmp_path)) == {"rates", "efficiency", "coverage"}


def test_posteriors_that_all_failed_have_no_figure():
    study = unlike()
    failed = [row | {"estimator": "nuts", "status": "error"} for row in rows_of(study)]
    assert figures.contraction_figure(rows_of(study) + failed, study) is None


def test_progress_counts_the_plan_and_others_apart():
    rows = [{**vars(one), "status": "ok", "seconds": 1.0} for one in list(FAKE.cells())[:5]]
    head, line, *_ = summary.progress(rows, FAKE).splitlines()
    assert head.split() == ["planned", "done", "failed", "s", "a", "fit"]
    assert line.split()[2:] == ["12", "5", "0", "1.00"]
    rows += [row | {"replicate": 90, "status": status} for row, status in zip(rows, ("ok", "error"), strict=False)]
    head, line, *_ = summary.progress(rows, FAKE).splitlines()
    assert "failed  beyond the plan" in head
    assert line.split()[2:] == ["12", "5", "0", "2", "1.00"]


# Odd estimates -----------------------------------------------------------------------------------------------------


def outcome(change):
    """What becomes of a cell whose estimator returns something else, changed in place."""

    def odd(problem, rng_key, settings):
        estimate = quick(problem, rng_key, {"seconds": 0.0})
        change(estimate)
        return estimate

    plan = {name: {"odd": value} for name, value in {"settings": {}, "estimators": odd, "sizes": (50,)}.items()}
    study = replace(FAKE, replicates={"odd": 1}, **plan)
    return study, cell.run(study, ONE).payload


def leaves(_):
    raise SystemExit(4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_estimate_that_is_not_finite_is_an_error(value):
    _, payload = outcome(lambda estimate: estimate.draws.update(beta=value * estimate.draws["beta"]))
    assert payload["status"] == "error"
    assert payload["error"].startswith("FloatingPointError: not finite: error_beta")
    assert "tau" not in payload["error"]


def test_numbers_of_numpy_are_kept(tmp_path):
    info = {"n_iter": np.int64(3), "moved": np.bool_(True), "path": np.arange(2.0), "nested": {"a": (np.float32(0.5),)}}
    study, payload = outcome(lambda estimate: estimate.info.update(info))
    with Store(tmp_path / "results.sqlite", study) as store:
        store.write(ONE, payload)
        (row,) = store.rows()
    expected = {"n_iter": 3, "moved": True, "path": [0.0, 1.0], "nested": {"a": [0.5]}}
    assert {name: row[name] for name in expected} == {name: payload[name] for name in expected} == expected


def test_info_that_is_no_number_or_text_is_an_error():
    _, payload = outcome(lambda estimate: estimate.info.update(fit=object()))
    assert payload == cell.failure(
        "error", "TypeError: an estimate's info must be plain numbers and texts, got object."
    )


def test_an_estimator_that_leaves_is_an_error_and_ctrl_c_is_not():
    assert outcome(leaves)[1] == cell.failure("error", "SystemExit: 4")

    def stopped(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        outcome(stopped)


def test_a_report_of_optimisation_error_keeps_each_parameter_in_its_column():
    study = unlike(("constant-same", "relu"))  # the first has no beta
    rows = rows_of(study, error=1.0, log_likelihood=0.0, likelihood_ratio=0.0)
    rows += [row | {"estimator": "mle", "error_beta": 3.0} for row in rows]
    heads, lines = report._optimisation(rows, study.regimes)
    changes = {line[0]: dict(zip(heads, line, strict=True)) for line in lines}
    found = {name: next(v for head, v in part.items() if head.endswith(", beta")) for name, part in changes.items()}
    assert found == {"constant-same": "", "relu": "2"}
