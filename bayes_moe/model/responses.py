"""Responses of varying-coefficient experts: log f(y; eta, delta) from a linear predictor and a log dispersion.

Each is elementwise: every argument is an array of shape (n,), or broadcasts to it. ``size`` is the number of trials of
a binomial and the exposure of a count; the normal leaves it aside. To add a response, write such a class and a row in
``RESPONSES``.
"""

from __future__ import annotations

from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import gammaln

LOG_2PI = 1.8378770664093453
NEARLY_POISSON = 18.0  # log k above which the log gammas of a negative binomial are taken by a series


class Response(Protocol):
    """What a response must supply; its instances carry no state, so that equal ones compile once."""

    name: str
    dispersed: bool  # whether there is a delta

    def log_density(self, eta: Array, delta: Array, y: Array, size: Array) -> Array:
        """Log f(y; eta, delta)."""

    def information(self, eta: Array, delta: Array, y: Array, size: Array) -> tuple[Array, Array]:
        """Positive curvature in eta and in delta: Fisher's where it is known; the two are orthogonal."""

    def mean(self, eta: Array, size: Array) -> Array:
        """Mean of y, in its own units."""

    def draw(self, rng_key: Array, eta: Array, delta: Array, size: Array) -> Array:
        """Draw y."""

    def link(self, y: np.ndarray, size: np.ndarray) -> np.ndarray:
        """Y on the scale of the predictor, kept finite: where fits begin."""

    def check(self, y: np.ndarray, size: np.ndarray) -> None:
        """Refuse responses that it cannot have drawn."""


class _Response:
    """Equality and hashing by class: instances have no state."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))


class NormalResponse(_Response):
    """N(y; eta, sigma^2) with delta = log sigma, in log units of y."""

    name, dispersed = "normal", True

    def log_density(self, eta: Array, delta: Array, y: Array, size: Array) -> Array:
        """Log N(y; eta, exp(2 delta))."""
        return -0.5 * jnp.square((y - eta) * jnp.exp(-delta)) - delta - 0.5 * LOG_2PI

    def information(self, eta: Array, delta: Array, y: Array, size: Array) -> tuple[Array, Array]:
        """Fisher's: exp(-2 delta) and 2."""
        return jnp.exp(-2 * delta), jnp.full_like(delta, 2.0)

    def mean(self, eta: Array, size: Array) -> Array:
        """Eta itself."""
        return eta

    def draw(self, rng_key: Array, eta: Array, delta: Array, size: Array) -> Array:
        """Eta + exp(delta) N(0, 1)."""
        return eta + jnp.exp(delta) * jax.random.normal(rng_key, eta.shape, eta.dtype)

    def link(self, y: np.ndarray, size: np.ndarray) -> np.ndarray:
        """Y itself."""
        return y

    def check(self, y: np.ndarray, size: np.ndarray) -> None:
        """Refuse a constant, whose variance vanishes."""
        if np.ptp(y) == 0:
            raise ValueError(f"y must vary, got {y[0]} in every row: a normal expert's variance would vanish.")


class BinomialResponse(_Response):
    """Binomial(y; size, sigmoid(eta)); no dispersion."""

    name, dispersed = "binomial", False

    def log_density(self, eta: Array, delta: Array, y: Array, size: Array) -> Array:
        """Y eta - size log(1 + exp(eta)) + log of the binomial coefficient."""
        ways = gammaln(size + 1) - gammaln(y + 1) - gammaln(size - y + 1)
        return y * eta - size * jax.nn.softplus(eta) + ways

    def information(self, eta: Array, delta: Array, y: Array, size: Array) -> tuple[Array, Array]:
        """Size p (1 - p); there is no delta."""
        return size * jax.nn.sigmoid(eta) * jax.nn.sigmoid(-eta), jnp.zeros_like(eta)

    def mean(self, eta: Array, size: Array) -> Array:
        """Size sigmoid(eta)."""
        return size * jax.nn.sigmoid(eta)

    def draw(self, rng_key: Array, eta: Array, delta: Array, size: Array) -> Array:
        """Binomial counts."""
        return jax.random.binomial(rng_key, size, jax.nn.sigmoid(eta), eta.shape, eta.dtype)

    def link(self, y: np.ndarray, size: np.ndarray) -> np.ndarray:
        """Log odds, half a count added."""
        return np.log((y + 0.5) / (size - y + 0.5))

    def check(self, y: np.ndarray, size: np.ndarray) -> None:
        """Refuse what is no count between 0 and size."""
        _check_counts(y)
        if (size != np.round(size)).any():
            raise ValueError(
                f"size must be whole numbers of trials for a binomial, got {size[size != np.round(size)][0]}."
            )
        if (y > size).any():
            first = int(np.argmax(y > size))
            raise ValueError(
                f"y must be at most size, the number of trials, got {y[first]:g} of {size[first]:g} at row {first}. "
                "Pass size=, a number or one for each row."
            )


