"""What a maximum-likelihood fit returns: the estimate, every start, and how far to trust it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

REPLICATED = 1e-4  # starts this close in log likelihood reached the same maximum
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
    """

    free: np.ndarray
    log_likelihood: float
    converged: bool
    n_iter: int
    message: str
    history: tuple[float, ...] = ()
    index: int = 0

    def failed(self, why: str) -> Start:
        """Return the same start, marked as failed."""
        return replace(self, log_likelihood=-np.inf, converged=False, message=why)

    def numbered(self, index: int) -> Start:
        """Return the same start with its place among all."""
        return replace(self, index=index)


@dataclass(frozen=True)
class Certificate:
    """Evidence that a fit is a maximum, and a warning where it may not be what it seems.

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
        Coordinates so large that the likelihood is flat in them.
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
    def status(self) -> str:
        """Plain words: "maximum", or what stands in the way, with the remedy."""
        if self.separated:
            return f"separated: {', '.join(self.separated)} has no finite maximum; set bounds or use a prior"
        if self.at_infinity:
            return f"at infinity: {', '.join(self.at_infinity)}; set bounds or use a prior"
        if not self.stationary:
            return "not stationary: raise max_iter or n_init, or lower tol"
        if self.at_bounds:
            return f"at a bound: {', '.join(self.at_bounds)}"
        if not self.positive_definite:
            return "flat: the observed information is singular, so the estimate is not unique or barely identified"
        return "maximum"


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
        Number of observations.
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

    @property
    def status(self) -> str:
        """Plain verdict: "maximum", or what stands in the way."""
        return self.certificate.status if self.converged else f"not converged; {self.certificate.status}"

    def __str__(self) -> str:
        """Table of estimates with standard errors, and the verdict."""
        lines = [
            f"{self.method}: log likelihood {self.log_likelihood:.6f} on {self.n} observations, {self.status}",
            f"{self.certificate.replicated} of {len(self.starts)} starts reached it; {self.n_iter} iterations",
        ]
        for name, value in self.params.items():
            for index in np.ndindex(value.shape):
                label = f"{name}[{','.join(map(str, index))}]"
                error = "" if self.standard_errors is None else f"  se {self.standard_errors[name][index]:.4g}"
                lines.append(f"  {label:<14}{value[index]: .6g}{error}")
        return "\n".join(lines + ([f"no standard errors: {self.reason}"] if self.reason else []))
