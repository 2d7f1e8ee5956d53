"""The model in Stan, through PyStan; it runs each chain in a process of its own."""

from __future__ import annotations

from time import perf_counter

import numpy as np
import stan

from comparisons.peers.problem import CHAINS, PRIOR_SCALE, Problem, Sampled

PROGRAM = """
data {
  int<lower=1> n;
  int<lower=1> d;
  int<lower=2> K;
  matrix[n, d] x;
  array[n] int<lower=1, upper=K> y;
  matrix[n, K] frozen;  // the frozen expert's logits
  real<lower=0> scale;
}
transformed data {
  vector[n] log_f0;
  for (i in 1:n) log_f0[i] = categorical_logit_lpmf(y[i] | frozen[i]');
}
parameters {
  real tau;
  vector[d] beta;
  matrix[K - 1, d] eta;
}
model {
  tau ~ normal(0, scale);
  beta ~ normal(0, scale);
  to_vector(eta) ~ normal(0, scale);
  {
    vector[n] score = x * beta + tau;
    matrix[n, K] adapter = append_col(tanh(x * eta'), rep_vector(0, n));
    for (i in 1:n) {
      target += log_sum_exp(
        log1m_inv_logit(score[i]) + log_f0[i],
        log_inv_logit(score[i]) + categorical_logit_lpmf(y[i] | adapter[i]')
      );
    }
  }
}
"""


def sample(problem: Problem, *, draws: int, seed: int) -> Sampled:
    """Build (httpstan keeps a build in the user's cache), then sample with Stan's own warm-up of 1,000."""
    n, d = problem.x.shape
    data = {
        "n": n,
        "d": d,
        "K": len(problem.eta0),
        "x": problem.x,
        "y": problem.y + 1,
        "frozen": problem.frozen_logits,
        "scale": PRIOR_SCALE,
    }
    began = perf_counter()
    posterior = stan.build(PROGRAM, data=data, random_seed=seed)
    middle = perf_counter()
    fit = posterior.sample(num_chains=CHAINS, num_samples=draws)
    run = perf_counter() - middle
    out = {name: _chains_first(fit[name], draws) for name in ("tau", "beta", "eta")}
    return Sampled(out, middle - began, run)


def _chains_first(values: np.ndarray, draws: int) -> np.ndarray:
    """From PyStan's (..., draws x chains), chains running fastest, to (chain, draw, ...)."""
    split = values.reshape(*values.shape[:-1], draws, CHAINS)
    return np.moveaxis(split, (-1, -2), (0, 1))
