"""Truths, fixed or drifting with n, in the papers' regimes."""

from __future__ import annotations

import numpy as np

from bayes_moe import contaminated
from comparisons.study import Regime


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
    assumptions: tuple[str, ...] = (),
) -> Regime:
    """Contaminated mixture whose adapter nears the frozen expert: eta* = eta0 + n^-power direction.

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
    assumptions : tuple of str

    Returns
    -------
    Regime
        With the uniform exponents of arXiv:2602.00939.
    """
    moe = contaminated(eta0, frozen_activation=frozen_activation, activation=activation, reference=reference)
    rows = moe.fields["eta"].shape[1]
    same = frozen_activation == activation

    def truth(n: int) -> dict[str, np.ndarray]:
        eta = eta0 + float(n) ** -power * direction
        shift = eta[-1] if activation == "linear" and reference == "last" else 0.0
        return moe.params(tau=tau, beta=beta, eta=(eta - shift)[:rows])

    loss = "homogeneous" if same else "heterogeneous"
    return Regime(name, title, moe, eta0, loss, truth, exponents(same, power), assumptions)
