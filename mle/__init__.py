"""Maximum likelihood for mixtures of experts: EM, direct maximisation, and how sure to be of either."""

from mle.fit import Certificate, Fit, Start

__all__ = ["Certificate", "Fit", "Start"]
