"""One cell of a study: simulate its data, fit, measure, and say where and with what it ran."""

from __future__ import annotations

import atexit
import contextlib
import copy
import faulthandler
import functools
import importlib.metadata
import json
import math
import os
import platform
import resource
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayes_moe.ground import flags, threads
from bayes_moe.ground.data import float64
from comparisons.running.recipe import Recipe
from comparisons.study import contract, labels, returned
from comparisons.study.plan import Cell, Regime, Study, digest

PACKAGES = ("bayes-moe", "jax", "jaxlib", "numpy", "numpyro", "scipy")
MESSAGE = 2000  # characters of an error's message that are kept
MEBIBYTE = 2**20 if sys.platform == "darwin" else 2**10  # in the units in which the system counts memory


class Outcome(NamedTuple):
    """What became of a cell.

    Parameters
    ----------
    payload : dict
        The result: a function of the cell's identity alone.
    provenance : dict
        Where, when and with what it was computed.
    draws : dict of str to ndarray, or None
        Where they are to be kept.
    key : str
        Key of the cell as this process makes it; empty where it could not be made.
    """

    payload: dict[str, object]
    provenance: dict[str, object]
    draws: dict[str, np.ndarray] | None = None
    key: str = ""


def run(source: Study | Recipe, cell: Cell, *, timeout: float | None = None, keep_draws: bool = False) -> Outcome:
    """Fit one cell and measure it. A failure is a result too, with its class and message.

    Parameters
    ----------
    source : Study or Recipe
    cell : Cell
    timeout : float, optional
        Seconds after which this process ends itself, whatever it is stuck in: for worker processes only.
    keep_draws : bool
    """
    study = source.study() if isinstance(source, Recipe) else source
    if timeout is not None:
        faulthandler.dump_traceback_later(timeout, exit=True, file=_NOWHERE)
    began = time.perf_counter()
    try:
        payload, draws = _fit(study, cell)
    except BaseException as error:  # any fault of one cell is recorded and must not stop the others
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise  # Ctrl-C comes to no other thread: there an estimator raised it
        payload, draws = failure("error", _said(error)), None
    finally:
        if timeout is not None:
            faulthandler.cancel_dump_traceback_later()
    about = provenance(time.perf_counter() - began)
    return Outcome(payload, about, draws if keep_draws else None, _key(study, cell))


def _said(error: BaseException) -> str:
    """Class and message of an error, which may not be able to say it."""
    try:
        return f"{type(error).__name__}: {error}"[:MESSAGE].encode(errors="replace").decode()
    except Exception:
        return f"{type(error).__name__}, whose message can't be read"


def _key(study: Study, cell: Cell) -> str:
    with contextlib.suppress(Exception):  # a truth that fails is the cell's fault, and recorded
        return digest(study.identity(cell))
    return ""


_NOWHERE = open(os.devnull, "w")  # faulthandler wants a file that stays open
atexit.register(_NOWHERE.close)


def failure(status: str, error: str) -> dict[str, object]:
    """Payload of a cell without a result."""
    return {"status": status, "error": error}


@flags.defaults()
@float64
@threads.one_blas_thread()  # the rounding of sums hangs on how many threads BLAS has
def _fit(study: Study, cell: Cell) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    x, y, truth = study.data(cell)
    regime = study.regime(cell.regime)
    # An estimator gets copies: what it does to them must not change what it is measured against, nor the next cell.
    problem = contract.Problem(regime.moe, x, y, copy.deepcopy(truth))
    settings = copy.deepcopy(dict(study.settings[cell.estimator]))
    made = study.estimators[cell.estimator](problem, study.fit_key(cell), settings)
    estimate = returned.check(made, cell.estimator, regime, truth)
    with np.errstate(over="ignore", invalid="ignore"):  # a warning would only repeat the error below
        measured = measure(regime, estimate.draws, truth)
    if lost := [name for name, value in measured.items() if not math.isfinite(value)]:
        raise FloatingPointError(f"not finite: {', '.join(lost)}")
    named = labels.nearest(regime.moe, estimate, truth)
    measured |= covered(named.intervals, truth)
    measured |= {f"profile_{name}": value for name, value in covered(named.profile, truth).items()}
    return _plain({"status": estimate.status, "error": "", **estimate.info, **measured}), estimate.draws


