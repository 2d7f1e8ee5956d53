"""Mend NumPyro where ArviZ was imported first.

ArviZ leaves a lazy ``numpyro`` in ``sys.modules``. Whoever imports ``numpyro.distributions`` next loads the package in
the middle of that import, and its submodules are never bound to it: NumPyro then raises AttributeError for every
bounded prior. Binding them again changes nothing where all is well.
"""

import sys

import numpyro.distributions

for _name, _module in list(sys.modules.items()):
    _package, _, _attribute = _name.rpartition(".")
    if _package == "numpyro.distributions":
        setattr(numpyro.distributions, _attribute, _module)
