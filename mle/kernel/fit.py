"""What a kernel fit returns: coefficient curves on a grid, what became of every start, and what to distrust."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayes_moe.varying.indexed import IndexedObservations, scale_points
from bayes_moe.varying.model import VaryingCoefficient, by_name
from mle.local.kernels import Kernel

SATURATED = 12.0  # |gate score or logit| beyond which the likelihood is flat in it: separation within a window
CONVERGED = "converged"  # the verdict on a fit with which nothing is wrong
COLLAPSED = 1e-3  # share of the response's spread below which a normal expert's sd has collapsed; 1 / it: run away


@dataclass(frozen=True)
class CurveFit:
    """A kernel estimate of the coefficient curves.

    Parameters
    ----------
    model : VaryingCoefficient
    data : IndexedObservations
        The data, in increasing order of u; ``data.order`` gives the user's rows.
    grid : ndarray, shape (G,)
        Grid points, in the user's units of u.
    theta : ndarray, shape (G, 2 P)
        Levels of the P coefficients, then their slopes per bandwidth.
    h : float
        Bandwidth, as a share of the range of u.
    kernel : Kernel
    engine : "consistent" or "separate"
    free : ndarray of bool, shape (2 P,)
        What was fitted; the rest are constants.
    fixed : dict of str to float
        Coefficients held at given values.
    limits : dict of str to number
        The fit's ``max_iter`` and ``tol``.
    log_likelihood : float
        Each coefficient at the observation's own u.
    local_log_likelihood : ndarray, shape (G,)
    converged : ndarray of bool, shape (G,)
    n_iter : int
    starts : ndarray
        Log likelihood of every start after its short run, best first.
    shares : ndarray, shape (G, C)
        Share of each component in the window of each grid point.
    """

    model: VaryingCoefficient
    data: IndexedObservations
    grid: np.ndarray
    theta: np.ndarray
    h: float
    kernel: Kernel
    engine: str
    free: np.ndarray
    fixed: dict[str, float]
    limits: dict[str, float]
    log_likelihood: float
    local_log_likelihood: np.ndarray
    converged: np.ndarray
    n_iter: int
    starts: np.ndarray
    shares: np.ndarray

    @property
    def scaled_grid(self) -> np.ndarray:
        """Grid points on [0, 1]."""
        low, high = np.asarray(self.data.range)
        return (self.grid - low) / (high - low)

    @property
    def level(self) -> np.ndarray:
        """Coefficients at the grid points, flat, (G, P)."""
        return self.theta[:, : self.model.size]

    @property
    def params(self) -> dict[str, np.ndarray]:
        """Coefficients at the grid points by name, a row for each: ``alpha`` (G, C, 1 + q)."""
        return by_name(self.model, self.level)

    def at(self, u: object) -> dict[str, np.ndarray]:
        """Coefficients at any u: local-linear from the nearest grid point.

        Parameters
        ----------
        u : array-like, shape (m,)
            In the user's units, within the range of the data.

        Returns
        -------
        dict of str to ndarray
            A row for each u.

        Raises
        ------
        ValueError
            If u is not finite, or leaves the range: coefficients are not extrapolated.
        """
        scaled = scale_points(u, np.asarray(self.data.range))
        near = np.abs(scaled[:, None] - self.scaled_grid).argmin(axis=1)
        t = (scaled - self.scaled_grid[near]) / self.h
        line = self.theta[near]
        return by_name(self.model, line[:, : self.model.size] + line[:, self.model.size :] * t[:, None])

    def simulate(self, rng_key: object, x: object, z: object, u: object, *, size: object = 1.0) -> np.ndarray:
        """Draw responses at new covariates from the fitted model; see :meth:`VaryingCoefficient.simulate`."""
        return self.model.simulate(rng_key, self.at(u), x, z, size=size)

    @property
    def unsound(self) -> str:
        """Why the log likelihood is none to compare with others': no convergence, or an expert that collapsed."""
        return "; ".join(_told([self._unconverged(), *self._collapsed()], self.grid))

    @property
    def problems(self) -> tuple[str, ...]:
        """What to distrust, in plain words with the place and the remedy; empty if nothing."""
        found = [self._unconverged(), *self._empty(), *self._separated(), *self._collapsed(), *self._run_away()]
        return _told(found, self.grid)

    def _unconverged(self) -> tuple[np.ndarray, str]:
        cut = self.n_iter >= self.limits["max_iter"]
        return ~self.converged, "no convergence: " + ("raise max_iter" if cut else "the likelihood is flat")

    def _empty(self) -> list[tuple[np.ndarray, str]]:
        inside = np.abs(np.asarray(self.data.u) - self.scaled_grid[:, None]) < self.h * self.kernel.reach
        counts = self.shares * inside.sum(axis=1)[:, None]
        needed = 2 * (1 + self.model.expert_features)
        remedy = f"has fewer than {needed} observations in the window: raise h or use fewer components"
        return [(counts[:, c] < needed, f"component {c} {remedy}") for c in range(self.model.components)]

    def _separated(self) -> list[tuple[np.ndarray, str]]:
        """By predictors at the covariates' means, and their change over a standard deviation: whatever the units."""
        params, rows = self.params, {"beta": np.asarray(self.data.x), "alpha": np.asarray(self.data.z)}
        remedy = "separates the window's observations and runs to infinity: raise h"
        gate = _reach(params["beta"], rows["beta"]).max(axis=1, initial=0.0) > SATURATED
        found = [(gate, f"the gate {remedy}")]
        if self.model.response.name == "binomial":
            sizes = _reach(params["alpha"], rows["alpha"])
            found += [(sizes[:, c] > SATURATED, f"expert {c} {remedy}") for c in range(self.model.components)]
        if self.model.response.name in ("poisson", "negative-binomial"):
            none = "explains nothing but zeros, its mean runs to zero: raise h or use fewer components"
            means = params["alpha"] @ rows["alpha"].mean(axis=1) + np.log(np.mean(self.data.size))
            found += [(means[:, c] < -SATURATED, f"expert {c} {none}") for c in range(self.model.components)]
        return found

    def _collapsed(self) -> list[tuple[np.ndarray, str]]:
        bad = degenerate(self.model, self.level, np.asarray(self.data.y))
        remedy = "has collapsed onto too few observations: raise h or use fewer components"
        return [(bad[:, c], f"expert {c} {remedy}") for c in range(self.model.components)]

    def _run_away(self) -> list[tuple[np.ndarray, str]]:
        if self.model.response.name != "negative-binomial":
            return []
        remedy = "shows no overdispersion, its k runs to infinity: use experts='poisson'"
        large = self.params["delta"] > SATURATED
        return [(large[:, c], f"expert {c} {remedy}") for c in range(self.model.components)]

    @property
    def status(self) -> str:
        """Plain verdict: "converged", or what stands in the way."""
        return "; ".join(self.problems) or CONVERGED

    def __str__(self) -> str:
        """Curves at five grid points, and the verdict."""
        shown = np.unique(np.linspace(0, len(self.grid) - 1, 5).astype(int))
        head = (
            f"{self.engine} kernel EM, h = {self.h:.3g} ({self.kernel.name}): log likelihood {self.log_likelihood:.4f}"
        )
        lines = [f"{head} on {self.data.n} observations, {self.status}"]
        lines.append(f"  {'u':<14}" + "".join(f"{self.grid[g]:>11.4g}" for g in shown))
        for label, curve in zip(self.model.labels, self.level.T, strict=True):
            lines.append(f"  {label:<14}" + "".join(f"{curve[g]:>11.4g}" for g in shown))
        return "\n".join(lines)


def _told(found: list[tuple[np.ndarray, str]], grid: np.ndarray) -> tuple[str, ...]:
    """What is wrong somewhere, and where."""
    return tuple(f"{what} (u = {_places(grid[where])})" for where, what in found if where.any())


def _reach(curves: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Size (G, rows) of coefficients (G, rows, 1 + p) in centred covariates of sd one: the largest of each row."""
    level = curves @ rows.mean(axis=1)
    slopes = curves[..., 1:] * rows[1:].std(axis=1)
    return np.abs(np.concatenate([level[..., None], slopes], axis=-1)).max(axis=-1)


def _places(u: np.ndarray) -> str:
    shown = ", ".join(f"{value:.3g}" for value in u[:4])
    return shown + (f" and {len(u) - 4} more" if len(u) > 4 else "")


def degenerate(model: VaryingCoefficient, level: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where normal experts' log sds, (..., C), are as far from the responses' as none of many observations is."""
    if model.response.name != "normal":
        return np.zeros((*level.shape[:-1], model.components), dtype=bool)
    return np.abs(level[..., model.select(["delta"])] - np.log(y.std())) > -np.log(COLLAPSED)
