"""follow - read the records of files that grow, rotate, get compressed, vanish and come back: each once, over restarts too.

A `Finder` (siblings) says which files there are, a mark (fingerprint) how far each was read, whatever it is called by now.  So
nothing depends on being there when a file is renamed: what of it was not read is read where it lies now, oldest file first,
then the live one.  While there is more in the file that was read last, it goes on there.

A position is `{"files": [[hash, bytes hashed, offset, header row at, complete], ...], "since": ns}`: the file that moved on
last is the last of the list.  A cut is of one file, so its position differs from the one before in that file only.

How it fails: a file that cannot be opened or is damaged is told once in the log, and the others are read.  A file that was
cut off within what was read of it goes on at its end.  If a cut that is to be read again is nowhere any more, that is an
error in the log, and the cut is empty.

Known limits: those of `fingerprint`.  What a writer adds to a log between its copy and its truncation (copytruncate) is lost
by the rotation itself.  A file that is cut off and grows beyond where it was within one poll, with its first 1024 bytes
the same, goes on where it was.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from relaywarden import logs
from relaywarden_monitor.ingest.fingerprint import Marks
from relaywarden_monitor.ingest.reading import Reading, Taken
from relaywarden_monitor.ingest.records import LINES, Form
from relaywarden_monitor.ingest.siblings import Finder, Found
from relaywarden_monitor.ingest.source import NotNowError, Position

KEEP: Final = 256  # marks
_log = logging.getLogger(__name__)
_MOST_COMPLAINTS = 100
_SETTLED_NS = 1_000_000_000  # changes within one tick of the clock look the same, so younger ones are not trusted
_MOST_MISSED = 20  # looks for a cut that is to be read again, while some file cannot be read; then it is given up
_STALE_NS = 60 * 1_000_000_000  # nobody finishes a line in a rotated file after so long


@dataclass(frozen=True, slots=True)
class Cut:
    """Records of one file, in order."""

    records: list[bytes]
    header: bytes  # the row that names the columns of the first one, if the form has such rows and it is not itself one
    changed: float  # when the file was last changed, seconds since 1970
    position: Position


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was found in a file when it was last looked at, and that there was nothing more to read."""

    size: int
    changed_ns: int
    trusted: bool  # it looks the same only if it is
    mark: str  # name of its mark; empty: it counts as read without one
    packed: bool
    short: bool  # less is there than was read

    def like(self, found: Found) -> bool:
        """Whether the file looks as it did."""
        return (self.size, self.changed_ns) == (found.status.st_size, found.status.st_mtime_ns)


