"""What has been drawn is returned, more plainly where something about it can't be had: no draws are lost."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

import arviz_base
import numpy as np
import xarray as xr

Groups = Mapping[str, Mapping[str, np.ndarray]]
LEADING = ("chain", "draw")
DATA = ("observed_data", "constant_data")  # groups without LEADING


def attempt[T](what: str, *ways: tuple[str, Callable[[], T]]) -> T:
    """Return what the first way gives that does not fail; warn of those that did. The last may raise.

    Parameters
    ----------
    what : str
        What is wanted, for the warning.
    *ways : pairs of str and callable
        Each with what one does without who goes on to the next.
    """
    for lost, way in ways[:-1]:
        try:
            return way()
        except Exception as error:  # a user's model may do anything, and the draws are there
            reason = f"{type(error).__name__}: {error}"[:500]
            warnings.warn(f"{what}: the draws are kept, {lost}, because of {reason}", stacklevel=5)
    return ways[-1][1]()


def renamed(groups: Groups, dims: Mapping[str, Sequence[str]]) -> dict[str, dict[str, np.ndarray]]:
    """Give sites other names whose own a tree has another use for, as ``chain``, ``b_dim_0`` beside ``b``, ``a/b``.

    Warns
    -----
    UserWarning
    """
    sites = {name: np.ndim(values) for group in groups.values() for name, values in group.items()}
    used = {*LEADING, "sample", *(dim for own in dims.values() for dim in own)}
    used |= {f"{name}_dim_{i}" for name, ndim in sites.items() for i in range(ndim)}
    new = {}
    for name in sites:
        plain = str(name).replace("/", "_")
        while plain in used or (plain != name and plain in sites) or plain in new.values():
            plain += "_"
        new[name] = plain
    if other := {name: plain for name, plain in new.items() if name != plain}:
        warnings.warn(
            f"sites of the model go by other names in the tree, where theirs mean something else: {other}. "
            "Call them so in the model, and this is not said.",
            stacklevel=4,
        )
    return {group: {new[name]: values for name, values in own.items()} for group, own in groups.items()}


def tree(groups: Groups, dims: Mapping, coords: Mapping, attrs: Mapping[str, object]) -> xr.DataTree:
    """Assemble a tree as ArviZ does; a group that can't be, with numbered dims of its own and no labels."""

    def whole() -> xr.DataTree:
        made = arviz_base.from_dict(dict(groups), coords=coords, dims=dims, attrs={"/": dict(attrs)})
        for name, own in groups.items():
            _check(made[name].to_dataset(), own)
        return made

    def apart() -> xr.DataTree:
        out = xr.DataTree()
        out.attrs.update(attrs)
        for name, own in groups.items():
            ways = (lambda n=name, o=own: _usual(n, o, dims, coords)), (lambda n=name, o=own: _numbered(n, o))
            out[name] = attempt(name, ("without names of dims and their labels", ways[0]), ("", ways[1]))
        return out

    return attempt("the tree", ("each group by itself", whole), ("", apart))


def _usual(name: str, own: Mapping[str, np.ndarray], dims: Mapping, coords: Mapping) -> xr.Dataset:
    made = arviz_base.from_dict({name: own}, coords=coords, dims=dims)[name].to_dataset()
    _check(made, own)
    return made


def _check(made: xr.Dataset, own: Mapping[str, np.ndarray]) -> None:
    """See that every variable is there: ArviZ takes some for coordinates, without a word."""
    if lost := [name for name in own if name not in made.data_vars or made[name].shape != np.shape(own[name])]:
        raise ValueError(f"{', '.join(map(str, lost))} would be lost")


def _numbered(group: str, own: Mapping[str, np.ndarray]) -> xr.Dataset:
    leading = () if group in DATA else LEADING
    variables = {}
    for name, values in own.items():
        dims = (*leading, *(f"{name}_dim_{i}" for i in range(np.ndim(values) - len(leading))))
        variables[name] = (dims, values)
    return xr.Dataset(variables)
