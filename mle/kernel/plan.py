"""How data are fitted: all that does not depend on the responses, checked once and used for every refit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from bayes_moe.ground.data import check_count, check_tolerance
from bayes_moe.varying.indexed import IndexedObservations, make_grid
from bayes_moe.varying.model import VaryingCoefficient
from mle.kernel.fit import CurveFit
from mle.local import labels, windows
from mle.local.kernels import Kernel, kernel_named
from mle.local.windows import Windows

ENGINES = ("consistent", "separate")


@dataclass(frozen=True, eq=False)
class Plan:
    """How data on these u are fitted: all that does not depend on the responses.

    Parameters
    ----------
    model : VaryingCoefficient
    grid : ndarray, shape (G,)
        On [0, 1].
    h : float
    kernel : Kernel
    engine : str
    windows : Windows
    free : ndarray of bool, shape (2 P,)
    constants : ndarray, shape (P,)
        Values of what is not free.
    fixed : dict of str to float
    max_iter, tol : int, float
    """

    model: VaryingCoefficient
    grid: np.ndarray
    h: float
    kernel: Kernel
    engine: str
    windows: Windows
    free: np.ndarray
    constants: np.ndarray
    fixed: dict[str, float]
    max_iter: int
    tol: float

    def held(self, theta: np.ndarray) -> np.ndarray:
        """The same theta (..., 2 P) with what is not free at its constant values, slopes zero."""
        return np.where(self.free, theta, np.concatenate([self.constants, np.zeros_like(self.constants)]))

    def holding(self, fixed: Mapping[str, float]) -> Plan:
        """Return the same plan with more coefficients held at given values."""
        if not isinstance(fixed, Mapping):
            raise ValueError(f"fixed must be a mapping from coefficient to value, got {fixed!r:.80}.")
        free, constants = self.free.copy(), self.constants.copy()
        for name, value in fixed.items():
            mask = self.model.select((name,), "fixed")
            if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not np.isfinite(value):
                raise ValueError(f"fixed: {name} must be held at a finite number, got {value!r}.")
            constants[mask] = value
            free[np.tile(mask, 2)] = False
        return replace(self, free=free, constants=constants, fixed=self.fixed | dict(fixed))

    @property
    def interchangeable(self) -> bool:
        """Whether components may be renumbered: what is held then stays as it is."""
        theta = self.held(np.cos(np.arange(2.0 * self.model.size)))
        swaps = [np.roll(np.arange(self.model.components), 1), swap_first(self.model.components)]
        renumbered = [labels.permute(self.model, theta, order) for order in swaps]
        return all(np.allclose(self.held(other), other) for other in renumbered)

    def averaged(self, mask: np.ndarray, values: np.ndarray) -> Plan:
        """Return the same plan with the coefficients of a mask (P,) held at values (P,)."""
        free = self.free & ~np.tile(mask, 2)
        return replace(self, free=free, constants=np.where(mask, values, self.constants))


def make_plan(
    model: VaryingCoefficient,
    data: IndexedObservations,
    h: object,
    *,
    grid: object = 20,
    kernel: str | Kernel = "epanechnikov",
    engine: str = "consistent",
    max_iter: int = 1000,
    tol: float = 1e-6,
    whole: bool = False,
) -> Plan:
    """Check the settings of a fit and cut its windows; ``whole`` as in :func:`mle.local.windows.build`."""
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}.")
    if engine == "separate" and model.components > labels.MOST:
        raise ValueError(
            f"components must be at most {labels.MOST} with engine='separate', whose labels are aligned over all "
            f"permutations, got {model.components}. Use engine='consistent'."
        )
    check_count("max_iter", max_iter)
    check_tolerance("tol", tol)
    shape, points = kernel_named(kernel), make_grid(data, grid)
    bandwidth = windows.check_bandwidth(model, data, points, h, shape)
    cut = windows.build(np.asarray(data.u), points, bandwidth, shape, whole=whole)
    every, zeros = np.ones(2 * model.size, dtype=bool), np.zeros(model.size)
    return Plan(model, points, bandwidth, shape, engine, cut, every, zeros, {}, max_iter, tol)


def plan_of(fit: CurveFit) -> Plan:
    """Plan of a fit that was made before: to fit other responses at the same covariates."""
    settings = {"grid": fit.grid, "kernel": fit.kernel, "engine": fit.engine, **fit.limits}
    return make_plan(fit.model, fit.data, fit.h, **settings).holding(fit.fixed)


def swap_first(components: int) -> np.ndarray:
    """The permutation that swaps the first two components; with the cyclic one it makes up all others."""
    order = np.arange(components)
    order[:2] = order[:2][::-1]
    return order
