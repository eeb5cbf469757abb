"""pauses - carry out what `react` decides: pause a member for a provider, tell PowerMTA, tell people, and say who sent more.

A pause is an entry of `steering`, which the milter hears within a second: mail to that provider goes by other members, or
waits.  What was decided is kept in the ledger (books "!monitor", topic "reactions"), so that a restart does not begin the
doubling anew, and knows which alerts are over; each host has a field of its own, as each sees its own replies.

    member:MEMBER:PROVIDER            alerts as long as the pause lasts
    member:MEMBER:PROVIDER:CATEGORY   what no pause mends: for a day
    tenant:TENANT:CATEGORY            for a day

PowerMTA's program is run by a thread of its own, as it may hang: pauses, judgements and the log do not wait for it.

How it fails: StoreUnavailableError goes to the caller; what was decided meanwhile is carried out at the next turn.  Where
more commands wait for PowerMTA than there is room for, or at the end, the log says which it was not told.

Known limits: of mail before a restart it is not known whose volume grew.  The field of a host that is gone stays.
"""

from __future__ import annotations

import json
import logging
import shlex
import socket
from collections import Counter, deque
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from relaywarden import steering, warmup
from relaywarden.aside import Aside
from relaywarden.config.settings import Settings
from relaywarden.ledger.operations import Done, Ledger
from relaywarden.ledger.records import HOUR_MS, History, Hours, Note, Noted, Notes
from relaywarden.logs import event
from relaywarden.outcomes import by_provider, total
from relaywarden.steering import Words
from relaywarden_monitor import meters, pmta
from relaywarden_monitor.attribute import Judged
from relaywarden_monitor.culprits import Culprit, culprits
from relaywarden_monitor.notify.alerts import Level, Reading
from relaywarden_monitor.react import BY, UNMISTAKABLE, Kind, Reaction, Reactions, StateError
from relaywarden_monitor.steps import BOOK

log = logging.getLogger(__name__)
TOPIC = "reactions"
_MOST_WAITING = 1_000
_MOST_COMMANDS = 200  # batches that wait for PowerMTA
_MOST_CANDIDATES = 20  # tenants whose usual volume is looked up
_USUAL_HOURS = 7 * 24
_DAY = 86_400.0

Tell = Callable[[Reading], None]


