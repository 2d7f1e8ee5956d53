"""The model in PyMC, sampled by nutpie (numba backend)."""

from __future__ import annotations

from time import perf_counter

import numpy as np
import nutpie
import pymc as pm

from comparisons.peers.problem import CHAINS, PRIOR_SCALE, Problem, Sampled


def model(problem: Problem) -> pm.Model:
    """Gate, frozen expert and adapter, marginalised by ``pm.Mixture``."""
    n, d = problem.x.shape
    classes = len(problem.eta0)
    with pm.Model() as built:
        x = pm.Data("x", problem.x)
        tau = pm.Normal("tau", 0, PRIOR_SCALE)
        beta = pm.Normal("beta", 0, PRIOR_SCALE, shape=d)
        eta = pm.Normal("eta", 0, PRIOR_SCALE, shape=(classes - 1, d))
        scores = pm.math.concatenate([pm.math.dot(x, eta.T), np.zeros((n, 1))], axis=1)
        w = pm.math.sigmoid(pm.math.dot(x, beta) + tau)
        experts = [
            pm.Categorical.dist(logit_p=problem.frozen_logits),
            pm.Categorical.dist(logit_p=pm.math.tanh(scores)),
        ]
        pm.Mixture("y", w=pm.math.stack([1 - w, w], axis=1), comp_dists=experts, observed=problem.y)
    return built


def sample(problem: Problem, *, draws: int, seed: int) -> Sampled:
    """Compile, then sample with nutpie's own number of warm-up steps."""
    began = perf_counter()
    compiled = nutpie.compile_pymc_model(model(problem))
    middle = perf_counter()
    trace = nutpie.sample(compiled, draws=draws, chains=CHAINS, cores=CHAINS, seed=seed, progress_bar=False)
    run = perf_counter() - middle
    posterior = trace["posterior"]
    out = {name: np.asarray(posterior[name].values) for name in ("tau", "beta", "eta")}
    return Sampled(out, middle - began, run)
