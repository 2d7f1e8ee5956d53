"""The posterior: NUTS draws of the model as NumPyro code, which ArviZ takes as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from numbers import Real

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array
from tqdm import tqdm

from bayes_moe.ground import threads
from bayes_moe.ground.compilation import as_arrays, memory_named
from bayes_moe.ground.data import Covariates, check_count, float64, same_rows
from bayes_moe.ground.parameters import Params
from bayes_moe.model import origin
from bayes_moe.model.moe import MoE, as_key
from bayes_moe.nuts import datatree, gibbs, sampler, transitions
from bayes_moe.nuts.chains import Settings
from bayes_moe.nuts.modes import AsItIs, Layout
from bayes_moe.nuts.numpyro_model import Mixture, model, posterior_model, summed_model
from bayes_moe.nuts.priors import Prior, check_scale, check_slopes, resolve

__all__ = ["Mixture", "class_probabilities", "model", "sample"]


@memory_named()
def sample(  # noqa: PLR0913 - one for each setting
    moe: MoE | Callable[..., None],
    x: object,
    y: object,
    *,
    rng_key: Array | int,
    prior: Prior | None = None,
    num_warmup: int = 300,
    num_samples: int = 1000,
    num_chains: int = 4,
    target_accept_prob: float | None = None,
    max_tree_depth: int = 10,
    dense_mass: bool = False,
    sweeps: int = 0,
    init: str | Mapping[str, object] | Sequence[Mapping[str, object]] = "mode",
    until_ess: float | None = None,
    log_likelihood: bool = False,
    posterior_predictive: bool = False,
    dtype: str = "mixed",
    progress_bar: bool = True,
) -> xr.DataTree:
    """Draw from the posterior with NUTS.

    Parameters
    ----------
    moe : MoE or callable
        A model of this package, or a NumPyro model ``model(x, y=None)`` of your own with an observed site ``y``.
        What it reads from outside itself may change between calls.
    x : array-like, shape (n, d)
        Passed on as it is to a model of your own (any pytree of arrays).
    y : array-like, shape (n,)
        Labels or responses; for a model of your own, what its observed site takes.
    rng_key : JAX key or int
    prior : mapping of str to Distribution or callable, optional
        Merged over :data:`bayes_moe.nuts.priors.DEFAULTS`.
    num_warmup, num_samples, num_chains, max_tree_depth, dense_mass
        As in NumPyro.
    target_accept_prob : float, optional
        As in NumPyro. By default 0.8; or 0.7 where the posterior is near normal, its log density falling by 1 to 5, a
        normal's by 2, two standard deviations from the mode along each whitened axis. Longer steps do no harm there.
        0.95 where no mode holds mass.
    sweeps : int
        Gibbs sweeps before each transition, for Gaussian-gated mixtures with conjugate priors, as the default ones:
        see :mod:`bayes_moe.nuts.gibbs`. With more experts than are needed NUTS alone hardly gets a spare one in or out.
    init : "mode", mapping or sequence of mappings
        Where chains start: overdispersed around the posterior modes found from a random start for each chain and at
        least four, or around the modes found from these values, chain by chain in turn, the mode with most mass first.
        Where no search ends at a mode that holds mass, chains start where the searches did, and warm up for 1000
        transitions at least (attributes ``preconditioner``, ``num_warmup``): see :mod:`bayes_moe.nuts.mass`.
    until_ess : float, optional
        Stop when every parameter's bulk effective sample size has reached this; ``num_samples`` draws at most.
    log_likelihood, posterior_predictive : bool
        Whether to add these groups: chains x draws x n numbers each. With a Gaussian gate the log likelihood is that of
        (x, y): compare such models with each other, or by ``loo.loo(..., conditional=True)`` with regressions.
    dtype : "mixed", "float64" or "float32"
        "mixed" is double precision but for each observation's log density, which the chains compute in single
        precision and add up in double: half the time. The error of their sum is measured at 50 of the draws;
        where it exceeds 0.01, the chains run again in double. Models of your own run in double.
    progress_bar : bool
        Shown for runs of over two seconds.

    Returns
    -------
    xarray.DataTree
        Groups ``posterior``, ``sample_stats``, ``log_prior``, ``observed_data``, ``constant_data`` and those on
        request. Attributes say how it was made, ``preconditioner``, ``rounding`` and ``ended`` among them. Ctrl-C ends
        the run early and keeps the draws made so far.

    Raises
    ------
    ValueError
        For bad data, priors or settings, before any work.
    MemoryError
        If the device runs out of memory.

    References
    ----------
    Hoffman and Gelman (2014), "The No-U-Turn Sampler".
    """
    settings = Settings(num_warmup, num_samples, num_chains, target_accept_prob, max_tree_depth, dense_mass, sweeps)
    _check(settings, init, until_ess, dtype)
    key_shape = jax.eval_shape(lambda: as_key(rng_key))
    with jax.enable_x64(dtype != "float32"), threads.one_blas_thread():
        target, prepare, model, model_args = _problem(moe, x, y, prior)
        shapes = jax.eval_shape(prepare, model_args)
        gibbs.check(moe, shapes, sweeps)
        between = transitions.Between(gibbs.refreshed, gibbs.rotated) if sweeps else None
        round_off = _rounded if dtype == "mixed" and isinstance(moe, MoE) else lambda args: None
        start = _starts(moe, init)
        transitions.compile_ahead(target, shapes, key_shape, settings, jax.eval_shape(round_off, shapes), between)
        key, args = as_key(rng_key), prepare(model_args)  # a tenth of a second, while others compile
        light = round_off(args)
        total = num_chains * (num_warmup + num_samples)
        asked = zip(datatree.ON_REQUEST, (log_likelihood, posterior_predictive), strict=True)
        extra = [name for name, on in asked if on]

        def meanwhile(layout: Layout) -> None:
            datatree.compile_ahead(model, model_args, layout, num_chains * num_samples, key, extra)

        with tqdm(total=total, desc="NUTS", unit="draw", delay=2, disable=not progress_bar) as bar:
            layout, draws = sampler.run(
                target, args, key, settings, start, until_ess, bar.update, light, meanwhile, between
            )
        groups = datatree.groups(model, model_args, layout, draws, settings, key, extra)
    about = {
        "seed": repr(rng_key),
        "dtype": dtype,
        "init": "mode" if start is None else "given",
        "preconditioner": draws.plan.preconditioner,
        "rounding": draws.rounding,
        "ended": draws.ended,
        **asdict(settings),
        "num_warmup": draws.plan.num_warmup,
        "target_accept_prob": draws.plan.target_accept_prob,
        **({"mode_lp": float(draws.plan.modes.log_densities[0])} if len(draws.plan.modes.free) else {}),
    }
    return datatree.assemble(groups, moe if isinstance(moe, MoE) else None, model_args, about, same_rows(x=x, y=y))


def _problem(
    moe: MoE | Callable, x: object, y: object, prior: Prior | None
) -> tuple[Callable, Callable[[tuple], tuple], Callable, tuple]:
    """Return target, prepare, model and args: NUTS moves on ``target(*prepare(args))``."""
    if isinstance(moe, MoE):
        covariates = x if isinstance(x, Covariates) else moe.prepare(x)
        same_rows(x=covariates, y=y)
        codes, shaped = moe.check_y(y, covariates.n), resolve(moe, prior)
        check_scale(moe, prior, covariates.x, codes)
        check_slopes(moe, prior, covariates.x)
        args = as_arrays(((moe, shaped, covariates), codes))
        return summed_model, _conditioned, posterior_model, args
    if not callable(moe):
        raise ValueError(f"moe must be a MoE or a NumPyro model, got {moe!r}.")
    if prior is not None:
        raise ValueError("prior is for a MoE; a model of your own states its priors itself.")
    same_rows(x=x, y=y)
    args = as_arrays((x, _array(y)))
    own = AsItIs.of(moe, args)
    return own, lambda args: args, own, args


def _array(y: object) -> object:
    """Turn a list or a pandas Series into an array; other trees stay as they are."""
    return np.asarray(y) if isinstance(y, list) or hasattr(y, "to_numpy") else y


def _conditioned(args: tuple) -> tuple:
    """Arguments of :func:`summed_model` from those of :func:`posterior_model`."""
    (moe, prior, covariates), codes = args
    return ((moe, prior, moe.condition(covariates, codes)),)


def _rounded(args: tuple) -> tuple:
    """Arguments of :func:`summed_model` with the data in single precision."""
    moe, prior, data = args[0]
    return ((moe, prior, jax.tree.map(lambda a: a.astype(jnp.float32), data)),)


def _starts(moe: MoE | Callable, init: str | Mapping | Sequence[Mapping]) -> list[Mapping[str, object]] | None:
    """Return the values to start from, checked where the model says what they are; None for random ones."""
    if isinstance(init, str):
        return None
    given = [init] if isinstance(init, Mapping) else list(init)
    return [moe.params(**values) for values in given] if isinstance(moe, MoE) else given


def _check(settings: Settings, init: object, until_ess: object, dtype: str) -> None:
    for name in ("num_warmup", "num_samples", "num_chains", "max_tree_depth", "sweeps"):
        check_count(name, getattr(settings, name), 0 if name in ("num_warmup", "sweeps") else 1)
    accept = settings.target_accept_prob
    if accept is not None and (not isinstance(accept, Real) or not 0 < accept < 1):
        raise ValueError(f"target_accept_prob must lie between 0 and 1, or be None, got {accept!r}.")
    several = isinstance(init, Sequence) and len(init) > 0 and all(isinstance(one, Mapping) for one in init)
    if not (isinstance(init, str) and init == "mode") and not isinstance(init, Mapping) and not several:
        raise ValueError(f"init must be 'mode', a mapping from parameter name to value, or several, got {init!r}.")
    if until_ess is not None and (not isinstance(until_ess, Real) or not until_ess > 0):
        raise ValueError(f"until_ess must be positive, or None, got {until_ess!r}.")
    if dtype not in ("mixed", "float64", "float32"):
        raise ValueError(f"dtype must be 'mixed', 'float64' or 'float32', got {dtype!r}.")


@float64
def class_probabilities(moe: MoE, idata: xr.DataTree, x: object) -> np.ndarray:
    """Posterior predictive probability of each class at new covariates.

    p(y = s | x, data) = mean over draws of p(y = s | x; draw)

    Parameters
    ----------
    moe : MoE
    idata : xarray.DataTree
        From :func:`sample`.
    x : array-like, shape (n, d)

    Returns
    -------
    ndarray, shape (n, classes)

    Raises
    ------
    ValueError
        For bad covariates, real responses, or draws of another model.
    """
    posterior = origin.check_model(moe, idata)
    if moe.real:
        raise ValueError("moe must be a model of classes: this one's responses are real numbers. Use moe.predict.")
    draws = jax.tree.map(jnp.asarray, datatree.flat_variables(posterior, moe.fields))
    return np.asarray(_mean_probabilities(moe, draws, moe.prepare(x)).T)


@jax.jit
def _mean_probabilities(moe: MoE, draws: Params, covariates: Covariates) -> Array:
    def add(total: Array, params: Params) -> tuple[Array, None]:
        return total + jnp.exp(moe.log_class_probabilities(params, covariates)), None

    classes, count = moe.experts[0].classes, len(next(iter(draws.values())))
    return jax.lax.scan(add, jnp.zeros((classes, covariates.n)), draws)[0] / count
