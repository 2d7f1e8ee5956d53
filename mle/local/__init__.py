"""Local likelihood along u: kernels, windows, engines, labels."""
