"""courier - one thread a channel: it stores what it is given, gathers batches, tells them, and tries again.

`submit` only queues; it never waits for the store, the network or another channel.  The thread then

    stores      each notice, before it is told.  With the store down notices are kept in memory and told all the same
    gathers     for `notify.batch` after the oldest came in, at most MOST at once
    tells       one batch at a time; what was told leaves the store afterwards
    tries again after growing waits (`channel.Backoff`); all wait, as a receiver that is down is down for all.  If it may be
                due to the notices, half as many go at once; a single one that is refused goes behind the others
    gives up    what was not told within `notify.keep`, and a single one refused again after others were taken: a log line,
                and counted as failed

How it fails: what cannot be told waits; the first failure of a row and its end are logged, and each new reason.  A process
that is killed tells again what was told and not yet removed from the store; it loses what it was given in the last moments,
before the thread could store it.

Known limit: `stop` does not wait for a channel that is trying again; what it has stays in the store for the next start.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from relaywarden.logs import event
from relaywarden_monitor.notify import meters
from relaywarden_monitor.notify.channel import Backoff, Channel, NotToldError
from relaywarden_monitor.notify.notice import Notice
from relaywarden_monitor.notify.outbox import CAPACITY, Outbox, Waiting
from relaywarden_monitor.notify.shelf import RETRY_SECONDS, Shelf
from relaywarden_monitor.notify.store import Store

log = logging.getLogger(__name__)
MOST = 100  # notices in a batch
_LONGEST_WAIT = 3600.0  # seconds
_NAMED = 5  # ids in one log line


class Courier:
    """One channel's queue and thread; safe to use from several threads."""

    def __init__(
        self,
        channel: Channel,
        store: Store,
        *,
        batch: float,
        keep: float,
        backoff: Backoff | None = None,
        capacity: int = CAPACITY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`batch` and `keep` in seconds; `clock`: seconds since 1970."""
        self.name = channel.name
        self._channel, self._batch, self._keep = channel, batch, keep
        self._shelf = Shelf(channel.name, store, capacity)
        self._backoff, self._clock = backoff or Backoff(), clock
        self._wake = threading.Condition()  # guards all that follows
        self._outbox = Outbox(capacity)
        self._next: Channel | None = None  # takes the place of the channel
        self._stop_by: float | None = None  # time.monotonic(), once asked to stop
        self._discard = False
        self._full = False  # something had to go since a batch was told
        self._refused: dict[str, int] = {}  # by id, what was refused alone: how many batches had been told by then
        # The rest is the thread's alone.
        self._most, self._successes = MOST, 0
        self._failures, self._retry_at, self._reason = 0, 0.0, ""
        self._thread = threading.Thread(target=self._run, name=f"notify-{self.name}", daemon=True)

    def start(self) -> None:
        """Start the thread; after fork, with signals blocked."""
        self._thread.start()

    def submit(self, notice: Notice) -> None:
        """Have it told; never blocks."""
        with self._wake:
            self._enqueue(Waiting(notice, self._clock(), time.monotonic()))
            self._wake.notify()

    def change(self, channel: Channel, *, batch: float, keep: float) -> None:
        """Tell by this one from now on, at once if the old one failed; what waits stays."""
        with self._wake:
            self._next, unused = channel, self._next
            self._batch, self._keep = batch, keep
            self._wake.notify()
        if unused is not None:
            unused.close()

    def ask_to_stop(self, timeout: float, *, discard: bool = False) -> None:
        """Let it tell what waits for up to `timeout` seconds, and end; `discard`: end at once, nothing is kept."""
        with self._wake:
            self._stop_by, self._discard = time.monotonic() + timeout, discard
            self._wake.notify()

    def join(self, timeout: float) -> int:
        """Wait for the end; how many notices were not told (they are in the store, if that works)."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        with self._wake:
            return len(self._outbox)

    def _enqueue(self, waiting: Waiting, *, stored: bool = False) -> None:
        """Under the lock."""
        dropped = self._outbox.add(waiting)
        if dropped is None:
            return
        if not stored:
            self._shelf.keep(waiting)
        self._gone("dropped", dropped)
        if dropped and not self._full:
            event(log, logging.ERROR, "too many notices wait, from now on the least severe are given up", channel=self.name,
                  waiting=len(self._outbox), notices=_named(dropped))  # fmt: skip
        self._full = self._full or bool(dropped)  # each one that goes is counted, and stands in the log as a notice

    def _run(self) -> None:
        while self._stop_by is None:
            try:
                self._turn()
            except Exception:  # without this thread nobody would ever be told again
                log.exception("a channel for notices failed in a way that nobody expected")
                time.sleep(1.0)
        try:
            self._end()
        except Exception:  # the last thing this thread does; there is nobody to raise it to
            log.exception("a channel for notices did not end in order")
        self._channel.close()

    def _turn(self) -> None:
        self._take_over()
        self._save()
        with self._wake:
            if self._stop_by is not None or self._shelf.behind:  # came in meanwhile: store it first
                return
            pause = self._due() - time.monotonic()
            if pause > 0:
                self._wake.wait(min(pause, RETRY_SECONDS if self._shelf.down else _LONGEST_WAIT))
                return
        self._tell()

    def _end(self) -> None:
        self._take_over()
        if self._discard:
            with self._wake:
                everything = self._outbox.expire(float("inf"))
            self._give_up(everything, "dropped", "the channel is gone from the settings")
        self._save(now=True)
        while len(self._outbox) and not self._failures and time.monotonic() < (self._stop_by or 0.0):
            self._tell()
        self._save()

    def _save(self, *, now: bool = False) -> None:
        left = self._shelf.save(now=now)
        with self._wake:
            for waiting in left:
                self._enqueue(waiting, stored=True)

    def _take_over(self) -> None:
        with self._wake:
            channel, self._next = self._next, None
        if channel is not None:
            self._channel.close()
            self._channel = channel
            self._most, self._failures, self._retry_at = MOST, 0, 0.0

    def _due(self) -> float:
        """When the next batch goes, by time.monotonic()."""
        head = self._outbox.first(1)
        if not head:
            return float("inf")
        gathered = 0.0 if len(self._outbox) >= self._most else head[0].entered + self._batch
        return max(gathered, self._retry_at)

    def _tell(self) -> None:
        with self._wake:
            expired = self._outbox.expire(self._clock() - self._keep)
            self._outbox.put_behind([waiting for waiting in self._outbox.first(MOST) if waiting.notice.id in self._refused])
            batch = self._outbox.first(self._most)
        self._give_up(expired, "failed", self._reason or "waited for too long")
        if not batch:
            return
        try:
            self._channel.tell([waiting.notice for waiting in batch])
        except NotToldError as error:
            self._not_told(batch, error)
        except Exception as error:  # ours; one notice that cannot be told must not hold up the others
            log.exception("telling failed in a way that nobody expected")
            self._not_told(batch, NotToldError(f"an error of relaywarden: {type(error).__name__}", unfit=True))
        else:
            self._told(batch)

    def _told(self, batch: Sequence[Waiting]) -> None:
        with self._wake:
            self._gone("told", self._outbox.remove(batch))
            self._full = False
        if self._reason:
            event(log, logging.INFO, "notices are told again", channel=self.name, waiting=len(self._outbox))
        self._successes += 1
        self._failures, self._retry_at, self._reason = 0, 0.0, ""
        self._most = min(MOST, 2 * self._most)

    def _not_told(self, batch: Sequence[Waiting], error: NotToldError) -> None:
        if str(error) != self._reason:
            self._reason = str(error)
            event(log, logging.ERROR if error.lasting else logging.WARNING, "notices are not told, trying again",
                  channel=self.name, reason=error, waiting=len(self._outbox))  # fmt: skip
        if error.unfit and len(batch) > 1:
            self._most = len(batch) // 2
            return
        if error.unfit and self._refused.setdefault(batch[0].notice.id, self._successes) < self._successes:
            with self._wake:
                self._outbox.remove(batch)
            self._give_up(batch, "failed", f"{error}, but it took others meanwhile")
            return
        self._failures += 1
        self._retry_at = time.monotonic() + self._backoff.delay(self._failures, error)

    def _give_up(self, waiting: Sequence[Waiting], result: str, reason: str) -> None:
        """These, which are no longer in the queue, will never be told."""
        if not waiting:
            return
        with self._wake:
            self._gone(result, waiting)
        event(log, logging.ERROR, "notices are given up", channel=self.name, count=len(waiting), reason=reason,
              notices=_named(waiting))  # fmt: skip

    def _gone(self, result: str, waiting: Sequence[Waiting]) -> None:
        """Under the lock: these left the queue."""
        for each in waiting:
            self._shelf.forget(each.notice.id)
            self._refused.pop(each.notice.id, None)
        meters.NOTICES.labels(self.name, result).inc(len(waiting))
        meters.WAITING.labels(self.name).set(len(self._outbox))


def _named(waiting: Sequence[Waiting]) -> str:
    """Some of these, for a log line."""
    more = f" and {len(waiting) - _NAMED} more" if len(waiting) > _NAMED else ""
    return ", ".join(each.notice.id for each in waiting[:_NAMED]) + more
