"""peaks - the highest counts of the past, and the slow sum of what is beyond normal.

Peaks: for each span of `windows` the highest count of recipients so far; it fades by half in two months.  Last month's invoices
and last night's passwords are in it, so that they do not surprise twice.  An hour under alarm teaches little or nothing.

Slow sum (CUSUM, E. S. Page 1954): each hour adds what it had beyond 1.5 times normal, and takes off what it lacked, in
units of a normal day.  Three times normal for half a day makes 0.75; an hour adds little, however much it had.

State: nine numbers.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from relaywarden_monitor.patterns.settings import LearningSettings, SignalSettings
from relaywarden_monitor.patterns.windows import DAY, SPANS, Windows

_LARGEST_SUM = 1.5  # normal days: so that a launch day is forgotten within three


class Peaks:
    """The peaks and the slow sum of one tenant."""

    __slots__ = ("_now", "drift", "tops")

    def __init__(self) -> None:
        self.tops = array("f", bytes(4 * len(SPANS)))
        self._now = array("f", bytes(4 * len(SPANS)))  # of the current hour
        self.drift = 0.0

    def see(self, windows: Windows, at: float) -> None:
        """Look at the counts after a slice."""
        now = self._now
        for index in range(len(SPANS)):
            count = windows.recipients(index, at)
            if count > now[index]:  # noqa: PLR1730  # on the path of every slice: cheaper than max()
                now[index] = count

    def learn(self, clip: float, settings: LearningSettings) -> None:
        """An hour has ended; a top grows to `clip` times what it was, at most."""
        fade = 0.5 ** (3600 / settings.peak_half_life)
        for index, count in enumerate(self._now):
            top = self.tops[index] * fade
            most = count if clip == float("inf") else min(count, clip * top + settings.slack)
            self.tops[index] = max(top, most)
        self._now = array("f", bytes(4 * len(SPANS)))

    def sum_up(self, count: float, expected: float, day: float, signals: SignalSettings) -> None:
        """An hour has ended: `count` recipients where `expected` are normal, and `day` in a day."""
        beyond = min(count, signals.drift_clip * expected) - (1 + signals.drift_slack) * expected
        self.drift = min(max(0.0, self.drift + beyond / max(day, signals.drift_floor)), _LARGEST_SUM)

    def clear(self) -> None:
        """Forget what was judged, not the past."""
        self.drift = 0.0
        self._now = array("f", bytes(4 * len(SPANS)))

    def state(self) -> list[float]:
        """As JSON values."""
        return [*self.tops, *self._now, self.drift]

    def restore(self, state: Sequence[float]) -> None:
        """From `state()`; raises ValueError."""
        if len(state) != 2 * len(SPANS) + 1:
            raise ValueError(f"expected {2 * len(SPANS) + 1} numbers of peaks")
        self.tops, self._now = array("f", state[: DAY + 1]), array("f", state[DAY + 1 : -1])
        self.drift = float(state[-1])
