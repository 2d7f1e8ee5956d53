"""Models whose coefficients vary along u, their data, bands and formulas."""

from bayes_moe.ground import doors

__all__ = ["VaryingCoefficient", "as_params", "by_name", "permute"]  # noqa: F822 - found by the door
__getattr__ = doors.to_module(__name__, "model", *__all__)
