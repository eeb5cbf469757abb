"""standings - look at the tenants that something was counted of, and carry out what follows from it.

Two judges look at a tenant.  `judge` holds its bounces, complaints and blocks against the plan's thresholds; `patterns` holds
what it sends against its own normal.  The higher of their steps is what the tenant stands on (`relaywarden.standing`: the
milter and policyd hear it from there).  A person's word stands above both: as long as it holds nothing is changed, and where a
person has taken a step back, what led to it is not held against the tenant again.  A person who speaks between our reading and
our writing wins, too: the store leaves alone what is not ours (`standing.say`), and what we said beside it is taken back.

Two notes of the ledger (books "!monitor") have a field for each tenant: topic "standings" the record of the thresholds, topic
"said" the word that was last in force, whoever said it.  Where the second says a word that is gone before its time, a person
has taken it back, also while the monitor was not running.

How it fails: StoreUnavailableError goes to the caller, who looks again; nothing was half done that a second look does not mend.
A record that cannot be read is logged and begun anew.

Known limit: while a grant holds, its tenant is neither slowed nor diverted by patterns, whatever it sends; held it is.
"""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from relaywarden import standing as ladder
from relaywarden import steering
from relaywarden.config.settings import Mode, Settings
from relaywarden.ledger.operations import Done, Ledger, Operation, Read, Result, Snapshot
from relaywarden.ledger.records import History, Hours, Note, Noted, Notes
from relaywarden.logs import event
from relaywarden.outcomes import Amounts
from relaywarden.standing import MONITOR, Step, Word
from relaywarden.tenants import Directory, Tenant
from relaywarden_monitor import judge, meters
from relaywarden_monitor.judge import Finding, Standing, StandingError
from relaywarden_monitor.notify.alerts import Level, Reading
from relaywarden_monitor.steps import BOOK

log = logging.getLogger(__name__)
TOPIC, SAID = "standings", "said"
QUARANTINE = "quarantine"
_STEPS = {"divert": Step.DIVERTED, "suspend": Step.SUSPENDED, "hold": Step.HELD}
_DONE = {
    Step.WATCHED: "watched", Step.SLOWED: "slowed", Step.DIVERTED: "diverted to quarantine",
    Step.HELD: "held in Postfix' hold queue", Step.SUSPENDED: "suspended",
}  # fmt: skip

Tell = Callable[[Reading], None]


class Patterns(Protocol):
    """The judge of what a tenant sends (patterns.watch)."""

    def opinion(self, tenant: str, now: float) -> Word | None:
        """The step that evidence has the tenant on."""
        ...

    def word(self, tenant: str, word: Word | None, now: float) -> None:
        """A person spoke, or (None) took back what was done."""
        ...

    def notes(self, tenant: str, now: float) -> list[Operation]:
        """What keeps its record of the tenant."""
        ...


@dataclass(frozen=True, slots=True)
class _Seen:
    """All that is known of a tenant at one look."""

    tenant: Tenant
    hours: Mapping[int, Amounts]
    state: Mapping[str, Any]
    said: Mapping[str, Any] | None  # what the milters have heard
    kept: Standing | None
    now_ms: int

    @property
    def granted(self) -> bool:
        """Whether a person has allowed more than usual."""
        grants = self.state.get("grants")
        entries = grants.values() if isinstance(grants, Mapping) else ()
        return any(not entry.get("until_ms") or entry["until_ms"] > self.now_ms for entry in entries)


