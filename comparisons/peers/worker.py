"""One measurement in a process of its own: ``python -m comparisons.peers.worker JOB.json``.

The job names a function of this package, its arguments, the problem's file and where to write. The result is an npz
file: draws and seconds, or whatever arrays the function returns by name. What a peer prints is the caller's.
"""

from __future__ import annotations

import gc
import importlib
import json
import sys
from pathlib import Path

import numpy as np

from comparisons.peers.problem import Sampled, load


def main(path: str) -> None:
    """Do the job."""
    job = json.loads(Path(path).read_text())
    module, function = job["function"].split(":")
    problems = [load(Path(p)) for p in job["problems"]]
    if not job["garbage"]:
        gc.disable()
    run = getattr(importlib.import_module(f"comparisons.peers.{module}"), function)
    result = run(*problems, **job["settings"])
    if isinstance(result, Sampled):
        passed = {} if result.passed is None else {"passed": result.passed}
        result = {"compile": result.compile, "run": result.run, **passed, **result.draws}
    np.savez(job["out"], **result)


if __name__ == "__main__":
    main(sys.argv[1])
