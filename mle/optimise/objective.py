"""The log likelihood as SciPy's optimisers want it: a function of the free vector, with exact derivatives.

Each compiled function takes the model as an argument, so that there is one compilation for each model structure
and shape, never one for each fit or each M-step.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy import optimize

from bayes_moe.ground import blocks, parameters, threads
from bayes_moe.ground.compilation import jitted
from bayes_moe.ground.data import Observations
from bayes_moe.model.likelihood import log_likelihood_of_block
from bayes_moe.model.moe import MoE
from mle.optimise import coordinates

_DIVIDING = threading.Lock()  # climbs in several threads share one division
SHARDED = 10_000  # observations from which several devices share the work
SAME = 1e-6  # relative difference of two log likelihoods of the same data


def _log_likelihood(free: Array, moe: MoE, data: Observations) -> Array:
    return moe.log_likelihood(parameters.unflatten(moe.fields, free), data)


def _log_densities(free: Array, moe: MoE, data: Observations) -> Array:
    return moe.log_densities(parameters.unflatten(moe.fields, free), data)


def _hessian(free: Array, moe: MoE, data: Observations) -> Array:
    """Second derivatives, block by block, one direction at a time: all at once would leave the cache."""

    def of_block(block: Observations) -> Array:
        gradient = jax.grad(lambda free: log_likelihood_of_block(parameters.unflatten(moe.fields, free), moe, block))
        return jax.lax.map(lambda along: jax.jvp(gradient, (free,), (along,))[1], jnp.eye(len(free)))

    return blocks.total(of_block, data)


_value_and_grad = jax.value_and_grad(_log_likelihood)
_scores = jax.jacfwd(_log_densities)


@dataclass(frozen=True, eq=False)
class Objective:
    """Log likelihood of a model on data, over the free vector.

    Parameters
    ----------
    moe : MoE
    data : Observations
    bounds : array, shape (P, 2), or None
        Box for the free vector.
    floors : tuple of (name, float)
        Least values of variances, by parameter name, for closed-form M-steps.
    """

    moe: MoE
    data: Observations
    bounds: np.ndarray | None = None
    floors: tuple[tuple[str, float], ...] = ()

    @property
    def total(self) -> float:
        """Total weight: the number of observations where they count once each."""
        return float(self.data.n if self.data.weights is None else self.data.weights.sum())

    @functools.cached_property
    def coordinates(self) -> coordinates.Coordinates:
        """Coordinates in which units and zeros of the data play no part."""
        return coordinates.of(self.moe, self.data)

    def value(self, free: np.ndarray) -> float:
        """Log likelihood."""
        return float(self.total_of(_log_likelihood, free))

    def value_and_grad(self, free: np.ndarray) -> tuple[float, np.ndarray]:
        """Log likelihood and score."""
        value, grad = self.total_of(_value_and_grad, free)
        return float(value), grad

    def hessian(self, free: np.ndarray) -> np.ndarray:
        """Second derivatives of the log likelihood, (P, P)."""
        return self.total_of(_hessian, free)

    def log_densities(self, free: np.ndarray) -> np.ndarray:
        """Log density of each observation, unweighted, (n,)."""
        return np.asarray(self.call(_log_densities, free))

    def scores(self, free: np.ndarray) -> np.ndarray:
        """Score of each observation, unweighted, (n, P)."""
        return np.asarray(self.call(_scores, free))

    @property
    def parts(self) -> tuple[Observations, ...]:
        """The data; where there are several devices and rows enough, a part on each."""
        with _DIVIDING:
            return self._parts

    @functools.cached_property
    def _parts(self) -> tuple[Observations, ...]:
        devices = jax.local_devices()
        if len(devices) == 1 or self.data.n < SHARDED:
            return (self.data,)
        ends = np.linspace(0, self.data.n, len(devices) + 1).astype(int)
        return tuple(
            jax.device_put(jax.tree.map(lambda a, s=start, e=end: a[..., s:e], self.data), device)
            for device, start, end in zip(devices, ends[:-1], ends[1:], strict=True)
        )

    def total_of(self, function: Callable, free: np.ndarray) -> object:
        """Add up ``function(free, moe, part)``, sums over observations, over the parts; each device does its own."""
        threads.heed()
        begun = [jitted(function)(free, self.moe, part) for part in self.parts]  # returns before the work is done
        return functools.reduce(_add, [jax.tree.map(np.asarray, done) for done in begun])

    def thinned(self, rows: int) -> Objective:
        """Log likelihood of so many observations, evenly spaced; times ``n / rows`` it resembles the whole's."""
        step = self.data.n // rows
        return replace(self, data=jax.tree.map(lambda a: jnp.asarray(a[..., : step * rows : step]), self.data))

    def call(self, function: Callable, free: np.ndarray, *more: Array) -> object:
        """Run ``function(free, moe, data, *more)``, compiled once for each shape."""
        threads.heed()
        return jitted(function)(free, self.moe, self.data, *more)

    def check_fit(self, free: np.ndarray, log_likelihood: float) -> None:
        """Check that these are the data at which a fit has its log likelihood.

        Raises
        ------
        ValueError
        """
        here = self.value(free)
        if not abs(here - log_likelihood) <= SAME * max(1.0, abs(log_likelihood)):
            raise ValueError(
                f"x, y and weights must be those of the fit: its log likelihood is {log_likelihood:.6g}, of these data "
                f"it is {here:.6g}."
            )


