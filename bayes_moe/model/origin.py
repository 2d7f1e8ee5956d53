"""What a tree of draws was made from: its model and data, told from others before draws are read with them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from bayes_moe.ground.data import Covariates
from bayes_moe.model.experts import Frozen
from bayes_moe.model.moe import MoE, check_moe

POINTS = (-1.7, -0.3, 0.4, 2.1)  # where an activation says which function it is, whatever its name
CLOSE = 1e-6  # relative difference that single precision or another order of a sum may make
FROZEN = 1e-4  # difference of log-probabilities that a classifier may show from one machine to the next
ROWS = 3  # of the data, at which a frozen expert says which one it is


def described(moe: MoE) -> dict[str, object]:
    """What tells a model from others: gate, experts, classes and names, in plain words and numbers."""
    return {
        "gate": _part(moe.gate),
        "experts": [_part(expert) for expert in moe.experts],
        "classes": [str(label) for label in moe.classes],
        "features": None if moe.feature_names is None else list(moe.feature_names),
    }


def _part(part: object) -> dict[str, object]:
    """A gate or an expert. One without parameters is known by what it says, which is among the data."""
    settings = dataclasses.fields(part) if part.fields else ()
    return {"kind": type(part).__name__, **{field.name: _plain(getattr(part, field.name)) for field in settings}}


def _plain(value: object) -> object:
    if not callable(value):
        return value if isinstance(value, int | float | str | None) else str(value)
    says = np.asarray(value(jnp.asarray(POINTS, dtype=jnp.float32)), dtype=float)
    return [float(f"{number:.4g}") for number in says.ravel()]


def check_model(moe: MoE, idata: xr.DataTree) -> xr.Dataset:
    """Draws of this model, with dims chain and draw in front, or a refusal of draws of another.

    Parameters
    ----------
    moe : MoE
    idata : xarray.DataTree
        One that does not say what model it is of, as one made by hand, is judged by its variables alone. A single chain
        or draw may have been selected.

    Returns
    -------
    xarray.Dataset

    Raises
    ------
    ValueError
        If idata is no tree of draws, lacks parameters of this model, or is of another model.
    """
    check_moe(moe)
    posterior = with_dims(group(idata, "posterior", needed=True))
    for name, field in moe.fields.items():
        found = posterior[name].shape[2:] if name in posterior else None
        if found != field.shape:
            what = ", ".join(posterior.data_vars) if found is None else f"{name} of shape {found}"
            raise ValueError(f"idata must hold draws of this model, {name} of shape {field.shape}, got {what}.")
    if "model" in idata.attrs:
        _check_same(described(moe), json.loads(idata.attrs["model"]))
    _check_frozen(moe, idata)
    return posterior


def check_exchangeable(caller: str, moe: MoE, idata: xr.DataTree) -> xr.Dataset:
    """As :func:`check_model`, for what permutes labels: models without exchangeable experts are refused too."""
    if isinstance(moe, MoE) and not moe.exchangeable:
        raise ValueError(
            f"{caller} is for exchangeable experts; a frozen expert, a reference, a lone adapter has its label."
        )
    return check_model(moe, idata)


def group(idata: xr.DataTree, name: str, *, needed: bool = False) -> xr.Dataset:
    """Group of a tree as a dataset; an empty one, or a refusal, where it is missing."""
    if name in getattr(idata, "children", ()):
        return idata[name].to_dataset()
    if needed:
        kind = f"groups {', '.join(idata.children)}" if isinstance(idata, xr.DataTree) else type(idata).__name__
        raise ValueError(f"idata must be a DataTree with the group {name}, as nuts.sample returns it, got {kind}.")
    return xr.Dataset()


def with_dims(draws: xr.Dataset) -> xr.Dataset:
    """Put dims chain and draw in front, of length one where a single one was selected."""
    missing = [dim for dim in ("chain", "draw") if dim not in draws.dims]
    return draws.expand_dims(missing).transpose("chain", "draw", ...)


def _check_same(mine: Mapping[str, object], theirs: Mapping[str, object]) -> None:
    for name, value in json.loads(json.dumps(mine)).items():
        unnamed = name == "features" and None in (value, theirs[name])
        if not unnamed and value != theirs[name]:
            raise ValueError(
                f"moe must be the model that idata was sampled from: its {name} are {value}, those of idata "
                f"{theirs[name]}. Pass that model, or sample again."
            )


def _check_frozen(moe: MoE, idata: xr.DataTree) -> None:
    """Ask a frozen expert about a few rows of the tree's data; a table knows its own rows alone."""
    source = next((expert for expert in moe.experts if isinstance(expert, Frozen)), None)
    known = group(idata, "constant_data")
    if source is None or source.tabled or "frozen_log_proba" not in known:
        return
    table, x = known["frozen_log_proba"].values[:ROWS], known["x"].values[:ROWS]
    if not np.allclose(source.evaluate(np.asarray(x, dtype=np.float64)).T, table, rtol=CLOSE, atol=FROZEN):
        raise ValueError(_OTHER_FROZEN)


_OTHER_FROZEN = (
    "moe must be the model that idata was sampled from: its frozen expert gives the data other probabilities. Pass "
    "that model, or sample again."
)


def check_data(idata: xr.DataTree, covariates: Covariates, codes: np.ndarray) -> None:
    """Refuse data other than a tree's own.

    Parameters
    ----------
    idata : xarray.DataTree
        Of one without its data the attribute ``data_hash`` tells; one made by hand, without either, is believed.
    covariates : Covariates
    codes : ndarray
        Class positions or responses.

    Raises
    ------
    ValueError
        If x, y, or what the frozen expert says of them differs.
    """
    constants, observed = group(idata, "constant_data"), group(idata, "observed_data")
    if "x" not in constants or "y" not in observed:
        _check_hash(idata, covariates, codes)
        return
    for name, mine, theirs in (("x", covariates.x.T, constants["x"]), ("y", codes, observed["y"])):
        _check_rows(name, np.asarray(mine, dtype=float), np.asarray(theirs.values, dtype=float))
    if covariates.frozen is not None and "frozen_log_proba" in constants:
        if not np.allclose(covariates.frozen.T, constants["frozen_log_proba"], rtol=CLOSE, atol=FROZEN):
            raise ValueError(_OTHER_FROZEN)


def _check_rows(name: str, mine: np.ndarray, theirs: np.ndarray) -> None:
    if mine.shape != theirs.shape:
        raise ValueError(
            f"{name} must be the data that idata was sampled with, of shape {theirs.shape}, got {mine.shape}."
        )
    far = np.abs(mine - theirs) > CLOSE * np.abs(theirs).max(axis=0)
    if far.any():
        row = int(np.argmax(far.reshape(len(far), -1).any(axis=1)))
        raise ValueError(
            f"{name} must be the data that idata was sampled with: row {row} is {mine[row].tolist()}, there "
            f"{theirs[row].tolist()} ({int(far.reshape(len(far), -1).any(axis=1).sum())} such rows)."
        )


def _check_hash(idata: xr.DataTree, covariates: Covariates, codes: np.ndarray) -> None:
    known = idata.attrs.get("data_hash") if "model" in idata.attrs else None
    real = np.float32 if idata.attrs.get("dtype") == "float32" else np.float64
    parts = [np.asarray(part) for part in (covariates.x, codes)]
    rows = tuple(part.astype(real) if part.dtype.kind == "f" else part for part in parts)
    if known is not None and data_hash(rows) != known:
        raise ValueError("x and y must be the data that idata was sampled with: their data_hash is another.")


def data_hash(args: object) -> str:
    """SHA-256 of every array that the model was run on."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(args):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
