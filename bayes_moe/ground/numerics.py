"""Elementary functions of the likelihood, written so that the compiler makes vector code of them.

On a CPU, ``jnp.log`` in double precision calls the C library once for each number, four times the cost of an
exponential; and ``jax.nn.logsumexp`` takes two exponentials of two terms where one suffices. The functions here
return the same numbers to the last digit or two, with exact derivatives of every order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero

LN2 = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # high and low part
SERIES = (  # 2 artanh(s) = 2 s + s (L1 s^2 + L2 s^4 + ...), minimax coefficients of fdlibm
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
    1.818357216161805012e-01,
    1.531383769920937332e-01,
    1.479819860511658591e-01,
)
ROOT_HALF = 0x3FE6A09E667F3BCD  # bits of sqrt(1/2)
MANTISSA = 0x000FFFFFFFFFFFFF


@jax.custom_jvp
def log(x: Array) -> Array:
    """Natural logarithm of positive, finite, normal numbers, to one unit in the last place.

    x = 2^k m with sqrt(1/2) <= m < sqrt(2); log x = k log 2 + 2 artanh((m - 1) / (m + 1)).

    Parameters
    ----------
    x : array
        Positive and normal: zero, infinity and NaN give nonsense. Sums of exponentials of which one is exp(0) are.

    References
    ----------
    Sun Microsystems' fdlibm, e_log.c.
    """
    if x.dtype != jnp.float64:
        return jnp.log(x)
    bits = lax.bitcast_convert_type(x, jnp.int64) - ROOT_HALF
    k = (bits >> 52).astype(jnp.int32).astype(x.dtype)
    f = lax.bitcast_convert_type((bits & MANTISSA) + ROOT_HALF, x.dtype) - 1.0
    s = f / (2.0 + f)
    z = s * s
    series = z * reduce(lambda total, term: total * z + term, reversed(SERIES))
    half = 0.5 * f * f
    return k * LN2[0] - ((half - (s * (half + series) + k * LN2[1])) - f)


log.defjvp(lambda primals, tangents: (log(*primals), tangents[0] / primals[0]))


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _scaled_sum(rows: tuple[Array, ...], bounded: bool = False) -> tuple[Array, Array, tuple[Array, ...]]:
    """Top and total with sum_i exp(row_i) = exp(top) * total, and each row's share of the sum.

    The total lies between 1 and the number of rows; where rows are bounded the top is zero, and nothing is subtracted.
    Derivatives are booked on the top: the total's count as zero.
    """
    if len(rows) == 2 and not bounded:  # one exponential does for both
        a, b = rows
        e = jnp.exp(-jnp.abs(jnp.where(a == b, 0.0, a - b)))
        total = 1.0 + e
        inverse = 1.0 / total
        smaller = e * inverse
        return jnp.maximum(a, b), total, (jnp.where(a >= b, inverse, smaller), jnp.where(a >= b, smaller, inverse))
    if bounded:
        terms = [jnp.exp(row) for row in rows]
        total = sum(terms)
        top = jnp.zeros_like(total)
    else:
        top = reduce(jnp.maximum, rows)
        nothing = top == -jnp.inf
        terms = [jnp.exp(row - jnp.where(nothing, 0.0, top)) for row in rows]
        total = sum(terms) + nothing
    inverse = 1.0 / total
    return top, total, tuple(term * inverse for term in terms)


@partial(_scaled_sum.defjvp, symbolic_zeros=True)
def _(bounded: bool, primals: tuple, tangents: tuple) -> tuple:
    top, total, shares = _scaled_sum(*primals, bounded)
    rates = tuple(None if isinstance(rate, SymbolicZero) else rate for rate in tangents[0])
    moving = [share * rate for share, rate in zip(shares, rates, strict=True) if rate is not None]
    mean = jnp.broadcast_to(sum(moving), total.shape)
    share_rates = (s * ((0.0 if rate is None else rate) - mean) for s, rate in zip(shares, rates, strict=True))
    return (top, total, shares), (mean, jnp.zeros_like(total), tuple(share_rates))


def logsumexp(rows: Sequence[Array], *, bounded: bool = False) -> Array:
    """Logarithm of sum_i exp(row_i), elementwise over rows that broadcast together.

    Parameters
    ----------
    rows : sequence of array
        The terms; stacking them into one array first would cost a pass over memory.
    bounded : bool
        Promises |row_i| < 100, so that no exponential can overflow and none vanishes.
    """
    top, total, _ = _scaled_sum(tuple(rows), bounded)
    return top + log(lax.stop_gradient(total))


def log_mean_exp(values: Sequence[Array], scores: Sequence[Array]) -> Array:
    """Logarithm of the mean of exp(value_i) with weights softmax(score)_i; one logarithm.

    Parameters
    ----------
    values, scores : sequence of array
        As many of each.
    """
    top, total, _ = _scaled_sum(tuple(v + s for v, s in zip(values, scores, strict=True)))
    top_score, total_score, _ = _scaled_sum(tuple(scores))
    return top - top_score + log(lax.stop_gradient(total / total_score))
