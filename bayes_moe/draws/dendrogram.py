"""The dendrogram of a mixing measure: merge the two nearest atoms, again and again, and choose how many to keep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayes_moe import families
from bayes_moe.ground import parameters
from bayes_moe.ground.data import check_tolerance, check_x, float64, same_rows
from bayes_moe.ground.parameters import Params
from bayes_moe.model import gaussian
from bayes_moe.model.moe import MoE, check_moe


@dataclass(frozen=True)
class Level:
    """One level of the tree.

    Parameters
    ----------
    params : dict of str to ndarray
        The measure with this many atoms.
    height : float
        Distance between its two nearest atoms, which the next level merges; infinite for a single atom.
    merged : tuple of tuple of int
        Which of the first measure's atoms make up each atom.
    """

    params: dict[str, np.ndarray]
    height: float
    merged: tuple[tuple[int, ...], ...]

    @property
    def experts(self) -> int:
        """Number of atoms."""
        return len(self.merged)


@float64
def dendrogram(moe: MoE, params: Params) -> list[Level]:
    """Merge the nearest atoms of an over-fitted measure until one is left.

    Atoms are read as normal distributions of (x, y), N(mu_i, S_i). The distance between two is

        (|mu_i - mu_j|^2 + |S_i - S_j|) / (1 / pi_i + 1 / pi_j),

    and the merged atom keeps the weight, mean and covariance of the pair's mixture. It depends on the units of x and y:
    standardise them.

    Parameters
    ----------
    moe : MoE
        Gaussian-gated, with full ``Gamma``.
    params : dict of str to array

    Returns
    -------
    list of Level
        From all atoms down to one.

    Raises
    ------
    ValueError
        For another model.

    References
    ----------
    Do, Do, McKinley, Terhorst and Nguyen (2024), arXiv:2403.01684, the distance for location-scale normal mixtures;
    arXiv:2505.13052 for the Gaussian gate. Merging in (x, y) is our choice.
    """
    check_moe(moe)
    if not moe.real or getattr(moe.gate, "covariance", "") != "full":
        raise ValueError("the dendrogram is for a Gaussian-gated mixture with covariance='full'.")
    values = parameters.check(moe.fields, params)
    responses = moe.experts[-1].responses
    weights, means, covariances = to_joint(values)
    merged = [(i,) for i in range(len(weights))]
    out = []
    while True:
        distance, pair = _nearest(weights, means, covariances)
        level = from_joint(weights, means, covariances, moe.gate.features, responses)
        out.append(Level(level, distance, tuple(merged)))
        if pair is None:
            return out
        weights, means, covariances = _merge(weights, means, covariances, pair)
        i, j = pair
        merged = [merged[k] for k in range(len(merged)) if k not in pair] + [merged[i] + merged[j]]


@float64
def choose(moe: MoE, levels: list[Level], x: object, y: object, omega: float | None = None) -> dict[int, float]:
    """Dendrogram information criterion of each level but the last, the smaller the better.

    DIC(k) = -(height_k + omega x mean log density at level k)

    height_k is that of the merge that leads from k atoms to k - 1. The formula and omega = log n agree with a public
    re-implementation, which counts the merge that led to k instead; they were not checked against the paper itself.
    Both choose alike where n is large: below the true number the log density falls, above it heights vanish.

    Parameters
    ----------
    moe : MoE
        The model of the first level.
    levels : list of Level
    x, y : array-like
        The data.
    omega : float, optional
        log n by default.

    Returns
    -------
    dict of int to float
        Number of atoms -> DIC.

    Raises
    ------
    ValueError
        For bad data.

    References
    ----------
    arXiv:2403.01684.
    """
    check_moe(moe)
    if not isinstance(levels, list | tuple) or not all(isinstance(level, Level) for level in levels):
        raise ValueError(f"levels must be those that dendrogram returns, got {levels!r:.200}.")
    if omega is not None:
        omega = check_tolerance("omega", omega)
    same_rows(x=x, y=y)
    sizes, responses = moe.gate.features, moe.experts[-1].responses
    x = check_x(x, sizes, moe.feature_names)
    slope = np.log(len(x)) if omega is None else omega
    out = {}
    for level in levels[:-1]:
        model = families.gaussian_gated(level.experts, sizes, responses=responses)
        out[level.experts] = -(level.height + slope * float(model.log_density(level.params, x, y).mean()))
    return out


@float64
def to_joint(params: Params) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, means and covariances of the Gaussian mixture in (x, y)."""
    pi, c, b = params["pi"], params["c"], params["b"].reshape(len(params["pi"]), -1)
    gamma = np.asarray(gaussian.as_matrices(params["Gamma"], c.shape[1]))
    a, nu = params["a"].reshape(len(pi), b.shape[1], -1), np.asarray(gaussian.as_matrices(params["nu"], b.shape[1]))
    cross = a @ gamma
    top = np.concatenate([gamma, np.swapaxes(cross, 1, 2)], axis=2)
    bottom = np.concatenate([cross, nu + cross @ np.swapaxes(a, 1, 2)], axis=2)
    mean_y = np.einsum("kqd,kd->kq", a, c) + b
    return pi, np.concatenate([c, mean_y], axis=1), np.concatenate([top, bottom], axis=1)


def from_joint(
    weights: np.ndarray, means: np.ndarray, covariances: np.ndarray, features: int, responses: int
) -> dict[str, np.ndarray]:
    """Parameters of the Gaussian-gated mixture: the inverse of :func:`to_joint`, for full covariances."""
    d, c = features, means[:, :features]
    gamma, cross = covariances[:, :d, :d], covariances[:, d:, :d]
    a = np.swapaxes(np.linalg.solve(gamma, np.swapaxes(cross, 1, 2)), 1, 2)
    nu = covariances[:, d:, d:] - a @ np.swapaxes(cross, 1, 2)
    b = means[:, d:] - np.einsum("kqd,kd->kq", a, c)
    out = {"pi": weights, "c": c, "Gamma": gamma, "a": a, "b": b, "nu": (nu + np.swapaxes(nu, 1, 2)) / 2}
    if responses == 1:
        out |= {"a": a[:, 0], "b": b[:, 0], "nu": nu[:, 0, 0]}
    return {name: np.array(value) for name, value in out.items()}


def _nearest(weights: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> tuple[float, tuple[int, int] | None]:
    best: tuple[float, tuple[int, int] | None] = (np.inf, None)
    for j in range(len(weights)):
        for i in range(j):
            gap = np.sum((means[i] - means[j]) ** 2) + np.linalg.norm(covariances[i] - covariances[j])
            distance = float(gap * weights[i] * weights[j] / (weights[i] + weights[j]))
            best = min(best, (distance, (i, j)), key=lambda found: found[0])
    return best


def _merge(
    weights: np.ndarray, means: np.ndarray, covariances: np.ndarray, pair: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    both, rest = list(pair), [k for k in range(len(weights)) if k not in pair]
    total = weights[both].sum()
    share = weights[both] / total
    mean = share @ means[both]
    away = means[both] - mean
    covariance = np.einsum("k,kij->ij", share, covariances[both] + away[:, :, None] * away[:, None, :])
    joined = (np.append(weights[rest], total), np.vstack([means[rest], mean]))
    return *joined, np.concatenate([covariances[rest], covariance[None]])
