"""scores - what rspamd said of a tenant's messages today: how high they scored, and which symbols came most often.  No I/O.

A histogram in fixed buckets, the sum of the scores, and the most frequent symbols in bounded memory (Space-Saving, Metwally
et al. 2005): at most 40 names are kept; when a new one comes and there is no room, it takes the place of the least and
inherits its count, plus one.  So a symbol that came more often than one time in 40 is never lost, and a count is never too
low; it is too high by at most the least count that is kept.

Wire format (little endian, the same in SQLite, Redis and Lua): ten doubles: day number (UTC by the store's clock), sum of the
scores in thousandths, number of messages in each of the eight buckets.  Then for each symbol its count (double), the length
of its name in bytes (two bytes) and the name (UTF-8).  It is the tail of a balance named `s`: no balance key is so short.

How it fails: `unpack` of anything else raises ValueError.

Known limits: only today's; a clock that steps back over midnight loses them.  Names come from rspamd and are cut to 64
characters, of one message the first 20 different ones count; scores are cut to a million.  Of several least symbols the first
by name (bytes) is replaced.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct

SCORE_EDGES = (0, 2, 4, 6, 8, 10, 15)  # bucket 0: below 0; bucket 1: from 0 to below 2; ...; the last: 15 and more
BUCKETS = len(SCORE_EDGES) + 1
MOST_NAMES = 40  # kept of a tenant's day
MOST_OF_A_MESSAGE = 20
LONGEST_NAME = 64  # characters
LARGEST_SCORE = 1_000_000.0
SCORES = "s"  # the balance whose tail this is
_DAY_MS = 86_400_000
_HEAD = Struct(f"<{2 + BUCKETS}d")
_ENTRY = Struct("<dH")


@dataclass(frozen=True, slots=True)
class Scores:
    """Today's scores: messages in each bucket of SCORE_EDGES, all messages, sum of scores, (symbol, count) from the top."""

    buckets: tuple[int, ...]
    count: int
    total: float
    symbols: tuple[tuple[str, int], ...]


def bucket_of(score: float) -> int:
    """The bucket that a score falls into."""
    return bisect_right(SCORE_EDGES, score)


def thousandths(score: float) -> int:
    """A score as a whole number, so that both stores add up the same; cut to a million either way."""
    return round(min(max(score, -LARGEST_SCORE), LARGEST_SCORE) * 1000)


def names_of(symbols: Iterable[str]) -> list[str]:
    """What is kept of one message's symbols: the first 20 different names, each cut to 64 characters and fit for UTF-8."""
    names: dict[str, None] = {}
    for symbol in symbols:
        if len(names) == MOST_OF_A_MESSAGE:
            break
        if name := symbol[:LONGEST_NAME].encode("utf-8", "replace").decode():  # a lone surrogate becomes "?"
            names[name] = None
    return list(names)


class Tableau:
    """One tenant's scores of today, moved to `now_ms`."""

    __slots__ = ("_buckets", "_counts", "_day", "_thousandths")

    def __init__(self, packed: bytes | None, now_ms: int) -> None:
        """Unpack (None: nothing yet); a new day starts with nothing; raises ValueError."""
        self._day = now_ms // _DAY_MS
        self._thousandths = 0.0
        self._buckets = [0.0] * BUCKETS
        self._counts: dict[bytes, float] = {}
        if packed:
            self._unpack(packed)

    def _unpack(self, packed: bytes) -> None:
        try:
            day, total, *buckets = _HEAD.unpack_from(packed)
            if day != self._day:
                return
            self._thousandths, self._buckets, at = total, buckets, _HEAD.size
            while at < len(packed):
                times, length = _ENTRY.unpack_from(packed, at)
                at += _ENTRY.size
                self._counts[packed[at : at + length]] = times
                at += length
        except struct.error as error:
            raise ValueError(f"not a day of scores: {error}") from error

    def pack(self) -> bytes:
        """The wire format."""
        parts = [_HEAD.pack(self._day, self._thousandths, *self._buckets)]
        for name, times in self._counts.items():
            parts += [_ENTRY.pack(times, len(name)), name]
        return b"".join(parts)

    def add(self, score: float, symbols: Iterable[str]) -> None:
        """One message more."""
        self._thousandths += thousandths(score)
        self._buckets[bucket_of(score)] += 1
        for symbol in names_of(symbols):
            name = symbol.encode()
            if name in self._counts or len(self._counts) < MOST_NAMES:
                self._counts[name] = self._counts.get(name, 0) + 1
            else:
                least = min(self._counts, key=lambda known: (self._counts[known], known))
                self._counts[name] = self._counts.pop(least) + 1

    def scores(self) -> Scores | None:
        """Everything, for people; None where no message was scored today."""
        count = int(sum(self._buckets))
        if count == 0:
            return None
        ranked = sorted(self._counts.items(), key=lambda entry: (-entry[1], entry[0]))
        symbols = tuple((name.decode(), int(times)) for name, times in ranked)
        return Scores(tuple(map(int, self._buckets)), count, self._thousandths / 1000, symbols)
