"""read - what a message that came to our bounce or complaint address says, one Report a recipient.  Pure, never raises.

Looked for in this order: a feedback report (ARF), a delivery status notification, another complaint, a bounce message written
for people, an automatic answer.  What is none of these is not a report; nor is a notification without a failure (`report`).

How it fails: whatever the bytes are, there is at least one Report.  Time is bounded by `mime`: a message is read up to
16 MiB, its text up to 64 KiB, and no more than 100 recipients of it.

Known limits: the From of a report is not checked.  Only a token that opens ties a report to a message of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from relaywarden.feedback import Tokens
from relaywarden_monitor.reports import address, arf, autoreply, complaint, dsn, origin, prose, returned, wording, wordtext
from relaywarden_monitor.reports.mime import Part, parse, words
from relaywarden_monitor.reports.report import Kind, Report
from relaywarden_monitor.verdict import Verdict

Classify = Callable[[str, str, str], Verdict]  # reply, relay, status

_TOLD = re.compile(r"[A-Za-z]{3}|[^\x00-\x7f]{2}")  # a reply that is more than its code
_VAGUE = re.compile(
    r"^\W*(?:[45]\d\d)?\W*(?:[45]\.\d{1,3}\.\d{1,3})?\W*(?:unknown|none|n/a|error|failed|\(?unspecified\)?)?\W*$", re.IGNORECASE
)
_VAGUE_LENGTH = 60  # the pattern takes more than linear time over what is no word
_CODE = re.compile(r"[45]\d\d[ -]|[45]\.\d")
_RECIPIENT_FIELDS = ("x-actual-recipient", "original-recipient", "x-original-to", "delivered-to", "envelope-to", "to")


@dataclass(frozen=True, slots=True)
class _Mail:
    """A message and the views of it that the recognisers need."""

    message: Part
    everything: str  # its text
    text: str  # the reporter's own words: without a message quoted in it
    head: returned.Fields  # of the message returned
    envelope_to: str

    @property
    def own(self) -> frozenset[str]:
        """Addresses that the report was sent to or from: none of its failures."""
        values = (value for name in ("to", "from", "cc", "delivered-to") for value in self.message.fields.get(name, ())[:4])
        return frozenset(address.every(" ".join(values)[:4000])) | {address.clean(self.envelope_to)}


def read(data: bytes, classify: Classify, tokens: Tokens | None = None, envelope_to: str = "") -> list[Report]:
    """The reports in a message, one a recipient; never raises.

    `classify` is asked about each reply; without `tokens` none is opened.  `envelope_to`: to whom the MTA gave the message.
    """
    message = parse(data)
    everything = wordtext.of(message)
    text, quoted = returned.split(everything)
    mail = _Mail(message, everything, text, returned.head(message) or quoted, envelope_to)
    found, reported = _recognise(mail)
    places = origin.Places(mail.head, message.fields, reported, envelope_to, everything)
    source = origin.find(places, tokens)
    return [_finish(report, mail, classify, source) for report in found]


def _recognise(mail: _Mail) -> tuple[list[Report], dict[str, str]]:
    """The reports as far as their kind of report says, and the fields in which a token may have come along."""
    if feedback := arf.find(mail.message):
        return _complaints(feedback, mail), {
            "cfbl-feedback-id": feedback.cfbl_feedback_id,
            "original-mail-from": feedback.original_mail_from,
            "original-envelope-id": feedback.original_envelope_id,
        }
    answer = wording.ANSWER.match(words(mail.message.first("subject"))[:500]) and not prose.from_robot(mail.message)
    notification = dsn.find(mail.message, "" if answer else mail.everything)
    if notification:
        return _notified(notification, mail), {"original-envelope-id": notification.envelope_id}
    if other := complaint.find(mail.message, mail.text, mail.head):
        recipient = other.recipient or _recipient(mail)
        return [Report(Kind.COMPLAINT, recipient, feedback_type=other.feedback_type, source_ip=other.source_ip)], {}
    if not _is_receipt(mail.message) and prose.is_bounce(mail.message, mail.text):
        return _told(mail), {}
    if autoreply.is_auto_reply(mail.message, mail.text):
        return [Report(Kind.AUTO_REPLY, address.clean(words(mail.message.first("from"))))], {}
    return [Report(Kind.NOT_A_REPORT)], {}


def _complaints(feedback: arf.ArfReport, mail: _Mail) -> list[Report]:
    recipients = [address.clean(value) for value in (*feedback.original_rcpt_to, *feedback.removal_recipient)]
    known = list(dict.fromkeys(one for one in recipients if one and not address.is_redacted(one)))
    if not known:
        known = [_recipient(mail, feedback.original_mail_from) or next(iter(recipients), "")]
    report = Report(
        Kind.COMPLAINT,
        feedback_type=wordtext.printable(feedback.feedback_type, 40),
        source_ip=feedback.source_ip,
        relay=dsn.host(feedback.reporting_mta),
    )
    return [replace(report, recipient=recipient) for recipient in known]


def _notified(notification: dsn.Notification, mail: _Mail) -> list[Report]:
    reports = []
    for failure in notification.failures:
        recipient = failure.recipient or _recipient(mail)
        reply, status, relay = failure.reply, failure.status, failure.relay
        if failure.action in {"failed", "delayed"} and (not _TOLD.search(reply) or _VAGUE.match(reply[:_VAGUE_LENGTH])):
            told = prose.failure_of(recipient, mail.text)
            reply = told.reply if _CODE.search(told.reply) or not _TOLD.search(reply) else reply
            status = told.status if not status or (status.endswith(".0.0") and told.status) else status
            relay = relay or told.relay
        reports.append(
            Report(
                Kind.BOUNCE if failure.action == "failed" else Kind.NOT_A_REPORT,
                recipient,
                status,
                reply,
                failure.action,
                relay or notification.reporting_mta,
                reporter=notification.reporting_mta,
                queue_id=notification.queue_id,
                vmta=failure.vmta,
            )
        )
    return reports


def _told(mail: _Mail) -> list[Report]:
    """A bounce message written for people."""
    failures = prose.failures(mail.message, mail.text, mail.own)
    if not failures:
        action = "delayed" if prose.is_delay(mail.message, mail.text) else "failed"
        failures = [prose.failure_of(_recipient(mail), mail.text, action)]
        if not (failures[0].recipient or failures[0].status or prose.from_nobody(mail.message)):
            return [Report(Kind.NOT_A_REPORT)]  # a robot's name and a complaint about a mailbox: so looks phishing, too
    return [
        Report(
            Kind.BOUNCE if failure.action == "failed" else Kind.NOT_A_REPORT,
            failure.recipient, failure.status, failure.reply, failure.action, failure.relay,
        )
        for failure in failures
    ]  # fmt: skip


def _recipient(mail: _Mail, return_path: str = "") -> str:
    """Whom the returned message was for: by the variable return path, else by its header."""
    paths: Iterable[str] = (return_path, mail.envelope_to, *mail.head.get("return-path", ())[:2], mail.message.first("to"))
    for path in paths:
        if recipient := address.recipient_of_verp(path):
            return recipient
    for name in _RECIPIENT_FIELDS:
        for value in mail.head.get(name, ())[:2]:
            named = [one for one in address.every(value[:4000]) if not address.is_redacted(one)]
            if len(named) == 1:
                return named[0]
    return ""


def _is_receipt(message: Part) -> bool:
    return any(part.type == "message/disposition-notification" for part in message.walk())


def _finish(report: Report, mail: _Mail, classify: Classify, found: origin.Origin) -> Report:
    """With what every kind of report has, all texts made printable, and the verdict on the reply."""
    sender = address.clean(words(mail.message.first("from")))
    reply, relay = wordtext.printable(report.reply), wordtext.printable(report.relay, 255)
    reporter = wordtext.printable(report.reporter or sender.rpartition("@")[2], 255)
    refused = report.action in {"failed", "delayed"}
    opened = found.opened
    message_ids = mail.head.get("message-id", ("",))
    return replace(
        report,
        recipient=wordtext.printable(report.recipient, address.LONGEST),
        reply=reply,
        relay=relay,
        verdict=classify(reply, relay or reporter, report.status) if refused else None,
        token=found.token,
        opened=opened,
        forged=found.forged,
        queue_id=wordtext.printable(opened.queue_id if opened else report.queue_id, 40),
        reporting_id=wordtext.printable(report.queue_id, 40),
        message_id=wordtext.printable(message_ids[0], 998).strip("<> "),
        reporter=reporter,
        vmta=wordtext.printable(report.vmta, 64),
        at=float(arf.when(mail.message.first("date")) or 0),
    )
