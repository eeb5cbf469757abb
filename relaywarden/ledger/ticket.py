"""ticket - what one message transaction was charged, so that it is charged once and can be given back.  No I/O.

Wire format (little endian, the same in SQLite, Redis and Lua):

    byte    phase: 0 open, 1 refused at DATA or END-OF-MESSAGE, 2 settled, 3 refunded
    byte    1 once the queue id's index points here
    double  time at which the message was charged, ms; 0: not charged
    double  bytes charged
    double  time at which they were charged, ms
    short   length of the refusal, then the refusal: "balance key TAB used TAB allowed TAB wait ms or -1"
    16 bytes for each recipient: digest (8), double time charged in ms; negative: refused then

A recipient that only `recipient_count` told of has a digest of zeros.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from struct import Struct

from relaywarden.ledger.operations import Refusal

_HEAD = Struct("<BBdddH")
_ENTRY = Struct("<8sd")
ANONYMOUS = bytes(8)


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
    message_ms: int = 0
    size: int = 0
    size_ms: int = 0
    refusal: Refusal | None = None
    recipients: list[tuple[bytes, int]] = field(default_factory=list)  # (digest, ms charged; negative: refused)

    @classmethod
    def unpack(cls, packed: bytes | None) -> Ticket | None:
        """From the wire format; None from nothing."""
        if packed is None:
            return None
        phase, indexed, message_ms, size, size_ms, length = _HEAD.unpack_from(packed)
        start = _HEAD.size + length
        refusal = read_refusal(packed[_HEAD.size : start].decode()) if length else None
        recipients = [(digest, int(ms)) for digest, ms in _ENTRY.iter_unpack(packed[start:])]
        return cls(Phase(phase), bool(indexed), int(message_ms), int(size), int(size_ms), refusal, recipients)

    def pack(self) -> bytes:
        """The wire format."""
        refusal = _write_refusal(self.refusal).encode() if self.refusal else b""
        head = _HEAD.pack(self.phase, self.indexed, self.message_ms, self.size, self.size_ms, len(refusal))
        return head + refusal + b"".join(_ENTRY.pack(digest, ms) for digest, ms in self.recipients)

    @property
    def charged(self) -> list[tuple[bytes, int]]:
        """The recipients that were charged, oldest first."""
        return [entry for entry in self.recipients if entry[1] > 0]

    def answered(self, digest: bytes) -> int:
        """When this recipient was charged (ms), negative if it was refused, 0 if it is new."""
        return next((ms for known, ms in self.recipients if known == digest), 0)


def _write_refusal(refusal: Refusal) -> str:
    wait = -1 if refusal.retry_after_ms is None else refusal.retry_after_ms
    return f"{refusal.key}\t{refusal.used}\t{refusal.allowed}\t{wait}"


def read_refusal(text: str) -> Refusal:
    """A refusal from its text in a ticket or in a script's reply."""
    key, used, allowed, wait = text.rsplit("\t", 3)
    return Refusal(key, int(used), int(allowed), None if int(wait) < 0 else int(wait))
