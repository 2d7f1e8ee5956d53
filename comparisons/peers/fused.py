"""Value and gradient of the log likelihood by hand: one pass over the observations, the gradient derived on paper.

With z = tau + beta' x, w = sigmoid(z), t_s = tanh(eta_s' x), f = softmax(t) and joint parts a = (1 - w) f0(y),
b = w f(y), the adapter's responsibility is r = b / (a + b), and

    d log p / dz = r - w,    d log p / d(eta_s' x) = r (1{y = s} - f_s) (1 - t_s^2).

Three classes, the last pinned at zero. Kernels take ``x`` of shape (d, n), the class positions ``y``, and the frozen
expert's probability of ``y``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


@jax.jit
def kernel(free: Array, x: Array, y: Array, f0: Array) -> tuple[Array, Array]:
    """Return log likelihood and gradient, in JAX with the derivative written out."""
    d = x.shape[0]
    z = free[1 : 1 + d] @ x + free[0]
    t = jnp.tanh(free[1 + d :].reshape(2, d) @ x)
    e = jnp.exp(t)
    total = e.sum(axis=0) + 1.0
    hot = (y == jnp.arange(2)[:, None]).astype(x.dtype)
    own = jnp.where(y < 2, (hot * e).sum(axis=0), 1.0)
    small = jnp.exp(-jnp.abs(z))
    up, down = jnp.where(z > 0, 1.0, small), jnp.where(z > 0, small, 1.0)
    a, b = down * f0, up * own / total
    r, w = b / (a + b), up / (1.0 + small)
    slope = r * (hot - e / total) * (1.0 - t * t)
    grad = jnp.concatenate([(r - w).sum()[None], x @ (r - w), (slope @ x.T).ravel()])
    return jnp.log((a + b) / (1.0 + small)).sum(), grad
