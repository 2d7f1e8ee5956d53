"""Slow, obvious NumPy/SciPy versions of the mixtures, one observation at a time: the contaminated one first.

Nothing here imports JAX or bayes_moe. Covariates `x` are (n, d), labels `y` are integers 0..K-1, and tables
of probabilities are (n, K). A parameter dict holds `tau` (a scalar), `beta` (d,), `eta` (K-1, d) or (K, d).

    p(y = s | x) = (1 - w) f0(s) + w f(s),   w = sigmoid(beta'x + tau),
    f0 = softmax_s(act0(eta0_s'x)),          f = softmax_s(act(eta_s'x)).

With `reference="last"` eta has K - 1 rows and the last class's vector is zero, so its logit is act(0).

The flat vector is (tau, beta_1..beta_d, eta_11, eta_12, .., eta_21, ..): tau, then beta, then eta row by row.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit, log_softmax, logsumexp, ndtr
from scipy.stats import multivariate_normal

Params = dict[str, np.ndarray]


def _normal_density(z: float) -> float:
    return np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi)


ACTIVATIONS: dict[str, Callable[[float], float]] = {
    "linear": lambda z: z,
    "tanh": lambda z: np.tanh(z),
    "sigmoid": lambda z: expit(z),
    "gelu": lambda z: z * ndtr(z),
    "relu": lambda z: max(z, 0.0),
}

SLOPES: dict[str, Callable[[float], float]] = {
    "linear": lambda z: 1.0,
    "tanh": lambda z: 1.0 - np.tanh(z) ** 2,
    "sigmoid": lambda z: expit(z) * expit(-z),
    "gelu": lambda z: ndtr(z) + z * _normal_density(z),
    "relu": lambda z: 1.0 if z > 0.0 else 0.0,
}


class Model(NamedTuple):
    """What is known and fixed: the frozen expert, both activations and the reference class."""

    eta0: np.ndarray
    frozen_activation: str
    activation: str
    reference: str | None = "last"

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of eta."""
        classes, features = np.shape(self.eta0)
        return (classes - 1 if self.reference == "last" else classes), features


def flatten(params: Params) -> np.ndarray:
    """Return tau, then beta, then eta row by row, as one vector."""
    return np.concatenate([np.ravel(params[name]) for name in ("tau", "beta", "eta")]).astype(float)


def unflatten(model: Model, vector: np.ndarray) -> Params:
    """Undo `flatten`."""
    _, features = model.shape
    tau, beta, eta = np.split(np.asarray(vector, float), [1, 1 + features])
    return {"tau": tau[0], "beta": beta, "eta": eta.reshape(model.shape)}


def class_vectors(model: Model, eta: np.ndarray) -> np.ndarray:
    """Return all K class vectors: a row of zeros is added for the reference class."""
    eta = np.asarray(eta, float).reshape(model.shape)
    if model.reference == "last":
        return np.vstack([eta, np.zeros(eta.shape[1])])
    return eta


def _log_expert(vectors: np.ndarray, activation: str, row: np.ndarray) -> np.ndarray:
    """Log probabilities of the K classes at one covariate vector."""
    return log_softmax([ACTIVATIONS[activation](float(vector @ row)) for vector in vectors])


