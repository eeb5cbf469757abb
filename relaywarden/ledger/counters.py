"""counters - what a tenant did this hour and today (UTC, by the store's clock).  No I/O.

Wire format: double hour number, double day number, then ten doubles for the hour and ten for the day, in the order of
`records.COUNTERS`.  Refunds are taken off as far as they fall into the same hour or day as the charge.
"""

from __future__ import annotations

import sys
from array import array

from relaywarden.ledger.records import COUNTERS, DAY_MS, HOUR_MS

_SIZE = len(COUNTERS)
_ZERO = array("d", bytes(8 * _SIZE))


class Counters:
    """This hour's and today's counters, moved to `now_ms`."""

    __slots__ = ("day", "hour", "per_day", "per_hour")

    def __init__(self, packed: bytes | None, now_ms: int) -> None:
        """Unpack (None: all zero); a new hour or day starts at zero."""
        self.hour, self.day = now_ms // HOUR_MS, now_ms // DAY_MS
        self.per_hour, self.per_day = _ZERO[:], _ZERO[:]
        if packed:
            values = _swapped(array("d", packed))
            if values[0] == self.hour:
                self.per_hour = values[2 : 2 + _SIZE]
            if values[1] == self.day:
                self.per_day = values[2 + _SIZE :]

    def pack(self) -> bytes:
        """The wire format."""
        return _swapped(array("d", (self.hour, self.day)) + self.per_hour + self.per_day).tobytes()

    def add(self, name: str, amount: float) -> None:
        """Count `amount` of `name` now."""
        index = COUNTERS.index(name)
        self.per_hour[index] += amount
        self.per_day[index] += amount

    def add_at(self, name: str, amount: float, at_ms: int) -> None:
        """Count what happened at `at_ms` in the hour and on the day it happened in, if they are still current."""
        index = COUNTERS.index(name)
        if at_ms // HOUR_MS == self.hour:
            self.per_hour[index] += amount
        if at_ms // DAY_MS == self.day:
            self.per_day[index] += amount

    def take_back(self, name: str, amount: float, charged_ms: int) -> None:
        """Take `amount`, counted at `charged_ms`, off the hour and the day it was counted in, if they are still current."""
        index = COUNTERS.index(name)
        if charged_ms // HOUR_MS == self.hour:
            self.per_hour[index] = max(0.0, self.per_hour[index] - amount)
        if charged_ms // DAY_MS == self.day:
            self.per_day[index] = max(0.0, self.per_day[index] - amount)

    def snapshot(self) -> tuple[dict[str, int], dict[str, int]]:
        """(this hour, today) by name."""
        return (
            dict(zip(COUNTERS, map(int, self.per_hour), strict=True)),
            dict(zip(COUNTERS, map(int, self.per_day), strict=True)),
        )


def _swapped(values: array[float]) -> array[float]:
    """The wire format is little endian."""
    if sys.byteorder == "big":
        values.byteswap()
    return values
