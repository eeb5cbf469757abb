"""accountingrow - a row of PowerMTA's accounting as an event.  Pure.

Wire format: CSV (RFC 4180, UTF-8), columns by the names of the header row, in any order and number; record types are mixed:

    d, b, t     delivered, bounced here, failed for now: one recipient's Attempt
    tq          a whole queue failed for now: an Attempt without recipient, which concerns the member only
    rb          bounced by a report that came later: an Attempt that is `remote`
    rs          status from such a report: an Attempt if it says `delayed`, else nothing
    r           received: Accepted where somebody logged in to PowerMTA itself, else Described
    f           feedback loop: a Complaint

relaywarden writes X-Job, which comes back as jobId: the tenant, and X-Envid, which comes back as envId: Postfix' queue id.  In
a report (f) both could be forged, so only the token in it is passed on, to be checked by whoever counts it.

How it fails: ProtocolError for a row that does not fit its header.  What a row does not say is empty in the event.

Known limits: times without a zone are taken as UTC.  Fields are cut at 2048 characters.
"""

from __future__ import annotations

import calendar
import hashlib
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Final

from relaywarden.errors import ProtocolError
from relaywarden.providers import by_mx
from relaywarden_monitor.events import Accepted, Attempt, Complaint, Described, Event, Outcome

LONGEST: Final = 2048  # characters of a field
_OUTCOMES = {"d": Outcome.DELIVERED, "b": Outcome.BOUNCED, "t": Outcome.DEFERRED, "tq": Outcome.DEFERRED, "rb": Outcome.BOUNCED}
_REMOTE = frozenset({"rb", "rs"})
TYPES: Final = frozenset({*_OUTCOMES, "rs", "r", "f"})
# What identifies a row that came by the pipe and by a file.
_IDENTITY = ("type", "timelogged", "orig", "rcpt", "jobid", "envid", "dsnstatus", "dsndiag", "vmta")
_ATTEMPT = ("timelogged", "envid", "rcpt", "vmta", "dsnmta", "dsnstatus", "dsndiag", "bouncecat", "jobid", "dlvsourceip")
_RECEIVED = ("timelogged", "envid", "orig", "rcvsmtpuser", "rcvsourceip", "header_message-id")
_FEEDBACK = (
    "timelogged", "rcpt", "header_x-hmxmroriginalrecipient", "feedbacktype", "header_cfbl-feedback-id", "header_feedback-id",
    "reportingmta", "format",
)  # fmt: skip
# PowerMTA's bounce categories, for rows without a reply and a telling status.
_BY_CATEGORY = {
    "bad-configuration": "5.3.5", "bad-connection": "4.4.2", "bad-domain": "5.1.2", "bad-mailbox": "5.1.1",
    "content-related": "5.6.0", "inactive-mailbox": "5.2.1", "invalid-sender": "5.1.8", "message-expired": "4.4.7",
    "no-answer-from-host": "4.4.1", "other": "", "policy-related": "5.7.1", "protocol-errors": "5.5.0",
    "quota-issues": "5.2.2", "relaying-issues": "5.7.1", "routing-errors": "5.4.4", "spam-related": "5.7.1",
    "virus-related": "5.7.1",
}  # fmt: skip
_EXPIRED = "message-expired"
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}(?![\d.])")
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(\.\d{1,9})?[ ]?(?:Z|([+-])(\d\d):?(\d\d))?")
_UNIX_TIME = re.compile(r"\d{1,10}(?:\.\d{1,9})?")
_RELAY = re.compile(r"([^\s()]{0,255})\s{0,9}(?:\(([0-9A-Fa-f:.]{2,45})\))?")

_Row = Sequence[str]
_Pick = Callable[[_Row], tuple[str, ...]]


