"""attribute - whose is it: from events to what is counted for tenants, pool members and providers.  No I/O, no clock.

    Accepted     login -> tenant, on the docket
    Attempt      one more delivered, deferred or bounced, for the tenant, and for (member, provider)
    Complaint    one more complained, where its token verifies: PowerMTA's feedback records come from mail of strangers, too;
                 suppressed is only who certainly had the message (`about`)
    others       facts and events of the message's story

A bounce that came later by mail (PowerMTA's rb) counts where the message and its recipient are known, so that nobody can make
bounces up.  It and complaints are counted by name, once, whichever way the same news comes.  The customer's own fault
(`blocked`) counts once for a message and its recipient: a retry that fails as before is no news.

What is counted has the names of `relaywarden.outcomes`.  A message of nobody (a notification, mail of the host itself) counts
for its member alone.  What Postfix hands to our own next hop (`monitor.handover`) is not delivered yet: it is in the story, and
counts nothing; PowerMTA's accounting says what became of it.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from relaywarden import providers, warmup
from relaywarden.config.settings import Settings
from relaywarden.feedback import Opened, Tokens
from relaywarden.ledger.records import HOUR_MS, Suppression
from relaywarden.outcomes import BLOCKED, INVALID, SENT, SENT_TO, WHY
from relaywarden.story import HANDED_OVER, Story, StoryEvent, Trace
from relaywarden.tenants import Directory, Tenant
from relaywarden_monitor.about import About, Owners, about, is_of, is_old, once_name, provider_of
from relaywarden_monitor.classify.classifier import Classifier
from relaywarden_monitor.docket import Docket, Message
from relaywarden_monitor.events import Accepted, Attempt, Complaint, Described, Event, Gone, Notified, Outcome, Refused
from relaywarden_monitor.patterns.sent import Sent
from relaywarden_monitor.verdict import Blame, Scope, Verdict

_LONGEST_REPLY = 300
_REPEATED = "delivery temporarily suspended"  # Postfix' own words before what another recipient was told: no fresh reply
CUSTOMERS = frozenset({Scope.DOMAIN, Scope.CONTENT, Scope.AUTH})
HARMLESS_COMPLAINTS = frozenset({"not-spam", "auth-failure", "opt-out"})  # said of a message, but not against it


@dataclass(frozen=True, slots=True)
class Judged:
    """An attempt with what its reply means, for those who react."""

    attempt: Attempt
    verdict: Verdict | None  # None: delivered
    provider: str
    member: str  # empty: no member of ours
    tenant: str


class Once(NamedTuple):
    """What may be told in several ways, and counts once for a book."""

    book: str
    name: str  # see `once_name`
    outcome: str
    details: tuple[str, ...]
    at: float


@dataclass(slots=True)
class Counted:
    """What a chunk of events comes to."""

    hours: dict[int, dict[str, Counter[str]]] = field(default_factory=dict)  # hour -> books -> name -> amount
    once: list[Once] = field(default_factory=list)
    reports: list[tuple[str, str, StoryEvent]] = field(default_factory=list)  # queue id, name, for its story
    suppressions: dict[str, dict[str, Suppression]] = field(default_factory=dict)  # tenant -> address -> why
    judged: list[Judged] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)  # messages that are new in the queue
    tenants: set[str] = field(default_factory=set)  # of which something was counted

    def add(self, book: str, at: float, names: Iterable[str], amount: int = 1) -> None:
        """So many more of each name in a book's hour."""
        hour = self.hours.setdefault(int(at * 1000) // HOUR_MS, {})
        amounts = hour.get(book)
        if amounts is None:
            amounts = hour[book] = Counter()
        for name in names:
            amounts[name] += amount


class Attributor:
    """Attributes events by one set of settings; a reload makes a new one."""

    def __init__(self, settings: Settings, classifier: Classifier, tokens: Tokens | None = None) -> None:
        self._classifier, self._tokens = classifier, tokens
        self._directory = Directory(settings)
        members = {name: values.ip for pool in settings.pools.values() for name, values in pool.members.items()}
        self._members = frozenset(members)
        self._by_ip = {ip: name for name, ip in members.items()}
        self._owners = Owners(self._directory, tokens)
        self._history_ms = settings.monitor.history
        self._handover = {host.rstrip(".").casefold() for host in settings.monitor.handover}

    @property
    def traces(self) -> bool:
        """Whether complaints may come weeks after the message."""
        return self._tokens is not None

    def opened(self, event: Complaint) -> Opened | None:
        """What a complaint's token says; None for one that is not ours, or too old."""
        found = self._tokens.open(event.token) if self._tokens is not None and event.token else None
        return None if found is None or is_old(found, event.at, self._history_ms) else found

    def learn(self, opened: Iterable[Opened], tenants: Callable[[], Iterable[str]]) -> None:
        """Ask for the ledger's tenants, if there is a token of one who is not configured; not remembered if nobody has it."""
        if not all(self._owners.knows(one.tenant_tag) for one in opened):
            self._owners.learn(tenants())

    def attribute(self, events: Iterable[Event], docket: Docket) -> Counted:
        """Count the events, and note on the docket what they say of their messages."""
        counted = Counted()
        for event in events:
            match event:
                case Attempt():
                    self._attempt(event, docket, counted)
                case Accepted():
                    self._accepted(event, docket)
                case Described():
                    self._described(event, docket, counted)
                case Gone():
                    docket.find(event.queue_id).know(gone_at=event.at)
                case Notified():
                    docket.find(event.queue_id).add(StoryEvent(event.at, f"notified-{event.kind}", reply=event.notice_id))
                case Refused() if event.queue_id:
                    self._refused(event, docket)
                case Complaint():
                    self._complaint(event, docket, counted)
                case _:
                    pass  # turned away before it was a message: policyd and milter counted it themselves
        return counted

    def _accepted(self, event: Accepted, docket: Docket) -> None:
        tenant = self._directory.by_login(event.login) if event.login else None
        docket.begin(event.queue_id, event.at).know(
            accepted_at=event.at, login=event.login, client=event.client, tenant=tenant.name if tenant else ""
        )

    def _described(self, event: Described, docket: Docket, counted: Counted) -> None:
        message = docket.find(event.queue_id)
        if event.recipients and "recipients" not in message.facts and message.tenant:
            counted.add(message.tenant, event.at, (SENT,))
            counted.add(message.tenant, event.at, (SENT_TO,), event.recipients)
        message.know(message_id=event.message_id, sender=_shown(event.sender), size=event.size, recipients=event.recipients)

    def _refused(self, event: Refused, docket: Docket) -> None:
        message = docket.find(event.queue_id)
        message.add(StoryEvent(event.at, "refused", reply=event.reply[:_LONGEST_REPLY], category=event.stage))
        if event.stage == "END-OF-MESSAGE":
            message.know(gone_at=event.at)  # it never was in the queue, and no line says that it left

    def _attempt(self, event: Attempt, docket: Docket, counted: Counted) -> None:
        if event.remote:
            self._late(event, docket, counted)
            return
        message = docket.find(event.queue_id) if event.queue_id else Message("")
        if event.given_up and not event.recipient:
            for late in _waiting(message, event):
                self._attempt(late, docket, counted)
            return
        tenant = self._tenant(message, event.tenant)
        name = tenant.name if tenant is not None else ""
        member = event.member if event.member in self._members else self._by_ip.get(event.source, "")
        delivered = event.outcome is Outcome.DELIVERED
        if self._is_handover(event):
            if delivered:
                message.add(_told(event, HANDED_OVER, ""))
                return
            member = ""  # our own next hop is in trouble, no mailbox provider
        provider = self._provider(event)
        verdict = None if delivered else self._classifier.classify(event.reply, event.relay, event.status)
        if event.recipient:
            message.add(_told(event, event.outcome.value, verdict.category if verdict else ""))
        names = _names(event, verdict, message)
        if name and event.recipient:
            counted.add(name, event.at, (*names, f"{provider}.{event.outcome.value}"))
            counted.tenants.add(name)
        if member:
            counted.add(warmup.books(member, provider), event.at, names)
        if tenant is not None and verdict is not None:
            self._suppress(event, tenant, verdict, counted)
        if event.relay or not event.reply.startswith(_REPEATED):
            counted.judged.append(Judged(event, verdict, provider, member, name))

    def _late(self, event: Attempt, docket: Docket, counted: Counted) -> None:
        """An accepted message bounced after all; whoever says so must know it."""
        if event.queue_id not in docket or event.outcome is not Outcome.BOUNCED:
            return
        message = docket.find(event.queue_id)
        last = message.last.get(event.recipient.casefold())
        tenant = self._directory.by_name(message.tenant) if message.tenant else None
        if tenant is None or last is None or last.kind == Outcome.BOUNCED.value:
            return  # what bounced already may be reported by its own notification
        verdict = self._classifier.classify(event.reply, event.relay, event.status)
        found = about(event.recipient, message.told(), Trace())
        message.add(_told(event, "bounced", verdict.category))
        self._once(event, tenant, found, _names(event, verdict, message)[1:], counted)
        self._suppress(event, tenant, verdict, counted)

    def _complaint(self, event: Complaint, docket: Docket, counted: Counted) -> None:
        opened = self.opened(event)
        tenant = self._owners.of(opened.tenant_tag) if opened is not None else None
        if opened is None or tenant is None:
            return
        queue_id = opened.queue_id
        told = docket.find(queue_id).told() if queue_id in docket else None
        is_another = told is not None and not is_of(opened, tenant.name, told.tenant, told.facts.get("accepted_at"))
        trace = docket.trace(queue_id)
        if not is_of(opened, tenant.name, trace.tenant, trace.at):
            trace = Trace()
        if told is None or is_another:
            told = Story(queue_id)
        found = about(event.recipient, told, trace)
        if not is_another:
            item = StoryEvent(event.at, "complained", found.recipient, found.member, category=event.kind)
            counted.reports.append((queue_id, once_name("complained", queue_id, found.name), item))
        if event.kind not in HARMLESS_COMPLAINTS:
            self._once(replace(event, queue_id=queue_id, member=found.member), tenant, found, (), counted)
        span = tenant.suppression.complained
        if found.known and span is not None and event.kind not in HARMLESS_COMPLAINTS - {"opt-out"}:
            entry = suppression(found.recipient, "complained", event.at, span, event.kind)
            counted.suppressions.setdefault(tenant.name, {})[found.recipient] = entry

    def _once(
        self, event: Attempt | Complaint, tenant: Tenant, found: About, details: tuple[str, ...], counted: Counted
    ) -> None:
        outcome = "complained" if isinstance(event, Complaint) else event.outcome.value
        name = once_name(outcome, event.queue_id, found.name)
        provider = found.provider or provider_of(found.recipient)
        counted.once.append(Once(tenant.name, name, outcome, (*details, f"{provider}.{outcome}"), event.at))
        counted.tenants.add(tenant.name)
        if found.provider and event.member in self._members:
            counted.once.append(Once(warmup.books(event.member, provider), name, outcome, details, event.at))

    def _tenant(self, message: Message, claimed: str) -> Tenant | None:
        """By the login of the message; else by the name that the source itself gives, which was ours (X-Job)."""
        name = message.tenant or claimed
        tenant = self._directory.by_name(name) if name else None
        if tenant is not None and not message.tenant:
            message.know(tenant=tenant.name)
        return tenant

    def _is_handover(self, event: Attempt) -> bool:
        return bool(self._handover) and (event.relay.casefold() in self._handover or event.relay_ip in self._handover)

    def _provider(self, event: Attempt) -> str:
        return (event.relay and providers.by_mx(event.relay)) or provider_of(event.recipient)

    def _suppress(self, event: Attempt, tenant: Tenant, verdict: Verdict, counted: Counted) -> None:
        span = tenant.suppression.bounced
        gone = event.outcome is Outcome.BOUNCED and verdict.scope is Scope.MAILBOX and not event.given_up and not verdict.own
        if gone and span is not None and event.recipient:
            entry = suppression(event.recipient, "bounced", event.at, span, event.reply)
            counted.suppressions.setdefault(tenant.name, {})[event.recipient] = entry


def suppression(recipient: str, kind: str, at: float, span_ms: int, reason: str) -> Suppression:
    """An entry of the suppression list."""
    since = int(at * 1000)
    return Suppression(recipient, kind, since, since + span_ms, reason)


def ticket_text(ticket: bytes) -> str:
    """The ledger's ticket as the story keeps it."""
    return base64.b64encode(ticket).decode()


def _waiting(message: Message, event: Attempt) -> list[Attempt]:
    """Postfix gives up a whole message without naming its recipients: all those that were put off last."""
    return [
        replace(event, recipient=item.recipient, member=item.member, relay=item.relay.partition("[")[0], status=item.status,
                reply=item.reply)
        for item in message.last.values()
        if item.kind == Outcome.DEFERRED.value
    ]  # fmt: skip


def _names(event: Attempt, verdict: Verdict | None, message: Message) -> tuple[str, ...]:
    """What one attempt is counted as."""
    outcome = event.outcome.value
    if verdict is None:
        return (outcome,)
    names = [outcome, f"{outcome}.{verdict.scope.value}", f"{WHY}{verdict.category}"]
    if verdict.own:
        return tuple(names)
    if verdict.scope in CUSTOMERS and verdict.blame is Blame.CUSTOMER and message.block(event.recipient):
        names.append(BLOCKED)
    if event.outcome is Outcome.BOUNCED and verdict.scope is Scope.MAILBOX:
        names.append(INVALID)
    return tuple(names)


def _told(event: Attempt, kind: str, category: str) -> StoryEvent:
    relay = f"{event.relay}[{event.relay_ip}]" if event.relay_ip else event.relay
    reply = event.reply[:_LONGEST_REPLY]
    return StoryEvent(event.at, kind, event.recipient, event.member, relay, event.status, reply, category)


def _shown(sender: str | None) -> str:
    return "" if sender is None else sender or "<>"
