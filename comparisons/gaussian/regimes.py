"""Truths of the Gaussian-gated mixture, fitted with the right number of experts and with too many."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jax import Array

from bayes_moe import gaussian_gated
from bayes_moe.ground.parameters import Params
from bayes_moe.theory import voronoi
from comparisons.study.plan import Regime

TRUE_EXPERTS = 3
MODELS = ("m1", "m2", "m3", "m4")
TYPES = {"m1": "I", "m2": "II", "m3": "I", "m4": "II"}  # I: every c0_j != 0; II: one of them vanishes

ASSUMPTIONS = (
    "Truths as in the published code: pi = (.3, .4, .3), scalar y; in two dimensions (m3, m4) c and a are repeated and "
    "Gamma is a multiple of the identity. The fitted Gamma is full.",
    "Data of the regimes k3, k4 and k5 are drawn separately.",
    "voronoi: the loss with exponent rbar(m) / 2 for a; published: the paper's, with 2 where no c0_j vanishes. They "
    "differ only in cells with three atoms or more.",
    "A slope of -1/2 of the whole loss is dominated by the weights and the cells with one atom; slow exponents show in "
    "the errors of each cell, by its number of atoms.",
)


def truth(model: str) -> Params:
    """Parameters of a published model, "m1" to "m4".

    Parameters
    ----------
    model : str

    References
    ----------
    arXiv:2305.07572 and its public code.
    """
    features = 1 if model in ("m1", "m2") else 2
    second = TYPES[model] == "II"
    c = np.array([0.0 if second else -0.1, 0.1, 0.5])
    a = np.array([0.4045395, -0.7142857, 0.0])
    gamma = np.array([0.042824, 0.0175, 0.01])
    return {
        "pi": np.array([0.3, 0.4, 0.3]),
        "c": np.repeat(c[:, None], features, axis=1),
        "Gamma": gamma[:, None, None] * np.eye(features),
        "a": np.repeat(a[:, None], features, axis=1),
        "b": np.array([0.3 if second else 0.3404540, -0.3285714, 0.2]),
        "nu": np.array([0.0011676 if second else 0.00887672, 0.02642857, 0.0175]),
    }


def regime(model: str, experts: int) -> Regime:
    """One published model, fitted with so many experts.

    Parameters
    ----------
    model : "m1", "m2", "m3" or "m4"
    experts : int
        Three is right; with more, a Voronoi cell holds several atoms.

    Returns
    -------
    Regime
        With the exponents of whole losses; those of each cell depend on its number of atoms: see
        :mod:`comparisons.gaussian.voronoi_rates`.
    """
    atoms = truth(model)
    features = atoms["c"].shape[1]
    return Regime(
        f"k{experts}",
        f"{model.upper()}, type {TYPES[model]}, {experts} experts for {TRUE_EXPERTS}",
        gaussian_gated(experts, features),
        lambda n: atoms,
        voronoi_losses(TYPES[model]),
        {"voronoi": -0.5, "published": -0.5},
        generator=gaussian_gated(TRUE_EXPERTS, features),
        assumptions=ASSUMPTIONS,
    )


def voronoi_losses(kind: str) -> Callable[[Params, Params], dict[str, Array]]:
    """Voronoi losses, and of each cell the plain errors and the number of atoms.

    ``c_0``, for instance, is sum_(A_0) pi_i |c_i - c0_0|; ``occupancy_0`` is |A_0|.

    Parameters
    ----------
    kind : "I" or "II"
        Of the published loss.
    """

    def measured(params: Params, truth: Params) -> dict[str, Array]:
        plain = voronoi.pieces(params, truth, kind="linear")
        cells = {f"{name}_{j}": value for name, values in plain.items() for j, value in enumerate(values)}
        whole = {"voronoi": voronoi.voronoi(params, truth)}
        return whole | {"published": voronoi.voronoi(params, truth, kind=kind)} | cells

    return measured
