"""crew - the processes of a master: forked into slots, reaped, let go.  `workers` decides, this carries out.

Each slot has two places on the page of `health`: one for its worker, one for the worker that it replaces.

How it fails: a worker that dies young is started again after a doubling delay, and so is one whose fork failed.
"""

from __future__ import annotations

import ctypes
import logging
import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from relaywarden import metrics
from relaywarden.health import Page
from relaywarden.logs import event

log = logging.getLogger(__name__)
SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
_PR_SET_PDEATHSIG = 1
_YOUNG_SECONDS = 5.0
_LONGEST_DELAY = 10.0


@dataclass(slots=True, eq=False)
class Child:
    """One process, from fork until it is reaped."""

    index: int
    pid: int
    place: int
    started: float
    heard: float  # its silence counts from here, or from its last beat
    stop_by: float = math.inf  # SIGTERM was sent, and SIGKILL follows at this time
    killed: bool = False

    @property
    def serves(self) -> bool:
        """Nothing was done yet to end it."""
        return self.stop_by == math.inf and not self.killed

    def send(self, number: int) -> None:
        """A signal."""
        os.kill(self.pid, number)  # not yet reaped, so the pid is still ours

    def terminate(self, deadline: float) -> None:
        """SIGTERM; what is not over by `deadline` (time.monotonic) is for SIGKILL."""
        self.send(signal.SIGTERM)
        self.stop_by = min(self.stop_by, deadline)

    def kill(self) -> None:
        """SIGKILL."""
        self.send(signal.SIGKILL)
        self.killed, self.stop_by = True, math.inf


@dataclass(slots=True)
class Slot:
    """One of the N places for a worker."""

    index: int
    child: Child | None = None
    second: bool = False  # which of its two places on the page the worker has
    delay: float = 0.0
    due: float = 0.0
    replaced: float = -math.inf  # when a worker that asked for it was replaced last


class Crew:
    """The slots, and those processes that have none any more."""

    def __init__(self, name: str, count: int, work: Callable[[int], None], mask: set[int]) -> None:
        self.name, self._work, self._mask = name, work, mask
        self.page = Page(2 * count)
        self.slots = [Slot(index) for index in range(count)]
        self.leaving: list[Child] = []

    def children(self) -> list[Child]:
        """All that are not reaped."""
        return [*(slot.child for slot in self.slots if slot.child is not None), *self.leaving]

    def let_go(self, slot: Slot) -> None:
        """Its worker has no slot any more, only an end to wait for; the slot may be filled at once."""
        if slot.child is not None:
            self.leaving.append(slot.child)
            slot.child, slot.due = None, 0.0

    def next_due(self) -> float:
        """When the next empty slot may be filled (time.monotonic)."""
        return min((slot.due for slot in self.slots if slot.child is None), default=math.inf)

    def start_due(self) -> None:
        """Fill the empty slots whose time has come."""
        for slot in self.slots:
            if slot.child is None and time.monotonic() >= slot.due:
                self._start(slot)

    def reap(self) -> None:
        """Take notice of those that ended."""
        now = time.monotonic()
        for slot in self.slots:
            if (child := slot.child) is None or (status := _ended(child)) is None:
                continue
            lived = now - child.started
            slot.delay = _longer(slot.delay) if lived < _YOUNG_SECONDS else 0.0
            slot.child, slot.due = None, now + slot.delay
            event(log, logging.WARNING, "worker ended, starting another", program=self.name, worker=slot.index,
                  pid=child.pid, status=status, lived=lived, delay=slot.delay)  # fmt: skip
        for child in list(self.leaving):
            if (status := _ended(child)) is not None:
                self.leaving.remove(child)
                event(log, logging.DEBUG, "worker ended", program=self.name, worker=child.index, pid=child.pid,
                      status=status, lived=now - child.started)  # fmt: skip

    def _start(self, slot: Slot) -> None:
        parent, place = os.getpid(), 2 * slot.index + slot.second
        self.page.clear(place)
        try:
            pid = os.fork()
        except OSError as error:
            slot.delay = _longer(slot.delay)
            slot.due = time.monotonic() + slot.delay
            event(log, logging.ERROR, "cannot start a worker, trying again", program=self.name, worker=slot.index,
                  error=error.strerror, delay=slot.delay)  # fmt: skip
            return
        if pid == 0:
            self._be_worker(slot.index, place, parent)
        now = time.monotonic()
        slot.child = Child(slot.index, pid, place, started=now, heard=now)

    def _be_worker(self, index: int, place: int, parent: int) -> None:
        """The child's life; does not return."""
        status = 1
        try:
            if become_child(parent, self._mask):
                self.page.adopt(place)
                self._work(index)
                status = 0
        except BaseException:  # nothing may return into the master's stack; the log has the traceback
            log.critical("worker %d ended by an error", index, exc_info=True)
        finally:
            logging.shutdown()
            os._exit(status)


def become_child(parent: int, mask: set[int]) -> bool:
    """Between fork and work: die with the parent, take signals again; False if the parent is gone already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return os.getppid() == parent


def _ended(child: Child) -> int | None:
    """The exit status of a child that is no more."""
    pid, status = os.waitpid(child.pid, os.WNOHANG)
    if not pid:
        return None
    metrics.worker_gone(pid)
    return os.waitstatus_to_exitcode(status)


def _longer(delay: float) -> float:
    return min(_LONGEST_DELAY, max(0.25, delay * 2))
