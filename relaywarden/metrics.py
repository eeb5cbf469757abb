"""metrics - one Prometheus endpoint for all workers of a program, by prometheus-client's multiprocess mode.

Multiprocess mode keeps each worker's values in a memory-mapped file of a private folder.  The folder must be named in the
environment before prometheus_client is first imported, so `prepare` runs before the program's own modules are loaded.
Known limit: values of a worker that died are kept in the sums until the program restarts, which is what a counter needs.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from collections.abc import Callable

from relaywarden.addresses import Address
from relaywarden.errors import RelaywardenError
from relaywarden.logs import event

log = logging.getLogger(__name__)
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
SERVED = "RELAYWARDEN_METRICS_SERVED"  # set by `run`, which serves the metrics of all programs


def prepare() -> None:
    """Choose the private folder for this program's values; removed when the program (not a worker) ends."""
    if _FOLDER in os.environ:
        return
    folder = tempfile.mkdtemp(prefix="relaywarden-metrics-")
    os.environ[_FOLDER] = folder
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)


def serve(address: Address) -> Callable[[], None]:
    """Answer scrapes on `address` from a thread of the master process; returns what stops it; raises RelaywardenError."""
    from prometheus_client import CollectorRegistry, start_http_server  # noqa: PLC0415  # only after `prepare`
    from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415

    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    try:
        server, thread = start_http_server(address.port, address.host, registry)
    except OSError as error:
        raise RelaywardenError(f"cannot serve metrics on {address}: {error.strerror or error}") from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5.0)

    return stop


def serve_alone(address: Address | None) -> Callable[[], None]:
    """`serve` for a program that `run` did not start.  A port that is taken (by the other program, with the same file) must
    not stop mail: it is logged and done without."""
    if address is None or SERVED in os.environ:
        return _nothing
    try:
        return serve(address)
    except RelaywardenError as error:
        event(log, logging.ERROR, "going on without metrics; `relaywarden run` serves those of all programs", error=error)
        return _nothing


def _nothing() -> None:
    """There is nothing to stop."""


def worker_gone(pid: int) -> None:
    """A worker died: drop its live gauges (open connections, open tickets)."""
    from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415  # only after `prepare`

    if _FOLDER in os.environ:
        mark_process_dead(pid)  # type: ignore[no-untyped-call]
