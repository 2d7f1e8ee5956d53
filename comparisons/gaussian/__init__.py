"""Regimes, estimators, studies and real data of the Gaussian-gated mixture."""
