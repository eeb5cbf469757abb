"""panel - everybody who judges, at one table, over history: patterns, health, bursts, reactions, and the book of alerts.

The caller moves time: `hear`, `observe` and `outcomes` take what happened, `turn` has the patterns judge, `look` the health,
and tells what is over.  What they decide goes into the tally; nothing is carried out, `step` says where a tenant stands.

Notices are those of the monitor: first crossings and recoveries, by the same keys.  What is only watched or said is not told.

Known limits: no person says a word.  Members that would be paused go on carrying mail in the history.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache

from relaywarden.config.settings import Mode, Settings
from relaywarden.outcomes import Amounts
from relaywarden.tenants import Directory, Tenant
from relaywarden_monitor.attribute import Judged
from relaywarden_monitor.bursts import Bursts
from relaywarden_monitor.events import Outcome
from relaywarden_monitor.judge import Finding, Standing
from relaywarden_monitor.notify.alerts import AlertBook, Level, Reading
from relaywarden_monitor.oversight import CALM_SECONDS
from relaywarden_monitor.patterns.engine import Change, Engine
from relaywarden_monitor.patterns.ladder import Step
from relaywarden_monitor.patterns.settings import PatternSettings
from relaywarden_monitor.patterns.traffic import Slice
from relaywarden_monitor.react import Kind, Reaction, Reactions
from relaywarden_monitor.replay.health import STEP, Health
from relaywarden_monitor.replay.tally import Stepped, Tally, TenantTally, Told
from relaywarden_monitor.standings import QUARANTINE
from relaywarden_monitor.verdict import Scope

_MOST_MEMBER_NOTICES = 1000
_REASONS = 4  # in a notice
_DEFAULTS = PatternSettings()


class Panel:
    """One per replay; used by one thread."""

    def __init__(self, settings: Settings, directory: Directory, tally: Tally) -> None:
        self._directory, self._tally = directory, tally
        self._pools = {member: pool for pool, values in settings.pools.items() for member in values.members}
        self._engine, self._bursts = Engine(), Bursts()
        self._engine.of = _constants(directory)
        self._health, self._can_divert = Health(settings), QUARANTINE in settings.pools
        self._reactions = Reactions(settings.react, self._pools, self._others)
        self._alerts = AlertBook(CALM_SECONDS)
        self._at = 0.0  # of what is being heard
        self._paused: dict[tuple[str, str], float] = {}  # member, provider -> until
        self._ends: dict[str, Reading] = {}  # of alerts by replies: what is told when they are over
        self._ends_at: dict[str, float] = {}
        self._touched: set[str] = set()
        self._bursting: dict[str, Finding] = {}
        self._stepped: dict[str, Step] = {}  # by the patterns, above normal

    @property
    def waiting(self) -> bool:
        """Whether anything will end by itself, so that time has to pass in small steps."""
        return bool(self._stepped or self._alerts.alerting or self._health.held)

    def step(self, tenant: str, now: float) -> str:
        """Where the tenant would stand; empty: on normal, or only watched."""
        step = self._stepped.get(tenant, Step.NORMAL)
        if step > Step.WATCHED:
            return step.name.lower()
        return self._health.word(tenant, int(now * 1000))

    def expected(self, tenant: str, now: float) -> float:
        """The tenant's normal of this hour."""
        return self._engine.view(tenant, now).normal[-1]

    def outcomes(self, tenant: str, hour: int, amounts: Amounts) -> None:
        """Outcomes of an hour since 1970."""
        self._health.add(tenant, hour, amounts)
        self._touched.add(tenant)

    def hear(self, judged: Judged) -> None:
        """One attempt."""
        attempt, verdict = judged.attempt, judged.verdict
        self._at = attempt.at
        if judged.tenant and attempt.recipient and attempt.outcome is not Outcome.DEFERRED:
            tenant = self._directory.by_name(judged.tenant)
            invalid = verdict is not None and verdict.scope is Scope.MAILBOX and not verdict.own
            if tenant is not None and (found := self._bursts.feed(tenant.name, attempt.at, int(invalid), 1, tenant.health)):
                self._bursting[tenant.name] = found
                self._touched.add(tenant.name)
                self._tell(found.reading(tenant.name), attempt.at)
        if judged.member or verdict is not None:
            reaction = self._reactions.feed(attempt, verdict, judged.provider, judged.member, judged.tenant)
            if reaction is not None:
                self._react(reaction)

    def observe(self, piece: Slice) -> None:
        """A slice of traffic, for the patterns."""
        self._engine.observe(piece)

    def turn(self, now: float, names: Iterable[str] | None = None) -> list[Change]:
        """Have the patterns judge; the steps that would have been taken."""
        return [change for change in self._engine.turn(now, names) if self._changed(change)]

    def look(self, now: float) -> None:
        """Have the health judged of those of whom something was counted, and of those that wait for an end."""
        alerting = self._alerts.alerting
        names = self._touched
        if alerting or self._health.held:
            names = names | set(self._health.held) | {_subject(key) for key in alerting if key.startswith("tenant:")}
        self._touched = set()
        for name in sorted(names):
            self._look(name, now, any(key.startswith(f"tenant:{name}:") for key in alerting))
        for key in alerting:
            if key in self._ends and self._ends_at[key] <= now:
                self._tell(self._ends[key], now)

    def _look(self, name: str, now: float, alerting: bool) -> None:
        tenant = self._directory.by_name(name)
        if tenant is None:
            return
        if alerting:
            self._see_ends(name, now)
        found = self._health.look(tenant, self._bursting.pop(name, None), int(now * 1000), alerting=alerting)
        for reading in found.readings:
            self._tell(reading, now)
        if found.begun is not None:
            self._acted(tenant, found.begun, found.why_not, now)
        elif found.ended and not self.step(name, now):
            self._tell(_ended(name), now)

    def _see_ends(self, name: str, now: float) -> None:
        alerting = self._alerts.alerting
        if f"tenant:{name}:invalid" in alerting and self._bursts.level(name, now) is Level.NONE:
            self._tell(Reading(f"tenant:{name}:invalid", Level.NONE, name, f"the burst of tenant {name} is over"), now)
        if f"tenant:{name}:standing" in alerting and not self.step(name, now):
            self._tell(_ended(name), now)

    def _acted(self, tenant: Tenant, standing: Standing, why_not: str, now: float) -> None:
        text = standing.reason + (f"; only said: {why_not}" if why_not else "")
        step = Stepped(now, standing.until_ms / 1000, "normal", STEP[standing.action], "health", text, done=not why_not)
        self.tally(tenant).step(step)
        if not why_not:
            what = f"tenant {tenant.name} is {STEP[standing.action]}: {standing.reason}"
            self._tell(Reading(f"tenant:{tenant.name}:standing", Level.ACT, tenant.name, what), now)

    def _changed(self, change: Change) -> bool:
        """Write a step down; whether it would have been taken, not only said."""
        name, step = change.tenant, change.after
        tenant = self._directory.by_name(name)
        if tenant is None or tenant.patterns.mode == "off":
            return False
        if step is Step.NORMAL:
            self._stepped.pop(name, None)
        else:
            self._stepped[name] = step
        why = self._why_not(tenant, step)
        text = change.text + (f"; only said: {why}" if why else "")
        before, after = change.before.name.lower(), step.name.lower()
        taken = Stepped(change.at, change.until, before, after, "patterns", text, done=not why)
        self.tally(tenant).step(taken)
        if step > Step.WATCHED and not why:
            reasons = "; ".join(item.text for item in change.reasons[:_REASONS])
            self._tell(Reading(f"tenant:{name}:standing", Level.ACT, name, f"tenant {name} is {after}: {reasons}"), change.at)
        return not why

    def _why_not(self, tenant: Tenant, step: Step) -> str:
        """Why a step of the patterns is only said; empty: it is taken."""
        if step <= Step.WATCHED:
            return ""
        if tenant.mode is Mode.OBSERVE or tenant.patterns.mode == "observe":
            return "mode observe"
        return f"there is no pool called {QUARANTINE}" if step is Step.DIVERTED and not self._can_divert else ""

    def _react(self, reaction: Reaction) -> None:
        lane = f"member:{reaction.member}:{reaction.provider}"
        key = f"tenant:{reaction.tenant}:{reaction.category}" if reaction.tenant else lane
        if not reaction.tenant and reaction.kind is Kind.NOTICE:
            key = f"{lane}:{reaction.category}"
        if reaction.kind is Kind.PAUSE and not reaction.observed:
            self._paused[reaction.member, reaction.provider] = reaction.until
        level = Level.ACT if reaction.kind is Kind.PAUSE and not reaction.observed else Level.WARN
        subject = reaction.tenant or reaction.member
        self._ends[key] = Reading(key, Level.NONE, subject, f"{subject}: over")
        self._ends_at[key] = reaction.until
        self._tell(Reading(key, level, subject, reaction.text), reaction.at)

    def _others(self, member: str, provider: str) -> int:
        pool = self._pools.get(member)
        return sum(
            1
            for name, home in self._pools.items()
            if home == pool and name != member and self._paused.get((name, provider), 0.0) <= self._at
        )

    def tally(self, tenant: Tenant) -> TenantTally:
        """Where what is found of a tenant goes."""
        found = self._tally.tenants.get(tenant.name)
        if found is None:
            found = self._tally.tenants[tenant.name] = TenantTally(tenant.name, tenant.plan, tenant.mode.value)
        return found

    def _tell(self, reading: Reading, now: float) -> None:
        notice = self._alerts.look(reading, now)
        if notice is None:
            return
        told = Told(now, notice.kind.value, notice.severity.value, notice.key, notice.what)
        tenant = self._directory.by_name(reading.subject) if reading.key.startswith("tenant:") else None
        if tenant is not None:
            self.tally(tenant).tell(told)
        elif len(self._tally.members) < _MOST_MEMBER_NOTICES:
            self._tally.members.append(told)


def _ended(name: str) -> Reading:
    return Reading(f"tenant:{name}:standing", Level.NONE, name, f"tenant {name} stands as normal again")


def _constants(directory: Directory) -> Callable[[str], PatternSettings]:
    """The ramp of each tenant, by its plan."""

    @lru_cache(maxsize=100)
    def ramp(start: int, growth: float) -> PatternSettings:
        return replace(_DEFAULTS, learning=replace(_DEFAULTS.learning, ramp_start=start, ramp_growth=growth))

    def of(name: str) -> PatternSettings:
        tenant = directory.by_name(name)
        return _DEFAULTS if tenant is None else ramp(tenant.patterns.start, tenant.patterns.growth)

    return of


def _subject(key: str) -> str:
    """The tenant that a key of an alert is about; its name may hold colons."""
    return key.partition(":")[2].rpartition(":")[0]
