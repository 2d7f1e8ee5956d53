"""The peers code the same model: their log densities, gradients and EM agree with ours."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import typer
from montecarlo import STANDARD_ERRORS, key
from numpyro.infer.util import log_density

from bayes_moe.nuts import posterior as nuts
from bayes_moe.nuts.priors import resolve
from comparisons.peers import analysis, bench, fused, jobs, kept, numpyro_naive, ours, plots, problem, scipy_em, tables
from comparisons.peers.jobs import METHODS, Job, Outcome
from comparisons.peers.plan import PARTS, QUICK, plan
from mle import em
from mle.optimise.objective import Objective

D = 4
SMALL = {regime: problem.simulate(regime, 300, 0) for regime in problem.REGIMES}


def named(free):
    return {"tau": free[:1], "beta": free[None, 1 : 1 + D], "eta": free[1 + D :].reshape(1, -1, D)}


def point(seed, scale=1.0):
    return scale * np.random.default_rng(seed).normal(size=13)


def objective(data):
    moe = ours.moe(data)
    return Objective(moe, jax.tree.map(jnp.asarray, moe.observe(data.x, data.y)))


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("regime", problem.REGIMES)
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_scipy_em_reads_our_log_likelihood(regime, scale):
    free = point(1, scale)
    want = objective(SMALL[regime]).value(free)
    assert scipy_em.log_likelihood(SMALL[regime], free) == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize("regime", problem.REGIMES)
def test_gradients_of_the_m_step_add_up_to_our_score(regime):
    """Fisher's identity: at the parameters that the responsibilities come from, both gradients are the same."""
    data, free = SMALL[regime], point(2)
    r = scipy_em.responsibilities(data, free)
    cut = 1 + D
    mine = np.concatenate([scipy_em._gate(data, free[:cut], r)[1], scipy_em._adapter(data, free[cut:], r)[1]])
    np.testing.assert_allclose(-mine * len(data.y), objective(data).value_and_grad(free)[1], rtol=1e-10, atol=1e-10)


def test_scipy_em_climbs_to_our_maximum():
    data, start = SMALL["heterogeneous"], point(3, 0.1)
    climb = scipy_em.fit(data, start, max_iter=2000, tol=1e-10)
    fit = em.fit(ours.moe(data), data.x, data.y, init=named(start), tol=1e-8)
    assert climb.converged
    assert np.all(np.diff(climb.history) > -1e-8)
    assert climb.history[-1] == pytest.approx(fit.log_likelihood, rel=1e-8)


