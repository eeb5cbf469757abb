"""pauses - carry out what `react` decides: pause a member for a provider, tell PowerMTA, tell people, and say who sent more.

A pause is an entry of `steering`, which the milter hears within a second: mail to that provider goes by other members, or
waits.  What was decided is kept in the ledger (books "!monitor", topic "reactions"), so that a restart does not begin the
doubling anew, and knows which alerts are over.

    member:MEMBER:PROVIDER            alerts as long as the pause lasts
    member:MEMBER:PROVIDER:CATEGORY   what no pause mends: for a day
    tenant:TENANT:CATEGORY            for a day

How it fails: StoreUnavailableError goes to the caller; what was decided meanwhile is carried out at the next turn.

Known limit: of mail before a restart it is not known whose volume grew.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, deque
from collections.abc import Callable, Collection
from dataclasses import replace

from relaywarden import steering, warmup
from relaywarden.config.settings import Settings
from relaywarden.ledger.operations import Ledger
from relaywarden.ledger.records import HOUR_MS, History, Hours, Note, Noted, Notes
from relaywarden.logs import event
from relaywarden.outcomes import by_provider, total
from relaywarden.steering import Words
from relaywarden_monitor import meters, pmta
from relaywarden_monitor.attribute import Judged
from relaywarden_monitor.culprits import Culprit, culprits
from relaywarden_monitor.notify.alerts import Level, Reading
from relaywarden_monitor.react import UNMISTAKABLE, Kind, Reaction, Reactions, StateError
from relaywarden_monitor.steps import BOOK

log = logging.getLogger(__name__)
TOPIC, _STATE = "reactions", "state"
_MOST_WAITING = 1_000
_MOST_CANDIDATES = 20  # tenants whose usual volume is looked up
_USUAL_HOURS = 7 * 24
_DAY = 86_400.0

Tell = Callable[[Reading], None]


class Pauses:
    """One per monitor; used by one thread."""

    def __init__(self, settings: Settings, ledger: Ledger, tell: Tell) -> None:
        self._settings, self._ledger, self._tell = settings, ledger, tell
        self._ips = {name: values.ip for pool in settings.pools.values() for name, values in pool.members.items()}
        self._pools = {name: pool for pool, values in settings.pools.items() for name in values.members}
        self._reactions = Reactions(settings.react, self._ips, self._others)
        self._words = Words()
        self._volumes: dict[int, dict[str, Counter[str]]] = {}  # hour -> provider -> recipients by tenant
        self._waiting: deque[Reaction] = deque(maxlen=_MOST_WAITING)
        self._restored = False

    def restore(self) -> None:
        """Know again what was done before a restart, once; raises StoreUnavailableError."""
        if self._restored:
            return
        (found,) = self._ledger.apply([Notes(BOOK, TOPIC, (_STATE,))])
        text = found.fields.get(_STATE, "") if isinstance(found, Noted) else ""
        try:
            if text:
                self._reactions.restore(json.loads(text))
        except (StateError, ValueError) as error:
            event(log, logging.ERROR, "what was done about members cannot be read; pauses begin anew", error=error)
        self._words = steering.read(self._ledger)
        self._restored = True

    def feed(self, judged: Judged) -> None:
        """One attempt; what follows from it waits for the next turn.  Call `restore` first."""
        attempt = judged.attempt
        if judged.tenant and attempt.recipient:
            providers = self._volumes.setdefault(int(attempt.at) // 3600, {})
            providers.setdefault(judged.provider, Counter())[judged.tenant] += 1
        reaction = self._reactions.feed(attempt, judged.verdict, judged.provider, judged.member, judged.tenant)
        if reaction is not None:
            self._waiting.append(reaction)

    def turn(self, *, alerting: Collection[str] | None = None) -> bool:
        """Carry out what waits; whether there was something; of the keys in `alerting` tell which are over."""
        self.restore()
        if not self._waiting and alerting is None:
            return False
        self._words = steering.read(self._ledger)
        for hour in [hour for hour in self._volumes if hour < self._words.now_ms // HOUR_MS - 1]:
            del self._volumes[hour]
        worked = bool(self._waiting)
        while self._waiting:
            self._carry_out(self._waiting[0])
            self._waiting.popleft()
        if worked:
            self._ledger.apply([Note(BOOK, TOPIC, {_STATE: json.dumps(self._reactions.state())})])
        self._look_for_ends(alerting or ())
        return worked

    def _look_for_ends(self, alerting: Collection[str]) -> None:
        ours = [key for key in alerting if _is_ours(key)]
        ends = _ends(self._reactions) if ours else {}
        for key in ours:
            if ends.get(key, 0.0) * 1000 <= self._words.now_ms:
                self._tell(_over(key))

    def _carry_out(self, reaction: Reaction) -> None:
        entry = reaction.entry(self._words.members.get(reaction.member, {}), self._words.now_ms) if reaction.member else None
        found = self._culprits(reaction.provider) if reaction.member else []
        if entry is not None:
            self._ledger.apply([steering.say("members", {reaction.member: entry})])
            self._words = replace(self._words, members={**self._words.members, reaction.member: entry})
        meters.REACTIONS.labels(reaction.kind.value).inc()
        event(log, logging.WARNING, reaction.text, kind=reaction.kind.value, member=reaction.member, provider=reaction.provider,
              tenant=reaction.tenant, category=reaction.category, carried_out=entry is not None or None,
              more_than_usual="; ".join(map(str, found)))  # fmt: skip
        if reaction.kind is Kind.PAUSE and entry is None and not reaction.observed:
            return  # it is over already, or somebody has paused it for longer: nothing that anybody must know
        commands = self._pmta(reaction) if entry is not None or reaction.kind is Kind.SPARED else []
        self._tell(_reading(reaction, Level.WARN if entry is None else Level.ACT, found, commands))

    def _pmta(self, reaction: Reaction) -> list[str]:
        """The command lines for PowerMTA, run or only offered."""
        react = self._settings.react
        if react.pmta == "off":
            return []
        plan = pmta.plan(reaction, self._ips[reaction.member])
        if react.pmta == "run":
            for result in pmta.run(plan.commands, react.pmta_command):
                level = logging.INFO if result.succeeded else logging.ERROR
                event(log, level, "PowerMTA was told", command=pmta.text([result.command]), problem=result.problem,
                      output=result.output)  # fmt: skip
        else:
            event(log, logging.WARNING, "PowerMTA should be told, too", commands=pmta.text(plan.commands).replace("\n", "; "))
        return pmta.text(plan.commands).splitlines()

    def _others(self, member: str, provider: str) -> int:
        """Other members of the pool that could carry mail to the provider now."""
        words, pool = self._words, self._pools.get(member)
        # What waits to be carried out counts, too: else two members that are blamed in one chunk would both be paused.
        resting = {
            one.member for one in self._waiting
            if one.kind is Kind.PAUSE and one.provider == provider and one.until * 1000 > words.now_ms
        }  # fmt: skip
        return sum(
            1
            for name, home in self._pools.items()
            if home == pool
            and name not in {member, *resting}
            and not warmup.pause_of(words.members.get(name, {}), provider, words.now_ms)
        )

    def _culprits(self, provider: str) -> list[Culprit]:
        """Whose volume to the provider grew."""
        now_ms = self._words.now_ms
        this_hour, passed = divmod(now_ms, HOUR_MS)
        last_hour: Counter[str] = Counter()
        for hour, providers in self._volumes.items():
            share = 1.0 if hour >= this_hour else 1 - passed / HOUR_MS  # of the hour before, what lies within 60 minutes
            last_hour.update({name: round(amount * share) for name, amount in providers.get(provider, {}).items()})
        names = [name for name, _ in last_hour.most_common(_MOST_CANDIDATES)]
        if not names:
            return []
        since = now_ms - _USUAL_HOURS * HOUR_MS
        records = self._ledger.apply([History(name, since, now_ms - HOUR_MS) for name in names])
        usual = {}
        for name, record in zip(names, records, strict=True):
            amounts = by_provider(total(record.hours.values() if isinstance(record, Hours) else ())).get(provider, {})
            usual[name] = sum(amounts.get(outcome, 0) for outcome in ("delivered", "deferred", "bounced")) / _USUAL_HOURS
        return culprits(last_hour, usual)


def _key(reaction: Reaction) -> str:
    if reaction.tenant:
        return f"tenant:{reaction.tenant}:{reaction.category}"
    lane = f"member:{reaction.member}:{reaction.provider}"
    return f"{lane}:{reaction.category}" if reaction.kind is Kind.NOTICE else lane


def _is_ours(key: str) -> bool:
    kind, _, rest = key.partition(":")
    return kind == "member" or (kind == "tenant" and rest.rpartition(":")[2] in UNMISTAKABLE)


def _ends(reactions: Reactions) -> dict[str, float]:
    """When what was told is over, seconds since 1970, by its key."""
    state, ends = reactions.state(), dict[str, float]()
    for lane in state["lanes"]:
        key = f"member:{lane['member']}:{lane['provider']}"
        ends[key] = lane["until"]
        ends |= {f"{key}:{category}": at + _DAY for category, at in lane["told"].items()}
    for known in state["tenants"]:
        ends |= {f"tenant:{known['tenant']}:{category}": at + _DAY for category, at in known["told"].items()}
    return ends


def _over(key: str) -> Reading:
    kind, _, rest = key.partition(":")
    if kind == "tenant":
        tenant, _, category = rest.rpartition(":")
        return Reading(key, Level.NONE, tenant, f"{tenant}: no more replies {category}")
    member, provider, *category_of = rest.split(":")
    if category_of:
        return Reading(key, Level.NONE, member, f"{member} at {provider}: no more replies {category_of[0]}")
    return Reading(key, Level.NONE, member, f"{member} carries mail to {provider} again")


def _reading(reaction: Reaction, level: Level, found: list[Culprit], commands: list[str]) -> Reading:
    key = _key(reaction)
    evidence: dict[str, str | int | float] = {
        "category": reaction.category,
        "replies": reaction.count,
        "reason": reaction.reason,
    }
    if found:
        evidence["more_than_usual"] = "; ".join(map(str, found))
    if commands:
        evidence["pmta"] = "; ".join(commands)
    if reaction.tenant:
        return Reading(key, level, reaction.tenant, reaction.text, evidence, f"relaywarden explain {reaction.tenant}")
    undo = f"relaywarden pools resume {reaction.member} --provider {reaction.provider}"
    return Reading(key, level, reaction.member, reaction.text, evidence, undo)
