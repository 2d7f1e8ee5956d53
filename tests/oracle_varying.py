"""Slow, obvious NumPy/SciPy versions of the varying-coefficient mixture, one observation at a time.

Nothing here imports JAX, bayes_moe or mle. A coefficient set is a dict at one u: `beta` (C-1, 1+p), `alpha` (C, 1+q)
and, for normal and negative binomial experts, `delta` (C,): log sd, and log k with variance mu + mu^2/k.
"""

import numpy as np
from scipy import stats
from scipy.special import expit, log_softmax, logsumexp

DISPERSED = ("normal", "negative-binomial")
FAMILIES = ("normal", "binomial", "poisson", "negative-binomial")


def expert_density(family, eta, delta, y, size):
    """Return log f(y; eta, delta), from SciPy's distributions."""
    if family == "normal":
        return stats.norm.logpdf(y, eta, np.exp(delta))
    if family == "binomial":
        return stats.binom.logpmf(y, size, expit(eta))
    mean = size * np.exp(eta)
    if family == "poisson":
        return stats.poisson.logpmf(y, mean)
    k = np.exp(delta)
    return stats.nbinom.logpmf(y, k, k / (k + mean))


def log_joint(family, params, x, z, y, size=1.0):
    """Return log p(c | x) + log p(y | z, c) of one observation, a number for each component."""
    components = len(params["alpha"])
    scores = np.array([0.0, *(row[0] + row[1:] @ x for row in params["beta"])])
    delta = params.get("delta", np.zeros(components))
    experts = [expert_density(family, row[0] + row[1:] @ z, delta[c], y, size) for c, row in enumerate(params["alpha"])]
    return log_softmax(scores) + np.array(experts)


def epanechnikov(t):
    """Return the kernel at one number."""
    return 0.75 * (1 - t * t) if abs(t) < 1 else 0.0


def local_log_likelihood(family, level, slope, rows, u0, h):
    """Return sum_i K((U_i - u0)/h)/h log p(y_i; level + slope (U_i - u0)/h), rows being (x, z, u, y, size)."""
    total = 0.0
    for x, z, u, y, size in zip(*rows, strict=True):
        t = (u - u0) / h
        weight = epanechnikov(t) / h
        if weight > 0:
            at = {name: level[name] + slope[name] * t for name in level}
            total += weight * logsumexp(log_joint(family, at, x, z, y, size))
    return total


def local_linear(z, u, y, u0, h):
    """Return the local-linear regression of y on (1, z) at u0 in closed form: levels, then slopes per h."""
    t = (u - u0) / h
    weight = np.array([epanechnikov(value) for value in t])
    design = np.column_stack([np.ones(len(z)), z])
    basis = np.column_stack([design, design * t[:, None]])
    return np.linalg.solve(basis.T @ (weight[:, None] * basis), basis.T @ (weight * y))


def flatten(params):
    """Return beta, alpha and delta as one vector."""
    return np.concatenate([np.ravel(params[name]) for name in ("beta", "alpha", "delta") if name in params])


def unflatten(like, vector):
    """Undo `flatten`."""
    out, start = {}, 0
    for name in ("beta", "alpha", "delta"):
        if name in like:
            size = np.size(like[name])
            out[name] = np.reshape(vector[start : start + size], np.shape(like[name]))
            start += size
    return out


# The published stand-in for Simulation 1 ---------------------------------------------------------------------------


def standin(u):
    """Return the true curves at u (m,), a row for each: two normal components, gate logit of 2 against 1."""
    sin, cos, pi = np.sin, np.cos, np.pi
    shared, slope = 0.1 * sin(pi * u), 0.15 + 0.1 * u
    first = np.stack([shared - 0.45 + 0.35 * sin(2 * pi * u), slope + 0.35 + 0.25 * u], axis=-1)
    second = np.stack([shared + 0.55 + 0.25 * cos(2 * pi * u), slope - 0.35 + 0.3 * (u - 0.5) ** 2], axis=-1)
    gate = np.stack([0.2 - 0.7 * (u - 0.5), 0.55 * u - 0.45], axis=-1)
    sigma = np.stack([0.35 + 0.05 * u, 0.45 - 0.03 * u], axis=-1)
    return {"beta": gate[:, None], "alpha": np.stack([first, second], axis=1), "delta": np.log(sigma)}
