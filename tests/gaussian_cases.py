"""Three experts far apart: a truth that several tests share."""

import numpy as np

from bayes_moe import gaussian_gated

MOE = gaussian_gated(3, 1)
CENTRE = {
    "pi": np.array([0.3, 0.4, 0.3]),
    "c": np.array([[-2.0], [0.0], [2.0]]),
    "Gamma": np.full((3, 1, 1), 0.5),
    "a": np.array([[1.0], [-1.0], [0.0]]),
    "b": np.array([0.0, 1.0, -1.0]),
    "nu": np.full(3, 0.25),
}
