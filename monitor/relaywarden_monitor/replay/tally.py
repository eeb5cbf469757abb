"""tally - what a replay found, for each tenant and as a whole.  Plain values; `document` gives them as JSON values.

Everything is bounded, however long the history is: of steps and notices of a tenant the first MOST are kept and the others
counted; recipients are kept by the hour for LONGEST_HOURS, by the day for ever.

Known limit: a tenant's plan and mode are those of the configuration; a login that is its own tenant has those of its plan.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from relaywarden.cli.output import iso_time

MOST = 200
LONGEST_HOURS = 96
_DAY, _HOUR = 86_400, 3600
_LONGEST_SERIES = 3660  # values; a wrong clock of the past makes it no longer


@dataclass(slots=True)
class Use:
    """What one limit would have done; times are seconds since 1970."""

    limit: str
    action: str  # refuse, hold, or observe (it is only said)
    refused: int = 0  # recipients
    first: float = 0.0
    last: float = 0.0
    peak: float | None = None  # highest use, in percent of the limit; None: not known

    def refuse(self, at: float, recipients: int) -> None:
        """So many recipients more."""
        self.first = self.first if self.refused else at
        self.refused += recipients
        self.last = at

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "limit": self.limit, "action": self.action, "refused": self.refused, "first": _iso(self.first),
            "last": _iso(self.last), "peak_percent": None if self.peak is None else round(self.peak, 1),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stepped:
    """One step of the ladder that would have been taken."""

    at: float
    until: float | None
    before: str
    after: str
    by: str  # patterns (volume) or health (outcomes)
    text: str
    done: bool = True  # False: the configuration would only have said it

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "at": _iso(self.at), "until": _iso(self.until or 0), "before": self.before, "after": self.after, "by": self.by,
            "done": self.done, "text": self.text,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Told:
    """One notice that people would have had."""

    at: float
    kind: str
    severity: str
    key: str
    what: str

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        return {"at": _iso(self.at), "kind": self.kind, "severity": self.severity, "key": self.key, "what": self.what}


@dataclass(slots=True)
class Volume:
    """Recipients by hour and by day since 1970 (UTC)."""

    days: Counter[int] = field(default_factory=Counter)
    hours: Counter[int] | None = field(default_factory=Counter)  # None: the period is longer than that

    def add(self, at: float, recipients: int) -> None:
        """So many more."""
        self.days[int(at // _DAY)] += recipients
        if self.hours is not None:
            self.hours[int(at // _HOUR)] += recipients
            if len(self.hours) > LONGEST_HOURS:
                self.hours = None


@dataclass(slots=True)
class TenantTally:
    """What was found of one tenant."""

    tenant: str
    plan: str
    mode: str
    messages: int = 0
    recipients: int = 0
    uses: dict[str, Use] = field(default_factory=dict)
    steps: list[Stepped] = field(default_factory=list)
    notices: list[Told] = field(default_factory=list)
    more: Counter[str] = field(default_factory=Counter)  # steps and notices beyond the first ones
    under: Counter[str] = field(default_factory=Counter)  # recipients that came while the tenant stood on a step
    volume: Volume = field(default_factory=Volume)

    @property
    def refused(self) -> int:
        """Recipients that limits would have refused, held, or (observed) spoken of."""
        return sum(use.refused for use in self.uses.values())

    @property
    def telling(self) -> bool:
        """Whether there is anything to say."""
        return bool(self.refused or self.steps or self.notices)

    def sent(self, at: float, messages: int, recipients: int, step: str) -> None:
        """Mail came while the tenant stood on this step."""
        self.messages += messages
        self.recipients += recipients
        self.volume.add(at, recipients)
        if step:
            self.under[step] += recipients

    def step(self, found: Stepped) -> None:
        """A step was taken."""
        if len(self.steps) < MOST:
            self.steps.append(found)
        else:
            self.more["steps"] += 1

    def tell(self, found: Told) -> None:
        """A notice went out."""
        if len(self.notices) < MOST:
            self.notices.append(found)
        else:
            self.more["notices"] += 1


@dataclass(slots=True)
class Tally:
    """All that was found."""

    tenants: dict[str, TenantTally] = field(default_factory=dict)
    members: list[Told] = field(default_factory=list)  # notices of pool members
    volume: Volume = field(default_factory=Volume)
    records: Counter[str] = field(default_factory=Counter)  # lines, rows and hours that were read
    first: float = 0.0
    last: float = 0.0
    notes: list[str] = field(default_factory=list)  # what the reader of the report has to know
    normal: dict[int, float] = field(default_factory=dict)  # of the one tenant that is drawn: recipients by the hour

    def saw(self, at: float) -> None:
        """Something happened then."""
        self.first = min(self.first or at, at)
        self.last = max(self.last, at)

    @property
    def totals(self) -> tuple[int, int, int]:
        """Tenants, messages, recipients."""
        found = self.tenants.values()
        return len(found), sum(one.messages for one in found), sum(one.recipients for one in found)

    def ordered(self, every: bool) -> list[TenantTally]:
        """Those with anything to say first, the worst first; `every`: the others too."""
        found = [one for one in self.tenants.values() if every or one.telling]
        return sorted(found, key=lambda one: (not one.steps, -one.refused, -len(one.notices), -one.recipients, one.tenant))

    def series(self, volume: Volume) -> tuple[str, int, list[int]]:
        """(`hour` or `day`, number of the first one since 1970, recipients of each) over the whole period."""
        counts: Mapping[int, int] = volume.days
        unit, size = "day", _DAY
        if self.last - self.first <= (LONGEST_HOURS - 1) * _HOUR and volume.hours is not None:
            unit, size, counts = "hour", _HOUR, volume.hours
        end = int(self.last // size)
        begin = max(int(self.first // size), end - _LONGEST_SERIES)
        return unit, begin, [counts.get(number, 0) for number in range(begin, end + 1)]

    def document(self, every: bool) -> dict[str, Any]:
        """As JSON values."""
        _, messages, recipients = self.totals
        unit, begin, values = self.series(self.volume)
        start = begin * (_HOUR if unit == "hour" else _DAY)
        return {
            "period": {"from": _iso(self.first), "to": _iso(self.last)},
            "records": dict(self.records),
            "messages": messages,
            "recipients": recipients,
            "notes": self.notes,
            "volume": {"unit": unit, "from": _iso(start), "recipients": values},
            "members": [told.document() for told in self.members],
            "tenants": [self._tenant(one) for one in self.ordered(every)],
        }

    def _tenant(self, one: TenantTally) -> dict[str, Any]:
        return {
            "tenant": one.tenant, "plan": one.plan, "mode": one.mode, "messages": one.messages, "recipients": one.recipients,
            "refused": one.refused, "limits": [use.document() for use in one.uses.values()],
            "steps": [step.document() for step in one.steps], "notices": [told.document() for told in one.notices],
            "more": dict(one.more), "recipients_while": dict(one.under), "volume": self.series(one.volume)[2],
        }  # fmt: skip


def day_of(at: float) -> str:
    """`2026-11-24 08:00` (UTC)."""
    return datetime.datetime.fromtimestamp(at, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M")


def _iso(at: float) -> str | None:
    return iso_time(at * 1000) or None