class Pauses:
    """One per monitor; used by one thread."""

    def __init__(self, settings: Settings, ledger: Ledger, tell: Tell, host: str = "") -> None:
        """`host`: whose replies these are (default: this host's name)."""
        self._ledger, self._tell, self._host = ledger, tell, host or socket.gethostname()
        self._reactions = Reactions(settings.react, (), self._others)
        self._pmta = _PowerMta()
        self.use(settings)
        self._words = Words()
        self._volumes: dict[int, dict[str, Counter[str]]] = {}  # hour -> provider -> recipients by tenant
        self._waiting: deque[Reaction] = deque(maxlen=_MOST_WAITING)
        self._restored = False

    def use(self, settings: Settings) -> None:
        """Go on by these settings; what was counted and decided stays."""
        self._react = settings.react
        self._ips = {name: values.ip for pool in settings.pools.values() for name, values in pool.members.items()}
        self._pools = {name: pool for pool, values in settings.pools.items() for name in values.members}
        self._reactions.use(settings.react, self._ips)

    def stop(self) -> None:
        """The end; it waits for nobody."""
        self._pmta.stop()

    def restore(self) -> None:
        """Know again what was done before a restart, once; raises StoreUnavailableError."""
        if self._restored:
            return
        (found,) = self._ledger.apply([Notes(BOOK, TOPIC, (self._host,))])
        text = found.fields.get(self._host, "") if isinstance(found, Noted) else ""
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
            self._ledger.apply([Note(BOOK, TOPIC, {self._host: json.dumps(self._reactions.state())})])
        self._look_for_ends(alerting or ())
        return worked

    def _look_for_ends(self, alerting: Collection[str]) -> None:
        ours = [key for key in alerting if _is_ours(key)]
        ends = _ends(self._reactions) if ours else {}
        for key in ours:
            if ends.get(key, 0.0) * 1000 <= self._words.now_ms:
                self._tell(_over(key))

    def _carry_out(self, reaction: Reaction) -> None:
        done = self._say(reaction) if reaction.member else False
        found = self._culprits(reaction.provider) if reaction.member else []
        meters.REACTIONS.labels(reaction.kind.value).inc()
        event(log, logging.WARNING, reaction.text, kind=reaction.kind.value, member=reaction.member, provider=reaction.provider,
              tenant=reaction.tenant, category=reaction.category, carried_out=done or None,
              more_than_usual="; ".join(map(str, found)))  # fmt: skip
        if reaction.kind is Kind.PAUSE and not done and not reaction.observed:
            return  # it is over already, or somebody has paused it for longer: nothing that anybody must know
        commands = self._tell_pmta(reaction) if done or reaction.kind is Kind.SPARED else []
        self._tell(_reading(reaction, Level.ACT if done else Level.WARN, found, commands))

    def _say(self, reaction: Reaction) -> bool:
        """Pause the member; whether that was done: not where it is over already, or somebody else's pause goes further."""
        member, provider = reaction.member, reaction.provider
        entry = reaction.entry(self._words.members.get(member, {}), self._words.now_ms)
        if entry is None:
            return False
        pause = entry["paused"][provider]
        (done,) = self._ledger.apply([steering.say("members", {member: {"paused": {provider: pause}}}, by=BY)])
        members: dict[str, Any] = (done.state.get("members") if isinstance(done, Done) else None) or {}
        self._words = replace(self._words, members=members)
        return bool(members.get(member, {}).get("paused", {}).get(provider) == pause)

    def _tell_pmta(self, reaction: Reaction) -> list[str]:
        """The command lines for PowerMTA, on their way or only offered."""
        react = self._react
        if react.pmta == "off" or reaction.member not in self._ips:  # a member that a reload took away
            return []
        plan = pmta.plan(reaction, self._ips[reaction.member])
        if react.pmta == "run":
            self._pmta.tell(plan.commands, react.pmta_command)
        else:
            event(log, logging.WARNING, "PowerMTA should be told, too", commands=_line(plan.commands))
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


class _PowerMta:
    """Runs commands in a thread of its own, one batch after the other."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[tuple[pmta.Command, ...], str]] = deque()
        self._aside = Aside("pmta", self._run)
        self._started = False

    def tell(self, commands: tuple[pmta.Command, ...], program: str) -> None:
        """Have the program run with each; waits for nothing."""
        if len(self._waiting) >= _MOST_COMMANDS:
            event(log, logging.ERROR, "PowerMTA is not told, too much waits for it already", commands=_line(commands))
            return
        self._waiting.append((commands, program))
        if not self._started:  # most never need it
            self._started = True
            self._aside.start()
        self._aside.ask()

    def stop(self) -> None:
        """Give up what waits."""
        while (batch := self._next()) is not None:
            event(log, logging.ERROR, "PowerMTA was not told, the monitor ends", commands=_line(batch[0]))

    def _next(self) -> tuple[tuple[pmta.Command, ...], str] | None:
        try:
            return self._waiting.popleft()
        except IndexError:  # `stop` and the thread may both be at it
            return None

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            for result in pmta.run(*batch):
                level = logging.INFO if result.succeeded else logging.ERROR
                event(log, level, "PowerMTA was told", command=pmta.text([result.command]), problem=result.problem,
                      output=result.output)  # fmt: skip


def _line(commands: tuple[pmta.Command, ...]) -> str:
    return pmta.text(commands).replace("\n", "; ")


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
        return Reading(
            key, level, reaction.tenant, reaction.text, evidence, f"relaywarden explain {shlex.quote(reaction.tenant)}"
        )
    undo = shlex.join(["relaywarden", "pools", "resume", reaction.member, "--provider", reaction.provider])
    return Reading(key, level, reaction.member, reaction.text, evidence, undo)
