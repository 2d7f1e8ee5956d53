"""Measurements kept on disk: a bench that is stopped goes on where it was, if nothing has changed meanwhile."""

from __future__ import annotations

import hashlib
import platform
import sys
import zipfile
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np

from bayes_moe.nuts.datatree import data_hash
from comparisons.peers.jobs import ROOT, Job, Outcome
from comparisons.report import files
from comparisons.study.plan import digest

PROCESS = "process_seconds"  # beside the job's own arrays
CODE = ("bayes_moe", "mle", "comparisons/peers")
SHOWN = ("bench", "analysis", "tables", "plots")  # files of the last folder that measure nothing


def recall(job: Job, folder: Path) -> Outcome | None:
    """Return what the job left on this machine with the same code, packages and data; None if it has to run."""
    try:
        with (folder / name(job)).open("rb") as source, np.load(source) as stored:
            arrays = dict(stored)
    except (FileNotFoundError, EOFError, ValueError, zipfile.BadZipFile):  # never run, or a file that is not whole
        return None
    return Outcome(job, arrays, float(arrays.pop(PROCESS)))


def keep(outcome: Outcome, folder: Path) -> None:
    """Write an outcome, whole or not at all; one that failed is not kept, so that it runs again."""
    if outcome.error:
        return
    with files.whole(files.folder(folder) / name(outcome.job)) as part, part.open("wb") as sink:
        np.savez(sink, **outcome.arrays, **{PROCESS: np.array(outcome.process)})


def name(job: Job) -> str:
    """Name a job's file by all that its measurement depends on."""
    how = [job.function, job.settings, job.env, job.garbage, where()]
    data = [(problem.x, problem.y, problem.eta0) for problem in job.problems]
    experts = [problem.frozen_activation for problem in job.problems]
    identity = digest([job.part, job.case, job.method, *how, data_hash(data), experts])
    return f"{job.part}-{job.method}-{identity[:16]}.npz"


@cache
def where() -> str:
    """Digest of machine, packages and code."""
    known = [platform.node(), sys.version, *sorted(f"{d.name}=={d.version}" for d in metadata.distributions())]
    code = hashlib.sha256("\n".join(known).encode())
    for path in sorted(path for part in CODE for path in (ROOT / part).glob("*.py") if path.stem not in SHOWN):
        code.update(path.read_bytes())
    return code.hexdigest()
