"""rhythm - when tenants of a sort send: hours of the week, growth, seasons, holidays.  Part of the SIMULATION.

All times are seconds since 1970 and UTC; a tenant's own time zone shifts its hours.  Shapes are 168 factors from Monday
midnight on with a mean of 1.

Known limits: no change of clocks in summer, one calendar of holidays for all.
"""

from __future__ import annotations

import math
from datetime import datetime, timezone

HOUR, DAY, WEEK = 3600, 86_400, 604_800
_MONDAY = 4 * DAY  # the first one since 1970

# By hour of the day, and by day of the week.
_OFFICE = (1, 1, 1, 1, 1, 3, 10, 30, 70, 100, 100, 90, 60, 80, 90, 90, 75, 45, 20, 12, 8, 5, 3, 2)
_EVENING = (10, 5, 3, 2, 2, 4, 10, 20, 30, 40, 45, 50, 55, 50, 50, 55, 60, 70, 85, 100, 105, 90, 55, 25)
_AWAKE = (12, 7, 5, 4, 5, 10, 30, 60, 80, 85, 85, 85, 85, 85, 85, 85, 85, 85, 85, 80, 75, 60, 40, 22)
_EVEN = (10,) * 24
_WORKDAYS = (1.0, 1.05, 1.05, 1.0, 0.9, 0.12, 0.08)
_SHOPPING = (1.0, 0.9, 0.9, 0.95, 1.0, 1.1, 1.25)
_ALL_DAYS = (1.0, 1.0, 1.0, 1.0, 1.0, 0.85, 0.8)

SHAPES = {
    "office": (_OFFICE, _WORKDAYS),
    "evening": (_EVENING, _SHOPPING),
    "awake": (_AWAKE, _ALL_DAYS),
    "even": (_EVEN, (1.0,) * 7),
}
_BLACK_FRIDAY = 5.0
_QUIET = 0.3
_SEASON = 2.2  # the best month of a seasonal tenant against the middle of its year


def shape(name: str, zone: int) -> list[float]:
    """The hours of a week of this sort of SHAPES, for a tenant so many hours ahead of UTC."""
    hours, days = SHAPES[name]
    values = [days[index // 24] * hours[index % 24] for index in range(168)]
    mean = sum(values) / 168
    return [values[(index + zone) % 168] / mean for index in range(168)]


def hour_of_week(at: float) -> int:
    """0 is Monday midnight."""
    return int((at - _MONDAY) // HOUR) % 168


def holidays(at: float, *, shop: bool) -> float:
    """A factor: quiet weeks about Christmas and in August for offices, the days about Black Friday for shops."""
    day = datetime.fromtimestamp(at, timezone.utc)
    month, number = day.month, day.day
    if shop:
        if month == 11 and day.weekday() == 4 and 23 <= number <= 29:
            return _BLACK_FRIDAY
        follows = (month == 11 and 24 <= number <= 30) or (month == 12 and number <= 3)
        if follows and day.weekday() in (5, 6, 0):
            return _BLACK_FRIDAY / 2
        return 1.5 if month == 12 and number <= 20 else 1.0
    if (month == 12 and number >= 23) or (month == 1 and number <= 3):
        return _QUIET
    return 0.7 if month == 8 and 3 <= number <= 23 else 1.0


def season(at: float, peak: float) -> float:
    """A factor over the year, highest at `peak` (0 to 1 of the year)."""
    return math.exp(math.log(_SEASON) * math.cos(2 * math.pi * (at / (365.25 * DAY) - peak)))


def growth(at: float, start: float, weekly: float) -> float:
    """A factor since `start`: (1 + weekly) each week."""
    return float((1 + weekly) ** ((at - start) / WEEK))


def is_first(at: float) -> bool:
    """Whether it is the first of a month."""
    return datetime.fromtimestamp(at, timezone.utc).day == 1
