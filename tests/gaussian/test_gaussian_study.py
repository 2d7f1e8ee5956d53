"""Studies of the Gaussian-gated mixture: truths, published starts, one EM step, losses by cell, slopes by occupancy."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from montecarlo import STANDARD_ERRORS, key

from bayes_moe import gaussian_gated
from bayes_moe.nuts.modes import generator
from bayes_moe.theory import voronoi
from comparisons import catalogue
from comparisons.gaussian import estimators as mixtures
from comparisons.gaussian import regimes as gaussian_regimes
from comparisons.gaussian import studies as gaussian_studies
from comparisons.gaussian import voronoi_figure as cell_figure
from comparisons.gaussian import voronoi_rates as cell_rates
from comparisons.report import figures, rates, summary
from comparisons.running import cell, engine
from comparisons.running import page as report
from comparisons.running.store import Store
from comparisons.study.contract import Problem
from comparisons.study.plan import Cell
from mle import em

EXACT = 1e-12
K4 = gaussian_regimes.regime("m1", 4)
PUBLISHED_SLOPE = -0.506  # of M1 with four experts
CLOSE = 0.04  # of a slope over a thinner grid than the published one


def study(**plan):
    """Return a small study of M1."""
    chosen = {"sizes": {"em-one-step": (200, 400)}, "replicates": {"em-one-step": 3}} | plan
    return replace(
        gaussian_studies.study("m1", quick=True),
        settings={name: {"n_init": 1, "max_iter": 1, "tol": 1e-5} for name in chosen["sizes"]},
        **chosen,
    )


# Truths and starts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", gaussian_regimes.MODELS)
def test_truths_are_the_published_ones(model):
    truth, one = gaussian_regimes.truth(model), gaussian_regimes.truth("m1")
    np.testing.assert_array_equal(truth["pi"], [0.3, 0.4, 0.3])
    vanishing = (truth["c"] == 0).all(axis=1)
    assert vanishing.any() == (gaussian_regimes.TYPES[model] == "II") == vanishing[0]
    features = truth["c"].shape[1]
    assert features == (2 if model in ("m3", "m4") else 1)
    np.testing.assert_array_equal(truth["Gamma"], one["Gamma"] * np.eye(features))
    for name in ("c", "a", "b", "nu"):  # the first atom of type II has values of its own
        np.testing.assert_array_equal(truth[name][1:].T, np.broadcast_to(one[name][1:].T, truth[name][1:].T.shape))
    gaussian_regimes.regime(model, 3).moe.params(**truth)


@pytest.mark.slow
@pytest.mark.statistical
def test_a_published_start_splits_atoms_at_random_and_moves_them_a_little():
    truth, n = gaussian_regimes.truth("m3"), 1000
    rng = np.random.default_rng(key(0))
    starts = [mixtures.published_start(truth, 5, n, rng) for _ in range(300)]
    moe, moved = gaussian_gated(5, 2), []
    splits = set()
    for start in starts:
        moe.params(**start)
        nearest = np.array(voronoi.cells(start, truth, ties="first"))
        held = nearest.sum(axis=1)
        splits.add(tuple(held.tolist()))
        assert held.min() >= 1
        np.testing.assert_allclose(nearest @ start["pi"], truth["pi"], atol=EXACT)
        which = nearest.argmax(axis=0)
        assert (start["nu"] >= truth["nu"][which]).all()
        moved.append(start["c"] - truth["c"][which])
    assert splits == {(3, 1, 1), (1, 3, 1), (1, 1, 3), (2, 2, 1), (2, 1, 2), (1, 2, 2)}
    assert np.std(moved) == pytest.approx(mixtures.ATOM_SD * n**-0.083, rel=0.05)


def test_a_regime_with_other_experts_or_another_truth_is_another_regime():
    prints = [gaussian_regimes.regime(m, k).fingerprint(100) for m in gaussian_regimes.MODELS for k in (3, 4)]
    assert len({str(one) for one in prints}) == len(prints)


# Cells -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_step_is_one_step_of_em():
    plan = study()
    one = Cell("k4", 200, 0, "em-one-step")
    x, y, truth = plan.data(one)
    rng = generator(plan.fit_key(one))
    start = mixtures.published_start(truth, 4, 200, rng)
    fit = em.fit(gaussian_gated(4, 1), x, y, init=start, max_iter=1)
    row = cell.run(plan, one).payload
    assert (row["status"], row["error"], row["iterations"]) == ("ok", "", 1)
    assert row["log_likelihood"] == pytest.approx(fit.log_likelihood, abs=1e-9)
    assert row["error_voronoi"] == pytest.approx(float(voronoi.voronoi(fit.params, truth)), abs=1e-9)
    assert row["error_voronoi"] != pytest.approx(float(voronoi.voronoi(start, truth)), rel=0.1)


def test_a_cell_holds_losses_by_voronoi_cell_and_parameter():
    row = cell.run(study(), Cell("k5", 400, 1, "em-one-step")).payload
    assert sum(cell_rates.occupancy(row)) == 5
    alone = [j for j, held in enumerate(cell_rates.occupancy(row)) if held == 1]
    total = sum(row[f"error_pi_{j}"] for j in range(3))
    total += sum(row[f"error_{name}_{j}"] for j in alone for name in cell_rates.PARAMETERS[1:])
    assert 0 < total < row["error_voronoi"]
    assert row["error_published"] >= 0


def test_data_do_not_depend_on_the_estimator_and_are_the_gates_own():
    plan = study()
    x, y, truth = plan.data(Cell("k3", 400, 0, "em-one-step"))
    again = plan.data(Cell("k3", 400, 0, "another"))
    np.testing.assert_array_equal(x, again[0])
    np.testing.assert_array_equal(y, again[1])
    assert x.mean() == pytest.approx(truth["pi"] @ truth["c"][:, 0], abs=0.1)
    assert x.std() < 0.5


def test_em_that_stops_early_says_so():
    problem = Problem(gaussian_gated(4, 1), *study().data(Cell("k4", 400, 0, "em")))
    settings = {"n_init": 1, "max_iter": 3, "tol": 1e-9}
    found = mixtures.mle(problem, jax.random.key(0), settings)
    assert found.status == "not converged"
    assert found.info["iterations"] == 3


def test_newton_ends_where_an_em_step_changes_nothing():
    problem = Problem(gaussian_gated(4, 1), *study().data(Cell("k4", 400, 1, "em-near")))

    def moved(newton_steps):
        settings = {"n_init": 1, "max_iter": 50, "tol": 1e-5, "newton": newton_steps}
        found = mixtures.mle(problem, jax.random.key(0), settings, near=True)
        params = {name: values[0] for name, values in found.draws.items()}
        after = em.fit(problem.moe, problem.x, problem.y, init=params, max_iter=1)
        change = max(np.abs(after.params[name] - params[name]).max() for name in params)
        return found, after.log_likelihood - found.info["log_likelihood"], change

    found, gain, change = moved(300)
    assert found.status == "ok"
    assert abs(gain) < 1e-8
    assert change < 1e-5
    assert found.info["least_observations"] == pytest.approx(400 * found.draws["pi"].min())
    assert moved(0)[2] > 1e-4


def test_modes_come_once_each_with_their_experts_in_one_order():
    problem = Problem(gaussian_gated(3, 1), *study().data(Cell("k3", 400, 0, "em")))
    modes = mixtures.em_modes(problem, jax.random.key(1), {"n_init": 5, "max_iter": 500, "tol": 1e-6})
    values = [float(problem.moe.log_density(mode, problem.x, problem.y).sum()) for mode in modes]
    assert values == sorted(values, reverse=True)
    assert all(np.diff(values) < -mixtures.SAME)
    assert np.abs(modes[0]["c"] - modes[-1]["c"]).max() < 0.5


# The whole way -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_study_runs_and_reports(tmp_path):
    plan = study()
    with Store(tmp_path / "results.sqlite", plan) as store:
        engine.run(plan, store, lambda cell, row: None, 1)
        rows = store.rows()
        assert {row["status"] for row in rows} == {"ok"}
        page, *made = report.write(plan, store)
    page = page.read_text()
    (cells,) = (path for path in made if path.name == "cells.csv")
    assert {"cells.png", "cells.svg"} <= {path.name for path in made}
    assert cells.read_text().startswith('"study","commit","regime","estimate","atoms","parameter","slope","low","high"')
    text = summary.table(rows, plan)
    assert "voronoi one EM step" in text
    assert "theory" in text
    assert "Cramér–Rao bound                " not in text
    assert "Where asymptotics begin" not in page
    assert "Slopes by Voronoi cell" in page
    assert figures.rate_plot(rows, plan, tmp_path / "rates.png").stat().st_size > 10_000


def test_the_catalogue_has_the_four_models():
    for model in gaussian_regimes.MODELS:
        for quick in (False, True):
            found = catalogue.STUDIES[f"gaussian-gated-{model}"](quick)
            assert [regime.name for regime in found.regimes] == ["k3", "k4", "k5"]
            assert set(found.sizes) <= set(found.estimators)


# Slopes by the number of atoms -------------------------------------------------------------------------------------


def made_up_rows(power=-0.125, spread=0.3, replicates=40, atoms=2, base=0):
    """Return rows of fits with so many atoms in a random cell; c falls as n^power there, all else as n^-1/2."""
    rng = np.random.default_rng(key(base))
    rows = []
    for n in (500, 5000, 50_000):
        for replicate in range(replicates):
            full = rng.integers(3)
            row = {"regime": "k4", "estimator": "em", "n": n, "replicate": replicate, "status": "ok"}
            for j in range(3):
                row[f"error_occupancy_{j}"] = atoms if j == full else 1.0
                for name in cell_rates.PARAMETERS:
                    exponent = power if j == full and name == "c" else -0.5
                    row[f"error_{name}_{j}"] = n**exponent * np.exp(spread * rng.normal())
            rows.append(row)
    return rows


def rates_by_cell(power):
    """Return rates of made-up rows whose slopes of c have intervals: in one table of ten sizes look unlike."""
    for base in range(0, 5000, 1000):
        found = {(r.parameter, r.atoms): r for r in cell_rates.cell_rates(made_up_rows(power, base=base), K4, "em")}
        if found["c", 1].slope.covered and found["c", 2].slope.covered:
            break
    return found


@pytest.mark.statistical
def test_slopes_are_told_apart_by_occupancy():
    found = rates_by_cell(-0.125)
    assert set(found) == {(name, atoms) for name in cell_rates.PARAMETERS for atoms in (1, 2)}
    assert found["c", 2].theory == -0.125
    assert away(found["c", 2].slope, -0.125) < STANDARD_ERRORS < away(found["c", 2].slope, -0.25)
    assert away(found["c", 1].slope, -0.5) < STANDARD_ERRORS
    assert found["c", 1].counts == (80, 80, 80)
    assert found["c", 2].counts == (40, 40, 40)


def away(slope, value):
    """Distance of a slope from a value, in standard errors."""
    return abs(slope.value - value) / slope.se


@pytest.mark.statistical
def test_a_slope_that_is_not_the_theorems_is_far_from_it():
    """Planted error: the over-fitted cell as fast as the others."""
    found = rates_by_cell(-0.5)
    assert away(found["c", 2].slope, found["c", 2].theory) > STANDARD_ERRORS


def test_cells_of_one_data_set_are_not_independent():
    """Both cells with one atom have the same errors: a second one adds nothing to what a data set says."""
    rows = made_up_rows()
    for row in rows:
        first, second = (j for j in range(3) if row[f"error_occupancy_{j}"] == 1)
        row[f"error_c_{second}"] = row[f"error_c_{first}"]
    (found,) = (r for r in cell_rates.cell_rates(rows, K4, "em") if (r.parameter, r.atoms) == ("c", 1))
    sizes = [500, 5000, 50_000]
    alone = [[row[f"error_c_{cell_rates.occupancy(row).index(1)}"] for row in rows if row["n"] == n] for n in sizes]
    assert found.counts == (80, 80, 80)
    expected = rates.slope(sizes, [np.array(errors) for errors in alone], "mean")
    assert (found.slope.value, found.slope.se, found.slope.df) == pytest.approx(
        (expected.value, expected.se, expected.df), rel=1e-9
    )


def test_too_few_cells_have_no_slope():
    found = cell_rates.cell_rates(made_up_rows(replicates=2), K4, "em")
    assert all(rate.slope is None for rate in found if rate.atoms == 2)


@pytest.mark.parametrize(("model", "theories"), [("m1", [-1 / 4]), ("m2", [-1 / 4, -1 / 6]), ("m4", [-1 / 4, -1 / 6])])
def test_cells_at_zero_have_their_own_exponent_of_a(model, theories):
    """Three atoms: the theorem tells the cells of type II apart, and counts in them are of their own kind."""
    regime = gaussian_regimes.regime(model, 5)
    rows = [row | {"regime": "k5"} for row in made_up_rows(atoms=3)]
    found = [r for r in cell_rates.cell_rates(rows, regime, "em") if r.atoms == 3]
    mine = [r for r in found if r.parameter == "a"]
    np.testing.assert_allclose([r.theory for r in mine], theories)
    np.testing.assert_allclose([r.corrected for r in mine], -1 / 6)
    assert np.sum([r.counts for r in mine], axis=0).tolist() == [40, 40, 40]
    first = [sum(row["error_occupancy_0"] == 3 for row in rows if row["n"] == n) for n in (500, 5000, 50_000)]
    assert all(list(r.counts) == first for r in mine if r.vanishing)
    assert [r.title for r in found if r.parameter != "a"] == ["pi", "c", "Gamma", "b", "nu"]
    assert [r.title for r in mine][-1] == ("a, c0 = 0" if len(theories) == 2 else "a, c0 != 0")


@pytest.mark.parametrize(
    ("parameter", "atoms", "vanishing", "expected"),
    [
        ("c", 1, False, -1 / 2),
        ("pi", 3, False, -1 / 2),
        ("c", 2, False, -1 / 8),
        ("b", 3, False, -1 / 12),
        ("nu", 2, False, -1 / 4),
        ("Gamma", 3, True, -1 / 6),
        ("a", 2, False, -1 / 4),
        ("a", 3, False, -1 / 4),
        ("a", 3, True, -1 / 6),
    ],
)
def test_exponents_are_the_theorems(parameter, atoms, vanishing, expected):
    assert cell_rates.exponent(parameter, atoms, vanishing=vanishing) == pytest.approx(expected)


def test_table_names_every_occupancy():
    text = cell_rates.table(made_up_rows(), K4, "em")
    assert "(2, 1, 1)" in text
    assert "+" not in text.splitlines()[1]


def test_records_hold_every_slope_with_its_cells():
    rows = [row | {"estimator": "em-one-step"} for row in made_up_rows()]
    plan = replace(study(), regimes=(K4,))
    found = {(r["atoms"], r["parameter"]): r for r in cell_rates.records(rows, plan)}
    assert len(found) == 12
    (c,) = (rate for rate in cell_rates.cell_rates(rows, K4, "em-one-step") if (rate.atoms, rate.parameter) == (2, "c"))
    wanted = {
        "regime": "k4",
        "estimate": summary.POINT["em-one-step"],
        "atoms": 2,
        "parameter": "c",
        "n_min": 500,
        "n_max": 50_000,
    }
    wanted |= {"slope": c.slope.value, "low": c.slope.low, "high": c.slope.high, "fewest": 40, "most": 40}
    assert found[2, "c"] == wanted | {"theory": -0.125, "corrected": -0.125}


def test_the_figure_of_cells_shows_every_slope_beside_the_theorems():
    rows = [row | {"estimator": "em-one-step"} for row in made_up_rows()]
    records = cell_rates.records(rows, replace(study(), regimes=(K4,)))
    assert cell_figure.figure([]) is None
    (axis,) = cell_figure.figure(records).axes
    assert [label.get_text() for label in axis.get_yticklabels()].count("$c$") == 2
    slopes = [bar.lines[0].get_xdata()[0] for bar in axis.containers]
    theory = [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "|" and line.get_markersize() == 9]
    assert sorted(slopes) == sorted(r["slope"] for r in records)
    assert sorted(theory) == sorted(r["theory"] for r in records)
    four = [record | {"atoms": 4} for record in records]
    assert "4 in the cell" in [text.get_text() for text in cell_figure.figure(four).legends[0].get_texts()]


# The published slopes ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.statistical
def test_one_em_step_has_the_published_slope_and_its_start_has_not():
    sizes = (100, 500, 2500, 10_000, 30_000, 60_000, 100_000)
    regime, rng = gaussian_regimes.regime("m1", 4), np.random.default_rng(key(0))
    plan = replace(study(sizes={"em-one-step": sizes}), seed=key(0))
    errors, starts = [], []
    for n in sizes:
        rows = [cell.run(plan, Cell("k4", n, replicate, "em-one-step")).payload for replicate in range(20)]
        errors.append(np.array([row["error_published"] for row in rows]))
        truth = regime.truth(n)
        points = [mixtures.published_start(truth, 4, n, rng) for _ in range(20)]
        starts.append(np.array([float(voronoi.voronoi(point, truth, kind="I")) for point in points]))
    assert rates.slope(sizes, errors, "mean").value == pytest.approx(PUBLISHED_SLOPE, abs=CLOSE)
    assert rates.slope(sizes, starts, "mean").value > PUBLISHED_SLOPE / 2
