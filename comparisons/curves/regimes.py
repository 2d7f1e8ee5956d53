"""Truths of the varying-coefficient studies: published stand-ins for the simulations of arXiv:2601.01699."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bayes_moe import varying_coefficient
from bayes_moe.ground.keys import as_key
from bayes_moe.ground.parameters import Params
from bayes_moe.theory import losses
from comparisons.study.plan import Regime

GRID = np.linspace(0.0, 1.0, 20)
FAMILIES = {"normal": 1, "binomial": 20}  # and the trials of each response
BLOCKS = {"gate": "beta", "experts": "alpha", "dispersion": "delta"}
NAMES, OTHER = {0.0: "null", 1.0: "curves"}, "share-"  # of regimes, by the share of the slopes' variation
CONSTANT = {"slopes": -1 / 2, "intercepts": -1 / 3}  # rates where h falls as n^-1/3
HYPOTHESIS = "alpha[:,1]"  # what the null regimes hold constant, and the likelihood-ratio test tests

ASSUMPTIONS = (
    "The paper's coefficient functions are not known to us. Ours are a published stand-in: u uniform on [0, 1], x and "
    "z standard normal, two components. Binomial responses have the same curves, on the logit scale, and 20 trials.",
    "In the regime null the experts' slopes are constant, at their means over u.",
    "RASE: root of the mean, over the grid and over the coefficients of the gate or of the experts, of squared errors. "
    "Experts are numbered by their predictors' means, at the covariates' means.",
    "n^-2/5 is the rate of curves with two derivatives when h falls as n^-1/5; at a fixed h bias stays.",
)
FALLING = (
    "Constant slopes: the bandwidth falls as n^-1/3, so that the curves' smoothing bias, of order n^-2/3, does not "
    "keep the constants from n^-1/2. The curves' sd falls as n^-1/3; at the smaller sizes their bias is not negligible "
    "beside it, and their errors fall faster."
)


def standin(u: np.ndarray, family: str = "normal", share: float = 1.0) -> dict[str, np.ndarray]:
    """True coefficients at u (m,), a row for each.

    Parameters
    ----------
    u : ndarray, shape (m,)
        On [0, 1].
    family : "normal" or "binomial"
    share : float
        Of the variation of the experts' slopes about their means over u; with 0 they are constant.
    """
    rise, fall = 0.5 + 0.35 * u, -0.2 + 0.1 * u + 0.3 * (u - 0.5) ** 2
    rise, fall = (slope + (share - 1) * (slope - mean) for slope, mean in ((rise, 0.675), (fall, -0.125)))
    common = 0.1 * np.sin(np.pi * u)
    low, high = common - 0.45 + 0.35 * np.sin(2 * np.pi * u), common + 0.55 + 0.25 * np.cos(2 * np.pi * u)
    alpha = np.moveaxis(np.array([[low, rise], [high, fall]]), -1, 0)
    # The stand-in's logit is of component 1 against 2; ours of the second against the first, the reference.
    beta = -np.moveaxis(np.array([[-0.2 + 0.7 * (u - 0.5), 0.45 - 0.55 * u]]), -1, 0)
    delta = np.log(np.array([0.35 + 0.05 * u, 0.45 - 0.03 * u])).T
    return {"beta": beta, "alpha": alpha} | ({"delta": delta} if family == "normal" else {})


def regime(family: str, share: float = 1.0, constant: Sequence[str] = ()) -> Regime:
    """Simulation 1 ("normal") or 2 ("binomial"), or the same with slopes that vary less.

    Parameters
    ----------
    family : "normal" or "binomial"
    share : float
        As in :func:`standin`.
    constant : sequence of str
        What the fitted model holds constant; its errors are then those of the slopes, and of the intercepts.

    Returns
    -------
    Regime
        Its truth is the curves on GRID; its covariates are a tuple (x, z, u, size).
    """
    source, trials = varying_coefficient(family, 2), FAMILIES[family]

    def draw(key: Array, n: int) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        keys = jax.random.split(as_key(key), 4)
        with jax.enable_x64(True):
            x, z = (np.asarray(jax.random.normal(one, (n, 1))) for one in keys[:2])
            u = np.asarray(jax.random.uniform(keys[2], (n,)))
        y = source.simulate(keys[3], standin(u, family, share), x, z, size=trials)
        return (x, z, u, np.full(n, float(trials))), y

    what = {0.0: "slopes constant", 1.0: "all curves vary"}.get(share, f"slopes vary {share:.0%} as much")
    title, truth = f"two {family} components, {what}", standin(GRID, family, share)
    name = NAMES.get(share, f"{OTHER}{share:g}")
    errors, exponents = (slopes, CONSTANT) if constant else (rase, {"gate": -0.4, "experts": -0.4})
    model = varying_coefficient(family, 2, constant=constant) if constant else source
    notes = (*ASSUMPTIONS, FALLING) if constant else ASSUMPTIONS
    return Regime(name, title, model, lambda n: truth, errors, exponents, draw=draw, assumptions=notes)


def share_of(name: str) -> float:
    """Share of the slopes' variation in the regime of this name: the inverse of what :func:`regime` calls it."""
    shares = {name: share for share, name in NAMES.items()}
    return shares[name] if name in shares else float(name.removeprefix(OTHER))


def rase(params: Params, truth: Params) -> dict[str, Array]:
    """Root average squared errors of the gate's curves and of the experts'.

    Parameters
    ----------
    params, truth : dict of str to array
        Coefficients on the grid, a row for each point.
    """
    return {
        block: jnp.sqrt(jnp.mean(losses.rase(params[name], truth[name]) ** 2))
        for block, name in BLOCKS.items()
        if name in truth
    }


def slopes(params: Params, truth: Params) -> dict[str, Array]:
    """Root mean squared errors of the experts' slopes, which are constant, and of their intercepts, which are curves.

    Parameters
    ----------
    params, truth : dict of str to array
        Coefficients on the grid, a row for each point.
    """
    squares = jnp.mean((params["alpha"] - truth["alpha"]) ** 2, axis=(0, 1))
    return {"slopes": jnp.sqrt(squares[1]), "intercepts": jnp.sqrt(squares[0])}
