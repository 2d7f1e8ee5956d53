"""What moves a chain, compiled: NUTS in whitened coordinates of any NumPyro model, and what goes between its steps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.infer.hmc import HMCState, hmc
from numpyro.infer.util import ParamInfo, potential_energy

from bayes_moe.ground.compilation import ahead
from bayes_moe.ground.tracing import TRACING
from bayes_moe.nuts.chains import LONGEST, Settings
from bayes_moe.nuts.modes import Layout, Model, layout, typed

Refresh = Callable[..., HMCState]
Kernel = tuple[Callable, Callable]


class Between(NamedTuple):
    """What moves a chain between transitions; module-level functions, as the model.

    Parameters
    ----------
    refresh : callable
        From NUTS's state, ``problem``, the layout, the potential of ``u`` and ``settings.sweeps`` to a state; it leaves
        the posterior as it is.
    alike : callable
        From arguments of the model, layout and a mode to the free vectors among which such moves lead, as those with
        other labels: the sampler is whitened by the curvature averaged over them.
    """

    refresh: Refresh
    alike: Callable[[tuple, Layout, np.ndarray], Sequence[np.ndarray]]


@functools.lru_cache(maxsize=64)
def _kernel(model: Model, where: Layout, settings: Settings, refresh: Refresh | None) -> Kernel:
    """Return ``init(key, point, problem)`` and ``advance(state, count, problem)``, which makes count transitions.

    ``point`` holds u, the potential energy there and its gradient, known already: init then compiles fast. What
    ``advance`` records has LONGEST rows, the first ``count`` of them filled.
    """

    def whitened(args: tuple, centre: Array, factor: Array) -> Callable[[Array], Array]:
        return lambda u: potential_energy(model, args, {}, where.sites(centre + factor @ u))

    fields = ("potential_energy", "energy", "num_steps", "accept_prob", "diverging", "z_grad")

    def begin(key: Array, point: tuple[Array, Array, Array], problem: tuple) -> tuple[object, Callable]:
        start, step = hmc(potential_fn_gen=whitened, algo="NUTS")
        state = start(
            ParamInfo(*point),
            settings.num_warmup,
            target_accept_prob=problem[3],
            max_tree_depth=settings.max_tree_depth,
            dense_mass=settings.dense_mass,
            model_args=problem[:3],
            rng_key=key,
        )
        return state, step

    def init(key: Array, point: tuple[Array, Array, Array], problem: tuple) -> object:
        state = begin(key, point, problem)[0]
        adapt = state.adapt_state._replace(rng_key=None)  # it would only serve a search for step sizes, which is off
        return state._replace(rng_key=key, energy=state.potential_energy, adapt_state=adapt)  # nobody reads the energy

    def record(state: object, problem: tuple) -> tuple[Array, dict[str, Array]]:
        stats = {name: getattr(state, name) for name in fields} | {"step_size": state.adapt_state.step_size}
        return problem[1] + problem[2] @ state.z, stats

    def advance(state: object, count: Array, problem: tuple) -> tuple[object, tuple]:
        point = (state.z, state.potential_energy, state.z_grad)
        _, step = begin(state.rng_key, point, problem)  # tells the step its target; the state made is compiled away

        def transition(i: Array, carried: tuple[object, tuple]) -> tuple[object, tuple]:
            state, rows = carried
            if refresh is not None:
                state = refresh(state, problem, where, whitened(*problem[:3]), settings.sweeps)
            state = step(state, problem[:3])
            set_row = functools.partial(jax.lax.dynamic_update_index_in_dim, index=i, axis=0)
            return state, jax.tree.map(set_row, rows, record(state, problem))

        rows = jax.tree.map(lambda a: jnp.zeros((LONGEST, *a.shape), a.dtype), record(state, problem))
        return jax.lax.fori_loop(0, count, transition, (state, rows))

    return init, advance


def kernel_of(model: Model, where: Layout, settings: Settings, between: Between | None) -> Kernel:
    """Return the same kernel for all settings that do not change the executable."""
    shared = replace(settings, num_samples=1, num_chains=1, target_accept_prob=None)
    return _kernel(model, where, shared, between and between.refresh)


def compile_ahead(
    model: Model,
    args: tuple,
    rng_key: Array,
    settings: Settings,
    light: tuple | None = None,
    between: Between | None = None,
) -> None:
    """Begin to compile what :func:`bayes_moe.nuts.sampler.run` will need.

    Parameters
    ----------
    model, args, rng_key, settings, light, between
        As for :func:`bayes_moe.nuts.sampler.run`, or with the shapes and dtypes of arrays in place of arrays.
    """
    where = layout(model, args)
    init, advance = kernel_of(model, where, settings, between)
    dtype = jnp.result_type(float)
    u, value, factor = (jax.ShapeDtypeStruct(shape, dtype) for shape in ((where.size,), (), (where.size,) * 2))
    problem = (args if light is None else light, u, factor, value)
    with TRACING:
        key = jax.eval_shape(typed, rng_key)
        state = jax.eval_shape(init, key, (u, value, u), problem)
    count = jax.ShapeDtypeStruct((), np.int32)
    ahead((advance, state, count, problem), (init, key, (u, value, u), problem))
