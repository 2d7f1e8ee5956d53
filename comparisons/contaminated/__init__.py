"""Regimes and real data of the contaminated mixture."""
