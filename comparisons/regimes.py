"""Truths, fixed or drifting with n, in the papers' regimes."""

from __future__ import annotations

import numpy as np

from bayes_moe import contaminated
from comparisons.study import Regime

HOMOGENEOUS = {"tau": -1 / 4, "beta": -3 / 8, "eta": -3 / 8}
HETEROGENEOUS = {"tau": -1 / 2, "beta": -1 / 2, "eta": -1 / 2}


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
) -> Regime:
    """Contaminated mixture whose adapter nears the frozen expert: eta* = eta0 + n^-power direction.

    Parameters
    ----------
    name, title : str
    eta0, direction : ndarray, shape (K, d)
        With ``reference="last"`` their last rows are zero.
    frozen_activation, activation : str
        Equal ones make the regime homogeneous.
    tau, beta : float, array-like
        The true gate.
    power : float
    reference : "last" or None

    Returns
    -------
    Regime
        With the uniform exponents of arXiv:2602.00939 for power 1/8.
    """
    moe = contaminated(eta0, frozen_activation=frozen_activation, activation=activation, reference=reference)
    rows = moe.fields["eta"].shape[1]
    same = frozen_activation == activation

    def truth(n: int) -> dict[str, np.ndarray]:
        eta = eta0 + float(n) ** -power * direction
        return moe.params(tau=tau, beta=beta, eta=eta[:rows])

    loss = "homogeneous" if same else "heterogeneous"
    return Regime(name, title, moe, eta0, loss, truth, HOMOGENEOUS if same else HETEROGENEOUS)
