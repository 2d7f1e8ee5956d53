"""Where a posterior has its mass: the free vector of any NumPyro model, its modes and the curvature there."""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer.util import potential_energy
from scipy import optimize

from bayes_moe.ground import threads
from bayes_moe.ground.compilation import TRACING, compiled

START_RADIUS = 2.0  # mode searches start uniformly in a box of this half-width, as Stan's chains do
NORMAL_FALLS = (1.0, 5.0)  # of the log density, two standard deviations away
LOOSE = 1e3  # posterior width, in unconstrained units, that is warned of
FLAT = 1e-6  # share of the largest curvature below which a direction counts as flat

Model = Callable[..., object]


@dataclass(frozen=True)
class Layout:
    """Names and unconstrained shapes of a model's latent sites: the order of its free vector."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def size(self) -> int:
        """Length of the free vector."""
        return sum(int(np.prod(shape)) for _, shape in self.shapes)

    @property
    def cuts(self) -> list[int]:
        """Positions in the free vector where one site ends and the next begins."""
        return [int(end) for end in np.cumsum([np.prod(shape) for _, shape in self.shapes])[:-1]]

    def owners(self, directions: np.ndarray) -> str:
        """Names of the sites that hold over a tenth of any of these directions (columns)."""
        shares = [np.sum(part**2, axis=0) for part in np.split(directions, self.cuts)]
        return ", ".join(name for (name, _), share in zip(self.shapes, shares, strict=True) if share.max() > 0.1)

    def sites(self, free: Array) -> dict[str, Array]:
        """Cut a free vector into its sites."""
        parts = jnp.split(free, self.cuts)
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes, parts, strict=True)}

    def free(self, sites: dict[str, Array]) -> Array:
        """Free vector of these sites: the inverse of :meth:`sites`."""
        return jnp.concatenate([jnp.ravel(sites[name]) for name, _ in self.shapes])


@dataclass(frozen=True)
class AsItIs:
    """A model of somebody's own, told apart from what it was when a value that it reads from outside was another.

    Compiled code is kept by the identity of the model, and holds such values.

    Parameters
    ----------
    function : callable
    digest : str
        Of what it computes.
    """

    function: Model
    digest: str

    def __call__(self, *args: object, **named: object) -> object:
        """Run the model."""
        return self.function(*args, **named)

    @classmethod
    def of(cls, model: Model, args: tuple) -> AsItIs:
        """Trace a model, abstractly, and keep a digest of every operation and constant."""

        def everything(key: Array, args: tuple) -> tuple:
            seeded = handlers.seed(model, key)
            trace = handlers.trace(seeded).get_trace(*args)
            values = {name: site["value"] for name, site in trace.items()}
            free = {name: jnp.zeros(shape) for name, shape in _free_shapes(trace).items()}
            return values, potential_energy(seeded, args, {}, free)

        with TRACING:
            program = jax.jit(everything).lower(jax.random.key(0), args)
        text = f"{program.out_tree} {program.as_text()}"
        return cls(model, hashlib.sha256(text.encode()).hexdigest())


def _free_shapes(trace: dict[str, dict]) -> dict[str, tuple[int, ...]]:
    """Unconstrained shapes of the latent sites that are continuous."""
    return {
        name: tuple(biject_to(site["fn"].support).inverse_shape(jnp.shape(site["value"])))
        for name, site in trace.items()
        if _latent(site) and not site["fn"].is_discrete
    }


def _latent(site: dict) -> bool:
    return site["type"] == "sample" and not site["is_observed"]


def layout(model: Model, args: tuple) -> Layout:
    """Trace a model, abstractly, once for each shape of its arguments, and read off its latent sites."""
    leaves, structure = jax.tree.flatten(args)
    return _layout(model, structure, tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves))


@functools.lru_cache(maxsize=64)
def _layout(model: Model, structure: jax.tree_util.PyTreeDef, leaves: tuple[jax.ShapeDtypeStruct, ...]) -> Layout:
    shapes, discrete = {}, []

    def look(args: tuple) -> None:
        trace = handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace(*args)
        shapes.update(_free_shapes(trace))
        discrete.extend(name for name, site in trace.items() if _latent(site) and site["fn"].is_discrete)

    with TRACING:
        jax.eval_shape(look, jax.tree.unflatten(structure, leaves))
    if discrete:
        raise ValueError(f"the model has discrete latent sites, which NUTS can't sample: {', '.join(discrete)}.")
    if not shapes:
        raise ValueError("the model has no latent sites: nothing to sample.")
    return Layout(tuple(shapes.items()))


@functools.lru_cache(maxsize=64)
def _potential_and_grad(model: Model, where: Layout, structure: jax.tree_util.PyTreeDef) -> Callable:
    """Negative log posterior density of the free vector, with its gradient, given the leaves of the arguments."""

    def potential(free: Array, leaves: list[Array]) -> Array:
        return potential_energy(model, jax.tree.unflatten(structure, leaves), {}, where.sites(free))

    return jax.value_and_grad(potential)


def draw_starts(
    model: Model, where: Layout, args: tuple, key: Array, count: int, starts: Sequence[dict[str, Array]] | None
) -> np.ndarray:
    """Return free vectors to search modes from: those given, or random ones."""
    if starts is None:
        box = generator(key).uniform(-START_RADIUS, START_RADIUS, (count, where.size))
        return box.astype(jnp.result_type(float))
    return np.stack([_given_start(model, where, args, key, start) for start in starts])


def _given_start(model: Model, where: Layout, args: tuple, key: Array, start: dict[str, Array]) -> np.ndarray:
    missing = [name for name, _ in where.shapes if name not in start]
    if missing:
        raise ValueError(f"init must give every latent site, missing: {', '.join(missing)}.")

    def free(start: dict[str, Array], args: tuple) -> dict[str, Array]:
        trace = handlers.trace(handlers.seed(model, key)).get_trace(*args)
        return {name: biject_to(trace[name]["fn"].support).inv(start[name]) for name, _ in where.shapes}

    with TRACING:
        parts = jax.jit(free)({name: jnp.asarray(start[name], dtype=float) for name, _ in where.shapes}, args)
    outside = [name for name, part in parts.items() if not np.isfinite(part).all()]
    if outside:
        raise ValueError(f"init must lie inside the prior's support, which it does not for: {', '.join(outside)}.")
    return np.concatenate([np.ravel(parts[name]) for name, _ in where.shapes])


def generator(key: Array) -> np.random.Generator:
    """NumPy generator seeded by a JAX key: small draws need no compilation."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())


