"""health - tenants' bad outcomes over history: the monitor's `judge`, on hours that are kept here.  No I/O, no clock.

Of each tenant the hours of its window are kept, and their sum, so that those of whom nothing can be said cost next to nothing:
a share below its `warn` has a lower bound below it, too.

Known limit: what happens in the last hour of the window counts as long as a part of that hour does, as in the ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from relaywarden import outcomes
from relaywarden.config.monitor_settings import HealthSettings
from relaywarden.config.settings import Mode, Settings
from relaywarden.ledger.records import HOUR_MS
from relaywarden.tenants import Tenant
from relaywarden_monitor import judge
from relaywarden_monitor.judge import Finding, Standing
from relaywarden_monitor.notify.alerts import Reading
from relaywarden_monitor.standings import QUARANTINE

_BAD = (outcomes.INVALID, outcomes.BLOCKED, "complained")
STEP = {"divert": "diverted", "hold": "held", "suspend": "suspended"}


class Looked(NamedTuple):
    """What came of a look at one tenant."""

    readings: list[Reading]
    begun: Standing | None = None  # something would be done about the tenant from now on
    why_not: str = ""  # but the configuration forbids it
    ended: bool = False  # what was done is over


@dataclass(slots=True)
class _Window:
    """One tenant's hours."""

    hours: dict[int, Counter[str]] = field(default_factory=dict)  # since 1970
    total: Counter[str] = field(default_factory=Counter)
    standing: Standing | None = None
    open: bool = False  # the standing's end was not told yet
    only_told: str = ""

    def add(self, hour: int, amounts: Mapping[str, int]) -> None:
        found = self.hours.get(hour)
        if found is None:
            found = self.hours[hour] = Counter()
        found.update(amounts)
        self.total.update(amounts)

    def trim(self, first: int) -> None:
        for hour in [hour for hour in self.hours if hour < first]:
            self.total.subtract(self.hours.pop(hour))


class Health:
    """The outcomes of all tenants."""

    def __init__(self, settings: Settings) -> None:
        self._can_divert = QUARANTINE in settings.pools
        self._windows: dict[str, _Window] = {}

    def add(self, tenant: str, hour: int, amounts: Mapping[str, int]) -> None:
        """Outcomes of an hour since 1970, by the names of `relaywarden.outcomes`."""
        self._windows.setdefault(tenant, _Window()).add(hour, amounts)

    @property
    def held(self) -> list[str]:
        """Tenants about whom something is done: they have to be looked at until it ends."""
        return [name for name, window in self._windows.items() if window.open]

    def word(self, tenant: str, now_ms: int) -> str:
        """The step that a tenant stands on by its outcomes; empty: none."""
        window = self._windows.get(tenant)
        standing = window.standing if window is not None else None
        return STEP[standing.action] if standing is not None and standing.holds(now_ms) else ""

    def look(self, tenant: Tenant, burst: Finding | None, now_ms: int, *, alerting: bool) -> Looked:
        """Judge a tenant now; `alerting`: a recovery may have to be seen."""
        window = self._windows.get(tenant.name)
        if window is None:
            window = self._windows[tenant.name] = _Window()
        health = tenant.health
        window.trim((now_ms - health.window) // HOUR_MS)
        standing = window.standing
        if standing is None and burst is None and not alerting and not _may_fail(health, window.total):
            return Looked([])
        if standing is not None:
            standing = judge.settle(standing, window.hours, now_ms)
        findings = judge.review(health, window.hours, standing, now_ms)
        readings = [finding.reading(tenant.name) for finding in findings]
        after = judge.decide(standing, [*findings, *([burst] if burst is not None else [])], health, now_ms)
        return self._settled(tenant, window, standing, after, readings, now_ms)

    def _settled(
        self,
        tenant: Tenant,
        window: _Window,
        before: Standing | None,
        after: Standing | None,
        readings: list[Reading],
        now_ms: int,
    ) -> Looked:
        if after is not None and after is not before and after.holds(now_ms):
            why = self._why_not(tenant, after)
            if not why:
                window.standing, window.open, window.only_told = after, True, ""
                return Looked(readings, after)
            window.standing, news = before, window.only_told != why
            window.only_told = why
            return Looked(readings, after if news else None, why)
        window.standing, window.only_told = after, ""
        ended = window.open and (before is None or not before.holds(now_ms))
        window.open = window.open and not ended
        return Looked(readings, ended=ended)

    def _why_not(self, tenant: Tenant, standing: Standing) -> str:
        if tenant.mode is Mode.OBSERVE:
            return "mode observe"
        return f"there is no pool called {QUARANTINE}" if standing.action == "divert" and not self._can_divert else ""


def _may_fail(health: HealthSettings, total: Counter[str]) -> bool:
    """Whether any share may reach a threshold: far cheaper than to judge."""
    if not any(total[name] for name in _BAD):
        return False
    return any(
        share.whole >= health.min_sample and share.value >= getattr(health, name).warn
        for name, share in outcomes.shares(total).items()
    )
