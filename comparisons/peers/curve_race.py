"""Kernel estimates of curves: seconds of a fit, of a bootstrap, and beside SciPy's BFGS at each u by itself.

    python -m comparisons.peers.curve_race

Data sets of simulation 1. The generic way writes the local log likelihood in vectorised NumPy and climbs it at each
grid point with BFGS and numeric gradients, SciPy's default. Ours climbs the same from the same start (and again from
each neighbour's end), and must end no lower; the label-consistent EM, timed beside, chooses among starts of its own.
"""

from __future__ import annotations

from time import perf_counter

import numpy as np
import typer
from scipy import optimize
from scipy.special import log_softmax, logsumexp

from bayes_moe import varying_coefficient
from comparisons.curves.regimes import GRID, regime
from mle.kernel import bands, kernel_em
from mle.kernel.fit import CurveFit

BANDWIDTH = 0.21
SAME = 1e-6  # difference of local log likelihoods that counts as none
Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def problem(n: int, seed: int) -> Data:
    """Covariates x and z (n, 1), index u and responses y."""
    (x, z, u, _), y = regime("normal").draw(seed, n)
    return x, z, u, np.asarray(y)


def ours(data: Data, **options: object) -> tuple[float, CurveFit]:
    """Seconds of a fit, and the fit."""
    began = perf_counter()
    fit = kernel_em.fit(
        varying_coefficient("normal", 2), *data, h=BANDWIDTH, u_range=(0.0, 1.0), grid=GRID, random_state=0, **options
    )
    return perf_counter() - began, fit


def generic(data: Data, start: dict[str, np.ndarray]) -> tuple[float, np.ndarray]:
    """Seconds of BFGS at all grid points, and the local log likelihoods where it ended."""
    x, z, u, y = data
    began = perf_counter()
    ends = []
    for place, at in enumerate(GRID):
        t = (u - at) / BANDWIDTH
        seen = np.abs(t) < 1
        rows = (x[seen], z[seen], t[seen], y[seen])
        level = np.concatenate([np.ravel(start[name][place]) for name in ("beta", "alpha", "delta")])
        first = np.concatenate([level, np.zeros_like(level)])
        ends.append(-optimize.minimize(lambda theta, rows=rows: -local(theta, *rows), first, method="BFGS").fun)
    return perf_counter() - began, np.array(ends)


def local(theta: np.ndarray, x: np.ndarray, z: np.ndarray, t: np.ndarray, y: np.ndarray) -> float:
    """Local log likelihood of two normal experts, coefficients linear in t; the first is the gate's reference."""
    levels, slopes = theta.reshape(2, -1)
    gate, experts, log_sd = np.split(levels + slopes * t[:, None], [2, 6], axis=1)
    score = gate[:, 0] + gate[:, 1] * x[:, 0]
    gates = log_softmax(np.stack([np.zeros_like(score), score]), axis=0)
    mean = experts[:, [0, 2]] + experts[:, [1, 3]] * z
    density = -0.5 * ((y[:, None] - mean) / np.exp(log_sd)) ** 2 - log_sd - 0.5 * np.log(2 * np.pi)
    return float(np.sum(0.75 * (1 - t**2) / BANDWIDTH * logsumexp(gates.T + density, axis=1)))


def race(n: int, seed: int) -> tuple[float, float, float, np.ndarray]:
    """Seconds of the label-consistent EM, of our climbs at each u and of theirs, and by how much ours end higher.

    Parameters
    ----------
    n, seed : int
    """
    data = problem(n, seed)
    took, fit = ours(data)
    apart, separate = ours(data, engine="separate", init=fit.params)
    slow, ends = generic(data, fit.params)
    return took, apart, slow, separate.local_log_likelihood - ends


def main(n: int = 500, replicates: int = 200, repeats: int = 5) -> None:
    """Print each data set's seconds and ratio, then the median ratio with its range, and a bootstrap's seconds."""
    data = problem(n, 0)
    _, fit = ours(data)  # compiles
    ours(data, engine="separate", init=fit.params)
    ratios = []
    for seed in range(1, repeats + 1):
        took, apart, slow, gains = race(n, seed)
        ratios.append(slow / apart)
        typer.echo(
            f"{seed}: label-consistent EM {took:.2f} s; each u by itself {apart:.2f} s, BFGS {slow:.1f} s: "
            f"{ratios[-1]:.0f}x; ours higher at {int((gains > SAME).sum())}, lower at {int((gains < -SAME).sum())} "
            f"of {len(gains)} points"
        )
    typer.echo(f"ratio: median {np.median(ratios):.0f}, {min(ratios):.0f} to {max(ratios):.0f}")
    bands.bootstrap(fit, replicates=20, random_state=0)  # compiles
    began = perf_counter()
    bands.bootstrap(fit, replicates=replicates, random_state=1)
    typer.echo(
        f"bootstrap bands, {replicates} replicates and {bands.PILOT} of the pilot: {perf_counter() - began:.1f} s"
    )


if __name__ == "__main__":
    typer.run(main)
