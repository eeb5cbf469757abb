"""react - what follows from replies that blame a source address: its member rests for that provider.  No I/O, no clock.

    scope ip; scope rate with blame pool    enough of them: the member is paused for the provider
    other scopes with blame pool            no pause mends a PTR record, a HELO name or TLS: people are told, once a day
    blame customer, and unmistakable        people are told of the tenant, once a day; the share is `judge`'s business
    severity low, replies of our own        nothing, ever: our own text must not keep a reaction alive

Enough are `react.after` replies of one category within ten minutes; half of them and one more where the severity is high.  They
must also be a fifth of what the provider answered: a big sender always gets a few.

One customer of a provider must not speak for it.  Behind OTHER, and behind providers that lend their names to customers'
machines, stand many hosts, one of which may lie to hurt us: there three networks must say it.  Behind all others a customer
may write the replies for his own domain (an administrator's reject text at Google, Microsoft or a filter): there the replies
must be about recipients of two domains, or of one of the provider's own (gmail.com), for which nobody else writes them.

The pause is what the reply's rule states, else `react.pause`, by the time of the attempt.  It doubles each time it comes again
within 24 hours of the end of the last, up to `react.longest`.  Attempts made before its end count for nothing, so mail that
was in the queue already neither prolongs nor doubles it.  The last member that could carry mail to the provider is not paused,
unless the rule states a wait: then the provider asks everybody to wait.

State form (JSON): {"version": 1, "lanes": [{"member", "provider", "until", "times", "told": {category: time}}, ...], "tenants":
[{"tenant", "told"}, ...]}; of what was counted in the last ten minutes it has nothing.

How it fails: `restore` takes all of a state or raises StateError.  With too many lanes or tenants the one longest unheard of is
forgotten; its next pause is a first one.

Known limits: windows are counted in whole minutes.  What was learned from a report (`Attempt.remote`) causes no reaction, as
anybody can write one.  Who has mail under two domains of his own at one provider can still speak for it.  A source whose clock
was ahead makes a lane deaf until then; the pause itself gets no longer by that.
"""

from __future__ import annotations

import ipaddress
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from relaywarden import providers, warmup
from relaywarden.config.monitor_settings import ReactSettings
from relaywarden.errors import RelaywardenError
from relaywarden.limits import format_duration
from relaywarden_monitor.events import Attempt
from relaywarden_monitor.verdict import Blame, Scope, Severity, Verdict

BY = "monitor"
WINDOW_MINUTES = 10
LEAST_SHARE = 0.2
LEAST_NETWORKS = 3
LEAST_DOMAINS = 2
# Names below these are given to customers' machines too (EC2, VPS): whoever rents one can answer as he likes.
LENT = frozenset({providers.OTHER, "amazon", "ovh", "godaddy"})
UNMISTAKABLE = frozenset({"known-spammer", "phishing", "virus", "domain-blocklisted", "dirty-list"})
MOST_DOMAINS = 20
_DAY = 86_400.0
_MOST_LANES, _MOST_TENANTS = 10_000, 10_000
_MOST_COUNTED_DOMAINS = 200
_MOST_CATEGORIES = 100
_LONGEST_EXAMPLE = 120
_MOST_DOUBLINGS = 30
_VERSION = 1
_DELIVERED = ""  # in the place of a category
_ITSELF = "@"  # in the place of a domain: the provider's own

Others = Callable[[str, str], int]


class StateError(RelaywardenError):
    """What was kept of reactions cannot be read."""


class Kind(Enum):
    """What is done."""

    PAUSE = "pause"
    SPARED = "spared"  # it would be paused, but nobody else could carry the mail
    NOTICE = "notice"  # people are told


