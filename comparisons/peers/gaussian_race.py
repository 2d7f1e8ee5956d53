"""A Gaussian-gated mixture of three experts: our NUTS beside NumPyro as most write it; same data, priors and draws.

    python -m comparisons.peers.gaussian_race

Experts are far apart, so that labels stay. Judged are label-invariant quantities all the same: chains of both may start
with other labels. A run that does not pass the sampling gate has no effective draws to speak of, and no ratio.
"""

from __future__ import annotations

from time import perf_counter

import arviz_base
import arviz_stats as azs
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import typer
import xarray as xr
from numpyro.infer import MCMC, NUTS

from bayes_moe import gaussian_gated, nuts
from bayes_moe.draws import diagnostics
from bayes_moe.draws.invariants import invariants
from bayes_moe.ground.data import float64
from bayes_moe.nuts.priors import SCALE, SPARSE
from comparisons.peers.clock import CompileClock
from comparisons.peers.numpyro_naive import WARMUP

EXPERTS, CHAINS, PROBES = 3, 2, 5
TRUTH = {
    "pi": np.array([0.3, 0.4, 0.3]),
    "c": np.array([[-2.0], [0.0], [2.0]]),
    "Gamma": np.full((3, 1, 1), 0.25),
    "a": np.array([[1.0], [-1.0], [0.0]]),
    "b": np.array([0.0, 1.0, -1.0]),
    "nu": np.full(3, 0.25),
}
MOE = gaussian_gated(EXPERTS, 1)


def model(rows: jax.Array) -> None:
    """Mixture of normal densities of (x, y), marginalised by ``MixtureSameFamily``.

    Parameters
    ----------
    rows : array, shape (n, d + 1)
    """
    d = rows.shape[1] - 1
    pi = numpyro.sample("pi", dist.Dirichlet(jnp.full(EXPERTS, SPARSE)))
    with numpyro.plate("expert", EXPERTS):
        c = numpyro.sample("c", dist.Normal(0, 2).expand([d]).to_event(1))
        gamma = numpyro.sample("Gamma", dist.InverseWishart(d + 2.0, scale_tril=SCALE**0.5 * jnp.eye(d)))
        a = numpyro.sample("a", dist.Normal(0, 2).expand([d]).to_event(1))
        b = numpyro.sample("b", dist.Normal(0, 2))
        nu = numpyro.sample("nu", dist.InverseGamma(1.5, SCALE / 2))
    cross = jnp.einsum("kij,kj->ki", gamma, a)
    below = jnp.concatenate([cross, (nu + jnp.sum(a * cross, axis=1))[:, None]], axis=1)
    covariance = jnp.concatenate([jnp.concatenate([gamma, cross[:, :, None]], axis=2), below[:, None]], axis=1)
    mean = jnp.concatenate([c, (b + jnp.sum(a * c, axis=1))[:, None]], axis=1)
    with numpyro.plate("obs_id", len(rows)):
        components = dist.MultivariateNormal(mean, covariance)
        numpyro.sample("xy", dist.MixtureSameFamily(dist.Categorical(probs=pi), components), obs=rows)


def theirs(x: np.ndarray, y: np.ndarray, draws: int, seed: int) -> tuple[xr.DataTree, float]:
    """Draws, and seconds without compilation."""
    fields = ("diverging", "energy", "potential_energy")
    with CompileClock() as clock:
        kernel = {"num_warmup": WARMUP, "num_samples": draws, "num_chains": CHAINS, "progress_bar": False}
        mcmc = MCMC(NUTS(model), chain_method="parallel", **kernel)
        mcmc.run(jax.random.PRNGKey(seed), jnp.column_stack([x, y]), extra_fields=fields)
        found = {name: np.asarray(value) for name, value in mcmc.get_samples(group_by_chain=True).items()}
        stats = {name: np.asarray(value) for name, value in mcmc.get_extra_fields(group_by_chain=True).items()}
    stats["lp"] = -stats.pop("potential_energy")
    dims = {name: list(MOE.fields[name].dims) for name in found}
    return arviz_base.from_dict({"posterior": found, "sample_stats": stats}, dims=dims), clock.run


def ours(x: np.ndarray, y: np.ndarray, draws: int, seed: int) -> tuple[xr.DataTree, float]:
    """Draws with the library's own defaults, and seconds of a second call: what the first took longer was compiling."""
    for key in (seed + 1000, seed):
        began = perf_counter()
        tree = nuts.sample(MOE, x, y, rng_key=key, num_chains=CHAINS, num_samples=draws, progress_bar=False)
        took = perf_counter() - began
    return tree, took


def rate(tree: xr.DataTree, seconds: float, x: np.ndarray, y: np.ndarray) -> tuple[float, diagnostics.Verdict]:
    """Smallest bulk ESS of the label-invariant quantities per second, and the gate on them."""
    found = invariants(MOE, tree, x[:PROBES], y[:PROBES])
    least = azs.ess(found, method="bulk")
    return min(float(least[name].min()) for name in least.data_vars) / seconds, diagnostics.check(tree, found)


@float64
def race(n: int, draws: int, seed: int) -> dict[str, tuple[float, diagnostics.Verdict]]:
    """Both on one data set: smallest ESS per second, and the verdict.

    Parameters
    ----------
    n, draws, seed : int
    """
    x, y = MOE.simulate_joint(seed, TRUTH, n)
    return {name: rate(*way(x, y, draws, seed), x, y) for name, way in (("ours", ours), ("NumPyro", theirs))}


def main(n: int = 2000, draws: int = 1000, repeats: int = 5) -> None:
    """Print each data set's smallest ESS per second and their ratio, then the median ratio with its range."""
    numpyro.set_host_device_count(CHAINS)
    ratios = []
    for seed in range(repeats):
        found = race(n, draws, seed)
        if all(verdict.passed for _, verdict in found.values()):
            ratios.append(found["ours"][0] / found["NumPyro"][0])
        typer.echo(f"{seed}: " + "; ".join(f"{name} {value:.1f}/s, {said}" for name, (value, said) in found.items()))
    typer.echo(f"gate passed by both: {len(ratios)} of {repeats}")
    if ratios:
        typer.echo(f"ratio: median {np.median(ratios):.1f}, {min(ratios):.1f} to {max(ratios):.1f}")


if __name__ == "__main__":
    typer.run(main)
