"""Profile-likelihood intervals: the values of one parameter that the likelihood cannot tell from the best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from bayes_moe import parameters
from bayes_moe.data import float64
from bayes_moe.moe import MoE
from mle.fit import Fit
from mle.objective import Objective, maximise
from mle.problem import lives_on_the_line, pose

STEPS = 30  # Newton steps for one end of an interval
CLOSE = 1e-7  # log likelihood to which an end is found
LONGEST = 2.0  # standard errors of any coordinate that one Newton step may take
REACH = 50.0  # standard errors from the estimate at which the search for an end stops: the interval is open there


@float64
def intervals(
    moe: MoE,
    fit: Fit,
    x: object,
    y: object,
    *,
    names: list[str] | None = None,
    level: float = 0.95,
    weights: object | None = None,
) -> dict[str, np.ndarray]:
    """Profile-likelihood intervals of the coordinates of parameters.

    {t: 2 [l(estimate) - max over all other coordinates of l, with this one at t] <= q}, q the chi-square quantile with
    one degree of freedom. They follow any smooth change of the parameter, and a skew likelihood, as Wald's do not. The
    maximum is over all values: bounds of the fit do not bind here, and an end may lie beyond them.

    Parameters
    ----------
    moe : MoE
    fit : Fit
        An interior maximum.
    x, y : array-like
        The data of the fit.
    names : list of str, optional
        Parameters, which must live on the whole real line; by default all that do.
    level : float
        Nominal coverage of each interval.
    weights : array-like, optional
        As in the fit.

    Returns
    -------
    dict of str to ndarray
        With a trailing axis (low, high). An end is infinite where the profile has not fallen far enough 50 standard
        errors away.

    Raises
    ------
    ValueError
        For a fit that is no interior maximum or of other data, a name that does not fit, or a level outside (0, 1).

    References
    ----------
    Venzon and Moolgavkar (1988), "A Method for Computing Profile-Likelihood-Based Confidence Intervals".
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level!r}.")
    if fit.covariance is None:
        raise ValueError(f"fit must be an interior maximum, got one with the status: {fit.reason or fit.status}.")
    real = [name for name, field in moe.fields.items() if lives_on_the_line(field)]
    wrong = [name for name in names or [] if name not in real]
    if wrong:
        raise ValueError(f"names must be among {', '.join(real)}, which live on the real line, got {', '.join(wrong)}.")
    objective = pose(moe, x, y, weights)
    centre = np.asarray(parameters.flatten(moe.fields, fit.params))
    objective.check_fit(centre, fit.log_likelihood)
    curve = _Curve(objective, centre, fit.covariance, fit.log_likelihood, float(stats.chi2.ppf(level, 1) / 2))
    where, out = parameters.blocks(moe.fields), {}
    for name in names or real:
        ends = [[curve.end(j, sign) for sign in (-1.0, 1.0)] for j in range(where[name].start, where[name].stop)]
        out[name] = np.reshape(ends, (*fit.params[name].shape, 2))
    return out


@dataclass(frozen=True)
class _Curve:
    """A log likelihood around its maximum, ``top``, and how far it has fallen where intervals end."""

    objective: Objective
    centre: np.ndarray
    covariance: np.ndarray
    top: float
    fall: float

    @property
    def level(self) -> float:
        """Log likelihood at the ends."""
        return self.top - self.fall

    def end(self, j: int, sign: float) -> float:
        """Value of coordinate ``j`` where its profile reaches the level, below or above the estimate."""
        found = self._newton(j, sign)
        return self._bisection(j, sign) if found is None else found

    def _newton(self, j: int, sign: float) -> float | None:
        """Solve l = level, dl/d(others) = 0; None where that fails, or ends where the others are not at a maximum."""
        errors = np.sqrt(np.diag(self.covariance))
        point = self.centre + sign * np.sqrt(2 * self.fall) * self.covariance[:, j] / errors[j]
        others = np.arange(len(point)) != j
        for _ in range(STEPS):
            value, grad = self.objective.value_and_grad(point)
            hessian = self.objective.hessian(point)
            if not np.isfinite(hessian).all() or not np.isfinite(value):
                return None
            inner = hessian[np.ix_(others, others)]
            if abs(value - self.level) < CLOSE and np.max(np.abs(grad * errors)[others]) < np.sqrt(CLOSE):
                inside = np.linalg.eigvalsh(inner)[-1] < 0 and sign * (point[j] - self.centre[j]) > 0
                return float(point[j]) if inside else None
            try:
                step = -np.linalg.solve(
                    np.vstack([grad, hessian[others]]), np.concatenate([[value - self.level], grad[others]])
                )
            except np.linalg.LinAlgError:
                return None
            point = point + step / max(1.0, np.max(np.abs(step) / errors) / LONGEST)
        return None

    def _bisection(self, j: int, sign: float) -> float:
        """Go out until the profile is below the level, then bisect."""
        error, others = np.sqrt(self.covariance[j, j]), np.arange(len(self.centre)) != j
        found = {float(self.centre[j]): self.centre[others]}  # by value: the others start where a neighbour's ended

        def above(t: float) -> float:
            def whole(rest: np.ndarray) -> np.ndarray:
                return np.insert(rest, j, t)

            def value_and_grad(rest: np.ndarray) -> tuple[float, np.ndarray]:
                value, grad = self.objective.value_and_grad(whole(rest))
                return value, grad[others]

            def hessian(rest: np.ndarray) -> np.ndarray:
                return self.objective.hessian(whole(rest))[np.ix_(others, others)]

            start = found[min(found, key=lambda seen: abs(seen - t))]
            result = maximise(value_and_grad, start, self.objective.total, hessian=hessian, gtol=1e-9)
            found[float(t)] = result.x
            return result.fun - self.level

        inner, outer, steps = self.centre[j], self.centre[j] + sign * error, 1.0
        while above(outer) > 0:
            if steps == REACH:
                return float(sign * np.inf)
            steps = min(2 * steps, REACH)
            inner, outer = outer, self.centre[j] + sign * error * steps
        return float(optimize.brentq(above, inner, outer, xtol=1e-8 * error))
