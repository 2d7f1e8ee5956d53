"""From parameters to coefficient curves: each coefficient is ``mean + f(u)``, f in a basis; a constant one its mean.

Subjects with several observations may each have an intercept, which all experts share: Normal(0, sd), sd times a
standard normal weight. The curves are those of a subject whose intercept is zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import register_dataclass
from numpyro.distributions import constraints

from bayes_moe.curves.bases import Basis
from bayes_moe.ground import parameters
from bayes_moe.ground.parameters import Field, Params
from bayes_moe.varying.model import VaryingCoefficient, as_params


@register_dataclass
@dataclass(frozen=True)
class SmoothModel:
    """A varying-coefficient model and the basis of its curves: what turns parameters into coefficients.

    Parameters
    ----------
    model : VaryingCoefficient
    basis : Basis
    subjects : int
        Number S of subjects with an intercept of their own.
    """

    model: VaryingCoefficient = jax.tree.static()
    basis: Basis = jax.tree.static()
    subjects: int = jax.tree.static(default=0)

    @property
    def fields(self) -> dict[str, Field]:
        """Means, shaped as the coefficients, and of each curve that varies its smoothness: ``alpha_amplitude`` (V,).

        With subjects also ``subject_sd``, the standard deviation of their intercepts.
        """
        fields = {}
        for name, field in self._present.items():
            fields[f"{name}_mean"] = Field(field.shape, field.dims)
            if count := len(self.varying(name)):
                for part, support in self.basis.smoothness.items():
                    fields[f"{name}_{part}"] = Field((count,), (f"{name}_curve",), support)
        return fields | ({"subject_sd": Field((), (), constraints.positive)} if self.subjects else {})

    @property
    def weights(self) -> dict[str, Field]:
        """Weights (V, M) of the basis functions, (S,) of subjects: not a matter of choice, they are standard normal."""
        weights = {
            f"{name}_weights": Field(
                (len(self.varying(name)), self.basis.weights), (f"{name}_curve", f"{name}_function")
            )
            for name in self._present
            if len(self.varying(name))
        }
        return weights | ({"subject_weights": Field((self.subjects,), ("subject",))} if self.subjects else {})

    @property
    def _present(self) -> dict[str, Field]:
        """Coefficients that there are any of: one component has no gate."""
        return {name: field for name, field in self.model.fields.items() if math.prod(field.shape)}

    def varying(self, name: str) -> np.ndarray:
        """Positions, in one raveled coefficient, of the entries that vary."""
        constant = self.model.select(self.model.constant)
        return np.flatnonzero(~constant[parameters.blocks(self.model.fields)[name]])

    def labels(self, name: str) -> list[str]:
        """Names of the curves of one coefficient."""
        mine = self.model.labels[parameters.blocks(self.model.fields)[name]]
        return [mine[index] for index in self.varying(name)]

    def intercepts(self, values: Params) -> Array:
        """Intercept of each subject, (S,)."""
        return values["subject_sd"] * values["subject_weights"]

    def coefficients(self, values: Params, rows: Array, subject: Array | None = None) -> Params:
        """Coefficients by name, the last axis that of ``rows``, the basis functions at some u.

        Parameters
        ----------
        values : dict of str to array
            What :attr:`fields` and :attr:`weights` declare.
        rows : array, shape (functions, n)
        subject : array of int, shape (n,), optional
            Whose coefficients: the subject's intercept is added to each expert's. Without, those of intercept zero.
        """
        flat = []
        for name, field in self._present.items():
            curves = jnp.broadcast_to(values[f"{name}_mean"].reshape(-1, 1), (math.prod(field.shape), rows.shape[1]))
            if len(where := self.varying(name)):
                smoothness = {part: values[f"{name}_{part}"] for part in self.basis.smoothness}
                curves = curves.at[where].add(self.basis.curves(smoothness, values[f"{name}_weights"], rows))
            flat.append(curves)
        params = as_params(self.model, jnp.concatenate(flat))
        if subject is None:
            return params
        return params | {"alpha": params["alpha"].at[:, 0].add(self.intercepts(values)[subject])}
