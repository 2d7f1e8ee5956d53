"""Blood cells: what is read from the file, what is made of it, the extra that may be missing, table and figure."""

import importlib.util
from dataclasses import replace
from functools import cache

import h5py
import numpy as np
import oracle_varying as oracle
import pytest
from scipy.sparse import csr_matrix

from bayes_moe.draws import diagnostics
from bayes_moe.ground.data import float64
from comparisons import cli
from comparisons.curves import blood, blood_figure, blood_fits, blood_study
from comparisons.study.plan import MissingExtra
from mle.kernel import bands, bandwidth, glrt

GENES = ["NDUFA4", "FTL", "COX7C", "S100A4", "COXISH", "ATP5O"]
TYPES = ["CD19+ B", "Dendritic", "CD56+ NK"]
SCANPY = importlib.util.find_spec("scanpy") is not None  # importing it takes seconds, and warns


def planted(folder, n=60):
    """Return a small file of scanpy's form, with its counts, totals and types."""
    rng = np.random.default_rng(0)
    counts, totals = rng.poisson(6.0, (n, len(GENES))), rng.integers(2000, 9000, n)
    codes = rng.integers(len(TYPES), size=n)
    raw = csr_matrix(np.log1p(counts / totals[:, None] * 1e4).astype(np.float32))
    with h5py.File(folder / "cells.h5ad", "w") as file:
        for name in ("data", "indices", "indptr"):
            file[f"raw/X/{name}"] = getattr(raw, name)
        file["raw/X"].attrs["shape"] = raw.shape
        file["raw/var/index"] = GENES
        file["obs/n_counts"] = totals.astype(np.float32)
        file["obs/bulk_labels/categories"], file["obs/bulk_labels/codes"] = TYPES, codes.astype(np.int8)
    return folder / "cells.h5ad", counts, totals, np.array(TYPES)[codes]


# Data --------------------------------------------------------------------------------------------------------------


def test_counts_totals_and_types_are_read_back(tmp_path):
    path, counts, totals, types = planted(tmp_path)
    found = blood.load(path)
    np.testing.assert_array_equal(found.totals, totals)
    np.testing.assert_array_equal(found.types, types)
    for place, gene in enumerate(GENES):
        np.testing.assert_array_equal(found.counts(gene), counts[:, place])
    with pytest.raises(ValueError, match="one of the 6 in the data, got 'FTH1'"):
        found.of("FTH1")


