"""view - what `show` says of a tenant: normal against now, what speaks against it, where it stands.  Plain values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from relaywarden_monitor.patterns.evidence import Evidence
from relaywarden_monitor.patterns.ladder import Step, by_weight
from relaywarden_monitor.patterns.record import Record
from relaywarden_monitor.patterns.settings import PatternSettings
from relaywarden_monitor.patterns.windows import RECIPIENTS, SPANS


@dataclass(frozen=True, slots=True)
class View:
    """One tenant; counts are recipients, times seconds since 1970 (UTC)."""

    tenant: str
    at: float
    days: float  # known for so long
    settled: bool  # whether it has a normal of its own; before, the ramp holds
    step: Step
    by: str  # "patterns", or the person whose word it is
    since: float
    until: float | None
    reason: str
    times: int  # how often it came to SLOWED or beyond, each within a week of the last
    evidence: tuple[Evidence, ...]  # of the last turn, the heaviest first
    history: tuple[str, ...]  # lines of the last changes, the oldest first
    hours: tuple[int, ...]  # the last 24 hours since 1970, the current one last
    seen: tuple[float, ...]  # in each of them
    normal: tuple[float, ...]
    week: tuple[float, ...]  # normal of the 168 hours of a week from Monday midnight UTC
    dispersion: float  # variance beyond chance, in units of the squared mean
    trend: float  # growth against the week's profile
    surprise: float  # -log10 of the probability of as many in this hour, as far as it has gone
    shares: dict[str, float]  # usual shares: new, unfamiliar, invalid, ...
    spans: dict[int, float]  # recipients in the last so many seconds

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "tenant": self.tenant, "at": self.at, "days": round(self.days, 1), "settled": self.settled,
            "standing": self.step.name.lower(), "by": self.by, "since": self.since, "until": self.until, "reason": self.reason,
            "times": self.times, "evidence": [item.document() for item in self.evidence], "history": list(self.history),
            "hours": list(self.hours), "seen": list(self.seen), "normal": [round(value, 1) for value in self.normal],
            "week": [round(value, 1) for value in self.week], "dispersion": round(self.dispersion, 3),
            "trend": round(self.trend, 3), "surprise": round(self.surprise, 2),
            "shares": {name: round(value, 4) for name, value in self.shares.items()},
            "spans": {str(seconds): round(value, 1) for seconds, value in self.spans.items()},
        }  # fmt: skip


def draw(record: Record, evidence: list[Evidence], history: Iterable[str], settings: PatternSettings, now: float) -> View:
    """The view of a record at this moment; changes nothing."""
    learning, standing, hour = settings.learning, record.standing, int(now // 3600)
    hours = tuple(range(hour - 23, hour + 1))
    seen = [record.recent[past % 24] if record.hour - 24 < past < record.hour else 0.0 for past in hours]
    if record.hour in hours:
        seen[hours.index(record.hour)] = record.tally[RECIPIENTS]
    passed = max(1.0, now - hour * 3600)
    days = (now - record.born) / 86_400
    return View(
        record.tenant, now, days, now - record.born >= learning.settle,
        standing.step, standing.by, standing.since, standing.until, standing.reason, standing.times,
        tuple(by_weight(evidence)), tuple(history),
        hours, tuple(seen), tuple(record.baseline.expected(past, learning) for past in hours),
        tuple(record.baseline.week(learning)), record.baseline.dispersion(learning), record.baseline.trend,
        record.baseline.surprise(seen[-1], hour, passed, learning),
        record.usual.shares(), {int(span): record.windows.read(index, now)[RECIPIENTS] for index, span in enumerate(SPANS)},
    )  # fmt: skip
