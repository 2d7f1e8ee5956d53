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

from bayes_moe.ground.data import float64
from bayes_moe.ground.parameters import Field
from bayes_moe.model.moe import MoE
from bayes_moe.nuts.repulsion import Repulsive

Prior = Mapping[str, Distribution | Callable[[MoE], Distribution]]
Defaults = Mapping[str, tuple[type[Distribution], tuple[float, ...]] | Callable[[MoE], Distribution]]

LEAST = 0.05  # spread of data below which default priors are too wide
MOST = {"x": 6.0, "y": 15.0}  # location and spread beyond which those of a Gaussian gate are too narrow
FAR = 20.0  # times unit scale: a slope that moves a logit by one is ten default prior sds out, or a twentieth of one
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
        See :class:`bayes_moe.nuts.repulsion.Repulsive`.

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
    if not isinstance(prior, Mapping | None):
        raise ValueError(f"prior must be a mapping from parameter name to distribution, got {prior!r:.200}.")
    given = dict(prior or {})
    for name in given:
        if name not in moe.fields:
            near = difflib.get_close_matches(str(name), moe.fields, n=1)
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


def check_slopes(moe: MoE, prior: Prior | None, x: jax.Array) -> None:
    """Warn of covariates in units in which the default priors of slopes, Normal(0, 2), decide the answer.

    Parameters
    ----------
    moe : MoE
    prior : mapping, optional
        As given; slopes with priors of one's own are not judged.
    x : array, shape (d, n)

    Notes
    -----
    A covariate that logits feel moves them by about one over its spread, a slope of 1 / spread. With a spread below
    1/FAR the default prior holds that to be ten standard deviations out; above FAR it lets slopes move logits by 40, so
    that nearly every draw says yes or no for sure; and a centre FAR spreads from zero needs an intercept of FAR, again
    ten of its standard deviations out. Up to ten times unit scale, either way, nothing is said.
    """
    slopes = [name for name in ("beta", "eta") if name in moe.fields and name not in (prior or {})]
    if not slopes:
        return
    for column, values in enumerate(np.asarray(x)):
        centre, spread = _place_and_spread(values)
        offset = abs(centre) / spread if "beta" in slopes and "tau" not in (prior or {}) else 0.0
        if not 1 / FAR <= spread <= FAR or offset > FAR:
            named = column if moe.feature_names is None else moe.feature_names[column]
            warnings.warn(
                f"x: covariate {named!r} has centre {centre:.3g} and spread {spread:.3g}; the default priors of "
                f"{' and '.join(slopes)}, Normal(0, 2), are for covariates of unit scale around zero, and would decide "
                f"the answer. Standardise it, as units.Units does, or give priors in its units, such as {slopes[0]}: "
                f"dist.Normal(0, 2 / x.std(axis=0)). A frozen expert must be told: its vectors in the new units, or "
                "Frozen.table.",
                stacklevel=5,
            )
            return


def _place_and_spread(values: np.ndarray) -> tuple[float, float]:
    """Median, and root mean square distance from it of the values that are not it; of a constant, zero and its size.

    So a rare indicator has a spread of one, however rare, and a column of ones, for intercepts, too.
    """
    centre = float(np.median(values))
    away = (values - centre)[values != centre]
    if not away.size:
        return 0.0, abs(centre) or 1.0
    return centre, float(np.sqrt(np.mean(away.astype(float) ** 2)))


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
        prior = _tried(name, "the function of the model", lambda: prior(moe))
    if not isinstance(prior, Distribution):
        raise ValueError(
            f"prior: {name} must be a NumPyro distribution or a function of the model, got {prior!r:.200}."
        )
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


def _tried(name: str, what: str, call: Callable[[], object]) -> object:
    """Run what a user wrote: whatever it raises names the prior."""
    try:
        return call()
    except Exception as error:  # a user's code may raise anything
        raise ValueError(f"prior: {name}: {what} raised {type(error).__name__}: {str(error):.200}") from error


def _check_draws(name: str, field: Field, prior: Distribution) -> Distribution:
    """Draw from a prior and see whether the parameter may take such values, and whether it has a density there."""
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
    except Exception as error:  # of parameters that don't fit
        raise ValueError(
            f"prior: {name} must be a distribution that can be sampled; {kind} raised {error!r}."
        ) from error
    _check_numbers(name, kind, draws)
    if not np.all(field.support(draws)):
        raise ValueError(f"prior: {name} must lie in {field.support!r}; {kind} does not.")
    density = np.asarray(_tried(name, f"the density of {kind}", lambda: prior.log_prob(draws)))
    if np.isnan(density).any() or not np.isfinite(density).any():
        raise ValueError(
            f"prior: {name} must have a density at its own draws; {kind} has log density {density[0]}. Look for scales "
            "that are not positive, and for low above high."
        )
    return prior


def _check_numbers(name: str, kind: str, draws: np.ndarray) -> None:
    if draws.dtype.kind != "f":
        raise ValueError(f"prior: {name} must have draws of real numbers; {kind} gives dtype {draws.dtype}.")
    if np.isnan(draws).any():
        raise ValueError(
            f"prior: {name} must be a distribution whose draws are numbers; {kind} gives NaN: its parameters hold NaN, "
            "or, of Repulsive, no proposal keeps its distance: lower distance or raise scale."
        )
    if np.isinf(draws).any():
        raise ValueError(
            f"prior: {name} must have finite draws; {kind} gives infinite ones. Give it finite parameters."
        )
    if (draws == draws[0]).all():
        raise ValueError(
            f"prior: {name} must be spread; {kind} gives {draws[0].tolist()} each time. Look for scales that are not "
            "positive, and for low above high."
        )
