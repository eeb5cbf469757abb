"""reporting - bounce messages and complaints that came as mail: from what they say to what is counted against whom.

Only a token that verifies leads to a tenant and a message (`relaywarden.feedback`): reports are written by strangers, and one
that could be forged would let anybody suspend a competitor.  A report without one is logged and counted for nobody.

A message of one recipient is about that recipient, also where the report leaves the address out (RFC 6590); of a report about
any other message the address must be one of the message's, or nothing is suppressed.

Exactly once: each (message, recipient, kind) counts once, however often it is reported or delivered to us; so a report is done
when the ledger has it, and whoever brings it may bring it again.

How it fails: StoreUnavailableError goes to whoever brings the report, who must keep it and try again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from relaywarden import providers, story, warmup
from relaywarden.config.settings import Settings
from relaywarden.feedback import Tokens
from relaywarden.ledger.operations import Ledger, Operation
from relaywarden.ledger.records import Note, Noted, Notes, Suppress, Tallied, Tally
from relaywarden.logs import event
from relaywarden.outcomes import BLOCKED, INVALID, WHY
from relaywarden.story import Story, StoryEvent
from relaywarden.tenants import Directory, Tenant
from relaywarden_monitor import meters
from relaywarden_monitor.attribute import CUSTOMERS, HARMLESS_COMPLAINTS, once_name, provider_of, short, suppression
from relaywarden_monitor.classify.classifier import Classifier
from relaywarden_monitor.reports.read import read
from relaywarden_monitor.reports.report import Kind, Report
from relaywarden_monitor.verdict import Blame, Scope

log = logging.getLogger(__name__)
_BOUNCED = "bounced"


class ReportDesk:
    """Takes reports from any thread; a reload makes a new one."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        classifier: Classifier,
        tokens: Tokens | None,
        touched: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`touched` is told each tenant of which something was counted."""
        self._ledger, self._classifier, self._tokens, self._touched, self._clock = ledger, classifier, tokens, touched, clock
        self._directory = Directory(settings)
        self._members = frozenset(name for pool in settings.pools.values() for name in pool.members)
        self._remember_ms, self._history_ms = settings.monitor.remember, settings.monitor.history
        self._reads_log = bool(settings.monitor.postfix_log) or settings.monitor.journal is not None
        self._reads_accounting = bool(settings.monitor.accounting) or settings.monitor.spool is not None
        self._by_tag: dict[bytes, str] = {}

    def deliver(self, data: bytes, envelope_to: str) -> None:
        """Take one message; raises StoreUnavailableError: bring it again."""
        for report in read(data, self._classifier.classify, self._tokens, envelope_to):
            meters.REPORTS.labels(report.kind.value, _standing(report)).inc()
            self._take(report)

    def _take(self, report: Report) -> None:
        event(log, logging.WARNING if report.forged else logging.INFO, "report", kind=report.kind.value,
              recipient=report.recipient, status=report.status, feedback=report.feedback_type, reporter=report.reporter,
              queue=report.queue_id, message_id=report.message_id, reply=report.reply,
              verified=report.opened is not None, forged=report.forged or None)  # fmt: skip
        if report.opened is None or report.kind not in (Kind.BOUNCE, Kind.COMPLAINT):
            return
        tenant = self._tenant(report.opened.tenant_tag)
        if tenant is None:
            event(log, logging.WARNING, "report about mail of a tenant that is not here any more", queue=report.queue_id)
            return
        queue_id = report.opened.queue_id
        (found,) = self._ledger.apply([Notes(story.book(queue_id), story.TOPIC)])
        notes = found.fields if isinstance(found, Noted) else {}
        # Only what the MTA's log and the milter said: what other reports said is no evidence for this one.
        own = {name: text for name, text in notes.items() if name in (story.LOG, story.MILTER)}
        told = story.read(queue_id, own)
        self._count(report, tenant, queue_id, told or Story(queue_id))

    def _count(self, report: Report, tenant: Tenant, queue_id: str, told: Story) -> None:
        recipient, known = _recipient(report, told)
        last = next((item for item in reversed(told.events) if item.recipient == recipient and item.member), None)
        member = last.member if last is not None and last.member in self._members else str(told.milter.get("member", ""))
        provider = (last is not None and providers.by_mx(last.relay.partition("[")[0])) or provider_of(recipient)
        outcome = _BOUNCED if report.kind is Kind.BOUNCE else "complained"
        category = report.verdict.category if report.kind is Kind.BOUNCE and report.verdict else report.feedback_type
        name = once_name(outcome, queue_id, recipient)
        operations: list[Operation] = []
        now = self._clock()
        if _counts(report) and not (outcome == _BOUNCED and (self._is_own(report) or _has_bounced(told, recipient))):
            details = {f"{provider}.{outcome}": 1, **dict.fromkeys(_details(report), 1)}
            operations.append(self._tally(tenant.name, outcome, details, name))
            if member in self._members:
                operations.append(
                    self._tally(warmup.books(member, provider), outcome, dict.fromkeys(_details(report), 1), name)
                )
        item = StoryEvent(now, outcome, recipient, member, report.reporter, report.status, report.reply, category)
        operations.append(
            Note(story.book(queue_id), story.TOPIC, {story.REPORT + short(name): story.dump(item)}, self._remember_ms)
        )
        if known:
            operations += self._suppress(report, tenant, recipient, now)
        results = self._ledger.apply(operations)
        if any(isinstance(result, Tallied) and result.counted for result in results):
            self._touched(tenant.name)

    def _is_own(self, report: Report) -> bool:
        """A notification by our own MTA, whose log or accounting tells the same: it may well be here before that is read."""
        opened = report.opened
        by_postfix = self._reads_log and opened is not None and report.reporting_id == opened.queue_id
        return by_postfix or (self._reads_accounting and report.vmta in self._members)

    def _tally(self, book: str, outcome: str, details: dict[str, int], name: str) -> Tally:
        return Tally(book, {outcome: 1}, details, once=name, once_ms=self._history_ms, keep_ms=self._history_ms)

    def _suppress(self, report: Report, tenant: Tenant, recipient: str, now: float) -> Iterable[Suppress]:
        rules, verdict = tenant.suppression, report.verdict
        if report.kind is Kind.COMPLAINT and report.feedback_type not in HARMLESS_COMPLAINTS - {"opt-out"}:
            span, kind, reason = rules.complained, "complained", report.feedback_type
        elif report.kind is Kind.BOUNCE and verdict is not None and verdict.scope is Scope.MAILBOX:
            span, kind, reason = rules.bounced, _BOUNCED, report.reply
        else:
            return
        if span is not None:
            yield Suppress(tenant.name, {recipient: suppression(recipient, kind, now, span, reason)})

    def _tenant(self, tag: bytes) -> Tenant | None:
        """The tenant of a token's tag: configured, or one that the ledger has books of."""
        if self._tokens is None:
            return None
        name = self._by_tag.get(tag)
        if name is None:
            names = [tenant.name for tenant in self._directory]
            name = self._tokens.find(tag, names) or self._tokens.find(tag, self._ledger.tenants()) or ""
            self._by_tag[tag] = name  # as many as there are tenants: a tag only comes out of a token that verified
        return self._directory.by_name(name) if name else None


