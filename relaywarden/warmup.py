"""warmup - how much a new source address may carry to one mailbox provider, and what changes that.  Pure: no I/O, no clock.

A schedule is a list of caps, one for each day after `start` (day 0); after its last day the address is warm.  Both windows
roll: at most `daily` in ANY 24 hours and at most `hourly` in ANY hour, so the step at midnight brings no burst.

Built in:
    default    SparkPost's daily volumes of a new dedicated IP (SparkPost/support-docs, "IP Warm-up Overview")
    sendgrid   Twilio SendGrid's automated warm-up, messages an hour on day 0 to 41 (docs of `warm-up IP addresses`); from a
               million on the published figures are rounded

Both companies count them for the whole address; here they hold for each provider, since each provider judges by itself.

Books.  The ledger keeps what a member carried to a provider under the reserved tenant `!member:MEMBER/PROVIDER`: two balances
of Meter.MESSAGES, where one "message" is one recipient (each recipient is a delivery of its own to the provider), and the
day's counters delivered, deferred and bounced.  A window's key does not name its amount, so it goes on when the cap changes.

Steering.  `steering` says to all workers, for each member (section `members`):
    back     {provider or "*": days}      so many days back in the schedule
    paused   {provider or "*": {"until_ms": n or null, "reason": text, "by": text}}
    judged   {provider: {"day": "2026-11-24", "delivered": n, "deferred": n, "bounced": n}}   counters already acted upon
    stepped  {provider: "2026-11-24"}     the day of the last automatic step back

Known limits: two writers that change one member in the same instant overwrite each other.  A pause lost like that comes again
with the next look at the counters; an operator's word has to be given again.
"""

from __future__ import annotations

import datetime
import enum
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from relaywarden import providers
from relaywarden.config.settings import RampSettings, ScheduleSettings, Settings, WarmupSettings
from relaywarden.errors import ConfigError, Problem
from relaywarden.ledger.operations import Account, Balance
from relaywarden.limits import Limit, Meter

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
EVERY = "*"  # in the place of a provider: all of them
JUDGED = ("delivered", "deferred", "bounced")
MOST_BACK = 3_660
_BOOKS = "!member:"
_DAILY = (
    200, 500, 1_000, 2_000, 5_000, 10_000, 20_000,
    40_000, 50_000, 75_000, 100_000, 150_000, 200_000, 250_000,
    325_000, 400_000, 500_000, 600_000, 750_000, 1_000_000, 1_250_000,
    1_750_000, 2_000_000, 3_000_000, 4_250_000, 5_000_000, 6_000_000, 7_500_000,
    10_000_000,
)  # fmt: skip
_HOURLY = (
    20, 28, 39, 55, 77, 108, 151, 211, 295, 413, 579, 810, 1_000, 1_587,
    2_222, 3_111, 4_356, 6_098, 8_583, 11_953, 16_734, 23_427, 32_798, 45_917, 64_284, 89_998, 125_997, 176_395,
    246_953, 345_735, 484_029, 677_640, 948_696, 1_330_000, 1_860_000, 2_600_000, 3_640_000, 5_100_000, 7_140_000,
    10_000_000, 14_000_000, 19_600_000,
)  # fmt: skip

Entry = Mapping[str, Any]


class Caps(NamedTuple):
    """Recipients in any 24 hours and in any hour."""

    daily: int
    hourly: int


Schedule = tuple[Caps, ...]
NOTHING = Caps(0, 0)


def build(values: ScheduleSettings) -> Schedule:
    """A schedule of the configuration: hourly by default a twelfth of the day's, daily by default 24 times the hour's."""
    daily = values.daily or [24 * amount for amount in values.hourly]
    hourly = values.hourly or [max(1, math.ceil(amount / 12)) for amount in values.daily]
    return tuple(Caps(*pair) for pair in zip(daily, hourly, strict=True))


BUILT_IN: Mapping[str, Schedule] = {
    "default": build(ScheduleSettings(daily=list(_DAILY))),
    "sendgrid": build(ScheduleSettings(hourly=list(_HOURLY))),
}


@dataclass(frozen=True, slots=True)
class Warming:
    """One member that is warmed up, with its schedules."""

    member: str
    start: datetime.date
    default: Schedule
    own: Mapping[str, Schedule]  # providers for which another schedule holds

    def schedule(self, provider: str) -> Schedule:
        """The schedule for one provider."""
        return self.own.get(provider, self.default)

    def caps(self, provider: str, today: datetime.date, entry: Entry) -> Caps | None:
        """What holds today (UTC); None: the schedule is over."""
        return caps(self.schedule(provider), day_of(self.start, today, back_of(entry, provider)))

    def over(self, today: datetime.date, entry: Entry) -> bool:
        """Whether the schedule of every provider, known or not, is over."""
        longest = max(len(schedule) for schedule in (self.default, *self.own.values()))
        most = max((back_of(entry, provider) for provider in (EVERY, *_mapping(entry, "back"))), default=0)
        return day_of(self.start, today, most) >= longest


