"""From draws to the ``DataTree`` that ArviZ takes as it is."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence

import arviz_base
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array
from numpyro import handlers
from numpyro.infer.util import constrain_fn

from bayes_moe.ground.compilation import ahead, compiled
from bayes_moe.ground.tables import row_labels
from bayes_moe.ground.version import VERSION
from bayes_moe.model.moe import MoE
from bayes_moe.model.origin import data_hash, described
from bayes_moe.nuts import plainer
from bayes_moe.nuts.chains import Settings
from bayes_moe.nuts.modes import Layout, Model
from bayes_moe.nuts.plainer import attempt
from bayes_moe.nuts.sampler import Draws

__all__ = ["assemble", "compile_ahead", "data_hash", "flat_draws", "flat_variables", "groups", "labels_for_coords"]

Groups = dict[str, dict[str, np.ndarray]]
ON_REQUEST = LOG_LIKELIHOOD, PREDICTIVE = "log_likelihood", "posterior_predictive"  # draws x n numbers each
GATE, APART = "gate_", ("feature", "feature_bis")  # dims of the gate that go by a name of their own
BATCH = 50  # draws evaluated side by side; a divisor of the usual numbers of draws, or the rest compiles apart


def groups(
    model: Model,
    args: tuple,
    layout: Layout,
    draws: Draws,
    settings: Settings,
    rng_key: Array,
    extra: Sequence[str] = (),
) -> Groups:
    """Evaluate what the groups of a DataTree hold, each array with leading axes (chain, draw).

    Parameters
    ----------
    model, args, layout, draws, settings
        As :func:`bayes_moe.nuts.sampler.run` takes and returns them.
    rng_key : JAX key
        For the posterior predictive draws.
    extra : sequence of str
        Of ``ON_REQUEST``.
    """
    chains = draws.free.shape[:2]

    def evaluated(extra: Sequence[str]) -> Groups:
        free = draws.free.reshape(-1, layout.size)
        keys = jax.random.split(jax.random.fold_in(rng_key, 1), len(free)) if PREDICTIVE in extra else None
        evaluate = _evaluation(model, layout, tuple(extra))
        values = compiled(evaluate, free, keys, args)(free, keys, args)
        return jax.tree.map(lambda a: np.asarray(a).reshape(*chains, *a.shape[1:]), values)

    def unconstrained() -> Groups:
        parts = np.split(draws.free, layout.cuts, axis=-1)
        sites = zip(layout.shapes, parts, strict=True)
        return {"posterior": {f"{name}_unconstrained": part.reshape(*chains, *shape) for (name, shape), part in sites}}

    fewer = [(one,) for one in extra] if len(extra) > 1 else []
    ways = [(_without(less), functools.partial(evaluated, less)) for less in (tuple(extra), *fewer)]
    if extra:
        ways.append((_without(()), functools.partial(evaluated, ())))
    values = attempt("the model at its draws", *ways, ("", unconstrained))
    out: Groups = {"posterior": {}, "sample_stats": _sample_stats(draws, settings), "log_prior": {}}
    return out | {name: {} for name in extra if name in values} | values


def _without(extra: Sequence[str]) -> str:
    """Say what is gone where these could not be had."""
    return f"without {' and '.join(extra)} (or one of them)" if extra else "unconstrained as they were made"


def compile_ahead(
    model: Model, args: tuple, layout: Layout, draws: int, rng_key: Array, extra: Sequence[str] = ()
) -> None:
    """Begin to compile what :func:`groups` will run on so many draws in all, and have xarray ready for them."""
    free = jax.ShapeDtypeStruct((draws, layout.size), jnp.result_type(float))
    keys = jax.ShapeDtypeStruct((draws,), rng_key.dtype) if PREDICTIVE in extra else None
    ahead((_evaluation(model, layout, tuple(extra)), free, keys, args))
    xr.DataArray(0)  # the first of a process imports Dask, a third of a second: now, while other threads compile


@functools.lru_cache(maxsize=64)
def _evaluation(model: Model, layout: Layout, extra: tuple[str, ...]) -> Callable[..., Groups]:
    """Everything wanted of each draw, as a function of flat draws, keys and the model's arguments."""

    def evaluate(free: Array, keys: Array | None, args: tuple) -> Groups:
        def one(draw: tuple[Array, Array | None]) -> Groups:
            return _one_draw(model, args, layout, *draw, extra)

        return jax.lax.map(one, (free, keys), batch_size=BATCH)

    return evaluate


def _one_draw(
    model: Model, args: tuple, layout: Layout, free: Array, key: Array | None, extra: tuple[str, ...]
) -> Groups:
    values = constrain_fn(model, args, {}, layout.sites(free), return_deterministic=True)
    trace = handlers.trace(handlers.substitute(model, data=values)).get_trace(*args)
    sampled = {name: site for name, site in trace.items() if site["type"] == "sample"}

    def log_prob(name: str) -> Array:
        return sampled[name]["fn"].log_prob(sampled[name]["value"])

    out = {"posterior": values, "log_prior": {name: jnp.sum(log_prob(name)) for name, _ in layout.shapes}}
    observed = [name for name, site in sampled.items() if site["is_observed"]]
    if LOG_LIKELIHOOD in extra:
        out[LOG_LIKELIHOOD] = {name: log_prob(name) for name in observed}
    if PREDICTIVE in extra:
        unobserved = handlers.seed(handlers.substitute(model, data=values), key)
        predicted = handlers.trace(unobserved).get_trace(*args[:-1])
        out[PREDICTIVE] = {name: predicted[name]["value"] for name in observed}
    return out


