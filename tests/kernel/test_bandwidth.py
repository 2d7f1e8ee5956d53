"""Likelihood cross-validation: its scores, what it chooses, errors."""

import re

import jax
import numpy as np
import pytest
from curve_cases import draw_rows, draw_standin

from bayes_moe import varying_coefficient
from mle.kernel import bandwidth, kernel_em
from mle.kernel import plan as curve_plan


@pytest.mark.slow
def test_cross_validation_scores_are_those_of_fits_without_the_fold():
    model, rows = draw_standin(n=500)
    rows = [values[:200] for values in rows]
    found = bandwidth.select(model, *rows, candidates=[0.3, 0.6], folds=2, grid=8, random_state=0, tol=1e-6)
    assert found.h == pytest.approx(0.85 * found.best)
    data = model.observe(*rows)
    plan = curve_plan.make_plan(model, data, 0.3, grid=8, max_iter=200)
    with jax.enable_x64(True):
        start, _ = kernel_em.first_guess(plan, data, 2, np.random.default_rng(0))
        fold = np.arange(200) % 2
        scored = bandwidth.held_out(plan, data, start, fold)
        spoilt = jax.tree.map(np.copy, data)
        spoilt.y[fold == 1] += 100 * (np.arange(100) % 2)
        again = bandwidth.held_out(plan, spoilt, start, fold)
    assert np.abs(again[fold == 1] - scored[fold == 1]).max() > 1  # held-out responses are scored ...
    kept = data.y[fold == 1] == spoilt.y[fold == 1]
    np.testing.assert_allclose(again[fold == 1][kept], scored[fold == 1][kept], atol=1e-4)  # ... and never fitted


def test_cross_validation_avoids_far_too_much_smoothing():
    rng = np.random.default_rng(0)
    model = varying_coefficient("normal", 1, gate_features=0, expert_features=0)
    u = rng.uniform(size=300)
    y = np.sin(12 * u) + 0.3 * rng.normal(size=300)
    none = np.zeros((300, 0))
    found = bandwidth.select(model, none, none, u, y, candidates=[0.12, 0.9], undersmooth=1, random_state=0)
    assert found.best == 0.12
    assert found.errors[1] > 0
    assert found.scores[1] < found.scores[0] - 5 * found.errors[1]


def chosen(**options):
    model, rows = draw_rows("normal", n=60)
    return bandwidth.select(model, *rows, **({"random_state": 0} | options))


BAD = {
    "one fold": (lambda: chosen(folds=1), "folds", "from 2"),
    "too much undersmoothing": (lambda: chosen(undersmooth=0.0), "undersmooth", r"\(0, 1\]"),
    "candidates too small": (lambda: chosen(candidates=[0.01]), "candidates", "smallest workable"),
    "too small when undersmoothed": (
        lambda: chosen(candidates=[0.7, 0.9], undersmooth=0.1),
        "candidates",
        "undersmooth = 0.1",
    ),
    "no candidates": (lambda: chosen(candidates=[]), "candidates", "list"),
    "no random_state": (lambda: chosen(random_state=None), "random_state", "None"),
}


@pytest.mark.parametrize(("call", "argument", "hint"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_by_name(call, argument, hint):
    with pytest.raises(ValueError, match=rf"^{argument}(?!\w)") as caught:
        call()
    assert re.search(hint, str(caught.value)), str(caught.value)
