"""Where cells run, behind one contract: threads of this process, worker processes, or a Dask cluster."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bayes_moe.ground import threads
from comparisons.study import keys

if TYPE_CHECKING:
    from distributed import Client

ANSWER_SECONDS = 10.0  # how long a scheduler may take to answer
START_SECONDS = 120.0  # how long workers may take to start
RECYCLE = 1000  # cells a worker after which local workers are replaced: every data shape leaves memory maps behind

# One core each: XLA reads NPROC, our threads their own limit.
ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "NPROC": "1", threads.LIMIT: "1"} | {
    f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")
}

ANY_PORT = "127.0.0.1:0"  # of Dask's web server, which has no pages: that of another cluster may be taken
TLS = ("ca-file", "client.cert", "client.key")
TLS_REMEDY = (
    "Set distributed.comm.tls.ca-file, .client.cert and .client.key in ~/.config/dask/distributed.yaml, or "
    "DASK_DISTRIBUTED__COMM__TLS__CA_FILE, __CLIENT__CERT and __CLIENT__KEY, to the files made for that scheduler."
)
ROLES = ("client", "scheduler", "worker")

# Ctrl-C reaches the whole process group; it is the driver's to answer.
QUIET = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"


@dataclass(frozen=True)
class Pool:
    """Where cells run.

    Parameters
    ----------
    executor : concurrent.futures.Executor
    width : callable
        How many cells can run at once, now.
    deaths : tuple of exception types
        What a future raises when its worker died.
    processes : bool
        Whether a cell may end its worker without ending the study.
    revive : callable
        Waits until there is a worker; only called while there is none.
    recycle : callable, optional
        Replaces every worker; only called while none is busy.
    recycle_after : int
        Cells after which it is time for that.
    """

    executor: Executor
    width: Callable[[], int]
    deaths: tuple[type[Exception], ...] = ()
    processes: bool = False
    revive: Callable[[], None] = lambda: None
    recycle: Callable[[], None] | None = None
    recycle_after: int = 0


def check(scheduler: str | None, insecure: bool = False) -> None:
    """Refuse a scheduler that is no address, or that would send code in the clear over a network.

    Raises
    ------
    ValueError
    """
    if scheduler in (None, "local"):
        return
    parts = urlsplit(scheduler)
    try:
        complete = parts.scheme in ("tcp", "tls") and parts.hostname and parts.port
    except ValueError:
        complete = False
    if not complete:
        raise ValueError(f"scheduler must be local, tcp://host:port or tls://host:port, got {scheduler!r}.")
    if parts.scheme == "tcp" and not insecure and not _loopback(parts.hostname):
        raise ValueError(
            f"scheduler {scheduler} is on the network without TLS: whoever reaches it can run code on your workers. "
            "Use tls://, or --insecure on a network you trust."
        )


def caution(scheduler: str | None) -> str:
    """Say who else can use a scheduler that was asked for; nothing where nobody can."""
    if scheduler in (None, "local") or urlsplit(scheduler).scheme == "tls":
        return ""
    return (
        f"WARNING: {scheduler} asks nobody who they are: whoever is on that host, or reaches it over a network, "
        "can run code on its workers as their owner. Only tls:// (or local) keeps them out."
    )


def check_tls(scheduler: str | None) -> None:
    """Refuse a scheduler with TLS where Dask has no key and certificates to speak to it with, or can't read them.

    Raises
    ------
    ValueError
    """
    if scheduler is None or not scheduler.startswith("tls:"):
        return
    from distributed.security import Security  # noqa: PLC0415 - a second to import

    try:
        security = Security()
        lacking = [name for name in TLS if not getattr(security, f"tls_{name.replace('.', '_').replace('-', '_')}")]
        if not lacking:
            security.get_connection_args("client")
    except (OSError, ValueError) as error:  # a file that is not there, or is no key
        raise ValueError(f"scheduler {scheduler}: Dask's TLS settings can't be used ({error}). {TLS_REMEDY}") from None
    if lacking:
        raise ValueError(
            f"scheduler {scheduler} needs TLS settings, and Dask has none for {', '.join(lacking)}. {TLS_REMEDY}"
        )


@contextlib.contextmanager
def opened(scheduler: str | None = None, workers: int | None = None, insecure: bool = False) -> Iterator[Pool]:
    """Open a pool, and leave without waiting for cells that still run.

    Parameters
    ----------
    scheduler : str, optional
        None for threads of this process, "local" for worker processes, or the address of a Dask scheduler.
    workers : int, optional
        Threads or worker processes; as many as cores by default. A cluster has its own.
    insecure : bool
        Whether an address on the network may do without TLS.

    Raises
    ------
    ValueError
        If the scheduler does not answer, or its workers run several threads each.
    """
    check(scheduler, insecure)
    count = workers or threads.cores()
    if scheduler is None:
        executor = ThreadPoolExecutor(count)
        try:
            yield Pool(executor, lambda: count)
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
    elif scheduler == "local":
        with _local(count) as pool:
            yield pool
    else:
        with _cluster(scheduler) as pool:
            yield pool


@contextlib.contextmanager
def _local(count: int) -> Iterator[Pool]:
    import dask  # noqa: PLC0415 - a second to import, and most runs need none of it
    from distributed import Client, LocalCluster  # noqa: PLC0415
    from distributed.security import Security  # noqa: PLC0415

    # Any user of this host can reach a loopback port, and workers run what they are sent: the key keeps others out.
    certificate, key = keys.make()
    pair = {f"tls_{role}_{part}": text for role in ROLES for part, text in (("cert", certificate), ("key", key))}
    security = Security(require_encryption=True, tls_ca_file=certificate, **pair)

    # The engine itself decides what to do about a cell whose worker died.
    settings = {"distributed.scheduler.allowed-failures": 0, "distributed.worker.multiprocessing-method": "spawn"}
    settings |= {f"distributed.{part}.http.routes": [] for part in ("scheduler", "worker", "nanny")}  # they ask nobody
    options = {
        "dashboard_address": ANY_PORT,
        "scheduler_kwargs": {"dashboard": False},
        "silence_logs": logging.CRITICAL,
        "env": ENVIRONMENT,
        "preload": [QUIET],
    }
    with (
        dask.config.set(settings),
        LocalCluster(n_workers=count, threads_per_worker=1, processes=True, security=security, **options) as cluster,
        Client(cluster, security=security) as client,
    ):
        client.wait_for_workers(count, timeout=START_SECONDS)

        def recycle() -> None:
            client.restart(timeout=START_SECONDS)

        with _executing(client) as pool:
            yield replace(pool, recycle=recycle, recycle_after=RECYCLE * count)


@contextlib.contextmanager
def _cluster(address: str) -> Iterator[Pool]:
    from distributed import Client  # noqa: PLC0415

    check_tls(address)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=ANSWER_SECONDS)
    except (OSError, TimeoutError) as error:
        why = f"{type(error).__name__}; does it take the certificate of Dask's TLS settings?" * address.startswith(
            "tls:"
        )
        raise ValueError(f"the scheduler {address} does not answer ({why or type(error).__name__}).") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=ANSWER_SECONDS)
        except TimeoutError:
            raise ValueError(f"the scheduler {address} has no workers. Start some: dask worker {address}") from None
        if max(client.nthreads().values()) > 1:
            raise ValueError(f"workers of {address} run several threads each. Start them with --nthreads 1.")
        with _executing(client) as pool:
            yield pool


@contextlib.contextmanager
def _executing(client: Client) -> Iterator[Pool]:
    from distributed import KilledWorker  # noqa: PLC0415

    def revive() -> None:
        client.wait_for_workers(1, timeout=START_SECONDS)

    executor = client.get_executor(pure=False)
    try:
        yield Pool(executor, lambda: len(client.nthreads()), (KilledWorker,), True, revive)
    finally:
        executor.shutdown(wait=False)


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