class Standings:
    """One per monitor; used by one thread."""

    def __init__(self, settings: Settings, ledger: Ledger, tell: Tell, patterns: Patterns | None = None) -> None:
        self._ledger, self._tell, self._patterns = ledger, tell, patterns
        self._only_told: dict[str, str] = {}  # tenant -> why nothing is done, as long as something would be
        self._said: dict[str, Word] | None = None  # the word last in force, whosever it is; None: not read yet
        self.use(settings)

    def use(self, settings: Settings) -> None:
        """Go on by these settings; what is known of tenants stays."""
        self._directory = Directory(settings)
        self._can_divert = QUARANTINE in settings.pools

    def look(self, names: Sequence[str], bursts: Mapping[str, Finding]) -> None:
        """Judge these tenants now; `bursts` has what was found in the burst of some; raises StoreUnavailableError."""
        tenants = [tenant for name in names if (tenant := self._directory.by_name(name)) is not None and tenant.name == name]
        for seen in self._read(tenants) if tenants else ():
            self._judge(seen, self._known(), bursts.get(seen.tenant.name))

    def held(self) -> list[str]:
        """Tenants about whom something was done that may be over: they are looked at again without new outcomes."""
        (found,) = self._ledger.apply([Notes(BOOK, TOPIC)])
        return list(dict.fromkeys([*(found.fields if isinstance(found, Noted) else ()), *self._known()]))

    def _known(self) -> dict[str, Word]:
        """The words last in force; of before a restart from the ledger."""
        if self._said is None:
            (found,) = self._ledger.apply([Notes(BOOK, SAID)])
            fields = found.fields if isinstance(found, Noted) else {}
            self._said = {name: word for name, text in fields.items() if (word := _word_of(name, text)) is not None}
        return self._said

    def _read(self, tenants: Sequence[Tenant]) -> list[_Seen]:
        words = steering.read(self._ledger)
        now_ms, names = words.now_ms, tuple(tenant.name for tenant in tenants)
        asked: list[Operation] = [History(tenant.name, now_ms - tenant.health.window, now_ms) for tenant in tenants]
        asked += [Read(tenant.account()) for tenant in tenants]
        *results, notes = self._ledger.apply([*asked, Notes(BOOK, TOPIC, names)])
        kept = notes.fields if isinstance(notes, Noted) else {}
        records, states = results[: len(tenants)], results[len(tenants) :]
        return [
            _Seen(
                tenant,
                record.hours if isinstance(record, Hours) else {},
                snapshot.state if isinstance(snapshot, Snapshot) else {},
                words.tenants.get(tenant.name),
                _standing(tenant.name, kept.get(tenant.name)),
                now_ms,
            )
            for tenant, record, snapshot in zip(tenants, records, states, strict=True)
        ]

    def _judge(self, seen: _Seen, known: dict[str, Word], burst: Finding | None) -> None:
        tenant, now_ms = seen.tenant, seen.now_ms
        current = ladder.heard(seen.state, now_ms)
        standing = judge.heard(seen.kept, seen.said, now_ms)
        by_person = (standing is not None and standing.by != judge.BY) or ladder.persons(seen.state, now_ms)
        ours = seen.kept if standing is not None and standing.by != judge.BY else standing
        ours = judge.settle(ours, seen.hours, now_ms) if ours is not None else None
        findings = judge.review(tenant.health, seen.hours, ours, now_ms)
        for finding in findings:
            self._tell(finding.reading(tenant.name))
        if burst is not None:
            findings.append(burst)
        after = ours if by_person else judge.decide(ours, findings, tenant.health, now_ms)
        begins = after is not ours and after is not None and after.holds(now_ms)
        if after is not None and begins and not self._binds(seen, _STEPS[after.action], after.reason):
            after = ours
        opinion = self._opinion(seen, known.get(tenant.name), current, by_person=by_person)
        if opinion is not None and not self._binds(seen, opinion.step, opinion.reason, by_patterns=True):
            opinion = None
        elif opinion is None and not begins:
            self._only_told.pop(tenant.name, None)
        word = _higher(_word(after, now_ms), opinion)
        if by_person:
            self._leave(seen, after, current, known)
        else:
            self._carry_out(seen, after, current, word, known)

    def _opinion(self, seen: _Seen, known: Word | None, current: Word | None, *, by_person: bool) -> Word | None:
        """What the patterns say, once they have heard what persons said."""
        patterns, name, now = self._patterns, seen.tenant.name, seen.now_ms / 1000
        if patterns is None:
            return None
        if by_person:
            if current is not None and current.by != MONITOR and known != current:
                patterns.word(name, current, now)
            return None
        if current is None and known is not None and (known.by != MONITOR or known.holds(seen.now_ms)):
            patterns.word(name, None, now)  # taken back, or a person's word is over
        rules = seen.tenant.patterns
        found = patterns.opinion(name, now) if rules.mode != "off" else None
        if found is not None:
            found = found._replace(factor=rules.slow)
        if found is not None and seen.granted and Step.WATCHED.height < found.step.height < Step.HELD.height:
            return found._replace(step=Step.WATCHED)
        return found

    def _binds(self, seen: _Seen, step: Step, reason: str, *, by_patterns: bool = False) -> bool:
        """Whether it may be done; else it is only told, once as long as it is so."""
        if step.height <= Step.WATCHED.height:
            return True
        tenant = seen.tenant
        why = "mode observe" if seen.state.get("mode", tenant.mode.value) == Mode.OBSERVE.value else ""
        if by_patterns and tenant.patterns.mode == "observe":
            why = "patterns: mode observe"
        if step is Step.DIVERTED and not self._can_divert:
            why = f"there is no pool called {QUARANTINE}"
        if why and self._only_told.get(tenant.name) != why:
            self._only_told[tenant.name] = why
            event(
                log, logging.WARNING, "would act on a tenant", tenant=tenant.name, step=step.value, why_not=why, reason=reason
            )
            meters.REACTIONS.labels("observed").inc()
        return not why

    def _carry_out(
        self, seen: _Seen, after: Standing | None, current: Word | None, word: Word | None, known: dict[str, Word]
    ) -> None:
        name = seen.tenant.name
        changes = word is None or current is None or _differs(word, current)
        ended = word is None and (current is not None or _lingers(seen))
        steers = ladder.say(name, word, by=MONITOR) if changes and (word is not None or ended) else []
        results = self._write([*steers, *self._notes(seen, after, known.get(name), word, bool(steers))])
        if _is_persons(results, seen.now_ms):
            event(log, logging.WARNING, "a person was quicker, his word holds", tenant=name)
            self._write(ladder.say(name, None, by=MONITOR))  # what of ours went in beside it
            return
        _keep(known, name, word)
        self._report(seen, current, word, changes=changes, ended=ended)

    def _leave(self, seen: _Seen, after: Standing | None, current: Word | None, known: dict[str, Word]) -> None:
        """A person's word holds; take note of it, and take back what of ours is beside it."""
        name = seen.tenant.name
        word = current if current is not None and current.by != MONITOR else known.get(name)
        steers = ladder.say(name, None, by=MONITOR) if _lingers(seen) else []
        self._write([*steers, *self._notes(seen, after, known.get(name), word, bool(steers))])
        _keep(known, name, word)
        self._tell(Reading(_key(name), Level.NONE, name, f"tenant {name} stands where a person has put it"))

    def _notes(
        self, seen: _Seen, after: Standing | None, known: Word | None, word: Word | None, steered: bool
    ) -> list[Operation]:
        """What is to be kept of the tenant in our own books."""
        name, operations = seen.tenant.name, list[Operation]()
        if after != seen.kept:
            operations.append(Note(BOOK, TOPIC, {name: json.dumps(after.document()) if after is not None else None}))
        news = word is not known and (word is None or known is None or _differs(word, known))
        if news:
            operations.append(Note(BOOK, SAID, {name: json.dumps(ladder.document(word)) if word is not None else None}))
        if self._patterns is not None and (steered or news):
            operations += self._patterns.notes(name, seen.now_ms / 1000)
        return operations

    def _write(self, operations: list[Operation]) -> list[Result]:
        return self._ledger.apply(operations) if operations else []

    def _report(self, seen: _Seen, current: Word | None, word: Word | None, *, changes: bool, ended: bool) -> None:
        name = seen.tenant.name
        if word is not None and changes:
            event(log, logging.WARNING, "acted on a tenant", tenant=name, step=word.step.value, reason=word.reason,
                  until=None if word.until_ms is None else word.until_ms // 1000)  # fmt: skip
            meters.REACTIONS.labels(word.step.value).inc()
        if word is not None and changes and word.step.height > Step.WATCHED.height:
            self._tell(_reading(name, word, Level.ACT))
        elif word is None and (ended or current is None):
            self._tell(Reading(_key(name), Level.NONE, name, f"tenant {name} stands as normal again"))


def _keep(known: dict[str, Word], name: str, word: Word | None) -> None:
    if word is None:
        known.pop(name, None)
    else:
        known[name] = word


def _is_persons(results: Sequence[Result], now_ms: int) -> bool:
    """Whether a person's word was there when ours was to be written; the tenant's own state is written first."""
    return bool(results) and isinstance(results[0], Done) and ladder.persons(results[0].state, now_ms)


def _word(standing: Standing | None, now_ms: int) -> Word | None:
    """What the thresholds have done, as a word of the ladder."""
    if standing is None or standing.by != judge.BY or not standing.holds(now_ms):
        return None
    return Word(_STEPS[standing.action], standing.reason, MONITOR, standing.since_ms, standing.until_ms, times=standing.times)


def _higher(one: Word | None, other: Word | None) -> Word | None:
    found = [word for word in (one, other) if word is not None]
    return max(found, key=lambda word: (word.step.height, word.until_ms or 0)) if found else None


def _differs(word: Word, current: Word) -> bool:
    return (word.step, word.until_ms, word.by) != (current.step, current.until_ms, current.by)


def _lingers(seen: _Seen) -> bool:
    """Something of ours is still written down that is over."""
    written = (seen.state.get(name) for name in ("standing", "slow", "suspended"))
    ours = any(isinstance(entry, Mapping) and entry.get("by") == MONITOR for entry in written)
    return ours or (seen.said is not None and seen.said.get("by") == judge.BY)


def _key(name: str) -> str:
    return f"tenant:{name}:standing"


def _reading(name: str, word: Word, level: Level) -> Reading:
    what = f"tenant {name} is {_DONE[word.step]}: {word.reason}"
    return Reading(_key(name), level, name, what, {"step": word.step.value}, f"relaywarden resume {shlex.quote(name)}")


def _standing(name: str, text: str | None) -> Standing | None:
    if text is None:
        return None
    try:
        return Standing.read(json.loads(text))
    except (StandingError, ValueError) as error:
        event(log, logging.ERROR, "what was noted of a tenant's standing cannot be read; it begins anew", tenant=name,
              error=error)  # fmt: skip
        return None


def _word_of(name: str, text: str) -> Word | None:
    try:
        return ladder.read(json.loads(text))
    except ValueError as error:
        event(log, logging.ERROR, "what was last said of a tenant cannot be read; it is not known whether that was taken back",
              tenant=name, error=error)  # fmt: skip
        return None
