"""novelty - has this tenant sent to this recipient before?  A small table that remembers the newest and most frequent.

A table of 32-bit hashes, two places for each recipient: it is known if either holds it, else it takes the older place.  So it
answers in constant time and space (4 KiB at most), knows every recipient of a small tenant and a sample of a large one's: of
that one the share of new recipients is always high, and it is its change that means something.

State form: base64 of the table, little endian.  Known limits: one recipient in some 10^6 is taken for another; nothing ages, a
recipient is forgotten when others need its place.
"""

from __future__ import annotations

import base64
import binascii
import sys
from array import array

SMALLEST, LARGEST = 64, 1024  # places, powers of two
_FULL = 0.5  # share of places in use from which the table grows


class Novelty:
    """Of one tenant."""

    __slots__ = ("_places", "_used")

    def __init__(self, places: array[int] | None = None) -> None:
        self._places = places if places is not None else array("I", bytes(4 * SMALLEST))
        self._used = sum(1 for place in self._places if place)

    def is_new(self, digest: str) -> bool:
        """Whether the recipient with this digest (hexadecimal) is new; it is known from now on."""
        value = int(digest[:8] or "0", 16) or 1
        places = self._places
        first = value % len(places)
        second = (value * 2654435761 >> 11) % len(places)
        if value in (places[first], places[second]):
            return False
        target = first if not places[first] or (places[second] and value & 1) else second
        self._used += not places[target]
        places[target] = value
        if self._used > _FULL * len(places) and len(places) < LARGEST:
            self._grow()
        return True

    def pack(self) -> str:
        """The state form."""
        places = self._places[:]
        if sys.byteorder == "big":
            places.byteswap()
        return base64.b64encode(places.tobytes()).decode()

    @classmethod
    def unpack(cls, text: str) -> Novelty:
        """From the state form; what is none gives an empty table."""
        try:
            places = array("I", base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError):
            return cls()
        if sys.byteorder == "big":
            places.byteswap()
        size = len(places)
        return cls(places) if SMALLEST <= size <= LARGEST and size & (size - 1) == 0 else cls()

    def _grow(self) -> None:
        old, self._places, self._used = self._places, array("I", bytes(8 * len(self._places))), 0
        for value in old:
            if value:
                self.is_new(f"{value:08x}")