def _log_parts(model: Model, params: Params, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return log{(1-w) f0(s)} and log{w f(s)} for all classes s, at one covariate vector."""
    gate = float(np.asarray(params["beta"], float) @ row + params["tau"])
    frozen = _log_expert(np.asarray(model.eta0, float), model.frozen_activation, row)
    adapter = _log_expert(class_vectors(model, params["eta"]), model.activation, row)
    return log_expit(-gate) + frozen, log_expit(gate) + adapter


def log_class_probabilities(model: Model, params: Params, x: np.ndarray) -> np.ndarray:
    """Return log p(s | x), an (n, K) table."""
    return np.array([logsumexp(_log_parts(model, params, row), axis=0) for row in np.asarray(x, float)])


def class_probabilities(model: Model, params: Params, x: np.ndarray) -> np.ndarray:
    """Return p(s | x), an (n, K) table."""
    return np.exp(log_class_probabilities(model, params, x))


def log_density(model: Model, params: Params, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return log p(y_i | x_i), one number an observation."""
    table = log_class_probabilities(model, params, x)
    return np.array([table[i, label] for i, label in enumerate(y)])


def responsibilities(model: Model, params: Params, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the posterior probabilities of (frozen, adapter), an (n, 2) table."""
    rows = []
    for row, label in zip(np.asarray(x, float), y, strict=True):
        frozen, adapter = _log_parts(model, params, row)
        share = expit(adapter[label] - frozen[label])
        rows.append([expit(frozen[label] - adapter[label]), share])
    return np.array(rows)


def _score_row(model: Model, params: Params, row: np.ndarray, label: int) -> np.ndarray:
    """Score of one observation: d/dgate = r - w, d/deta_l = r (1[y = l] - f_l) act'(eta_l'x) x."""
    frozen, adapter = _log_parts(model, params, row)
    share = expit(adapter[label] - frozen[label])
    gate = expit(float(np.asarray(params["beta"], float) @ row + params["tau"]))
    vectors = class_vectors(model, params["eta"])
    probabilities = np.exp(_log_expert(vectors, model.activation, row))
    pieces = [np.array([share - gate]), (share - gate) * row]
    for index in range(model.shape[0]):
        slope = SLOPES[model.activation](float(vectors[index] @ row))
        pieces.append(share * (float(label == index) - probabilities[index]) * slope * row)
    return np.concatenate(pieces)


def score(model: Model, params: Params, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the analytic score of the summed log density, in the order of the flat vector."""
    pairs = zip(np.asarray(x, float), y, strict=True)
    return np.sum([_score_row(model, params, row, label) for row, label in pairs], axis=0)


def score_by_differences(model: Model, params: Params, x: np.ndarray, y: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Return the score of the summed log density by central differences."""
    centre = flatten(params)
    out = np.zeros_like(centre)
    for index, shift in enumerate(step * np.eye(centre.size)):
        above = log_density(model, unflatten(model, centre + shift), x, y)
        below = log_density(model, unflatten(model, centre - shift), x, y)
        out[index] = np.sum(above - below) / (2.0 * step)
    return out


def fisher(model: Model, params: Params, x: np.ndarray) -> np.ndarray:
    """Return the Fisher information per observation: all labels enumerated, the mean over the rows of x."""
    size = flatten(params).size
    total = np.zeros((size, size))
    for row in np.asarray(x, float):
        probabilities = class_probabilities(model, params, row[None])[0]
        for label, probability in enumerate(probabilities):
            gradient = _score_row(model, params, row, label)
            total += probability * np.outer(gradient, gradient)
    return total / len(x)


def simulate(model: Model, params: Params, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw one label for each row of x, by the inverse of the cumulative probabilities."""
    labels = []
    for probabilities in class_probabilities(model, params, x):
        labels.append(int(np.searchsorted(np.cumsum(probabilities)[:-1], rng.uniform(), side="right")))
    return np.array(labels)


def hellinger(model: Model, params: Params, truth: Params, x: np.ndarray) -> float:
    """Return the mean over x of h, where h^2 = (1/2) sum_s (sqrt p(s|x) - sqrt p*(s|x))^2."""
    distances = []
    tables = class_probabilities(model, params, x), class_probabilities(model, truth, x)
    for mine, theirs in zip(*tables, strict=True):
        distances.append(np.sqrt(0.5 * np.sum((np.sqrt(mine) - np.sqrt(theirs)) ** 2)))
    return float(np.mean(distances))


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.sum((np.asarray(a, float).ravel() - np.asarray(b, float).ravel()) ** 2)))


def loss_homogeneous(model: Model, params: Params, truth: Params) -> float:
    """Return the loss for equal frozen and adapter activations (one adapter).

    |e^tau - e^tau*| |De| |De*| + (e^tau |De| + e^tau* |De*|)(|beta - beta*| + |eta - eta*|), De = eta - eta0,
    with Euclidean (Frobenius) norms over all K class vectors.
    """
    mass, true_mass = np.exp(float(params["tau"])), np.exp(float(truth["tau"]))
    eta, true_eta = class_vectors(model, params["eta"]), class_vectors(model, truth["eta"])
    gap, true_gap = _distance(eta, model.eta0), _distance(true_eta, model.eta0)
    move = _distance(params["beta"], truth["beta"]) + _distance(eta, true_eta)
    return abs(mass - true_mass) * gap * true_gap + (mass * gap + true_mass * true_gap) * move


