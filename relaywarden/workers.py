"""workers - one master, N forked workers: started, replaced when they die, stopped in order.

Signals of the master: SIGTERM and SIGINT stop (each worker gets SIGTERM and `stop_timeout` seconds to finish what is in
flight, then SIGKILL); SIGHUP reloads (each worker gets SIGUSR1, because libmilter takes SIGHUP for itself).  A worker that
dies is replaced at once the first time, then after a doubling delay while it keeps dying young.

How it fails: a master that is killed outright takes its workers along (PR_SET_PDEATHSIG), so that no orphan keeps a socket.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from relaywarden import metrics
from relaywarden.logs import event

log = logging.getLogger(__name__)
SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
_PR_SET_PDEATHSIG = 1
_YOUNG_SECONDS = 5.0
_LONGEST_DELAY = 10.0


@dataclass(slots=True)
class _Slot:
    """One of the N places for a worker."""

    index: int
    pid: int = 0
    started: float = 0.0
    delay: float = 0.0
    due: float = 0.0


def supervise(name: str, count: int, work: Callable[[int], None], *, stop_timeout: float = 30.0) -> None:
    """Run `work(index)` in `count` children until SIGTERM or SIGINT; `work` must return when its process gets SIGTERM."""
    previous: set[int] = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    slots = [_Slot(index) for index in range(count)]
    try:
        for slot in slots:
            _start(slot, work, previous)
        while (number := _wait(slots)) not in (signal.SIGTERM, signal.SIGINT):
            if number == signal.SIGHUP:
                _signal(slots, signal.SIGUSR1)
            _reap(name, slots)
            for slot in slots:
                if not slot.pid and time.monotonic() >= slot.due:
                    _start(slot, work, previous)
    finally:
        _stop(name, slots, stop_timeout)
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _start(slot: _Slot, work: Callable[[int], None], mask: set[int]) -> None:
    slot.started = time.monotonic()
    parent = os.getpid()
    slot.pid = os.fork()
    if slot.pid:
        return
    status = 1
    try:
        if become_child(parent, mask):
            work(slot.index)
            status = 0
    except BaseException:  # nothing may return into the master's stack; the log has the traceback
        log.critical("worker %d ended by an error", slot.index, exc_info=True)
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


def _wait(slots: list[_Slot]) -> int:
    """The next signal; 0 when a worker's restart is due first."""
    waiting = [slot.due for slot in slots if not slot.pid]
    if not waiting:
        return signal.sigwaitinfo(SIGNALS).si_signo
    info = signal.sigtimedwait(SIGNALS, max(0.0, min(waiting) - time.monotonic()))
    return info.si_signo if info else 0


def _reap(name: str, slots: list[_Slot]) -> None:
    for slot in slots:
        if not slot.pid:
            continue
        pid, status = os.waitpid(slot.pid, os.WNOHANG)
        if not pid:
            continue
        metrics.worker_gone(pid)
        now = time.monotonic()
        lived = now - slot.started
        slot.delay = min(_LONGEST_DELAY, max(0.25, slot.delay * 2)) if lived < _YOUNG_SECONDS else 0.0
        slot.pid, slot.due = 0, now + slot.delay
        event(log, logging.WARNING, "worker ended, starting another", program=name, worker=slot.index, pid=pid,
              status=os.waitstatus_to_exitcode(status), lived=lived, delay=slot.delay)  # fmt: skip


def _signal(slots: list[_Slot], number: int) -> None:
    for slot in slots:
        if slot.pid:
            os.kill(slot.pid, number)  # not yet reaped, so the pid is still ours


def _stop(name: str, slots: list[_Slot], timeout: float) -> None:
    _signal(slots, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while any(slot.pid for slot in slots):
        for slot in slots:
            if slot.pid and os.waitpid(slot.pid, os.WNOHANG)[0]:
                slot.pid = 0
        left = deadline - time.monotonic()
        if any(slot.pid for slot in slots) and not signal.sigtimedwait({signal.SIGCHLD}, max(0.0, left)):
            if time.monotonic() < deadline:
                continue
            event(log, logging.WARNING, "workers did not stop in time and are killed", program=name, seconds=timeout)
            _signal(slots, signal.SIGKILL)
            deadline += timeout
