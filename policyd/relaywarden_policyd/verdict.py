"""verdict - what Postfix is told, and why.  A value: the reply, the log line, the metrics and `ask` all read the same one.

The text that the SMTP client sees names the tenant's own limit and what the tenant itself used, nothing else: no tenant's
name, no operator's note, no other balance.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from enum import Enum
from typing import Any

from relaywarden.ledger.operations import Refusal
from relaywarden.ledger.records import Suppression
from relaywarden.limits import Limit, Meter, format_bytes


class Action(Enum):
    """What Postfix does with the recipient or the message, by its name in access(5).  Never OK: it would end the list."""

    __hash__ = object.__hash__  # Enum's own is written in Python, and members are equal only to themselves

    DUNNO = "DUNNO"
    DEFER = "DEFER_IF_PERMIT"
    REJECT = "REJECT"
    HOLD = "HOLD"


class Cause(Enum):
    """The rule that made the verdict."""

    __hash__ = object.__hash__  # Enum's own is written in Python, and members are equal only to themselves

    ADMITTED = "admitted"
    GRANTED = "granted"  # beyond a limit, and charged to a grant
    LIMIT = "limit"
    NEVER = "never"  # more than the limit as a whole: waiting does not help
    SUSPENDED = "suspended"
    SUPPRESSED = "suppressed"  # the recipient bounced or complained, and is on the tenant's suppression list
    RECIPIENTS = "recipients_per_message"
    SIZE = "bytes_per_message"
    UNKNOWN_LOGIN = "unknown_login"
    UNAUTHENTICATED = "unauthenticated"
    STATE = "state"  # nothing is decided at this protocol state
    STORE = "store"  # the ledger did not answer: decided without it


@dataclass(frozen=True, slots=True)
class Verdict:
    """One decision.  `observed` beside DUNNO: what `cause` says would have been refused, were it not for observe mode."""

    action: Action
    cause: Cause
    tenant: str = ""
    mode: str = ""  # observe or enforce
    code: int = 0  # SMTP reply code where it is not Postfix's own for the action
    dsn: str = ""  # enhanced status code
    text: str = ""  # for the SMTP client
    limit: str = ""  # the limit that decided, as the configuration writes it
    used: int | None = None  # of that limit, before this request
    allowed: int | None = None
    retry_after_ms: int | None = None
    observed: bool = False
    repeated: bool = False  # a resent request: answered as before, charged once
    granted: bool = False  # beyond a limit, and charged to a grant
    reason: str = ""  # the operator's note on a suspension, or of a suppressed recipient; for the log, never for the client

    @property
    def admits(self) -> bool:
        """Whether mail flows on."""
        return self.action is Action.DUNNO

    @property
    def reply(self) -> str:
        """The action as Postfix reads it."""
        if self.action is Action.DUNNO:
            return "DUNNO"
        head = str(self.code) if self.code else self.action.value
        return f"{head} {self.dsn} {self.text}" if self.dsn else f"{head} {self.text}"

    def fields(self) -> dict[str, Any]:
        """For the log line and `ask --json`; retry_after in seconds."""
        return {
            "tenant": self.tenant,
            "verdict": self.action.name.lower(),
            "cause": self.cause.value,
            "mode": self.mode,
            "limit": self.limit,
            "used": self.used,
            "allowed": self.allowed,
            "retry_after": None if self.retry_after_ms is None else -(-self.retry_after_ms // 1000),
            "observed": self.observed,
            "repeated": self.repeated,
            "granted": self.granted,
            "reason": self.reason,
        }


def describe_refusal(limit: Limit | None, refusal: Refusal) -> str:
    """Why, in words for the client: the limit, what was used, when to come back."""
    if limit is None:  # the balance is of a limit that a reload has just removed
        return f"Sending limit reached; {_retry(refusal.retry_after_ms)}"
    allowed = _amount(limit.meter, refusal.allowed)
    meter = "" if limit.meter is Meter.BYTES else f" {limit.meter.value.replace('_', ' ')}"
    span = f"in {limit.window}" if limit.burst is None else f"at once, {limit.amount} in {limit.window} on average"
    if refusal.retry_after_ms is None:
        return f"Over the sending limit of {allowed}{meter} {span}, which no wait can make room for"
    used = _amount(limit.meter, refusal.used)
    return f"Sending limit of {allowed}{meter} {span} reached, {used} used; {_retry(refusal.retry_after_ms)}"


def describe_suppression(entry: Suppression) -> str:
    """Why a recipient is refused, in words for the client: what happened, and when it ends."""
    since, until = (
        datetime.datetime.fromtimestamp(ms / 1000, datetime.timezone.utc).date() for ms in (entry.since_ms, entry.until_ms)
    )
    what = {"bounced": "it bounced", "complained": "its reader complained"}.get(entry.kind, "your provider put it there")
    return f"This recipient is on your suppression list until {until}: {what} on {since}; do not send to it again"


def _retry(ms: int | None) -> str:
    return f"try again in {format_wait(ms)}" if ms is not None else "do not try again"


def _amount(meter: Meter, amount: int) -> str:
    return format_bytes(amount) if meter is Meter.BYTES else str(amount)


def format_wait(ms: int) -> str:
    """A wait rounded up to what a person can use: `37s`, `12m`, `3h 5m`, `2d 4h`."""
    seconds = max(1, -(-ms // 1000))
    if seconds < 120:
        return f"{seconds}s"
    minutes = -(-seconds // 60)
    if minutes < 120:
        return f"{minutes}m"
    if minutes < 48 * 60:
        return f"{minutes // 60}h {minutes % 60}m" if minutes % 60 else f"{minutes // 60}h"
    hours = -(-minutes // 60)
    return f"{hours // 24}d {hours % 24}h" if hours % 24 else f"{hours // 24}d"
