"""Size and power of the test of constant slopes, and the rate of constants: their cells, table and figure."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from comparisons.curves import power as curve_power
from comparisons.curves import regimes as curve_regimes
from comparisons.curves import studies as curve_studies
from comparisons.running import cell
from comparisons.study.plan import Cell
from mle.kernel import kernel_em


def rows(p_by_regime):
    return [
        {"regime": regime, "status": "ok", "p_bootstrap": float(p), "p_chi-square": float(p) / 2}
        for regime, values in p_by_regime.items()
        for p in values
    ]


def test_regimes_are_ordered_by_how_much_slopes_vary():
    found = [curve_regimes.share_of(regime.name) for regime in curve_studies.power().regimes]
    assert found == list(curve_studies.SHARES)


def test_the_table_counts_rejections_and_tells_uniform_p_values_from_others():
    even = (np.arange(100) + 0.5) / 100
    text = curve_power.table(rows({"share-0.5": [0.01, 0.04, 0.08, 0.5], "null": even}))
    none, half, *verdicts = text.splitlines()[1:]
    low, high = stats.binomtest(5, 100).proportion_ci(method="wilson")
    assert none.split()[:2] == ["0%", "100"]
    assert f"0.050 ({low:.3f}, {high:.3f})" in none
    assert half.split()[:3] == ["50%", "4", "0.500"]
    assert half.split()[5] == "0.750"  # chi-square's, made half as large
    assert verdicts[0].endswith("p = 1")
    assert float(verdicts[1].rpartition("=")[2]) < 1e-6


def test_failed_fits_are_left_out():
    lost = {"regime": "null", "status": "error"}
    found = curve_power.p_values([*rows({"null": [0.3]}), lost], "bootstrap")
    np.testing.assert_array_equal(found[0.0], [0.3])


def test_data_sets_that_were_not_tested_are_left_out_and_counted():
    refused = {"regime": "null", "status": "ok", "glrt_refused": "fit must have converged"}
    all_rows = [*rows({"null": [0.3, 0.6]}), refused]
    np.testing.assert_array_equal(curve_power.p_values(all_rows, "bootstrap")[0.0], [0.3, 0.6])
    assert "1 data sets left out, whose fits are none to test, as: fit must have converged" in curve_power.table(
        all_rows
    )


def test_the_figure_shows_power_and_p_values():
    figure = curve_power.figure(rows({"null": [0.2, 0.6], "share-0.25": [0.01, 0.6], "curves": [0.01, 0.02]}))
    power, null = figure.axes
    line = next(line for line in power.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 3)
    np.testing.assert_array_equal(line.get_ydata(), [0.0, 0.5, 1.0])
    assert null.get_legend_handles_labels()[1] == ["bootstrap", "chi-square", "uniform"]


@pytest.mark.slow
def test_a_cell_of_the_test_holds_both_p_values():
    whole = curve_studies.power(quick=True)
    settings = {"test": {**whole.settings["test"], "h": 0.3, "n_init": 1}}
    plan = replace(whole, sizes={"test": (150,)}, settings=settings)
    row = cell.run(plan, Cell("share-0.5", 150, 0, "test")).payload
    assert row["error"] == ""
    assert 1 / 21 <= row["p_bootstrap"] <= 1
    assert 0 <= row["p_chi-square"] <= 1


@pytest.mark.slow
def test_constant_slopes_are_fitted_at_a_bandwidth_that_falls():
    plan = curve_studies.constants(quick=True)
    one = Cell("null", 1000, 0, "kernel")
    row = cell.run(plan, one).payload
    assert row["error"] == ""
    assert row["h"] == pytest.approx(0.24 * 2 ** (-1 / 3))
    (x, z, u, _), y, truth = plan.data(one)
    moe, options = plan.regime("null").moe, {"grid": 20, "u_range": (0, 1), "random_state": 3}
    fit = kernel_em.fit(moe, x, z, u, y, h=row["h"], **options)  # other starts, the same maximum
    assert np.ptp(fit.params["alpha"][..., 1], axis=0).max() == 0
    off = fit.params["alpha"][0, :, 1] - truth["alpha"][0, :, 1]
    assert row["error_slopes"] == pytest.approx(np.sqrt(np.mean(off**2)), rel=1e-3)
    assert row["error_slopes"] < row["error_intercepts"]
