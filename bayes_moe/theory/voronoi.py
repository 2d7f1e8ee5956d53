"""Losses between mixing measures: Voronoi losses of the Gaussian-gated mixture, and Wasserstein distances.

A mixing measure puts mass pi_i on the atom theta_i = (c_i, Gamma_i, a_i, b_i, nu_i); two of them may have different
numbers of atoms. All here is pure and vmappable over draws: ``jax.vmap(loss, (0, None))(draws, truth)``.
"""

from __future__ import annotations

from functools import partial
from numbers import Real

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy import optimize, sparse

from bayes_moe.ground.data import check_array, check_choice, check_mapping, check_real, float64
from bayes_moe.ground.parameters import Params

RBAR = (1.0, 4.0, 6.0, 7.0)  # rbar(m), m = 1, 2, 3, 4 or more; from 4 on only rbar(m) >= 7 is known
KINDS = ("I", "II", "corrected", "linear")
HIGHEST = 32  # order of a Wasserstein distance
TIES = ("all", "first")


@float64
def cells(params: Params, truth: Params, *, ties: str = "all") -> Array:
    """Voronoi cells of the true atoms.

    A_j = {i : |theta_i - theta0_j| <= |theta_i - theta0_l| for all l}, with Euclidean norms over (c, Gamma, a, b, nu),
    every entry of a matrix counted.

    Parameters
    ----------
    params, truth : dict of str to array
        ``pi`` (k,) and ``c``, ``Gamma``, ``a``, ``b``, ``nu`` with k in front; k may differ between the two.
    ties : "all" or "first"
        An atom as near to two true atoms lies in both cells, as the definition has it, or in the first only, so that
        the cells are a partition. Equality is exact.

    Returns
    -------
    array of bool, shape (k0, k)
        Whether atom i lies in cell j; a row may be empty.

    Raises
    ------
    ValueError
        For parameters that do not fit together.

    References
    ----------
    arXiv:2305.07572.
    """
    check_choice("ties", ties, TIES)
    params, truth, _ = _of_order_one(*_checked(params, truth))
    squared = sum(_squared(params[name], truth[name]) for name in _names(truth))
    nearest = squared == jnp.min(squared, axis=0)
    return nearest if ties == "all" else nearest & (jnp.cumsum(nearest, axis=0) == 1)


@float64
def pieces(
    params: Params, truth: Params, *, kind: str = "corrected", ties: str = "all", rbar: tuple[float, ...] = RBAR
) -> dict[str, Array]:
    """Voronoi loss by cell and parameter.

    With m = |A_j| and r = rbar(m), cell j contributes |sum_(A_j) pi_i - pi0_j| to ``pi``, and sum_(A_j) pi_i |D|^e to
    every other parameter, D its distance to the true atom and e = 1 where m = 1. Where m > 1,

    =========== ======== ============== ============================
    kind        c, b     Gamma, nu      a
    =========== ======== ============== ============================
    I           r        r / 2          2
    II          r        r / 2          r / 2 if c0_j = 0, else 2
    corrected   r        r / 2          r / 2
    linear      1        1              1
    =========== ======== ============== ============================

    I and II are published. For m = 3 their exponent of a is too small: total variation falls faster than the loss (see
    :func:`bayes_moe.theory.solvability.counterexample`); for m = 2 all agree. "linear" gives plain errors, for rates.

    Parameters
    ----------
    params, truth, ties
        As in :func:`cells`.
    kind : "I", "II", "corrected" or "linear"
    rbar : tuple of float
        rbar(m) for m = 1, 2, ...; the last counts from there on.

    Returns
    -------
    dict of str to array, shape (k0,)
        One entry for each parameter, and ``occupancy``, the number of atoms in the cell.

    References
    ----------
    arXiv:2305.07572, the losses of Types I and II.
    """
    check_choice("kind", kind, KINDS)
    rbar = _check_rbar(rbar)
    inside = cells(params, truth, ties=ties)
    params, truth = _checked(params, truth)
    small, small_truth, exponent = _of_order_one(params, truth)
    weights = inside * small["pi"]
    occupancy = jnp.sum(inside, axis=1)
    r = jnp.asarray(rbar)[jnp.clip(occupancy, 1, len(rbar)) - 1]
    out = {"pi": jnp.abs(jnp.sum(weights, axis=1) - small_truth["pi"])}
    for name in _names(truth):
        power = _exponent(name, kind, r, jnp.asarray(truth["c"]))
        power = jnp.where(occupancy > 1, power, 1.0)[:, None]
        distance = jnp.ldexp(jnp.sqrt(_squared(small[name], small_truth[name])), exponent)
        out[name] = jnp.sum(weights * distance**power, axis=1)
    return out | {"occupancy": occupancy}


@float64
def voronoi(
    params: Params, truth: Params, *, kind: str = "corrected", ties: str = "all", rbar: tuple[float, ...] = RBAR
) -> Array:
    """Voronoi loss: the sum of its :func:`pieces` over cells and parameters, a scalar."""
    parts = pieces(params, truth, kind=kind, ties=ties, rbar=rbar)
    return sum(jnp.sum(value) for name, value in parts.items() if name != "occupancy")


def _exponent(name: str, kind: str, r: Array, locations: Array) -> Array:
    if kind == "linear":
        return jnp.ones_like(r)
    if name in ("c", "b"):
        return r
    if name in ("Gamma", "nu") or kind == "corrected":
        return r / 2
    if kind == "I":
        return jnp.full_like(r, 2.0)
    return jnp.where(jnp.all(locations == 0, axis=1), r / 2, 2.0)


