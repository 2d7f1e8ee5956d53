"""The varying-coefficient mixture of experts: every coefficient is a function of an index u.

    p(component c | x, u) = softmax_c(beta_c(u)' (1, x)),    component 0 is the reference, beta_0 = 0,
    y | component c       ~ f(. ; alpha_c(u)' (1, z), delta_c(u)).

All follows from :meth:`VaryingCoefficient.log_joint`, which takes each coefficient at each observation's own u: kernel
estimates, splines and Gaussian processes differ in where those come from, and in nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import register_dataclass

from bayes_moe.ground import parameters
from bayes_moe.ground.data import check_response, float64, same_rows
from bayes_moe.ground.keys import as_key
from bayes_moe.ground.numerics import logsumexp
from bayes_moe.ground.parameters import Field, Params
from bayes_moe.model.responses import Response
from bayes_moe.varying.indexed import IndexedObservations, check_covariates, check_index, check_range, check_size

LABEL = re.compile(r"(\w+)(?:\[([\d:]+(?:,[\d:]+)*)\])?")


@register_dataclass
@dataclass(frozen=True)
class VaryingCoefficient:
    """Mixture of experts whose coefficients are functions of u; made by :func:`bayes_moe.varying_coefficient`.

    Parameters
    ----------
    response : Response
        What the experts are.
    components : int
    gate_features, expert_features : int
        The p of x and the q of z.
    constant : tuple of str
        Coefficients declared constant in u, as in ``("delta", "alpha[:,1]")``.
    """

    response: Response = jax.tree.static()
    components: int = jax.tree.static()
    gate_features: int = jax.tree.static()
    expert_features: int = jax.tree.static()
    constant: tuple[str, ...] = jax.tree.static(default=())

    @cached_property
    def fields(self) -> dict[str, Field]:
        """Coefficients at one u: ``beta`` (C - 1, 1 + p), ``alpha`` (C, 1 + q); ``delta`` (C,) where there is one."""
        fields = {
            "beta": Field((self.components - 1, 1 + self.gate_features), ("adapter", "gate_feature")),
            "alpha": Field((self.components, 1 + self.expert_features), ("expert", "expert_feature"), score=False),
        }
        if self.response.dispersed:
            fields["delta"] = Field((self.components,), ("expert",), score=False)
        return fields

    @property
    def size(self) -> int:
        """Number P of coefficients at one u."""
        return parameters.size(self.fields)

    @property
    def labels(self) -> list[str]:
        """Name of every coefficient, as in ``alpha[0,1]``, in the order of the free vector."""
        return parameters.labels(self.fields)

    def select(self, names: Iterable[str], argument: str = "constant") -> np.ndarray:
        """Mask (P,) of coefficients: ``alpha`` is all of alpha, ``alpha[:,1]`` one covariate's, ``alpha[0,1]`` one.

        Raises
        ------
        ValueError
            For what names no coefficient.
        """
        if isinstance(names, str):
            raise ValueError(f"{argument} must be a sequence of names, got the string {names!r}. Pass ({names!r},).")
        mask = np.zeros(self.size, dtype=bool)
        for name in names:
            mask |= self._mask(name, argument)
        return mask

    def _mask(self, name: str, argument: str) -> np.ndarray:
        matched = LABEL.fullmatch(name) if isinstance(name, str) else None
        field = self.fields.get(matched[1]) if matched else None
        chosen = np.zeros(self.size, dtype=bool)
        if field is not None:
            inside = np.zeros(field.shape, dtype=bool)
            entries = (matched[2] or "").split(",") if matched[2] else []
            try:
                inside[tuple(slice(None) if entry == ":" else int(entry) for entry in entries)] = True
                chosen[parameters.blocks(self.fields)[matched[1]]] = inside.ravel()
            except (IndexError, ValueError):
                pass
        if not chosen.any():
            raise ValueError(
                f"{argument} must name coefficients of this model, got {name!r}. They are {', '.join(self.labels)}; "
                "alpha is all of alpha, alpha[:,1] one covariate's."
            )
        return chosen

    # The likelihood, for code ------------------------------------------------------------------------------

    def predictors(self, params: Params, data: IndexedObservations) -> Array:
        """Linear predictors of each observation, (C - 1 gate scores, C of the experts, C dispersions; n).

        Parameters
        ----------
        params : dict of str to array
            Each coefficient with a last axis of length n, or 1 where it is constant.
        data : IndexedObservations
        """
        scores = jnp.sum(params["beta"] * data.x, axis=1)
        rows = [scores, jnp.sum(params["alpha"] * data.z, axis=1)]
        if self.response.dispersed:
            rows.append(jnp.broadcast_to(params["delta"], (self.components, data.n)))
        return jnp.concatenate([jnp.broadcast_to(row, (len(row), data.n)) for row in rows])

    def split(self, predictors: Array) -> tuple[Array, Array, Array]:
        """Gate scores (C, ...), the reference's zeros first; experts' predictors; dispersions (zeros where none)."""
        free = self.components - 1
        eta = predictors[free : free + self.components]
        scores = jnp.concatenate([jnp.zeros_like(eta[:1]), predictors[:free]])
        return scores, eta, predictors[free + self.components :] if self.response.dispersed else jnp.zeros_like(eta)

    def log_joint_at(self, predictors: Array, y: Array, size: Array) -> Array:
        """Log p(component c | x, u) + log p(y | z, u, component c), (C, ...), from the predictors (K, ...)."""
        scores, eta, delta = self.split(predictors)
        return scores - logsumexp(list(scores)) + self.response.log_density(eta, delta, y, size)

    def log_density_at(self, predictors: Array, y: Array, size: Array) -> Array:
        """Log p(y | x, z, u) from the predictors (K, ...)."""
        return logsumexp(list(self.log_joint_at(predictors, y, size)))

    def log_joint(self, params: Params, data: IndexedObservations) -> Array:
        """Log p(component c | x, u) + log p(y | z, u, component c), shape (C, n). All else follows from it.

        Parameters
        ----------
        params : dict of str to array
            Each coefficient with a last axis of length n, its value at each observation's own u; or of length 1.
        data : IndexedObservations
        """
        return self.log_joint_at(self.predictors(params, data), data.y, data.size)

    def log_densities(self, params: Params, data: IndexedObservations) -> Array:
        """Log p(y | x, z, u) of each observation, shape (n,)."""
        return logsumexp(list(self.log_joint(params, data)))

    def draw(self, rng_key: Array, params: Params, data: IndexedObservations) -> Array:
        """Simulate a response for each observation: first the gate, then the chosen expert; (n,)."""
        gate_key, expert_key = jax.random.split(rng_key)
        scores, eta, delta = self.split(self.predictors(params, data))
        chosen = jax.random.categorical(gate_key, scores, axis=0)
        own = [jnp.take_along_axis(rows, chosen[None], axis=0)[0] for rows in (eta, delta)]
        return self.response.draw(expert_key, *own, data.size)

    # For people --------------------------------------------------------------------------------------------

    @float64
    def observe(
        self, x: object, z: object, u: object, y: object, *, size: object = 1.0, u_range: object = None
    ) -> IndexedObservations:
        """Check data, sort them by u, and turn them observation-last.

        Parameters
        ----------
        x : array-like, shape (n, p)
            Covariates of the gate, without intercept.
        z : array-like, shape (n, q)
            Covariates of the experts, without intercept.
        u : array-like, shape (n,)
            The index, in any order and unit: numbers, dates (then days since 1970, UTC), or durations (days).
        y : array-like, shape (n,)
        size : float or array-like, shape (n,)
            Trials of a binomial, exposure of a count.
        u_range : pair of float, optional
            The u that become 0 and 1; by default the least and the largest.

        Returns
        -------
        IndexedObservations

        Raises
        ------
        ValueError
            If an argument is of another shape, not finite or not real; if u is constant or leaves its range; if y is
            nothing that the experts can draw.
        """
        same_rows(x=x, z=z, u=u, y=y, size=size)
        columns, n = self._columns(x, z)
        index = check_index(u, n)
        response, sizes = check_response(y, 1, n), check_size(size, n)
        self.response.check(response, sizes)
        low, high = check_range(index, u_range)
        order = np.argsort(index, kind="stable")
        x, z = (np.vstack([np.ones(n), column.T])[:, order] for column in columns)
        scaled = (index[order] - low) / (high - low)
        return IndexedObservations(x, z, scaled, response[order], sizes[order], order, np.array([low, high]))

    @float64
    def simulate(self, rng_key: Array | int, params: Params, x: object, z: object, *, size: object = 1.0) -> np.ndarray:
        """Draw responses from the model, shape (n,).

        Parameters
        ----------
        rng_key : JAX key or int
        params : dict of str to array-like
            Coefficients with a row for each row of x, at its own u: ``beta`` (n, C - 1, 1 + p), ``alpha``
            (n, C, 1 + q), ``delta`` (n, C); or a single row.
        x, z : array-like, shapes (n, p) and (n, q)
        size : float or array-like, shape (n,)
            Trials of a binomial, exposure of a count.

        Raises
        ------
        ValueError
            For coefficients or covariates that do not fit.
        """
        same_rows(x=x, z=z, size=size)
        columns, n = self._columns(x, z)
        x, z = (np.vstack([np.ones(n), column.T]) for column in columns)
        blank, sizes = np.zeros(n), check_size(size, n)
        if self.response.name != "normal":
            self.response.check(blank, sizes)
        data = IndexedObservations(x, z, blank, blank, sizes, np.arange(n), np.array([0.0, 1.0]))
        return np.asarray(_draw(self, as_key(rng_key), self.last(params, n), data))

    def _columns(self, x: object, z: object) -> tuple[list[np.ndarray], int]:
        """Check both kinds of covariates, (n, p) and (n, q), and count their rows."""
        columns = [check_covariates("x", x, self.gate_features), check_covariates("z", z, self.expert_features)]
        n = len(columns[0])
        if len(columns[1]) != n:
            raise ValueError(f"z must have one row for each row of x: x has {n} rows, z has {len(columns[1])}.")
        return columns, n

    def last(self, params: Params, n: int) -> Params:
        """Check coefficients with a row for each of n values of u (or one row), and move that axis last."""
        fields = {name: Field((n, *field.shape), ("u", *field.dims)) for name, field in self.fields.items()}
        return {name: np.moveaxis(value, 0, -1) for name, value in parameters.check(fields, params).items()}

    def rows(self, params: Params, n: int) -> np.ndarray:
        """Check coefficients as :meth:`last` does, and flatten them to rows (n, P)."""
        values = self.last(params, n)
        return np.concatenate([values[name].reshape(-1, n) for name in self.fields]).T


def as_params(model: VaryingCoefficient, flat: Array) -> Params:
    """Coefficients by name, with a last axis, from (P, n)."""
    where = parameters.blocks(model.fields)
    return {name: flat[where[name]].reshape(*f.shape, flat.shape[-1]) for name, f in model.fields.items()}


def by_name(model: VaryingCoefficient, flat: np.ndarray) -> dict[str, np.ndarray]:
    """Coefficients by name from their labels' order on the last axis, (..., P)."""
    where = parameters.blocks(model.fields)
    return {name: flat[..., where[name]].reshape(*flat.shape[:-1], *f.shape) for name, f in model.fields.items()}


def permute(model: VaryingCoefficient, flat: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Renumber components: the new component c is the old ``order[..., c]``, gate scores against the new component 0.

    beta_c(u) becomes beta_order(c)(u) - beta_order(0)(u), the old reference having beta = 0.

    Parameters
    ----------
    model : VaryingCoefficient
    flat : ndarray, shape (..., P)
        Coefficients in the order of their labels.
    order : ndarray of int, shape (..., C)
        Broadcast against the leading axes of ``flat``.

    Returns
    -------
    ndarray, shape (..., P)
    """
    parts = by_name(model, flat)
    reference = np.zeros((*flat.shape[:-1], 1, 1 + model.gate_features))
    parts["beta"] = np.concatenate([reference, parts["beta"]], axis=-2)
    index = np.broadcast_to(order, (*flat.shape[:-1], model.components))
    for name, values in parts.items():
        parts[name] = np.take_along_axis(values, index[..., None] if name != "delta" else index, axis=index.ndim - 1)
    parts["beta"] = parts["beta"][..., 1:, :] - parts["beta"][..., :1, :]
    return np.concatenate([values.reshape(*flat.shape[:-1], -1) for values in parts.values()], axis=-1)


_draw = jax.jit(VaryingCoefficient.draw)
