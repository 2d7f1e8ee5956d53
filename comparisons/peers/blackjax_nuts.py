"""The model in plain JAX, sampled by BlackJAX: window adaptation, then NUTS, one chain on each host device."""

from __future__ import annotations

import blackjax
import jax
import jax.numpy as jnp
import numpy as np

from comparisons.peers.clock import CompileClock
from comparisons.peers.problem import CHAINS, PRIOR_SCALE, Problem, Sampled

WARMUP = 500  # BlackJAX has no default

Params = dict[str, jax.Array]


def log_density(params: Params, x: jax.Array, frozen: jax.Array, y: jax.Array) -> jax.Array:
    """Log posterior density, up to a constant; ``frozen`` are the frozen expert's logits, (n, K)."""
    rows = jnp.arange(len(y))
    adapter = jnp.tanh(jnp.concatenate([x @ params["eta"].T, jnp.zeros((len(y), 1))], axis=1))
    score = x @ params["beta"] + params["tau"]
    frozen_part = jax.nn.log_sigmoid(-score) + jax.nn.log_softmax(frozen)[rows, y]
    adapter_part = jax.nn.log_sigmoid(score) + jax.nn.log_softmax(adapter)[rows, y]
    prior = sum(jax.scipy.stats.norm.logpdf(value, 0, PRIOR_SCALE).sum() for value in params.values())
    return prior + jnp.logaddexp(frozen_part, adapter_part).sum()


def sample(problem: Problem, *, draws: int, seed: int) -> Sampled:
    """Sample; precision and number of host devices come from the environment."""
    x, frozen, y = map(jnp.asarray, (problem.x, problem.frozen_logits, problem.y))

    def target(params: Params) -> jax.Array:
        return log_density(params, x, frozen, y)

    def chain(key: jax.Array) -> Params:
        start_key, warm_key, draw_key = jax.random.split(key, 3)
        warmup = blackjax.window_adaptation(blackjax.nuts, target)
        (state, found), _ = warmup.run(warm_key, _start(start_key, problem), num_steps=WARMUP)
        step = blackjax.nuts(target, **found).step

        def one(state: object, step_key: jax.Array) -> tuple[object, Params]:
            state, _ = step(step_key, state)
            return state, state.position

        return jax.lax.scan(one, state, jax.random.split(draw_key, draws))[1]

    with CompileClock() as clock:
        keys = jax.random.split(jax.random.PRNGKey(seed), CHAINS)
        out = jax.tree.map(np.asarray, jax.pmap(chain)(keys))
    return Sampled(out, clock.compile, clock.run)


def _start(key: jax.Array, problem: Problem) -> Params:
    classes, d = problem.eta0.shape
    shapes = {"tau": (), "beta": (d,), "eta": (classes - 1, d)}
    keys = jax.random.split(key, len(shapes))
    return {
        name: jax.random.uniform(k, shape, minval=-2.0, maxval=2.0)
        for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
