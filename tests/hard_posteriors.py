"""Posteriors on which samplers go wrong in silence: `python -m tests.hard_posteriors --keys 20` prints a table.

Each is sampled by ``nuts.sample`` as it stands and judged by the sampling gate; means and standard deviations of every
parameter are compared with quadrature, or with long runs of plain NumPyro on a coding without necks. What counts is
the last column: a posterior over four Monte Carlo standard errors off that passed the gate is marked WRONG.
"""

import argparse
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import arviz_stats as azs
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS
from scipy.special import logsumexp

from bayes_moe import contaminated, gaussian_gated, nuts
from bayes_moe.draws import diagnostics

ALLOWED = 4.0  # Monte Carlo standard errors
ETA0 = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
Moments = dict[str, tuple[np.ndarray, np.ndarray, float]]  # mean, sd, and relative standard error of both


@dataclass(frozen=True)
class Case:
    """A user's model, its data, and the moments that are right."""

    model: Callable
    x: object
    y: np.ndarray
    moments: Moments


# References --------------------------------------------------------------------------------------------------------


def weighted(logs: np.ndarray, values: np.ndarray, variances: np.ndarray | float = 0.0) -> tuple:
    """Mean and sd of a mixture over the points of a grid."""
    share = np.exp(logs - logsumexp(logs))
    mean = share @ values
    return mean, np.sqrt(share @ (variances + (values - mean) ** 2)), 0.0