@float64
def wasserstein(params: Params, truth: Params, *, order: float = 1.0) -> Array:
    """Wasserstein distance between mixing measures.

    W_r(G, G0) = (min_q sum_ij q_ij |theta_i - theta0_j|^r)^(1/r), over couplings q of pi and pi0; exact, by linear
    programming.

    Parameters
    ----------
    params, truth : dict of str to array
        As in :func:`cells`.
    order : float
        r, from 1 to 32: beyond, the programme's tolerance would decide.

    Returns
    -------
    array
        A scalar, NaN for draws that are not finite. Under ``vmap`` all others are solved in one sparse programme; it
        has no derivatives.

    References
    ----------
    Nguyen (2013); Ho and Nguyen (2016).
    """
    if isinstance(order, bool) or not isinstance(order, Real) or not 1 <= order <= HIGHEST:
        raise ValueError(f"order must be at least 1 and at most {HIGHEST}, got {order!r}.")
    params, truth, exponent = _of_order_one(*_checked(params, truth))
    distance = jnp.sqrt(sum(_squared(params[name], truth[name]) for name in _names(truth)))  # (k0, k)
    own = _exponent_of(jnp.max(distance))
    cost = jnp.ldexp(distance, -own) ** order
    result = jax.ShapeDtypeStruct((), cost.dtype)
    sides = jnp.asarray(truth["pi"]), jnp.asarray(params["pi"])
    total = jax.pure_callback(_transport, result, cost, *sides, vmap_method="broadcast_all")
    return jnp.ldexp(total ** (1 / order), own + exponent)


def _transport(cost: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Least costs of moving ``rows`` to ``columns``, for any leading axes, in one block-diagonal programme."""
    cost, rows, columns = np.asarray(cost), np.asarray(rows), np.asarray(columns)
    batch, (m, k) = cost.shape[:-2], cost.shape[-2:]
    block = sparse.vstack([sparse.kron(sparse.eye(m), np.ones((1, k))), sparse.kron(np.ones((1, m)), sparse.eye(k))])
    block = block.tocsr()[:-1]  # the last column sum follows from the others
    with np.errstate(invalid="ignore"):
        sides = [side / side.sum(-1, keepdims=True) for side in (rows, columns)]
    margins = np.concatenate(sides, axis=-1).reshape(-1, m + k)[:, :-1]
    flat = cost.reshape(-1, m * k)
    finite = np.isfinite(flat).all(axis=1) & np.isfinite(margins).all(axis=1)
    total, flat, margins = np.full(len(flat), np.nan), flat[finite], margins[finite]
    if len(flat):
        size = np.maximum(flat.max(axis=1, keepdims=True), 1e-300)  # costs of order one, whatever their units
        equations = sparse.kron(sparse.eye(len(flat)), block, format="csr")
        solution = optimize.linprog((flat / size).ravel(), A_eq=equations, b_eq=margins.ravel(), method="highs")
        if solution.status == 0:
            total[finite] = (solution.x.reshape(flat.shape) * flat).sum(axis=1)
    return total.reshape(batch)


def _names(truth: Params) -> list[str]:
    return [name for name in truth if name != "pi"]


def _of_order_one(params: Params, truth: Params) -> tuple[Params, Params, Array]:
    """Both divided by a power of two, which changes no digit, so that squares neither overflow nor vanish."""
    sizes = [jnp.max(jnp.abs(one[name])) for one in (params, truth) for name in _names(truth)]
    exponent = _exponent_of(jnp.max(jnp.stack(sizes)))
    small = ({n: v if n == "pi" else jnp.ldexp(v, -exponent) for n, v in p.items()} for p in (params, truth))
    return *small, exponent


def _exponent_of(size: Array) -> Array:
    """Of the power of two above a size; zero for zero and for what is not finite."""
    return jnp.where(jnp.isfinite(size) & (size > 0), jnp.frexp(size)[1], 0)


def _check_rbar(rbar: object) -> tuple[float, ...]:
    numbers = check_real("rbar", rbar)
    if numbers.ndim != 1 or not numbers.size or not (np.isfinite(numbers) & (numbers > 0)).all():
        raise ValueError(f"rbar must be positive numbers, one for each number of atoms m = 1, 2, ..., got {rbar!r}.")
    return tuple(numbers.tolist())


def _squared(values: Array, true_values: Array) -> Array:
    """Squared distances between atoms in one parameter, (k0, k)."""
    one, two = jnp.asarray(values), jnp.asarray(true_values)
    one, two = one.reshape(len(one), -1), two.reshape(len(two), -1)
    return jnp.sum((two[:, None] - one[None]) ** 2, axis=2)


def _checked(params: Params, truth: Params) -> tuple[Params, Params]:
    """Both as arrays, of parameters and shapes that fit together."""
    names, true_names = set(check_mapping("params", params)), set(check_mapping("truth", truth))
    if names != true_names or not {"pi", "c"} <= names:
        raise ValueError(
            f"params must hold what truth holds, {', '.join(map(str, truth))}; got {', '.join(map(str, params))}."
        )
    as_array = partial(jax.lax.convert_element_type, new_dtype=jnp.result_type(float))  # also under a user's vmap
    params, truth = (
        {name: as_array(check_array(f"{argument}: {name}", value)) for name, value in values.items()}
        for argument, values in (("params", params), ("truth", truth))
    )
    for name in truth:
        one, two = params[name].shape, truth[name].shape
        if not one or not two or one[1:] != two[1:] or one[:1] != params["pi"].shape or two[:1] != truth["pi"].shape:
            raise ValueError(
                f"params: {name} must have shape (k, {', '.join(map(str, two[1:]))}) with k atoms, got {one}; "
                f"the truth has {two}. For many draws use jax.vmap(loss, (0, None))."
            )
    return params, truth
