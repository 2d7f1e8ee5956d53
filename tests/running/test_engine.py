"""The engine: same results whatever the workers, cells that die, hang or fail, drivers that are killed."""

import contextlib
import os
import platform
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path

import dask
import numpy as np
import psutil
import pytest
import xarray as xr
from fake_study import BAD_SIZE
from fake_study import study as STUDY

from comparisons.running import cell, engine, pools, recipe
from comparisons.running.store import FILE, Store, StoreError
from comparisons.study import keys

FAKE = str(Path(__file__).parents[1] / "fake_study.py")
COMMAND = str(Path(sys.executable).with_name("bayes-moe"))
DASK = str(Path(sys.executable).with_name("dask"))
PROVENANCE = {"seconds", "finished", "process", "threads", "peak_memory_mib"}
TIMEOUT = 30.0  # longer than a first cell takes to compile, on a busy machine too
ROUNDS = 3
KILLS = 4  # in each round


def payloads(path, study=STUDY):
    """What a store holds of each cell, apart from where and when it ran."""
    with Store(path, study) as store:
        return {
            r["id"]: {k: v for k, v in r.items() if k not in PROVENANCE and not k.startswith(("version_", "commit"))}
            for r in store.records()
        }


def run(path, study=STUDY, **options):
    with Store(path, study) as store:
        engine.run(study, store, **options)
    return payloads(path, study)


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """One thread, in the plan's order."""
    return run(tmp_path_factory.mktemp("serial") / FILE, workers=1)


def test_order_and_workers_change_nothing(serial, tmp_path, monkeypatch):
    backwards = list(STUDY.cells())[::-1]
    monkeypatch.setattr(type(STUDY), "cells", lambda self: iter(backwards))
    assert run(tmp_path / FILE, workers=2) == serial
    assert len(serial) == len(backwards)


def test_a_cell_that_fails_is_a_row(tmp_path):
    (row,) = run(tmp_path / FILE, recipe.narrow(STUDY, estimators=["fails"], sizes=(50,), replicates=1)).values()
    assert (row["status"], row["error"]) == ("error", "RuntimeError: planted")


@pytest.mark.slow
def test_worker_processes_give_the_same_and_speak_tls(serial, tmp_path, monkeypatch):
    original, addresses = pools._executing, []

    def watched(client):
        addresses.extend([client.scheduler.address, *client.scheduler_info()["workers"]])
        return original(client)

    monkeypatch.setattr(pools, "_executing", watched)
    assert run(tmp_path / FILE, recipe.find(FAKE).study(), scheduler="local", workers=2) == serial
    assert len(addresses) == 3
    assert all(address.startswith("tls://127.0.0.1:") for address in addresses)


def test_a_cell_that_kills_its_worker_is_a_row_with_the_driver_s_provenance(tmp_path, monkeypatch):
    class Deadly(Executor):
        def submit(self, *_, **__):
            future = Future()
            future.set_exception(InterruptedError("the worker died"))
            return future

    pool = pools.Pool(Deadly(), lambda: 1, (InterruptedError,), processes=True)
    monkeypatch.setattr(pools, "opened", lambda *_: contextlib.nullcontext(pool))
    (row,) = run(tmp_path / FILE, recipe.narrow(STUDY, sizes=(50,), replicates=1)).values()
    assert row["status"] == "crashed"
    assert row["machine"] == platform.machine()


@pytest.mark.slow
def test_worker_processes_outlive_cells_that_die_or_hang(tmp_path):
    study = recipe.find(FAKE).study()
    bad = recipe.narrow(study, estimators=["dies", "hangs"], sizes=(50, BAD_SIZE), replicates=1)
    rows = run(tmp_path / FILE, bad, scheduler="local", workers=2, timeout=TIMEOUT).values()
    status = {(r["estimator"], r["n"]): r["status"] for r in rows}
    assert status == {
        ("dies", 50): "ok",
        ("hangs", 50): "ok",
        ("dies", BAD_SIZE): "crashed",
        ("hangs", BAD_SIZE): "timeout",
    }


