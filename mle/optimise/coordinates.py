"""Coordinates in which nothing depends on the units of the data, nor on where their zeros are.

Optimisers, starts and verdicts see the free vector in these: the affine map that a change of x to (x - centre) / size,
and of real responses likewise, makes of the parameters. The data stay as they are, so that a log likelihood is theirs.
Wherever a model has no intercept that could make up for a shift, there is none: experts of classes are linear in x.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpyro.distributions import constraints

from bayes_moe.ground import parameters
from bayes_moe.ground.data import Observations
from bayes_moe.ground.parameters import Field
from bayes_moe.model.gates import Gaussian
from bayes_moe.model.moe import MoE
from bayes_moe.model.normal import Normal

CONSTANT = 1e-12  # standard deviation, as a share of the root mean square, below which a column does not vary


class Moments(NamedTuple):
    """Of each row of data: a centre, the root mean square about it, and that about zero; one where it would be zero.

    A centre is a multiple of a power of two about the standard deviation, and zero for a row whose mean is less than
    half of that away: then nothing is rounded.
    """

    centre: np.ndarray
    about: np.ndarray
    rms: np.ndarray


@dataclass(frozen=True)
class Coordinates:
    """The map from a point z of standard coordinates to a free vector: (I + slopes) (shift + z / unit).

    Parameters
    ----------
    size : ndarray, shape (P,)
        Size of what multiplies each coordinate.
    unit : ndarray, shape (P,)
        The nearest powers of two, so that the map rounds nothing.
    shift : ndarray, shape (P,)
    centre : ndarray, shape (d,)
        The covariates'.
    slopes : ndarray, shape (P, P), or None
        What intercepts owe to slopes, minus their covariates' centres; None where all centres are zero.
    """

    size: np.ndarray
    unit: np.ndarray
    shift: np.ndarray
    centre: np.ndarray
    slopes: np.ndarray | None = None

    def standard(self, free: np.ndarray) -> np.ndarray:
        """Point of a free vector."""
        return (self.centred(free) - self.shift) * self.unit

    def free(self, point: np.ndarray) -> np.ndarray:
        """Free vector of a point."""
        return self.uncentred(self.shift + point / self.unit)

    def gradient(self, grad: np.ndarray) -> np.ndarray:
        """Of a function of the free vector, with respect to the point."""
        return self.sheared_gradient(grad) / self.unit

    def hessian(self, hessian: np.ndarray) -> np.ndarray:
        """Likewise second derivatives."""
        return self.sheared(hessian) / np.outer(self.unit, self.unit)

    def unscaled(self, hessian: np.ndarray) -> np.ndarray:
        """Undo :meth:`hessian`."""
        plain = hessian * np.outer(self.unit, self.unit)
        if self.slopes is None:
            return plain
        half = plain - plain @ self.slopes
        return half - self.slopes.T @ half

    def centred(self, free: np.ndarray) -> np.ndarray:
        """Free vector with intercepts at the covariates' centres."""
        return free if self.slopes is None else free - self.slopes @ free

    def uncentred(self, centred: np.ndarray) -> np.ndarray:
        """Free vector that :meth:`centred` made this of."""
        return centred if self.slopes is None else centred + self.slopes @ centred

    def sheared(self, matrix: np.ndarray) -> np.ndarray:
        """Second derivatives with respect to :meth:`centred`."""
        if self.slopes is None:
            return matrix
        half = matrix + matrix @ self.slopes
        return half + self.slopes.T @ half

    def sheared_gradient(self, grad: np.ndarray) -> np.ndarray:
        """Gradient with respect to :meth:`centred`."""
        return grad if self.slopes is None else grad + grad @ self.slopes

    def covariance(self, matrix: np.ndarray) -> np.ndarray:
        """Covariance of the free vector, from that of :meth:`centred`."""
        if self.slopes is None:
            return matrix
        half = matrix + matrix @ self.slopes.T
        return half + self.slopes @ half

    def scattered(self, normal: np.ndarray) -> np.ndarray:
        """Free vectors of points, (starts, P), in units of the exact sizes."""
        v = self.shift + normal / self.size
        return v if self.slopes is None else v + v @ self.slopes.T

    def separate(self) -> Coordinates:
        """Units alone, so that a box remains one, to the last bit."""
        return replace(self, shift=np.zeros_like(self.shift), slopes=None)

    def part(self, where: slice) -> Coordinates:
        """Those of one component, to which its intercepts and their slopes both belong."""
        slopes = None if self.slopes is None else self.slopes[where, where]
        return Coordinates(self.size[where], self.unit[where], self.shift[where], self.centre, slopes)


