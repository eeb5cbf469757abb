"""fingerprint - which file is which, by what it holds.  Pure.

A `Mark` says how far a file was read, and knows the file by a hash of the first bytes that were read, at most 1024: so it is
the same file under another name, on another disk, compressed or not.  Of a file of which less was read, the hash covers
less, and more as the reading goes on.  All CSV files of PowerMTA begin with the same row; there the hash begins after it.

`Marks` are those of all files that matter, the ones that moved on last at the end.  There is a bound; beyond it files that
are gone are forgotten first, then the oldest, and what is as old as those and not known counts as read.

Known limits: two files that begin with the same 1024 bytes are one.  A copy of which less than the hash covers was made so
far looks like a new file.  A forgotten file that comes back with a new time of modification is read again; an unread one that
comes late, with an older time than that of a forgotten one, is not read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from relaywarden_monitor.ingest.source import Position

HEAD: Final = 1024  # bytes


@dataclass(frozen=True, slots=True)
class Mark:
    """How far one file was read."""

    name: str  # the hash
    covered: int  # bytes that it covers
    offset: int  # bytes, uncompressed, from the beginning of the file
    header: int = 0  # offset of the row that names the columns at `offset`
    complete: bool = False  # all was read of a compressed file: it will never hold more

    def to_json(self) -> list[Any]:
        """As a list."""
        return [self.name, self.covered, self.offset, self.header, int(self.complete)]

    @classmethod
    def from_json(cls, value: Any) -> Mark:
        """From `to_json`; raises ValueError or TypeError for anything else."""
        name, covered, offset, header, complete = value
        return cls(str(name), int(covered), int(offset), int(header), bool(complete))


def fingerprint(head: bytes) -> str:
    """The hash of a file's first bytes."""
    return hashlib.blake2b(head, digest_size=8).hexdigest()


class Marks:
    """The marks of all files that matter; at most `keep` of them."""

    def __init__(self, keep: int, since: int = 0) -> None:
        """`since`: files that were last changed then (nanoseconds since 1970) or before, and have no mark, count as read."""
        self.since = since
        self._keep = keep
        self._marks: dict[str, Mark] = {}

    @classmethod
    def from_json(cls, position: Position, keep: int) -> Marks:
        """From a position; raises ValueError, TypeError or KeyError for what is none."""
        marks = cls(keep, int(position["since"]))
        for value in position["files"]:
            mark = Mark.from_json(value)
            marks._marks[mark.name] = mark
        return marks

    def to_json(self) -> Position:
        """As a position."""
        return {"files": [mark.to_json() for mark in self._marks.values()], "since": self.since}

    def __iter__(self) -> Iterator[Mark]:
        return iter(self._marks.values())

    def get(self, name: str) -> Mark | None:
        """The mark of that name."""
        return self._marks.get(name)

    def find(self, head: bytes) -> Mark | None:
        """The mark of the file that begins with these bytes (its header row left out): the one that knows it best."""
        for covered in sorted({mark.covered for mark in self._marks.values() if mark.covered <= len(head)}, reverse=True):
            mark = self._marks.get(fingerprint(head[:covered]))
            if mark and mark.covered == covered:
                return mark
        return None

    def put(self, old: Mark | None, new: Mark) -> None:
        """The file of `old` was read up to `new`."""
        if old:
            self._marks.pop(old.name, None)
        self._marks.pop(new.name, None)
        self._marks[new.name] = new

    def settle(self, mark: Mark) -> None:
        """Replace a mark by one of the same name, which keeps its place."""
        self._marks[mark.name] = mark

    @property
    def surplus(self) -> int:
        """How many marks there are beyond the bound."""
        return max(0, len(self._marks) - self._keep)

    def forget(self, changed: dict[str, int]) -> None:
        """Keep the bound.  `changed`: of the files that are there, the mark's name and the time of their last change."""
        # The order is stable: first those of files that are gone, then the oldest.
        for name in sorted(self._marks, key=lambda name: name in changed)[: self.surplus]:
            del self._marks[name]
            self.since = max(self.since, changed.get(name, 0))
