"""upkeep - when a worker should be replaced: its own size, and messages that do not end.

`SelfWatch` decides whether this worker should be replaced: it has grown beyond milter.worker_memory, or one message has been
worked on for longer than milter.hang_timeout.  libmilter's threads cannot be ended, so only a new process gets rid of that
one; before it is asked for, the stacks of all threads go to standard error.
"""

from __future__ import annotations

import faulthandler
import logging
import time

from relaywarden.config.settings import MilterSettings
from relaywarden.health import Reason, resident
from relaywarden.logs import event

log = logging.getLogger(__name__)
MEMORY_SECONDS = 10.0  # between two looks at the worker's size
STARVED_SECONDS = 5.0  # a main loop that did not come round for so long was not running, nor were the messages


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
