"""The posterior of coefficients that vary along u: bases, sampling, bands."""

from bayes_moe.ground import doors

__all__ = ["CurveMixture", "posterior_model", "priors_of", "sample", "sparse_gate"]  # noqa: F822 - found by the door
__getattr__ = doors.to_module(__name__, "posterior", *__all__)
