"""Read me first: a mixture of experts is a gate plus experts, and everything follows from one function.

    log_joint(params, data) -> (experts, n)      log p(component i | x) + log p(y | x, component i)

A generative gate models x too: its part is then log p(component i, x), the log density that of (x, y), and what is said
about y given x subtracts log p(x).

========================  ======================================================
log density               logsumexp over the expert axis
responsibilities          softmax over the expert axis (the E-step)
class probabilities       the same, at every class
conditional log density   minus logsumexp of the gate's part, for a generative gate
simulation                sample the gate, then the chosen expert
maximum likelihood        EM or Newton on the summed log density (package ``mle``)
posterior                 the log density behind a NumPyro distribution (``nuts``)
Fisher information        derivatives of the log density (``information``)
========================  ======================================================

The methods here take ``x`` and ``y`` and are for people: any real dtype, a row for each observation, NumPy out. Those
that take ``data`` are for code, pure JAX on prepared data, and live in :mod:`bayes_moe.model.likelihood`.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import register_dataclass

from bayes_moe.ground import parameters
from bayes_moe.ground.data import (
    Covariates,
    Observations,
    check_count,
    check_response,
    check_weights,
    check_x,
    encode_labels,
    float64,
    label_array,
    same_rows,
)
from bayes_moe.ground.keys import as_key
from bayes_moe.ground.parameters import Field, Params
from bayes_moe.model.experts import Frozen, Multinomial, Normal
from bayes_moe.model.gates import Constant, Gaussian, Softmax
from bayes_moe.model.likelihood import Likelihood


class Prediction(NamedTuple):
    """What a model says of y at x, a row for each row of x.

    Parameters
    ----------
    mean, sd : ndarray, shape (n,), or (n, responses) if there are several
        Of p(y | x), in units of y.
    memberships : ndarray, shape (n, experts)
        p(component i | x).
    """

    mean: np.ndarray
    sd: np.ndarray
    memberships: np.ndarray


@partial(
    register_dataclass,
    data_fields=["gate", "experts"],
    meta_fields=[],
    drop_fields=["classes", "feature_names"],
)
@dataclass(frozen=True, eq=False)
class MoE(Likelihood):
    """A mixture of experts: p(y | x) = sum_i p(i | x) p(y | x, i).

    Parameters
    ----------
    gate : gate
        Gives log p(i | x), or log p(i, x) if it is generative.
    experts : tuple of experts
        Give log p(y | x, i), in the gate's order.
    classes : tuple of hashable
        The labels of the classes; empty for real responses.
    feature_names : tuple of str or None
        The names of the covariates, if they have any.
    """

    gate: Softmax | Constant | Gaussian
    experts: tuple[Frozen | Multinomial | Normal, ...]
    classes: tuple[Hashable, ...] = ()
    feature_names: tuple[str, ...] | None = None

    @property
    def fields(self) -> dict[str, Field]:
        """What the gate and the experts declare: name -> :class:`~bayes_moe.ground.parameters.Field`."""
        declared = dict(self.gate.fields)
        for expert in self.experts:
            declared |= expert.fields
        return declared

    @property
    def coords(self) -> dict[str, list]:
        """ArviZ coordinates of the parameters' dims."""
        sizes = {dim: size for f in self.fields.values() for dim, size in zip(f.dims, f.shape, strict=True)}
        named = {"class": self.classes, "feature": self.feature_names, "feature_bis": self.feature_names}
        return {dim: list(named.get(dim) or range(size))[:size] for dim, size in sizes.items()}

    def params(self, **values: object) -> dict[str, np.ndarray]:
        """Check parameter values by name and broadcast them to the declared shapes.

        Returns
        -------
        dict of str to ndarray

        Raises
        ------
        ValueError
            For unknown or missing names, and shapes or values that do not fit.
        """
        return parameters.check(self.fields, values)

    # Data in -----------------------------------------------------------------------------------------------

    @float64
    def prepare(self, x: object) -> Covariates:
        """Check covariates, turn them observation-last, evaluate the frozen expert.

        Parameters
        ----------
        x : array-like, shape (n, d)

        Returns
        -------
        Covariates

        Raises
        ------
        ValueError
            See :func:`bayes_moe.ground.data.check_x`.
        """
        array = check_x(x, self.gate.features, self.feature_names)
        frozen = [e for e in self.experts if isinstance(e, Frozen)]
        index = same_rows(frozen=frozen[0].source if frozen else None, x=x)
        return Covariates(np.ascontiguousarray(array.T), frozen[0].evaluate(array) if frozen else None, index)

    @float64
    def observe(self, x: object, y: object, weights: object | None = None) -> Observations:
        """Check covariates, labels and weights and turn them into what :meth:`log_joint` reads.

        Parameters
        ----------
        x : array-like, shape (n, d), or Covariates
        y : array-like, shape (n,)
            Labels among ``classes``, or real responses; (n, responses) if there are several.
        weights : array-like, shape (n,), optional
            How often each observation counts.

        Returns
        -------
        Observations

        Raises
        ------
        ValueError
            See :mod:`bayes_moe.ground.data`.
        """
        covariates = x if isinstance(x, Covariates) else self.prepare(x)
        if covariates.x.shape[0] != self.gate.features:
            raise ValueError(f"x must have {self.gate.features} features, got {covariates.x.shape[0]}.")
        same_rows(x=covariates, y=y, weights=weights)
        codes = self.check_y(y, covariates.n)
        checked = check_weights(weights, covariates.n)
        return jax.tree.map(np.asarray, self.condition(covariates, codes, checked))

    def check_y(self, y: object, n: int | None = None) -> np.ndarray:
        """Check responses: labels become class positions, real numbers stay."""
        return check_response(y, self.experts[-1].responses, n) if self.real else encode_labels(y, self.classes, n)

    # The likelihood, for people ----------------------------------------------------------------------------

    @float64
    def log_density(self, params: Params, x: object, y: object) -> np.ndarray:
        """Log p(y | x), shape (n,); log p(x, y) with a generative gate: what the likelihood sums.

        Parameters
        ----------
        params : dict of str to array
        x, y : array-like, shapes (n, d) and (n,)
        """
        return _numbers(
            "the log density", _log_densities(self, parameters.check(self.fields, params), self.observe(x, y))
        )

    @float64
    def conditional_log_density(self, params: Params, x: object, y: object) -> np.ndarray:
        """Log p(y | x), shape (n,), whatever the gate.

        Parameters
        ----------
        params : dict of str to array
        x, y : array-like, shapes (n, d) and (n,)
        """
        return _numbers(
            "the log density", _log_conditional(self, parameters.check(self.fields, params), self.observe(x, y))
        )

    @float64
    def responsibilities(self, params: Params, x: object, y: object) -> np.ndarray:
        """p(component i | x, y), shape (n, experts)."""
        joint = _log_joint(self, parameters.check(self.fields, params), self.observe(x, y))
        return _numbers("a responsibility", jax.nn.softmax(joint, axis=0).T)

    @float64
    def class_probabilities(self, params: Params, x: object) -> np.ndarray:
        """p(y = s | x), shape (n, classes)."""
        log_p = _log_class_probabilities(self, parameters.check(self.fields, params), self.prepare(x)).T
        return np.exp(_numbers("a class probability", log_p))

    @float64
    def memberships(self, params: Params, x: object) -> np.ndarray:
        """p(component i | x), shape (n, experts)."""
        log_w = _log_memberships(self, parameters.check(self.fields, params), jnp.asarray(self.prepare(x).x)).T
        return np.exp(_numbers("a membership", log_w))

    @float64
    def predict(self, params: Params, x: object) -> Prediction:
        """Mean and standard deviation of real responses at x, and the experts' memberships.

        Parameters
        ----------
        params : dict of str to array
        x : array-like, shape (n, d)

        Returns
        -------
        Prediction

        Raises
        ------
        ValueError
            For a model of classes.
        """
        if not self.real:
            raise ValueError("this model's responses are classes: use class_probabilities.")
        mean, sd, log_weights = _predict_moments(self, parameters.check(self.fields, params), self.prepare(x))
        flat = (_numbers("a prediction", m[0] if len(m) == 1 else m.T) for m in (mean, sd))
        return Prediction(*flat, np.exp(np.asarray(log_weights).T))

    @float64
    def simulate(self, rng_key: Array | int, params: Params, x: object) -> np.ndarray:
        """Draw labels or responses at x from the model, shape (n,), or (n, responses) if there are several.

        Parameters
        ----------
        rng_key : JAX key or int
        params : dict of str to array
        x : array-like, shape (n, d)
        """
        drawn = np.asarray(_draw(self, as_key(rng_key), parameters.check(self.fields, params), self.prepare(x)))
        return drawn if self.real else label_array(self.classes)[drawn]

    @float64
    def simulate_joint(self, rng_key: Array | int, params: Params, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw covariates from a generative gate, then responses at them.

        Parameters
        ----------
        rng_key : JAX key or int
        params : dict of str to array
        n : int

        Returns
        -------
        x, y : ndarray, shapes (n, d) and (n,)

        Raises
        ------
        ValueError
            If the gate does not model x, or ``n`` is no count.
        """
        if not self.gate.generative:
            raise ValueError("this model's gate says nothing about x: use simulate(rng_key, params, x).")
        n = check_count("n", n)
        x_key, y_key = jax.random.split(as_key(rng_key))
        values = jax.tree.map(jnp.asarray, parameters.check(self.fields, params))
        x = np.asarray(self.gate.draw_x(x_key, values, n)).T
        return x, self.simulate(y_key, params, x)


def _numbers(what: str, values: Array) -> np.ndarray:
    """Values of rows as an array, or a refusal where one is no number: what was to be added up had left the range."""
    array = np.asarray(values)
    bad = np.isnan(array)
    if bad.any():
        row = int(np.argmax(bad.reshape(len(array), -1).any(axis=1)))
        raise ValueError(
            f"params and x must be of scales whose products double precision holds: at row {row} {what} is no number. "
            "Standardise x, and y."
        )
    return array


def check_moe(moe: object) -> None:
    """Refuse what is no model of this package."""
    if not isinstance(moe, MoE):
        raise ValueError(f"moe must be a MoE, such as contaminated(...) returns, got {moe!r:.200}.")


# Compiled once for each model structure and shape; the model is an argument, never a closure.
_log_joint = jax.jit(MoE.log_joint)
_log_densities = jax.jit(MoE.log_densities)
_log_class_probabilities = jax.jit(MoE.log_class_probabilities)
_draw = jax.jit(MoE.draw)
_log_conditional = jax.jit(MoE.log_conditional)
_log_memberships = jax.jit(MoE.log_memberships)
_predict_moments = jax.jit(MoE.predict_moments)
