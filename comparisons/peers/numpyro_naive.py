"""The model as most people write it in NumPyro: rows are observations, the frozen expert is computed in the model."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

from comparisons.peers.clock import CompileClock
from comparisons.peers.problem import CHAINS, PRIOR_SCALE, Draws, Problem, Sampled

WARMUP = 500  # NumPyro has no default


def model(x: jax.Array, eta0: jax.Array, frozen_activation: str, y: jax.Array | None = None) -> None:
    """Gate, frozen expert and adapter, marginalised by ``MixtureGeneral``."""
    n, d = x.shape
    tau = numpyro.sample("tau", dist.Normal(0, PRIOR_SCALE))
    beta = numpyro.sample("beta", dist.Normal(0, PRIOR_SCALE).expand([d]).to_event(1))
    eta = numpyro.sample("eta", dist.Normal(0, PRIOR_SCALE).expand([len(eta0) - 1, d]).to_event(2))
    frozen = x @ eta0.T
    if frozen_activation == "tanh":
        frozen = jnp.tanh(frozen)
    adapter = jnp.tanh(jnp.concatenate([x @ eta.T, jnp.zeros((n, 1))], axis=1))
    score = x @ beta + tau
    with numpyro.plate("obs_id", n):
        gate = dist.Categorical(logits=jnp.stack([jnp.zeros(n), score], axis=1))
        experts = [dist.Categorical(logits=frozen), dist.Categorical(logits=adapter)]
        numpyro.sample("y", dist.MixtureGeneral(gate, experts), obs=y)


def posterior(problem: Problem, draws: int, seed: int) -> Draws:
    """Make a new ``MCMC`` object, as people do for each data set, and run it."""
    mcmc = MCMC(
        NUTS(model),
        num_warmup=WARMUP,
        num_samples=draws,
        num_chains=CHAINS,
        chain_method="parallel",
        progress_bar=False,
    )
    arguments = (jnp.asarray(problem.x), jnp.asarray(problem.eta0), problem.frozen_activation, jnp.asarray(problem.y))
    mcmc.run(jax.random.PRNGKey(seed), *arguments)
    return {name: np.asarray(value) for name, value in mcmc.get_samples(group_by_chain=True).items()}


def sample(problem: Problem, *, draws: int, seed: int) -> Sampled:
    """Sample; precision and number of host devices come from the environment."""
    with CompileClock() as clock:
        out = posterior(problem, draws, seed)
    return Sampled(out, clock.compile, clock.run)


def many(*problems: Problem, draws: int, seed: int) -> Sampled:
    """Sample each data set; draws gain a leading axis."""
    with CompileClock() as clock:
        fits = [posterior(problem, draws, seed) for problem in problems]
    return Sampled({name: np.stack([fit[name] for fit in fits]) for name in fits[0]}, clock.compile, clock.run)
