"""look - what a signal sees of a tenant at one moment: amounts, and what of them is normal.  Plain values.

A signal is a function of a Look that yields evidence, or nothing.  It looks at each span of `windows` and tells the heaviest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from relaywarden_monitor.patterns.evidence import Evidence
from relaywarden_monitor.patterns.record import Record
from relaywarden_monitor.patterns.settings import PatternSettings
from relaywarden_monitor.patterns.templates import Template
from relaywarden_monitor.patterns.windows import BULK, DAY, FIELDS, MESSAGES, MINUTE, QUARTER, RECIPIENTS, SPANS

_NOTHING = [0.0] * FIELDS
_NEARLY_ALL = 0.9
_BUSINESS = 0.35  # content score that business mail hardly has on average
_MARGIN, _ROOM = 0.1, 0.6


@dataclass(frozen=True, slots=True)
class Look:
    """One tenant at `now` (seconds since 1970)."""

    record: Record
    settings: PatternSettings
    now: float
    amounts: list[list[float]]  # for each of SPANS, by the fields of `windows`
    templates: list[tuple[int, Template]]  # that were used lately

    @classmethod
    def at(cls, record: Record, settings: PatternSettings, now: float) -> Look:
        """Everything that is known now; takes the templates that were used since the last look."""
        amounts = [record.windows.read(index, now) for index in range(len(SPANS))]
        return cls(record, settings, now, amounts, record.templates.recent())

    def lately(self) -> Look:
        """The last quarter of an hour alone."""
        amounts = [*self.amounts[: QUARTER + 1], _NOTHING, _NOTHING]
        return Look(self.record, self.settings, self.now, amounts, self.templates)

    def broadcasts(self) -> bool:
        """Whether marketing came in numbers in the last minute: its scores beyond what business mail would have."""
        minute = self.amounts[MINUTE]
        return minute[BULK] - _BUSINESS * minute[MESSAGES] >= self.settings.ladder.goes_on

    @property
    def settled(self) -> bool:
        """Whether the tenant is known long enough to have a normal."""
        return self.now - self.record.born >= self.settings.learning.settle

    @property
    def days(self) -> float:
        """How long it is known."""
        return (self.now - self.record.born) / 86_400

    def expected(self, index: int) -> float:
        """Recipients that are normal in SPANS[index]."""
        record = self.record
        if index == DAY:
            return record.day
        part = min(1.0, max(0.0, self.now / 3600 - record.hour))
        width = SPANS[index] / 3600
        former = max(0.0, width - part)
        return record.expected * (width - former) + record.former * former

    def busy(self, least: float) -> list[int]:
        """The spans with at least so many recipients."""
        return [index for index, amounts in enumerate(self.amounts) if amounts[RECIPIENTS] >= least]


def allowance(usual: float, rise: float) -> float | None:
    """The share that a tenant may have whose usual share is this: `rise` times it and a tenth more, as far as there is room.

    None: nearly all are so anyway, and nothing could stand out.
    """
    if usual >= _NEARLY_ALL:
        return None
    return min(usual * rise + _MARGIN, usual + (1 - usual) * _ROOM)


def heaviest(found: Iterable[Evidence]) -> list[Evidence]:
    """The heaviest of what one signal found in several spans, as a list of one or none."""
    best = max(found, key=lambda item: item.weight, default=None)
    return [] if best is None else [best]