@dataclass(frozen=True, slots=True)
class Reaction:
    """One decision, and why."""

    kind: Kind
    category: str
    count: int  # replies of this category in the window
    reason: str  # one line of plain ASCII, with an example
    at: float  # of the attempt that decided, seconds since 1970
    member: str = ""
    provider: str = ""
    tenant: str = ""  # where it is about a tenant; then there is no member
    seconds: float = 0.0  # how long the pause is
    times: int = 0  # the how many-th in a row
    stated: bool = False  # the rule of the reply states the wait
    observed: bool = False  # said, not done
    domains: tuple[str, ...] = ()  # recipients' domains that the member met at the provider, the most frequent first

    @property
    def until(self) -> float:
        """When the pause ends, seconds since 1970; of others, when they may be told again."""
        return self.at + self.seconds

    @property
    def text(self) -> str:
        """What is done, in one line."""
        if self.tenant:
            return f"{self.tenant}: {self.reason}"
        if self.kind is Kind.NOTICE:
            return f"{self.member} at {self.provider}: {self.reason}"
        length = format_duration(int(self.seconds * 1000))
        if self.kind is Kind.SPARED:
            done = f"not paused for {self.provider}, as no other member could carry its mail"
        elif self.observed:
            done = f"would be paused for {self.provider} for {length}, but react.mode is observe"
        else:
            done = f"paused for {self.provider} for {length}" + (", as the provider asks" if self.stated else "")
        return f"{self.member} {done}: {self.reason}" + (f" ({self.times} times in a row)" if self.times > 1 else "")

    def entry(self, old: warmup.Entry, now_ms: int) -> warmup.Entry | None:
        """The member's new entry of steering; None where there is nothing to say: not a pause, over, or paused for longer."""
        until_ms = min(int(self.until * 1000), now_ms + int(self.seconds * 1000))
        if self.kind is not Kind.PAUSE or self.observed or until_ms <= now_ms:
            return None
        held = warmup.pause_of(old, self.provider, now_ms)
        if held is not None and (held.until_ms is None or held.until_ms >= until_ms):
            return None  # a person's word, or the warm-up's, goes further
        return warmup.paused(old, self.provider, until_ms, self.reason, BY, now_ms)