def test_two_drivers_on_one_store_leave_one_row_a_cell(serial, tmp_path):
    errors = []

    def drive():
        try:
            run(tmp_path / FILE, workers=1)
        except BaseException as error:
            errors.append(error)

    drivers = [threading.Thread(target=drive) for _ in range(2)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert errors == []
    assert payloads(tmp_path / FILE) == serial


def test_workers_are_replaced_only_while_none_is_busy(serial, tmp_path, monkeypatch):
    original, busy, replaced = pools.opened, [], []

    @contextlib.contextmanager
    def opened(*args):
        with original(*args) as pool:
            yield replace(pool, recycle=lambda: replaced.append(len(busy)), recycle_after=5)

    def busily(*args, **options):
        busy.append(1)
        outcome = compute(*args, **options)
        busy.pop()
        return outcome

    compute = cell.run
    monkeypatch.setattr(cell, "run", busily)
    monkeypatch.setattr(pools, "opened", opened)
    assert run(tmp_path / FILE, workers=2) == serial
    assert replaced == [0, 0]


def test_draws_are_kept_on_request(tmp_path):
    study = recipe.narrow(STUDY, sizes=(50,), replicates=1)
    with Store(tmp_path / FILE, study) as store:
        engine.run(study, store, keep_draws=True)
        path = engine.draws_path(store, next(study.cells()))
        (row,) = store.rows()
    with xr.open_dataset(path, engine="h5netcdf") as data:
        assert data["eta"].dims == ("draw", "adapter", "class", "feature")
        truth = study.regimes[0].truth(50)
        error = np.linalg.norm(data["beta"].values.mean(axis=0) - truth["beta"])
        assert error == pytest.approx(row["error_beta"], rel=1e-12)
        assert data.attrs["n"] == 50
    assert not list(path.parent.glob("*.part"))


def test_a_store_that_fails_stops_the_run(tmp_path, monkeypatch):
    def full(*_):
        raise StoreError("the disk is full")

    monkeypatch.setattr(Store, "write", full)
    with pytest.raises(StoreError, match="full"):
        run(tmp_path / FILE)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"timeout": 5.0}, "needs worker processes"),
        ({"scheduler": "somewhere"}, "scheduler must be local"),
        ({"scheduler": "tcp://10.0.0.1"}, "scheduler must be local"),
        ({"scheduler": "tcp://10.0.0.1:8786"}, "without TLS"),
        ({"scheduler": "tcp://0.0.0.0:8786"}, "without TLS"),
        ({"scheduler": "tcp://127.0.0.1:1"}, "does not answer"),
    ],
)
def test_schedulers_that_do_not_fit_are_refused(tmp_path, monkeypatch, options, says):
    monkeypatch.setattr(pools, "ANSWER_SECONDS", 0.5)
    with pytest.raises(ValueError, match=says):
        run(tmp_path / FILE, **options)


@pytest.mark.parametrize("scheduler", ["tls://10.0.0.1:8786", "tcp://[::1]:8786", "tcp://localhost:1", "local", None])
def test_schedulers_that_may_be_used(scheduler):
    pools.check(scheduler)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "needs TLS settings, and Dask has none for ca-file, client.cert, client.key. Set distributed.comm.tls"),
        ({"ca-file": "/absent"}, "has none for client.cert, client.key"),
        ({"ca-file": "/absent", "client.cert": "/absent", "client.key": "/absent"}, "settings can't be used"),
    ],
)
def test_a_scheduler_with_tls_needs_dask_s_settings(settings, says):
    given = {f"distributed.comm.tls.{name}": None for name in pools.TLS}
    given |= {f"distributed.comm.tls.{name}": value for name, value in settings.items()}
    with dask.config.set(given), pytest.raises(ValueError, match=says):
        engine.check("tls://10.0.0.1:8786")


def test_a_scheduler_that_asks_nobody_is_named():
    assert "can run code on its workers" in pools.caution("tcp://127.0.0.1:8786")
    assert [pools.caution(scheduler) for scheduler in ("tls://10.0.0.1:8786", "local", None)] == ["", "", ""]


def test_only_who_has_a_run_s_key_is_heard(tmp_path):
    def context(purpose, which):
        path = tmp_path / f"{which}.pem"
        made = ssl.create_default_context(purpose, cafile=path)
        made.check_hostname, made.verify_mode = False, ssl.CERT_REQUIRED
        made.load_cert_chain(path)
        return made

    def meet(guest):
        ours, theirs = socket.socketpair()
        heard = []

        def serve():
            try:
                with context(ssl.Purpose.CLIENT_AUTH, "host").wrap_socket(ours, server_side=True) as channel:
                    heard.append(channel.recv(5))
            except OSError as error:
                heard.append(type(error))
                ours.close()

        server = threading.Thread(target=serve)
        server.start()
        with contextlib.suppress(OSError), context(ssl.Purpose.SERVER_AUTH, guest).wrap_socket(theirs) as channel:
            channel.send(b"hello")
        theirs.close()
        server.join()
        return heard

    for name in ("host", "stranger"):
        (tmp_path / f"{name}.pem").write_text("".join(keys.make()))
    assert meet("host") == [b"hello"]
    assert meet("stranger") == [ssl.SSLError]


