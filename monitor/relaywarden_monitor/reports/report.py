"""report - what a bounce message or a complaint says, one value a recipient.  Plain values.

A notification that only tells of delay, delivery, relaying or expansion reports no failure: its kind is `not-a-report`, with
its `action` and all other facts filled in.  So whoever counts bounces by kind counts no mail that may still arrive.
A complaint may be no reproach: `feedback_type` says so (not-spam, auth-failure, opt-out).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from relaywarden.feedback import Opened
from relaywarden_monitor.verdict import Verdict


class Kind(Enum):
    """What a message that came in is."""

    BOUNCE = "bounce"  # a message of ours, or some of its recipients, failed for good
    COMPLAINT = "complaint"
    AUTO_REPLY = "auto-reply"  # vacation notices, challenges, read receipts
    NOT_A_REPORT = "not-a-report"


@dataclass(frozen=True, slots=True)
class Report:
    """One recipient of one report; what the report does not say is empty.  Every text is printable and bounded."""

    kind: Kind
    recipient: str = ""  # as the customer wrote it (Original-Recipient), its domain in lower case
    status: str = ""  # enhanced status code, 5.1.1
    reply: str = ""  # what the receiving side said
    action: str = ""  # RFC 3464 section 2.3.3: failed, delayed, delivered, relayed, expanded
    relay: str = ""  # host that said it
    verdict: Verdict | None = None  # of the reply; None where nothing was refused
    feedback_type: str = ""  # RFC 5965 section 7.3, RFC 6591, and opt-out
    token: str = ""  # one of ours that verified
    opened: Opened | None = None  # what it says; None: penalise nobody
    forged: bool = False  # what stands where our token should does not verify
    queue_id: str = ""  # of the original: from the token, else as the reporting Postfix names its own
    reporting_id: str = ""  # by which the reporting Postfix knew the original: the queue id itself where that Postfix is ours
    message_id: str = ""  # of the original, without angle brackets
    reporter: str = ""  # host or domain that sent the report
    source_ip: str = ""  # from which the reporter had the original
    vmta: str = ""  # PowerMTA's virtual MTA
    at: float = 0.0  # the report's own date, seconds since 1970