@pytest.mark.parametrize("kernel", ["jax", "numba"])
@pytest.mark.parametrize("scale", [1.0, 10.0])
@pytest.mark.parametrize("regime", problem.REGIMES)
def test_fused_kernels_equal_ours(regime, scale, kernel):
    if kernel == "numba":
        pytest.importorskip("numba", reason="numba is part of the extra [peers]")
        from comparisons.peers import fused_numba as module
    else:
        module = fused
    data, free = SMALL[regime], point(4, scale)
    f0 = np.exp(np.asarray(objective(data).data.frozen))
    value, grad = module.kernel(free, np.ascontiguousarray(data.x.T), data.y, f0)
    want, score = objective(data).value_and_grad(free)
    assert float(value) == pytest.approx(want, rel=1e-10)
    np.testing.assert_allclose(grad, score, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("regime", problem.REGIMES)
def test_the_naive_numpyro_model_has_our_posterior_density(regime):
    data, moe = SMALL[regime], ours.moe(SMALL[regime])
    inputs = (moe, resolve(moe), moe.prepare(data.x))
    arguments = (jnp.asarray(data.x), jnp.asarray(data.eta0), data.frozen_activation, jnp.asarray(data.y))
    for seed in range(3):
        free = point(seed)
        mine, _ = log_density(nuts.posterior_model, (inputs, data.y), {}, named(free))
        plain = {"tau": free[0], "beta": free[1 : 1 + D], "eta": free[1 + D :].reshape(-1, D)}
        theirs, _ = log_density(numpyro_naive.model, arguments, {}, plain)
        assert float(theirs) == pytest.approx(float(mine), rel=1e-10)


@pytest.mark.statistical
def test_simulated_labels_follow_the_model():
    data = problem.simulate("heterogeneous", 20_000, key(5))
    truth = problem.truth("heterogeneous", 20_000)
    p = ours.moe(data).class_probabilities(truth, data.x)
    residual = (np.eye(3)[data.y] - p).sum(axis=0) / np.sqrt((p * (1 - p)).sum(axis=0))
    assert np.abs(residual).max() < STANDARD_ERRORS


def fake(method, mean, seed, run=1.0):
    rng, data = np.random.default_rng(seed), SMALL["heterogeneous"]
    draws = {name: mean + rng.normal(size=(2, 400, *shape)) for name, shape in SHAPES.items()}
    job = Job("posterior", "a case", method, "", [data])
    return Outcome(job, {**draws, "compile": np.array(0.0), "run": np.array(run)}, run)


SHAPES = {"tau": (), "beta": (D,), "eta": (2, D)}


def test_a_ratio_is_given_only_where_posteriors_agree():
    outcomes = [fake("ours", 0.0, 0), fake("numpyro64", 0.0, 1, run=10.0), fake("stan", 0.5, 2)]
    outcomes.append(Outcome(Job("posterior", "a case", "nutpie", ""), {}, 0.1, "ImportError: nutpie"))
    rows = {(r.method, r.quantity): r for r in analysis.rows(outcomes)}
    assert 7 < rows["numpyro64", "ratio"].median < 14
    assert rows["stan", "ratio"].note.startswith("disagrees")
    assert np.isnan(rows["stan", "ratio"].median)
    assert rows["nutpie", "failed"].note == "ImportError: nutpie"
    assert "disagrees" in tables.table(list(rows.values()))


def test_every_part_has_its_panels_and_every_method_its_point():
    data = [fake("ours", 0.0, 0), fake("numpyro64", 0.0, 1, run=10.0)]
    several = [replace(o, arrays={k: v[None] if k in SHAPES else v for k, v in o.arrays.items()}) for o in data]
    parts = {"posterior": data, "first": data, "many": several}
    outcomes = [replace(o, job=replace(o.job, part=part)) for part, found in parts.items() for o in found]
    arrays = {name: np.array([1e-3, 1e-2]) for name in ("ours", "jax", "numba")}
    limits = {name: np.array(1e-7) for name in ("bandwidth", "transcendental")}
    timed = Outcome(Job("likelihood", "", "ours", ""), {"sizes": np.array([100, 1000]), **arrays, **limits}, 1.0)
    rows = analysis.rows([*outcomes, raced([-1.0, -1.0], [-1.0, -1.0], [1.0, 1.0]), timed])
    *panels, lines = [axis for axis in plots.figure(rows).axes if axis.axison]
    for axis, part in zip(panels, ("posterior", "first", "many", "mle"), strict=True):
        drawn = sorted(line.get_xdata()[0] for line in axis.lines if line.get_marker() == "o")
        quantity = plots.PANELS[part][0]
        assert drawn == sorted(r.median for r in rows if (r.part, r.quantity) == (part, quantity))
        assert len(drawn) == 2
        assert [words.get_text().count("ours is") for words in axis.texts] == [1, 0]
        left, right = axis.get_xlim()
        assert all(left < x < right for x in drawn)
    assert len(lines.get_legend().get_texts()) == len(plots.LINES)
    failed = analysis.rows([Outcome(Job("first", "another", "ours", ""), {}, 0.1, "ImportError: jax")])
    assert [row.quantity for row in failed] == ["failed"]
    assert len(plots.figure(rows + failed).axes) == len(plots.figure(rows).axes)
    assert plots.figure(failed).get_suptitle() == plots.figure([]).get_suptitle() == "nothing was measured"


def test_methods_take_turns_and_names_choose():
    jobs = plan(QUICK, ("posterior",), tuple(METHODS), repeats=2)
    first = [job.method for job in jobs if job.case == jobs[0].case]
    assert first == list(METHODS) * 2
    data = [job.problems[0].y for job in jobs if job.case == jobs[0].case]
    rounds = np.reshape(data, (2, len(METHODS), -1))
    assert (rounds == rounds[:, :1]).all(), "methods of one round share a data set"
    assert (rounds[0] != rounds[1]).any(), "each round has its own"
    assert bench.choose(["mle", "stan"]) == (("mle",), ("ours", "stan"))
    assert bench.choose([]) == (PARTS, tuple(METHODS))
    with pytest.raises(typer.BadParameter, match="unknown: spss"):
        bench.choose(["spss"])


def raced(ours, em, largest):
    job = Job("mle", "a case", "ours", "")
    values = {"ours_value": ours, "em_value": em, "em_largest": largest, "em_converged": [True] * len(ours)}
    seconds = {"ours_seconds": [1.0] * len(ours), "em_seconds": [20.0] * len(ours), "ours_maximum": [True] * len(ours)}
    return Outcome(job, {name: np.array(v) for name, v in (values | seconds).items()} | {"compile": np.array(1.0)}, 1.0)


def test_a_worse_optimum_is_counted_and_told_apart_where_there_is_no_maximum():
    outcome = raced([-100.0, -101.0, -101.0, -99.0], [-100.0 - 1e-7] + [-100.0] * 3, [1.0, 2.0, 5000.0, 3.0])
    note = next(r.note for r in analysis.rows([outcome]) if r.quantity == "ratio")
    assert note.startswith("4 data sets: same optimum 1, ours better 1, ours worse 2 (with EM's at infinity in 1);")


def measured(monkeypatch, tmp_path, *, fail_at=None):
    """Run a small bench whose jobs only count; return the names of those that ran."""
    ran = []

    def execute(job, log):
        ran.append(job.method)
        if len(ran) == fail_at:
            raise KeyboardInterrupt
        if job.method == "stan":
            return Outcome(job, {}, 0.1, "no compiler")
        return Outcome(job, fake(job.method, 0.0, len(ran)).arrays, 1.5)

    monkeypatch.setattr(bench.jobs, "execute", execute)
    bench.run(results=tmp_path, quick=True, repeats=1, only=["posterior", "numpyro64", "stan"])
    return ran


def test_a_bench_that_is_stopped_goes_on_where_it_was(monkeypatch, tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        measured(monkeypatch, tmp_path, fail_at=5)
    assert measured(monkeypatch, tmp_path) == ["stan", "numpyro64", "stan"], "what failed runs again"
    assert "3 of 6 jobs were measured before" in capsys.readouterr().out
    for path in (tmp_path / "jobs").glob("posterior-ours-*"):
        path.write_bytes(path.read_bytes()[:-100])
    assert measured(monkeypatch, tmp_path) == ["ours", "stan"] * 2, "so does what is not whole"


def test_a_package_that_is_missing_comes_with_its_remedy(tmp_path):
    outcome = jobs.execute(Job("posterior", "a case", "other", "no_such_peer:sample"), tmp_path / "log.txt")
    assert (
        outcome.error
        == "ModuleNotFoundError: No module named 'comparisons.peers.no_such_peer': `make bench` installs it"
    )


def test_a_measurement_is_kept_with_all_that_it_depends_on(monkeypatch, tmp_path):
    outcome = fake("ours", 0.0, 0)
    kept.keep(outcome, tmp_path)
    same = kept.recall(outcome.job, tmp_path)
    assert same.process == outcome.process
    np.testing.assert_array_equal(same.arrays["eta"], outcome.arrays["eta"])
    data = SMALL["heterogeneous"]
    flipped = replace(data, y=data.y[::-1])
    for other in (
        replace(outcome.job, settings={"draws": 5}),
        replace(outcome.job, env={"JAX_ENABLE_X64": "1"}),
        replace(outcome.job, problems=[flipped]),
        replace(outcome.job, problems=[SMALL["homogeneous"]]),
    ):
        assert kept.recall(other, tmp_path) is None
    monkeypatch.setattr(kept, "where", lambda: "other code")
    assert kept.recall(outcome.job, tmp_path) is None
