"""The one problem that all share. NumPy only, so that no peer pays for another's imports.

p(y = s | x) = (1 - w(x)) f0(s | x) + w(x) f(s | x; eta),  w(x) = sigmoid(beta' x + tau),
f(s | x; eta) = softmax_s(tanh(eta_s' x)), eta_K = 0, and Normal(0, 2) priors on all 13 coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

PRIOR_SCALE = 2.0
REGIMES = ("heterogeneous", "homogeneous")
CHAINS = 2
ETA0 = np.array([[0.0, 1.0, 0.5, -0.5], [1.0, 0.0, -0.5, 0.5], [0.0, 0.0, 0.0, 0.0]])
DIRECTION = np.array([[2.0, 0.0, 1.0, 0.0], [0.0, -2.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
FIXED = {"tau": 0.5, "beta": np.array([1.0, -1.0, 0.5, 0.0]), "eta": np.array([[1.5, 0, -1, 0.5], [0, -1.5, 0.5, 1]])}

Draws = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Problem:
    """Data, and the frozen expert.

    Parameters
    ----------
    x : ndarray, shape (n, d)
    y : ndarray of int, shape (n,)
        Class positions.
    eta0 : ndarray, shape (K, d)
        The frozen expert's class vectors.
    frozen_activation : "linear" or "tanh"
    """

    x: np.ndarray
    y: np.ndarray
    eta0: np.ndarray
    frozen_activation: str

    @property
    def frozen_logits(self) -> np.ndarray:
        """The frozen expert's logits, (n, K)."""
        scores = self.x @ self.eta0.T
        return np.tanh(scores) if self.frozen_activation == "tanh" else scores

    def save(self, path: Path) -> None:
        """Write to an npz file."""
        np.savez(path, x=self.x, y=self.y, eta0=self.eta0, frozen_activation=self.frozen_activation)


@dataclass(frozen=True, eq=False)
class Sampled:
    """What a peer returns.

    Parameters
    ----------
    draws : dict of str to ndarray
        ``tau``, ``beta``, ``eta``, each with leading axes (chain, draw).
    compile : float
        Seconds of compilation.
    run : float
        Seconds of everything else, mode finding and warm-up included.
    passed : bool, optional
        The verdict of the library's own sampling gate, where it has one.
    """

    draws: Draws
    compile: float
    run: float
    passed: bool | None = None


def load(path: Path) -> Problem:
    """Read what :meth:`Problem.save` wrote."""
    with np.load(path) as stored:
        return Problem(stored["x"], stored["y"], stored["eta0"], str(stored["frozen_activation"]))


def truth(regime: str, n: int) -> dict[str, np.ndarray]:
    """True parameters: fixed (heterogeneous), or nearing the frozen expert as n^(-1/8) (homogeneous)."""
    if regime == "heterogeneous":
        return {name: np.asarray(value, dtype=float) for name, value in FIXED.items()}
    if regime != "homogeneous":
        raise ValueError(f"regime must be one of {', '.join(REGIMES)}, got {regime!r}.")
    eta = (ETA0 + float(n) ** (-1 / 8) * DIRECTION)[:-1]
    return {"tau": np.zeros(()), "beta": np.zeros(ETA0.shape[1]), "eta": eta}


def simulate(regime: str, n: int, seed: int) -> Problem:
    """Draw standard normal covariates, then labels from the truth.

    Parameters
    ----------
    regime : "heterogeneous" or "homogeneous"
        Linear or tanh frozen expert; the adapter is tanh.
    n, seed : int

    Returns
    -------
    Problem
    """
    true, rng = truth(regime, n), np.random.default_rng(seed)
    x = rng.normal(size=(n, ETA0.shape[1]))
    frozen = Problem(x, np.zeros(n, int), ETA0, "linear" if regime == "heterogeneous" else "tanh")
    adapter = np.tanh(np.column_stack([x @ true["eta"].T, np.zeros(n)]))
    chosen = rng.random(n) < 1 / (1 + np.exp(-(x @ true["beta"] + true["tau"])))
    logits = np.where(chosen[:, None], adapter, frozen.frozen_logits)
    y = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)
    return Problem(x, y, frozen.eta0, frozen.frozen_activation)


def coordinates(draws: Draws) -> np.ndarray:
    """All parameters side by side, (chain, draw, P), in the order tau, beta, eta."""
    parts = [np.asarray(draws[name], dtype=float) for name in ("tau", "beta", "eta")]
    return np.concatenate([part.reshape(*part.shape[:2], -1) for part in parts], axis=2)
