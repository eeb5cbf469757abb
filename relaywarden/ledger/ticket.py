"""ticket - what one message transaction was charged, so that it is charged once and can be given back.  No I/O.

Wire format (little endian, the same in SQLite, Redis and Lua):

    byte    phase: 0 open, 1 refused at DATA or END-OF-MESSAGE, 2 settled, 3 refunded
    byte    flags: 1 the queue id's pointer leads here, 2 the message was counted as held
    double  time at which the message was charged, ms; 0: not charged
    byte    number of parts in which the message's bytes were charged
    short   length of the refusal
    16 bytes for each part: double bytes, double time charged in ms
    the refusal: "balance key TAB used TAB allowed TAB wait ms or -1"
    16 bytes for each recipient: digest (8), double time charged in ms; negative: refused then

A recipient that only `recipient_count` told of has a digest of zeros.  Half a millisecond in a time of charge says that the
charge went to a grant instead of the windows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from struct import Struct

from relaywarden.ledger.operations import Refusal

_HEAD = Struct("<BBdBH")
_PART = Struct("<dd")
_ENTRY = Struct("<8sd")
ANONYMOUS = bytes(8)
_MOST_PARTS = 255


class Phase(IntEnum):
    """Where a transaction stands."""

    OPEN = 0
    REFUSED = 1
    SETTLED = 2
    REFUNDED = 3


@dataclass(slots=True)
class Ticket:
    """One message transaction."""

    phase: Phase = Phase.OPEN
    indexed: bool = False
    held: bool = False
    message_ms: float = 0
    sizes: list[tuple[float, float]] = field(default_factory=list)  # (bytes, ms charged)
    refusal: Refusal | None = None
    recipients: list[tuple[bytes, float]] = field(default_factory=list)  # (digest, ms charged; negative: refused)

    @classmethod
    def unpack(cls, packed: bytes | None) -> Ticket | None:
        """From the wire format; None from nothing."""
        if packed is None:
            return None
        phase, flags, message_ms, parts, length = _HEAD.unpack_from(packed)
        middle = _HEAD.size + parts * _PART.size
        start = middle + length
        sizes = list(_PART.iter_unpack(packed[_HEAD.size : middle])) if parts else []
        refusal = read_refusal(packed[middle:start].decode()) if length else None
        recipients = list(_ENTRY.iter_unpack(packed[start:]))
        return cls(Phase(phase), bool(flags & 1), bool(flags & 2), message_ms, sizes, refusal, recipients)

    def pack(self) -> bytes:
        """The wire format."""
        refusal = write_refusal(self.refusal).encode() if self.refusal else b""
        head = _HEAD.pack(self.phase, self.indexed | self.held << 1, self.message_ms, len(self.sizes), len(refusal))
        parts = b"".join(_PART.pack(size, ms) for size, ms in self.sizes)
        return head + parts + refusal + b"".join(_ENTRY.pack(digest, ms) for digest, ms in self.recipients)

    @property
    def size(self) -> int:
        """Bytes charged."""
        return int(sum(size for size, _ in self.sizes))

    def add_size(self, size: int, ms: float) -> None:
        """Note bytes charged; a client that has more parts than any message needs gets them in its last one."""
        if len(self.sizes) == _MOST_PARTS:
            size += int(self.sizes.pop()[0])
        self.sizes.append((size, ms))

    def take_size(self, surplus: int) -> list[tuple[int, float]]:
        """Take bytes off again, the latest first; the parts they were charged in."""
        taken = []
        while surplus > 0 and self.sizes:
            size, ms = self.sizes.pop()
            part = min(surplus, int(size))
            if part < size:
                self.sizes.append((size - part, ms))
            taken.append((part, ms))
            surplus -= part
        return taken

    @property
    def charged(self) -> list[tuple[bytes, float]]:
        """The recipients that were charged, oldest first."""
        return [entry for entry in self.recipients if entry[1] > 0]

    def answered(self, digest: bytes) -> float:
        """When this recipient was charged (ms), negative if it was refused, 0 if it is new."""
        return next((ms for known, ms in self.recipients if known == digest), 0)


def write_refusal(refusal: Refusal) -> str:
    """A refusal as text, for a ticket."""
    wait = -1 if refusal.retry_after_ms is None else refusal.retry_after_ms
    return f"{refusal.key}\t{refusal.used}\t{refusal.allowed}\t{wait}"


def read_refusal(text: str) -> Refusal:
    """A refusal from its text in a ticket or in a script's reply."""
    key, used, allowed, wait = text.rsplit("\t", 3)
    return Refusal(key, int(used), int(allowed), None if int(wait) < 0 else int(wait))