def test_an_insecure_scheduler_needs_a_word():
    pools.check("tcp://10.0.0.1:8786", insecure=True)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"replicates": {}}, "replicates has no entry 'quick', which sizes has"),
        ({"settings": {}}, "settings has no entry 'quick', which sizes has"),
        ({"estimators": {}}, "estimators has no entry 'quick', which settings has"),
        ({"sizes": {"quick": 50}}, r"sizes\['quick'\] must be whole numbers \(int\) .* got 50"),
        ({"sizes": {"quick": (50.5, 60)}}, r"sizes\['quick'\] must be whole numbers \(int\) .* got \(50.5, 60\)"),
        ({"sizes": {"quick": tuple(np.array([50]))}}, r"sizes\['quick'\] must be whole numbers \(int\)"),
        ({"replicates": {"quick": 0}}, r"replicates\['quick'\] must be a whole number .* got 0"),
        ({"replicates": {"quick": {}}}, r"replicates\['quick'\] must be a whole number .* got {}"),
        ({"regimes": STUDY.regimes * 2}, "each needs a name of its own, got only, only"),
        ({"settings": STUDY.settings | {"quick": {"a": np.ones(2)}}}, r"settings\['quick'\] must be .* JSON"),
    ],
)
def test_a_plan_that_does_not_fit_together_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        replace(STUDY, **changes)


# Real processes, killed --------------------------------------------------------------------------------------------


class Driver:
    """A study running as a command, in a process group of its own."""

    def __init__(self, folder, *arguments):
        self.path = folder / "fake" / FILE
        command = [COMMAND, "study", "run", FAKE, "--results", str(folder), *arguments]
        self.log = open(folder / "log", "a")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, start_new_session=True)

    def rows(self):
        if not self.path.exists():
            return 0
        try:
            with Store(self.path, STUDY) as store:
                return len(store.done())
        except StoreError:
            return 0

    def await_rows(self, count):
        deadline = time.monotonic() + 300
        while self.rows() < count and self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.25)

    def workers(self):
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]

    def finish(self):
        code = self.process.wait(300)
        self.log.close()
        return code


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_sigkill_of_workers_and_drivers_loses_nothing(tmp_path, seed):
    rng = np.random.default_rng(seed)
    plan = ["--estimators", "slower", "--replicates", "12"]
    expected = run(tmp_path / "serial" / FILE, recipe.narrow(STUDY, estimators=["slower"], replicates=12))
    for kill in range(KILLS):
        driver = Driver(tmp_path, *plan, "--scheduler", "local", "--workers", "2")
        driver.await_rows(driver.rows() + 1)
        time.sleep(rng.uniform(0.0, 1.0))
        workers = driver.workers()
        rng.choice(workers).kill()
        if kill < KILLS - 1:
            time.sleep(rng.uniform(0.0, 2.0))
            driver.process.kill()
            driver.finish()
            _, alive = psutil.wait_procs(workers, timeout=30)
            assert alive == []
    assert driver.finish() == 0
    assert payloads(driver.path) == expected


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", [[], ["--scheduler", "local", "--workers", "2"]])
def test_ctrl_c_stops_at_once_and_keeps_what_is_finished(tmp_path, scheduler):
    driver = Driver(tmp_path, "--estimators", "slower", "--replicates", "100", *scheduler)
    driver.await_rows(3)
    os.killpg(driver.process.pid, signal.SIGINT)
    began = time.monotonic()
    assert driver.finish() == 130
    assert time.monotonic() - began < 15
    assert driver.rows() >= 3
    log = (tmp_path / "log").read_text()
    assert "Stopped; finished fits are kept" in log
    assert "Traceback" not in log


@pytest.mark.slow
def test_a_scheduler_from_the_shell_with_a_worker_killed(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    port = address.rsplit(":", 1)[1]
    command = [DASK, "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]
    processes = [subprocess.Popen(command, **options)]
    processes += [subprocess.Popen([DASK, "worker", address, "--nthreads", "1"], **options) for _ in range(2)]
    try:
        plan = ["--estimators", "slower", "--replicates", "12"]
        time.sleep(5.0)
        driver = Driver(tmp_path, *plan, "--scheduler", address)
        driver.await_rows(3)
        for child in psutil.Process(processes[1].pid).children(recursive=True):
            child.kill()
        assert driver.finish() == 0
    finally:
        for process in processes:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait()
    expected = run(tmp_path / "serial" / FILE, recipe.narrow(STUDY, estimators=["slower"], replicates=12))
    assert payloads(driver.path) == expected
