"""window - how much was used in the last W milliseconds: a ring of 61 slots, and a token bucket for rates.  No I/O.

A window of length W is cut into slots of W/60.  A charge goes into the slot of its time; what is used is the sum of the
current slot and the 60 before it.  Every window of length W that ends now lies inside these 61 slots, so never more than
the limit is admitted in ANY window of length W; what expired up to W/60 ago may still count.  The sum is kept beside the
slots, so a charge costs the same for one minute and for thirty days; slots are cleared as time passes them.

Wire format (little endian, the same in SQLite, Redis and Lua): double last slot number, double sum, 61 doubles, slot n
standing at n mod 61.  A rate is one double: the theoretical arrival time of GCRA, in milliseconds.

The clock may step.  Backwards by less than a window: charges go into the newest slot, so they expire late, never early.
Backwards by a window or more: everything is gathered in the slot of now and expires a window from now.  All amounts are
whole numbers below 2**53, exact as doubles.
"""

from __future__ import annotations

import math
import sys
from array import array
from struct import Struct

SLOTS = 61
PARTS = SLOTS - 1
_EMPTY = array("d", bytes(8 * SLOTS))
_LAST, _TOTAL, _FIRST = 0, 1, 2  # where they stand in the wire format, in doubles
_RATE = Struct("<d")


class Ring:
    """A rolling window: `last` slot number, `total` over all slots, the slots."""

    __slots__ = ("_slots", "last", "total", "window_ms")

    def __init__(self, packed: bytes | None, window_ms: int, now_ms: int) -> None:
        """Unpack (None: empty) and move to `now_ms`."""
        self.window_ms = window_ms
        slot = slot_of(now_ms, window_ms)
        if packed is None:
            self.last, self.total, self._slots = slot, 0.0, _EMPTY[:]
            return
        values = array("d", packed)  # a copy of the bytes: sixty floats would cost more than all the rest
        if sys.byteorder == "big":
            values.byteswap()
        self.last, self.total, self._slots = int(values[_LAST]), values[_TOTAL], values[_FIRST:]
        if slot != self.last:
            self._move(slot)

    def _move(self, slot: int) -> None:
        if slot - self.last >= SLOTS:
            self.last, self.total, self._slots = slot, 0.0, _EMPTY[:]
        elif self.last - slot >= SLOTS:
            self.last, self._slots = slot, _EMPTY[:]
            self._slots[slot % SLOTS] = self.total
        else:
            for number in range(self.last + 1, slot + 1):
                self.total -= self._slots[number % SLOTS]
                self._slots[number % SLOTS] = 0.0
            self.last = max(self.last, slot)

    def pack(self) -> bytes:
        """The wire format."""
        values = array("d", (self.last, self.total)) + self._slots
        if sys.byteorder == "big":
            values.byteswap()
        return values.tobytes()

    def add(self, amount: float) -> None:
        """Charge `amount` now."""
        self._slots[self.last % SLOTS] += amount
        self.total += amount

    def take_back(self, charged_ms: int, amount: float) -> None:
        """Give back `amount` charged at `charged_ms`, as far as it has not expired."""
        number = min(slot_of(charged_ms, self.window_ms), self.last)
        if self.last - number >= SLOTS:
            return
        while amount > 0 and number <= self.last:  # a stepped clock put the charge into a later slot
            part = min(amount, self._slots[number % SLOTS])
            self._slots[number % SLOTS] -= part
            self.total -= part
            amount -= part
            number += 1

    def wait(self, excess: float, now_ms: int) -> int:
        """Milliseconds until at least `excess` of what is used has expired."""
        freed = 0.0
        for number in range(self.last - PARTS, self.last + 1):
            freed += self._slots[number % SLOTS]
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
