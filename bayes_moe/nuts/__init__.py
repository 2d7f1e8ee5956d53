"""The posterior: priors, the density, modes, chains, and the tree of draws."""

from bayes_moe.ground import doors

__all__ = ["Mixture", "class_probabilities", "model", "sample"]  # noqa: F822 - found by the door
__getattr__ = doors.to_module(__name__, "posterior", *__all__)
