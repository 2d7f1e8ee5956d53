"""Doors: modules in rooms are found by short names too, ``bayes_moe.theory.losses`` as ``bayes_moe.losses``.

It is the same module, loaded when somebody asks, so that importing a package costs nothing that is not used.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Doors(MetaPathFinder, Loader):
    """Finds modules by their short names."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self.places = places

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return a spec for a short name, None for others."""
        return ModuleSpec(fullname, self) if fullname in self.places else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module itself, and remember how it was found in its room: importing writes over that."""
        module = importlib.import_module(self.places[spec.name])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module back its own place; it has run already."""
        module.__spec__ = module.__spec__.loader_state


def to_rooms(package: str, rooms: Mapping[str, str]) -> Callable[[str], ModuleType]:
    """Open doors of a package to modules in its rooms.

    Parameters
    ----------
    package : str
        Its name.
    rooms : mapping of str to str
        Room -> modules in it, in one text; ``name:new`` where a module has another name in its room.

    Returns
    -------
    callable
        The package's ``__getattr__``.
    """
    places = {}
    for room, names in rooms.items():
        for name in names.split():
            short, _, own = name.partition(":")
            places[f"{package}.{short}"] = f"{package}.{room}.{own or short}"
    sys.meta_path.insert(0, _Doors(places))  # no file has these names

    def found(name: str) -> ModuleType:
        if f"{package}.{name}" in places:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return found


def to_module(room: str, module: str, *names: str) -> Callable[[str], object]:
    """Let a room that bears the name of a module in it answer for that module's public names.

    Parameters
    ----------
    room, module : str
        ``bayes_moe.nuts``, and ``posterior`` in it.
    *names : str

    Returns
    -------
    callable
        The room's ``__getattr__``.
    """

    def found(name: str) -> object:
        if name in names:
            return getattr(importlib.import_module(f"{room}.{module}"), name)
        raise AttributeError(f"module {room!r} has no attribute {name!r}")

    return found
