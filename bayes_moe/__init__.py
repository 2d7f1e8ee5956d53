"""Mixtures of experts: one likelihood, a NUTS posterior and everything that follows from the model."""

from bayes_moe import _numpyro  # noqa: F401 - before anything reads NumPyro
from bayes_moe.families import contaminated, gaussian_gated, varying_coefficient
from bayes_moe.moe import MoE

__all__ = ["MoE", "contaminated", "gaussian_gated", "varying_coefficient"]
__version__ = "0.1.0"
