"""Kernel estimates of curves: EM, bandwidth, bands, bootstrap, test."""