@dataclass(slots=True)
class _Lane:
    """What is known of a member at a provider, or of a tenant."""

    until: float = 0.0  # end of the last pause
    times: int = 0  # pauses in a row
    told: dict[str, float] = field(default_factory=dict)  # category -> when people were told last
    minutes: dict[int, Counter[str]] = field(default_factory=dict)
    speakers: dict[int, dict[str, set[str]]] = field(default_factory=dict)  # minute -> category -> who said it
    domains: Counter[str] = field(default_factory=Counter)

    def count(self, at: float, category: str, speaker: str = "") -> None:
        """One more reply; counts that have left the window go."""
        minute = int(at // 60)
        counts = self.minutes.get(minute)
        if counts is None:
            newest = max([minute, *self.minutes])
            counts = self.minutes[minute] = Counter()
            for old in [old for old in self.minutes if old <= newest - WINDOW_MINUTES]:
                del self.minutes[old]
                self.speakers.pop(old, None)
        counts[category] += 1
        if speaker:
            known = self.speakers.setdefault(minute, {}).setdefault(category, set())
            if len(known) < LEAST_NETWORKS:
                known.add(speaker)

    def total(self, category: str) -> int:
        """Replies of a category in the window."""
        return sum(counts[category] for counts in self.minutes.values())

    def share(self) -> float:
        """The share of bad replies in the window."""
        whole = sum(counts.total() for counts in self.minutes.values())
        return (whole - self.total(_DELIVERED)) / whole if whole else 0.0

    def voices(self, category: str) -> set[str]:
        """Who said so in the window, as far as that matters."""
        return set().union(*(known.get(category, set()) for known in self.speakers.values()))

    def met(self, recipient: str) -> None:
        """Take note of the recipient's domain; the rare ones go where there is no more room."""
        domain = recipient.rpartition("@")[2]
        if not domain or len(domain) > 253:
            return
        if len(self.domains) >= _MOST_COUNTED_DOMAINS and domain not in self.domains:
            kept = self.domains.most_common(_MOST_COUNTED_DOMAINS // 2)
            self.domains = Counter({name: (amount + 1) // 2 for name, amount in kept})
        self.domains[domain] += 1

    def begin_anew(self) -> None:
        """Forget what was counted."""
        self.minutes.clear()
        self.speakers.clear()

    def tell(self, category: str, at: float) -> bool:
        """Whether people may be told now; once a day."""
        if at - self.told.get(category, -math.inf) < _DAY:
            return False
        self.told = {name: when for name, when in self.told.items() if at - when < _DAY}
        if len(self.told) < _MOST_CATEGORIES:
            self.told[category] = at
        return True


class Reactions:
    """One per monitor; not for several threads."""

    def __init__(self, settings: ReactSettings, members: Collection[str], others: Others) -> None:
        """`others(member, provider)`: how many members of the same pool could carry the mail, not counting this one."""
        self._others = others
        self.use(settings, members)
        self._lanes: OrderedDict[tuple[str, str], _Lane] = OrderedDict()
        self._tenants: OrderedDict[str, _Lane] = OrderedDict()

    def use(self, settings: ReactSettings, members: Collection[str]) -> None:
        """Go on by other settings; what is known stays."""
        self._settings, self._members = settings, frozenset(members)

    def feed(self, attempt: Attempt, verdict: Verdict | None, provider: str, member: str, tenant: str = "") -> Reaction | None:
        """What follows from one attempt; `verdict` None: it was delivered."""
        if self._settings.mode == "off" or attempt.remote:
            return None
        if verdict is None:
            if member in self._members:
                self._delivered(attempt, provider, member)
            return None
        if verdict.own or verdict.severity is Severity.LOW:
            return None
        if _blames_customer(verdict):
            return self._of_tenant(attempt, verdict, tenant) if tenant else None
        if member not in self._members:
            return None
        if verdict.scope is Scope.IP or (verdict.scope is Scope.RATE and verdict.blame is Blame.POOL):
            return self._blamed(attempt, verdict, provider, member)
        return self._notice(attempt, verdict, provider, member) if verdict.blame is Blame.POOL else None

    def state(self) -> dict[str, Any]:
        """What `restore` needs after a restart, as JSON values."""
        lanes = [
            {"member": member, "provider": provider, "until": lane.until, "times": lane.times, "told": dict(lane.told)}
            for (member, provider), lane in self._lanes.items()
            if lane.times or lane.until or lane.told
        ]
        tenants = [{"tenant": name, "told": dict(lane.told)} for name, lane in self._tenants.items() if lane.told]
        return {"version": _VERSION, "lanes": lanes, "tenants": tenants}

    def restore(self, state: Any) -> None:
        """Know again what `state` told; raises StateError and changes nothing if it is none."""
        try:
            if state["version"] != _VERSION:
                raise StateError(f"expected the state of reactions in version {_VERSION}, got {state['version']!r:.40}")
            lanes = OrderedDict(((str(one["member"]), str(one["provider"])), _lane(one)) for one in state["lanes"])
            tenants = OrderedDict((str(one["tenant"]), _lane({"until": 0, "times": 0, **one})) for one in state["tenants"])
        except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
            raise StateError(f"expected the state of reactions: {type(error).__name__}: {error}") from error
        self._lanes, self._tenants = lanes, tenants

    def _delivered(self, attempt: Attempt, provider: str, member: str) -> None:
        lane = _of(self._lanes, (member, provider), _MOST_LANES)
        lane.met(attempt.recipient)
        if attempt.at >= lane.until:
            lane.count(attempt.at, _DELIVERED)

    def _blamed(self, attempt: Attempt, verdict: Verdict, provider: str, member: str) -> Reaction | None:
        lane = _of(self._lanes, (member, provider), _MOST_LANES)
        lane.met(attempt.recipient)
        if attempt.at < lane.until:
            return None  # it was on its way already
        lane.count(attempt.at, verdict.category, _speaker(attempt, provider))
        count = lane.total(verdict.category)
        if count < self._enough(verdict) or lane.share() < LEAST_SHARE:
            return None
        if not _is_provider(provider, lane.voices(verdict.category)):
            return None
        return self._pause(lane, attempt, verdict, provider, member, count)

    def _pause(self, lane: _Lane, attempt: Attempt, verdict: Verdict, provider: str, member: str, count: int) -> Reaction:
        wait = float(verdict.wait or 0)
        stated = wait > 0
        again = bool(lane.times) and attempt.at - lane.until <= _DAY
        spared = not stated and self._others(member, provider) <= 0
        times = 1 if spared or not again else lane.times + 1
        base = wait if stated else self._settings.pause / 1000
        seconds = min(self._settings.longest / 1000, base * 2 ** min(times - 1, _MOST_DOUBLINGS))
        lane.until = attempt.at + seconds
        if not spared:
            lane.times = times
        lane.begin_anew()
        return Reaction(
            Kind.SPARED if spared else Kind.PAUSE, verdict.category, count, _reason(verdict, attempt, count), attempt.at,
            member, provider, seconds=seconds, times=0 if spared else times, stated=stated,
            observed=self._settings.mode == "observe", domains=_most(lane.domains),
        )  # fmt: skip

    def _notice(self, attempt: Attempt, verdict: Verdict, provider: str, member: str) -> Reaction | None:
        lane = _of(self._lanes, (member, provider), _MOST_LANES)
        if not lane.tell(verdict.category, attempt.at):
            return None
        reason = _reason(verdict, attempt, 1)
        return Reaction(Kind.NOTICE, verdict.category, 1, reason, attempt.at, member, provider, seconds=_DAY)

    def _of_tenant(self, attempt: Attempt, verdict: Verdict, tenant: str) -> Reaction | None:
        lane = _of(self._tenants, tenant, _MOST_TENANTS)
        lane.count(attempt.at, verdict.category)
        count = lane.total(verdict.category)
        if count < self._enough(verdict) or not lane.tell(verdict.category, attempt.at):
            return None
        reason = _reason(verdict, attempt, count)
        return Reaction(Kind.NOTICE, verdict.category, count, reason, attempt.at, tenant=tenant, seconds=_DAY)

    def _enough(self, verdict: Verdict) -> int:
        after = self._settings.after
        return after // 2 + 1 if verdict.severity is Severity.HIGH else after


def _blames_customer(verdict: Verdict) -> bool:
    return verdict.blame is Blame.CUSTOMER and verdict.severity is Severity.HIGH and verdict.category in UNMISTAKABLE


def _reason(verdict: Verdict, attempt: Attempt, count: int) -> str:
    replies = "1 reply" if count == 1 else f"{count} replies in ten minutes"
    return f"{replies} {verdict.category}, such as: {_example(attempt.reply)}"


def _example(reply: str) -> str:
    """The reply as one short line of plain ASCII."""
    line = " ".join(reply[: 4 * _LONGEST_EXAMPLE].split())
    line = "".join(char if char.isascii() and char.isprintable() else "?" for char in line)
    return line if len(line) <= _LONGEST_EXAMPLE else f"{line[: _LONGEST_EXAMPLE - 3]}..."


def _speaker(attempt: Attempt, provider: str) -> str:
    """Who may have written the reply: a network, the domain of a customer, or the provider itself."""
    if provider in LENT:
        return _network(attempt)
    domain = attempt.recipient.rpartition("@")[2][:253].lower()
    return _ITSELF if domain and providers.by_domain(domain) == provider else domain


def _is_provider(provider: str, speakers: Collection[str]) -> bool:
    """Whether these are enough to speak for the provider."""
    if provider in LENT:
        return len(speakers) >= LEAST_NETWORKS
    return len(speakers) >= LEAST_DOMAINS or _ITSELF in speakers


def _network(attempt: Attempt) -> str:
    """Who speaks: the relay's /24 or /48; where no address is known, its name, or the recipient's domain."""
    try:
        address = ipaddress.ip_address(attempt.relay_ip)
    except ValueError:
        return (attempt.relay or attempt.recipient.rpartition("@")[2])[:253].lower()
    return str(ipaddress.ip_network((address.packed, 24 if address.version == 4 else 48), strict=False))


def _most(domains: Counter[str]) -> tuple[str, ...]:
    return tuple(name for name, _ in domains.most_common(MOST_DOMAINS))


def _of(lanes: OrderedDict[Any, _Lane], key: Any, most: int) -> _Lane:
    """The lane of this key; a new one in the place of the one longest unheard of."""
    lane = lanes.get(key)
    if lane is None:
        lane = lanes[key] = _Lane()
        if len(lanes) > most:
            lanes.popitem(last=False)
    else:
        lanes.move_to_end(key)
    return lane


def _lane(document: Mapping[str, Any]) -> _Lane:
    until, times = float(document["until"]), int(document["times"])
    told = {str(name): float(at) for name, at in document["told"].items()}
    if times < 0 or not all(map(math.isfinite, (until, *told.values()))):
        raise ValueError("not a lane")
    return _Lane(until, times, told)
