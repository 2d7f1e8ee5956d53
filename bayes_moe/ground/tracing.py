"""Trace models in one thread at a time, out of reach of the effect handlers that are active elsewhere."""

from __future__ import annotations

import functools
import sys
import threading
from collections import UserList
from types import ModuleType

from numpyro import primitives

from bayes_moe.ground import threads

STACK = "_PYRO_STACK"  # NumPyro's active handlers: one list for the whole process
WAIT = 0.5  # seconds between two looks whether this is still wanted


class _Stack(UserList):
    """NumPyro's list of handlers, but for one thread a list of its own, empty at first.

    Whoever got hold of it may keep it: to other threads it is the list that it was made of.
    """

    def __init__(self, others: list):
        self.others, self.own, self.owner = others, [], threading.get_ident()

    @property
    def data(self) -> list:
        """What the calling thread sees."""
        return self.own if threading.get_ident() == self.owner else self.others

    def __getitem__(self, place: int | slice) -> object:
        return self.data[place]

    def __reversed__(self) -> object:
        return reversed(self.data)


class Isolation:
    """A lock to trace under, in which this thread sees no handler but those that it enters itself.

    NumPyro's handlers are global state. What the user's code is inside of must not stay in compiled code, which later
    calls share; what other threads enter must not reach our models, nor ours theirs. Reentrant: each entry starts
    afresh, since a model that is being traced may itself call what traces.
    """

    def __init__(self):
        self._lock, self._before = threading.RLock(), []

    def __enter__(self) -> None:
        while not self._lock.acquire(timeout=WAIT):
            threads.heed()
        try:
            stack = getattr(primitives, STACK)
            self._before.append(stack)
            _put(_Stack(stack))
        except BaseException:  # Ctrl-C
            self._lock.release()
            raise

    def __exit__(self, *error: object) -> None:
        try:
            _put(self._before.pop())
        finally:
            self._lock.release()


def _put(stack: list) -> None:
    """Have every module of NumPyro use this stack: several hold it under the same name."""
    for module in _holders(len(sys.modules)):
        setattr(module, STACK, stack)


@functools.lru_cache(maxsize=1)
def _holders(modules: int) -> list[ModuleType]:
    """Look through the modules, again when more are loaded: those imported while we trace hold our stack."""
    loaded = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == "numpyro"]
    return [module for module in loaded if STACK in vars(module)]


TRACING = Isolation()