def _plain(payload: dict[str, object]) -> dict[str, object]:
    """Payload in the types that JSON has, arrays and their scalars among them."""
    return json.loads(json.dumps(payload, default=_listed, ensure_ascii=False).encode())  # UTF-8, or an error


def _listed(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return value.tolist()
    raise TypeError(f"an estimate's info must be plain numbers and texts, got {type(value).__name__}.")


@float64
def measure(regime: Regime, draws: contract.Draws, truth: dict[str, np.ndarray]) -> dict[str, float]:
    """Errors of the point estimate, and how the losses of the draws are spread (one draw: all the same).

    ``error_*`` is the error of the mean over draws, ``loss_*`` the mean over draws of the error, ``radius_*`` the error
    that 95% of the draws stay below, ``spread_*`` the standard deviation of the draws (root of the summed variances).
    """
    arrays = jax.tree.map(jnp.asarray, (draws, truth))
    point = {name: jnp.asarray(value)[None] for name, value in contract.mean(draws).items()}
    of_draws = _losses(regime, *arrays)
    of_point = _losses(regime, point, arrays[1])
    out = {f"error_{name}": float(values[0]) for name, values in of_point.items()}
    out |= {f"loss_{name}": float(np.mean(values)) for name, values in of_draws.items()}
    out |= {f"radius_{name}": float(np.quantile(values, contract.LEVEL)) for name, values in of_draws.items()}
    out |= {f"spread_{name}": float(np.sqrt(values.var(axis=0).sum())) for name, values in draws.items()}
    return out


def covered(intervals: dict[str, np.ndarray] | None, truth: dict[str, np.ndarray]) -> dict[str, float]:
    """Share of a parameter's coordinates whose interval holds the truth, and the mean width."""
    out = {}
    for name, (low, high) in ((k, np.moveaxis(v, -1, 0)) for k, v in (intervals or {}).items()):
        out[f"cover_{name}"] = float(np.mean((low <= truth[name]) & (truth[name] <= high)))
        out[f"width_{name}"] = float(np.mean(high - low))
    return out


def _losses(regime: Regime, draws: dict, truth: dict) -> dict[str, np.ndarray]:
    return jax.tree.map(np.asarray, _compiled_losses(regime)(draws, truth))


@functools.lru_cache(maxsize=64)
def _compiled_losses(regime: Regime) -> Callable:
    return jax.jit(lambda draws, truth: jax.lax.map(lambda draw: regime.losses(draw, truth), draws, batch_size=16))


def provenance(seconds: float) -> dict[str, object]:
    """Time taken, and versions, machine kind, threads and peak memory of this process."""
    return {
        **_machine(),
        "seconds": seconds,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "process": os.getpid(),
        "threads": threading.active_count(),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // MEBIBYTE,
    }


@functools.cache
def _machine() -> dict[str, object]:
    commit, dirty = _commit()
    return {
        **{f"version_{name}": importlib.metadata.version(name) for name in PACKAGES},
        "version_python": platform.python_version(),
        "commit": commit,
        "dirty": dirty,
        "system": platform.system(),
        "machine": platform.machine(),
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _commit() -> tuple[str, bool | None]:
    """Commit of this source tree and whether it was edited since; nothing for a copy installed anywhere else."""
    root = Path(__file__).resolve().parents[2]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # as in another's hook

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, check=True, env=clean)
        return done.stdout.strip()

    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
        if project != PACKAGES[0] or Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return "", None
        git("ls-files", "--error-unmatch", "comparisons/running/cell.py")
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, KeyError, ValueError, subprocess.CalledProcessError):
        return "", None
