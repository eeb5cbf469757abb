"""accounting - PowerMTA's accounting files as a source: the live one, those that were moved, compressed or not.

All files that match the patterns are read by one follower, each from its own offset, oldest first; `pmta-pipe` writes such
files too.  Rows become events as `accountingrow` says.  A chunk carries for each event the digest of its row, by which the
same row of a file and of the pipe is known.

How it fails: rows that do not fit their header, or stand where there is none, are counted (`garbage`) and told in the log, at
most once a minute; types that are not known are counted (`unknown`) and told once each.  It raises nothing.

Known limits: those of `follow` and `records`.
"""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from relaywarden import logs
from relaywarden.errors import ProtocolError
from relaywarden_monitor.events import Event
from relaywarden_monitor.ingest.accountingrow import TYPES, Columns
from relaywarden_monitor.ingest.follow import LineFollower
from relaywarden_monitor.ingest.records import LONGEST, ROWS, is_header
from relaywarden_monitor.ingest.siblings import Matching
from relaywarden_monitor.ingest.source import Chunk, Position

KEEP = 512  # files whose offsets are remembered; of those that PowerMTA moves every five minutes 40 hours' worth
_TELL_EVERY = 60.0  # seconds
_MOST_TYPES = 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RowChunk(Chunk):
    """A chunk of rows; `digests` are those of the rows that made the events, in the same order."""

    digests: Sequence[bytes] = ()


class Parser:
    """Makes events of rows as they lie in a file."""

    def __init__(self) -> None:
        self.garbage = 0  # rows
        self.unknown = 0  # rows
        self._types: set[str] = set()
        self._columns: dict[bytes, Columns] = {}
        self._tell_at = self._told = 0.0

    def parse(self, records: Sequence[bytes], header: bytes) -> tuple[list[Event], list[bytes]]:
        """Events and digests of whole rows; `header` names the columns until another header is among them."""
        events: list[Event] = []
        digests: list[bytes] = []
        columns = self._of(header) if is_header(header) else None
        for raw, row in zip(records, _rows(records), strict=True):
            if not row:
                continue
            if (b"timeLogged" in raw and is_header(raw)) or columns is None:
                columns = self._of(raw)
                continue
            try:
                kind = columns.kind(row)
                if kind not in TYPES:
                    self._strange(kind)
                elif event := columns.event(kind, row):
                    events.append(event)
                    digests.append(columns.digest(row))
            except ProtocolError as error:
                self._bad(raw, error)
        return events, digests

    def _of(self, header: bytes) -> Columns | None:
        """The columns that a row names; None if it is none that does."""
        known = self._columns.get(header)
        if known:
            return known
        try:
            columns = Columns(next(_rows([header])))
        except ProtocolError as error:
            self._bad(header, error)
            return None
        if len(self._columns) > 20:
            self._columns.clear()
        self._columns[header] = columns
        return columns

    def _strange(self, kind: str) -> None:
        self.unknown += 1
        if kind not in self._types and len(self._types) < _MOST_TYPES:
            self._types.add(kind)
            logs.event(_log, logging.WARNING, "accounting rows of a type that is not known are left out",
                       type=kind[:40], known=" ".join(sorted(TYPES)))  # fmt: skip

    def _bad(self, raw: bytes, error: ProtocolError) -> None:
        self.garbage += 1
        now = time.monotonic()
        if now >= self._tell_at:
            logs.event(_log, logging.WARNING, "accounting row not understood", error=str(error),
                       row=raw[:200].decode("utf-8", "replace"), since_last_time=self.garbage - self._told)  # fmt: skip
            self._tell_at, self._told = now + _TELL_EVERY, self.garbage


class AccountingFiles:
    """PowerMTA's accounting files; a Source."""

    def __init__(self, name: str, patterns: Sequence[str], keep: int = KEEP) -> None:
        """`patterns` as the shell's, absolute: /var/log/pmta/relaywarden*.csv*."""
        self.name = f"accounting:{name}"
        self.parser = Parser()
        self._follower = LineFollower(Matching(patterns), ROWS, from_start=True, keep=keep)

    def open(self, position: Position | None) -> None:
        """Begin at this position; raises nothing."""
        self._follower.open(position)

    def read(self, most: int, until: Position | None = None) -> RowChunk | None:
        """The events of up to `most` rows, None if there are none; `until`: of those up to that position."""
        cut = self._follower.read(most, until)
        if cut is None:
            return None
        events, digests = self.parser.parse(cut.records, cut.header)
        return RowChunk(events, cut.position, len(cut.records), digests)

    def lag(self) -> int:
        """Bytes that wait to be read."""
        return self._follower.lag()

    def close(self) -> None:
        """Give the open file back."""
        self._follower.close()


def _rows(records: Sequence[bytes]) -> Iterator[list[str]]:
    """The fields of each row; of one that is no CSV a single one."""
    texts = [record.decode("utf-8", "replace") for record in records]
    reader = csv.reader(texts)
    try:
        rows = list(reader)
        if len(rows) == len(texts):
            return iter(rows)
    except csv.Error:
        pass  # one of them is no CSV: each for itself shows which
    return map(_single, texts)


def _single(text: str) -> list[str]:
    try:
        rows = list(csv.reader([text]))
    except csv.Error:
        return [text]
    return rows[0] if len(rows) == 1 else [text]


csv.field_size_limit(max(csv.field_size_limit(), LONGEST))
