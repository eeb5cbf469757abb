"""baseline - a tenant's normal: how many recipients it sends to in each hour of the week, and how far it strays.

It is learned from the hours as they end, with no set-up.  An hour of the week (UTC, 0 is Monday midnight) has a running mean.
While it has seen few weeks, it leans on the same hour of all weekdays (or weekend days), that on the same hour of all days, and
that on the mean of all hours.  Growth is a factor: the last days against the profile, never below 1, so that a quiet week does
not make Monday a burst.  Dispersion is the variance beyond chance in units of the squared mean.

An hour teaches no more and no less than the clips of `settings.learning` allow, and nothing where it was under alarm.

State: base64 of 32-bit floats (168 means) and of octets (168 numbers of weeks), and a few numbers: 1.3 KiB.

Known limits: local time and its changes in summer are seen as a shift of one hour, which the dispersion absorbs.  What comes
once a month is no part of the profile; the highest counts of the past (`peaks`) know it.
"""

from __future__ import annotations

import base64
from array import array
from collections.abc import Sequence
from typing import Any

from relaywarden_monitor.patterns import chance
from relaywarden_monitor.patterns.settings import LearningSettings

SLOTS = 168
_MONDAY = 72  # hours from the first Monday of 1970 (the 5th) back to the epoch, modulo a week
_WEEKDAYS = 120  # slots of Monday to Friday
_RATIO_LEAST, _RATIO_MOST = 0.5, 2.0  # a day tells the trend no more
_TREND_DAYS = 7.0
_MOST_WEEKS = 255


def slot(hour: int) -> int:
    """The hour of the week of an hour since 1970."""
    return (hour + _MONDAY) % SLOTS


class Baseline:
    """The normal of one tenant; counts are recipients."""

    __slots__ = ("_cells", "_day_expected", "_day_seen", "_excess", "_hours", "_means", "_square", "_weeks", "trend")

    def __init__(self) -> None:
        self._means = array("f", bytes(4 * SLOTS))
        self._weeks = bytearray(SLOTS)
        self._hours = 0  # learned so far
        self._excess = self._square = 0.0  # running means of what dispersion is the ratio of
        self._day_seen = self._day_expected = 0.0  # since midnight
        self._cells: array[float] | None = None
        self.trend = 1.0

    def expected(self, hour: int, settings: LearningSettings) -> float:
        """Recipients in this hour since 1970, growth included."""
        return self._profile(slot(hour), settings) * min(max(1.0, self.trend), settings.trend_most)

    def day(self, hour: int, settings: LearningSettings) -> float:
        """Recipients in the 24 hours that end with this one."""
        profile = [self._profile(slot(earlier), settings) for earlier in range(hour - 23, hour + 1)]
        return sum(profile) * min(max(1.0, self.trend), settings.trend_most)

    def dispersion(self, settings: LearningSettings) -> float:
        """Variance beyond chance, in units of the squared mean."""
        if self._hours < 24 or self._square <= 0:
            return settings.dispersion
        return min(max(self._excess / self._square, settings.dispersion_least), settings.dispersion_most)

    def surprise(self, count: float, hour: int, seconds: float, settings: LearningSettings) -> float:
        """-log10 P(X >= count) within `seconds` of this hour."""
        mean = self.expected(hour, settings) * seconds / 3600
        return chance.of_count(count, mean, self.dispersion(settings))

    def learn(self, hour: int, count: float, clip: float, settings: LearningSettings) -> None:
        """An hour has ended; it teaches at most `clip` times what was expected."""
        index, expected = slot(hour), self.expected(hour, settings)
        weeks = self._weeks[index]
        profile = expected / min(max(1.0, self.trend), settings.trend_most)
        if self._hours >= SLOTS:  # in the first week nothing is known that could clip
            count = min(max(count, expected / settings.clip_low), clip * expected + settings.slack)
            self._spread(count, expected)
        self._follow(hour, count, profile)
        self._means[index] += (count - self._means[index]) / min(weeks + 1, settings.memory)
        self._weeks[index] = min(weeks + 1, _MOST_WEEKS)
        self._hours += 1
        if hour % 24 == 0 or self._hours <= SLOTS:
            self._cells = None  # the coarse profiles follow once a day; in the first week, at once

    def week(self, settings: LearningSettings) -> list[float]:
        """The whole profile, from Monday midnight UTC on, for drawing."""
        return [self._profile(index, settings) for index in range(SLOTS)]

    def state(self) -> list[Any]:
        """As JSON values."""
        cells = None if self._cells is None else [round(value, 3) for value in self._cells]
        packed = (base64.b64encode(bytes(data)).decode() for data in (self._means.tobytes(), self._weeks))
        return [*packed, self._hours, self._excess, self._square, self._day_seen, self._day_expected, self.trend, cells]

    def restore(self, state: Sequence[Any]) -> None:
        """From `state()`; raises ValueError."""
        means, weeks = array("f", base64.b64decode(state[0], validate=True)), bytearray(base64.b64decode(state[1]))
        if len(means) != SLOTS or len(weeks) != SLOTS:
            raise ValueError(f"expected {SLOTS} hours of a week")
        self._means, self._weeks, self._hours = means, weeks, int(state[2])
        self._excess, self._square, self._day_seen, self._day_expected, self.trend = (float(value) for value in state[3:8])
        self._cells = None if state[8] is None else array("f", state[8])

    def _profile(self, index: int, settings: LearningSettings) -> float:
        if self._cells is None:
            self._cells = self._coarse(settings.shrink)
        cell = self._cells[index % 24 + (24 if index >= _WEEKDAYS else 0)]
        weeks = self._weeks[index]
        return (weeks * self._means[index] + settings.shrink * cell) / (weeks + settings.shrink)

    def _coarse(self, shrink: float) -> array[float]:
        """24 hours of weekdays, then of weekend days, each shrunk to the hour of all days, and that to the mean."""
        sums = [weeks * mean for weeks, mean in zip(self._weeks, self._means, strict=True)]
        weeks = self._weeks
        overall = sum(sums) / max(1, sum(weeks))
        work, weekend = [], []
        for hour in range(24):
            work_sum, work_weeks = sum(sums[hour:_WEEKDAYS:24]), sum(weeks[hour:_WEEKDAYS:24])
            end_sum, end_weeks = sum(sums[_WEEKDAYS + hour :: 24]), sum(weeks[_WEEKDAYS + hour :: 24])
            both = (work_sum + end_sum + shrink * overall) / (work_weeks + end_weeks + shrink)
            work.append(round((work_sum + shrink * both) / (work_weeks + shrink), 3))
            weekend.append(round((end_sum + shrink * both) / (end_weeks + shrink), 3))
        return array("f", work + weekend)

    def _spread(self, count: float, expected: float) -> None:
        rate = max(1 / SLOTS, 1 / (self._hours - SLOTS + 1))
        self._excess += ((count - expected) ** 2 - expected - self._excess) * rate
        self._square += (expected * expected - self._square) * rate

    def _follow(self, hour: int, count: float, profile: float) -> None:
        """The trend: each midnight the day against the profile."""
        self._day_seen += count
        self._day_expected += profile
        if hour % 24 != 23:
            return
        if self._hours >= SLOTS and self._day_expected > 0:
            ratio = min(max(self._day_seen / self._day_expected, _RATIO_LEAST), _RATIO_MOST)
            self.trend += (ratio - self.trend) / _TREND_DAYS
        self._day_seen = self._day_expected = 0.0