def _add(left: object, right: object) -> object:
    return jax.tree.map(np.add, left, right)


def maximise(
    value_and_grad: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    scale: float,
    *,
    hessian: Callable[[np.ndarray], np.ndarray] | None = None,
    bounds: np.ndarray | None = None,
    max_iter: int = 500,
    gtol: float = 1e-8,
    callback: Callable[[np.ndarray, float], None] | None = None,
) -> optimize.OptimizeResult:
    """Maximise a smooth function with SciPy: exact trust region, BFGS, or L-BFGS-B inside a box.

    Parameters
    ----------
    value_and_grad : callable
    start : ndarray, shape (P,)
    scale : float
        The function is divided by it, so that ``gtol`` bounds the mean score.
    hessian : callable, optional
        With it, and without bounds, steps come from an exact trust region.
    bounds : ndarray, shape (P, 2), optional
    max_iter, gtol : int, float
    callback : callable, optional
        Called with the point and the function's value after each iteration; StopIteration ends the climb there.

    Returns
    -------
    scipy.optimize.OptimizeResult
        ``fun`` is the maximum itself, ``fun_at_start`` the value where the climb began.
    """
    first: list[float] = []

    def record(intermediate_result: optimize.OptimizeResult) -> None:
        if callback is not None:
            callback(intermediate_result.x, -scale * intermediate_result.fun)

    def negative(free: np.ndarray) -> tuple[float, np.ndarray]:
        value, grad = value_and_grad(free)
        if not first:
            first.append(value)
        return -value / scale, -grad / scale

    if bounds is not None:
        # ftol at rounding error: convergence is decided by the projected gradient.
        options = {"maxiter": max_iter, "gtol": gtol, "ftol": 1e-15, "maxcor": 30}
        result = optimize.minimize(
            negative, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options, callback=record
        )
    elif hessian is not None:
        result = optimize.minimize(
            negative,
            start,
            jac=True,
            hess=lambda free: -hessian(free) / scale,
            method="trust-exact",
            options={"maxiter": max_iter, "gtol": gtol},
            callback=record,
        )
    else:
        result = optimize.minimize(
            negative,
            start,
            jac=True,
            method="BFGS",
            options={"maxiter": max_iter, "gtol": gtol},
            callback=record,
        )
    result.fun, result.fun_at_start = -scale * result.fun, first[0]
    return result


def projected_gradient(objective: Objective, free: np.ndarray) -> np.ndarray:
    """Mean score, zero where a bound holds the parameter back."""
    grad = objective.value_and_grad(free)[1] / objective.total
    if objective.bounds is None:
        return grad
    low, high = objective.bounds.T
    held = ((free <= low) & (grad < 0)) | ((free >= high) & (grad > 0))
    return np.where(held, 0.0, grad)
