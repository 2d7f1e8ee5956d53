"""How far a run is: a bar with time left on a terminal, a plain line now and then elsewhere; failures as they come."""

from __future__ import annotations

import sys
import time
from collections import Counter

from tqdm import tqdm

from comparisons.running.store import Store
from comparisons.study.contract import FAILED
from comparisons.study.plan import Cell, Study

EVERY_SECONDS = 30.0  # between plain lines


class Progress:
    """Progress of a run.

    Parameters
    ----------
    study : Study
        The plan.
    store : Store
        What is finished before.
    """

    def __init__(self, study: Study, store: Store):
        done = store.done()
        cells = list(study.cells())
        self.total = Counter(cell.regime for cell in cells)
        self.done = Counter(cell.regime for cell in cells if store.key(cell) in done)
        self.failed = 0
        self._before, self._began, self._said = self.done.total(), time.monotonic(), time.monotonic()
        self._write(
            f"{study.name}: {len(cells)} fits" + (f", {self._before} of them finished before" * bool(self._before))
        )
        self._bar = tqdm(total=len(cells), initial=self._before, unit="fit", smoothing=0.05, disable=None)

    def __enter__(self) -> Progress:
        """Use as a context manager."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the bar; elsewhere than on a terminal, say the last word."""
        self._bar.close()
        if self._bar.disable and self.done.total() > self._before:
            self._write(str(self))

    def show(self, cell: Cell, payload: dict[str, object]) -> None:
        """Count a finished cell."""
        self.done[cell.regime] += 1
        if payload["status"] in FAILED:
            self.failed += 1
            where = f"{cell.estimator}, {cell.regime}, n = {cell.n}, replicate {cell.replicate}"
            self._write(f"{payload['status']}: {where}: {payload['error']}")
        self._bar.set_postfix_str(self._counts(), refresh=False)
        self._bar.update()
        if self._bar.disable and time.monotonic() - self._said > EVERY_SECONDS:
            self._said = time.monotonic()
            self._write(str(self))

    def __str__(self) -> str:
        """Format as ``12/40 fits (flat 6/20, sloped 6/20), 3 min left``."""
        done, total = self.done.total(), self.total.total()
        rate = (done - self._before) / max(time.monotonic() - self._began, 1e-9)
        left = (total - done) / rate if rate else float("inf")
        return f"{done}/{total} fits ({self._counts()}), {tqdm.format_interval(left) if rate else '?'} left"

    def _counts(self) -> str:
        parts = [f"{name} {self.done[name]}/{count}" for name, count in self.total.items()]
        return ", ".join([*parts, f"{self.failed} failed"] if self.failed else parts)

    def _write(self, line: str) -> None:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
