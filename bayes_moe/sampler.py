"""NUTS on any NumPyro model: whitened at the posterior mode, compiled once for each shape, chains in threads.

The sampler moves in ``u``, where ``z = centre + factor @ u`` is the free vector of the model, ``centre`` a
posterior mode and ``factor`` the inverse root of the curvature there. That is a preconditioner only: whatever it
is, the target stays the same, since the Jacobian of an affine map is constant.

Chains may see the data rounded to single precision, with parameters and sums in double: half the work. What the
rounding did to the log density is then measured at draws of all chains, and where it matters they run again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from bayes_moe.chains import INTERRUPTED, Chain, Settings, advance_all
from bayes_moe.modes import (
    Layout,
    Model,
    Modes,
    Objective,
    child_keys,
    draw_starts,
    find_modes,
    generator,
    layout,
    near_normal,
    objective,
    plausible,
    whitening,
)
from bayes_moe.transitions import Between, kernel_of

SEARCHES = 4  # at least, for modes: with one or two, chains can all start in a mode that holds no mass
OVERDISPERSION = 2.0  # chains start this many posterior standard deviations wide around their mode
ACCEPT, ACCEPT_NORMAL = 0.8, 0.7  # whitened, a posterior that is near normal takes longer steps without harm
ROUNDING = 0.01  # largest error of the log density, up to a constant, that a run on rounded data may have
LOOKS = 50  # draws at which it is measured

Drawn = tuple[np.ndarray, dict[str, np.ndarray], str]  # free vectors, statistics, how the run ended


class Draws(NamedTuple):
    """Free vectors and sampler statistics, each with leading axes (chain, draw), the modes found, and what was done."""

    free: np.ndarray
    stats: dict[str, np.ndarray]
    modes: np.ndarray
    mode_log_densities: np.ndarray
    preconditioner: str
    ended: str
    rounding: str
    target_accept_prob: float


def run(
    model: Model,
    args: tuple,
    rng_key: Array,
    settings: Settings,
    start: Sequence[dict[str, Array]] | None = None,
    until_ess: float | None = None,
    on_progress: Callable[[int], None] = lambda transitions: None,
    light: tuple | None = None,
    meanwhile: Callable[[Layout], None] = lambda where: None,
    between: Between | None = None,
) -> tuple[Layout, Draws]:
    """Sample a model's posterior.

    Parameters
    ----------
    model : callable
        NumPyro model; module-level or otherwise kept alive, since compiled code is cached by its identity.
    args : tuple
        Its arguments: pytrees of JAX arrays.
    rng_key : JAX key
    settings : Settings
    start : sequence of dict of str to array, optional
        Constrained values to search modes from; else a random start for each chain, and at least SEARCHES.
    until_ess : float, optional
        Stop when the bulk ESS of every coordinate has reached it; judged every CHECK draws.
    on_progress : callable
        Called with the number of transitions made since the last call, from any chain's thread.
    light : tuple, optional
        ``args`` with the data rounded to single precision, for the chains to move on; modes, curvature and everything
        said about the draws use ``args``.
    meanwhile : callable
        Called once the modes are found, while the sampler may still be compiling.
    between : Between, optional
        What moves a chain between transitions.

    Returns
    -------
    layout : Layout
    draws : Draws
    """
    where = layout(model, args)
    start_key, disperse_key, *keys = child_keys(rng_key, 2 + settings.num_chains)
    starts = draw_starts(model, where, args, start_key, max(settings.num_chains, SEARCHES), start)
    kernel = kernel_of(model, where, settings, between)
    negative = objective(model, where, args)
    modes = find_modes(negative, starts)
    alike = None if between is None else between.alike(args, where, modes.free[0])
    factor, preconditioner = whitening(negative, modes, where, alike)
    meanwhile(where)
    points = [_point(negative, modes.free[0], factor, u) for u in _dispersed(modes, factor, settings, disperse_key)]
    accept = settings.target_accept_prob
    if accept is None:
        accept = ACCEPT_NORMAL if near_normal(negative, modes, factor) else ACCEPT

    def draw(args: tuple) -> Drawn:
        problem = (args, *jax.device_put((modes.free[0], factor, np.asarray(accept, dtype=factor.dtype))))
        chains = [Chain(kernel, settings, problem, *start) for start in zip(keys, points, strict=True)]
        ended = advance_all(chains, settings, until_ess, on_progress)
        length = min(chain.draws for chain in chains)
        return *jax.tree.map(lambda *each: np.stack(each), *(chain.collected(length) for chain in chains)), ended

    free, stats, ended, rounding = _as_light_as_may_be(draw, negative, args, light)
    return where, Draws(free, stats, modes.free, modes.log_densities, preconditioner, ended, rounding, accept)


def _as_light_as_may_be(
    draw: Callable[[tuple], Drawn], negative: Objective, args: tuple, light: tuple | None
) -> tuple[np.ndarray, dict[str, np.ndarray], str, str]:
    """Draw on rounded data, and again on the data if rounding mattered; the last of what is returned says which."""
    if light is None:
        return *draw(args), "none: data in the precision of the draws"
    free, stats, ended = draw(light)
    error = _rounding_error(negative, free, stats["potential_energy"])
    if not error <= ROUNDING and ended != INTERRUPTED:
        return *draw(args), f"none: in single precision the log density was off by {error:.1g}, so run again in double"
    if not error <= ROUNDING:
        warnings.warn(
            f"in single precision the log density was off by {error:.1g}, and the run was interrupted before it "
            "could be repeated in double. Trust none of its draws; run it again with dtype='float64'.",
            stacklevel=4,
        )
    rounding = f"data in single precision: log density within {error:.1g} of its value in double precision"
    return free, stats, ended, rounding


def _rounding_error(negative: Objective, free: np.ndarray, potential: np.ndarray) -> float:
    """Largest deviation from their median of the errors of the potential, over LOOKS draws of all chains."""
    looked = np.linspace(0, potential.size - 1, LOOKS).astype(int)
    exact = np.array([negative(point)[0] for point in free.reshape(-1, free.shape[-1])[looked]])
    errors = potential.ravel()[looked] - exact
    return float(np.max(np.abs(errors - np.median(errors))))


def _dispersed(modes: Modes, factor: np.ndarray, settings: Settings, key: Array) -> np.ndarray:
    """Starts of the chains: normal around the plausible modes in turn, OVERDISPERSION posterior sds wide."""
    shift = np.linalg.solve(factor, (plausible(modes.free, modes.log_densities) - modes.free[0]).T).T
    noise = generator(key).normal(size=(settings.num_chains, len(factor)))
    return (np.resize(shift, noise.shape) + OVERDISPERSION * noise).astype(factor.dtype)


def _point(
    negative: Objective, centre: np.ndarray, factor: np.ndarray, u: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    value, grad = negative(centre + factor @ u)
    return tuple(np.asarray(part, dtype=u.dtype) for part in (u, value, grad @ factor))
