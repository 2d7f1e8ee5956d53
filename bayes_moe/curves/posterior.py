"""The posterior of a varying-coefficient mixture: coefficient curves as Gaussian processes or penalised splines, NUTS.

Each coefficient is ``mean + f(u)``, f smooth and in a basis (:mod:`bayes_moe.curves.bases`); a constant one is its
mean. The weights of the basis functions are standard normal a priori (a non-centred coding), so that smoothness
parameters and weights are nearly independent where data are few. The likelihood is ``VaryingCoefficient.log_joint``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from numbers import Real

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from jax import Array
from numpyro.distributions import Distribution, constraints

from bayes_moe import nuts
from bayes_moe.curves import draws as curve_draws
from bayes_moe.curves import starts as curve_starts
from bayes_moe.curves import tree as curve_tree
from bayes_moe.curves.bases import Basis, basis_named
from bayes_moe.curves.smooth import SmoothModel
from bayes_moe.curves.sparsity import SparseGate
from bayes_moe.ground.compilation import as_arrays
from bayes_moe.ground.data import check_count, float64, same_rows
from bayes_moe.ground.keys import as_key
from bayes_moe.ground.parameters import Params
from bayes_moe.nuts import modes
from bayes_moe.nuts.plainer import attempt
from bayes_moe.nuts.priors import Prior, resolve, warn_of_scale
from bayes_moe.varying.indexed import IndexedObservations, check_subject, make_grid
from bayes_moe.varying.model import VaryingCoefficient

# Priors of each part of a curve, for covariates and responses of unit scale; those of delta are narrower, since it is
# the logarithm of a scale. Length scales are shares of the range of u: 95% lie between 0.14 and 0.66.
DEFAULTS = {
    "mean": (dist.Normal, (0.0, 2.0)),
    "trend": (dist.Normal, (0.0, 2.0)),
    "amplitude": (dist.HalfNormal, (1.0,)),
    "lengthscale": (dist.LogNormal, (math.log(0.3), 0.4)),
    "sd": (dist.HalfNormal, (1.0,)),  # of subjects' intercepts
}
OF_DELTA = {
    "mean": (dist.Normal, (0.0, 1.0)),
    "trend": (dist.Normal, (0.0, 1.0)),
    "amplitude": (dist.HalfNormal, (0.5,)),
}
OWN = {"init": "chains start at the modes with most mass of n_init searches", "dtype": "chains run in double precision"}
FAR = 3.0  # prior standard deviations beyond which responses are warned of


def sparse_gate(
    concentration: float = 0.1, slope_sd: float = DEFAULTS["mean"][1][1]
) -> dict[str, Callable[[SmoothModel], Distribution]]:
    """Prior under which components that data do not need stay empty: an entry to merge over the defaults.

    With more components than needed, :func:`bayes_moe.curves.draws.filled` then tells how many data need.

    Parameters
    ----------
    concentration : float
        The softmax of the mean intercepts, weights at covariates of zero, is Dirichlet(concentration, ...).
    slope_sd : float
        Slopes' means are Normal(0, slope_sd), by default as without this prior. The curves' priors stay as they are.

    Raises
    ------
    ValueError
        For numbers that are not positive.

    Notes
    -----
    Empty components roam over their priors, next to where they would take observations: steps of the default
    length make some transitions diverge. ``target_accept_prob=0.99`` and a long warm-up help; let the gate judge.

    Examples
    --------
    >>> settings = {"num_warmup": 1000, "target_accept_prob": 0.99, "max_tree_depth": 8}
    >>> tree = curves.sample(model, x, z, u, y, rng_key=0, prior=curves.sparse_gate(), **settings)
    >>> print(diagnostics.check(tree, curve_draws.invariants(model, tree)))
    >>> print(curve_draws.filled(model, tree).mean())
    """
    for name, value in (("concentration", concentration), ("slope_sd", slope_sd)):
        if not isinstance(value, Real) or not 0 < value < math.inf:
            raise ValueError(f"{name} must be a positive number, got {value!r}. Try the default.")
    return {"beta_mean": lambda smooth: SparseGate(smooth.fields["beta_mean"].shape, concentration, slope_sd)}


class CurveMixture(Distribution):
    """A varying-coefficient mixture as a NumPyro distribution over the responses, in the data's order.

    Parameters
    ----------
    model : VaryingCoefficient
    params : dict of str to array
        Each coefficient with a last axis of length n, or 1.
    data : IndexedObservations
        Its ``y`` is not looked at.
    """

    pytree_data_fields = ("model", "params", "data")

    def __init__(
        self, model: VaryingCoefficient, params: Params, data: IndexedObservations, *, validate_args: bool | None = None
    ):
        self.model, self.params, self.data = model, params, data
        super().__init__(batch_shape=(data.n,), validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        """The real line, or counts."""
        return constraints.real if self.model.response.name == "normal" else constraints.nonnegative_integer

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw responses, shape sample_shape + (n,)."""
        keys = jax.random.split(key, math.prod(sample_shape))
        draws = jax.vmap(lambda k: self.model.draw(k, self.params, self.data))(keys)
        return draws.reshape(*sample_shape, self.data.n)

    def log_prob(self, value: Array) -> Array:
        """Log p(y | x, z, u) at responses ``value``, shape sample_shape + (n,)."""

        def one(y: Array) -> Array:
            return self.model.log_densities(self.params, replace(self.data, y=y))

        return jnp.vectorize(one, signature="(n)->(n)")(value)


