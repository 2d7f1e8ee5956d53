"""EM in plain NumPy and SciPy, as in the paper: each M-step maximises the gate and the adapter by BFGS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize
from scipy.special import expit, log_expit, log_softmax

from comparisons.peers.problem import Problem


@dataclass(frozen=True, eq=False)
class Ascent:
    """Where EM ended.

    Parameters
    ----------
    free : ndarray, shape (P,)
        In the order tau, beta, eta.
    history : list of float
        Log likelihood after each iteration.
    converged : bool
    """

    free: np.ndarray
    history: list[float]
    converged: bool


def parts(problem: Problem, free: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log joint of frozen expert and adapter, (2, n); the adapter's tanh scores and log-probabilities, (n, K)."""
    d = problem.x.shape[1]
    rows = np.arange(len(problem.y))
    score = free[0] + problem.x @ free[1 : 1 + d]
    adapter = np.tanh(problem.x @ _rows(problem, free[1 + d :]).T)
    log_f = log_softmax(adapter, axis=1)
    log_f0 = log_softmax(problem.frozen_logits, axis=1)[rows, problem.y]
    return np.stack([log_expit(-score) + log_f0, log_expit(score) + log_f[rows, problem.y]]), adapter, log_f


def log_likelihood(problem: Problem, free: np.ndarray) -> float:
    """Log likelihood of a free vector."""
    return float(np.logaddexp(*parts(problem, free)[0]).sum())


def fit(problem: Problem, start: np.ndarray, *, max_iter: int, tol: float) -> Ascent:
    """Climb from one start until less than ``tol`` of the log likelihood is left to gain, by Aitken's rule.

    Parameters
    ----------
    problem : Problem
    start : ndarray, shape (P,)
    max_iter : int
    tol : float
        A share of the log likelihood.

    Returns
    -------
    Ascent
    """
    free, history = start, [log_likelihood(problem, start)]
    for _ in range(max_iter):
        free = m_step(problem, free, responsibilities(problem, free))
        history.append(log_likelihood(problem, free))
        if _left(history) < tol * abs(history[-1]):
            return Ascent(free, history, True)
    return Ascent(free, history, False)


def responsibilities(problem: Problem, free: np.ndarray) -> np.ndarray:
    """p(adapter | x, y), shape (n,)."""
    joint = parts(problem, free)[0]
    return expit(joint[1] - joint[0])


def m_step(problem: Problem, free: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Maximise the expected complete log likelihood, gate and adapter each by BFGS."""
    cut = 1 + problem.x.shape[1]
    settings = {"jac": True, "method": "BFGS", "options": {"gtol": 1e-8, "maxiter": 200}}
    gate = optimize.minimize(lambda v: _gate(problem, v, r), free[:cut], **settings).x
    adapter = optimize.minimize(lambda v: _adapter(problem, v, r), free[cut:], **settings).x
    return np.concatenate([gate, adapter])


def _gate(problem: Problem, v: np.ndarray, r: np.ndarray) -> tuple[float, np.ndarray]:
    score = v[0] + problem.x @ v[1:]
    residual = expit(score) - r
    value = -np.mean(r * log_expit(score) + (1 - r) * log_expit(-score))
    return value, np.concatenate([[residual.mean()], problem.x.T @ residual / len(r)])


def _adapter(problem: Problem, v: np.ndarray, r: np.ndarray) -> tuple[float, np.ndarray]:
    n = len(r)
    logits = np.tanh(problem.x @ _rows(problem, v).T)
    log_f = log_softmax(logits, axis=1)
    residual = np.exp(log_f)
    residual[np.arange(n), problem.y] -= 1
    slope = (r[:, None] * residual * (1 - logits**2))[:, :-1]
    return -np.mean(r * log_f[np.arange(n), problem.y]), (slope.T @ problem.x / n).ravel()


def _rows(problem: Problem, v: np.ndarray) -> np.ndarray:
    """Class vectors (K, d), the last one zero."""
    d = problem.x.shape[1]
    return np.vstack([v.reshape(-1, d), np.zeros(d)])


def _left(history: list[float]) -> float:
    if len(history) < 3:
        return np.inf
    before, last = history[-2] - history[-3], history[-1] - history[-2]
    if last <= 0:
        return 0.0
    ratio = last / before if before > 0 else np.inf
    return last * ratio / (1 - ratio) if ratio < 1 else np.inf
