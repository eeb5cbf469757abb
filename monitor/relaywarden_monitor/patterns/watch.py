"""watch - the engine at work: fed with what the monitor reads, kept in the ledger, asked for its opinion of each tenant.

    heard     messages and outcomes go into slices; what policyd refused comes from the ledger (`refusals`)
    turn      slices go to the engine, and it judges; what changed is remembered until `opinion` is asked
    opinion   the step that the engine has a tenant on, as a word of the ladder

Each tenant's state is a note of the ledger (books "!patterns:TENANT", topic "engine"): `state`, `recipients` (novelty) and
`view`, a JSON object from which `show` draws normal against now.  It is read when the tenant is first seen after a start, and
written when a step changes, every half hour while the tenant is active, and at the end.

How it fails: StoreUnavailableError goes to the caller; slices that could not be judged wait.  A state that cannot be read is
logged, and the tenant is learned anew.  A monitor that is killed loses what it learned in the last half hour.

Known limit: of a tenant whose mail comes in by several hosts each monitor learns its part.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from relaywarden.ledger.operations import Ledger, Operation
from relaywarden.ledger.records import Note, Noted, Notes
from relaywarden.logs import event
from relaywarden.patterns import RECIPIENTS, STATE, TOPIC, VIEW, book
from relaywarden.standing import MONITOR, Step, Word
from relaywarden.tenants import Directory
from relaywarden_monitor.attribute import Counted
from relaywarden_monitor.patterns.engine import Change, Engine, PatternSettings, StateError, View
from relaywarden_monitor.patterns.engine import Step as EngineStep
from relaywarden_monitor.patterns.gather import Gatherer
from relaywarden_monitor.patterns.refusals import Refusals
from relaywarden_monitor.patterns.traffic import Slice

log = logging.getLogger(__name__)
KEPT_MS = 90 * 86_400_000
_EVERY = 1800.0  # seconds between two writings of an active tenant's state
_PRESENT = 600.0  # seconds: what is older is a log that is being caught up with, and today's refusals are not of then
_TOGETHER = 100  # states in one batch: each has some 10 KiB
_MOST_CHANGED = 10_000
_DEFAULTS = PatternSettings()


class Watch:
    """One per monitor; used by one thread."""

    def __init__(self, ledger: Ledger, engine: Engine | None = None) -> None:
        self._ledger = ledger
        self._engine = engine or Engine()
        self._by_plan: dict[tuple[float, float], PatternSettings] = {}
        self._gatherer, self._refusals = Gatherer(), Refusals(ledger)
        self._pieces: list[Slice] = []
        self._known: set[str] = set()  # whose state was read
        self._written: OrderedDict[str, float] = OrderedDict()  # when the state of an active tenant was written last
        self.changed: OrderedDict[str, Change] = OrderedDict()  # not carried out yet

    def use(self, directory: Directory) -> None:
        """Go by these plans from now on."""

        def of(name: str) -> PatternSettings:
            tenant = directory.by_name(name)
            if tenant is None:
                return _DEFAULTS
            key = (float(tenant.patterns.start), tenant.patterns.growth)
            found = self._by_plan.get(key)
            if found is None:
                learning = replace(_DEFAULTS.learning, ramp_start=key[0], ramp_growth=key[1])
                found = self._by_plan[key] = replace(_DEFAULTS, learning=learning)
            return found

        self._engine.of = of

    def heard(self, counted: Counted) -> None:
        """What a step has counted."""
        for item in counted.sent:
            self._gatherer.sent(item)
        for judged in counted.judged:
            self._gatherer.outcome(judged)
        for once in counted.once:
            if once.outcome == "complained" and not once.book.startswith("!"):
                self._gatherer.complained(once.book, once.at)

    def complained(self, tenant: str, at: float) -> None:
        """A complaint came as mail."""
        self._gatherer.complained(tenant, at)

    def turn(self, now: float) -> list[str]:
        """Judge what came; the tenants whose step has changed, in `changed` too; raises StoreUnavailableError."""
        self._pieces += self._gatherer.slices()
        latest = {piece.tenant: piece for piece in sorted(self._pieces, key=lambda piece: piece.end)}
        self._load(latest)
        for name, added in self._refusals.since([name for name in latest if now - latest[name].end < _PRESENT], now).items():
            latest[name].refused += added.refused
            latest[name].suppressed += added.suppressed
        pieces, self._pieces = self._pieces, []
        for piece in sorted(pieces, key=lambda piece: piece.end):
            self._engine.observe(piece)
            self._written.setdefault(piece.tenant, now)
        for change in self._engine.turn(now):
            self.changed[change.tenant] = change
            if len(self.changed) > _MOST_CHANGED:
                self.changed.popitem(last=False)
        self._save([name for name, at in self._written.items() if now - at >= _EVERY][:_TOGETHER], now)
        return list(self.changed)

    def opinion(self, tenant: str, now: float) -> Word | None:
        """Where the engine has the tenant by itself; None: nowhere above normal, or where a person put it."""
        stands = self._engine.standing(tenant)
        step = Step[stands.step.name]
        if step is Step.NORMAL or not stands.automatic or stands.over(now):
            return None
        until = None if stands.until is None else int(stands.until * 1000)
        reason = stands.reason or "; ".join(item.text for item in self._engine.view(tenant, now).evidence[:3])
        return Word(step, reason, MONITOR, int(stands.since * 1000), until, times=max(1, stands.times))

    def word(self, tenant: str, word: Word | None, now: float, by: str = "operator") -> None:
        """A person spoke: the tenant stands where he says, or (None) evidence decides again, from normal."""
        if word is None:
            self._engine.word(tenant, None, by, "", now, None)
        else:
            until = None if word.until_ms is None else word.until_ms / 1000
            self._engine.word(tenant, EngineStep[word.step.name], word.by, word.reason, now, until)

    def view(self, tenant: str, now: float) -> View:
        """What is known of the tenant."""
        return self._engine.view(tenant, now)

    def notes(self, tenant: str, now: float) -> list[Operation]:
        """The operation that keeps what is known of a tenant; none where nothing is."""
        if tenant not in self._engine:
            return []
        fields: dict[str, str | None] = {
            STATE: json.dumps(self._engine.state(tenant)),
            RECIPIENTS: self._gatherer.novelty(tenant).pack(),
            VIEW: json.dumps(self._engine.view(tenant, now).document()),
        }
        return [Note(book(tenant), TOPIC, fields, KEPT_MS)]

    def know(self, names: Iterable[str]) -> None:
        """Have what is kept of these tenants at hand; raises StoreUnavailableError."""
        self._load(names)

    def close(self, now: float) -> None:
        """Keep everything; raises StoreUnavailableError."""
        self._save(list(self._written), now)

    def _save(self, names: Sequence[str], now: float) -> None:
        for start in range(0, len(names), _TOGETHER):
            some = names[start : start + _TOGETHER]
            self._ledger.apply([operation for name in some for operation in self.notes(name, now)])
            for name in some:
                self._written.pop(name, None)

    def _load(self, names: Iterable[str]) -> None:
        """The states of tenants that were not seen since the start."""
        missing = [name for name in names if name not in self._known]
        for start in range(0, len(missing), _TOGETHER):
            some = missing[start : start + _TOGETHER]
            results = self._ledger.apply([Notes(book(name), TOPIC, (STATE, RECIPIENTS)) for name in some])
            for name, result in zip(some, results, strict=True):
                if isinstance(result, Noted) and result.fields:
                    self._restore(name, result.fields.get(STATE, ""), result.fields.get(RECIPIENTS, ""))
                self._known.add(name)

    def _restore(self, name: str, state: str, recipients: str) -> None:
        try:
            found: Any = json.loads(state)
            self._engine.restore(name, found)
        except (StateError, ValueError) as error:
            event(log, logging.ERROR, "what was learned of a tenant cannot be read; it begins anew", tenant=name, error=error)
            found = {}
        self._gatherer.restore(name, recipients, (int(row[0]) for row in found.get("templates", [])))
