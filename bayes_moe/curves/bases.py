"""Smooth functions of u in [0, 1] as sums of basis functions, whose weights are standard normal a priori.

A basis says what its smoothness parameters are called and where they live, evaluates its functions once, in NumPy, and
makes curves of parameters and weights, in JAX. To add one, write such a class and a row in ``BASES``, and give its
smoothness parameters priors in ``curves.DEFAULTS``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar, Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.contrib.hsgp.laplacian import eigenfunctions, sqrt_eigenvalues
from numpyro.distributions import constraints
from numpyro.distributions.constraints import Constraint
from scipy.interpolate import BSpline

from bayes_moe.ground.data import check_count, float64

DEGREE = 3  # of the splines
PENALISED = 2  # order of the differences that are penalised
SCALED_ON = 201  # points over which the splines' variance is averaged


class Basis(Protocol):
    """What a basis must supply. It is no pytree but static, so that equal ones compile once."""

    name: ClassVar[str]
    smoothness: ClassVar[Mapping[str, Constraint]]  # its parameters, one of each for every curve

    @property
    def weights(self) -> int:
        """Number M of standard normal weights of a curve."""

    def rows(self, u: np.ndarray) -> np.ndarray:
        """Basis functions at u (n,) in [0, 1], a row for each."""

    def curves(self, smoothness: Mapping[str, Array], weights: Array, rows: Array) -> Array:
        """Curves (V, n) from smoothness parameters (V,) and weights (V, M)."""


@dataclass(frozen=True)
class HilbertGP:
    """Gaussian process of mean zero, in eigenfunctions of the Laplacian on [1/2 - L, 1/2 + L].

    f(u) = sum_k S(omega_k)^1/2 phi_k(u) w_k, whose covariance nears amplitude^2 exp(-(u - v)^2 / (2 lengthscale^2)) as
    their number grows and L leaves the data behind; S is its spectral density.

    Parameters
    ----------
    functions : int
        Eigenfunctions. They resolve length scales down to about 1.75 L / functions.
    boundary : float
        L, above 1/2. At the ends of [0, 1] the variance falls short by a share of exp(-2 (L - 1/2)^2 / lengthscale^2).

    Raises
    ------
    ValueError
        For no functions, or a boundary that is not above 1/2 and finite.

    References
    ----------
    Solin and Särkkä (2020); Riutort-Mayol, Bürkner, Andersen, Solin and Vehtari (2023).
    """

    functions: int = 20
    boundary: float = 1.5

    name: ClassVar[str] = "hilbert"
    smoothness: ClassVar[Mapping[str, Constraint]] = {
        "amplitude": constraints.positive,
        "lengthscale": constraints.positive,
    }

    def __post_init__(self) -> None:
        object.__setattr__(self, "functions", check_count("functions", self.functions))
        if not isinstance(self.boundary, Real) or not 0.5 < self.boundary < math.inf:
            raise ValueError(f"boundary must be above 0.5, where the range of u ends, got {self.boundary!r}. Try 1.5.")
        object.__setattr__(self, "boundary", float(self.boundary))

    @property
    def weights(self) -> int:
        """One for each eigenfunction."""
        return self.functions

    @float64
    def rows(self, u: np.ndarray) -> np.ndarray:
        """Eigenfunctions at u (n,) in [0, 1], (functions, n)."""
        return np.asarray(eigenfunctions(jnp.asarray(u) - 0.5, self.boundary, self.functions)).T

    def curves(self, smoothness: Mapping[str, Array], weights: Array, rows: Array) -> Array:
        """Curves (V, n). The root of S is written out: that of NumPyro's S has no gradient where S underflows."""
        amplitude, length = (smoothness[name][:, None] for name in ("amplitude", "lengthscale"))
        omega = sqrt_eigenvalues(self.boundary, self.functions, 1)
        root = amplitude * jnp.sqrt(math.sqrt(2 * math.pi) * length) * jnp.exp(-jnp.square(length * omega) / 4)
        return (root * weights) @ rows


@dataclass(frozen=True)
class BSplines:
    """Penalised cubic B-splines: second differences of the coefficients are normal, the straight line is apart.

    f(u) = trend (u - 1/2) + amplitude sum_k b_k(u) w_k. The b_k span what differences see, scaled so that the variance
    of their sum, averaged over [0, 1], is one: amplitude is a standard deviation, whatever the number of splines.

    Parameters
    ----------
    functions : int
        B-splines, at least 5, with equidistant knots.

    Raises
    ------
    ValueError
        For too few functions.

    References
    ----------
    Lang and Brezger (2004), "Bayesian P-splines"; Sørbye and Rue (2014) for scaling, they by the geometric mean.
    """

    functions: int = 20

    name: ClassVar[str] = "bspline"
    smoothness: ClassVar[Mapping[str, Constraint]] = {"trend": constraints.real, "amplitude": constraints.positive}

    def __post_init__(self) -> None:
        object.__setattr__(self, "functions", check_count("functions", self.functions, DEGREE + PENALISED))

    @property
    def weights(self) -> int:
        """One for each second difference."""
        return self.functions - PENALISED

    def rows(self, u: np.ndarray) -> np.ndarray:
        """The centred line, then the scaled b_k, at u (n,) in [0, 1]; (functions - 1, n)."""
        scale = np.sqrt(np.mean(np.sum(self._bent(np.linspace(0.0, 1.0, SCALED_ON)) ** 2, axis=0)))
        return np.concatenate([np.asarray(u)[None] - 0.5, self._bent(u) / scale])

    def _bent(self, u: np.ndarray) -> np.ndarray:
        """B-splines (weights, n) of the coefficients D' (D D')^-1, which have unit second differences."""
        inner = np.linspace(0.0, 1.0, self.functions - DEGREE + 1)
        outer = inner[1] * np.arange(1, DEGREE + 1)
        knots = np.concatenate([-outer[::-1], inner, 1.0 + outer])
        splines = BSpline.design_matrix(np.asarray(u, dtype=float), knots, DEGREE).toarray()
        differences = np.diff(np.eye(self.functions), PENALISED, axis=0)
        return (splines @ np.linalg.pinv(differences)).T

    def curves(self, smoothness: Mapping[str, Array], weights: Array, rows: Array) -> Array:
        """Curves (V, n)."""
        trend, amplitude = (smoothness[name][:, None] for name in ("trend", "amplitude"))
        return trend * rows[:1] + (amplitude * weights) @ rows[1:]


BASES: dict[str, type[Basis]] = {basis.name: basis for basis in (HilbertGP, BSplines)}


def basis_named(basis: str | Basis) -> Basis:
    """Look a basis up by name, with its defaults, or take one as it is.

    Raises
    ------
    ValueError
        For what is neither.
    """
    if isinstance(basis, tuple(BASES.values())):
        return basis
    if not isinstance(basis, str) or basis not in BASES:
        raise ValueError(
            f"basis must be one of {', '.join(BASES)}, or a HilbertGP or BSplines with settings of your own, "
            f"got {basis!r}."
        )
    return BASES[basis]()