def test_the_question_is_what_it_says(tmp_path):
    path, counts, totals, types = planted(tmp_path)
    cells = blood.load(path)
    asked = blood.question(cells)
    logs = np.log1p(counts / totals[:, None] * 1e4)
    np.testing.assert_allclose(blood.score(cells), logs[:, [0, 2, 5]].mean(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(np.argsort(asked.u), np.argsort(blood.score(cells)))
    assert (asked.u.min(), asked.u.max()) == pytest.approx((0.5 / 60, 59.5 / 60))
    np.testing.assert_array_equal(asked.y, counts[:, 1])
    np.testing.assert_allclose(asked.size, totals / 100)
    for values, of in ((asked.x, np.log(totals)), (asked.z, logs[:, 3])):
        assert values.shape == (60, 1)
        np.testing.assert_allclose(values[:, 0], (of - of.mean()) / of.std(), atol=1e-6)
    np.testing.assert_array_equal(asked.types, types)


@pytest.mark.skipif(not SCANPY, reason="the extra cells is not installed")
def test_scanpys_file_is_what_the_module_says():
    cells = blood.load()
    assert cells.expression.shape == (700, 765)
    assert len(np.unique(cells.types)) == 10
    for gene in (blood.RESPONSE, blood.COVARIATE):
        exact = np.expm1(cells.of(gene)) * cells.totals / blood.TARGET
        assert np.abs(exact - cells.counts(gene)).max() < 0.2
    assert (cells.counts(blood.RESPONSE) > 0).sum() == 698
    assert (cells.of(blood.COVARIATE) > 0).mean() == pytest.approx(0.94, abs=0.005)
    scored = [gene for gene in cells.genes if blood.RESPIRATION.match(gene)]
    assert len(scored) == 21
    assert not {blood.RESPONSE, blood.COVARIATE} & set(scored)
    asked = blood.question(cells)
    quarter = (asked.u * 4).astype(int)
    for label in ("CD56+ NK", "CD19+ B", "CD14+ Monocyte", "Dendritic", "CD4+/CD25 T Reg"):
        assert set(quarter[asked.types == label]) == {0, 1, 2, 3}


# The extra that may be missing -------------------------------------------------------------------------------------


def test_without_the_extra_the_study_says_so_in_one_line(monkeypatch, capsys, tmp_path):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "scanpy" else found(name, *a))
    monkeypatch.setattr("sys.argv", ["bayes-moe", "study", "run", "vc-cells", "--results", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.count("\n") == 1
    assert 'scanpy, which is not installed: pip install "bayes-moe[cells]".' in error
    assert list(tmp_path.iterdir()) == []


def test_a_scanpy_without_the_file_is_named(monkeypatch, tmp_path):
    (tmp_path / "scanpy").mkdir()
    (tmp_path / "scanpy" / "__init__.py").touch()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(MissingExtra, match="without its file 10x_pbmc68k_reduced.h5ad"):
        blood.load()


# Fits --------------------------------------------------------------------------------------------------------------


def simulated(n=150):
    """Return a question whose two groups are known, with the group of each cell."""
    rng = np.random.default_rng(1)
    x, z, u = rng.normal(size=(n, 1)), rng.normal(size=(n, 1)), (np.arange(n) + 0.5) / n
    group, size = rng.integers(2, size=n), rng.uniform(20.0, 60.0, n)
    mean = size * np.exp(np.where(group, 0.7, -1.2) + np.where(group, 0.2, 0.0) * z[:, 0]) * rng.gamma(40, 1 / 40, n)
    labels = np.where(group, "CD14+ Monocyte", "CD4+/CD25 T Reg")
    return blood.Question(x, z, u, rng.poisson(mean).astype(float), size, labels), group


@cache
def fitted():
    question, group = simulated()
    chosen = bandwidth.Selection(0.6, 0.7, np.array([0.7]), np.array([-3.0]), np.zeros(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blood_fits, "STARTS", 2)
        return question, group, chosen, blood_fits.kernel(question, 2, chosen, 0)[1]


@pytest.mark.slow
def test_memberships_are_bayes_rule_at_each_cells_own_u():
    question, group, _, fit = fitted()
    at = fit.at(np.asarray(fit.data.u))
    order = np.asarray(fit.data.order)
    draws = {name: rows[None] for name, rows in at.items()}
    found = float64(blood_fits.last_group)(fit.model, fit.data, draws)[0]
    for place, row in enumerate(order):
        params = {name: rows[place] for name, rows in at.items()}
        cell = question.x[row], question.z[row], question.y[row], question.size[row]
        joint = oracle.log_joint("negative-binomial", params, *cell)
        assert found[place] == pytest.approx(np.exp(joint[1]) / np.exp(joint).sum(), abs=1e-8)
    assert ((found > 0.5) == group[order]).mean() > 0.9


@pytest.mark.slow
def test_held_out_scores_prefer_the_groups_that_there_are(monkeypatch):
    monkeypatch.setattr(blood_fits, "STARTS", 2)
    question, _ = simulated()
    fold = np.arange(150) % blood_fits.FOLDS
    one, two = (blood_fits.score(question, k, fold, 0, (0.8,))[1] for k in (1, 2))
    assert (two - one).mean() > 3 * (two - one).std() / np.sqrt(150)


def made_up():
    """Return a result whose posterior is the kernel estimate by another name."""
    question, group, chosen, fit = fitted()
    band = bands.asymptotic(fit)
    drawn = {name: band for name in ("kernel, asymptotic", "kernel, bootstrap", "posterior")}
    test = glrt.Result(1.5, 0.25, 0.05, "bootstrap", fit, 2.0, np.array([0.5, 2.0]))
    verdict = diagnostics.Verdict(("3 divergences",), 3, 1.0, 900.0, 900.0, 1.0)
    held_out = {k: np.linspace(-4, -3 + k, 150) for k in (1, 2)}
    memberships = {"kernel": group * 0.5, "posterior": group * 0.75}
    pooled = np.full(len(fit.grid), 0.45)
    return blood_fits.Result(question, {1: chosen, 2: chosen}, held_out, drawn, test, verdict, memberships, pooled)


def test_the_table_says_what_was_found():
    result = made_up()
    text = blood_study.table(result)
    lines = {line.split("  ")[0]: line for line in text.splitlines() if line}
    assert "-0.5000 (" in lines["1"]
    assert lines["CD14+ Monocyte"].split()[-2:] == ["0.50", "0.75"]
    assert "FAILED: 3 divergences" in text
    assert "p = 0.25" in text
    slope = result.fit.params["alpha"][:, 1, 1][np.abs(result.fit.grid - 0.5).argmin()]
    assert f"{slope:+.2f} [" in lines["group 1, posterior"]
    assert "+0.45" in lines["one group for all cells, kernel"]


def test_a_fit_that_can_t_be_tested_leaves_the_rest_of_the_table(monkeypatch):
    def refuse(*_, **__):
        raise glrt.Unsound("fit must have converged")

    monkeypatch.setattr(glrt, "test", refuse)
    result = replace(made_up(), test=blood_fits.constant_slopes(None, 20, np.random.default_rng(0)))
    assert "not tested. fit must have converged" in blood_study.table(result)


def test_the_figure_is_drawn(tmp_path):
    assert blood_figure.figure(made_up(), tmp_path / "cells.png").stat().st_size > 50_000


@pytest.mark.slow
def test_a_quick_run_finds_planted_groups_and_slopes(monkeypatch):
    monkeypatch.setattr(blood_fits, "STARTS", 3)
    monkeypatch.setattr(blood_fits, "TRIED", (1, 2))
    question, group = simulated(300)
    result = blood_fits.run(question, quick=True)
    for share in result.memberships.values():
        assert ((share > 0.5) == group).mean() > 0.9
    for band in result.bands.values():
        truth = np.where(np.arange(2), 0.2, 0.0)
        assert (np.abs(band.fit.params["alpha"][:, :, 1].mean(axis=0) - truth) < 0.1).all()
    assert result.test.p_value > 0.01
