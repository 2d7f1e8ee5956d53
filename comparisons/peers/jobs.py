"""What is measured, each in a process of its own: methods, the plan, and how a job is run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np

from comparisons.peers.problem import CHAINS, Problem

ROOT = Path(__file__).parents[2]
DEVICES = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={CHAINS}"}
DOUBLE = DEVICES | {"JAX_ENABLE_X64": "1"}
LIMIT = 3600  # seconds after which a job counts as failed


@dataclass(frozen=True)
class Method:
    """A way to sample the posterior.

    Parameters
    ----------
    title : str
        For people.
    module : str
        Its file in this package.
    env : dict of str to str
        What its process needs to know before it starts.
    largest : int
        Largest number of observations at which it is run.
    """

    title: str
    module: str
    env: dict[str, str] = field(default_factory=dict)
    largest: int = 20_000


METHODS = {
    "ours": Method("bayes-moe", "ours"),
    "numpyro64": Method("NumPyro, float64", "numpyro_naive", DOUBLE),
    "numpyro32": Method("NumPyro, float32", "numpyro_naive", DEVICES),
    "nutpie": Method("PyMC + nutpie", "pymc_nutpie"),
    "blackjax": Method("BlackJAX", "blackjax_nuts", DOUBLE),
    "stan": Method("Stan", "stan", largest=2000),
}


def title(name: str) -> str:
    """Return what people call a method; others, as EM, go by their names."""
    return METHODS[name].title if name in METHODS else name


@dataclass(frozen=True, eq=False)
class Job:
    """One measurement.

    Parameters
    ----------
    part, case, method : str
        What it belongs to.
    function : str
        ``file:function`` in this package.
    problems : sequence of Problem
    settings : dict
        Keyword arguments of the function.
    env : dict of str to str
    garbage : bool
        Whether Python's garbage collector is on. It is off, as in ``timeit``, where compilation is told apart: else
        whatever runs after compiling pays for what compiling left behind.
    """

    part: str
    case: str
    method: str
    function: str
    problems: Sequence[Problem] = ()
    settings: dict[str, object] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    garbage: bool = True


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a job left: its arrays and the seconds of its whole process, or why there is nothing.

    Parameters
    ----------
    job : Job
    arrays : dict of str to ndarray
    process : float
    error : str
        Empty if all went well.
    """

    job: Job
    arrays: dict[str, np.ndarray]
    process: float
    error: str = ""


def execute(job: Job, log: Path) -> Outcome:
    """Run a job; what it prints is appended to ``log``, and a failure is an outcome too.

    Each job has an empty cache, so that no compilation of an earlier one helps it.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [folder / f"{i}.npz" for i in range(len(job.problems))]
        for problem, path in zip(job.problems, paths, strict=True):
            problem.save(path)
        (folder / "job.json").write_text(
            json.dumps(
                {
                    "function": job.function,
                    "problems": [str(path) for path in paths],
                    "settings": job.settings,
                    "garbage": job.garbage,
                    "out": str(folder / "out.npz"),
                }
            )
        )
        began = perf_counter()
        error = _spawn(job, folder, log)
        seconds = perf_counter() - began
        if error:
            return Outcome(job, {}, seconds, error)
        with np.load(folder / "out.npz") as stored:
            return Outcome(job, dict(stored), seconds)


def _spawn(job: Job, folder: Path, log: Path) -> str:
    """Run the worker; return why it failed, or nothing."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")} | job.env
    command = [sys.executable, "-m", "comparisons.peers.worker", str(folder / "job.json")]
    with log.open("a") as sink:
        sink.write(f"\n--- {job.part} {job.case} {job.method}\n")
        sink.flush()
        start = sink.tell()
        try:
            code = subprocess.run(command, env=env, stdout=sink, stderr=sink, timeout=LIMIT, check=False).returncode
        except subprocess.TimeoutExpired:
            return f"took more than {LIMIT} s"
    if code == 0:
        return ""
    said = log.read_bytes()[start:].decode(errors="replace")
    lines = [line for line in said.splitlines() if line.strip()]
    cause = [line for line in lines if "Error" in line and not line.startswith("Error handling")]
    reason = (cause or lines or [f"exit status {code}"])[-1][:200]
    return f"{reason}: `make bench` installs it" if reason.startswith("ModuleNotFoundError") else reason
