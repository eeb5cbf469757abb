"""recording - what each record does to a book.  No I/O: the specification that lua/ repeats (see records)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from relaywarden.ledger.counters import Counters
from relaywarden.ledger.records import (
    HOUR_MS,
    MANUAL,
    Claim,
    Claimed,
    History,
    Hours,
    Listed,
    Look,
    Looked,
    Note,
    Noted,
    Notes,
    Record,
    RecordResult,
    Suppress,
    Suppressed,
    Suppression,
    Tallied,
    Tally,
)

MARKS = "!mark"  # the topic of the last tags of Tally, by source
ONCE = "!once:"  # and of names that were counted or claimed; the value is the tag
_VALUE = ""  # the one field of such a topic
_PAIR = re.compile(r"([0-9]{1,15})\.([0-9]{1,15})")  # what a double holds exactly


class SuppressionBooks(Protocol):
    """What a charge needs to know of a tenant's suppression list."""

    now_ms: int

    def add_hour(self, hour: int, amounts: Mapping[str, int], keep_ms: int) -> None:
        """Add to the record of an hour; it is kept so long after the hour's end."""
        ...

    def load_suppression(self, digest: bytes) -> str | None:
        """Why a recipient is not to be sent to now."""
        ...


class RecordBooks(SuppressionBooks, Protocol):
    """A book's part of the store, inside one step."""

    def load_counters(self) -> bytes | None:
        """The counters' value."""
        ...

    def save_counters(self, value: bytes) -> None:
        """Replace the counters' value."""
        ...

    def load_hours(self, hours: range) -> dict[int, dict[str, int]]:
        """The records of these hours."""
        ...

    def load_notes(self, topic: str, names: Sequence[str] = ()) -> dict[str, str]:
        """Fields of a topic; without names all."""
        ...

    def save_notes(self, topic: str, fields: Mapping[str, str | None], ttl_ms: int) -> None:
        """Write fields of a topic, which from now on is kept so long (0: for good)."""
        ...

    def load_suppressions(self) -> list[str]:
        """The whole list; what has expired may be there."""
        ...

    def save_suppression(self, digest: bytes, value: str | None, until_ms: int = 0) -> None:
        """Put a recipient on the list until then, or take it off."""
        ...

    def find(self, name: str) -> str | None:
        """The ticket that a queue id ("q:...") stands for."""
        ...

    def load_ticket(self, ticket: str) -> bytes | None:
        """A ticket's value."""
        ...


def record(books: RecordBooks, op: Record, digest: Digest) -> RecordResult:
    """Carry out one record; `digest` makes eight bytes of an address."""
    match op:
        case Tally():
            return Tallied(_tally(books, op))
        case History():
            return Hours(books.load_hours(op.hours))
        case Note(_, topic, fields, ttl_ms):
            books.save_notes(topic, fields, ttl_ms)
            return Noted()
        case Notes(_, topic, names):
            return Noted(books.load_notes(topic, names))
        case Claim():
            return Claimed(tuple(_claim(books, name, op.tag, op.ttl_ms) for name in op.names))
        case Suppress(_, entries):
            for address, entry in entries.items():
                _suppress(books, digest(address), entry)
            return Listed()
        case Suppressed():
            return listed(books.load_suppressions(), books.now_ms)
        case Look(_, queue_id):
            name = books.find(f"q:{queue_id}")
            return Looked(books.load_ticket(name) if name else None)


class Digest(Protocol):
    """Eight bytes that stand for an address."""

    def __call__(self, recipient: str) -> bytes:
        """The digest."""
        ...


def listed(values: Sequence[str], now_ms: int) -> Listed:
    """The entries that have not expired, by address."""
    entries = (Suppression.unpack(value) for value in values)
    return Listed(tuple(sorted(entry for entry in entries if entry.until_ms > now_ms)))


def suppression(books: SuppressionBooks, digest: bytes) -> str:
    """The entry that forbids this recipient now, packed; empty: none."""
    return books.load_suppression(digest) or ""


def _suppress(books: RecordBooks, digest: bytes, entry: Suppression | None) -> None:
    present = books.load_suppression(digest) if entry is not None else None
    if entry is not None and present is not None and not _replaces(entry, Suppression.unpack(present)):
        return
    if entry is None or entry.until_ms <= books.now_ms:
        books.save_suppression(digest, None)
    else:
        books.save_suppression(digest, entry.pack(), entry.until_ms)


def _replaces(new: Suppression, present: Suppression) -> bool:
    """A person's entry yields to a person's only; of all others the one that ends later stays."""
    return new.kind == MANUAL if present.kind == MANUAL else new.until_ms >= present.until_ms


def _tally(books: RecordBooks, op: Tally) -> bool:
    if op.mark is not None:
        source, tag = op.mark
        last = books.load_notes(MARKS, (source,)).get(source)
        if last is not None and _is_known(tag, last):
            return False
        books.save_notes(MARKS, {source: tag}, op.keep_ms)
    if op.once and not _claim(books, op.once, "", op.once_ms):
        return False
    if not op.amounts:
        return True
    at_ms = min(op.at_ms, books.now_ms) if op.at_ms else books.now_ms
    books.add_hour(at_ms // HOUR_MS, op.amounts, op.keep_ms)
    counters = Counters(books.load_counters(), books.now_ms)
    for name, amount in op.counts.items():
        counters.add_at(name, amount, at_ms)
    books.save_counters(counters.pack())  # by them the book is listed
    return True


def _is_known(tag: str, last: str) -> bool:
    """A tag N.M is known where the last one was not below it, as a pair of numbers; any other where it is the last one."""
    now, then = _PAIR.fullmatch(tag), _PAIR.fullmatch(last)
    if now is None or then is None:
        return tag == last
    return (int(now[1]), int(now[2])) <= (int(then[1]), int(then[2]))


def _claim(books: RecordBooks, name: str, tag: str, ttl_ms: int) -> bool:
    """Nobody claimed it before, or (where there is a tag) who did had the same tag."""
    known = books.load_notes(ONCE + name, (_VALUE,)).get(_VALUE)
    if known is None:
        books.save_notes(ONCE + name, {_VALUE: tag}, ttl_ms)
    return known is None or (tag != "" and known == tag)