class PoissonResponse(_Response):
    """Poisson(y; size exp(eta)); no dispersion."""

    name, dispersed = "poisson", False

    def log_density(self, eta: Array, delta: Array, y: Array, size: Array) -> Array:
        """Y log mu - mu - log y!, mu = size exp(eta)."""
        return y * (eta + jnp.log(size)) - size * jnp.exp(eta) - gammaln(y + 1)

    def information(self, eta: Array, delta: Array, y: Array, size: Array) -> tuple[Array, Array]:
        """Mu; there is no delta."""
        return size * jnp.exp(eta), jnp.zeros_like(eta)

    def mean(self, eta: Array, size: Array) -> Array:
        """Size exp(eta)."""
        return size * jnp.exp(eta)

    def draw(self, rng_key: Array, eta: Array, delta: Array, size: Array) -> Array:
        """Poisson counts."""
        return jax.random.poisson(rng_key, size * jnp.exp(eta), eta.shape).astype(eta.dtype)

    def link(self, y: np.ndarray, size: np.ndarray) -> np.ndarray:
        """Log rate, half a count added."""
        return np.log((y + 0.5) / size)

    def check(self, y: np.ndarray, size: np.ndarray) -> None:
        """Refuse what is no count."""
        _check_counts(y)


class NegativeBinomialResponse(_Response):
    """Negative binomial of mean mu = size exp(eta) and variance mu + mu^2 exp(-delta)."""

    name, dispersed = "negative-binomial", True

    def log_density(self, eta: Array, delta: Array, y: Array, size: Array) -> Array:
        """Log Gamma(y + k) / (Gamma(k) y!) + k log k + y log mu - (y + k) log(mu + k), k = exp(delta)."""
        log_mean = eta + jnp.log(size)
        rise = jnp.where(delta > NEARLY_POISSON, _rise_of_large(delta, y), _rise(delta, y))
        return rise - gammaln(y + 1) + y * log_mean - (y + jnp.exp(delta)) * jax.nn.softplus(log_mean - delta)

    def information(self, eta: Array, delta: Array, y: Array, size: Array) -> tuple[Array, Array]:
        """Fisher's in eta, mu / (1 + mu / k); in delta the size of the observed curvature."""
        mean = size * jnp.exp(eta)
        score = jax.grad(lambda d: jnp.sum(self.log_density(eta, d, y, size)))
        _, curvature = jax.jvp(score, (delta,), (jnp.ones_like(delta),))
        return mean / (1 + mean * jnp.exp(-delta)), jnp.abs(curvature)

    def mean(self, eta: Array, size: Array) -> Array:
        """Size exp(eta)."""
        return size * jnp.exp(eta)

    def draw(self, rng_key: Array, eta: Array, delta: Array, size: Array) -> Array:
        """Poisson counts of gamma rates."""
        rate_key, count_key = jax.random.split(rng_key)
        k = jnp.broadcast_to(jnp.exp(delta), eta.shape)
        rate = size * jnp.exp(eta) * jax.random.gamma(rate_key, k, eta.shape, eta.dtype) / k
        return jax.random.poisson(count_key, rate, eta.shape).astype(eta.dtype)

    def link(self, y: np.ndarray, size: np.ndarray) -> np.ndarray:
        """Log rate, half a count added."""
        return np.log((y + 0.5) / size)

    def check(self, y: np.ndarray, size: np.ndarray) -> None:
        """Refuse what is no count."""
        _check_counts(y)


def _rise(delta: Array, y: Array) -> Array:
    """Log Gamma(y + k) / (Gamma(k) k^y), where k = exp(delta) is not large."""
    k = jnp.exp(jnp.minimum(delta, NEARLY_POISSON))
    return gammaln(y + k) - gammaln(k) - y * delta


def _rise_of_large(delta: Array, y: Array) -> Array:
    """Return the first two terms in 1 / k of the same, whose log gammas cancel to noise: y / k should be small."""
    one = jnp.exp(-jnp.maximum(delta, NEARLY_POISSON))
    return y * (y - 1) * one / 2 * (1 - (2 * y - 1) * one / 6)


def _check_counts(y: np.ndarray) -> None:
    bad = (y < 0) | (y != np.round(y))
    if bad.any():
        first = int(np.argmax(bad))
        raise ValueError(
            f"y must be counts, 0, 1, 2, ..., got {y[first]} at row {first} ({int(bad.sum())} such values). "
            "Round them, or use experts='normal'."
        )


RESPONSES: dict[str, Response] = {
    response.name: response
    for response in (NormalResponse(), BinomialResponse(), NegativeBinomialResponse(), PoissonResponse())
}
