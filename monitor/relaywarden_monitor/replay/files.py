"""files - the events of many files in the order of time: logs and accounting, plain or compressed, given in any order.

A file is opened when the time comes at which it begins, so that a year of rotated files takes no more memory than one.  Files
of the same time (of several hosts, or a log and its accounting) are merged, a chunk at a time.  A file that was given twice is
read once.

How it fails: a file that cannot be read is an OSError, before anything is read.  A compressed file that is damaged is read
up to the damage, and the log says so.

Known limits: within a file events come as they were written.  A time stamp without a year belongs to the file's last change.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from relaywarden.logs import event
from relaywarden_monitor.events import Event
from relaywarden_monitor.ingest.accounting import Parser
from relaywarden_monitor.ingest.fingerprint import Marks
from relaywarden_monitor.ingest.postfixlog import PostfixLog
from relaywarden_monitor.ingest.reading import Reading, Taken
from relaywarden_monitor.ingest.records import LINES, ROWS
from relaywarden_monitor.ingest.siblings import Matching

log = logging.getLogger(__name__)
MOST_RECORDS = 10_000  # in one chunk
_LOOKED_AT = 2000  # records in which the first event is looked for
_PACKED = 8  # how much smaller a compressed log is, for progress alone
Advance = Callable[[int], None]


class _Reader(Protocol):
    """Makes events of the records of one file."""

    unit: str

    def events(self, taken: Taken, changed: float) -> list[Event]: ...


class _Log:
    unit = "lines"

    def __init__(self) -> None:
        self._parser = PostfixLog()

    def events(self, taken: Taken, changed: float) -> list[Event]:
        return self._parser.feed(taken.records, changed)


class _Rows:
    unit = "rows"

    def __init__(self) -> None:
        self._parser = Parser()

    def events(self, taken: Taken, changed: float) -> list[Event]:  # noqa: ARG002  # rows have their year
        return self._parser.parse(taken.records, taken.header)[0]


class HistoryFile:
    """One file; `begin` is when its first event happened, seconds since 1970."""

    def __init__(self, path: Path, *, rows: bool) -> None:
        """Raises OSError."""
        self.path, self._rows = path, rows
        status = path.stat()
        self.size, self.changed = status.st_size, status.st_mtime
        with self._open() as reading:
            taken = reading.take(_LOOKED_AT, final=True)
            found = self._reader().events(taken, self.changed) if taken is not None else []
        # Where the beginning tells nothing, it has to be read to be known.
        self.begin = min((one.at for one in found), default=0.0)

    def chunks(self, records: Counter[str], advance: Advance) -> Iterator[list[Event]]:
        """Events, some at a time; raises OSError."""
        reader, done = self._reader(), 0
        with self._open() as reading:
            while (taken := reading.take(MOST_RECORDS, final=True)) is not None:
                records[reader.unit] += len(taken.records)
                at = min(self.size, reading.offset // (_PACKED if reading.content.packed else 1))
                advance(at - done)
                done = at
                if found := reader.events(taken, self.changed):
                    yield found
            if reading.content.damage:
                event(log, logging.ERROR, "a compressed file is damaged; what comes after is not replayed", file=self.path,
                      error=reading.content.damage)  # fmt: skip
        advance(self.size - done)

    def _open(self) -> Reading:
        form = ROWS if self._rows else LINES
        return Reading(self.path, form, Marks(1))

    def _reader(self) -> _Reader:
        return _Rows() if self._rows else _Log()


def find(logs: Sequence[str], accounting: Sequence[str]) -> list[HistoryFile]:
    """The files that these names and patterns stand for, each once; raises OSError, also for one that finds nothing."""
    found: dict[tuple[int, int], HistoryFile] = {}
    for patterns, rows in ((logs, False), (accounting, True)):
        for pattern in patterns:
            files = Matching([pattern]).files()
            if not files:
                raise FileNotFoundError(2, "no such file", pattern)
            for one in files:
                if one.key not in found:
                    found[one.key] = HistoryFile(one.path, rows=rows)
    return sorted(found.values(), key=lambda one: one.begin)


class _Open:
    """A file whose time has come."""

    def __init__(self, chunks: Iterator[list[Event]]) -> None:
        self._chunks = chunks
        self.events: list[Event] = []

    def fill(self) -> bool:
        """Whether there are events; reads more where there are none left."""
        if not self.events:
            self.events = next(self._chunks, [])
        return bool(self.events)

    def take(self, until: float) -> list[Event]:
        """What happened up to then."""
        taken = [one for one in self.events if one.at <= until]
        self.events = [one for one in self.events if one.at > until]
        return taken


def merged(files: Sequence[HistoryFile], records: Counter[str], advance: Advance) -> Iterator[list[Event]]:
    """The events of all files in the order of time, some at a time; `records` and `advance` (bytes) go along."""
    waiting = list(files)
    active: list[_Open] = []
    while waiting or active:
        active = [one for one in active if one.fill()]
        # As far as the file that has read least: what comes after that may be older in its next chunk.
        until = min((one.events[-1].at for one in active), default=float("-inf"))
        if waiting and (not active or waiting[0].begin <= until):
            active.append(_Open(waiting.pop(0).chunks(records, advance)))
        elif len(active) == 1:
            (only,) = active
            events, only.events = only.events, []
            yield events
        elif active:
            yield sorted((event for one in active for event in one.take(until)), key=lambda one: one.at)
