"""records - what a program may ask of the ledger beside limits: outcomes by the hour, notes, and who must not be sent to.

    Tally        add outcomes to the counters and to the hour's record
    History      the hours' records
    Note, Notes  small values under a topic of some books: a message's story, the position in a log
    Claim        which of these names nobody claimed before
    Suppress     put recipients on a tenant's suppression list, or take them off; `Charge` refuses who is on it
    Suppressed   the list
    Look         the ticket of a message whose tenant is known

Exactly once: a Tally with `mark` (source, tag) counts nothing where that source's last tag was the same, one with `once`
nothing where that name is known; a Claim with the tag of before is answered as before.  So a reader that repeats its last step
after a lost answer or a crash changes nothing.

Tags "N.M" (whole numbers of at most 15 digits) must grow, by N and then by M: one that is not above the last is known.  A
failover of Redis may forget the reader's position and keep the marks; what is read again then is not counted twice.  It may
be lost where the reader cuts it otherwise, up to the tag it had reached.  So a reader that has no position at all must not
begin at 1, but above all tags it ever gave (the milliseconds since 1970 will do).

Books are named like tenants.  "!m:QUEUE-ID" holds a message's story, "!monitor" the monitor's own notes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from relaywarden.limits import MAX_AMOUNT

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
HISTORY_MS = 35 * DAY_MS
MANUAL = "manual"  # the kind of a suppression that a person put on the list
COUNTERS = (
    "messages", "recipients", "bytes", "refused", "rejected", "held", "delivered", "deferred", "bounced", "complained",
)  # fmt: skip
_DETAIL = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_MOST_DETAILS = 1000
_LONGEST_REASON = 200
_UNFIT = re.compile(r"[\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True)
class Tally:
    """Add `counts` (names of COUNTERS) to the counters, and `counts` and `details` to the record of the hour.

    `at_ms`: when it happened; 0: now.  What happened in an hour or on a day that is over leaves its counters alone.  Amounts of
    at least 0; else, and for names that are none, ValueError.  `keep_ms`: how long the hour's record is kept.
    """

    tenant: str
    counts: Mapping[str, int]
    details: Mapping[str, int] = field(default_factory=dict)
    at_ms: int = 0
    mark: tuple[str, str] | None = None  # (source, tag); tags "N.M" grow
    once: str = ""
    once_ms: int = HISTORY_MS  # how long the name is known
    keep_ms: int = HISTORY_MS

    def __post_init__(self) -> None:
        for name, amount in self.counts.items():
            if name not in COUNTERS:
                raise ValueError(f"expected a counter ({', '.join(COUNTERS)}), got {name!r:.100}")
            check_amount(name, amount)
        if len(self.details) > _MOST_DETAILS:
            raise ValueError(f"expected at most {_MOST_DETAILS} details, got {len(self.details)}")
        for name, amount in self.details.items():
            if not _DETAIL.fullmatch(name) or name in self.counts:
                raise ValueError(f"expected the name of a detail, got {name!r:.100}")
            check_amount(name, amount)

    @property
    def amounts(self) -> dict[str, int]:
        """What goes to the record of the hour."""
        return {name: amount for name, amount in (*self.counts.items(), *self.details.items()) if amount}


@dataclass(frozen=True, slots=True)
class Tallied:
    """Result of Tally: whether it counted, or was known already."""

    counted: bool = True


@dataclass(frozen=True, slots=True)
class History:
    """The records of the hours from `since_ms` to `until_ms`, both included."""

    tenant: str
    since_ms: int
    until_ms: int

    @property
    def hours(self) -> range:
        """Numbers of the hours since 1970."""
        return range(self.since_ms // HOUR_MS, self.until_ms // HOUR_MS + 1)


@dataclass(frozen=True, slots=True)
class Hours:
    """Result of History: hour since 1970 -> {name: amount}; hours without a record are not there."""

    hours: Mapping[int, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Note:
    """Write fields of a topic; None removes one.  The topic is forgotten `ttl_ms` after it was last written to; 0: never."""

    book: str
    topic: str
    fields: Mapping[str, str | None]
    ttl_ms: int = 0


@dataclass(frozen=True, slots=True)
class Notes:
    """The fields of a topic: those in `names`, or all."""

    book: str
    topic: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Noted:
    """Result of Note (empty) and Notes: the fields that are there."""

    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claim:
    """Claim names for `ttl_ms`; who claims with the same tag again is told the same again."""

    book: str
    names: tuple[str, ...]
    tag: str
    ttl_ms: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """Result of Claim: for each name whether it is this tag's."""

    fresh: tuple[bool, ...]


class Suppression(NamedTuple):
    """Why a recipient must not be sent to, and for how long."""

    address: str
    kind: str  # bounced, complained, MANUAL
    since_ms: int
    until_ms: int
    reason: str = ""

    def pack(self) -> str:
        """As the ledger keeps it: until, kind, since, address, reason, with tabs between them."""
        fields = (f"{self.until_ms:.0f}", self.kind, f"{self.since_ms:.0f}", self.address, self.reason[:_LONGEST_REASON])
        text = "\t".join(_UNFIT.sub(" ", field) for field in fields)
        return text.encode("utf-8", "backslashreplace").decode()  # hostile addresses may hold lone surrogates

    @classmethod
    def unpack(cls, text: str) -> Suppression:
        """From `pack`; raises ValueError."""
        until, kind, since, address, reason = text.split("\t")
        return cls(address, kind, int(since), int(until), reason)


@dataclass(frozen=True, slots=True)
class Suppress:
    """Put recipients on the tenant's list (None: take off); the key of `entries` is the address.

    Who is listed already: an entry of kind MANUAL is replaced only by one of that kind, any other only by one that ends no
    earlier.  One that has expired counts for nothing.
    """

    tenant: str
    entries: Mapping[str, Suppression | None]


@dataclass(frozen=True, slots=True)
class Suppressed:
    """The whole list of a tenant, without what has expired."""

    tenant: str


@dataclass(frozen=True, slots=True)
class Listed:
    """Result of Suppress (empty) and Suppressed."""

    entries: tuple[Suppression, ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """The ticket of a message, by tenant and queue id."""

    tenant: str
    queue_id: str


@dataclass(frozen=True, slots=True)
class Looked:
    """Result of Look: a packed Ticket; None: not known, or no longer."""

    ticket: bytes | None = None


Record = Tally | History | Note | Notes | Claim | Suppress | Suppressed | Look
RecordResult = Tallied | Hours | Noted | Claimed | Listed | Looked


def check_amount(name: str, amount: int) -> None:
    """ValueError for what cannot be counted."""
    if not 0 <= amount <= MAX_AMOUNT:
        raise ValueError(f"{name}: expected an amount of 0 to {MAX_AMOUNT}, got {amount}")


def books_of(record: Record) -> str:
    """Whose books it is about."""
    return record.book if isinstance(record, Note | Notes | Claim) else record.tenant
