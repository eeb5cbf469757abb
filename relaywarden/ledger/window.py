"""window - how much was used in the last W milliseconds: a ring of 61 slots, and a token bucket for rates.  No I/O.

A window of length W is cut into slots of W/60.  A charge goes into the slot of its time; what is used is the sum of the
current slot and the 60 before it.  Every window of length W that ends now lies inside these 61 slots, so never more than
the limit is admitted in ANY window of length W; what expired up to W/60 ago may still count.  The sum is kept beside the
slots, so a charge costs the same for one minute and for thirty days; slots are cleared as time passes them.

Wire format (little endian, the same in SQLite, Redis and Lua): the head is three doubles: number of the newest slot, sum of
all slots, amount in the newest slot.  The tail is 61 doubles, the amount of slot n standing at n mod 61, that of the newest
slot being 0 there; no bytes at all stand for zeros.  A charge reads and writes the head only; the tail is needed when the
newest slot becomes an older one, for a refusal's waiting time, and for refunds.  A rate is one double: the theoretical
arrival time of GCRA, in milliseconds.

The clock may step.  Backwards by less than a window: charges go into the newest slot, so they expire late, never early.
Backwards by a window or more: everything is gathered in the slot of now and expires a window from now.  All amounts are
whole numbers below 2**53, exact as doubles.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Callable
from struct import Struct

SLOTS = 61
PARTS = SLOTS - 1
_EMPTY = array("d", bytes(8 * SLOTS))
_HEAD = Struct("<3d")
_RATE = Struct("<d")


def _no_tail() -> bytes | None:
    return None


class Ring:
    """A rolling window: `last` slot number, `total` over all slots, `current` amount in the last slot, the older slots."""

    __slots__ = ("_load_tail", "_older", "current", "last", "tail_changed", "total", "window_ms")

    def __init__(
        self, head: bytes | None, window_ms: int, now_ms: int, load_tail: Callable[[], bytes | None] = _no_tail
    ) -> None:
        """Unpack (None: empty) and move to `now_ms`; `load_tail` is called when the tail is needed."""
        self.window_ms = window_ms
        self._load_tail = load_tail
        self._older: array[float] | None = None
        self.tail_changed = False
        slot = slot_of(now_ms, window_ms)
        if head is None:
            self.last, self.total, self.current = slot, 0.0, 0.0
            return
        last, self.total, self.current = _HEAD.unpack(head)
        self.last = int(last)
        if slot != self.last:
            self._move(slot)

    @property
    def _tail(self) -> array[float]:
        if self._older is None:
            packed = self._load_tail()
            self._older = array("d", packed) if packed else _EMPTY[:]  # sixty floats would cost more than all the rest
            if sys.byteorder == "big":
                self._older.byteswap()
        return self._older

    def _move(self, slot: int) -> None:
        if slot - self.last >= SLOTS:
            self.last, self.total, self.current = slot, 0.0, 0.0
            self._older, self.tail_changed = _EMPTY[:], True
        elif self.last - slot >= SLOTS:
            self.last, self.current = slot, self.total
            self._older, self.tail_changed = _EMPTY[:], True
        elif slot > self.last:
            if self.total:
                self._age(slot)
            self.last, self.current = slot, 0.0

    def _age(self, slot: int) -> None:
        """The newest slot becomes an older one; what the time up to `slot` has passed goes."""
        tail = self._tail
        tail[self.last % SLOTS] = self.current
        for number in range(self.last + 1, slot + 1):
            if expired := tail[number % SLOTS]:
                self.total -= expired
                tail[number % SLOTS] = 0.0
        self.tail_changed = True

    def pack(self) -> bytes:
        """The head's wire format."""
        return _HEAD.pack(self.last, self.total, self.current)

    def pack_tail(self) -> bytes:
        """The tail's wire format; worth storing where `tail_changed`."""
        values = self._tail
        if not any(values):
            return b""
        if sys.byteorder == "big":
            values = values[:]
            values.byteswap()
        return values.tobytes()

    def add(self, amount: float) -> None:
        """Charge `amount` now."""
        self.current += amount
        self.total += amount

    def take_back(self, charged_ms: int, amount: float) -> None:
        """Give back `amount` charged at `charged_ms`, as far as it has not expired."""
        number = min(slot_of(charged_ms, self.window_ms), self.last)
        if self.last - number >= SLOTS:
            return
        while amount > 0 and number < self.last:  # a stepped clock put the charge into a later slot
            part = min(amount, self._tail[number % SLOTS])
            if part:
                self._tail[number % SLOTS] -= part
                self.tail_changed = True
            self.total -= part
            amount -= part
            number += 1
        part = min(amount, self.current)
        self.current -= part
        self.total -= part

    def wait(self, excess: float, now_ms: int) -> int:
        """Milliseconds until at least `excess` of what is used has expired."""
        freed = 0.0
        for number in range(self.last - PARTS, self.last + 1):
            freed += self._tail[number % SLOTS] if number < self.last else self.current
            if freed >= excess:
                return max(1, -(-(number + SLOTS) * self.window_ms // PARTS) - now_ms)
        return self.window_ms + self.window_ms // PARTS


def slot_of(now_ms: int, window_ms: int) -> int:
    """Number of the slot that `now_ms` lies in."""
    return now_ms * PARTS // window_ms


class Rate:
    """A token bucket: `amount` per `window_ms` on average, `burst` at once (GCRA)."""

    __slots__ = ("arrival", "burst", "interval", "now")

    def __init__(self, packed: bytes | None, amount: int, window_ms: int, burst: int, now_ms: int) -> None:
        """Unpack (None: a full bucket) at `now_ms`."""
        self.interval = window_ms / amount
        self.burst = burst
        self.now = now_ms
        full = now_ms + burst * self.interval
        self.arrival = min(full, max(float(now_ms), _RATE.unpack(packed)[0])) if packed else float(now_ms)

    def pack(self) -> bytes:
        """The wire format."""
        return _RATE.pack(self.arrival)

    @property
    def used(self) -> int:
        """Tokens that are missing from a full bucket, rounded up."""
        return math.ceil((self.arrival - self.now) / self.interval - 1e-9)

    @property
    def room(self) -> int:
        """The most tokens that `wait` lets take now; it decides, since the division may be off by a hair."""
        guess = math.floor((self.now + self.burst * self.interval - self.arrival) / self.interval)
        for tokens in (guess + 1, guess):
            if self.wait(tokens) == 0:
                return max(0, min(self.burst, tokens))
        return max(0, guess - 1)

    def add(self, amount: float) -> None:
        """Take `amount` tokens; an observed limit may go past its burst, and is then held at an empty bucket."""
        self.arrival = min(self.arrival + amount * self.interval, self.now + self.burst * self.interval)

    def take_back(self, amount: float) -> None:
        """Put `amount` tokens back, at most to a full bucket."""
        self.arrival = max(float(self.now), self.arrival - amount * self.interval)

    def wait(self, amount: float) -> int:
        """Milliseconds until `amount` tokens can be taken; 0: now."""
        missing = self.arrival + amount * self.interval - (self.now + self.burst * self.interval)
        return math.ceil(missing - 1e-6) if missing > 1e-6 else 0
