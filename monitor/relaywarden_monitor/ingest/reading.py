"""reading - one open file: which one it is, how far it was read, and its next records.

A file is told by its mark (`fingerprint`), looked for among those that are known when it is opened.  If the byte before the
place where it goes on does not end a line, somebody changed what was read already: then it goes on with the next line.

How it fails: OSError if it cannot be opened or read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final

from relaywarden_monitor.ingest.compressed import BLOCK, Content
from relaywarden_monitor.ingest.fingerprint import HEAD, Mark, Marks, fingerprint
from relaywarden_monitor.ingest.records import LONGEST, Form

LARGEST: Final = 4 * 2**20  # bytes of records that are taken at once


@dataclass(frozen=True, slots=True)
class Taken:
    """Records that were taken out of a file, and where that leaves it."""

    records: list[bytes]
    header: bytes  # the row that names the columns of the first of them; empty: there is none, or it is itself that row
    before: Mark | None
    mark: Mark


class Reading:
    """One file that is being read.  The owner closes it."""

    def __init__(self, path: Path, form: Form, marks: Marks) -> None:
        """Raises OSError."""
        self.content = Content(path)
        try:
            self._form = form
            self._head, self._skip = self._look()
            self.mark = marks.find(self._head) if self._head else None
            self._header = self._columns(self.mark.header) if self.mark else b""
            self.offset = self._aligned(self.mark.offset) if self.mark else 0
        except BaseException:
            self.content.close()
            raise

    @property
    def path(self) -> Path:
        """Under which it was opened; it may have another name by now."""
        return self.content.path

    @property
    def key(self) -> tuple[int, int]:
        """What the file system knows it by."""
        return self.content.status.st_dev, self.content.status.st_ino

    @property
    def short(self) -> bool:
        """A plain file that holds less than was read of it already."""
        return self.mark is not None and not self.content.packed and self.content.status.st_size < self.mark.offset

    def changed(self) -> bool:
        """Whether it is not any more what it was: truncated, or written anew in its place.  Raises OSError."""
        if self.content.packed or not self.mark:
            return False
        if self.content.restat().st_size < self.offset:
            return True
        return fingerprint(self.content.read_at(self._skip, self.mark.covered)) != self.mark.name

    def is_at(self, goal: Mark) -> bool:
        """Whether this is the file of that mark.  Raises OSError."""
        return len(self._head) >= goal.covered and fingerprint(self._head[: goal.covered]) == goal.name

    def take(self, most: int, target: int | None = None, *, final: bool = False) -> Taken | None:
        """Up to `most` whole records, None if there are none; with `target` all up to this offset, None if that cannot be.

        `final`: nobody writes here any more, so a last record that was not finished is one too.  Raises OSError.
        """
        if not self._head:
            return None  # there may be a header, but no record yet
        if self._form.names_columns and self.offset == 0:
            most = max(most, 2)  # a header alone does not tell files apart
        records, end = self._collect(most, target)
        if target is not None and end < target:
            if not self.content.read_at(target - 1, 1):
                return None
            records, end = [*records, self.content.read_at(end, min(target - end, LONGEST))], target
        elif not records and (final or self.content.complete):
            records, end = self._rest()
        if not records or end <= self._skip:
            return None
        taken = self._moved(records, end)
        if max(map(len, records)) > LONGEST:
            taken = replace(taken, records=[record[:LONGEST] for record in records])
        return taken

    def close(self) -> None:
        """Once only."""
        self.content.close()

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def last_line_end(self) -> int:
        """Where the last whole line of a plain file ends.  Raises OSError."""
        size = self.content.restat().st_size
        begin = max(0, size - BLOCK)
        return begin + self.content.read_at(begin, size - begin).rfind(b"\n") + 1

    def _look(self) -> tuple[bytes, int]:
        """The bytes that tell the file apart, and where they begin."""
        if not self._form.names_columns:
            return self.content.read_at(0, HEAD), 0
        data = self.content.read_at(0, LONGEST + HEAD)
        skip = data.find(b"\n") + 1
        return (data[skip : skip + HEAD], skip) if skip else (b"", 0)

    def _columns(self, offset: int) -> bytes:
        if not self._form.names_columns:
            return b""
        rows, _ = self._form.cut(self.content.read_at(offset, LONGEST))
        return rows[0] if rows else b""

    def _aligned(self, offset: int) -> int:
        """The offset, or where the next line begins if it is within one."""
        while (data := self.content.read_at(max(0, offset - 1), BLOCK)) and offset > 0:
            if (found := data.find(b"\n")) >= 0:
                return offset + found
            offset += len(data)
        return offset

    def _collect(self, most: int, target: int | None) -> tuple[list[bytes], int]:
        """Whole records from here on, and the offset after them."""
        records: list[bytes] = []
        at = self.offset
        while target is not None or (len(records) < most and at - self.offset < LARGEST):
            data = self.content.read_at(at, BLOCK)
            found, size = self._form.cut(data)
            if not found:
                if len(data) == BLOCK:  # the last one that is taken now: its own length is not that of the line
                    found, size = self._giant(at, data)
                return records + found, at + size
            if target is not None and at + size > target:
                found, size = _within(found, target - at)
            elif target is None and len(found) > most - len(records):
                found = found[: most - len(records)]
                size = sum(map(len, found)) + len(found)
            records += found
            at += size
            if not found or len(data) < BLOCK:
                break
        return records, at

    def _giant(self, at: int, data: bytes) -> tuple[list[bytes], int]:
        """A line that is longer than a block: its beginning, and how long it is with its end; nothing if it has none yet."""
        size = len(data)
        while more := self.content.read_at(at + size, BLOCK):
            if (found := more.find(b"\n")) >= 0:
                return [data[:LONGEST]], size + found + 1
            size += len(more)
        return [], 0

    def _rest(self) -> tuple[list[bytes], int]:
        """What stands behind the last line end."""
        data = self.content.read_at(self.offset, BLOCK)
        end = self.offset + len(data)
        while more := self.content.read_at(end, BLOCK):
            end += len(more)
        return ([data[:LONGEST]] if data else []), end

    def _moved(self, records: list[bytes], end: int) -> Taken:
        header, header_at = self._header, self.mark.header if self.mark else 0
        if names_columns := self._form.names_columns:
            at = self.offset
            for record in records:
                if names_columns(record):
                    self._header, header_at = record, at
                at += len(record) + 1
        if len(self._head) < HEAD and not self.content.packed:
            self._head = self.content.read_at(self._skip, HEAD)
        covered = min(end - self._skip, len(self._head))
        before, self.mark = self.mark, Mark(fingerprint(self._head[:covered]), covered, end, header_at)
        self.offset = end
        return Taken(records, header, before, self.mark)


def _within(records: list[bytes], limit: int) -> tuple[list[bytes], int]:
    """As many of the records as are within `limit` bytes with their ends."""
    size = 0
    for count, record in enumerate(records):
        if size + len(record) + 1 > limit:
            return records[:count], size
        size += len(record) + 1
    return records, size
