"""Normal densities and moments with observations last, for covariances that are full, diagonal or spherical.

How a covariance is stored says its form: (k, d, d) is full, (k, d) diagonal, (k,) spherical.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import constraints

from bayes_moe.ground.parameters import Field

FORMS = ("full", "diagonal", "spherical")


def covariance_field(form: str, count: int, size: int, dims: tuple[str, str]) -> Field:
    """Declare ``count`` covariances of ``size`` variables.

    Parameters
    ----------
    form : "full", "diagonal" or "spherical"
    count, size : int
    dims : (str, str)
        ArviZ's names for what is counted and for the variables.
    """
    repeated, variable = dims
    if form == "full":
        shape, names = (count, size, size), (repeated, variable, f"{variable}_bis")
        return Field(shape, names, constraints.positive_definite, score=False)
    if form == "diagonal":
        return Field((count, size), (repeated, variable), constraints.positive, score=False)
    return Field((count,), (repeated,), constraints.positive, score=False)


def factor(covariance: Array, size: int) -> tuple[Array, Array]:
    """Whitening factors W, with W S W' = I and lower triangular (k, d, d), and log det S, (k,)."""
    if covariance.ndim == 3:
        root = jnp.linalg.cholesky(covariance)
        eye = jnp.broadcast_to(jnp.eye(size, dtype=root.dtype), root.shape)
        log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(root, axis1=1, axis2=2)), axis=1)
        return jax.scipy.linalg.solve_triangular(root, eye, lower=True), log_det
    variances = variances_of(covariance, size)
    return jnp.eye(size) * variances[:, None] ** -0.5, jnp.sum(jnp.log(variances), axis=1)


def log_density(residual: Array, covariance: Array) -> Array:
    """Log N(residual; 0, S): residuals (k, d, n), covariances of k components; shape (k, n)."""
    size = residual.shape[1]
    white, log_det = factor(covariance, size)
    squared = 0.0
    for row in range(size):  # unrolled: one fused pass over the observations, several times a batched product
        z = sum(white[:, row, col, None] * residual[:, col] for col in range(row + 1))
        squared = squared + z**2
    return -0.5 * (squared + (log_det + size * jnp.log(2 * jnp.pi))[:, None])


def as_matrices(covariance: Array, size: int) -> Array:
    """Covariances of any form as matrices, (..., k, d, d); ``covariance`` may have leading axes if it is full."""
    if jnp.ndim(covariance) == 3:
        return jnp.asarray(covariance)
    return jnp.eye(size) * variances_of(jnp.asarray(covariance), size)[:, None]


def variances_of(covariance: Array, size: int) -> Array:
    """Diagonals of covariances of any form, (k, d)."""
    if covariance.ndim == 3:
        return jnp.diagonal(covariance, axis1=1, axis2=2)
    return covariance if covariance.ndim == 2 else jnp.repeat(covariance[:, None], size, axis=1)


def weighted_moments(rows: Array, r: Array) -> tuple[Array, Array, Array]:
    """Weighted mean and covariance of each component, in two passes.

    Parameters
    ----------
    rows : array, shape (d, n)
    r : array, shape (k, n)
        Weight of each observation in each component.

    Returns
    -------
    total : array, shape (k,)
    mean : array, shape (k, d)
    covariance : array, shape (k, d, d)
    """
    total = jnp.sum(r, axis=1)
    mean = (r @ rows.T) / total[:, None]
    residual = rows - mean[:, :, None]
    size = len(rows)
    upper = {(i, j): jnp.sum(r * residual[:, i] * residual[:, j], axis=1) for i in range(size) for j in range(i, size)}
    entries = [[upper[min(i, j), max(i, j)] / total for j in range(size)] for i in range(size)]
    return total, mean, jnp.moveaxis(jnp.array(entries), -1, 0)
