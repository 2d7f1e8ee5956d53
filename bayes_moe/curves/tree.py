"""The DataTree of a posterior of coefficient curves: with its data and basis, so that draws can be evaluated again."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import xarray as xr

from bayes_moe.curves.bases import BASES
from bayes_moe.curves.smooth import SmoothModel
from bayes_moe.nuts.datatree import data_hash, labels_for_coords
from bayes_moe.varying.indexed import IndexedObservations
from bayes_moe.varying.model import VaryingCoefficient


def described(
    smooth: SmoothModel,
    tree: xr.DataTree,
    data: IndexedObservations,
    grid: np.ndarray,
    subjects: Sequence[Hashable],
    seed: str,
    names: Sequence[Hashable] | None = None,
) -> xr.DataTree:
    """Name dims and coordinates of a tree from :func:`bayes_moe.nuts.sample`, and add data, curves' labels, attributes.

    Parameters
    ----------
    smooth : SmoothModel
    tree : xarray.DataTree
    data : IndexedObservations
    grid : ndarray, shape (G,)
        On [0, 1].
    subjects : sequence of hashable
        Their ids; none without subjects.
    seed : str
    names : sequence of hashable, optional
        What the user's rows are called; by default they are numbered.
    """
    low, high = (float(end) for end in data.range)
    basis = {"name": smooth.basis.name, **asdict(smooth.basis)}
    about = {"basis": json.dumps(basis), "u_low": low, "u_high": high, "init": "modes with most mass", "seed": seed}
    about |= {"model": json.dumps(_told(smooth.model))}
    out = tree.copy()
    out.attrs |= about
    for name in ("posterior", "log_likelihood", "posterior_predictive"):
        if name in tree.children:
            out[name] = xr.DataTree(_named(smooth, tree[name].to_dataset(), data, grid, subjects))
    out["observed_data"] = xr.DataTree(_rows(data, {"y": data.y}))
    u = np.clip(low + np.asarray(data.u) * (high - low), low, high)
    covariates = {"x": np.asarray(data.x)[1:].T, "z": np.asarray(data.z)[1:].T, "u": u, "size": data.size}
    covariates |= {} if data.subject is None else {"subject_position": data.subject}
    out["constant_data"] = xr.DataTree(_rows(data, covariates))
    for name in (name for name in out.children if "obs_id" in out[name].dims):
        rows = out[name].to_dataset().sortby("obs_id")  # ArviZ's compare goes by place
        called = {} if names is None else {"obs_id": labels_for_coords(list(names))}
        out[name] = xr.DataTree(rows.assign_coords(called))
    out.attrs["rows_hash"] = _rows_hash(out)
    return out


def _told(model: VaryingCoefficient) -> dict[str, object]:
    """What tells one model from another: the same words for the same model."""
    constant = np.array(model.labels)[model.select(model.constant)].tolist()
    sizes = {"gate_features": model.gate_features, "expert_features": model.expert_features}
    return {"experts": model.response.name, "components": model.components, **sizes, "constant": constant}


def check_model(model: VaryingCoefficient, tree: xr.DataTree) -> None:
    """Refuse another model than the draws are of.

    Parameters
    ----------
    model : VaryingCoefficient
    tree : xarray.DataTree
        From :func:`bayes_moe.curves.sample`, or one of its groups.

    Raises
    ------
    ValueError
        With what differs.
    """
    if not isinstance(model, VaryingCoefficient):
        raise ValueError(f"model must be that of the tree, from varying_coefficient, got {type(model).__name__}.")
    theirs, ours = json.loads(tree.root.attrs.get("model", "null")) or _told(model), _told(model)
    differ = [f"{name} {ours[name]!r} for {theirs[name]!r}" for name in ours if ours[name] != theirs[name]]
    if differ:
        raise ValueError(f"model must be that of the tree, got {', '.join(differ)}. Pass the one that was sampled.")


def _rows_hash(tree: xr.DataTree) -> str:
    """Of the data in a tree, whatever wrote and read it in between."""
    groups = [tree["constant_data"], tree["observed_data"]]
    return data_hash(
        [np.asarray(group[name].values, dtype=float) for group in groups for name in sorted(group.data_vars)]
    )


def _named(
    smooth: SmoothModel,
    group: xr.Dataset,
    data: IndexedObservations,
    grid: np.ndarray,
    subjects: Sequence[Hashable],
) -> xr.Dataset:
    low, high = np.asarray(data.range)
    dims = {name: field.dims for name, field in (smooth.fields | smooth.weights).items()}
    dims |= {name: ("grid", *field.dims) for name, field in smooth.model.fields.items()} | {"y": ("obs_id",)}
    dims |= {"subject_intercept": ("subject",)}
    coords = {"grid": np.clip(low + grid * (high - low), low, high), "obs_id": np.asarray(data.order)}
    coords |= {"adapter": np.arange(1, smooth.model.components)}  # the reference is component 0
    coords |= {
        "expert": np.arange(smooth.model.components),
        "expert_feature": np.arange(1 + smooth.model.expert_features),
        "gate_feature": np.arange(1 + smooth.model.gate_features),
        "subject": labels_for_coords(subjects),
    }
    coords |= {f"{name}_curve": smooth.labels(name) for name in smooth.model.fields}
    arrays = {name: (("chain", "draw", *dims[name]), array.values) for name, array in group.data_vars.items()}
    used = {dim for where, _ in arrays.values() for dim in where}
    kept = {name: values for name, values in coords.items() if name in used}
    return xr.Dataset(arrays, {**kept, "chain": group["chain"], "draw": group["draw"]}, group.attrs)


def _rows(data: IndexedObservations, values: Mapping[str, np.ndarray]) -> xr.Dataset:
    arrays = {name: np.asarray(value) for name, value in values.items()}
    dims = {name: ("obs_id", f"{name}_feature")[: array.ndim] for name, array in arrays.items()}
    return xr.Dataset({name: (dims[name], array) for name, array in arrays.items()}, {"obs_id": np.asarray(data.order)})


def data_of(model: VaryingCoefficient, tree: xr.DataTree) -> IndexedObservations:
    """The data of a tree, as the model reads them: by u, not by row.

    Raises
    ------
    ValueError
        If the model, or the data in the tree, are not those of the draws.
    """
    check_model(model, tree)
    if _rows_hash(tree) != tree.root.attrs.get("rows_hash", _rows_hash(tree)):
        raise ValueError(
            "tree must hold the data that its draws were made from, got others in constant_data or observed_data. "
            "Sample again with those."
        )
    rows = {name: tree["constant_data"][name].values for name in ("x", "z", "u", "size")}
    data = model.observe(**rows, y=tree["observed_data"]["y"].values, u_range=ends_of(tree))
    if "subject_position" not in tree["constant_data"]:
        return data
    return replace(data, subject=tree["constant_data"]["subject_position"].values[data.order])


def ends_of(tree: xr.DataTree) -> tuple[float, float]:
    """The u, in the user's units, that are 0 and 1 to the basis."""
    return tree.attrs["u_low"], tree.attrs["u_high"]


def smooth_of(model: VaryingCoefficient, tree: xr.DataTree) -> SmoothModel:
    """The model of a tree with its basis."""
    check_model(model, tree)
    basis = json.loads(tree.attrs["basis"])
    return SmoothModel(model, BASES[basis.pop("name")](**basis), tree["posterior"].sizes.get("subject", 0))
