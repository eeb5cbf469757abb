"""attribute - whose is it: from events to what is counted for tenants, pool members and providers.  No I/O, no clock.

    Accepted     login -> tenant, on the docket
    Attempt      one more delivered, deferred or bounced, for the tenant, and for (member, provider)
    Complaint    one more complained, where the source vouches for whose message it is (PowerMTA's own feedback records)
    others       facts and events of the message's story

What is counted has the names of `relaywarden.outcomes`.  A message of nobody (a notification, mail of the host itself) counts
for its member alone.  What Postfix hands to our own next hop (`monitor.handover`) is not delivered yet: it is in the story, and
counts nothing; PowerMTA's accounting says what became of it.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from relaywarden import providers, warmup
from relaywarden.config.settings import Settings
from relaywarden.ledger.records import HOUR_MS, Suppression
from relaywarden.outcomes import BLOCKED, INVALID, WHY
from relaywarden.story import StoryEvent
from relaywarden.tenants import Directory, Tenant
from relaywarden_monitor.classify.classifier import Classifier
from relaywarden_monitor.docket import Docket, Message
from relaywarden_monitor.events import Accepted, Attempt, Complaint, Described, Event, Gone, Notified, Outcome, Refused
from relaywarden_monitor.verdict import Blame, Scope, Verdict

_LONGEST_REPLY = 300
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


@dataclass(slots=True)
class Counted:
    """What a chunk of events comes to."""

    hours: dict[int, dict[str, Counter[str]]] = field(default_factory=dict)  # hour -> books -> name -> amount
    suppressions: dict[str, dict[str, Suppression]] = field(default_factory=dict)  # tenant -> address -> why
    judged: list[Judged] = field(default_factory=list)
    tenants: set[str] = field(default_factory=set)  # of which something was counted

    def add(self, book: str, at: float, names: Iterable[str]) -> None:
        """One more of each name in a book's hour."""
        hour = self.hours.setdefault(int(at * 1000) // HOUR_MS, {})
        hour.setdefault(book, Counter()).update(names)


class Attributor:
    """Attributes events by one set of settings; a reload makes a new one."""

    def __init__(self, settings: Settings, classifier: Classifier) -> None:
        self._classifier = classifier
        self._directory = Directory(settings)
        members = {name: values.ip for pool in settings.pools.values() for name, values in pool.members.items()}
        self._members = frozenset(members)
        self._by_ip = {ip: name for name, ip in members.items()}
        self._handover = {host.rstrip(".").casefold() for host in settings.monitor.handover}

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
                    docket.find(event.queue_id).know(
                        message_id=event.message_id, sender=_shown(event.sender), size=event.size, recipients=event.recipients
                    )
                case Gone():
                    docket.find(event.queue_id).know(gone_at=event.at)
                case Notified():
                    docket.find(event.queue_id).add(StoryEvent(event.at, f"notified-{event.kind}", reply=event.notice_id))
                case Refused() if event.queue_id:
                    reply = event.reply[:_LONGEST_REPLY]
                    docket.find(event.queue_id).add(StoryEvent(event.at, "refused", reply=reply, category=event.stage))
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

    def _attempt(self, event: Attempt, docket: Docket, counted: Counted) -> None:
        message = docket.find(event.queue_id) if event.queue_id else Message("")
        tenant = self._tenant(message, event.tenant)
        name = tenant.name if tenant is not None else ""
        member = event.member if event.member in self._members else self._by_ip.get(event.source, "")
        delivered = event.outcome is Outcome.DELIVERED
        if self._is_handover(event):
            message.add(_told(event, "handed-over" if delivered else event.outcome.value, ""))
            if delivered:
                return
            member = ""  # our own next hop is in trouble, no mailbox provider
        provider = self._provider(event)
        verdict = None if delivered else self._classifier.classify(event.reply, event.relay, event.status)
        if event.recipient:
            message.add(_told(event, event.outcome.value, verdict.category if verdict else ""))
        names = _names(event, verdict)
        if name and event.recipient:
            counted.add(name, event.at, (*names, f"{provider}.{event.outcome.value}"))
            counted.tenants.add(name)
        if member:
            counted.add(warmup.books(member, provider), event.at, names)
        if tenant is not None and verdict is not None:
            self._suppress(event, tenant, verdict, counted)
        counted.judged.append(Judged(event, verdict, provider, member, name))

    def _complaint(self, event: Complaint, docket: Docket, counted: Counted) -> None:
        message = docket.find(event.queue_id) if event.queue_id else Message("")
        tenant = self._tenant(message, event.tenant)
        message.add(StoryEvent(event.at, "complained", event.recipient, category=event.kind))
        if tenant is None or event.kind in HARMLESS_COMPLAINTS:
            return
        provider = event.provider or provider_of(event.recipient)
        counted.add(tenant.name, event.at, ("complained", f"{provider}.complained"))
        counted.tenants.add(tenant.name)
        if event.member in self._members:
            counted.add(warmup.books(event.member, provider), event.at, ("complained",))
        if event.recipient and tenant.suppression.complained is not None:
            entry = suppression(event.recipient, "complained", event.at, tenant.suppression.complained, event.kind)
            counted.suppressions.setdefault(tenant.name, {})[event.recipient] = entry

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


def provider_of(recipient: str) -> str:
    """The provider of a well-known consumer domain, else OTHER."""
    return providers.by_domain(recipient.rpartition("@")[2]) or providers.OTHER


def suppression(recipient: str, kind: str, at: float, span_ms: int, reason: str) -> Suppression:
    """An entry of the suppression list."""
    since = int(at * 1000)
    return Suppression(recipient, kind, since, since + span_ms, reason)


def ticket_text(ticket: bytes) -> str:
    """The ledger's ticket as the story keeps it."""
    return base64.b64encode(ticket).decode()


def _names(event: Attempt, verdict: Verdict | None) -> tuple[str, ...]:
    """What one attempt is counted as."""
    outcome = event.outcome.value
    if verdict is None:
        return (outcome,)
    names = [outcome, f"{outcome}.{verdict.scope.value}", f"{WHY}{verdict.category}"]
    if verdict.own:
        return tuple(names)
    if verdict.scope in CUSTOMERS and verdict.blame is Blame.CUSTOMER:
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
