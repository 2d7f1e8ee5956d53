"""How fast spare atoms of a Gaussian-gated mixture converge: the polynomial systems behind rbar and rtilde.

Weights are written w_i = q3_i^2 > 0, so that "all q3_i != 0" is "all w_i > 0". A bound from below is an exact rational
solution (:func:`witness`); a bound from above is a certificate that there is none: an eliminant with positive
coefficients (:func:`eliminant`) for m = 2, and a count of sign changes (:func:`sign_change_bound`) for every m.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from numbers import Integral, Real

import numpy as np
import sympy as sp
from scipy import integrate, stats

from bayes_moe.ground.data import check_count
from bayes_moe.ground.parameters import Params

Atom = tuple[sp.Expr, sp.Expr, sp.Expr]  # weight, location, half the variance's change
WEIGHTS = [sp.Rational(k, 16) for k in (5, 4, 6, 3, 7, 2, 1)]  # of the outer atoms, tried in turn


def equation(atoms: list[Atom], s: int) -> sp.Expr:
    """P_s = sum_i w_i sum_(m1 + 2 m2 = s) q_i^m1 v_i^m2 / (m1! m2!), equation s of the system of rbar.

    Parameters
    ----------
    atoms : list of (w, q, v)
        Numbers or symbols: w_i = q3_i^2, q_i = q1_i, v_i = q2_i.
    s : int
        At least 1.

    References
    ----------
    Ho and Nguyen (2016), "Convergence rates of parameter estimation for some weakly identifiable finite mixtures";
    arXiv:2305.07572, eq. (10).
    """
    total = sum(
        w * q ** (s - 2 * k) * v**k / (sp.factorial(s - 2 * k) * sp.factorial(k))
        for w, q, v in atoms
        for k in range(s // 2 + 1)
    )
    return sp.expand(total)


def solves(atoms: list[Atom], r: int) -> bool:
    """Whether exact numbers solve equations 1, ..., r, with positive weights and some q nonzero."""
    nontrivial = all(w > 0 for w, _, _ in atoms) and any(q != 0 for _, q, _ in atoms)
    return nontrivial and all(equation(atoms, s) == 0 for s in range(1, r + 1))


def witness(m: int) -> list[Atom]:
    """Exact rational solution of equations 1, ..., 2 m - 1 with m atoms, found by solving the symmetric system.

    The atoms lie at -1, (0,) 1 with equal outer weights, so that the odd equations hold.

    Parameters
    ----------
    m : 2 or 3

    Returns
    -------
    list of (w, q, v)
    """
    if isinstance(m, bool) or not isinstance(m, Integral) or m not in (2, 3):
        raise ValueError(f"m must be 2 or 3, got {m!r}.")
    v1, v2 = sp.symbols("v1 v2")
    if m == 2:
        half = sp.Rational(1, 2)
        (value,) = sp.solve(equation([(half, -1, v1), (half, 1, v1)], 2), v1)
        return [(half, sp.Integer(-1), value), (half, sp.Integer(1), value)]
    for p in WEIGHTS:
        atoms = [(p, sp.Integer(-1), v1), (1 - 2 * p, sp.Integer(0), v2), (p, sp.Integer(1), v1)]
        roots = sp.solve([equation(atoms, 2), equation(atoms, 4)], [v1, v2], dict=True)
        for root in sorted(roots, key=lambda root: max(abs(complex(value)) for value in root.values())):
            if all(value.is_rational for value in root.values()):
                return [(w, q, sp.sympify(v).subs(root)) for w, q, v in atoms]
    raise ValueError("no rational solution for these weights.")


def eliminant() -> sp.Poly:
    """Polynomial in w2 that vanishes wherever equations 1, ..., 4 with two atoms have a solution with q_1 != 0.

    Scaling and order make w1 = q_1 = 1. A Gröbner basis over the rationals, lexicographic with w2 last, eliminates the
    rest. All its coefficients are positive, so no w2 > 0 is a root: there is no nontrivial solution, and rbar(2) <= 4.

    Returns
    -------
    sympy.Poly
        In one variable, over the rationals.
    """
    w2, q2, v1, v2 = sp.symbols("w2 q2 v1 v2")
    atoms = [(sp.Integer(1), sp.Integer(1), v1), (w2, q2, v2)]
    basis = sp.groebner([equation(atoms, s) for s in range(1, 5)], v1, v2, q2, w2, order="lex", domain=sp.QQ)
    (last,) = [g for g in basis.exprs if g.free_symbols == {w2}]
    return sp.Poly(last, w2, domain=sp.QQ)


def sign_change_bound(m: int) -> int:
    """Bound rbar(m) <= 2 m, for every m, by counting sign changes.

    Let equations 1, ..., r hold and the weights sum to one. As sum_s P_s t^s = sum_i w_i (exp(q_i t + v_i t^2) - 1),
    for a large T the normal mixture f = sum_i w_i N(q_i, T + 2 v_i) has the first r moments of g = N(0, T). Normal
    mixtures are identifiable, so f != g when some q_i != 0. A combination of k normal densities changes sign at most
    2 (k - 1) times: convolution with a normal density never adds sign changes, so one may take the smallest variance to
    zero, where its terms are points and each adds at most two to those of the rest. Hence f - g changes sign Z <= 2 m
    times, and is not orthogonal to the polynomial of degree Z with these roots: r < 2 m.

    Parameters
    ----------
    m : int

    Returns
    -------
    int

    References
    ----------
    Kalai, Moitra and Valiant (2010), "Efficiently learning mixtures of two Gaussians", for the zeros of combinations of
    normal densities; Hummel and Gidas (1984) for the heat flow.
    """
    return 2 * check_count("m", m)


@dataclass(frozen=True)
class Solvability:
    """Value of rbar(m) with the proof of both sides.

    Parameters
    ----------
    value : int
        The least r such that equations 1, ..., r have no nontrivial solution.
    witness : list of (w, q, v)
        Exact solution of equations 1, ..., value - 1.
    certificate : str
        Why equations 1, ..., value have none.
    """

    value: int
    witness: list[Atom]
    certificate: str


def rbar(m: int) -> Solvability:
    """Compute rbar(m): bounds from below and above, which meet.

    Parameters
    ----------
    m : 2 or 3

    Returns
    -------
    Solvability

    Raises
    ------
    ArithmeticError
        If the bounds do not meet.
    """
    found = witness(m)
    lower = next(s for s in range(1, 4 * m) if equation(found, s) != 0)
    upper, certificate = sign_change_bound(m), "sign changes: f - g has at most 2 m of them"
    if m == 2 and all(coefficient > 0 for coefficient in eliminant().coeffs()):
        upper, certificate = 4, f"Groebner basis: {eliminant().as_expr()} has positive coefficients, so no root w2 > 0"
    if lower != upper or not solves(found, lower - 1):
        raise ArithmeticError(f"the bounds do not meet: {lower} and {upper}.")
    return Solvability(upper, found, certificate)


def joint_equation(c: sp.Expr, gamma: sp.Expr, a: sp.Expr, b: sp.Expr, nu: sp.Expr, order: tuple[int, int]) -> sp.Expr:
    """One atom's part, without its weight, of equation (l1, l2) of the system of rtilde.

    sum of c^alpha1 Gamma^alpha2 a^alpha3 b^alpha4 nu^alpha5 / alpha! over alpha1 + 2 alpha2 + alpha3 = l1 and
    alpha3 + alpha4 + 2 alpha5 = l2.

    References
    ----------
    arXiv:2305.07572, eq. (14); our reconstruction.
    """
    l1, l2 = order
    total = sp.Integer(0)
    for n2, n3, n5 in product(range(l1 // 2 + 1), range(min(l1, l2) + 1), range(l2 // 2 + 1)):
        powers = (l1 - 2 * n2 - n3, n2, n3, l2 - n3 - 2 * n5, n5)
        if min(powers) >= 0:
            terms = zip((c, gamma, a, b, nu), powers, strict=True)
            total += sp.Mul(*[base**power / sp.factorial(power) for base, power in terms])
    return total


def reduces_to_one_dimension(r: int) -> bool:
    """Whether the system of rtilde, along every direction, is that of rbar: rtilde(m) = rbar(m).

    With x, y read along (alpha, beta), sum_(l1 + l2 = s) alpha^l1 beta^l2 P_(l1, l2) = P_s at q = alpha c + beta b and
    v = alpha^2 Gamma + alpha beta a + beta^2 nu, checked symbolically for s <= r. A solution with some (c_i, b_i) != 0
    then solves the system of rbar for almost every direction; one with all c_i = b_i = 0 has sum_i w_i v_i^2 = 0 in
    every direction if r >= 4, and is zero. Conversely, b and nu alone embed a solution of rbar.
    """
    c, gamma, a, b, nu, alpha, beta = sp.symbols("c Gamma a b nu alpha beta")
    q, v = alpha * c + beta * b, alpha**2 * gamma + alpha * beta * a + beta**2 * nu
    return all(
        sp.expand(
            equation([(sp.Integer(1), q, v)], s)
            - sum(alpha**k * beta ** (s - k) * joint_equation(c, gamma, a, b, nu, (k, s - k)) for k in range(s + 1))
        )
        == 0
        for s in range(1, r + 1)
    )


# The construction that breaks the published exponent ------------------------------------------------------------

TRUTH = {"pi": [1.0], "c": [[1.0]], "Gamma": [[[1.0]]], "a": [[0.5]], "b": [0.0], "nu": [1.0]}
DIRECTION = np.array([1.0, -0.5])  # in (x, y)


def counterexample(eps: float) -> tuple[Params, Params, float]:
    """Three atoms around one, nearer to it in density than the published loss allows.

    In (x, y), atoms with mean mu0 + eps q_i u and covariance Sigma0 + 2 eps^2 v_i u u', for the witness (w, q, v) with
    m = 3: their moments agree with N(mu0, Sigma0) up to order 5, so the total variation falls like eps^6, while |Da|
    falls like eps^2 and the published Type I loss, which holds |Da|^2, like eps^4.

    Parameters
    ----------
    eps : float
        In [0.01, 0.7): below, the distance is lost in rounding.

    Returns
    -------
    params, truth : dict of str to ndarray
        Parameters of ``gaussian_gated(3, 1)`` and ``gaussian_gated(1, 1)``.
    distance : float
        Total variation between the two densities of (x, y), half the integral of |p - p0|.

    Raises
    ------
    ValueError
        For an ``eps`` outside [0.01, 0.7).
    """
    if not isinstance(eps, Real) or not 0.01 <= eps < 0.7:
        raise ValueError(
            f"eps must be a number in [0.01, 0.7), with positive variances and a distance that has digits, got {eps!r}."
        )
    w, q, v = (np.array([float(atom[k]) for atom in witness(3)]) for k in range(3))
    truth = {name: np.array(value) for name, value in TRUTH.items()}
    gamma, slope, noise = 1.0, 0.5, 1.0
    base = np.array([[gamma, slope * gamma], [slope * gamma, noise + slope**2 * gamma]])
    centre = np.array([truth["c"][0, 0], slope * truth["c"][0, 0] + truth["b"][0]])
    mean = centre + eps * q[:, None] * DIRECTION
    cov = base + 2 * eps**2 * v[:, None, None] * np.outer(DIRECTION, DIRECTION)
    a = cov[:, 0, 1] / cov[:, 0, 0]
    params = {
        "pi": w,
        "c": mean[:, :1],
        "Gamma": cov[:, :1, :1],
        "a": a[:, None],
        "b": mean[:, 1] - a * mean[:, 0],
        "nu": cov[:, 1, 1] - a * cov[:, 0, 1],
    }
    size = np.sqrt(DIRECTION @ np.linalg.solve(base, DIRECTION))
    return params, truth, _total_variation(w, eps * size * q, 1 + 2 * (eps * size) ** 2 * v)


def _total_variation(w: np.ndarray, means: np.ndarray, variances: np.ndarray) -> float:
    """Between a normal mixture on the line and N(0, 1); the other direction of (x, y) is the same in both."""
    t = np.linspace(-12.0, 12.0, 24_001)
    mixture = (w[:, None] * stats.norm.pdf(t, means[:, None], np.sqrt(variances)[:, None])).sum(axis=0)
    return 0.5 * float(integrate.simpson(np.abs(mixture - stats.norm.pdf(t)), x=t))
