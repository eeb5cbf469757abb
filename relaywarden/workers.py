"""workers - one master, N forked workers: started, replaced when they die, hang or grow, stopped in order.

Signals of the master: SIGTERM and SIGINT stop (each worker gets SIGTERM and `stop_timeout` seconds to finish what is in
flight, then SIGKILL); SIGHUP reloads (each worker gets SIGUSR1, because libmilter takes SIGHUP for itself).

    it dies     replaced at once the first time, then after a doubling delay while it keeps dying young
    it hangs    no `beat` for `hang_timeout` seconds: SIGKILL, replaced at once
    it asks     (`ask`: grown, or stuck in a message) another one is started beside it; when that one beats for the first
                time, the old one gets SIGTERM and `stop_timeout` seconds.  One at a time, and each slot once a minute, so
                that a bound set too low cannot make a storm of forks

How it fails: a master that is killed outright takes its workers along (PR_SET_PDEATHSIG), so that no orphan keeps a socket.
When the master itself did not run (machine suspended or starved), silence says nothing: all get a fresh `hang_timeout`.
When fork fails, it is tried again later; a worker that asked to be replaced goes on until then.

Known limit: a worker that keeps beating in one thread while another does nothing looks alive; it must notice by itself.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections.abc import Callable

from relaywarden.aside import Aside
from relaywarden.crew import SIGNALS, Child, Crew, become_child
from relaywarden.health import Reason, ask, beat
from relaywarden.logs import event

__all__ = ["SIGNALS", "Reason", "ask", "beat", "become_child", "supervise"]

log = logging.getLogger(__name__)
_STOP = (signal.SIGTERM, signal.SIGINT)
LOOK_SECONDS = 1.0  # how often the master looks at its workers
STARVED_SECONDS = 5.0  # a master that did not look for so long was not running
_RELOAD_SECONDS = 5.0  # a reload that takes longer does not hold up new workers
REPLACE_SECONDS = 60.0  # between two replacements in one slot that workers asked for


def supervise(
    name: str,
    count: int,
    work: Callable[[int], None],
    *,
    stop_timeout: float = 30.0,
    hang_timeout: float = 0.0,
    reload: Callable[[], bool] | None = None,
) -> None:
    """Run `work(index)` in `count` children until SIGTERM or SIGINT.

    `work` must return when its process gets SIGTERM.  With a `hang_timeout` (seconds; 0: no watch) it must call `beat`
    well within that time, the first time when it is ready to serve.  `reload` is called in the master at SIGHUP; workers hear
    of it only when that returns True, and what it leaves in the master's memory is what later workers start with.
    """
    previous: set[int] = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    master = _Master(Crew(name, count, work, previous), stop_timeout, hang_timeout or math.inf, reload)
    try:
        master.run()
    finally:
        master.stop()
        while signal.sigtimedwait(_STOP, 0):
            pass  # asked to stop twice (by a service manager and by `run`): the second must not end us before the clean-up
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


class _Master:
    """What is decided about the crew."""

    def __init__(self, crew: Crew, stop_timeout: float, hang_timeout: float, reload: Callable[[], bool] | None) -> None:
        self._reload = reload
        self._reloaded = False
        self._reloading = Aside("reload", self._read)
        self._crew, self._stop_timeout, self._hang_timeout = crew, stop_timeout, hang_timeout
        self._warned: set[Reason] = set()
        self._looked = time.monotonic()

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        self._crew.start_due()
        self._reloading.start()
        while (number := self._wait()) not in _STOP:
            if number == signal.SIGHUP:
                self._reloading.ask()
            if self._reloaded:
                self._reloaded = False
                for child in self._crew.children():
                    child.send(signal.SIGUSR1)
            self._reloading.look()
            self._crew.reap()
            self._look()
            if not self._reloading.busy(_RELOAD_SECONDS):  # fork when nobody is in the middle of something
                self._crew.start_due()

    def _read(self) -> None:
        """Aside, as reading may hang."""
        if self._reload is None or self._reload():
            self._reloaded = True
            os.kill(os.getpid(), signal.SIGCHLD)  # the main loop looks round; a worker that ended does the same

    def stop(self) -> None:
        """SIGTERM to all, SIGKILL to those that do not end in time."""
        crew = self._crew
        for slot in crew.slots:
            crew.let_go(slot)
        limit = time.monotonic() + self._stop_timeout
        for child in crew.leaving:
            child.terminate(limit)
        while crew.leaving:
            nearest = min(child.stop_by for child in crew.leaving)
            signal.sigtimedwait({signal.SIGCHLD}, max(0.0, min(LOOK_SECONDS, nearest - time.monotonic())))
            crew.reap()
            self._kill_overdue(time.monotonic())

    def _wait(self) -> int:
        """The next signal; 0 when it is time to look, or to start a worker."""
        info = signal.sigtimedwait(SIGNALS, max(0.0, min(LOOK_SECONDS, self._crew.next_due() - time.monotonic())))
        return info.si_signo if info else 0

    def _look(self) -> None:
        """Who is silent, whose successor serves, who does not stop, who asks to be replaced."""
        now = time.monotonic()
        away, self._looked = now - self._looked, now
        if away > min(STARVED_SECONDS, self._hang_timeout / 2):
            self._pardon(now, away)
        self._kill_silent(now)
        self._hand_over(now)
        self._kill_overdue(now)
        self._replace_one(now)

    def _pardon(self, now: float, away: float) -> None:
        event(log, logging.WARNING, "the master did not run for a while; every worker gets its time anew",
              program=self._crew.name, seconds=away)  # fmt: skip
        for child in self._crew.children():
            child.heard = now
            child.stop_by += away

    def _kill_silent(self, now: float) -> None:
        crew = self._crew
        for child in crew.children():
            silent = now - max(child.heard, crew.page.beaten(child.place))
            if silent <= self._hang_timeout or not child.serves:
                continue
            self._event(logging.ERROR, "a worker gives no sign of life, it is killed and replaced", child, seconds=silent)
            child.kill()
            slot = crew.slots[child.index]
            if slot.child is child:
                crew.let_go(slot)  # what hangs in the kernel may take long to die; the next one does not wait for that

    def _hand_over(self, now: float) -> None:
        """The old worker of a slot stops once the new one serves; until then it is the one that serves."""
        for child in self._crew.leaving:
            successor = self._crew.slots[child.index].child
            if child.serves and successor is not None and self._crew.page.beaten(successor.place):
                self._event(logging.INFO, "the new worker serves, the old one ends", child, successor=successor.pid)
                child.terminate(now + self._stop_timeout)

    def _kill_overdue(self, now: float) -> None:
        for child in self._crew.leaving:
            if now >= child.stop_by:
                self._event(logging.WARNING, "a worker did not stop in time and is killed", child, seconds=self._stop_timeout)
                child.kill()

    def _replace_one(self, now: float) -> None:
        """Let go of one worker that asks for it, so that its slot is filled again; unless that is going on already."""
        crew = self._crew
        if any(not child.killed for child in crew.leaving):
            return
        for slot in sorted(crew.slots, key=lambda slot: slot.replaced):  # each has its turn, even if all ask all the time
            if (child := slot.child) is None or (reason := crew.page.asked(child.place)) is Reason.NONE:
                continue
            if now - slot.replaced < REPLACE_SECONDS:
                self._warn_once(child, reason)
                continue
            self._event(logging.WARNING, "a worker asks to be replaced, starting another beside it", child,
                        reason=reason.name.lower())  # fmt: skip
            crew.let_go(slot)
            slot.replaced, slot.second = now, not slot.second
            return

    def _warn_once(self, child: Child, reason: Reason) -> None:
        if reason not in self._warned:
            self._warned.add(reason)
            self._event(logging.WARNING, "a worker asks to be replaced again so soon that it must wait; too low a setting?",
                        child, setting=f"{self._crew.name}.{reason.setting}")  # fmt: skip

    def _event(self, level: int, text: str, child: Child, **fields: object) -> None:
        event(log, level, text, program=self._crew.name, worker=child.index, pid=child.pid, **fields)