def loss_heterogeneous(params: Params, truth: Params) -> float:
    """Return |e^tau - e^tau*| + (e^tau + e^tau*)(|beta - beta*| + |eta - eta*|) for one adapter."""
    mass, true_mass = np.exp(float(params["tau"])), np.exp(float(truth["tau"]))
    move = _distance(params["beta"], truth["beta"]) + _distance(params["eta"], truth["eta"])
    return abs(mass - true_mass) + (mass + true_mass) * move


def _gate_objective(gate: np.ndarray, x: np.ndarray, share: np.ndarray, weights: np.ndarray) -> float:
    """Minus the soft-label logistic log likelihood; `gate` is (tau, beta)."""
    total = 0.0
    for row, r, weight in zip(x, share, weights, strict=True):
        logit = gate[0] + gate[1:] @ row
        total -= weight * (r * log_expit(logit) + (1.0 - r) * log_expit(-logit))
    return total


def _gate_gradient(gate: np.ndarray, x: np.ndarray, share: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = np.zeros_like(gate)
    for row, r, weight in zip(x, share, weights, strict=True):
        total -= weight * (r - expit(gate[0] + gate[1:] @ row)) * np.concatenate([[1.0], row])
    return total


def _expert_objective(vector: np.ndarray, model: Model, x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    """Minus the weighted multinomial log likelihood of the adapter."""
    vectors = class_vectors(model, vector)
    terms = [_log_expert(vectors, model.activation, row)[label] for row, label in zip(x, y, strict=True)]
    return -float(np.dot(weights, terms))


def _expert_gradient(vector: np.ndarray, model: Model, x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    vectors = class_vectors(model, vector)
    total = np.zeros(model.shape)
    for row, label, weight in zip(x, y, weights, strict=True):
        probabilities = np.exp(_log_expert(vectors, model.activation, row))
        for index in range(model.shape[0]):
            slope = SLOPES[model.activation](float(vectors[index] @ row))
            total[index] -= weight * (float(label == index) - probabilities[index]) * slope * row
    return total.ravel()


def em_step(model: Model, params: Params, x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> Params:
    """Return the parameters after one EM step; both M-steps are BFGS, started at the present parameters."""
    x = np.asarray(x, float)
    weights = np.ones(len(x)) if weights is None else np.asarray(weights, float)
    share = responsibilities(model, params, x, y)[:, 1]
    start = np.concatenate([[float(params["tau"])], np.ravel(params["beta"])])
    options = {"gtol": 1e-8}
    gate = minimize(_gate_objective, start, (x, share, weights), "BFGS", _gate_gradient, options=options)
    start, known = np.ravel(params["eta"]), (model, x, y, weights * share)
    expert = minimize(_expert_objective, start, known, "BFGS", _expert_gradient, options=options)
    return {"tau": gate.x[0], "beta": gate.x[1:], "eta": expert.x.reshape(model.shape)}


# The Gaussian-gated mixture, as a Gaussian mixture in (x, y) -------------------------------------------------
#
# Atom i has weight pi_i, mean (c, A c + b) and covariance [[Gamma, Gamma A'], [A Gamma, nu + A Gamma A']].


def joint_atoms(params: Params) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Return (weight, mean, covariance) of each expert, in (x, y); any form of Gamma, one response or several."""
    atoms = []
    for i, weight in enumerate(params["pi"]):
        c, b = np.asarray(params["c"][i], float), np.atleast_1d(params["b"][i])
        gamma, nu = np.asarray(params["Gamma"][i], float), np.atleast_2d(params["nu"][i])
        gamma = gamma if gamma.ndim == 2 else np.eye(len(c)) * gamma
        a = np.atleast_2d(params["a"][i])
        covariance = np.block([[gamma, gamma @ a.T], [a @ gamma, nu + a @ gamma @ a.T]])
        atoms.append((float(weight), np.concatenate([c, a @ c + b]), covariance))
    return atoms


def joint_log_densities(params: Params, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return log(pi_i N((x, y); mean_i, covariance_i)), an (n, experts) table."""
    points = np.column_stack([x, y])
    tables = [np.log(w) + multivariate_normal(mean, cov).logpdf(points) for w, mean, cov in joint_atoms(params)]
    return np.column_stack(tables)


def x_log_densities(params: Params, x: np.ndarray) -> np.ndarray:
    """Return log(pi_i N(x; c_i, Gamma_i)), an (n, experts) table."""
    d = x.shape[1]
    atoms = joint_atoms(params)
    return np.column_stack([np.log(w) + multivariate_normal(m[:d], s[:d, :d]).logpdf(x) for w, m, s in atoms])
