"""complaint - complaints that are not ARF: Microsoft's JMRP, Apple's unsubscribe, reports written for people.  Pure.

JMRP      from staff@hotmail.com, `complaint about message from ADDRESS`; the message enclosed, or all there is besides the
          outer header; its recipient in X-HmXmrOriginalRecipient
Apple     an empty mail with X-Apple-Unsubscribe: true; its sender wants no more mail (opt-out)
XARF      X-XARF: PLAIN or SECURE with a report in YAML or JSON, which is not read any further
others    a subject that speaks of a spam or abuse report and the message complained of enclosed; SpamCop

How it fails: None for what is not unmistakably one; a newsletter about spam is none.
Known limits: From is not proof; the token in the enclosed message is what counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from relaywarden_monitor.reports import address, wording
from relaywarden_monitor.reports.arf import ip
from relaywarden_monitor.reports.mime import Part, words
from relaywarden_monitor.reports.returned import Fields

_JMRP_SENDER = re.compile(
    r"staff@(?:hotmail|outlook|live|microsoft)\.com|.{0,60}@(?:\w{1,30}\.)?(?:jmrp|fbl)\.\w", re.IGNORECASE
)
_JMRP_SUBJECT = re.compile(r"complaint about (?:the )?message from", re.IGNORECASE)
_PROVIDER = re.compile(
    r"(?:abuse|fbl|feedback|complaints?|spam|jmrp|scomp|arf|reports?|staff|antispam)[\w.+-]{0,60}@", re.IGNORECASE
)
_TYPE = re.compile(r"(?:^|\n)[ \t>]{0,8}Feedback-Type:[ \t]{0,8}([a-z-]{1,30})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Complaint:
    """What such a complaint says."""

    feedback_type: str
    source_ip: str = ""
    recipient: str = ""


def find(message: Part, text: str, head: Fields) -> Complaint | None:
    """The complaint, None if it is none; `head` is of the enclosed message."""
    subject, sender = words(message.first("subject"))[:500], address.clean(words(message.first("from")))
    original = _recipient(message, head)
    if message.first("x-apple-unsubscribe").strip().lower() == "true":
        return Complaint("opt-out", recipient=original or sender)
    if original or (_JMRP_SENDER.fullmatch(sender) and (_JMRP_SUBJECT.search(subject) or head)):
        return Complaint("abuse", ip(subject) or ip(message.first("x-originating-ip")), original)
    if message.first("x-xarf"):
        return Complaint("abuse", ip(subject))
    if message.parameters.get("report-type", "").lower() == "feedback-report" or any(
        _TYPE.search(part.text()[:4000]) for part in message.walk() if part.type == "text/plain" and head
    ):
        found = _TYPE.search(text)  # the part with the report is missing or of a wrong type
        return Complaint(found.group(1).lower() if found else "abuse", ip(subject))
    if wording.ANSWER.match(subject) and not head:
        return None
    return _for_people(message, subject, sender, text, head)


def _recipient(message: Part, head: Fields) -> str:
    for fields in (head, message.fields):
        for value in fields.get("x-hmxmroriginalrecipient", ()):
            if recipient := address.clean(value):
                return recipient
    return ""


def _for_people(message: Part, subject: str, sender: str, text: str, head: Fields) -> Complaint | None:
    titled = wording.COMPLAINT_SUBJECT.search(subject) is not None
    said = wording.COMPLAINT_TEXT.search(text[:4000]) is not None
    if sender.endswith("spamcop.net") and (titled or said):
        return Complaint("abuse", ip(subject) or ip(text))
    if message.first("list-unsubscribe") or message.first("list-id"):
        return None
    if head and (titled + said + bool(_PROVIDER.match(sender))) >= 2:
        phishing = re.search(r"phish|fraud", subject, re.IGNORECASE)
        return Complaint("fraud" if phishing else "abuse", ip(subject))
    return None
