"""Kernels, and the constants of each that bands and tests need.

A kernel is a symmetric density on [-1, 1], or on the whole line. With w_i(u) = K((U_i - u) / h) / h, the
observations within h of u count, the near ones more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.integrate import trapezoid
from scipy.signal import fftconvolve


@dataclass(frozen=True)
class Kernel:
    """A kernel K, and the integrals of it that asymptotics need.

    Parameters
    ----------
    name : str
    density : callable
        K(t), elementwise.
    reach : float
        K vanishes beyond it.
    """

    name: str
    density: Callable[[np.ndarray], np.ndarray]
    reach: float = 1.0

    def __call__(self, t: np.ndarray) -> np.ndarray:
        """K(t), zero beyond its reach."""
        return np.where(np.abs(t) <= self.reach, self.density(np.clip(t, -self.reach, self.reach)), 0.0)

    @cached_property
    def breadth(self) -> float:
        """Half-width, in bandwidths, within which observations count: where K has fallen to a tenth, or its reach.

        An observation at the reach of an Epanechnikov kernel has no weight, one at eight sds of a normal next to none.
        """
        t, k = self._table
        return self.reach if self.reach <= 1.0 else float(np.abs(t[k > 0.1 * k.max()]).max())

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        t = np.linspace(-self.reach, self.reach, 20_001)
        return t, self(t)

    @cached_property
    def square(self) -> float:
        """Integral of K^2."""
        t, k = self._table
        return float(trapezoid(k**2, t))

    @cached_property
    def slope_square(self) -> float:
        """Integral of K'^2 over that of K^2: minus the curvature at 0 of the smoothed noise's correlation."""
        t, k = self._table
        return float(trapezoid(np.gradient(k, t) ** 2, t)) / self.square

    @cached_property
    def glrt_constants(self) -> tuple[float, float]:
        """r_K and c_K = K(0) - int K^2 / 2: r_K lambda is about chi-square with r_K c_K |U| / h degrees of freedom.

        r_K = c_K / int (K - K*K / 2)^2.
        """
        t, k = self._table
        step = t[1] - t[0]
        twice = fftconvolve(k, k) * step  # K*K on [-2 reach, 2 reach]
        half = (len(twice) - len(k)) // 2
        difference = np.pad(k, half) - twice / 2
        c = float(self(np.zeros(1))[0] - self.square / 2)
        return c / float(np.sum(difference**2) * step), c


def _epanechnikov(t: np.ndarray) -> np.ndarray:  # no lambdas: fits are pickled
    return 0.75 * (1 - t**2)


def _biweight(t: np.ndarray) -> np.ndarray:
    return 15 / 16 * (1 - t**2) ** 2


def _triweight(t: np.ndarray) -> np.ndarray:
    return 35 / 32 * (1 - t**2) ** 3


def _gaussian(t: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * t**2) / np.sqrt(2 * np.pi)


KERNELS = {
    kernel.name: kernel
    for kernel in (
        Kernel("epanechnikov", _epanechnikov),
        Kernel("biweight", _biweight),
        Kernel("triweight", _triweight),
        Kernel("gaussian", _gaussian, reach=8.0),
    )
}


def kernel_named(kernel: str | Kernel) -> Kernel:
    """Look a kernel up by name, or take one as it is."""
    if isinstance(kernel, Kernel):
        return kernel
    if not isinstance(kernel, str) or kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(KERNELS)} or a Kernel, got {kernel!r}.")
    return KERNELS[kernel]