def plan(settings: Settings) -> dict[str, Warming]:
    """Every member with `warmup`; raises ConfigError that names each schedule and provider there is not."""
    if found := list(problems(settings)):
        raise ConfigError(found)
    known = {**BUILT_IN, **{name: build(values) for name, values in settings.schedules.items()}}
    return {
        member: Warming(member, warmup.start, known[warmup.schedule], {p: known[s] for p, s in warmup.providers.items()})
        for _, member, warmup in _warmups(settings)
    }


def problems(settings: Settings) -> Iterator[Problem]:
    """Schedules and providers that a warm-up names and nobody knows."""
    schedules = sorted({*BUILT_IN, *settings.schedules})
    for pool, member, warmup in _warmups(settings):
        where = f"pools.{pool}.members.{member}.warmup"
        wanted = {"schedule": warmup.schedule, **{f"providers.{name}": value for name, value in warmup.providers.items()}}
        for key, name in wanted.items():
            if name not in schedules:
                yield Problem(f"{where}.{key}", f"no such schedule {name!r}; schedules are: {', '.join(schedules)}")
        for provider in warmup.providers:
            if provider not in providers.NAMES:
                listed = ", ".join(sorted(providers.NAMES))
                yield Problem(f"{where}.providers", f"no such mailbox provider {provider!r}; providers are: {listed}")


def _warmups(settings: Settings) -> Iterator[tuple[str, str, WarmupSettings]]:
    for name, pool in settings.pools.items():
        for member, values in pool.members.items():
            if values.warmup is not None:
                yield name, member, values.warmup


def caps(schedule: Schedule, day: int) -> Caps | None:
    """The caps of a day; nothing before day 0; None after the last day: warm."""
    if day < 0:
        return NOTHING
    return schedule[day] if day < len(schedule) else None


def day_of(start: datetime.date, today: datetime.date, back: int) -> int:
    """Which day of the schedule `today` (UTC, by the store's clock) is; negative before `start`, which no step back brings."""
    elapsed = (today - start).days
    return elapsed if elapsed < 0 else max(0, elapsed - back)


def next_step(warming: Warming, provider: str, today: datetime.date, entry: Entry) -> tuple[datetime.date, Caps | None] | None:
    """When the caps change next, and to what (None: warm); None as a whole when the schedule is over."""
    back, schedule = back_of(entry, provider), warming.schedule(provider)
    day = day_of(warming.start, today, back)
    if caps(schedule, day) is None:
        return None
    if day < 0:
        return warming.start, caps(schedule, 0)
    return warming.start + datetime.timedelta(days=day + 1 + back), caps(schedule, day + 1)


def date_of(now_ms: float) -> datetime.date:
    """The day (UTC) of a time of the store, in milliseconds since the epoch."""
    return datetime.datetime.fromtimestamp(now_ms / 1000, datetime.timezone.utc).date()


def books(member: str, provider: str) -> str:
    """The reserved tenant that keeps what a member carried to a provider."""
    return f"{_BOOKS}{member}/{provider}"


def parse_books(tenant: str) -> tuple[str, str] | None:
    """(member, provider) of a reserved tenant; None for any other tenant."""
    member, slash, provider = tenant.removeprefix(_BOOKS).partition("/")
    return (member, provider) if tenant.startswith(_BOOKS) and slash else None


def account(member: str, provider: str, caps: Caps) -> Account:
    """The account of these books; one message of its balances is one recipient."""
    limits = (Limit(Meter.MESSAGES, caps.daily, DAY_MS), Limit(Meter.MESSAGES, caps.hourly, HOUR_MS))
    return Account(books(member, provider), tuple(Balance(limit, limit.balance_id) for limit in limits))


class Action(enum.Enum):
    """What the counters of a day ask for."""

    OK = "ok"
    PAUSE = "pause"
    BACK = "back"


class Verdict(NamedTuple):
    """The judgement, and why in one line of plain ASCII."""

    action: Action
    reason: str = ""


OK = Verdict(Action.OK)


def judge(today: Mapping[str, int], ramp: RampSettings) -> Verdict:
    """Judge counters: more than max_deferred of the attempts deferred, or more than max_bounced of those that ended bounced."""
    delivered, deferred, bounced = (max(0, today.get(name, 0)) for name in JUDGED)
    attempts, ended = delivered + deferred + bounced, delivered + bounced
    if attempts < ramp.min_sample:
        return OK
    if deferred > ramp.max_deferred * attempts:
        return Verdict(Action.PAUSE, f"{deferred} of {attempts} attempts deferred (at most {ramp.max_deferred:.0%})")
    if bounced > ramp.max_bounced * ended:
        return Verdict(Action.BACK, f"{bounced} of {ended} recipients bounced (at most {ramp.max_bounced:.0%})")
    return OK


