"""What a maximum-likelihood fit returns: the estimate, every start, and how far to trust it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

REPLICATED = 1e-4  # starts this close in log likelihood reached the same maximum
ROUNDING = 1e-12  # of second derivatives for each observation, in units of scores
STATIONARY = 0.01  # an optimum is at most this many standard errors away


@dataclass(frozen=True)
class Start:
    """What became of one start.

    Parameters
    ----------
    free : ndarray
        Where it ended, as a free vector.
    log_likelihood : float
        -inf if it failed.
    converged : bool
    n_iter : int
    message : str
        What the optimiser said.
    history : tuple of float
        Log likelihood after each iteration.
    index : int
        Its place among the starts.
    curvature : ndarray, shape (P, P), or None
        Observed information where it ended, if the optimiser knew it.
    """

    free: np.ndarray
    log_likelihood: float
    converged: bool
    n_iter: int
    message: str
    history: tuple[float, ...] = ()
    index: int = 0
    curvature: np.ndarray | None = None

    def failed(self, why: str) -> Start:
        """Return the same start, marked as failed."""
        return replace(self, log_likelihood=-np.inf, converged=False, message=why)

    def numbered(self, index: int) -> Start:
        """Return the same start with its place among all."""
        return replace(self, index=index)


@dataclass(frozen=True)
class End:
    """One of the distinct ends of a fit's starts, told apart by log likelihood.

    Parameters
    ----------
    log_likelihood : float
        -inf for starts that failed.
    starts : int
        How many ended there.
    kind : str
        "maximum", "at infinity", "saddle" and so on: the first words of what its certificate says; of starts that
        failed the reason, as where a component has collapsed.
    """

    log_likelihood: float
    starts: int
    kind: str


@dataclass(frozen=True)
class Certificate:
    """Evidence that a fit is a local maximum, and a warning where it may not be what it seems.

    Nothing here says that no other maximum is higher: how often an end was reached says little about that. The distinct
    ends that were seen are in ``Fit.ends``.

    Parameters
    ----------
    gradient_norm : float
        Score g at the estimate in the metric of the observed information, sqrt(g' J^-1 g), bounds allowed for: how many
        standard errors away the maximum is, so that about half its square is left to gain in log likelihood.
    hessian_eigenvalues : ndarray
        Of the observed information per observation, covariates scaled to unit size, ascending.
    replicated : int
        How many starts reached the best log likelihood.
    at_bounds : tuple of str
        Coordinates that stopped at a bound.
    at_infinity : tuple of str
        Coordinates that the likelihood does not tell from infinity: sent there, alone or with the row of coefficients
        that they belong to, it loses less than at the ends of a 95% interval, 1.92.
    separated : tuple of str
        Components whose own observations a hyperplane separates, so that no finite maximum exists.
    """

    gradient_norm: float
    hessian_eigenvalues: np.ndarray
    replicated: int
    at_bounds: tuple[str, ...] = ()
    at_infinity: tuple[str, ...] = ()
    separated: tuple[str, ...] = ()

    @property
    def stationary(self) -> bool:
        """Whether the score vanishes."""
        return self.gradient_norm < STATIONARY

    @property
    def positive_definite(self) -> bool:
        """Whether the observed information is positive definite, well above rounding error."""
        values = self.hessian_eigenvalues
        return bool(values[0] > 1e-10 * values[-1])

    @property
    def saddle(self) -> bool:
        """Whether the log likelihood curves upwards in some direction, well beyond rounding error."""
        values = self.hessian_eigenvalues
        return bool(values[0] < -max(1e-8 * np.abs(values).max(), ROUNDING))

    @property
    def kind(self) -> str:
        """First words of the status."""
        return self.status.split(":")[0]

    @property
    def status(self) -> str:
        """Plain words: "maximum", which is a local one, or what stands in the way, with the remedy."""
        found = (
            (
                self.separated,
                f"separated: {', '.join(self.separated)} has no finite maximum; set bounds or use a prior",
            ),
            (self.at_infinity, f"at infinity: {', '.join(self.at_infinity)}; set bounds or use a prior"),
            (not self.stationary, "not stationary: raise max_iter or n_init, or lower tol"),
            (self.at_bounds, f"at a bound: {', '.join(self.at_bounds)}"),
            (self.saddle, "saddle: the likelihood rises away from here; start elsewhere, from components that differ"),
            (
                not self.positive_definite,
                "flat: the observed information is singular, so the estimate is not unique or barely identified",
            ),
        )
        return next((words for true, words in found if true), "maximum")


@dataclass(frozen=True)
class Fit:
    """A maximum-likelihood fit.

    Parameters
    ----------
    params : dict of str to ndarray
        The estimate.
    log_likelihood : float
    converged : bool
        Whether the best start's optimiser converged; see ``certificate.status`` for what it converged to.
    n_iter : int
    history : ndarray
        Log likelihood after each iteration of the best start.
    starts : tuple of Start
        Every start, best first.
    certificate : Certificate
    standard_errors : dict of str to ndarray, or None
        From the observed information; None where there are none, and ``reason`` says why.
    covariance : ndarray or None
        Of the free vector.
    reason : str
        Why there are no standard errors; empty if there are.
    method : str
    n : int
        Number of observations that count: rows of weight zero do not.
    ends : tuple of End
        The distinct ends that were seen, best first.
    """

    params: dict[str, np.ndarray]
    log_likelihood: float
    converged: bool
    n_iter: int
    history: np.ndarray
    starts: tuple[Start, ...]
    certificate: Certificate
    standard_errors: dict[str, np.ndarray] | None
    covariance: np.ndarray | None
    reason: str
    method: str
    n: int
    ends: tuple[End, ...] = ()

    @property
    def status(self) -> str:
        """Plain verdict: "maximum", a local one, or what stands in the way."""
        return self.certificate.status if self.converged else f"not converged; {self.certificate.status}"

    def _said_of_ends(self) -> list[str]:
        """What was seen, and what it does not prove."""
        reached, count = sum(end.log_likelihood > -np.inf for end in self.ends), len(self.starts)
        what = "a local maximum" if self.status == "maximum" else "no proven maximum"
        which = f"the highest of {reached} distinct ends" if reached > 1 else "the only end"
        ends = [f"  end {e.log_likelihood:.6f}: {e.starts} start{'s' * (e.starts != 1)}, {e.kind}" for e in self.ends]
        return [f"{what}, {which} seen in {count} starts; others may be higher", *ends]

    def __str__(self) -> str:
        """Table of estimates with standard errors, and the verdict."""
        lines = [
            f"{self.method}: log likelihood {self.log_likelihood:.6f} on {self.n} observations, {self.status}",
            f"{self.certificate.replicated} of {len(self.starts)} starts reached it; {self.n_iter} iterations",
            *self._said_of_ends(),
        ]
        for name, value in self.params.items():
            for index in np.ndindex(value.shape):
                label = f"{name}[{','.join(map(str, index))}]"
                error = "" if self.standard_errors is None else f"  se {self.standard_errors[name][index]:.4g}"
                lines.append(f"  {label:<14}{value[index]: .6g}{error}")
        return "\n".join(lines + ([f"no standard errors: {self.reason}"] if self.reason else []))
