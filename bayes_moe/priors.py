"""Priors: a mapping from parameter name to NumPyro distribution, merged over the defaults.

A value is a distribution, which is broadcast to the parameter's shape, or a function of the model that returns
one. The defaults are weakly informative for covariates of unit scale; standardise yours, or give your own.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Mapping

import jax
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import Distribution, constraints

from bayes_moe.data import float64
from bayes_moe.moe import MoE
from bayes_moe.parameters import Field
from bayes_moe.repulsion import Repulsive

Prior = Mapping[str, Distribution | Callable[[MoE], Distribution]]
Defaults = Mapping[str, tuple[type[Distribution], tuple[float, ...]] | Callable[[MoE], Distribution]]

LEAST = 0.05  # spread of data below which default priors are too wide
MOST = {"x": 6.0, "y": 15.0}  # location and spread beyond which those of a Gaussian gate are too narrow
SCALE = 0.1  # of prior variances, for x and y of unit scale
SPARSE = 0.5  # below half the number of an expert's parameters, so that spare experts empty

DEFAULTS: Defaults = {
    "tau": (dist.Normal, (0.0, 2.0)),
    "beta": (dist.Normal, (0.0, 2.0)),
    "eta": (dist.Normal, (0.0, 2.0)),
    "pi": lambda moe: dist.Dirichlet(np.full(moe.fields["pi"].shape, SPARSE)),
    "c": (dist.Normal, (0.0, 2.0)),
    "Gamma": lambda moe: covariance(moe.fields["Gamma"]),
    "a": (dist.Normal, (0.0, 2.0)),
    "b": (dist.Normal, (0.0, 2.0)),
    "nu": lambda moe: covariance(moe.fields["nu"]),
}


def covariance(field: Field) -> Distribution:
    """Inverse Wishart with d + 2 degrees of freedom and scale SCALE x I; for variances its d = 1, an inverse gamma.

    It keeps variances from vanishing, where the likelihood has no bound.

    Parameters
    ----------
    field : Field
        The covariances' field.

    References
    ----------
    Rousseau and Mengersen (2011), for the Dirichlet prior beside it; Frühwirth-Schnatter (2006), ch. 6.
    """
    if field.support is not constraints.positive_definite:
        return dist.InverseGamma(1.5, SCALE / 2)
    return dist.InverseWishart(field.shape[-1] + 2.0, scale_tril=np.sqrt(SCALE) * np.eye(field.shape[-1]))


def repulsive(name: str, *, scale: float = 2.0, distance: float = 0.5) -> dict[str, Callable[[MoE], Distribution]]:
    """Prior under which the experts keep their distance in one parameter: an entry to merge over the defaults.

    Parameters
    ----------
    name : str
        A parameter of real entries with experts in front: ``c``, ``a`` or ``b`` of a Gaussian-gated mixture.
    scale, distance : float
        See :class:`bayes_moe.repulsion.Repulsive`.

    Examples
    --------
    >>> tree = nuts.sample(moe, x, y, rng_key=0, prior=priors.repulsive("c", distance=0.5))
    """
    return {name: lambda moe: Repulsive(moe.fields[name].shape, scale, distance)}


@float64
def resolve(moe: MoE, prior: Prior | None = None, defaults: Defaults = DEFAULTS) -> dict[str, Distribution]:
    """Merge a user's priors over the defaults and shape each like its parameter.

    Parameters
    ----------
    moe : MoE, or anything with ``fields``
    prior : mapping of str to Distribution or callable, optional
        For example ``{"beta": dist.Normal(0, 1)}``.
    defaults : mapping, optional
        In place of :data:`DEFAULTS`, for a model with parameters of other names.

    Returns
    -------
    dict of str to Distribution
        One for each parameter of the model, its event shape that of the parameter.

    Raises
    ------
    ValueError
        For an unknown name, a shape that does not fit, a discrete prior, or one outside the support.
    """
    given = dict(prior or {})
    for name in given:
        if name not in moe.fields:
            near = difflib.get_close_matches(name, moe.fields, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"prior: {name!r} is no parameter. This model has {', '.join(moe.fields)}.{hint}")
    return {
        name: _check_draws(name, field, _shaped(name, field, given[name], moe))  # a second, for JAX compiles a sampler
        if name in given
        else _shaped(name, field, _default(name, defaults), moe)
        for name, field in moe.fields.items()
    }


def check_scale(moe: MoE, prior: Prior | None, x: jax.Array, y: jax.Array) -> None:
    """Warn of data that the default priors of a Gaussian gate and its experts hold to be impossible.

    Parameters
    ----------
    moe : MoE
    prior : mapping, optional
        As given; what it says of location and scale is not judged.
    x : array, shape (d, n)
    y : array, shape (n,) or (n, q)
    """
    if "c" not in moe.fields:
        return
    for name, values, own in (("x", np.asarray(x).T, ("c", "Gamma")), ("y", np.asarray(y), ("b", "nu"))):
        if not set(own) <= set(prior or {}):
            warn_of_scale(
                name,
                values,
                MOST[name],
                f"the default priors of {own[0]} and {own[1]} are for data of unit scale, and would decide the answer. "
                f"Standardise with units.Units.of(x, y), or give priors of {own[0]} and {own[1]}.",
                stacklevel=6,
            )


def warn_of_scale(name: str, values: np.ndarray, most: float, advice: str, *, stacklevel: int) -> None:
    """Warn of values (n,) or (n, columns) whose place or spread lies beyond ``most``, or spread below LEAST."""
    centre, spread = np.atleast_1d(values.mean(axis=0)), np.atleast_1d(values.std(axis=0))
    worst = int(np.argmax(np.maximum(np.abs(centre), np.maximum(spread, LEAST / np.maximum(spread, 1e-300)))))
    if max(abs(centre[worst]), spread[worst]) > most or spread[worst] < LEAST:
        warnings.warn(
            f"{name} has mean {centre[worst]:.3g} and standard deviation {spread[worst]:.3g}; {advice}",
            stacklevel=stacklevel,
        )


def _default(name: str, defaults: Defaults) -> Distribution | Callable[[MoE], Distribution]:
    if name not in defaults:
        raise ValueError(f"prior: {name} has no default; give one.")
    default = defaults[name]
    return default if callable(default) else default[0](*default[1])


def _shaped(name: str, field: Field, prior: object, moe: MoE) -> Distribution:
    if isinstance(prior, type):
        raise ValueError(
            f"prior: {name} must be a NumPyro distribution or a function of the model, got the class "
            f"{prior.__name__}. Give its parameters, as in dist.Normal(0, 1)."
        )
    if not isinstance(prior, Distribution) and callable(prior):
        prior = prior(moe)
    if not isinstance(prior, Distribution):
        raise ValueError(f"prior: {name} must be a NumPyro distribution or a function of the model, got {prior!r}.")
    if prior.is_discrete:
        raise ValueError(f"prior: {name} is continuous, got the discrete {type(prior).__name__}.")
    batch = field.shape[: len(field.shape) - prior.event_dim]
    try:
        shaped = prior.expand(batch).to_event(len(batch))
    except (ValueError, TypeError):
        shaped = None
    if shaped is None or shaped.event_shape != field.shape:
        raise ValueError(
            f"prior: {name} must broadcast to shape {field.shape} {field.dims}, "
            f"got {tuple(prior.batch_shape) + tuple(prior.event_shape)}."
        )
    return shaped


def _check_draws(name: str, field: Field, prior: Distribution) -> Distribution:
    """Draw from a prior and see whether the parameter may take such values."""
    base = prior
    while hasattr(base, "base_dist"):
        base = base.base_dist
    kind = type(base).__name__
    try:
        draws = np.asarray(prior.sample(jax.random.key(0), (64,)))
    except NotImplementedError:
        raise ValueError(
            f"prior: {name} must be a proper distribution that can be sampled, got {kind}. "
            "Use a wide dist.Normal, for instance."
        ) from None
    if np.isnan(draws).any():
        raise ValueError(
            f"prior: {name} must be a distribution whose draws are numbers; {kind} gives NaN. Repulsive does where no "
            "proposal keeps its distance: lower distance or raise scale."
        )
    if not np.all(field.support(draws)):
        raise ValueError(f"prior: {name} must lie in {field.support!r}; {kind} does not.")
    return prior
