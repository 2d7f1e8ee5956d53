"""rbar and rtilde computed, and the construction that breaks the published exponent."""

import numpy as np
import oracle
import pytest
import sympy as sp
from scipy.optimize import least_squares
from scipy.special import expit
from scipy.stats import multivariate_normal

from bayes_moe.theory import solvability, voronoi
from comparisons.gaussian import counterexample

CLOSE = 0.15  # of a fitted exponent


@pytest.mark.parametrize(("m", "value"), [(2, 4), (3, 6)])
def test_rbar_is_computed(m, value):
    found = solvability.rbar(m)
    assert found.value == value
    assert solvability.solves(found.witness, value - 1)
    assert not solvability.solves(found.witness, value)
    assert all(isinstance(number, sp.Rational) for atom in found.witness for number in atom)


def test_the_witness_is_that_of_the_reference():
    w, q, v = zip(*solvability.witness(3), strict=True)
    assert w == (sp.Rational(5, 16), sp.Rational(3, 8), sp.Rational(5, 16))
    assert q == (-1, 0, 1)
    assert v == (sp.Rational(-1, 4), sp.Rational(-5, 12), sp.Rational(-1, 4))


def test_the_system_is_that_of_the_definition():
    """Against the series of sum_i w_i exp(q_i t + v_i t^2), which is another way to write it."""
    t = sp.Symbol("t")
    atoms = [(sp.Rational(1, 3), sp.Integer(2), sp.Rational(-1, 5)), (sp.Rational(2, 3), sp.Integer(-1), sp.Integer(3))]
    series = sp.series(sum(w * sp.exp(q * t + v * t**2) for w, q, v in atoms), t, 0, 7).removeO()
    for s in range(1, 7):
        assert solvability.equation(atoms, s) == sp.expand(series).coeff(t, s)


def test_the_eliminant_has_no_positive_root_and_a_weaker_system_has_one():
    polynomial = solvability.eliminant()
    assert all(c > 0 for c in polynomial.coeffs())
    assert polynomial.count_roots(0, None) == 0
    assert solvability.solves(solvability.witness(2), 3)  # planted: without equation 4 there is a solution


def residual(vector, m, r):
    """Left-hand sides, scaled, for weights between 0.02 and 1, q of unit length, v free."""
    logits, q, v = vector[:m], vector[m : 2 * m], vector[2 * m :]
    w = 0.02 + expit(logits)
    w, q = w / w.sum(), q / np.linalg.norm(q)
    table = [
        [(s, k, s - 2 * k, FACTORIAL[s - 2 * k] * FACTORIAL[k]) for k in range(s // 2 + 1)] for s in range(1, r + 1)
    ]
    return [FACTORIAL[s] * sum(w @ (q**p * v**k) / f for _, k, p, f in row) for s, row in enumerate(table, 1)]


FACTORIAL = [float(sp.factorial(s)) for s in range(8)]
TIGHT = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15, "max_nfev": 400}


@pytest.mark.parametrize(("m", "r", "solvable"), [(2, 3, True), (2, 4, False), (3, 5, True), (3, 6, False)])
def test_a_numerical_search_agrees_on_what_is_solvable(m, r, solvable):
    rng = np.random.default_rng(0)
    best = min(least_squares(residual, rng.normal(size=3 * m), args=(m, r), **TIGHT).cost for _ in range(8))
    assert (best < 1e-20) == solvable
    assert solvable or best > 1e-8


def test_rtilde_is_rbar_because_every_direction_gives_the_same_system():
    assert solvability.reduces_to_one_dimension(6)


def fall(values, eps):
    return np.polyfit(np.log(eps), np.log(values), 1)[0]


def test_the_published_loss_is_broken_and_the_corrected_one_is_not():
    eps = np.geomspace(0.05, 0.15, 5)
    cases = [solvability.counterexample(e) for e in eps]
    distance = np.array([d for *_, d in cases])
    losses = {kind: np.array([float(voronoi.voronoi(p, t, kind=kind)) for p, t, _ in cases]) for kind in voronoi.KINDS}
    assert fall(distance, eps) == pytest.approx(6, abs=CLOSE)
    assert fall(losses["I"], eps) == pytest.approx(4, abs=CLOSE)
    assert fall(losses["corrected"], eps) == pytest.approx(6, abs=CLOSE)
    assert np.all(np.diff(losses["I"] / distance) < 0)  # the ratio grows without bound as eps falls
    assert losses["I"][0] / distance[0] > 5 * losses["I"][-1] / distance[-1]
    assert np.ptp(losses["corrected"] / distance) < 0.3 * np.mean(losses["corrected"] / distance)


def test_the_figure_is_drawn(tmp_path):
    path = counterexample.figure(tmp_path / "figure.png", points=3)
    assert path.stat().st_size > 10_000


def test_the_total_variation_is_that_of_the_two_dimensional_densities():
    params, truth, distance = solvability.counterexample(0.6)
    x, y = np.meshgrid(np.linspace(-7, 9, 801), np.linspace(-8, 9, 801), indexing="ij")
    points = np.dstack([x, y])
    p, p0 = (
        sum(w * multivariate_normal(m, s).pdf(points) for w, m, s in oracle.joint_atoms(a)) for a in (params, truth)
    )
    cell = (x[1, 0] - x[0, 0]) * (y[0, 1] - y[0, 0])
    assert 0.5 * np.abs(p - p0).sum() * cell == pytest.approx(distance, rel=1e-3)


@pytest.mark.parametrize("eps", [0.0, 0.7, 1.0, "0.5"])
def test_a_distance_at_which_a_variance_may_be_negative_is_refused(eps):
    with pytest.raises(ValueError, match="eps must be a number in"):
        solvability.counterexample(eps)


def test_two_or_three_atoms_only():
    with pytest.raises(ValueError, match="m must be 2 or 3"):
        solvability.witness(4)