def posterior_model(
    inputs: tuple[SmoothModel, Mapping[str, Distribution], IndexedObservations, Array, Array], y: Array | None = None
) -> None:
    """Priors, coefficient curves on the grid, then the mixture: what :func:`sample` runs.

    ``inputs`` are the model, a prior for each of its fields and weights, the data, and the basis functions at the
    data's u and at the grid's.
    """
    smooth, prior, data, rows, grid_rows = inputs
    values = {name: numpyro.sample(name, distribution) for name, distribution in prior.items()}
    for name, curves in smooth.coefficients(values, grid_rows).items():
        if curves.size:  # one component has no gate
            numpyro.deterministic(name, jnp.moveaxis(curves, -1, 0))
    if smooth.subjects:
        numpyro.deterministic("subject_intercept", smooth.intercepts(values))
    with numpyro.plate("obs_id", data.n):
        numpyro.sample("y", CurveMixture(smooth.model, smooth.coefficients(values, rows, data.subject), data), obs=y)


def priors_of(smooth: SmoothModel, prior: Prior | None = None) -> dict[str, Distribution]:
    """Merge a user's priors over the defaults, as :func:`bayes_moe.nuts.priors.resolve`; add those of weights."""
    of_gate = [name for name in prior or {} if name.startswith("beta_")]
    if of_gate and smooth.model.components == 1:
        raise ValueError(f"prior: {of_gate[0]!r} is about the gate, and one component has none. Leave it out.")
    parts = {name: name.split("_") for name in smooth.fields}
    defaults = {
        name: (OF_DELTA if which == "delta" else DEFAULTS).get(part, DEFAULTS[part])
        for name, (which, part) in parts.items()
    }
    standard = {
        name: dist.Normal(0.0, 1.0).expand(field.shape).to_event(len(field.shape))
        for name, field in smooth.weights.items()
    }
    return resolve(smooth, prior, defaults) | standard