def _standing(report: Report) -> str:
    return "verified" if report.opened is not None else "forged" if report.forged else "anonymous"


def _counts(report: Report) -> bool:
    """A complaint that says nothing against a message is not counted; nor is a bounce about our own texts."""
    if report.kind is Kind.COMPLAINT:
        return report.feedback_type not in HARMLESS_COMPLAINTS
    return report.verdict is None or not report.verdict.own


def _details(report: Report) -> list[str]:
    if report.kind is Kind.COMPLAINT or report.verdict is None:
        return []
    verdict = report.verdict
    names = [f"{_BOUNCED}.{verdict.scope.value}", f"{WHY}{verdict.category}"]
    if verdict.scope in CUSTOMERS and verdict.blame is Blame.CUSTOMER:
        names.append(BLOCKED)
    if verdict.scope is Scope.MAILBOX:
        names.append(INVALID)
    return names


def _recipient(report: Report, told: Story) -> tuple[str, bool]:
    """Whom the report is about, and whether the message certainly went there."""
    recipients = {item.recipient.casefold(): item.recipient for item in told.events if item.recipient}
    if report.recipient.casefold() in recipients:
        return recipients[report.recipient.casefold()], True
    if len(recipients) == 1 and told.facts.get("recipients", 1) == 1:
        return next(iter(recipients.values())), True
    return report.recipient, False


def _has_bounced(told: Story, recipient: str) -> bool:
    """The MTA's own log has said so already."""
    return any(item.kind == _BOUNCED and item.recipient == recipient for item in told.events)