def child_keys(key: Array, count: int) -> list[Array]:
    """Independent keys of the same kind, as ``jax.random.split`` gives, without its compilation."""
    data = np.asarray(jax.random.key_data(key))
    words = generator(key).integers(0, 2**32, size=(count, *data.shape), dtype=np.uint32)
    return [jax.random.wrap_key_data(each, impl=jax.random.key_impl(key)) for each in words]


def typed(key: Array) -> Array:
    """Return a key of the kind that :func:`child_keys` makes, from a raw one too."""
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=jax.random.key_impl(key))


class Modes(NamedTuple):
    """Ends of searches, highest first: free vectors, log densities, and the spread of each coordinate there."""

    free: np.ndarray
    log_densities: np.ndarray
    spread: np.ndarray


Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]


def objective(model: Model, where: Layout, args: tuple) -> Objective:
    """Negative log posterior density of the free vector and its gradient, as NumPy numbers; compiled once."""
    dtype = jnp.result_type(float)
    leaves, structure = jax.tree.flatten(args)  # once: it takes as long as a thousand observations
    function = _potential_and_grad(model, where, structure)
    value_and_grad = compiled(function, jax.ShapeDtypeStruct((where.size,), dtype), leaves)

    def on_numpy(free: np.ndarray) -> tuple[float, np.ndarray]:
        value, grad = value_and_grad(np.asarray(free, dtype=dtype), leaves)
        return float(value), np.asarray(grad, dtype=np.float64)

    return on_numpy


