"""templates - which messages a tenant sends again and again, and how many of each at a time.

A receipt and a one-time password are near-duplicates as much as a newsletter is.  What tells them apart is that their template
is known and comes at its usual rate.  So for each body fingerprint there is kept: on how many days it came, the highest count
of recipients within three hours (it fades), the counts of the current and the former three hours, and their mean score.

A template is familiar from its third day on; what comes while the tenant is under alarm makes nothing familiar.  The table
holds LARGEST; an unfamiliar template gives way before a familiar one, so that a flood of new ones displaces nothing known.

Known limit: of a tenant with more templates than that, many are never familiar; its usual share of these is learned instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from relaywarden_monitor.patterns.traffic import Group

LARGEST = 32
SPAN = 10_800.0
_FAMILIAR_DAYS = 3
_MASK = 2**32 - 1
_FADE = 0.999  # of a count each three hours: half of it is left after three months
_MOST_DAYS = 999
_AT_ONCE = 8
_DEAD = 60 * 8  # buckets: two months without it


class Template:
    """One fingerprint; `now` and `before` are recipients of the current and former bucket."""

    __slots__ = ("before", "bucket", "bulk", "day", "days", "messages", "now", "usual")

    def __init__(self) -> None:
        self.days, self.day, self.bucket = 0, 0, 0
        self.usual = self.now = self.before = self.bulk = self.messages = 0.0

    @property
    def familiar(self) -> bool:
        """Whether it has been seen often enough."""
        return self.days >= _FAMILIAR_DAYS

    def roll(self, bucket: int, learns: bool) -> None:
        """Begin another bucket."""
        if learns:
            passed = min(bucket - self.bucket, 5000)
            self.usual = max(self.usual * _FADE**passed, self.now)
        self.before = self.now if bucket == self.bucket + 1 else 0.0
        fade = 0.5 if self.before else 0.0
        self.bulk, self.messages = self.bulk * fade, self.messages * fade
        self.now, self.bucket = 0.0, bucket

    def add(self, group: Group, day: int, learns: bool) -> None:
        """Count messages of it."""
        if day != self.day and learns:
            self.days, self.day = min(self.days + 1, _MOST_DAYS), day
        self.now += max(group.recipients, group.messages)
        self.bulk += group.bulk
        self.messages += group.messages

    def recent(self, at: float) -> float:
        """Recipients within the last three hours."""
        place = at / SPAN - self.bucket
        if place >= 1:
            return self.now * max(0.0, 2 - place)
        return self.now + self.before * (1 - max(0.0, place))

    def mean(self) -> float:
        """Mean content score of its messages."""
        return self.bulk / self.messages if self.messages else 0.0


class Templates:
    """The table of one tenant."""

    __slots__ = ("_table", "_victims", "touched")

    def __init__(self) -> None:
        self._table: dict[int, Template] = {}
        self._victims: list[tuple[int, float]] = []  # who gives way next, and what it had when it was chosen
        self.touched: set[int] = set()  # since the last look

    def add(self, groups: Mapping[int, Group], at: float, *, learns: bool) -> float:
        """Count the groups of a slice; recipients of unfamiliar templates."""
        unfamiliar, bucket, day = 0.0, int(at // SPAN), int(at // 86_400)
        for fingerprint, group in groups.items():
            key = fingerprint & _MASK
            template = self._table.get(key)
            if template is None:
                template = self._enter(key)
            if bucket > template.bucket:
                template.roll(bucket, learns)
            template.add(group, day, learns)
            self.touched.add(key)
            if not template.familiar:
                unfamiliar += max(group.recipients, group.messages)
        return unfamiliar

    def recent(self) -> list[tuple[int, Template]]:
        """Those that were used since the last look."""
        found = [(key, self._table[key]) for key in self.touched if key in self._table]
        self.touched.clear()
        return found

    def clear(self) -> None:
        """Forget the counts, not the templates."""
        for template in self._table.values():
            template.now = template.before = template.bulk = template.messages = 0.0
        self.touched.clear()

    def state(self) -> list[list[float]]:
        """As JSON values."""
        return [
            [key, t.days, t.day, t.bucket, *(round(value, 3) for value in (t.usual, t.now, t.before, t.bulk, t.messages))]
            for key, t in self._table.items()
        ]

    def restore(self, state: Sequence[Sequence[Any]]) -> None:
        """From `state()`; raises ValueError."""
        self._table.clear()
        self._victims.clear()
        for key, days, day, bucket, *amounts in state[:LARGEST]:
            template = self._table[int(key)] = Template()
            template.days, template.day, template.bucket = int(days), int(day), int(bucket)
            template.usual, template.now, template.before, template.bulk, template.messages = map(float, amounts)

    def _enter(self, key: int) -> Template:
        if len(self._table) >= LARGEST:
            del self._table[self._victim()]
        template = self._table[key] = Template()
        return template

    def _victim(self) -> int:
        """Who gives way: unfamiliar before familiar, small before large, old before new.

        Some are chosen at once, for a tenant whose texts are never alike enters new ones all the time.
        """
        while self._victims:
            key, counted = self._victims.pop()
            template = self._table.get(key)
            if template is not None and template.now + template.before <= counted:
                return key
        newest = max(template.bucket for template in self._table.values())
        ranked = sorted(self._table, key=lambda key: _worth(self._table[key], newest))[:_AT_ONCE]
        # A familiar one gives way only where there is no other.
        some = [key for key in ranked if not _worth(self._table[key], newest)[0]] or ranked[:1]
        self._victims = [(key, self._table[key].now + self._table[key].before) for key in reversed(some[1:])]
        return some[0]


def _worth(template: Template, newest: int) -> tuple[bool, float, int]:
    in_use = newest - template.bucket < _DEAD
    return template.familiar and in_use, template.usual + template.now + template.before, template.bucket
