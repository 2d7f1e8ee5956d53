"""Runs the cells of a study: in threads over compiled fits, each finished one kept at once."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import jax
import jax.numpy as jnp
import numpy as np

from bayes_moe import losses
from bayes_moe.data import float64
from comparisons import estimators
from comparisons.store import Store
from comparisons.study import Cell, Regime, Study

TEST_ROWS = 2000  # covariates over which Hellinger distances are averaged


def run(study: Study, store: Store, on_cell: Callable[[Cell, dict], None], workers: int | None = None) -> None:
    """Run what the store lacks.

    Parameters
    ----------
    study : Study
    store : Store
    on_cell : callable
        Called with each finished cell and its row, in the calling thread.
    workers : int, optional
        Threads; as many as cores by default.
    """
    done = store.done()
    todo = [cell for cell in study.cells() if store.key(cell) not in done]
    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        pending = {pool.submit(run_cell, study, cell): cell for cell in todo}
        while pending:
            finished, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in finished:
                cell, row = pending.pop(future), future.result()
                store.write(cell, row)
                on_cell(cell, row)
    finally:
        pool.shutdown(cancel_futures=True)


@float64
def run_cell(study: Study, cell: Cell) -> dict[str, object]:
    """Fit one cell and measure it. A failure is a row too, with its class and message."""
    began = time.perf_counter()
    try:
        x, y, truth = study.data(cell)
        regime = study.regime(cell.regime)
        fit = estimators.ESTIMATORS[cell.estimator]
        estimate = fit(regime.moe, x, y, study.fit_key(cell), study.settings[cell.estimator])
        seconds = time.perf_counter() - began
        row = {
            "status": estimate.status,
            "error": "",
            **estimate.info,
            **measure(regime, estimate.draws, truth),
        }
    except Exception as error:  # any fault of one cell is recorded and must not stop the others
        row, seconds = (
            {"status": "error", "error": f"{type(error).__name__}: {error}"},
            time.perf_counter() - began,
        )
    return {**row, "seconds": seconds}


@float64
def measure(regime: Regime, draws: estimators.Draws, truth: dict[str, np.ndarray]) -> dict[str, float]:
    """Errors of the point estimate, and the mean loss over the draws (which is the same for one draw).

    ``error_*`` is the error of the mean over draws, ``loss_*`` the mean over draws of the error, ``spread_*`` the
    standard deviation of the draws (root of the summed variances).
    """
    point = estimators.mean(draws)
    names = [*truth, "contamination", "hellinger"]
    arrays = jax.tree.map(jnp.asarray, (draws, truth))
    of_draws = {name: float(np.mean(values)) for name, values in _losses(regime, *arrays).items()}
    of_point = _losses(regime, jax.tree.map(lambda a: jnp.asarray(a)[None], point), arrays[1])
    out = {f"error_{name}": float(of_point[name][0]) for name in names}
    out |= {f"loss_{name}": of_draws[name] for name in names}
    out |= {f"spread_{name}": float(np.sqrt(draws[name].var(axis=0).sum())) for name in truth}
    return out


def _losses(regime: Regime, draws: dict, truth: dict) -> dict[str, np.ndarray]:
    return jax.tree.map(np.asarray, _compiled_losses(regime)(draws, truth))


@functools.lru_cache(maxsize=64)
def _compiled_losses(regime: Regime) -> Callable:
    x = np.random.default_rng(0).normal(size=(TEST_ROWS, regime.moe.gate.features))
    covariates = jax.tree.map(jnp.asarray, regime.moe.prepare(x))

    def one(params: dict, truth: dict) -> dict:
        return {
            **losses.errors(params, truth),
            "contamination": losses.contamination(params, truth, frozen=regime.frozen, regime=regime.loss),
            "hellinger": losses.hellinger(regime.moe, params, truth, covariates),
        }

    return jax.jit(lambda draws, truth: jax.lax.map(lambda draw: one(draw, truth), draws, batch_size=16))