def find_modes(negative: Objective, starts: np.ndarray) -> Modes:
    """Posterior modes from each start (BFGS, exact gradients)."""
    with threads.one_blas_thread():
        results = [optimize.minimize(negative, s, jac=True, method="BFGS", options={"gtol": 1e-4}) for s in starts]
    finite = [r for r in results if np.isfinite(r.fun) and np.isfinite(r.x).all()]
    if not finite:
        raise ValueError(
            "the log posterior is not finite from any start: check the prior, the data and custom activations, "
            "or pass init={name: value}."
        )
    finite.sort(key=lambda r: r.fun)
    free = np.array([r.x for r in finite], dtype=starts.dtype)
    variances = np.array([np.diag(r.hess_inv) for r in finite])  # rounding may leave some negative
    spread = np.sqrt(np.where(variances > 0, variances, 1.0)).astype(starts.dtype)
    return Modes(free, -np.array([r.fun for r in finite]), spread)


def whitening(
    negative: Objective,
    modes: Modes,
    where: Layout,
    points: Sequence[np.ndarray] | None = None,
    hessian: np.ndarray | None = None,
) -> tuple[np.ndarray, str]:
    """Inverse root of the absolute curvature at the best mode, or averaged over ``points``, and a word on it.

    Curvature comes from central differences of the gradient: a preconditioner need not be exact. Negative or tiny
    eigenvalues (a saddle, a flat direction) are replaced by their absolute value, but at least 1e-6 of the largest:
    the factor is always invertible, and warm-up adapts the scale of each axis anyway. Where the curvature is not
    finite the factor is the identity. ``points`` are those among which a chain jumps: averaged, the factor suits the
    stiffest of them, or nearly; ``hessian`` is the curvature at the best mode, if it is known. A direction along
    which next to nothing bounds the posterior, as under a flat prior where the likelihood has its maximum at infinity,
    is warned of by name.
    """
    mode = modes.free[0]
    if hessian is None or points is not None:
        hessian = curvature(negative, [mode] if points is None else points, modes.spread[0])
    if not np.isfinite(hessian).all():
        return np.eye(len(mode), dtype=mode.dtype), "identity: the curvature at the mode is not finite"
    values, vectors = np.linalg.eigh(hessian)
    floor = max(FLAT * np.abs(values).max(), 1e-12)
    strange = int(np.sum(values < floor))
    word = ""
    if strange:
        names = where.owners(vectors[:, :strange])
        word = f", {strange} of {len(values)} directions flat or rising (mostly {names}): absolute values used"
    loose = int(np.sum(np.abs(values) < LOOSE**-2))
    if loose:
        warnings.warn(
            f"next to nothing bounds the posterior along {loose} of {len(values)} directions, mostly "
            f"{where.owners(vectors[:, np.argsort(np.abs(values))[:loose]])}: it is over {LOOSE:.0f} wide there, in "
            "unconstrained units. The likelihood may have its maximum at infinity (separation) or be flat, under a "
            "prior that is flat too. Give these parameters a proper prior, such as Normal(0, 2).",
            stacklevel=4,
        )
    factor = (vectors / np.sqrt(np.maximum(np.abs(values), floor))).astype(mode.dtype)
    place = "at the mode" if points is None else f"at the mode, averaged over {len(points)} labellings"
    return factor, f"curvature {place}{word}"


def curvature(negative: Objective, points: Sequence[np.ndarray], spread: np.ndarray) -> np.ndarray:
    """Hessian of the negative log density, averaged over points, by central differences of the gradient."""
    steps = np.diag(np.finfo(points[0].dtype).eps ** 0.25 * spread)
    slopes = [sum(negative(point + h)[1] - negative(point - h)[1] for point in points) for h in steps]
    hessian = np.array(slopes) / (2.0 * len(points) * steps.sum(axis=0)[:, None])
    return (hessian + hessian.T) / 2.0


def near_normal(negative: Objective, modes: Modes, factor: np.ndarray) -> bool:
    """Whether the log density falls by NORMAL_FALLS two sds from the mode along each whitened axis; a normal's by 2."""
    mode, (least, most) = modes.free[0], NORMAL_FALLS
    top = -modes.log_densities[0]
    steps = (sign * axis for axis in 2.0 * factor.T for sign in (1.0, -1.0))
    return all(least <= negative(mode + step)[0] - top <= most for step in steps)
