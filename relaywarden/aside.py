"""aside - a job that reads files, in a thread of its own: a file system that hangs blocks that thread and not a main loop.

How it fails: a job's error is logged, once as long as it stays the same.  Known limit: a job that hangs is not ended, only
told of; it is done without until the process is replaced.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from relaywarden.logs import event

log = logging.getLogger(__name__)
LONG_JOB_SECONDS = 60.0


class Aside:
    """One job in a thread of its own.  Asked for while it runs, it runs once more afterwards."""

    def __init__(self, name: str, job: Callable[[], None]) -> None:
        self._name, self._job = name, job
        self._wanted = threading.Event()
        self._since = 0.0
        self._told_of = 0.0
        self._last_error = ""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread; after fork, with the signals blocked that the main thread wants for itself."""
        self._thread.start()

    def ask(self) -> None:
        """Run the job soon; never waits."""
        self._wanted.set()

    def busy(self, at_most: float) -> bool:
        """Is the job running, for no longer than so many seconds?"""
        since = self._since
        return bool(since) and time.monotonic() - since < at_most

    def look(self) -> None:
        """Log, once, a job that does not end."""
        since = self._since
        if since and since != self._told_of and time.monotonic() - since > LONG_JOB_SECONDS:
            self._told_of = since
            event(log, logging.ERROR, "a job does not end, the worker goes on without it", job=self._name,
                  seconds=time.monotonic() - since)  # fmt: skip

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            self._since = time.monotonic()
            try:
                self._job()
                self._last_error = ""
            except Exception as error:
                if repr(error) != self._last_error:
                    log.exception("%s failed", self._name)
                self._last_error = repr(error)
            finally:
                self._since = 0.0