def _sample_stats(draws: Draws, settings: Settings) -> dict[str, np.ndarray]:
    stats = draws.stats
    depth = np.floor(np.log2(np.maximum(stats["num_steps"], 1))).astype(int) + 1
    return {
        "lp": -stats["potential_energy"],
        "energy": stats["energy"],
        "acceptance_rate": stats["accept_prob"],
        "n_steps": stats["num_steps"],
        "tree_depth": depth,
        "reached_max_treedepth": depth >= settings.max_tree_depth,
        "diverging": stats["diverging"],
        "step_size": stats["step_size"],
        "virial": stats["virial"],
    }


def assemble(
    groups: Groups, moe: MoE | None, args: tuple, about: Mapping[str, object], index: object = None
) -> xr.DataTree:
    """Name dims and coords, add the data, and write down how it was made.

    Parameters
    ----------
    groups : dict
        From :func:`groups`.
    moe : MoE or None
        None for a user's own model, whose dims are not known.
    args : tuple
        What the model was run on.
    about : mapping
        Scalars for the root attributes.
    index : pandas.Index, optional
        Names of the rows, for ``obs_id`` of a model of this package.

    Returns
    -------
    xarray.DataTree
    """
    attrs = {"library": "bayes-moe", "library_version": VERSION, "data_hash": data_hash(args), **about}
    several = moe is not None and np.ndim(args[1]) > 1
    dims = {"y": ["obs_id", "response"] if several else ["obs_id"], "virial": ["free"]}
    coords: dict[str, list | np.ndarray] = {}
    if moe is not None:
        dims |= {name: [_dim(moe, name, dim) for dim in field.dims] for name, field in moe.fields.items()}
        coords = {name: labels_for_coords(values) for name, values in moe.coords.items()}
        coords |= {GATE + name: values for name, values in coords.items() if name in APART}
        coords["obs_id"] = row_labels(index, len(args[1]))  # no list: ArviZ copies it for each variable
        attrs["classes"] = json.dumps([str(label) for label in moe.classes])
        attrs |= {"model": json.dumps(described(moe)), "data_hash": data_hash((args[0][2].x, args[1]))}
        attrs |= {"exchangeable": moe.experts[-1].dim} if moe.exchangeable else {}
        groups = groups | _data_groups(args)
    elif isinstance(args[-1], jax.Array) and args[-1].ndim:
        groups = groups | {"observed_data": {"y": np.asarray(args[-1])}}
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in attrs.items()}
    plain = {key: json.dumps(value) if isinstance(value, bool) else value for key, value in plain.items()}
    groups = dict(groups)
    constants = groups.pop("constant_data", {})
    if moe is None:
        groups = plainer.renamed(groups, dims)
    log_prior = groups.pop("log_prior")
    tree = plainer.tree(groups, dims, coords, plain)
    if log_prior:
        of_sums = {name: [] for name in log_prior}
        tree["log_prior"] = arviz_base.from_dict({"log_prior": log_prior}, dims=of_sums)["log_prior"]
    if constants:
        tree["constant_data"] = _constant_data(moe, constants, coords["obs_id"])
    return tree


def _dim(moe: MoE, name: str, dim: str) -> str:
    """Name of a parameter's dim in the tree.

    The gate's features are a dim of their own. Tables such as ArviZ's summary have the entries of all variables in the
    order in which their dims first occur, and labels in each variable's own: after ``beta``, with features alone,
    those of ``eta``, with classes and features, would be swapped.
    """
    return GATE + dim if dim in APART and name in moe.gate.fields else dim


def flat_draws(posterior: xr.DataTree, moe: MoE) -> dict[str, np.ndarray]:
    """Return the parameters of all chains in a row: arrays with one leading axis."""
    return flat_variables(posterior.dataset, moe.fields)


def flat_variables(group: xr.Dataset, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Return some variables of all chains in a row: arrays with one leading axis."""
    stacked = group[list(names)].stack(sample=("chain", "draw")).transpose("sample", ...)
    return {name: values.values for name, values in stacked.data_vars.items()}


def _data_groups(args: tuple) -> Groups:
    (_, _, covariates), codes = args
    constants = {"x": np.asarray(covariates.x).T}
    if covariates.frozen is not None:
        constants["frozen_log_proba"] = np.asarray(covariates.frozen).T
    return {"observed_data": {"y": np.asarray(codes)}, "constant_data": constants}


def _constant_data(moe: MoE, constants: dict[str, np.ndarray], rows: np.ndarray) -> xr.Dataset:
    """Build apart, because here the dim ``class`` counts all classes, the reference included."""
    return arviz_base.from_dict(
        {"constant_data": constants},
        dims={"x": ["obs_id", "feature"], "frozen_log_proba": ["obs_id", "class"]},
        coords={"obs_id": rows, "feature": moe.coords["feature"], "class": labels_for_coords(moe.classes)},
    )["constant_data"].to_dataset()


def labels_for_coords(labels: Sequence[object]) -> list:
    """Labels as a coordinate that netCDF and zarr can hold: all int, all float or all str."""
    for kind in (int, float, str):
        if all(type(label) is kind for label in labels):
            return list(labels)
    return [str(label) for label in labels]