@float64
def sample(
    model: VaryingCoefficient,
    x: object,
    z: object,
    u: object,
    y: object,
    *,
    rng_key: Array | int,
    basis: str | Basis = "hilbert",
    prior: Prior | None = None,
    size: object = 1.0,
    subject: object = None,
    u_range: object = None,
    grid: object = 20,
    n_init: int = 6,
    **settings: object,
) -> xr.DataTree:
    """Draw coefficient curves from their posterior with NUTS.

    Parameters
    ----------
    model : VaryingCoefficient
        Its ``constant`` coefficients do not vary with u.
    x, z : array-like, shapes (n, p) and (n, q)
        Covariates of the gate and of the experts, without intercepts.
    u, y : array-like, shape (n,)
        The index may be dates or durations: both are days inside, dates those since 1970 (UTC). The default priors are
        for normal responses and covariates of unit scale: standardise them, or give priors.
    rng_key : JAX key or int
    basis : "hilbert", "bspline", or a basis
        Gaussian processes or penalised splines: :class:`~bayes_moe.curves.bases.HilbertGP`,
        :class:`~bayes_moe.curves.bases.BSplines`.
    prior : mapping of str to Distribution, optional
        Merged over :data:`DEFAULTS`. Names are those of a coefficient and of what the prior is about: ``alpha_mean``
        (C, 1 + q), ``alpha_amplitude`` and ``alpha_lengthscale`` (a number for each curve), with splines also
        ``alpha_trend``; the same for ``beta`` and ``delta``. With subjects ``subject_sd``.
    size : float or array-like, shape (n,)
        Trials of a binomial, exposure of a count.
    subject : array-like, shape (n,), optional
        Whose observation each is, any hashable ids. Each subject has an intercept, Normal(0, ``subject_sd``), added to
        the linear predictor of every expert; curves are those of a subject with intercept zero.
    u_range : pair of float, optional
        The range of u; by default that of the data.
    grid : int, "own" or array-like
        Where curves are kept: so many equidistant points, every observed u, or points in units of u.
    n_init : int
        Mode searches, from random starts. Chains start around the mode with most mass by Laplace's approximation, and
        around others with at least a twentieth of its mass: see :mod:`bayes_moe.curves.starts`.
    **settings
        Of :func:`bayes_moe.nuts.sample`: ``num_warmup``, ``num_samples``, ``num_chains``, ``target_accept_prob``,
        ``max_tree_depth``, ``dense_mass``, ``until_ess``, ``log_likelihood``, ``posterior_predictive``,
        ``progress_bar``.

    Returns
    -------
    xarray.DataTree
        As from :func:`bayes_moe.nuts.sample`. In ``posterior``, beside the parameters, the curves: ``alpha`` (chain,
        draw, grid, expert, expert_feature), ``beta`` and ``delta``. In ``relabelled`` the same curves with components
        that mean the same in all draws: see :func:`bayes_moe.curves.draws.relabel`. Observations are the rows of the
        data given, called as pandas calls them. With subjects also ``subject_sd`` and ``subject_intercept`` (chain,
        draw, subject); log likelihoods and predictive draws are those of the same subjects. Of ``alpha`` and
        ``alpha_mean`` in one table ArviZ 1.3 swaps labels: ``az.summary(tree, var_names=["alpha"])``; its sensitivity
        analysis wants :func:`bayes_moe.curves.draws.for_sensitivity`.

    Raises
    ------
    ValueError
        For bad data, priors or settings.

    References
    ----------
    Riutort-Mayol et al. (2023) for the basis; arXiv:2601.01699 for the model.

    Examples
    --------
    >>> model = varying_coefficient("normal", components=2)
    >>> tree = curves.sample(model, x, z, u, y, rng_key=0, prior={"alpha_amplitude": dist.HalfNormal(0.5)})
    >>> print(diagnostics.check(tree, curve_draws.invariants(model, tree)))
    >>> print(credible.bands(model, tree).lower["alpha"])
    """
    check_count("n_init", n_init)
    for name, why in OWN.items():
        if name in settings:
            raise ValueError(f"{name} must be left out, got {settings[name]!r:.80}: {why}.")
    data, ids = model.observe(x, z, u, y, size=size, u_range=u_range), ()
    names = same_rows(x=x, z=z, u=u, y=y, size=size, subject=subject)
    if subject is not None:
        positions, ids = check_subject(subject, data.n)
        data = replace(data, subject=positions[data.order])
    points, smooth = make_grid(data, grid), SmoothModel(model, basis_named(basis), len(ids))
    _check_scale(model, np.asarray(data.y), prior)
    _check_covariates(data, prior)
    start_key, run_key = modes.child_keys(as_key(rng_key), 2)
    rows = [smooth.basis.rows(where) for where in (np.asarray(data.u), points)]
    inputs = as_arrays((smooth, priors_of(smooth, prior), data, *rows))
    starts = curve_starts.starts(posterior_model, (inputs, jnp.asarray(data.y)), start_key, n_init)
    tree = nuts.sample(posterior_model, inputs, data.y, rng_key=run_key, init=starts, dtype="float64", **settings)

    def described(tree: xr.DataTree) -> xr.DataTree:
        return curve_tree.described(smooth, tree, data, points, ids, seed=repr(rng_key), names=names)

    named = attempt("names of curves", ("with sites as they are", lambda: described(tree)), ("", lambda: tree))
    relabelled = "without the group relabelled", lambda: curve_draws.relabel(model, named)
    return attempt("labels that mean the same in all draws", relabelled, ("", lambda: named))


def _check_scale(model: VaryingCoefficient, y: np.ndarray, prior: Prior | None) -> None:
    """Warn of normal responses that the default prior of the experts' intercepts calls impossible."""
    if model.response.name != "normal" or "alpha_mean" in (prior or {}):
        return
    sd = DEFAULTS["mean"][1][1]
    advice = (
        f"the default priors are for responses of unit scale (alpha_mean: Normal(0, {sd:g})) and would pull the curves "
        "there. Standardise y, or give priors of alpha_mean, alpha_amplitude and delta_mean."
    )
    warn_of_scale("y", y, FAR * sd, advice, stacklevel=5)


def _check_covariates(data: IndexedObservations, prior: Prior | None) -> None:
    """Warn of covariates in units whose coefficients the default priors call impossible."""
    sd = DEFAULTS["mean"][1][1]
    for name, rows, own in (("x", data.x, "beta_mean"), ("z", data.z, "alpha_mean")):
        if len(rows) > 1 and own not in (prior or {}):
            advice = (
                f"the default priors are for covariates of unit scale ({own}: Normal(0, {sd:g})) and would decide the "
                f"answer. Standardise {name}, or give a prior of {own}."
            )
            warn_of_scale(name, np.asarray(rows)[1:].T, FAR * sd, advice, stacklevel=5)
