"""fingerprint - 64 bits by which messages of one template are known, whatever each recipient's data.  Pure.

The fingerprint is a simhash (Charikar 2002; Manku, Jain and Das Sarma 2007, "Detecting near-duplicates for web crawling")
over pairs of neighbouring words.  What differs from recipient to recipient is left out before: every word with a capital
(names, cities, greetings, headlines), a digit (amounts, dates, order numbers, codes) or a sign within or behind it (addresses,
URLs, tracking ids, base64), and words of three letters and less.  Each pair counts once, so that a receipt of two items is
like one of seven.

What stays is common to a template: two messages of it have the same fingerprint or one a few bits away.  Independent texts
differ in 32 of 64 bits on average, in 10 or fewer by chance less than once in a million pairs.  `Families` gives all that are
near one another the same key.

How it fails: it never raises.  0 means: too little text to know it by (fewer than 4 words); do not count it.

Known limits: a text in capitals, or in a script without blanks between words, has few words; then capitals count too, or whole
runs.  Texts that differ in what is left out alone (the city, the number) are the same.  A message of pictures alone is
known by the hosts it links to.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from hashlib import blake2b
from itertools import pairwise

from relaywarden.content.text import Look

BITS = 64
NEAR = 10  # bits in which two messages of one template may differ
_BANDS, _BAND_BITS = 8, 8
_FEWEST = 4
_MOST_WORDS = 400
_SHORT = 3  # octets: such words stand in names (de, van), and say little
_LANE = 16  # bits of a lane: more than enough for _MOST_WORDS pairs
_ONES = sum(1 << _LANE * lane for lane in range(BITS))
_REMEMBERED = 20_000

# Octets as they stand, but: what ends a word is a blank, what marks a word as personal is a NUL.
_PERSONAL = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@/._-=&?%+#$*:~\\^{}[]<>|_\x00")
_MASKED = bytes(0 if octet in _PERSONAL else octet if octet > 0x60 else 32 for octet in range(256))
_FOLDED = bytes(octet + 32 if 65 <= octet <= 90 else 32 if octet == 46 else _MASKED[octet] for octet in range(256))


# A template's words come again with each of its messages.  Pairs of words: their bits, one in each lane.
_lanes: dict[bytes, int] = {}


def fingerprint(seen: Look) -> int:
    """The fingerprint of what a message shows, 1 to 2^64 - 1; 0: it shows too little."""
    words = _words(seen.letters) or [host for host in dict.fromkeys(seen.hosts) for _ in range(2)][:_MOST_WORDS]
    if len(words) < _FEWEST:
        return 0
    pairs = {first + b" " + second for first, second in pairwise(words)}
    if len(_lanes) > _REMEMBERED:
        _lanes.clear()
    lanes = _lanes
    total = sum([lanes.get(pair) or _spread(pair) for pair in pairs])
    # A lane's highest bit becomes set where more than half of the pairs have the bit: one hexadecimal digit in four is 8 or 0.
    above = total + _ONES * (0x7FFF - len(pairs) // 2) & _ONES << _LANE - 1
    return int(f"{above:0{BITS * _LANE // 4}x}"[:: _LANE // 4].replace("8", "1"), 2) or 1


def distance(one: int, other: int) -> int:
    """The number of bits in which two fingerprints differ."""
    return (one ^ other).bit_count()


def near(one: int, other: int, bits: int = NEAR) -> bool:
    """Are these of one template?  What shows too little (0) is near nothing."""
    return one != 0 and other != 0 and (one ^ other).bit_count() <= bits


def bands(value: int) -> Iterator[int]:
    """Eight keys of which two near fingerprints share one; surely if at most seven bits differ, mostly if ten do.

    Look up each, then ask `near`.
    """
    for band in range(_BANDS):
        yield band << _BAND_BITS | (value >> band * _BAND_BITS & 0xFF)


class Families:
    """One key for all fingerprints near one another: the first of them that was seen.

    Bounded: the family that was seen longest ago is forgotten.  Not shared between processes: each has its own first.
    """

    def __init__(self, most: int = 512) -> None:
        self._most = most
        self._known: OrderedDict[int, None] = OrderedDict()
        self._by_band: dict[int, set[int]] = {}

    def key(self, value: int) -> int:
        """The family of a fingerprint; 0 for 0."""
        if not value:
            return 0
        if value not in self._known:
            candidates = {other for band in bands(value) for other in self._by_band.get(band, ())}
            found = min(candidates, key=lambda other: (distance(value, other), other), default=0)
            if near(value, found):
                value = found
            else:
                self._add(value)
        self._known.move_to_end(value)
        return value

    def _add(self, value: int) -> None:
        if len(self._known) >= self._most:
            oldest, _ = self._known.popitem(last=False)
            for band in bands(oldest):
                self._by_band[band].discard(oldest)
        self._known[value] = None
        for band in bands(value):
            self._by_band.setdefault(band, set()).add(value)


def _words(letters: bytes) -> list[bytes]:
    """The words that all messages of the template have; where these are few, shorter ones too, and at last all."""
    stable = [word for word in letters.translate(_MASKED).split()[: 2 * _MOST_WORDS] if b"\0" not in word]
    for shortest in (_SHORT, 1):
        words = [word for word in stable if len(word) > shortest]
        if len(words) >= _FEWEST:
            return words[:_MOST_WORDS]
    words = [word for word in letters.translate(_FOLDED).split()[:_MOST_WORDS] if b"\0" not in word]
    foreign = [word for word in words if word[0] > 0x7F]  # of a script without capitals, among Latin names
    return foreign if len(foreign) >= _FEWEST else words


def _spread(pair: bytes) -> int:
    """The hash of a pair of words, its 64 bits one in each lane."""
    bits = f"{int.from_bytes(blake2b(pair, digest_size=8).digest(), 'big'):064b}"
    _lanes[pair] = lanes = int("000".join(bits), 16)
    return lanes
