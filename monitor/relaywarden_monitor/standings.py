"""standings - look at the tenants that something was counted of, and carry out what `judge` says of them.

What is done about a tenant goes two ways: a word of `steering`, which the milter hears within a second (divert, suspended), and
for a suspension the tenant's own dynamic state, which policyd reads with every request.  The monitor's own record of it is a
note of the ledger (books "!monitor", topic "standings", a field for each tenant).

How it fails: StoreUnavailableError goes to the caller, who looks again; nothing was half done that a second look does not mend.
A record that cannot be read is logged and begun anew.

Known limit: two hosts that judge one tenant in the same second may tell of it twice.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from relaywarden import steering
from relaywarden.config.settings import Mode, Settings
from relaywarden.ledger.operations import Ledger, Operation, Steer
from relaywarden.ledger.records import History, Hours, Note, Noted, Notes
from relaywarden.logs import event
from relaywarden.outcomes import Amounts
from relaywarden.steering import Words
from relaywarden.tenants import Directory, Tenant
from relaywarden_monitor import judge, meters
from relaywarden_monitor.judge import Finding, Standing, StandingError
from relaywarden_monitor.notify.alerts import Level, Reading
from relaywarden_monitor.steps import BOOK

log = logging.getLogger(__name__)
TOPIC = "standings"
QUARANTINE = "quarantine"

Tell = Callable[[Reading], None]


class Standings:
    """One per monitor; used by one thread."""

    def __init__(self, settings: Settings, ledger: Ledger, tell: Tell) -> None:
        self._ledger, self._tell = ledger, tell
        self._directory = Directory(settings)
        self._can_divert = QUARANTINE in settings.pools
        self._only_told: dict[str, str] = {}  # tenant -> why nothing is done, as long as something would be

    def look(self, names: Sequence[str], bursts: Mapping[str, Finding]) -> None:
        """Judge these tenants now; `bursts` has what was found in the burst of some; raises StoreUnavailableError."""
        tenants = [tenant for name in names if (tenant := self._directory.by_name(name)) is not None and tenant.name == name]
        if not tenants:
            return
        words = steering.read(self._ledger)
        for tenant, hours, kept in self._read(tenants, words.now_ms):
            self._judge(tenant, hours, kept, words, bursts.get(tenant.name))

    def held(self) -> list[str]:
        """Tenants about whom something was done that may be over: they are looked at again without new outcomes."""
        (found,) = self._ledger.apply([Notes(BOOK, TOPIC)])
        return list(found.fields) if isinstance(found, Noted) else []

    def _read(self, tenants: Sequence[Tenant], now_ms: int) -> list[tuple[Tenant, Mapping[int, Amounts], Standing | None]]:
        asked: list[Operation] = [History(tenant.name, now_ms - tenant.health.window, now_ms) for tenant in tenants]
        *records, notes = self._ledger.apply([*asked, Notes(BOOK, TOPIC, tuple(tenant.name for tenant in tenants))])
        kept = notes.fields if isinstance(notes, Noted) else {}
        return [
            (tenant, record.hours if isinstance(record, Hours) else {}, _standing(tenant.name, kept.get(tenant.name)))
            for tenant, record in zip(tenants, records, strict=True)
        ]

    def _judge(
        self, tenant: Tenant, hours: Mapping[int, Amounts], kept: Standing | None, words: Words, burst: Finding | None
    ) -> None:
        now_ms, said = words.now_ms, words.tenants.get(tenant.name)
        standing = judge.heard(kept, said, now_ms)
        by_person = standing is not None and standing.by != judge.BY
        ours = kept if by_person else standing
        ours = judge.settle(ours, hours, now_ms) if ours is not None else None
        findings = judge.review(tenant.health, hours, ours, now_ms)
        for finding in findings:
            self._tell(finding.reading(tenant.name))
        if burst is not None:
            findings.append(burst)
        after = ours
        if not by_person:
            after = judge.decide(ours, findings, tenant.health, now_ms)
        begins = after is not ours and after is not None and after.holds(now_ms)
        if after is not None and begins and not self._binds(tenant, after):
            after = ours
        elif not begins:
            self._only_told.pop(tenant.name, None)
        self._carry_out(tenant, kept, after, said, now_ms)

    def _binds(self, tenant: Tenant, standing: Standing) -> bool:
        """Whether it may be done; else it is only told, once as long as it is so."""
        why = "mode observe" if tenant.mode is Mode.OBSERVE else ""
        if standing.action == "divert" and not self._can_divert:
            why = f"there is no pool called {QUARANTINE}"
        if why and self._only_told.get(tenant.name) != why:
            self._only_told[tenant.name] = why
            event(log, logging.WARNING, "would act on a tenant", tenant=tenant.name, action=standing.action, why_not=why,
                  reason=standing.reason)  # fmt: skip
            meters.REACTIONS.labels("observed").inc()
        return not why

    def _carry_out(
        self, tenant: Tenant, kept: Standing | None, after: Standing | None, said: Mapping[str, Any] | None, now_ms: int
    ) -> None:
        operations: list[Operation] = []
        if after != kept:
            operations.append(Note(BOOK, TOPIC, {tenant.name: json.dumps(after.document()) if after is not None else None}))
        ours = after is not None and after.by == judge.BY and after.holds(now_ms)
        began = after is not None and ours and (kept is None or after.since_ms != kept.since_ms)
        if after is not None and began:
            operations.append(steering.say("tenants", {tenant.name: after.steering(now_ms)}))
            if after.action == "suspend":
                entry = {"reason": after.reason, "by": after.by, "until_ms": after.until_ms}
                operations.append(Steer(tenant.name, {"suspended": entry}))
        elif not ours and said is not None and said.get("by") == judge.BY:
            operations.append(steering.say("tenants", {tenant.name: None}))
        if operations:
            self._ledger.apply(operations)
        if after is not None and began:
            event(log, logging.WARNING, "acted on a tenant", tenant=tenant.name, action=after.action, reason=after.reason,
                  times=after.times, seconds=(after.until_ms - now_ms) // 1000)  # fmt: skip
            meters.REACTIONS.labels(after.action).inc()
            self._tell(_reading(tenant.name, after, Level.ACT))
        elif kept is not None and kept.holds(kept.since_ms) and not ours:
            self._tell(_reading(tenant.name, kept, Level.NONE))


def _reading(name: str, standing: Standing, level: Level) -> Reading:
    done = {"divert": "diverted to quarantine", "suspend": "suspended"}.get(standing.action, standing.action)
    what = f"tenant {name} is {done}: {standing.reason}" if level is Level.ACT else f"tenant {name} is no longer {done}"
    return Reading(f"tenant:{name}:standing", level, name, what, {"times": standing.times}, f"relaywarden resume {name}")


def _standing(name: str, text: str | None) -> Standing | None:
    if text is None:
        return None
    try:
        return Standing.read(json.loads(text))
    except (StandingError, ValueError) as error:
        event(
            log, logging.ERROR, "what was noted of a tenant's standing cannot be read; it begins anew", tenant=name, error=error
        )
        return None
