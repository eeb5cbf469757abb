"""engine - observe what tenants send, and say who steps up or down, when, and why.  Pure: no I/O, no clock.

    observe   counts a slice: some microseconds
    turn      judges the tenants that were observed since the last turn, and those whose step is over
    standing  where a tenant stands
    view      everything that a person may want to know about a tenant
    word      a person's word; it stands above all evidence
    state, restore    a tenant as JSON values, for the ledger

A tenant that sends nothing costs nothing.  Call `turn` every few seconds.

How it fails: `restore` raises StateError, and the tenant stays as it was.  Beyond CAPACITY tenants the one that was quiet
longest is forgotten, and learned anew when it comes back; one with a step in force goes last.

Known limits: not for several threads.  All state of a tenant is in memory, about 10 KiB.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from relaywarden_monitor.patterns import ladder
from relaywarden_monitor.patterns.change import Change, describe, utc
from relaywarden_monitor.patterns.evidence import Evidence, plain
from relaywarden_monitor.patterns.ladder import Standing, Step
from relaywarden_monitor.patterns.record import Record, StateError
from relaywarden_monitor.patterns.settings import PatternSettings
from relaywarden_monitor.patterns.signals import collect
from relaywarden_monitor.patterns.signals.look import Look
from relaywarden_monitor.patterns.traffic import Slice
from relaywarden_monitor.patterns.view import View, draw

__all__ = ["Change", "Engine", "Evidence", "PatternSettings", "Standing", "StateError", "Step", "View"]

CAPACITY = 200_000
_HISTORY = 8  # lines kept of each tenant
_LONGEST_LINE = 160
_DEFAULTS = PatternSettings()


@dataclass(slots=True)
class _Tenant:
    record: Record
    evidence: list[Evidence]  # of the last turn
    history: deque[str]


class Engine:
    """The patterns of all tenants."""

    def __init__(self, settings: PatternSettings = _DEFAULTS, capacity: int = CAPACITY) -> None:
        self._settings, self._capacity = settings, capacity
        self.of: Callable[[str], PatternSettings] = lambda _: self._settings  # a tenant's own constants, by its plan
        self._tenants: OrderedDict[str, _Tenant] = OrderedDict()
        self._touched: set[str] = set()
        self._ends: list[tuple[float, str]] = []  # a heap; an entry that does not hold any more is harmless

    def __len__(self) -> int:
        return len(self._tenants)

    def __contains__(self, tenant: object) -> bool:
        return tenant in self._tenants

    def observe(self, piece: Slice) -> None:
        """Count a slice; those of one tenant come in the order of time."""
        tenant = self._tenants.get(piece.tenant) or self._enter(piece.tenant, piece.begin)
        tenant.record.observe(piece, self.of(piece.tenant))
        self._tenants.move_to_end(piece.tenant)
        self._touched.add(piece.tenant)

    def turn(self, now: float, names: Iterable[str] | None = None) -> list[Change]:
        """The steps that change now; `names`: look at these tenants alone."""
        if names is None:
            due, self._touched = self._touched, set()
            while self._ends and self._ends[0][0] <= now:
                due.add(heapq.heappop(self._ends)[1])
        else:
            due = set(names)
            self._touched -= due
        changes = []
        for name in due:
            tenant = self._tenants.get(name)
            if tenant is not None and (change := self._judge(name, tenant, now)):
                changes.append(change)
        return changes

    def view(self, tenant: str, now: float) -> View:
        """What is known of a tenant; of one never seen, that nothing is."""
        found = self._tenants.get(tenant)
        if found is None:
            return draw(Record(tenant, now, self.of(tenant)), [], [], self.of(tenant), now)
        return draw(found.record, found.evidence, found.history, self.of(tenant), now)

    def standing(self, tenant: str) -> Standing:
        """Where the tenant stands, as of the last turn: what is needed often, at no cost."""
        found = self._tenants.get(tenant)
        return Standing() if found is None else found.record.standing

    def word(self, tenant: str, step: Step | None, by: str, reason: str, now: float, until: float | None) -> Change | None:
        """A person says where the tenant stands, until then (None: for good); step None: evidence decides again, from NORMAL.

        What was seen so far is then forgiven, and the names under which the tenant came are known.
        """
        found = self._tenants.get(tenant) or self._enter(tenant, now)
        before, found.evidence = found.record.standing, []
        after = ladder.spoken(before, step, by, reason, now, until)
        if step is None:
            found.record.forgive()
            for names in found.record.names:
                names.accept()
        return self._change(tenant, found, before, after, (), now, by=by)

    def state(self, tenant: str) -> dict[str, Any]:
        """All that is kept of a tenant, as JSON values of a few KiB; raises KeyError for one never seen."""
        found = self._tenants[tenant]
        return {**found.record.state(), "history": list(found.history)}

    def restore(self, tenant: str, state: dict[str, Any]) -> None:
        """From `state()`, also of an engine on another host; raises StateError."""
        record = Record.restore(tenant, state, self.of(tenant))
        told = state.get("history")
        lines = told if isinstance(told, list) else []
        history = deque((plain(str(line), _LONGEST_LINE) for line in lines[-_HISTORY:]), _HISTORY)
        self._tenants[tenant] = _Tenant(record, [], history)
        self._schedule(tenant, record.standing)

    def _judge(self, name: str, tenant: _Tenant, now: float) -> Change | None:
        record = tenant.record
        look = Look.at(record, self.of(name), now)
        evidence = tenant.evidence = collect(look)
        before = record.standing
        if not evidence and before.step is Step.NORMAL and before.automatic:
            return None
        lately = collect(look.lately()) if before.step > Step.WATCHED else evidence
        after = ladder.advance(before, evidence, lately, self.of(name).ladder, now, goes_on=look.broadcasts())
        if after is before:
            return None
        if after.step is Step.NORMAL and (before.step > Step.WATCHED or not before.automatic):
            record.forgive()
        by = ladder.BY if before.automatic else before.by
        return self._change(name, tenant, before, after, tuple(ladder.by_weight(evidence)), now, by=by)

    def _change(
        self,
        name: str,
        tenant: _Tenant,
        before: Standing,
        after: Standing,
        reasons: tuple[Evidence, ...],
        now: float,
        *,
        by: str,
    ) -> Change | None:
        tenant.record.standing = after
        self._schedule(name, after)
        if before.step is after.step and before.automatic and after.automatic and after.step <= Step.WATCHED:
            return None  # being watched goes on: nobody needs to be told
        change = describe(name, before, after, reasons, now, by)
        tenant.history.append(plain(f"{utc(now)} {change.text}", _LONGEST_LINE))
        return change

    def _schedule(self, name: str, standing: Standing) -> None:
        if standing.until is not None:
            heapq.heappush(self._ends, (standing.until, name))

    def _enter(self, name: str, now: float) -> _Tenant:
        if len(self._tenants) >= self._capacity:
            self._forget()
        tenant = self._tenants[name] = _Tenant(Record(name, now, self.of(name)), [], deque(maxlen=_HISTORY))
        return tenant

    def _forget(self) -> None:
        """The tenant that was quiet longest; the first few with a step in force are passed over."""
        for _ in range(100):
            name, tenant = self._tenants.popitem(last=False)
            if tenant.record.standing == Standing() or tenant.record.standing.step is Step.NORMAL:
                return
            self._tenants[name] = tenant
        self._tenants.popitem(last=False)
