"""Studies of varying coefficients: truths, data, a cell of each estimator, what the tables say of made-up rows."""

from dataclasses import replace

import jax
import numpy as np
import oracle_varying as oracle
import pytest

from bayes_moe.nuts.modes import generator
from comparisons.curves import estimators as curve_estimators
from comparisons.curves import regimes as curve_regimes
from comparisons.curves import studies as curve_studies
from comparisons.curves import summary as curve_summary
from comparisons.curves.regimes import GRID
from comparisons.running import cell, engine
from comparisons.running import page as report
from comparisons.running.store import Store
from comparisons.study.plan import Cell
from mle.kernel import glrt, kernel_em

SMALL = {"engine": "consistent", "h": 0.3, "n_init": 2, "undersmooth": 0.9, "bootstrap": 20, "glrt": 20}
SMALL |= {"sandwiches": ("joint", "local")}
SHORT = {"basis": "hilbert", "num_warmup": 100, "num_samples": 100, "num_chains": 2, "attempts": 1}


def study(**settings):
    """Return Simulation 1 with 150 rows."""
    whole = curve_studies.study("normal", quick=True)
    given = {name: {**whole.settings[name], **changes} for name, changes in settings.items()}
    return replace(whole, settings=given, sizes=dict.fromkeys(given, (150,)), replicates=dict.fromkeys(given, 1))


# Truths and data -------------------------------------------------------------------------------------------------


def test_the_truth_is_the_published_standin():
    for name, values in oracle.standin(GRID).items():
        np.testing.assert_allclose(curve_regimes.standin(GRID)[name], values, rtol=1e-13)
    assert "delta" not in curve_regimes.standin(GRID, "binomial")


def test_under_the_null_slopes_are_constant_at_their_means_and_nothing_else_changes():
    u = np.linspace(0, 1, 2001)
    null, full = curve_regimes.standin(u, share=0.0), curve_regimes.standin(u)
    np.testing.assert_allclose(null["alpha"][..., 1], np.tile(full["alpha"][..., 1].mean(axis=0), (2001, 1)), atol=1e-4)
    np.testing.assert_array_equal(null["alpha"][..., 0], full["alpha"][..., 0])
    np.testing.assert_array_equal(null["beta"], full["beta"])


@pytest.mark.slow
def test_regimes_are_told_apart_and_data_are_shared_by_estimators():
    regimes = [curve_regimes.regime(family, share) for family in ("normal", "binomial") for share in (0.0, 0.5, 1.0)]
    assert len({str(one.fingerprint(500)) for one in regimes}) == 6
    plan = curve_studies.study("binomial")
    ((x, z, u, size), y, truth), other = (
        plan.data(Cell("curves", 500, 3, name)) for name in ("consistent-0.18", "posterior-hilbert")
    )
    np.testing.assert_array_equal(y, other[1])
    assert (x.shape, z.shape, u.shape, set(size)) == ((500, 1), (500, 1), (500,), {20.0})
    assert (y <= 20).all()
    assert truth["alpha"].shape == (20, 2, 2)


# Cells -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_kernel_cell_holds_errors_coverage_and_tests():
    plan = study(**{"consistent-0.21": SMALL})
    one = Cell("curves", 150, 0, "consistent-0.21")
    row = cell.run(plan, one).payload
    assert row["error"] == ""
    (x, z, u, _), y, truth = plan.data(one)
    options = {"h": 0.3, "u_range": (0, 1), "grid": GRID, "n_init": 2, "random_state": generator(plan.fit_key(one))}
    fit = kernel_em.fit(plan.regime("curves").moe, x, z, u, y, **options)
    assert row["log_likelihood"] == pytest.approx(fit.log_likelihood)
    by_hand = np.sqrt(np.mean((fit.params["alpha"] - truth["alpha"]) ** 2))
    assert row["error_experts"] == pytest.approx(by_hand)
    by_hand = glrt.test(fit, constant=["alpha[:,1]"], method="chi-square").p_value
    assert row["p_chi-square"] == pytest.approx(by_hand)
    assert 1 / 21 <= row["p_bootstrap"] <= 1
    assert row["missing rice, local 0.95"] == 1  # the information is singular here: such a band would hold everything
    assert not [key for key in row if key.startswith("holds rice, local")]
    assert row["missing rice, joint 0.95"] == 0
    kind = "bootstrap, less smooth"
    lacking = ["rice, local", "fan-zhang, local", "package, local", "rice, local, less smooth"]
    lacking.append("rice, local, less smooth, of the smoothed truth")
    assert [one for one in curve_summary.kinds([row]) if curve_summary.missing([row], one)] == lacking
    widths = [curve_summary.held([row], kind, level, "experts", "width")[0] for level in (0.9, 0.95)]
    assert widths[0] < widths[1]


@pytest.mark.slow
def test_the_smoothed_truth_is_the_local_linear_fit_to_the_true_curve():
    regime = curve_regimes.regime("normal")
    (x, z, u, _), y = regime.draw(jax.random.key(2), 150)
    fit = kernel_em.fit(regime.moe, x, z, u, y, h=0.3, u_range=(0, 1), grid=GRID, n_init=1, random_state=1)
    line = {"alpha": 2 - 3 * GRID[:, None, None] * np.ones((2, 2))}
    np.testing.assert_allclose(curve_estimators.smoothed(line, fit)["alpha"], line["alpha"], atol=1e-12)
    found = curve_estimators.smoothed({"alpha": np.sin(3 * GRID)[:, None, None] * np.ones((2, 2))}, fit)["alpha"]
    for g in (0, 7, 19):
        near = u[np.abs(u - GRID[g]) < 0.3]
        weights = 1 - ((near - GRID[g]) / 0.3) ** 2
        by_hand = np.polyfit(near - GRID[g], np.sin(3 * near), 1, w=np.sqrt(weights))[1]
        np.testing.assert_allclose(found[g], by_hand, atol=1e-5)  # between grid points a spline


