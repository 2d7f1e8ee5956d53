"""Frozen experts: log p(y | x) of a model that was trained before, with no parameters here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import jax
import numpy as np
from jax import Array
from jax.tree_util import register_dataclass
from scipy import special

from bayes_moe.ground.data import Covariates, Observations, check_real, float64, same_rows
from bayes_moe.ground.parameters import Field, Params
from bayes_moe.ground.tables import UNREADABLE
from bayes_moe.model.activations import Activation, activation_function

ROWS = 2**18  # observations that a frozen expert is evaluated on at once


@partial(
    register_dataclass,
    data_fields=[],
    meta_fields=["classes"],
    drop_fields=["source", "features", "labels", "names"],
)
@dataclass(frozen=True, eq=False)
class Frozen:
    """A pre-trained expert: no prior, gradient or draw reaches it.

    Make one with :meth:`logits`, :meth:`classifier` or :meth:`table`. Its ``source`` is called when data are
    prepared and stays behind when the model crosses into compiled code.

    Parameters
    ----------
    classes : int
    source : callable
        From covariates (n, d) to log-probabilities (n, classes).
    features : int or None
        How many features the source reads, where it knows.
    labels : tuple or None
        The labels of its classes, where it knows.
    names : tuple of str or None
        The names of its features, where it knows.
    """

    classes: int
    source: Callable[[object], np.ndarray] | None = None
    features: int | None = None
    labels: tuple[Hashable, ...] | None = None
    names: tuple[str, ...] | None = None
    experts: ClassVar[int] = 1

    @staticmethod
    def logits(eta0: object, activation: str | Activation = "linear") -> Frozen:
        """softmax_s(act(eta0_s' x)) with class vectors ``eta0`` of shape (classes, d)."""
        weights = check_real("frozen", eta0)
        act = activation_function(activation, "frozen_activation")
        if weights.ndim != 2 or len(weights) < 2 or weights.shape[1] < 1:
            raise ValueError(
                "frozen must have shape (classes, features) with at least two classes and at least 1 feature, "
                f"got {weights.shape}."
            )
        if not np.isfinite(weights).all():
            raise ValueError(f"frozen must be finite, got {weights.tolist()}.")

        return Frozen(len(weights), partial(_of_vectors, weights, act), weights.shape[1])

    @staticmethod
    def classifier(fitted: object) -> Frozen:
        """Wrap a fitted scikit-learn classifier that predicts probabilities; its ``classes_`` are kept."""
        if not hasattr(fitted, "classes_"):
            raise ValueError(f"frozen must be a fitted classifier, got {fitted!r} without classes_. Fit it first.")
        labels = tuple(label.item() if isinstance(label, np.generic) else label for label in fitted.classes_)
        names = getattr(fitted, "feature_names_in_", None)

        features = getattr(fitted, "n_features_in_", None)
        names = None if names is None else tuple(map(str, names))
        return Frozen(len(labels), partial(_of_classifier, fitted), features, labels, names)

    @staticmethod
    def table(log_probabilities: object, x: object = None) -> Frozen:
        """Log-probabilities of the rows that the model will see, and of no others.

        Covariates of other rows are refused. Without ``x`` the table belongs to the first covariates that it meets; a
        data frame's index is kept besides, and must be that of x where x has one.

        Parameters
        ----------
        log_probabilities : array-like, shape (n, classes)
        x : array-like, shape (n, d), optional
            The covariates of these rows, as the model will be given them.
        """
        table = check_real("frozen", log_probabilities)
        if table.ndim != 2:
            raise ValueError(f"frozen must have shape (n, classes), got {table.shape}.")
        source = Table(table, same_rows(x=x, frozen=log_probabilities))
        if x is not None:
            rows = check_real("x", x, order="F")
            if rows.ndim != 2:
                raise ValueError(f"x must be two-dimensional, a row for each row of the table, got shape {rows.shape}.")
            source(rows)
        return Frozen(table.shape[1], source)

    @property
    def tabled(self) -> bool:
        """Whether it knows its own rows alone."""
        return isinstance(self.source, Table)

    @property
    def fields(self) -> dict[str, Field]:
        """A frozen expert has no parameters."""
        return {}

    def evaluate(self, x: object) -> np.ndarray:
        """Log f0(s | x), checked, shape (classes, n)."""
        try:
            table = np.asarray(self.source(x), dtype=np.float64)
        except UNREADABLE as error:
            known = isinstance(error, ValueError) and str(error).startswith("frozen")
            raise (
                error if known else ValueError(f"frozen must give log-probabilities of these x: {error!r:.300}")
            ) from error
        if table.shape != (len(x), self.classes):
            raise ValueError(
                f"frozen must give log-probabilities of shape {(len(x), self.classes)}, got {table.shape}."
            )
        slices = (table[first : first + ROWS] for first in range(0, len(table), ROWS))
        if not all(np.allclose(np.exp(part).sum(axis=1), 1.0, rtol=0.0, atol=1e-6) for part in slices):
            raise ValueError("frozen must give log-probabilities whose exponentials sum to one in each row.")
        return np.ascontiguousarray(table.T)

    def log_probabilities(self, params: Params, covariates: Covariates) -> Array:
        """Log f0(s | x), shape (1, classes, n)."""
        return covariates.frozen[None]

    def log_density(self, params: Params, data: Observations) -> Array:
        """Log f0(y | x), shape (1, n)."""
        return data.frozen[None]

    def draw(self, rng_key: Array, params: Params, covariates: Covariates) -> Array:
        """Class positions that it draws, shape (1, n)."""
        return categorical(rng_key, self.log_probabilities(params, covariates))


# Sources of frozen experts: functions of a module, so that models can be pickled ---------------------------------


@float64
def _of_vectors(weights: np.ndarray, act: Activation, x: np.ndarray) -> np.ndarray:
    out = np.empty((len(x), len(weights)))
    with jax.ensure_compile_time_eval():  # x is concrete even where the caller is being traced
        for first in range(0, len(x), ROWS):  # many rows at once would need several times their memory
            rows = slice(first, first + ROWS)
            logits = act(jax.device_put(x[rows] @ weights.T))
            out[rows] = special.log_softmax(np.asarray(logits), axis=1)  # JAX would compile a program
    return out


def _of_classifier(fitted: object, x: np.ndarray) -> np.ndarray:
    names = getattr(fitted, "feature_names_in_", None)
    if names is not None:
        import pandas as pd  # the classifier was fitted on a data frame, so pandas is there

        x = pd.DataFrame(x, columns=names)
    if hasattr(fitted, "predict_log_proba"):
        return fitted.predict_log_proba(x)
    with np.errstate(divide="ignore"):  # log 0 is what is meant
        return np.log(fitted.predict_proba(x))


@dataclass(frozen=True, eq=False)
class Table:
    """Log-probabilities of known rows.

    Parameters
    ----------
    values : ndarray, shape (n, classes)
    index : pandas.Index or None
        The rows' names.
    known : dict
        The rows' fingerprint, from the first covariates on.
    """

    values: np.ndarray
    index: object = None
    known: dict[str, bytes] = field(default_factory=dict)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the table if x are its rows."""
        if len(x) != len(self.values):
            raise ValueError(
                f"frozen holds log-probabilities of {len(self.values)} rows, x has {len(x)}. "
                "Build the model again with Frozen.table(...) of these rows."
            )
        mine = hashlib.sha256(np.ascontiguousarray(np.transpose(x)) + 0.0).digest()  # -0 is 0
        if self.known.setdefault("x", mine) != mine:
            raise ValueError(
                "frozen holds log-probabilities of other rows than those of x: it belongs to the covariates that it "
                "was made for or met first. Make another with Frozen.table(log_probabilities, x) of these rows."
            )
        return self.values


def categorical(rng_key: Array, log_probabilities: Array) -> Array:
    """Draw positions (experts, n); the experts share their noise, since one of them is chosen in the end."""
    return jax.vmap(lambda logits: jax.random.categorical(rng_key, logits, axis=0))(log_probabilities)
