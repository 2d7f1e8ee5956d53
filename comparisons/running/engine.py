"""Runs the cells of a study, each finished one kept at once, whatever happens to the workers.

Workers may die and cells may run twice; the store makes it once. A cell whose worker died may be innocent, a
neighbour of the one that exhausted the memory. So it runs again at the end, alone, and only a cell that dies alone,
three times, is recorded as crashed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path

import xarray as xr

from bayes_moe.ground import threads
from comparisons.report import files
from comparisons.running import cell as one_cell
from comparisons.running import pools
from comparisons.running.cell import Outcome
from comparisons.running.store import Store
from comparisons.study.plan import Cell, Study

TRIES = 3  # deaths, alone, after which a cell is recorded as crashed
TIMEOUT = 3600.0  # seconds that a cell may take on a worker process


class EngineError(RuntimeError):
    """The workers are lost; what is finished is kept."""


def check(scheduler: str | None, timeout: float | None = None, insecure: bool = False) -> None:
    """Refuse settings of :func:`run` that do not fit together, before anything is touched.

    Raises
    ------
    ValueError
    """
    pools.check(scheduler, insecure)
    pools.check_tls(scheduler)
    if timeout is not None and scheduler is None:
        raise ValueError("timeout needs worker processes, since a thread can't be ended: add --scheduler local.")


@threads.one_blas_thread()  # throughout: between two cells it would change
def run(
    study: Study,
    store: Store,
    on_cell: Callable[[Cell, dict], None] = lambda cell, payload: None,
    workers: int | None = None,
    *,
    scheduler: str | None = None,
    timeout: float | None = None,
    keep_draws: bool = False,
    insecure: bool = False,
) -> None:
    """Run what the store lacks.

    Parameters
    ----------
    study : Study
    store : Store
    on_cell : callable
        Called with each finished cell and its result, in the calling thread.
    workers : int, optional
        Threads or worker processes; as many as cores by default.
    scheduler : str, optional
        None for threads, "local" for worker processes, or the address of a Dask scheduler.
    timeout : float, optional
        Seconds after which a cell is given up; needs worker processes, where it is an hour by default.
    keep_draws : bool
        Whether to keep every cell's draws, as netCDF files beside the store.
    insecure : bool
        Whether a scheduler on the network may do without TLS.

    Raises
    ------
    ValueError
        For settings that do not fit, or a scheduler that does not answer.
    EngineError
        If the connection to the workers is lost.
    StoreError
        If a result can't be kept.
    """
    check(scheduler, timeout, insecure)
    done = store.done()
    todo = [cell for cell in study.cells() if store.key(cell) not in done]
    if not todo:
        return
    with pools.opened(scheduler, workers, insecure) as pool:
        runner = _Runner(study, store, pool, on_cell, timeout or (TIMEOUT if pool.processes else None), keep_draws)
        for suspect in runner.together(todo):
            runner.alone(suspect)


@dataclass
class _Runner:
    """One run of the engine.

    ``fresh`` counts the cells handed out since the workers were last replaced.
    """

    study: Study
    store: Store
    pool: pools.Pool
    on_cell: Callable[[Cell, dict], None]
    timeout: float | None
    keep_draws: bool
    fresh: int = 0
    pending: dict[Future, tuple[Cell, float]] = field(default_factory=dict)

    def together(self, cells: Iterable[Cell]) -> list[Cell]:
        """Run cells, as many at once as there are workers; return those whose worker died."""
        queue, suspects = deque(cells), []
        while queue or self.pending:
            while queue and self._room():
                self._submit(queue.popleft())
            if self.pending:
                finished, _ = wait(self.pending, return_when=FIRST_COMPLETED)
                suspects += [cell for future in finished if (cell := self._collect(future)) is not None]
            elif queue and self._worn():
                self.pool.recycle()
                self.fresh = 0
            elif queue and not self._room():
                self._revive()
        return suspects

    def alone(self, cell: Cell) -> None:
        """Run a cell with no other beside it, until it ends or has died often enough."""
        began = time.monotonic()
        for _ in range(TRIES):
            if not self.together([cell]):
                return
        error = f"its worker process died {TRIES} times, with no other cell running"
        self._keep(cell, self._failed("crashed", error, time.monotonic() - began))

    def _room(self) -> bool:
        """Whether a worker is free: a cell never waits for one, so its time is its own."""
        return not self._worn() and len(self.pending) < self.pool.width()

    def _worn(self) -> bool:
        return self.pool.recycle is not None and self.fresh >= self.pool.recycle_after

    def _revive(self) -> None:
        try:
            self.pool.revive()
        except TimeoutError:
            raise EngineError("every worker is gone, and none has come back.") from None

    def _submit(self, cell: Cell) -> None:
        if self.store.has(cell):  # by another process on the same store
            return
        source = self.study.recipe or self.study
        future = self.pool.executor.submit(one_cell.run, source, cell, timeout=self.timeout, keep_draws=self.keep_draws)
        self.pending[future] = cell, time.monotonic()
        self.fresh += 1

    def _collect(self, future: Future) -> Cell | None:
        """Keep a finished cell; return it if its worker died."""
        cell, began = self.pending.pop(future)
        try:
            outcome = future.result()
        except self.pool.deaths:
            seconds = time.monotonic() - began
            if self.timeout is None or seconds < self.timeout:
                return cell
            outcome = self._failed("timeout", f"not finished after {self.timeout:g} s", seconds)
        except Exception as error:  # a fault of the cell itself would be in its outcome
            raise EngineError(f"the workers are lost ({type(error).__name__}: {error}).") from error
        self._keep(cell, outcome)
        return None

    def _failed(self, status: str, error: str, seconds: float) -> Outcome:
        """Outcome of a cell whose worker is gone, with the driver's provenance."""
        return Outcome(one_cell.failure(status, error), one_cell.provenance(seconds))

    def _keep(self, cell: Cell, outcome: Outcome) -> None:
        if outcome.key not in ("", self.store.key(cell)):
            raise EngineError(
                f"a worker made another cell than was asked for ({cell}): its version of bayes-moe, of the study or of "
                "JAX's settings (JAX_... in its environment) is not this process's. Start the workers as this command."
            )
        if outcome.draws is not None:
            self._keep_draws(cell, outcome)
        self.store.write(cell, outcome.payload, outcome.provenance)
        self.on_cell(cell, outcome.payload)

    def _keep_draws(self, cell: Cell, outcome: Outcome) -> None:
        """Write a cell's draws, whole or not at all."""
        path = draws_path(self.store, cell)
        files.folder(path.parent)
        fields = self.study.regime(cell.regime).moe.fields
        arrays = {}
        for name in fields:
            values, dims = outcome.draws[name], fields[name].dims
            along = ("grid",) * (values.ndim - 1 - len(dims))  # of coefficients that are curves
            arrays[name] = (("draw", *along, *dims), values)
        data = xr.Dataset(arrays, attrs=vars(cell))
        with files.whole(path) as part:
            data.to_netcdf(part, engine="h5netcdf")


def draws_path(store: Store, cell: Cell) -> Path:
    """Where a cell's draws are kept on request."""
    return store.path.parent / "draws" / f"{store.key(cell)}.nc"
