"""unique - how many different recipients in the last W milliseconds: a sliding HyperLogLog.  No I/O.

HyperLogLog (Flajolet et al. 2007) with m = 2048 registers: standard error 1.04/sqrt(m) = 2.3 %, below about 5,000
recipients linear counting with 2.1 % or less; a handful is counted exactly but for collisions (1 in 40 for ten).  To let
it slide, each register keeps its possible future maxima with their slot (Chabchoub & Hebrail 2010): a record is dropped
when a later one has at least its rank.  Slots are those of `window`: 61 of W/60.

Wire format: 128 groups of 16 registers, field "0" to "127", each a run of 4-byte records (register in group, rank,
slot mod 65536 little endian); and field "z", the head: double last slot, double sum over registers of 2^-rank, double
number of empty registers.  The head makes a check cheap; it is rebuilt from the groups whenever the slot moves on.

Known limits: a recipient cannot be taken out again, so refunds leave the sketch as it is.  A register's records are
bounded by the number of different ranks (54).
"""

from __future__ import annotations

import math
from struct import Struct
from typing import Protocol

from relaywarden.ledger.window import SLOTS, slot_of

REGISTERS = 2048
GROUPS = 128
PER_GROUP = REGISTERS // GROUPS
HEAD = "z"
_HEAD = Struct("<3d")
_RECORD = Struct("<BBH")
_ALPHA = 0.7213 / (1 + 1.079 / REGISTERS)


class Shelf(Protocol):
    """Where one sketch's fields are kept."""

    def load(self, field: str) -> bytes | None:
        """One field's value."""
        ...

    def load_all(self) -> dict[str, bytes]:
        """All fields."""
        ...

    def save(self, field: str, value: bytes) -> None:
        """Replace one field's value; empty removes it."""
        ...


def place(digest: bytes) -> tuple[int, int, int]:
    """Group, register within it, and rank of a recipient's 8-byte digest."""
    number = int.from_bytes(digest, "little")
    register, rest = number % REGISTERS, number // REGISTERS
    return register // PER_GROUP, register % PER_GROUP, 54 - rest.bit_length()  # 53 bits: rank 1 to 54


def estimate(harmonic: float, empty: float) -> int:
    """Cardinality from the sum of 2^-rank and the number of empty registers."""
    raw = _ALPHA * REGISTERS * REGISTERS / harmonic
    if raw <= 2.5 * REGISTERS and empty > 0:
        raw = REGISTERS * math.log(REGISTERS / empty)
    return math.floor(raw + 0.5)


class Sketch:
    """One sliding sketch, moved to `now_ms`; nothing is stored before `commit`."""

    def __init__(self, shelf: Shelf, window_ms: int, now_ms: int) -> None:
        self._shelf = shelf
        self._changed: dict[str, bytes] = {}
        slot = slot_of(now_ms, window_ms)
        head = shelf.load(HEAD)
        if head is None:
            self.last, self.harmonic, self.empty = slot, float(REGISTERS), float(REGISTERS)
            return
        last, self.harmonic, self.empty = _HEAD.unpack(head)
        self.last = int(last)
        if slot > self.last or self.last - slot >= SLOTS:
            self._move(slot)

    def _move(self, slot: int) -> None:
        """Drop what expired and rebuild the head; after a far step back of the clock everything is stamped now."""
        stepped_back = self.last > slot
        self.last, self.harmonic, self.empty = slot, float(REGISTERS), float(REGISTERS)
        for field, packed in self._shelf.load_all().items():
            if field == HEAD:
                continue
            kept = []
            best: dict[int, int] = {}
            for register, rank, stamp in _RECORD.iter_unpack(packed):
                if stepped_back or (slot - stamp) % 65536 < SLOTS:
                    kept.append(_RECORD.pack(register, rank, slot % 65536 if stepped_back else stamp))
                    best[register] = max(rank, best.get(register, 0))
            value = b"".join(kept)
            if value != packed:
                self._changed[field] = value
            for register in sorted(best):
                self.harmonic += 2.0 ** -best[register] - 1
                self.empty -= 1

    @property
    def count(self) -> int:
        """Estimated number of different recipients."""
        return estimate(self.harmonic, self.empty)

    def add(self, digest: bytes) -> None:
        """See a recipient now."""
        group, register, rank = place(digest)
        field = str(group)
        packed = self._changed[field] if field in self._changed else self._shelf.load(field) or b""
        kept, best = [], 0
        for other, other_rank, stamp in _RECORD.iter_unpack(packed):
            if other == register:
                best = max(best, other_rank)
            if other != register or other_rank > rank:
                kept.append(_RECORD.pack(other, other_rank, stamp))
        kept.append(_RECORD.pack(register, rank, self.last % 65536))
        self._changed[field] = b"".join(kept)
        if rank > best:
            self.harmonic += 2.0**-rank - (2.0**-best)
            self.empty -= best == 0

    def commit(self) -> None:
        """Store what changed."""
        for field, value in self._changed.items():
            self._shelf.save(field, value)
        self._shelf.save(HEAD, _HEAD.pack(self.last, self.harmonic, self.empty))
