"""An objective in coordinates in which the data are of size one about zero."""

from __future__ import annotations

import numpy as np

from mle.optimise.coordinates import Coordinates
from mle.optimise.objective import Objective
from mle.optimise.steps import VARIANCES, check_collapse


class Scaled:
    """An objective in coordinates in which the data are of size one about zero."""

    def __init__(self, objective: Objective, map: Coordinates | None = None) -> None:  # noqa: A002 - it is one
        self.objective, self.total = objective, objective.total
        self.map = objective.coordinates if map is None else map
        self.may_collapse = bool(VARIANCES.keys() & objective.moe.fields.keys())

    @property
    def bounds(self) -> np.ndarray | None:
        """Box of the objective, where coordinates are separate."""
        box = self.objective.bounds
        return None if box is None else box * self.map.unit[:, None]

    def separate(self) -> Scaled:
        """The same in coordinates in which a box is a box."""
        return Scaled(self.objective, self.map.separate())

    def check(self, point: np.ndarray) -> None:
        """Raise :class:`~mle.optimise.steps.Collapse` where a variance has vanished."""
        if self.may_collapse:
            check_collapse(self.objective, self.map.free(point))

    def value_and_grad(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        """Log likelihood and its gradient."""
        value, grad = self.objective.value_and_grad(self.map.free(point))
        return value, self.map.gradient(grad)

    def hessian(self, point: np.ndarray) -> np.ndarray:
        """Second derivatives."""
        return self.map.hessian(self.objective.hessian(self.map.free(point)))
