"""Where chains of a varying-coefficient mixture start: searches for posterior modes, told apart by their mass.

The posterior of curves has many modes, and the highest need not matter: one whose curves bend to suit a few
observations is high and narrow. :mod:`bayes_moe.nuts.mass` tells which ones do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax import Array
from numpyro.distributions import Distribution, biject_to

from bayes_moe.curves.smooth import SmoothModel
from bayes_moe.nuts import mass, modes
from bayes_moe.varying.indexed import IndexedObservations

QUIET = 0.1  # sd of the weights from which mode searches start


def starts(model: Callable[..., None], args: tuple, key: Array, n_init: int) -> list[dict[str, np.ndarray]]:
    """Values of all sites at the posterior modes with most mass that the searches from random starts found.

    A search may end on the flank of a spike, where a component's scale shrinks around a few observations: high, without
    mass, and no mode. Such an end is passed over wherever another search reached a mode.

    Parameters
    ----------
    model : callable
        :func:`bayes_moe.curves.posterior_model`.
    args : tuple
        Its arguments: inputs, a tuple of the model, its priors, the data, and rows of the basis; and y.
    key : JAX key
    n_init : int

    Returns
    -------
    list of dict
        The mode with most mass first, then others with at least a twentieth of its mass.
    """
    smooth, prior, data = args[0][:3]
    where, rng = modes.layout(model, args), modes.generator(key)
    given = [_supported(random_start(smooth, data, rng), prior, rng) for _ in range(n_init)]
    free = modes.draw_starts(model, where, args, key, n_init, given)
    negative = modes.objective(model, where, args)
    ends = [where.sites(end) for end in _shapes(negative, modes.find_modes(negative, free))]
    return [{name: np.asarray(biject_to(prior[name].support)(v)) for name, v in end.items()} for end in ends]


def _shapes(negative: modes.Objective, found: modes.Modes) -> np.ndarray:
    """One end of each height among those that hold mass; the highest of all where none does."""
    held = mass.heaviest(negative, found).modes
    if not len(held.free):
        return found.free[:1]
    higher = held.log_densities[:, None] - held.log_densities
    first = [i for i in range(len(higher)) if not (np.abs(higher[i, :i]) < mass.SAME).any()]
    return held.free[first]


def _supported(
    start: dict[str, np.ndarray], prior: Mapping[str, Distribution], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """The same start, with a draw from its prior for each site that lies outside the prior's support."""

    def drawn(name: str) -> np.ndarray:
        return np.asarray(prior[name].sample(jax.random.key(int(rng.integers(2**31)))))

    return {n: value if np.all(prior[n].support(value)) else drawn(n) for n, value in start.items()}


def random_start(smooth: SmoothModel, data: IndexedObservations, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Nearly constant curves: experts around the pooled regression, as far from it as responses are; an even gate."""
    response = smooth.model.response.link(np.asarray(data.y), np.asarray(data.size))
    z = np.asarray(data.z).T
    pooled = np.linalg.lstsq(z, response, rcond=None)[0]
    spread = np.std(response - z @ pooled)
    kept = {"amplitude": 0.3, "lengthscale": 0.3, "trend": 0.0, "sd": 0.3}
    start = {}
    for name, field in smooth.fields.items():
        which, part = name.split("_")
        start[name] = np.full(field.shape, kept.get(part, 0.0))
        if (which, part) == ("alpha", "mean"):
            start[name] = pooled + spread * rng.normal(size=field.shape)
        if (which, part) == ("delta", "mean") and smooth.model.response.name == "normal":
            start[name] = np.full(field.shape, np.log(spread))
    return start | {name: QUIET * rng.normal(size=field.shape) for name, field in smooth.weights.items()}
