"""upkeep - what a worker sees to beside mail: its own size, messages that do not end, and jobs that must not hold it up.

`SelfWatch` decides whether this worker should be replaced: it has grown beyond milter.worker_memory, or one message has been
worked on for longer than milter.hang_timeout.  libmilter's threads cannot be ended, so only a new process gets rid of that
one; before it is asked for, the stacks of all threads go to standard error.

`Aside` runs a job that reads files (a reload, key files) in a thread of its own: a file system that hangs blocks that
thread, and not the main loop, whose beats keep the worker alive.

How it fails: a job's error is logged, once as long as it stays the same.  Known limit: a job that hangs is not ended, only
told of; it is done without until the worker is replaced.
"""

from __future__ import annotations

import faulthandler
import logging
import threading
import time
from collections.abc import Callable

from relaywarden.config.settings import MilterSettings
from relaywarden.health import Reason, resident
from relaywarden.logs import event

log = logging.getLogger(__name__)
MEMORY_SECONDS = 10.0  # between two looks at the worker's size
STARVED_SECONDS = 5.0  # a main loop that did not come round for so long was not running, nor were the messages
LONG_JOB_SECONDS = 60.0


class SelfWatch:
    """Should this worker be replaced?  Says so once for each reason."""

    def __init__(self) -> None:
        self._looked = self._pardoned = time.monotonic()
        self._measured = self._looked
        self._said: set[Reason] = set()

    def look(self, settings: MilterSettings, oldest_work: float) -> Reason:
        """Call this about once a second; `oldest_work`: for how many seconds the slowest message has been worked on."""
        now = time.monotonic()
        if now - self._looked > STARVED_SECONDS:
            self._pardoned = now
        self._looked = now
        reason = Reason.NONE
        if Reason.STUCK not in self._said:
            reason = _stuck(settings.hang_timeout / 1000, min(oldest_work, now - self._pardoned), oldest_work)
        if reason is Reason.NONE and Reason.GROWN not in self._said and now - self._measured >= MEMORY_SECONDS:
            self._measured = now
            reason = _grown(settings.worker_memory)
        self._said.add(reason)
        return reason


def _stuck(bound: float, counted: float, seconds: float) -> Reason:
    if not bound or counted <= bound:
        return Reason.NONE
    event(log, logging.ERROR, "a message is worked on without end, another worker takes this one's place; stacks follow",
          seconds=seconds, setting="milter.hang_timeout")  # fmt: skip
    faulthandler.dump_traceback(all_threads=True)
    return Reason.STUCK


def _grown(bound: int) -> Reason:
    memory = resident()
    if not bound or memory <= bound:
        return Reason.NONE
    event(log, logging.WARNING, "this worker has grown too large, another one takes its place",
          octets=memory, setting="milter.worker_memory", bound=bound)  # fmt: skip
    return Reason.GROWN


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
