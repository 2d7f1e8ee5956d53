"""NUTS on any NumPyro model: whitened at the posterior mode, compiled once for each shape, chains in threads.

The sampler moves in ``u``, where ``z = centre + factor @ u`` is the free vector of the model, ``centre`` a
posterior mode and ``factor`` the inverse root of the curvature there. That is a preconditioner only: whatever it
is, the target stays the same, since the Jacobian of an affine map is constant. Where no search ends at a mode that
holds mass (:mod:`bayes_moe.nuts.mass`), as under some hierarchical priors, chains start where the searches did, and a
long warm-up in windows finds mass and scales.

Chains may see the data rounded to single precision, with parameters and sums in double: half the work. What the
rounding did to the log density is then measured at draws of all chains, and where it matters they run again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from bayes_moe.nuts.chains import INTERRUPTED, Chain, Settings, advance_all
from bayes_moe.nuts.mass import heaviest
from bayes_moe.nuts.modes import (
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
    whitening,
)
from bayes_moe.nuts.transitions import Between, kernel_of

SEARCHES = 4  # at least, for modes: with one or two, chains can all start in a mode that holds no mass
OVERDISPERSION = 2.0  # chains start this many posterior standard deviations wide around their mode
LONG_WARMUP = 1000  # transitions, at least, where no search ended where mass is
ACCEPT_CAREFUL = 0.95  # such posteriors have necks, and longer steps diverge there
ACCEPT, ACCEPT_NORMAL = 0.8, 0.7  # whitened, a posterior that is near normal takes longer steps without harm
ROUNDING = 0.01  # largest error of the log density, up to a constant, that a run on rounded data may have
LOOKS = 50  # draws at which it is measured

Drawn = tuple[np.ndarray, dict[str, np.ndarray], str]  # free vectors, statistics, how the run ended


class Plan(NamedTuple):
    """Where chains start, in which coordinates, and with which settings; the modes that hold mass, heaviest first."""

    centre: np.ndarray
    factor: np.ndarray
    starts: np.ndarray
    num_warmup: int
    target_accept_prob: float
    preconditioner: str
    modes: Modes


class Draws(NamedTuple):
    """Free vectors and sampler statistics, each with leading axes (chain, draw), and what was done."""

    free: np.ndarray
    stats: dict[str, np.ndarray]
    plan: Plan
    ended: str
    rounding: str


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
    negative = objective(model, where, args)

    def alike(mode: np.ndarray) -> Sequence[np.ndarray] | None:
        return between and between.alike(args, where, mode)

    plan = _plan(negative, starts, where, settings, disperse_key, alike)
    meanwhile(where)
    points = [_point(negative, plan.centre, plan.factor, u) for u in plan.starts]
    settings = replace(settings, num_warmup=plan.num_warmup)
    kernel = kernel_of(model, where, settings, between)

    def draw(args: tuple) -> Drawn:
        accept = np.asarray(plan.target_accept_prob, dtype=plan.factor.dtype)
        problem = (args, *jax.device_put((plan.centre, plan.factor, accept)))
        chains = [Chain(kernel, settings, problem, *start) for start in zip(keys, points, strict=True)]
        ended = advance_all(chains, settings, until_ess, on_progress)
        length = min(chain.draws for chain in chains)
        return *jax.tree.map(lambda *each: np.stack(each), *(chain.collected(length) for chain in chains)), ended

    free, stats, ended, rounding = _as_light_as_may_be(draw, negative, args, light)
    stats["virial"] = _virial(free, stats.pop("z_grad"), plan.factor)
    return where, Draws(free, stats, plan, ended, rounding)


def _plan(
    negative: Objective,
    starts: np.ndarray,
    where: Layout,
    settings: Settings,
    key: Array,
    alike: Callable[[np.ndarray], Sequence[np.ndarray] | None],
) -> Plan:
    """Start around the modes that hold mass, whitened at the heaviest; where none does, where the searches started."""
    ends = find_modes(negative, starts)
    modes, hessian = heaviest(negative, ends)
    if not len(modes.free):
        return _long_way(negative, starts, ends, settings)
    factor, preconditioner = whitening(negative, modes, where, alike(modes.free[0]), hessian)
    if len(modes.free) < len(ends.free):
        preconditioner += f"; {len(modes.free)} of {len(ends.free)} searches ended where mass is"
    accept = settings.target_accept_prob
    if accept is None:
        accept = ACCEPT_NORMAL if near_normal(negative, modes, factor) else ACCEPT
    dispersed = _dispersed(modes, factor, settings, key)
    return Plan(modes.free[0], factor, dispersed, settings.num_warmup, accept, preconditioner, modes)


def _long_way(negative: Objective, starts: np.ndarray, ends: Modes, settings: Settings) -> Plan:
    """Start where the searches started, and let a long warm-up find where mass is."""
    finite = [start for start in starts if np.isfinite(negative(start)[0])]
    size = starts.shape[1]
    spread = np.resize(finite or starts, (settings.num_chains, size)).astype(starts.dtype)
    warmup = max(settings.num_warmup, LONG_WARMUP)
    accept = settings.target_accept_prob or ACCEPT_CAREFUL
    word = (
        f"identity: no search ended at a mode that holds mass, so chains start dispersed and warm up for {warmup} "
        "transitions"
    )
    none = Modes(*(part[:0] for part in ends))
    return Plan(np.zeros(size, starts.dtype), np.eye(size, dtype=starts.dtype), spread, warmup, accept, word, none)


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
    """Starts of the chains: normal around the modes in turn, OVERDISPERSION posterior sds wide."""
    shift = np.linalg.solve(factor, (modes.free - modes.free[0]).T).T
    noise = generator(key).normal(size=(settings.num_chains, len(factor)))
    return (np.resize(shift, noise.shape) + OVERDISPERSION * noise).astype(factor.dtype)


def _point(
    negative: Objective, centre: np.ndarray, factor: np.ndarray, u: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    value, grad = negative(centre + factor @ u)
    return tuple(np.asarray(part, dtype=u.dtype) for part in (u, value, grad @ factor))


def _virial(free: np.ndarray, z_grad: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """(z - mean) dU/dz of each draw and coordinate of the free vector; its mean is one wherever draws are from exp(-U).

    Integration by parts says so, whatever the density, and says it of no chain that stands still.
    """
    slopes = np.linalg.solve(factor.T, z_grad.reshape(-1, len(factor)).T).T.reshape(free.shape)
    return (free - free.mean(axis=(0, 1))) * slopes