class Columns:
    """Makes events of the rows below one header."""

    def __init__(self, header: Sequence[str]) -> None:
        """Raises ProtocolError for what names no columns."""
        names = {name.strip().lower(): number for number, name in reversed([*enumerate(header)])}
        if "type" not in names or "timelogged" not in names:
            raise ProtocolError("no header row: expected columns with the names type and timeLogged")
        self._count = len(header)
        self._type = names["type"]
        self._identity = _picker(names, _IDENTITY)
        self._attempt = _picker(names, _ATTEMPT)
        self._received = _picker(names, _RECEIVED)
        self._feedback = _picker(names, _FEEDBACK)
        self._action = names.get("dsnaction", -1)

    def kind(self, row: list[str]) -> str:
        """The record type; raises ProtocolError for a row that does not fit the header."""
        if len(row) != self._count:
            raise ProtocolError(f"expected {self._count} columns as in the header, got {len(row)}")
        row.append("")  # what columns that are not there hold
        return row[self._type]

    def event(self, kind: str, row: list[str]) -> Event | None:
        """The event of a row that `kind` saw; None: it tells nothing.  Raises ProtocolError."""
        if kind == "f":
            return self._complaint(row)
        if kind == "r":
            return self._reception(row)
        outcome = _OUTCOMES.get(kind)
        if kind == "rs":
            outcome = Outcome.DEFERRED if row[self._action].lower() == "delayed" else None
        return self._delivery(kind, outcome, row) if outcome else None

    def digest(self, row: list[str]) -> bytes:
        """8 bytes that identify a row that `kind` saw: the same for the pipe and the file, under any header."""
        return hashlib.blake2b("\x1f".join(self._identity(row)).encode("utf-8", "replace"), digest_size=8).digest()

    def _delivery(self, kind: str, outcome: Outcome, row: _Row) -> Attempt:
        at, queue_id, recipient, member, mta, status, reply, category, tenant, source = self._attempt(row)
        relay, address = _relay(mta)
        code = _code(status)
        reply = _reply(reply)
        if not reply and outcome is not Outcome.DELIVERED and code[1:] in {"", ".0.0"}:
            code = _BY_CATEGORY.get(category) or code
        expired = outcome is Outcome.BOUNCED and (category == _EXPIRED or code == "4.4.7")
        return Attempt(
            _time(at), queue_id[:LONGEST], recipient[:LONGEST], outcome, member[:LONGEST], relay, address, code, reply,
            tenant[:LONGEST], source[:LONGEST], kind in _REMOTE, expired,
        )  # fmt: skip

    def _reception(self, row: _Row) -> Accepted | Described:
        at, queue_id, sender, login, client, message_id = self._received(row)
        if login:
            return Accepted(_time(at), queue_id[:LONGEST], login[:LONGEST], client[:LONGEST])
        return Described(_time(at), queue_id[:LONGEST], message_id[:LONGEST], sender[:LONGEST])

    def _complaint(self, row: _Row) -> Complaint:
        at, recipient, original, kind, token, feedback_id, reporter, form = self._feedback(row)
        provider = by_mx(reporter.rpartition(";")[2].strip()) if reporter else None
        return Complaint(
            _time(at),
            (recipient or original)[:LONGEST].strip("<> "),
            kind[:LONGEST].lower() or "abuse",
            (token or feedback_id.partition(":")[0])[:LONGEST].strip(),
            provider=provider or ("microsoft" if form == "jmrp" else ""),
        )


def _picker(names: dict[str, int], wanted: Sequence[str]) -> _Pick:
    """Takes the wanted columns out of a row to which one empty column was added."""
    pick: _Pick = itemgetter(*(names.get(name, -1) for name in wanted))
    return pick


@lru_cache(maxsize=4096)
def _time(text: str) -> float:
    """`2026-11-24 08:00:00+0000`, or seconds since 1970."""
    if found := _TIME.fullmatch(text):
        year, month, day, hour, minute, second, fraction, sign, hours, minutes = found.groups()
        zone = int(sign + "1") * (int(hours) * 3600 + int(minutes) * 60) if sign else 0
        try:
            whole = calendar.timegm((int(year), int(month), int(day), int(hour), int(minute), int(second)))
        except ValueError as error:
            raise ProtocolError(f"timeLogged: not a time: {text[:40]!r}") from error
        return whole - zone + float(fraction or 0)
    if _UNIX_TIME.fullmatch(text):
        return float(text)
    raise ProtocolError(
        f"timeLogged: expected a time such as 2026-11-24 08:00:00+0000 or seconds since 1970, got {text[:40]!r}"
    )


@lru_cache(maxsize=4096)
def _relay(text: str) -> tuple[str, str]:
    """Name and address of `mx.dest.example (192.0.2.1)`."""
    found = _RELAY.match(text)
    return (found[1], found[2] or "") if found else ("", "")


@lru_cache(maxsize=1024)
def _code(text: str) -> str:
    """The code of `5.1.1 (bad destination mailbox address)`."""
    found = _STATUS.match(text)
    return found[0] if found else ""


def _reply(text: str) -> str:
    """What the receiving side said, without the type before it: `smtp;550 no such user`."""
    kind, separator, said = text[:LONGEST].partition(";")
    return said.lstrip() if separator and len(kind) < 16 and kind.replace("-", "").isalnum() else text[:LONGEST]
