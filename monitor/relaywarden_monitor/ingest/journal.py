"""journal - Postfix' lines in systemd's journal as a source.

journalctl runs with --follow as long as the source is open, is asked for what is there, and is started anew now and then, at
the last cursor: a follower that missed a rotation of the journal finds its way back.  It begins with the entry at that cursor,
which was read before, so that it shows whether the entry is still there.

Position: `{"cursor": cursor of the last entry, "logged": when the journal took it in microseconds, "state": the parser's}`.

How it fails: if the entry is gone (vacuumed), or the cursor is none, the log says so, and the oldest entry after that time is
the next.  If journalctl cannot be run or gives up, that is told once, and it is tried again every ten seconds.

Known limits: how much waits is not known, so `lag` is 0.  With other `matches` than before, the last entry looks as if it
were gone; nothing is lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from relaywarden import logs
from relaywarden_monitor.events import Event
from relaywarden_monitor.ingest.journalctl import Entry, Journalctl, JournalError
from relaywarden_monitor.ingest.postfixline import from_parts
from relaywarden_monitor.ingest.postfixlog import PostfixLog
from relaywarden_monitor.ingest.source import Chunk, NotNowError, Position

_WAIT = 0.05  # seconds that the next entry may take before a chunk ends
_WAIT_AGAIN = 5.0  # the same when a chunk is read again, whose entries are known to have been there
_START = 0.5  # seconds that journalctl may take to begin
_RENEW = 600.0  # seconds after which an idle journalctl is started anew
_RETRY = 10.0
_MOST_MISSED = 20  # looks for entries that are to be read again while journalctl fails; then they are given up
_CLOCK_STEP = 120_000_000  # microseconds by which entries may be out of order, because the clock was set back

_log = logging.getLogger(__name__)


class JournalSource:
    """Entries of a journal; a Source."""

    def __init__(self, matches: Sequence[str], directory: Path | None = None) -> None:
        """`matches` as journalctl takes them, such as SYSLOG_FACILITY=2; `directory`: of a journal that is not this host's."""
        self.name = f"journal:{directory or 'system'}"
        self.parser = PostfixLog()
        self._matches, self._directory = matches, directory
        self._running: Journalctl | None = None
        self._started, self._retry_at, self._complaint = 0.0, 0.0, ""
        self._cursor, self._logged = "", 0
        self._missed = 0
        self._expected = self._bad_cursor = False

    def open(self, position: Position | None) -> None:
        """Begin at this position; raises nothing."""
        self.close()
        self.parser = PostfixLog()
        self._cursor, self._logged, self._bad_cursor = "", 0, False
        if position:
            self._cursor = str(position.get("cursor", ""))
            logged = position.get("logged")
            self._logged = logged if isinstance(logged, int) else 0
            self.parser.restore(position.get("state", {}))

    def read(self, most: int, until: Position | None = None) -> Chunk | None:
        """The events of up to `most` entries, None if there are none now; `until`: of those up to that position."""
        if until:
            return self._again(until)
        events: list[Event] = []
        records = 0
        for entry in self._entries(_WAIT):
            records += 1
            events += self._taken(entry)
            if records >= most:
                break
        return Chunk(events, self._position(), records) if records else None

    def lag(self) -> int:
        """Not known."""
        return 0

    def close(self) -> None:
        """End journalctl."""
        if self._running:
            self._running.close()
            self._running = None

    def _position(self) -> Position:
        return {"cursor": self._cursor, "logged": self._logged, "state": self.parser.state()}

    def _taken(self, entry: Entry) -> list[Event]:
        self._cursor, self._logged, self._bad_cursor = entry.cursor, entry.logged, False
        line = from_parts(entry.at, entry.identifier, entry.pid, entry.message)
        event = self.parser.take(line) if line else None
        return [event] if event else []

    def _again(self, until: Position) -> Chunk:
        """The chunk that led to this position, or what is left of it; the source goes on after it in any case."""
        found: list[tuple[int, list[Event]]] = []
        for entry in self._entries(_WAIT_AGAIN):
            if entry.logged > until["logged"] + _CLOCK_STEP:
                break
            found.append((entry.logged, self._taken(entry)))
            if entry.cursor == until["cursor"]:
                break
        if self._cursor != until["cursor"] and self._running is None and self._missed < _MOST_MISSED:
            self._missed += 1
            raise NotNowError(f"{self.name}: entries that are to be read again cannot be read now: {self._complaint}")
        self._missed = 0
        if self._cursor != until["cursor"]:
            found = [(logged, events) for logged, events in found if logged <= until["logged"]]
            logs.event(_log, logging.ERROR, "entries that were read before a crash are not in the journal any more",
                       source=self.name, found=len(found))  # fmt: skip
            self.close()
            self._cursor, self._logged = until["cursor"], until["logged"]
        return Chunk([event for _, events in found for event in events], until, len(found))

    def _entries(self, wait: float) -> Iterator[Entry]:
        """New entries, as long as they come."""
        now = time.monotonic()
        if self._running and now - self._started > _RENEW:
            self.close()
        try:
            if not self._running:
                if now < self._retry_at:
                    return
                self._start(now)
            if self._running:
                yield from filter(self._is_new, self._running.entries(wait + _START if now == self._started else wait))
        except JournalError as error:
            self._gave_up(str(error), now)

    def _start(self, now: float) -> None:
        """Raises JournalError."""
        start = "--since=@0"
        if self._cursor and not self._bad_cursor:
            start = f"--cursor={self._cursor}"
        elif self._logged:
            start = f"--since=@{self._logged // 1_000_000}"
        self._expected = start.startswith("--cursor")
        self._running = Journalctl(self._matches, self._directory, start)
        self._started = now

    def _is_new(self, entry: Entry) -> bool:
        self._complaint = ""
        if self._expected:
            self._expected = False
            if entry.cursor == self._cursor:
                return False
            logs.event(_log, logging.WARNING, "the last entry that was read is not in the journal any more, and perhaps others",
                       source=self.name, read_until=self._logged / 1_000_000, goes_on_at=entry.logged / 1_000_000)  # fmt: skip
        return not (self._bad_cursor and entry.logged <= self._logged)

    def _gave_up(self, error: str, now: float) -> None:
        """Told once; tried again later, or at once without a cursor that journalctl does not take."""
        bad_cursor = self._expected and "cursor" in error
        self.close()
        self._retry_at = now + _RETRY
        if bad_cursor:
            self._bad_cursor, self._retry_at = True, now
            logs.event(_log, logging.WARNING, "not a cursor of this journal; goes on at the oldest entry after the last one",
                       source=self.name, error=error, read_until=self._logged / 1_000_000)  # fmt: skip
        elif error != self._complaint:
            self._complaint = error
            logs.event(_log, logging.ERROR, "cannot read the journal", source=self.name, error=error)
