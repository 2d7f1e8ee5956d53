"""What is run, and what estimators return: regimes, studies, cells, the contract, checks."""

from bayes_moe.ground import doors

__all__ = ["Cell", "MissingExtra", "Regime", "Study"]  # noqa: F822 - found by the door
__getattr__ = doors.to_module(__name__, "plan", *__all__)
