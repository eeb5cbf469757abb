"""reporting - bounce messages and complaints that came as mail: from what they say to what is counted against whom.

Only a token that verifies leads to a tenant and a message (`relaywarden.feedback`): reports are written by strangers, and one
that could be forged would let anybody suspend a competitor.  A report without one is logged and counted for nobody.

A message of one recipient is about that recipient, also where the report leaves the address out (RFC 6590); of a report about
any other message the address must be one of the message's, or nothing is suppressed, and all such reports count one (`about`).

Exactly once: each (message, recipient, kind) counts once, however often it is reported or delivered to us; so a report is done
when the ledger has it, and whoever brings it may bring it again.

A report may come weeks after its message, of which then is left a trace: digests of its recipients, and its member.

How it fails: StoreUnavailableError goes to whoever brings the report, who must keep it and try again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from relaywarden import story, warmup
from relaywarden.config.settings import Settings
from relaywarden.feedback import Opened, Tokens
from relaywarden.ledger.operations import Ledger, Operation
from relaywarden.ledger.records import Note, Noted, Notes, Suppress, Tally
from relaywarden.logs import event
from relaywarden.outcomes import BLOCKED, INVALID, WHY
from relaywarden.story import Story, StoryEvent, Trace, short
from relaywarden.tenants import Directory, Tenant
from relaywarden_monitor import meters
from relaywarden_monitor.about import About, Owners, about, is_of, is_old, once_name, provider_of
from relaywarden_monitor.attribute import CUSTOMERS, HARMLESS_COMPLAINTS, suppression
from relaywarden_monitor.classify.classifier import Classifier
from relaywarden_monitor.reports.read import read
from relaywarden_monitor.reports.report import Kind, Report
from relaywarden_monitor.verdict import Blame, Scope

log = logging.getLogger(__name__)
_BOUNCED = "bounced"
_ASK_AGAIN = 60.0  # seconds after nobody was found whose token it is


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
        """`touched` is told each tenant of which something was counted, also where an earlier try had counted it already."""
        self._ledger, self._classifier, self._tokens, self._touched, self._clock = ledger, classifier, tokens, touched, clock
        self._owners = Owners(Directory(settings), tokens)
        self._members = frozenset(name for pool in settings.pools.values() for name in pool.members)
        self._remember_ms, self._history_ms = settings.monitor.remember, settings.monitor.history
        self._reads_log = bool(settings.monitor.postfix_log) or settings.monitor.journal is not None
        self._reads_accounting = bool(settings.monitor.accounting) or settings.monitor.spool is not None
        self._nobodys: dict[bytes, float] = {}  # tag -> when it was asked for; few: they come out of tokens that verified

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
        opened = report.opened
        if is_old(opened, self._clock(), self._history_ms):
            event(log, logging.WARNING, "report about mail that is too old to count", queue=report.queue_id)
            return
        tenant = self._tenant(opened.tenant_tag)
        if tenant is None:
            event(log, logging.WARNING, "report about mail of a tenant that is not here any more", queue=report.queue_id)
            return
        told, is_another = self._told(opened, tenant.name)
        trace = self._trace(opened, tenant.name) if not told.last else Trace()
        self._count(report, tenant, told, about(report.recipient, told, trace), is_another)

    def _told(self, opened: Opened, tenant: str) -> tuple[Story, bool]:
        """What the MTA's log and the milter said; and whether that is about another message, and so does not count.

        What other reports said is no evidence for this one.
        """
        queue_id = opened.queue_id
        (found,) = self._ledger.apply([Notes(story.book(queue_id), story.TOPIC, (story.LOG, story.MILTER))])
        told = story.read(queue_id, found.fields) if isinstance(found, Noted) else None
        if told is None:
            return Story(queue_id), False
        is_another = not is_of(opened, tenant, told.tenant, told.facts.get("accepted_at") or told.milter.get("at"))
        return (Story(queue_id) if is_another else told), is_another

    def _trace(self, opened: Opened, tenant: str) -> Trace:
        (found,) = self._ledger.apply([Notes(story.book(opened.queue_id), story.TRACE, (story.SENT,))])
        trace = story.trace(found.fields.get(story.SENT) if isinstance(found, Noted) else None)
        return trace if is_of(opened, tenant, trace.tenant, trace.at) else Trace()

    def _count(self, report: Report, tenant: Tenant, told: Story, found: About, is_another: bool) -> None:
        provider, queue_id = found.provider or provider_of(found.recipient), told.queue_id
        outcome = _BOUNCED if report.kind is Kind.BOUNCE else "complained"
        name = once_name(outcome, queue_id, found.name)
        operations: list[Operation] = []
        now = self._clock()
        has_bounced = found.last is not None and found.last.kind == _BOUNCED  # the MTA's own log has said so already
        if _counts(report) and not (outcome == _BOUNCED and (self._is_own(report) or has_bounced)):
            names = dict.fromkeys(_details(report, short(found.recipient) in told.blocked), 1)
            operations.append(self._tally(tenant.name, outcome, {f"{provider}.{outcome}": 1, **names}, name))
            if found.member in self._members:
                operations.append(self._tally(warmup.books(found.member, provider), outcome, names, name))
        is_counted = bool(operations)
        if not is_another:
            note = {story.REPORT + short(name): story.dump(_told(report, found, outcome, now))}
            operations.append(Note(story.book(queue_id), story.TOPIC, note, self._remember_ms))
        if found.known:
            operations += self._suppress(report, tenant, found.recipient, now)
        if operations:
            self._ledger.apply(operations)
        if is_counted:
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
        now = self._clock()
        if not self._owners.knows(tag) and abs(now - self._nobodys.get(tag, 0.0)) >= _ASK_AGAIN:
            self._owners.learn(self._ledger.tenants())
            self._nobodys[tag] = now
        return self._owners.of(tag)


def _standing(report: Report) -> str:
    return "verified" if report.opened is not None else "forged" if report.forged else "anonymous"


def _counts(report: Report) -> bool:
    """A complaint that says nothing against a message is not counted; nor is a bounce about our own texts."""
    if report.kind is Kind.COMPLAINT:
        return report.feedback_type not in HARMLESS_COMPLAINTS
    return report.verdict is None or not report.verdict.own


def _details(report: Report, blocked: bool) -> list[str]:
    if report.kind is Kind.COMPLAINT or report.verdict is None:
        return []
    verdict = report.verdict
    names = [f"{_BOUNCED}.{verdict.scope.value}", f"{WHY}{verdict.category}"]
    if verdict.scope in CUSTOMERS and verdict.blame is Blame.CUSTOMER and not blocked:
        names.append(BLOCKED)
    if verdict.scope is Scope.MAILBOX:
        names.append(INVALID)
    return names


def _told(report: Report, found: About, outcome: str, at: float) -> StoryEvent:
    category = report.verdict.category if report.kind is Kind.BOUNCE and report.verdict else report.feedback_type
    return StoryEvent(at, outcome, found.recipient, found.member, report.reporter, report.status, report.reply, category)