def review(entry: Entry, provider: str, today: Mapping[str, int], date: datetime.date, ramp: RampSettings) -> Verdict:
    """`judge` what came since the last action of this day; a second step back on one day is no longer asked for."""
    seen = _mapping(_mapping(entry, "judged"), provider)
    known = seen if seen.get("day") == date.isoformat() else {}
    verdict = judge({name: today.get(name, 0) - _number(known.get(name)) for name in JUDGED}, ramp)
    if verdict.action is Action.BACK and _mapping(entry, "stepped").get(provider) == date.isoformat():
        return OK
    return verdict


class Pause(NamedTuple):
    """A pause in force; `until_ms` None: until somebody ends it."""

    provider: str
    until_ms: int | None
    reason: str
    by: str


def pause_of(entry: Entry, provider: str, now_ms: float) -> Pause | None:
    """The pause that keeps a member from this provider now: one of the whole member, or one for the provider."""
    paused = _mapping(entry, "paused")
    for name in (EVERY, provider):
        found = paused.get(name)
        if isinstance(found, Mapping) and not _ended(found, now_ms):
            until = found.get("until_ms")
            return Pause(name, int(until) if until else None, str(found.get("reason") or ""), str(found.get("by") or ""))
    return None


def back_of(entry: Entry, provider: str) -> int:
    """How many days a provider was stepped back, with those of the whole member."""
    back = _mapping(entry, "back")
    return max(0, min(MOST_BACK, sum(_number(back.get(name)) for name in {EVERY, provider})))


def paused(entry: Entry, provider: str, until_ms: int | None, reason: str, by: str, now_ms: float) -> Entry:
    """The member's entry with one more pause; those that have ended go."""
    kept = {name: found for name, found in _mapping(entry, "paused").items() if not _ended(found, now_ms)}
    return {**entry, "paused": {**kept, provider: {"until_ms": until_ms, "reason": reason, "by": by}}}


def resumed(entry: Entry, provider: str | None) -> Entry:
    """The member's entry without the pause of this provider; None: without any."""
    kept = {name: found for name, found in _mapping(entry, "paused").items() if provider not in (None, name)}
    return _without_empty({**entry, "paused": kept})


def moved(entry: Entry, provider: str, days: int, elapsed: int) -> Entry:
    """The member's entry so many days back, or forward where `days` is negative, by an operator's word.

    `elapsed`: days since `start`.  Never back beyond day 0 of today, so that tomorrow is day 1, nor forward beyond the
    calendar's day; a provider that was further back than that comes along.
    """
    most = min(MOST_BACK, max(0, elapsed))
    steps = {str(name): max(0, _number(found)) for name, found in _mapping(entry, "back").items()}
    steps.setdefault(provider, 0)
    whole = min(most, steps.pop(EVERY, 0))
    if provider == EVERY:
        whole = min(most, max(0, whole + days))
    own = {name: min(most - whole, found) for name, found in steps.items()}
    if provider != EVERY:
        own[provider] = min(most - whole, max(0, own[provider] + days))
    back = {name: found for name, found in {EVERY: whole, **own}.items() if found}
    return _without_empty({**entry, "back": back})


def stepped_back(entry: Entry, provider: str, days: int, date: datetime.date | None = None) -> Entry:
    """The member's entry with the provider so many days further back; `date`: by its own counters, not by an operator."""
    back = _mapping(entry, "back")
    changed = {**entry, "back": {**back, provider: min(MOST_BACK, max(0, _number(back.get(provider)) + days))}}
    if date is not None:
        old = {name: day for name, day in _mapping(entry, "stepped").items() if day == date.isoformat()}
        changed["stepped"] = {**old, provider: date.isoformat()}
    return changed


def judged(entry: Entry, provider: str, today: Mapping[str, int], date: datetime.date) -> Entry:
    """The member's entry with these counters acted upon: only what comes after them is judged for the rest of the day."""
    day = date.isoformat()
    old = _mapping(entry, "judged")
    kept = {name: old[name] for name in old if _mapping(old, name).get("day") == day}
    return {**entry, "judged": {**kept, provider: {"day": day, **{name: today.get(name, 0) for name in JUDGED}}}}


def _ended(found: Any, now_ms: float) -> bool:
    until = found.get("until_ms") if isinstance(found, Mapping) else 0
    return until is not None and _number(until) <= now_ms


def _without_empty(entry: dict[str, Any]) -> Entry:
    return {name: value for name, value in entry.items() if value}


def _mapping(entry: Entry, name: str) -> Mapping[str, Any]:
    found = entry.get(name)
    return found if isinstance(found, Mapping) else {}


def _number(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else 0