def of(moe: MoE, data: Observations) -> Coordinates:
    """Coordinates in which these data, their weights heeded, are of size one about zero."""
    weights = None if data.weights is None else np.asarray(data.weights)
    x, y = (moments(np.asarray(rows), weights) for rows in (data.x, data.y))
    about = _about(moe, x, y)
    size, shift = np.ones(parameters.size(moe.fields)), np.zeros(parameters.size(moe.fields))
    for name, where in parameters.blocks(moe.fields).items():
        for out, values in zip((size, shift), about[name], strict=True):
            out[where] = np.broadcast_to(values, moe.fields[name].free_shape).ravel()
    return Coordinates(size, power_of_two(size), shift, x.centre, _slopes(moe, x.centre))


def moments(rows: np.ndarray, weights: np.ndarray | None) -> Moments:
    """Centre and sizes of each row of data, (d, n); rows that do not count are not there."""
    top = power_of_two(np.abs(rows).max(axis=1, initial=0.0))  # squares of what is left do not overflow
    unit = rows / top[:, None]
    mean = np.average(unit, axis=1, weights=weights)
    rms = np.sqrt(np.average(unit**2, axis=1, weights=weights))
    sd = np.sqrt(np.average((unit - mean[:, None]) ** 2, axis=1, weights=weights))
    grid = power_of_two(sd)
    centre = np.where(sd > CONSTANT * rms, grid * np.round(mean / grid), 0.0)
    about = np.sqrt(np.average((unit - centre[:, None]) ** 2, axis=1, weights=weights))
    return Moments(top * centre, *(top * np.where(size > 0, size, 1 / top) for size in (about, rms)))


def power_of_two(size: np.ndarray) -> np.ndarray:
    """The nearest powers of two; one for zero."""
    return 2.0 ** np.round(np.log2(np.where(size > 0, size, 1.0)))


def _about(moe: MoE, x: Moments, y: Moments) -> dict[str, tuple[np.ndarray | float, np.ndarray | float]]:
    """Size and shift of each parameter's coordinates, as they broadcast to its free shape."""
    out = {}
    for name, field in moe.fields.items():
        slope = field.score and field.dims[-1:] == ("feature",)
        out[name] = ((x.about if name in moe.gate.fields else x.rms) if slope else 1.0, 0.0)
    if isinstance(moe.gate, Gaussian):
        out["c"] = 1 / power_of_two(x.about), x.centre
        out["Gamma"] = _of_covariance(moe.gate.fields["Gamma"], power_of_two(x.about))
    if isinstance(moe.experts[-1], Normal):
        scale, several = power_of_two(y.about), moe.experts[-1].responses > 1
        out["a"] = power_of_two(x.about) / (scale[:, None] if several else scale), 0.0
        out["b"] = 1 / scale, y.centre
        out["nu"] = _of_covariance(moe.experts[-1].fields["nu"], scale)
    return out


def _of_covariance(field: Field, scale: np.ndarray) -> tuple[np.ndarray | float, np.ndarray | float]:
    """Size and shift of free variances of data of this scale; of a Cholesky factor's entries, the diagonal last."""
    log = np.log(scale)
    if field.support is not constraints.positive_definite:
        return 1.0, 2 * (log if len(field.shape) > 1 else log.mean())
    below = np.tril_indices(len(scale), -1)[0]
    ones, zeros = np.ones(len(scale)), np.zeros(len(below))
    return np.concatenate([1 / scale[below], ones]), np.concatenate([zeros, log])


def _slopes(moe: MoE, centre: np.ndarray) -> np.ndarray | None:
    if not centre.any():
        return None
    where = parameters.blocks(moe.fields)
    out = np.zeros((parameters.size(moe.fields),) * 2)
    for intercept, slope in (("tau", "beta"), ("b", "a")):
        if intercept in moe.fields and slope in moe.fields:
            rows = np.arange(where[intercept].start, where[intercept].stop)
            columns = np.arange(where[slope].start, where[slope].stop).reshape(len(rows), -1)
            out[rows[:, None], columns] = -centre
    return out