def given_scales(x: np.ndarray, y: np.ndarray, sds: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Log p(y), and mean and variances of the coefficients, of a regression with unit noise and these prior sds."""
    precision = x.T @ x + np.diag(sds**-2.0)
    mean, covariance = np.linalg.solve(precision, x.T @ y), np.linalg.inv(precision)
    log_p = 0.5 * (x.T @ y) @ mean - 0.5 * np.linalg.slogdet(precision)[1] - np.log(sds).sum()
    return log_p, mean, np.diag(covariance)


def plain(model: Callable, x: object, y: np.ndarray, names: tuple[str, ...], draws: int) -> Moments:
    """Moments from a long run of plain NumPyro."""
    with jax.enable_x64(True):
        kernel = NUTS(model, target_accept_prob=0.95)
        run = MCMC(kernel, num_warmup=1000, num_samples=draws, num_chains=2, progress_bar=False)
        run.run(jax.random.key(99), x, jnp.asarray(y))
        samples = run.get_samples(group_by_chain=True)
    out = {}
    for name in names:
        values = np.asarray(samples[name])
        ess = np.min(azs.ess(values.reshape(*values.shape[:2], -1), chain_axis=0, draw_axis=1))
        out[name] = values.mean(axis=(0, 1)), values.std(axis=(0, 1)), float(ess) ** -0.5
    return out


# Cases -------------------------------------------------------------------------------------------------------------


def shrink() -> Case:
    """A regression whose four coefficients share a scale."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 4))
    y = x @ (rng.normal(size=4) * 0.5) + 0.3 + rng.normal(size=40)

    def model(x, y=None):
        s = numpyro.sample("s", dist.HalfNormal(1.0))
        b = numpyro.sample("b", dist.Normal(0, s).expand([4]).to_event(1))
        a = numpyro.sample("a", dist.Normal(0, 2))
        with numpyro.plate("i", x.shape[0]):
            numpyro.sample("y", dist.Normal(a + x @ b, 1.0), obs=y)

    grid, design = np.linspace(1e-4, 8, 8000), np.column_stack([np.ones(40), x])
    each = [given_scales(design, y, np.r_[2.0, np.full(4, s)]) for s in grid]
    logs, means, variances = (np.array(part) for part in zip(*each, strict=True))
    logs = logs - grid**2 / 2
    a, b = (weighted(logs, means[:, part], variances[:, part]) for part in (slice(0, 1), slice(1, 5)))
    return Case(model, x, y, {"s": weighted(logs, grid), "a": a, "b": b})


def two_scales() -> Case:
    """Twelve coefficients, six to a scale, n = 600; those of the second scale are next to nothing."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(600, 12))
    y = x @ np.r_[rng.normal(size=6) * 0.6, rng.normal(size=6) * 0.05] + rng.normal(size=600)

    def model(x, y=None):
        s, t = (numpyro.sample(name, dist.HalfNormal(1.0)) for name in ("s", "t"))
        b = numpyro.sample("b", dist.Normal(0, s).expand([6]).to_event(1))
        c = numpyro.sample("c", dist.Normal(0, t).expand([6]).to_event(1))
        with numpyro.plate("i", x.shape[0]):
            numpyro.sample("y", dist.Normal(x[:, :6] @ b + x[:, 6:] @ c, 1.0), obs=y)

    grid = np.exp(np.linspace(np.log(1e-4), np.log(5), 160))
    s, t = (part.ravel() for part in np.meshgrid(grid, grid))
    each = [given_scales(x, y, np.repeat(pair, 6)) for pair in zip(s, t, strict=True)]
    logs, means, variances = (np.array(part) for part in zip(*each, strict=True))
    logs = logs - s**2 / 2 - t**2 / 2 + np.log(s) + np.log(t)
    b, c = (weighted(logs, means[:, part], variances[:, part]) for part in (slice(0, 6), slice(6, 12)))
    return Case(model, x, y, {"s": weighted(logs, s), "t": weighted(logs, t), "b": b, "c": c})


SCHOOLS = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
ERRORS = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


def schools(centred: bool) -> Case:
    """Eight schools (Rubin, 1981)."""

    def model(x, y=None):
        mu, tau = numpyro.sample("mu", dist.Normal(0, 5)), numpyro.sample("tau", dist.HalfCauchy(5))
        with numpyro.plate("school", 8):
            if centred:
                theta = numpyro.sample("theta", dist.Normal(mu, tau))
            else:
                theta = numpyro.deterministic("theta", mu + tau * numpyro.sample("z", dist.Normal(0, 1)))
            numpyro.sample("y", dist.Normal(theta, x), obs=y)

    line = np.exp(np.linspace(np.log(1e-4), np.log(2000), 4000))
    mu, tau = (part.ravel() for part in np.meshgrid(np.linspace(-25, 30, 600), line))
    total = tau[:, None] ** 2 + ERRORS**2
    logs = -(mu**2) / 50 - np.log1p(tau**2 / 25) + np.log(tau)
    logs += -0.5 * ((SCHOOLS - mu[:, None]) ** 2 / total + np.log(total)).sum(axis=1)
    share = tau[:, None] ** 2 / total
    theta = weighted(logs, mu[:, None] + share * (SCHOOLS - mu[:, None]), share * ERRORS**2)
    return Case(model, ERRORS, SCHOOLS, {"mu": weighted(logs, mu), "tau": weighted(logs, tau), "theta": theta})


def shrunk(n: int, seed: int) -> Case:
    """The README's model of one's own: an adapter shrunk to the frozen expert, by a scale that is learned."""
    moe = contaminated(frozen=ETA0, frozen_activation="linear", activation="tanh")
    truth = moe.params(tau=0.5, beta=[1.0, -1.0], eta=[[1.5, 0.0], [0.0, -1.5]])
    x = np.random.default_rng(seed).normal(size=(n, 2))
    y = moe.simulate(seed, truth, x)

    def coded(centred: bool) -> Callable:
        def normal(name, centre, scale, shape):
            if centred:
                return numpyro.sample(name, dist.Normal(centre, scale).expand(shape).to_event(len(shape)))
            z = numpyro.sample(f"{name}_z", dist.Normal(0, 1).expand(shape).to_event(len(shape)))
            return numpyro.deterministic(name, centre + scale * z)

        def model(x, y=None):
            scale = numpyro.sample("scale", dist.HalfNormal(1.0))
            tau = numpyro.sample("tau", dist.Normal(0, 1).expand([1]).to_event(1))
            params = {
                "tau": tau,
                "beta": normal("beta", 0.0, scale, (1, 2)),
                "eta": normal("eta", ETA0[None, :2], scale, (1, 2, 2)),
            }
            with numpyro.plate("obs_id", x.n):
                numpyro.sample("y", nuts.Mixture(moe, params, x), obs=y)

        return model

    data = moe.prepare(x)
    moments = plain(coded(False), data, y, ("scale", "tau", "beta", "eta"), 10_000)
    return Case(coded(True), data, y, moments)


def horseshoe(centred: bool) -> Case:
    """A sparse regression; the reference samples the scales alone, and has the coefficients in closed form."""
    rng, p = np.random.default_rng(3), 10
    x = rng.normal(size=(80, p))
    y = x[:, :2] @ np.array([1.5, -1.0]) + rng.normal(size=80)

    def scales():
        return numpyro.sample("tau", dist.HalfCauchy(0.3)) * numpyro.sample(
            "lam", dist.HalfCauchy(1.0).expand([p]).to_event(1)
        )

    def model(x, y=None):
        sds = scales()
        if centred:
            b = numpyro.sample("b", dist.Normal(0, sds).to_event(1))
        else:
            b = numpyro.deterministic("b", sds * numpyro.sample("z", dist.Normal(0, 1).expand([p]).to_event(1)))
        with numpyro.plate("i", x.shape[0]):
            numpyro.sample("y", dist.Normal(x @ b, 1.0), obs=y)

    def marginal(x, y=None):
        sds = scales()
        inner = jnp.eye(p) + sds[:, None] * (x.T @ x) * sds
        mean = sds * jnp.linalg.solve(inner, sds * (x.T @ y))
        covariance = sds[:, None] * jnp.linalg.inv(inner) * sds
        numpyro.factor("y", 0.5 * (x.T @ y) @ mean - 0.5 * jnp.linalg.slogdet(inner)[1])
        numpyro.deterministic("b", mean)
        numpyro.deterministic("square", jnp.diag(covariance) + mean**2)

    found = plain(marginal, x, y, ("b", "square"), 10_000)
    (mean, _, error), (square, _, _) = found["b"], found["square"]
    return Case(model, x, y, {"b": (mean, np.sqrt(square - mean**2), error)})


def gate() -> Case:
    """A Gaussian gate whose variances have half-normal priors, which do not vanish at zero."""
    moe = gaussian_gated(2, 1)
    values = {"pi": [0.4, 0.6], "c": [[-1.0], [1.0]], "Gamma": [[[0.3]]] * 2, "a": [[1.0], [-1.0]], "b": [0, 1]}
    x, y = moe.simulate_joint(4, moe.params(**values, nu=0.2), 150)

    def model(x, y=None):
        half, wide = dist.HalfNormal(1.0), dist.Normal(0, 2)
        params = {
            "pi": numpyro.sample("pi", dist.Dirichlet(jnp.ones(2))),
            "c": numpyro.sample("c", dist.Normal(jnp.array([[-1.0], [1.0]]), 0.7).to_event(2)),
            "Gamma": numpyro.sample("Gamma", half.expand([2, 1, 1]).to_event(3)),
            "a": numpyro.sample("a", wide.expand([2, 1]).to_event(2)),
            "b": numpyro.sample("b", wide.expand([2]).to_event(1)),
            "nu": numpyro.sample("nu", half.expand([2]).to_event(1)),
        }
        with numpyro.plate("obs_id", x.n):
            numpyro.sample("y", nuts.Mixture(moe, params, x), obs=y)

    data = moe.prepare(x)
    return Case(model, data, y, plain(model, data, y, ("pi", "c", "Gamma", "a", "b", "nu"), 5000))


CASES = {
    "shrink": shrink,
    "two scales": two_scales,
    "schools, centred": lambda: schools(True),
    "schools": lambda: schools(False),
    "horseshoe, centred": lambda: horseshoe(True),
    "horseshoe": lambda: horseshoe(False),
    "gate": gate,
    **{f"README {n} {seed}": lambda n=n, seed=seed: shrunk(n, seed) for n in (40, 80, 150) for seed in range(10)},
}


# The table ---------------------------------------------------------------------------------------------------------


def deviations(idata: object, moments: Moments) -> Iterator[tuple[float, str]]:
    """Of each entry's mean and sd, the deviation in standard errors, and words."""
    for name, (mean, sd, error) in moments.items():
        draws = idata["posterior"][name].transpose("chain", "draw", ...).values
        draws, sds = draws.reshape(*draws.shape[:2], -1), np.ravel(sd)
        for kind, found, right in (("mean", draws.mean(axis=(0, 1)), mean), ("sd", draws.std(axis=(0, 1)), sd)):
            own = [float(azs.mcse(draws[..., j], method=kind)) for j in range(draws.shape[2])]
            for j, (a, b) in enumerate(zip(found, np.ravel(right), strict=True)):
                yield abs(a - b) / max(np.hypot(own[j], error * sds[j]), 1e-300), f"{kind} of {name}[{j}]"


def row(case: Case, key: int) -> tuple[bool, float, str]:
    """Whether the gate passed, the largest deviation, and where it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        idata = nuts.sample(case.model, case.x, case.y, rng_key=key, progress_bar=False)
        worst, where = max(deviations(idata, case.moments), key=lambda pair: np.nan_to_num(pair[0], nan=np.inf))
        verdict = diagnostics.check(idata)
    return verdict.passed, worst, where if verdict.passed else f"{where}; {verdict}"


def main() -> None:
    """Print a line for each case, and its worst rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help=f"beginnings of names, of {', '.join(CASES)}; all by default")
    parser.add_argument("--keys", type=int, default=20)
    parser.add_argument("--rows", action="store_true", help="print each key's row")
    asked = parser.parse_args()
    chosen = [name for name in CASES if name.startswith(tuple(asked.cases or ("",)))]
    print(f"{'case':20} keys passed  worst of the passed (in standard errors)  WRONG and passed", flush=True)
    for name in chosen:
        case = CASES[name]()
        rows = []
        for key in range(1, asked.keys + 1):
            rows.append(row(case, key))
            if asked.rows:
                print(
                    f"  key {key:3} {'passed' if rows[-1][0] else 'FAILED'} {rows[-1][1]:6.2f} {rows[-1][2]}",
                    flush=True,
                )
        passed = [deviation for ok, deviation, _ in rows if ok]
        wrong = sum(not deviation < ALLOWED for deviation in passed)
        print(f"{name:20} {len(rows):4} {len(passed):6} {max(passed, default=np.nan):7.2f} {wrong:35}", flush=True)


if __name__ == "__main__":
    main()