class LineFollower:
    """Reads the records of a set of files; used by one thread."""

    def __init__(self, finder: Finder, form: Form = LINES, *, from_start: bool = False, keep: int = KEEP) -> None:
        """`from_start`: the first time read all there is; else of a log with a live file only that.  `keep`: marks."""
        self._finder, self._form, self._from_start, self._keep = finder, form, from_start, keep
        self._marks = Marks(keep)
        self._seen: dict[tuple[int, int], _Seen] = {}
        self._current: Reading | None = None
        self._complained: set[Path] = set()
        self._missed = 0

    def open(self, position: Position | None) -> None:
        """Begin at this position; raises nothing."""
        self.close()
        self._seen = {}
        if position is not None:
            try:
                self._marks = Marks.from_json(position, self._keep)
            except (ValueError, TypeError, KeyError) as error:
                logs.event(_log, logging.ERROR, "not a position of files; begins as if there were none", error=repr(error))
            else:
                return
        self._marks = Marks(self._keep, self._first_since())

    def read(self, most: int, until: Position | None = None) -> Cut | None:
        """Up to `most` records, None if there are none now; with `until` those up to that position, as they were cut before."""
        if until is not None:
            return self._again(until)
        return self._go_on(most) or self._search(most)

    def lag(self) -> int:
        """Bytes that wait; of a compressed file that was not read to its end, its compressed size."""
        waiting = 0
        for found in self._finder.files():
            seen, size = self._seen.get(found.key), found.status.st_size
            if self._current and found.key == self._current.key:
                waiting += 0 if self._current.content.packed else max(0, size - self._current.offset)
            elif seen is None:
                waiting += size if found.status.st_mtime_ns > self._marks.since else 0
            elif not seen.packed and (mark := self._marks.get(seen.mark)):
                waiting += max(0, size - mark.offset)
        return waiting

    def close(self) -> None:
        """Give the open file back; it can be opened again."""
        if self._current:
            self._current.close()
            self._current = None

    def _first_since(self) -> int:
        if self._from_start or not self._finder.live:
            return 0
        others = [found.status.st_mtime_ns for found in self._finder.files() if found.path != self._finder.live]
        return max(others, default=0)

    def _go_on(self, most: int) -> Cut | None:
        """More of the file that was read last, which may have another name, or none, by now."""
        current = self._current
        if not current:
            return None
        try:
            if not current.changed():
                # It stays open at its end: if it is deleted rather than renamed, its last lines are there nevertheless.
                return self._cut(current, taken) if (taken := current.take(most)) else None
        except OSError as error:
            self._complain(current.path, error.strerror or str(error))
        self.close()
        return None

    def _search(self, most: int) -> Cut | None:
        """Records of the oldest file that has some."""
        files = self._finder.files()
        short: list[Found] = []
        for found in files:
            known = self._seen.get(found.key)
            if not found.status.st_size or (known and known.trusted and known.like(found)):
                continue
            looked = self._look(found, most, newest=found is files[-1])
            if isinstance(looked, Cut):
                return looked
            if looked:
                self._seen[found.key] = looked
                if looked.short and known and known.short and known.like(found):
                    short.append(found)  # it does not grow, so it is not a copy that is being made
        there = {found.key for found in files}
        self._seen = {key: seen for key, seen in self._seen.items() if key in there}
        for found in short:
            self._cut_off(found)
        return None

    def _look(self, found: Found, most: int, *, newest: bool) -> Cut | _Seen | None:
        """The next records of this file; else what it looks like.  None: it cannot be read."""
        now = time.time_ns()
        try:
            reading = Reading(found.path, self._form, self._marks)
        except FileNotFoundError:
            return None  # renamed in this moment: the next search finds it under its new name
        except OSError as error:
            self._complain(found.path, error.strerror or str(error))
            return None
        try:
            age = now - reading.content.status.st_mtime_ns
            stale = not newest and age > _STALE_NS
            if self._is_due(reading) and (taken := reading.take(most, final=stale)):
                self.close()
                self._current = reading
                return self._cut(reading, taken)
            return self._nothing_in(reading, trusted=age > _SETTLED_NS and (newest or stale or reading.content.packed))
        except OSError as error:
            self._complain(found.path, error.strerror or str(error))
            return None
        finally:
            if self._current is not reading:
                reading.close()

    def _is_due(self, reading: Reading) -> bool:
        if reading.mark:
            return not (reading.mark.complete and reading.content.packed)
        return reading.content.status.st_mtime_ns > self._marks.since

    def _nothing_in(self, reading: Reading, *, trusted: bool) -> _Seen:
        """Remember that there was nothing more."""
        content, mark = reading.content, reading.mark
        if content.damage:
            self._complain(content.path, content.damage, "a compressed file is damaged; what comes before the damage is read")
        else:
            self._complained.discard(content.path)
        if mark and content.complete and not mark.complete:
            mark = replace(mark, complete=True)
            self._marks.settle(mark)
        size, changed = content.status.st_size, content.status.st_mtime_ns
        return _Seen(size, changed, trusted, mark.name if mark else "", content.packed, reading.short)

    def _cut_off(self, found: Found) -> None:
        """Go on at the end of a file that is shorter than what was read of it, unless all of that is elsewhere."""
        name = self._seen[found.key].mark
        if any(seen.mark == name and not seen.short for seen in self._seen.values()):
            return
        self.close()
        try:
            with Reading(found.path, self._form, self._marks) as reading:
                if mark := reading.mark:
                    end = reading.last_line_end()
                    self._marks.settle(replace(mark, offset=end, header=mark.header if mark.header < end else 0))
                    logs.event(_log, logging.WARNING, "a file is shorter than what was read of it; goes on at its end",
                               file=found.path, was=mark.offset, now=end)  # fmt: skip
        except OSError as error:
            self._complain(found.path, error.strerror or str(error))

    def _cut(self, reading: Reading, taken: Taken) -> Cut:
        self._marks.put(taken.before, taken.mark)
        status = reading.content.status
        if self._marks.surplus:
            changed = {seen.mark: seen.changed_ns for seen in self._seen.values()}
            self._marks.forget(changed | {taken.mark.name: status.st_mtime_ns})
        return Cut(taken.records, taken.header, status.st_mtime, self._marks.to_json())

    def _again(self, until: Position) -> Cut:
        """The cut that led to this position."""
        try:
            marks = Marks.from_json(until, self._keep)
            goal = list(marks)[-1]
        except (ValueError, TypeError, KeyError, IndexError) as error:
            logs.event(_log, logging.ERROR, "not a position of files; nothing is read again", error=repr(error))
            return Cut([], b"", time.time(), until)
        cut, trouble = None, ""
        for found in self._finder.files():
            try:
                with Reading(found.path, self._form, self._marks) as reading:
                    if reading.is_at(goal) and (taken := reading.take(0, goal.offset)) and taken.mark.offset == goal.offset:
                        cut = Cut(taken.records, taken.header, reading.content.status.st_mtime, until)
                        break
            except OSError as error:  # it may be the one: a file that is renamed now, or cannot be opened for a moment
                trouble = f"{found.path}: {error.strerror or error}"
                self._complain(found.path, error.strerror or str(error))
        if cut is None and trouble and self._missed < _MOST_MISSED:
            self._missed += 1
            raise NotNowError(f"what was being read when the monitor ended cannot be read now: {trouble}")
        self._missed = 0
        if not cut:
            logs.event(
                _log, logging.ERROR, "what was read before a crash is in no file any more and stays uncounted", until=goal
            )
        self._marks = marks
        return cut or Cut([], b"", time.time(), until)

    def _complain(self, path: Path, error: str, text: str = "cannot read a file; the others are read") -> None:
        if path not in self._complained:
            if len(self._complained) > _MOST_COMPLAINTS:
                self._complained.clear()
            self._complained.add(path)
            logs.event(_log, logging.ERROR, text, file=path, error=error)
