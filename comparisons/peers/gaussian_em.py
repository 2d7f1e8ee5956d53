"""One step of EM for a Gaussian-gated mixture beside one of scikit-learn's GaussianMixture, the same model of (x, y).

    python -m comparisons.peers.gaussian_em

From one start both take the same steps: their log likelihoods must agree. A step's time is the difference between
runs of many steps and of few, over the difference in steps: neither compilation nor scikit-learn's set-up counts.
"""

from __future__ import annotations

import warnings
from time import perf_counter

import numpy as np
import typer
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from bayes_moe import gaussian_gated
from bayes_moe.ground.parameters import Params
from mle import em

FEW = 5


def problem(n: int, experts: int, features: int, seed: int) -> tuple[np.ndarray, np.ndarray, Params]:
    """Overlapping experts, their data, and a start away from them."""
    moe, rng = gaussian_gated(experts, features), np.random.default_rng(seed)
    truth = moe.params(
        pi=np.full(experts, 1 / experts),
        c=rng.normal(size=(experts, features)),
        Gamma=np.tile(0.5 * np.eye(features), (experts, 1, 1)),
        a=rng.normal(size=(experts, features)),
        b=rng.normal(size=experts),
        nu=np.full(experts, 0.25),
    )
    x, y = moe.simulate_joint(seed, truth, n)
    return x, y, truth | {"c": truth["c"] + 0.3 * rng.normal(size=truth["c"].shape)}


def ours(x: np.ndarray, y: np.ndarray, start: Params, steps: int) -> tuple[float, float]:
    """Seconds of a climb of so many steps, and where it ended; what follows a climb is in both runs alike."""
    moe = gaussian_gated(len(start["pi"]), x.shape[1])
    began = perf_counter()
    fit = em.fit(moe, x, y, init=start, max_iter=steps, tol=0.0)
    return perf_counter() - began, fit.log_likelihood


def theirs(x: np.ndarray, y: np.ndarray, start: Params, steps: int) -> tuple[float, float]:
    """The same of scikit-learn, whose last E-step comes before its last M-step: the score is taken apart."""
    gamma, a = start["Gamma"], start["a"]
    cross = np.einsum("kij,kj->ki", gamma, a)
    variance = start["nu"] + np.sum(a * cross, axis=1)
    below = np.concatenate([cross, variance[:, None]], axis=1)
    covariance = np.concatenate([np.concatenate([gamma, cross[:, :, None]], axis=2), below[:, None]], axis=1)
    mixture = GaussianMixture(
        len(a),
        tol=0.0,
        reg_covar=0.0,
        max_iter=steps,
        weights_init=start["pi"],
        means_init=np.column_stack([start["c"], start["b"] + np.sum(a * start["c"], axis=1)]),
        precisions_init=np.linalg.inv(covariance),
        init_params="random",
        random_state=0,
    )
    points = np.column_stack([x, y])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        began = perf_counter()
        mixture.fit(points)
        took = perf_counter() - began
    return took, float(mixture.score(points) * len(points))


def race(n: int, experts: int, features: int, steps: int, seed: int) -> tuple[float, float, float]:
    """Seconds a step, ours and theirs, and how far the log likelihoods are apart.

    Parameters
    ----------
    n, experts, features, steps, seed : int
    """
    data = problem(n, experts, features, seed)
    ours(*data, 1)  # compiles
    seconds, ends = [], []
    for way in (ours, theirs):
        few, _ = way(*data, FEW)
        many, end = way(*data, FEW + steps)
        seconds.append((many - few) / steps)
        ends.append(end)
    return *seconds, abs(ends[0] - ends[1])


def main(n: int = 100_000, experts: int = 5, features: int = 2, steps: int = 50, repeats: int = 5) -> None:
    """Print each data set's milliseconds a step and their ratio, then the median ratio with its range."""
    ratios = []
    for seed in range(repeats):
        own, other, apart = race(n, experts, features, steps, seed)
        ratios.append(other / own)
        typer.echo(
            f"{seed}: {1e3 * own:.1f} ms a step, scikit-learn {1e3 * other:.1f} ms: {ratios[-1]:.1f}x; "
            f"log likelihoods after {FEW + steps} steps differ by {apart:.1e}"
        )
    typer.echo(f"ratio: median {np.median(ratios):.1f}, {min(ratios):.1f} to {max(ratios):.1f}")


if __name__ == "__main__":
    typer.run(main)
