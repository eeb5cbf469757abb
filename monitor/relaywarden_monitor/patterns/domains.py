"""domains - which recipient domains are usual for a tenant, so that a list from elsewhere stands out.

A domain is usual once it came on two days; what comes while the tenant is under alarm makes none usual.  The table holds
LARGEST; a domain seen on one day gives way before one seen on many, and a rare one displaces none of the same day.
Recipients in other domains are counted; which share of them is usual is learned in `usual`: a shop has many, an office few.

State: base64 of seven octets for each domain: digest (CRC, 32 bits), days, and the last day since 1970.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping

LARGEST = 32
_MOST_SEEN = 64  # of a slice
_MOST_DAYS = 255
_FEW = 20  # a domain of fewer than one in so many recipients displaces none of today's
_KNOWN = 5  # days from which on age alone decides who gives way
_FORM = struct.Struct(">IBH")


class Domains:
    """The usual domains of one tenant."""

    __slots__ = ("_days",)

    def __init__(self) -> None:
        self._days: dict[int, int] = {}  # digest: days << 16 | last day

    def strange(self, counts: Mapping[str, int], at: float, *, learns: bool) -> int:
        """How many of these recipients are in domains that are not usual; seconds since 1970."""
        found, day, total, closed = 0, int(at // 86_400), sum(counts.values()), False
        for number, (domain, count) in enumerate(counts.items()):
            if number >= _MOST_SEEN:
                break
            digest = zlib.crc32(domain.encode("utf-8", "replace"))
            entry = self._days.get(digest, 0)
            if entry < 2 << 16:
                found += count
            if learns and entry & 0xFFFF != day:
                large = count * _FEW >= total
                if not entry and ((closed and not large) or not self._has_room(large, day)):
                    closed = True
                    continue
                self._days[digest] = min((entry >> 16) + 1, _MOST_DAYS) << 16 | day
        return found

    def state(self) -> str:
        """As a JSON value."""
        packed = (_FORM.pack(digest, entry >> 16, entry & 0xFFFF) for digest, entry in self._days.items())
        return base64.b64encode(b"".join(packed)).decode()

    def restore(self, state: str) -> None:
        """From `state()`; raises ValueError."""
        packed = base64.b64decode(state, validate=True)
        if len(packed) % _FORM.size:
            raise ValueError(f"expected {_FORM.size} octets for each domain")
        entries = list(_FORM.iter_unpack(packed))[:LARGEST]
        self._days = {digest: days << 16 | day for digest, days, day in entries}

    def _has_room(self, large: bool, day: int) -> bool:
        """Whether another domain may enter: a large one, or instead of one that came on a single day, and not today."""
        if len(self._days) < LARGEST:
            return True
        worst = min(self._days, key=lambda other: (min(self._days[other] >> 16, _KNOWN), self._days[other] & 0xFFFF))
        if not large and (self._days[worst] >> 16 > 1 or self._days[worst] & 0xFFFF == day):
            return False
        del self._days[worst]
        return True
