"""The hand-fused kernel of :mod:`comparisons.peers.fused` as a loop, compiled by numba."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(fastmath=True)
def kernel(free: np.ndarray, x: np.ndarray, y: np.ndarray, f0: np.ndarray) -> tuple[float, np.ndarray]:
    """Return log likelihood and gradient, observation by observation."""
    d, n = x.shape
    value, grad = 0.0, np.zeros(1 + 3 * d)
    for i in range(n):
        z, u, v = free[0], 0.0, 0.0
        for j in range(d):
            z += free[1 + j] * x[j, i]
            u += free[1 + d + j] * x[j, i]
            v += free[1 + 2 * d + j] * x[j, i]
        t, s = np.tanh(u), np.tanh(v)
        e0, e1 = np.exp(t), np.exp(s)
        total = e0 + e1 + 1.0  # tanh is at most one: nothing overflows
        own = e0 if y[i] == 0 else (e1 if y[i] == 1 else 1.0)
        # Divided by max(1, e^z), numerator and denominator of the mixture stay finite for any score.
        small = np.exp(-abs(z))
        up, down = (1.0, small) if z > 0 else (small, 1.0)
        a, b = down * f0[i], up * own / total
        value += np.log((a + b) / (1.0 + small))
        r, w = b / (a + b), up / (1.0 + small)
        gu = r * ((y[i] == 0) - e0 / total) * (1.0 - t * t)
        gv = r * ((y[i] == 1) - e1 / total) * (1.0 - s * s)
        grad[0] += r - w
        for j in range(d):
            grad[1 + j] += (r - w) * x[j, i]
            grad[1 + d + j] += gu * x[j, i]
            grad[1 + 2 * d + j] += gv * x[j, i]
    return value, grad
