"""Truths, fixed or drifting with n, in the papers' regimes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bayes_moe import MoE, contaminated
from bayes_moe.ground.data import Covariates
from bayes_moe.ground.parameters import Params
from bayes_moe.theory import losses
from comparisons.study.plan import Regime

TEST_ROWS = 2000  # covariates over which Hellinger distances are averaged


def exponents(same: bool, power: float = 1 / 8) -> dict[str, float]:
    """Uniform exponents of arXiv:2602.00939 for |eta* - eta0| of order n^-power, logarithms left out.

    Homogeneous: n^-1/2 over |eta* - eta0|^2 for e^tau and over |eta* - eta0| for beta and eta. Heterogeneous: n^-1/2.
    """
    lost = power if same else 0.0
    return {"tau": -0.5 + 2 * lost, "beta": -0.5 + lost, "eta": -0.5 + lost, "hellinger": -0.5}


def drifting(
    name: str,
    title: str,
    *,
    eta0: np.ndarray,
    direction: np.ndarray,
    frozen_activation: str,
    activation: str,
    tau: float = 0.0,
    beta: object = 0.0,
    power: float = 1 / 8,
    reference: str | None = "last",
    gate: str = "softmax",
    assumptions: tuple[str, ...] = (),
) -> Regime:
    """Contaminated mixture whose adapter nears the frozen expert: eta* = eta0 + n^-power direction.

    With directions of shape (adapters, K, d), so many adapters.

    Parameters
    ----------
    name, title : str
    eta0, direction : ndarray, shape (K, d)
        With ``reference="last"`` their last rows are zero, unless the adapter is linear: then only differences from
        the last row matter, and they are what the truth holds.
    frozen_activation, activation : str
        Equal ones make the regime homogeneous.
    tau, beta : float, array-like
        The true gate.
    power : float
        Zero for a truth that stays where it is.
    reference : "last" or None
    gate : "softmax", "sigmoid" or "constant"
        A constant gate has no ``beta``.
    assumptions : tuple of str

    Returns
    -------
    Regime
        With the uniform exponents of arXiv:2602.00939, proved for one adapter and a softmax gate.
    """
    adapters = len(direction) if direction.ndim == 3 else 1
    activations = {"frozen_activation": frozen_activation, "activation": activation}
    moe = contaminated(eta0, **activations, reference=reference, adapters=adapters, gate=gate)
    rows = moe.fields["eta"].shape[1]
    same = frozen_activation == activation

    def truth(n: int) -> dict[str, np.ndarray]:
        eta = eta0 + float(n) ** -power * direction
        shift = eta[..., -1:, :] if activation == "linear" and reference == "last" else 0.0
        values = {"tau": tau, "beta": beta, "eta": (eta - shift)[..., :rows, :]}
        return moe.params(**{name: values[name] for name in moe.fields})

    measured = contamination_losses(moe, eta0, "homogeneous" if same else "heterogeneous")
    scales = partial(contamination_scales, away_from=eta0[:rows] if same else np.zeros_like(eta0[:rows]))
    known = {k: v for k, v in exponents(same, power).items() if k in moe.fields or k == "hellinger"}
    return Regime(name, title, moe, truth, measured, known, scales, assumptions=assumptions)


def contamination_losses(moe: MoE, frozen: np.ndarray, kind: str) -> Callable[[Params, Params], dict[str, Array]]:
    """Errors of the parameters, the contamination loss of that kind (of one adapter), and the Hellinger distance.

    Parameters
    ----------
    moe : MoE
    frozen : ndarray, shape (K, d)
        The frozen expert's class vectors.
    kind : "homogeneous" or "heterogeneous"
    """

    def measured(params: Params, truth: Params) -> dict[str, Array]:
        several = jnp.shape(truth["tau"])[0] > 1
        near = losses.aligned(params, truth) if several else params
        loss = {} if several else {"contamination": losses.contamination(params, truth, frozen=frozen, regime=kind)}
        return {
            **losses.errors(near, truth),
            **loss,
            "hellinger": losses.hellinger(moe, params, truth, _test_covariates(moe)),
        }

    return measured


@cache
def _test_covariates(moe: MoE) -> Covariates:
    x = np.random.default_rng(0).normal(size=(TEST_ROWS, moe.gate.features))
    with jax.ensure_compile_time_eval():
        return jax.tree.map(jnp.asarray, moe.prepare(x))


def contamination_scales(truth: Params, away_from: np.ndarray) -> dict[str, float]:
    """Sizes of what is estimated.

    e^tau*; |beta*|, but at least 1, a change of one in the log odds for one standard deviation of x;
    |eta* - away_from|, which is |eta* - eta0| in a homogeneous regime, the only thing that tells the adapter from the
    frozen expert, and |eta*| in others.
    """
    gate = {"beta": max(float(np.linalg.norm(truth["beta"])), 1.0)} if "beta" in truth else {}
    eta = float(np.linalg.norm(truth["eta"] - away_from))
    return {"tau": float(np.exp(truth["tau"]).sum()), **gate, "eta": eta}
