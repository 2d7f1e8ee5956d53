"""NUTS on any NumPyro model: whitened at the posterior mode, compiled once for each shape, chains in threads.

The sampler moves in ``u``, where ``z = centre + factor @ u`` is the free vector of the model, ``centre`` a
posterior mode and ``factor`` the inverse root of the curvature there. That is a preconditioner only: whatever it
is, the target stays the same, since the Jacobian of an affine map is constant.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer.hmc import hmc
from numpyro.infer.util import potential_energy
from scipy import optimize

from bayes_moe.compilation import TRACING, compiled

BLOCK = 50  # transitions between two reports of progress
START_RADIUS = 2.0  # mode searches start uniformly in a box of this half-width, as Stan's chains do
OVERDISPERSION = 2.0  # chains start this many posterior standard deviations wide around their mode

Model = Callable[..., object]


@dataclass(frozen=True)
class Settings:
    """What a sampling run depends on besides model, data and key."""

    num_warmup: int = 500
    num_samples: int = 1000
    num_chains: int = 4
    target_accept_prob: float = 0.8
    max_tree_depth: int = 10
    dense_mass: bool = False


class Draws(NamedTuple):
    """Free vectors and sampler statistics, each with leading axes (chain, draw), and the modes found."""

    free: np.ndarray
    stats: dict[str, np.ndarray]
    modes: np.ndarray
    mode_log_densities: np.ndarray


@dataclass(frozen=True)
class Layout:
    """Names and unconstrained shapes of a model's latent sites: the order of its free vector."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def size(self) -> int:
        """Length of the free vector."""
        return sum(int(np.prod(shape)) for _, shape in self.shapes)

    def sites(self, free: Array) -> dict[str, Array]:
        """Cut a free vector into its sites."""
        ends = np.cumsum([int(np.prod(shape)) for _, shape in self.shapes])[:-1]
        parts = jnp.split(free, [int(end) for end in ends])
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes, parts, strict=True)}


def as_arrays(tree: object) -> object:
    """Turn every leaf into a JAX array of the precision in force: same shapes, same executable."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=None if _is_array(leaf) else float), tree)


def _is_array(leaf: object) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray) and not getattr(leaf, "weak_type", False)


def layout(model: Model, args: tuple) -> Layout:
    """Trace a model once and read off its latent sites."""
    with TRACING:
        trace = handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace(*args)
    latent = {k: s for k, s in trace.items() if s["type"] == "sample" and not s["is_observed"]}
    discrete = [name for name, site in latent.items() if site["fn"].is_discrete]
    if discrete:
        raise ValueError(f"the model has discrete latent sites, which NUTS can't sample: {', '.join(discrete)}.")
    if not latent:
        raise ValueError("the model has no latent sites: nothing to sample.")
    shapes = {k: biject_to(s["fn"].support).inverse_shape(jnp.shape(s["value"])) for k, s in latent.items()}
    return Layout(tuple((name, tuple(shape)) for name, shape in shapes.items()))


@functools.lru_cache(maxsize=64)
def _potentials(model: Model, where: Layout) -> tuple[Callable, Callable]:
    """Negative log posterior density of the free vector, with its gradient; and its Hessian."""

    def potential(free: Array, args: tuple) -> Array:
        return potential_energy(model, args, {}, where.sites(free))

    return jax.value_and_grad(potential), jax.hessian(potential)


@functools.lru_cache(maxsize=64)
def _kernel(model: Model, where: Layout, settings: Settings) -> tuple[Callable, Callable]:
    """Return ``init(key, u, problem)`` and ``advance(state, problem)``, which makes BLOCK transitions."""

    def whitened(args: tuple, centre: Array, factor: Array) -> Callable[[Array], Array]:
        return lambda u: potential_energy(model, args, {}, where.sites(centre + factor @ u))

    start, step = hmc(potential_fn_gen=whitened, algo="NUTS")
    fields = ("potential_energy", "energy", "num_steps", "accept_prob", "diverging")

    def init(key: Array, u: Array, problem: tuple) -> object:
        return start(
            u,
            settings.num_warmup,
            target_accept_prob=settings.target_accept_prob,
            max_tree_depth=settings.max_tree_depth,
            dense_mass=settings.dense_mass,
            model_args=problem,
            rng_key=key,
        )

    def advance(state: object, problem: tuple) -> tuple[object, tuple]:
        def transition(state: object, _: None) -> tuple[object, tuple]:
            state = step(state, problem)
            stats = {name: getattr(state, name) for name in fields}
            stats["step_size"] = state.adapt_state.step_size
            return state, (problem[1] + problem[2] @ state.z, stats)

        return jax.lax.scan(transition, state, None, length=BLOCK)

    return init, advance


def find_modes(model: Model, where: Layout, args: tuple, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Posterior modes from each start (BFGS, exact gradients), and their log densities, best first."""
    value_and_grad = compiled(_potentials(model, where)[0], jnp.asarray(starts[0]), args)

    def objective(free: np.ndarray) -> tuple[float, np.ndarray]:
        value, grad = value_and_grad(jnp.asarray(free, dtype=starts.dtype), args)
        return float(value), np.asarray(grad, dtype=np.float64)

    results = [optimize.minimize(objective, s, jac=True, method="BFGS", options={"gtol": 1e-4}) for s in starts]
    finite = [r for r in results if np.isfinite(r.fun) and np.isfinite(r.x).all()]
    if not finite:
        raise ValueError(
            "the log posterior is not finite from any start: check the prior, the data and custom activations, "
            "or pass init={name: value}."
        )
    finite.sort(key=lambda r: r.fun)
    return np.array([r.x for r in finite], dtype=starts.dtype), -np.array([r.fun for r in finite])