@pytest.mark.slow
def test_a_posterior_cell_holds_errors_and_coverage():
    plan = study(**{"posterior-hilbert": SHORT})
    row = cell.run(plan, Cell("curves", 150, 0, "posterior-hilbert")).payload
    assert row["error"] == ""
    assert row["status"] in ("ok", "failed_gate")
    assert 0 < row["error_experts"] < row["radius_experts"] < 1
    assert curve_summary.kinds([row]) == ["credible"]


@pytest.mark.slow
def test_draws_of_curves_are_kept_on_request_and_findings_reported(tmp_path):
    plan = study(**{"consistent-0.21": SMALL | {"bootstrap": 0, "glrt": 0}})
    with Store(tmp_path / "results.sqlite", plan) as store:
        engine.run(plan, store, workers=1, keep_draws=True)
        assert len(list((tmp_path / "draws").glob("*.nc"))) == 2
        assert {row["status"] for row in store.rows()} == {"ok"}
        assert "p_bootstrap" not in store.rows()[0]
        page, *others = report.write(plan, store)
    assert "whole curves held" in page.read_text()
    assert {path.name for path in others} == {"findings.png", "findings.svg"}  # no rates of one size


# What is said of them --------------------------------------------------------------------------------------------


def made_up(regime, holds, p):
    return {
        "regime": regime,
        "estimator": "kernel",
        "n": 500,
        "status": "ok",
        "error_gate": 0.2,
        "error_experts": 0.1,
        "p_chi-square": p,
        **{f"missing {kind} {level}": 0.0 for kind in ("rice", "rice, less smooth") for level in (0.9, 0.95)},
        **{f"holds rice 0.95 alpha[{c},{j}]": holds for c in range(2) for j in range(2)},
        **{f"holds rice, less smooth 0.95 alpha[{c},{j}]": 1.0 for c in range(2) for j in range(2)},
    }


def test_tables_are_means_over_data_sets():
    rows = [made_up("curves", h, p) for h, p in ((1.0, 0.01), (0.0, 0.2), (1.0, 0.03), (1.0, 0.5))]
    rows.append({"regime": "curves", "estimator": "kernel", "n": 500, "status": "error"})
    text = curve_summary.table(rows)
    assert "curves, kernel, rice " in text
    assert "0.750 (0.250)" in text
    assert "curves (power), kernel" in text
    assert "0.500 (0.289)" in text
    assert "0.200 (0.000)" in text


def test_one_collapsed_fit_does_not_move_the_median():
    errors = [0.2 + 0.001 * k for k in range(40)] + [5e14]
    rows = [made_up("curves", 1.0, 0.5) | {"error_gate": error} for error in errors]
    median, low, high = curve_summary.median_and_interval(errors)
    assert (low, median, high) == (pytest.approx(0.214, abs=0.002), 0.22, pytest.approx(0.226, abs=0.002))
    assert f"{median:.3f} ({low:.3f}, {high:.3f})" in curve_summary.table(rows)
    (shown,) = (line for line in curve_summary.figure(rows).axes[0].lines if line.get_marker() == "o")
    assert shown.get_xdata()[0] == median


def test_the_figure_shows_errors_and_coverage():
    rows = [made_up("curves", h, p) for h, p in ((1.0, 0.01), (0.0, 0.2), (1.0, 0.03), (1.0, 0.5))]
    rows.append({"regime": "curves", "estimator": "kernel", "n": 500, "status": "error"})
    figure = curve_summary.figure([*rows, made_up("null", 1.0, 0.5)])
    assert [axis.get_title() for axis in figure.axes] == ["gate", "experts"] * 2
    assert [float(line.get_xdata()[0]) for line in figure.axes[1].lines if line.get_marker() == "o"] == [0.1, 0.1]
    shown = [line.get_xdata()[0] for line in figure.axes[3].lines if line.get_marker() == "o"]
    assert shown == [0.75, 1.0]  # rice, and below the bandwidth
    ticks = [tick.get_text() for tick in figure.axes[2].get_yticklabels()]
    assert ticks == ["kernel, rice", "kernel, rice, less smooth"]


def test_bands_that_are_never_there_are_listed():
    row = made_up("curves", 1.0, 0.5)
    lost = {name: value for name, value in row.items() if not name.startswith("holds rice 0.95")}
    rows = [lost | {"missing rice 0.9": 1.0, "missing rice 0.95": 1.0}]
    assert curve_summary.kinds(rows) == ["rice", "rice, less smooth"]
    assert "100.0%" in curve_summary.table(rows)
    ticks = [tick.get_text() for tick in curve_summary.figure(rows).axes[2].get_yticklabels()]
    assert ticks == ["kernel, rice (none in 100%)", "kernel, rice, less smooth"]


def test_sizes_are_kept_apart():
    rows = [made_up("curves", 1.0, 0.5), made_up("curves", 0.0, 0.5) | {"n": 200}]
    assert list(curve_summary.groups(rows)) == [("curves", "kernel, n = 500"), ("curves", "kernel, n = 200")]
