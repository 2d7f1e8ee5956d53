"""The same model, data and priors in other software, side by side with ours: ``make bench``."""