def whitening(model: Model, where: Layout, args: tuple, mode: np.ndarray) -> np.ndarray:
    """Inverse root of the absolute curvature at the mode.

    Negative or tiny eigenvalues (a saddle, a flat direction) are replaced by their absolute value, but at least
    1e-6 of the largest: the factor is always invertible, and warm-up adapts the scale of each axis anyway.
    """
    hessian = np.asarray(compiled(_potentials(model, where)[1], jnp.asarray(mode), args)(jnp.asarray(mode), args))
    if not np.isfinite(hessian).all():
        return np.eye(len(mode), dtype=mode.dtype)
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    scale = np.maximum(np.abs(values), max(1e-6 * np.abs(values).max(), 1e-12))
    return (vectors / np.sqrt(scale)).astype(mode.dtype)


def run(
    model: Model,
    args: tuple,
    rng_key: Array,
    settings: Settings,
    start: dict[str, Array] | None = None,
    on_progress: Callable[[int], None] = lambda transitions: None,
) -> tuple[Layout, Draws]:
    """Sample a model's posterior.

    Parameters
    ----------
    model : callable
        NumPyro model; module-level or otherwise kept alive, since compiled code is cached by its identity.
    args : tuple
        Its arguments: pytrees of arrays.
    rng_key : JAX key
    settings : Settings
    start : dict of str to array, optional
        Constrained values to search the mode from; else one random start for each chain.
    on_progress : callable
        Called with the number of transitions made since the last call, from any chain's thread.

    Returns
    -------
    layout : Layout
    draws : Draws
    """
    args = as_arrays(args)
    where = layout(model, args)
    start_key, disperse_key, chain_key = jax.random.split(rng_key, 3)
    starts = _starts(model, where, args, start_key, settings.num_chains, start)
    modes, log_densities = find_modes(model, where, args, starts)
    factor = whitening(model, where, args, modes[0])
    shift = np.linalg.solve(factor, (_plausible(modes, log_densities) - modes[0]).T).T
    noise = jax.random.normal(disperse_key, (settings.num_chains, where.size), dtype=modes.dtype)
    u = jnp.asarray(np.resize(shift, noise.shape), dtype=modes.dtype) + OVERDISPERSION * noise
    problem = (args, jnp.asarray(modes[0]), jnp.asarray(factor))
    keys = jax.random.split(chain_key, settings.num_chains)
    kernel = _kernel(model, where, replace(settings, num_samples=1, num_chains=1))  # more draws, same executable
    chains = _in_threads(_chain(kernel, settings, problem, on_progress), keys, u)
    free = np.stack([chain[0] for chain in chains])
    stats = {name: np.stack([chain[1][name] for chain in chains]) for name in chains[0][1]}
    return where, Draws(free, stats, modes, log_densities)


def _starts(
    model: Model, where: Layout, args: tuple, key: Array, count: int, start: dict[str, Array] | None
) -> np.ndarray:
    if start is None:
        box = jax.random.uniform(key, (count, where.size), minval=-START_RADIUS, maxval=START_RADIUS)
        return np.asarray(box)
    with TRACING:
        trace = handlers.trace(handlers.seed(model, key)).get_trace(*args)
    missing = [name for name, _ in where.shapes if name not in start]
    if missing:
        raise ValueError(f"init must give every latent site, missing: {', '.join(missing)}.")
    free = [jnp.ravel(biject_to(trace[name]["fn"].support).inv(jnp.asarray(start[name]))) for name, _ in where.shapes]
    return np.asarray(jnp.concatenate(free))[None]


def _plausible(modes: np.ndarray, log_densities: np.ndarray) -> np.ndarray:
    """Keep the modes that could carry mass: at most 10 + dimension log units below the best."""
    return modes[log_densities >= log_densities[0] - 10.0 - modes.shape[1]]


def _chain(kernel: tuple[Callable, Callable], settings: Settings, problem: tuple, on_progress: Callable) -> Callable:
    """One chain as a function of its key and start: blocks of transitions, warm-up dropped."""
    init, advance = kernel
    total = settings.num_warmup + settings.num_samples

    def chain(key: Array, u: Array) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        state = compiled(init, key, u, problem)(key, u, problem)
        step = compiled(advance, state, problem)
        blocks = []
        for done in range(0, total, BLOCK):
            state, block = step(state, problem)
            if done + BLOCK > settings.num_warmup:
                blocks.append(jax.tree.map(np.asarray, block))
            jax.block_until_ready(state.z)
            on_progress(min(BLOCK, total - done))
        first = settings.num_warmup % BLOCK if settings.num_warmup else 0
        joined = jax.tree.map(lambda *parts: np.concatenate(parts)[first:][: settings.num_samples], *blocks)
        return joined

    return chain


def _in_threads(chain: Callable, keys: Array, u: Array) -> list:
    x64 = jax.config.jax_enable_x64

    def scoped(key: Array, start: Array) -> object:
        with jax.enable_x64(x64):
            return chain(key, start)

    with ThreadPoolExecutor(min(len(keys), os.cpu_count() or 1)) as pool:
        return list(pool.map(scoped, keys, u))
