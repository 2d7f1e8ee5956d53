"""Regimes, estimators, studies and real data of varying coefficients."""
