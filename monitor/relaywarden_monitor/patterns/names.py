"""names - under which names a tenant comes (networks, From domains, HELO names, logins), and how often it comes under new ones.

A name is new for a day after it was first seen, or for as long as the tenant is under alarm: a thief's network does not become
known by being used.  A tenant that has new ones on most days (a platform, a cloud without fixed addresses) is known for it: the
rate of such days is learned, and a new name then weighs next to nothing.

Kept are 32-bit digests (CRC, not secret), the newest LARGEST of them, and the spelling only of those that are new.

Known limit: two names may share a digest, once in hundreds of millions of pairs; then the second is never new.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection, Sequence
from typing import Any

from relaywarden_monitor.patterns.evidence import plain

LARGEST = 32
_MOST_TOLD = 8
_NEW_HOURS = 24
_CURRENT_HOURS = 2  # a new name that is not used any more is no reason
_RATE_DAYS = 20.0
_LONGEST_NAME = 60


class Names:
    """The names of one sort; hours are counted since 1970."""

    __slots__ = ("_day", "_had_new", "_last", "_last_hour", "_seen", "_told", "rate")

    def __init__(self, chance: float) -> None:
        """`chance`: of a day with a new name, until it is learned."""
        self._seen: dict[int, list[int]] = {}  # digest: first and last hour
        self._told: dict[int, str] = {}
        self._day, self._had_new = 0, False
        self._last: Collection[str] = ()
        self._last_hour = 0
        self.rate = chance

    def see(self, names: Collection[str], hour: int, *, settled: bool, alarmed: bool) -> None:
        """These names were used; before a tenant has `settled`, none is new."""
        if not names or (names == self._last and hour == self._last_hour):
            return
        self._last, self._last_hour = names, hour
        self._turn_day(hour // 24, settled)
        for name in list(names)[:LARGEST]:
            digest = zlib.crc32(name.encode("utf-8", "replace"))
            entry = self._seen.get(digest)
            if entry is None:
                self._enter(digest, name, hour, settled)
            else:
                entry[1] = hour
                if alarmed and digest in self._told:
                    entry[0] = hour

    def fresh(self, hour: int) -> list[str]:
        """The new names in use, fit to be shown."""
        for digest in [digest for digest in self._told if hour - self._seen[digest][0] >= _NEW_HOURS]:
            del self._told[digest]
        return [name for digest, name in self._told.items() if hour - self._seen[digest][1] <= _CURRENT_HOURS]

    def any_told(self) -> bool:
        """Whether `fresh` is worth a call."""
        return bool(self._told)

    def surprise(self) -> float:
        """What a day with a new name weighs, in powers of ten."""
        return -math.log10(min(1.0, self.rate))

    def accept(self) -> None:
        """All names are known from now on: a person said so."""
        self._told.clear()

    def state(self) -> list[Any]:
        """As JSON values."""
        seen = [[digest, *entry] for digest, entry in self._seen.items()]
        return [self.rate, self._day, self._had_new, seen, [[digest, name] for digest, name in self._told.items()]]

    def restore(self, state: Sequence[Any]) -> None:
        """From `state()`; raises ValueError."""
        rate, day, had_new, seen, told = state
        self.rate, self._day, self._had_new = float(rate), int(day), bool(had_new)
        self._seen = {int(digest): [int(first), int(last)] for digest, first, last in seen[:LARGEST]}
        self._told = {int(digest): plain(str(name)) for digest, name in told if int(digest) in self._seen}

    def _enter(self, digest: int, name: str, hour: int, settled: bool) -> None:
        if len(self._seen) >= LARGEST:
            oldest = min(self._seen, key=lambda other: self._seen[other][1])
            del self._seen[oldest]
            self._told.pop(oldest, None)
        self._seen[digest] = [hour, hour]
        if settled:
            self._had_new = True
            if len(self._told) < _MOST_TOLD:
                self._told[digest] = plain(name, _LONGEST_NAME)

    def _turn_day(self, day: int, settled: bool) -> None:
        if day > self._day:
            if settled and self._day:
                self.rate += (self._had_new - self.rate) / _RATE_DAYS
                self.rate = max(self.rate, 1e-3)
            self._day, self._had_new = day, False
