"""From parameters to coefficient curves: each coefficient is ``mean + f(u)``, f in a basis; a constant one its mean."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import register_dataclass

from bayes_moe import parameters
from bayes_moe.bases import Basis
from bayes_moe.parameters import Field, Params
from bayes_moe.varying import VaryingCoefficient, as_params


@register_dataclass
@dataclass(frozen=True)
class SmoothModel:
    """A varying-coefficient model and the basis of its curves: what turns parameters into coefficients.

    Parameters
    ----------
    model : VaryingCoefficient
    basis : Basis
    """

    model: VaryingCoefficient = jax.tree.static()
    basis: Basis = jax.tree.static()

    @property
    def fields(self) -> dict[str, Field]:
        """Means, shaped as the coefficients, and of each curve that varies its smoothness: ``alpha_amplitude`` (V,)."""
        fields = {}
        for name, field in self._present.items():
            fields[f"{name}_mean"] = Field(field.shape, field.dims)
            if count := len(self.varying(name)):
                for part, support in self.basis.smoothness.items():
                    fields[f"{name}_{part}"] = Field((count,), (f"{name}_curve",), support)
        return fields

    @property
    def weights(self) -> dict[str, Field]:
        """Weights (V, M) of the basis functions: not a matter of choice, they are standard normal."""
        return {
            f"{name}_weights": Field((len(self.varying(name)), self.basis.weights), (f"{name}_curve", "basis_function"))
            for name in self._present
            if len(self.varying(name))
        }

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

    def coefficients(self, values: Params, rows: Array) -> Params:
        """Coefficients by name, the last axis that of ``rows``, the basis functions at some u.

        Parameters
        ----------
        values : dict of str to array
            What :attr:`fields` and :attr:`weights` declare.
        rows : array, shape (functions, n)
        """
        flat = []
        for name, field in self._present.items():
            curves = jnp.broadcast_to(values[f"{name}_mean"].reshape(-1, 1), (math.prod(field.shape), rows.shape[1]))
            if len(where := self.varying(name)):
                smoothness = {part: values[f"{name}_{part}"] for part in self.basis.smoothness}
                curves = curves.at[where].add(self.basis.curves(smoothness, values[f"{name}_weights"], rows))
            flat.append(curves)
        return as_params(self.model, jnp.concatenate(flat))
