"""windows - what a tenant did in the last minute, quarter, hour and day, at the same small cost however much it was.

Of each span two adjoining buckets are kept, aligned to the clock.  The amount of the last W seconds is the current bucket, and
of the one before as much as still lies within W: exact where the traffic of the former bucket was even.

A slice longer than a span gives this span its proper part.  State: base64 of 32-bit floats, and the numbers of the buckets.

Known limit: an amount may be too high or low by the unevenness of the former bucket, which fades until the bucket ends.
"""

from __future__ import annotations

import base64
from array import array
from collections.abc import Sequence
from typing import Any

SPANS = (60.0, 900.0, 3600.0, 86_400.0)
MINUTE, QUARTER, HOUR, DAY = range(4)
# BULK and SCORE are sums over messages; GROUPED are recipients whose template, PLACED those whose domain is known.
(RECIPIENTS, MESSAGES, NEW, UNFAMILIAR, GROUPED, BULK, SCORE, SCORED, REFUSED, SUPPRESSED, DELIVERED, INVALID, BLOCKED,
 COMPLAINED, STRANGE, PLACED) = range(16)  # fmt: skip
FIELDS = 16
_BUCKET = 2 * FIELDS


class Windows:
    """The four windows of one tenant."""

    __slots__ = ("_data", "_numbers")

    def __init__(self) -> None:
        self._data = array("f", bytes(4 * _BUCKET * len(SPANS)))
        self._numbers = [0] * len(SPANS)

    def add(self, begin: float, end: float, amounts: Sequence[tuple[int, float]]) -> None:
        """Count (field, amount) pairs of a slice; seconds since 1970."""
        data, lasted = self._data, end - begin
        at = end - 1e-3 if lasted > 0 else end  # a slice that ends with a bucket belongs to it
        for index, width in enumerate(SPANS):
            base = index * _BUCKET
            number = int(at // width)
            if number > self._numbers[index]:
                self._roll(index, number)
            part = 1.0 if lasted <= width else width / lasted
            for name, amount in amounts:
                data[base + name] += amount * part

    def read(self, index: int, now: float) -> list[float]:
        """All amounts of the last SPANS[index] seconds."""
        data, base, number, place = self._data, index * _BUCKET, self._numbers[index], now / SPANS[index]
        behind = int(place) - number
        middle, last = base + FIELDS, base + _BUCKET
        if behind <= 0:
            rest = 1 - min(1.0, max(0.0, place - number))
            if rest <= 0:
                return list(data[base:middle])
            return [new + old * rest for new, old in zip(data[base:middle], data[middle:last], strict=True)]
        if behind == 1:
            rest = 1 - (place - int(place))
            return [new * rest for new in data[base:middle]]
        return [0.0] * FIELDS

    def recipients(self, index: int, now: float) -> float:
        """`read`, of recipients alone."""
        base, place = index * _BUCKET, now / SPANS[index]
        rest = 1 - min(1.0, max(0.0, place - self._numbers[index]))
        return self._data[base] + self._data[base + FIELDS] * rest

    def clear(self) -> None:
        """Forget everything: what was judged is not held against the tenant again."""
        self._data = array("f", bytes(len(self._data) * 4))

    def state(self) -> list[Any]:
        """As JSON values."""
        return [base64.b64encode(self._data.tobytes()).decode(), *self._numbers]

    def restore(self, state: Sequence[Any]) -> None:
        """From `state()`; raises ValueError."""
        data = array("f", base64.b64decode(state[0], validate=True))
        if len(data) != len(self._data) or len(state) != 1 + len(SPANS):
            raise ValueError(f"expected {len(self._data)} amounts of {len(SPANS)} spans")
        self._data, self._numbers = data, [int(number) for number in state[1:]]

    def _roll(self, index: int, number: int) -> None:
        """Begin another bucket."""
        base = index * _BUCKET
        middle = base + FIELDS
        adjoining = number == self._numbers[index] + 1
        former = self._data[base:middle] if adjoining else array("f", bytes(4 * FIELDS))
        self._data[middle : base + _BUCKET] = former
        self._data[base:middle] = array("f", bytes(4 * FIELDS))
        self._numbers[index] = number
