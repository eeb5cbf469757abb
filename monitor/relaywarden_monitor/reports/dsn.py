"""dsn - delivery status notifications: the fields of RFC 3464, and what MTAs make of them.  Pure.

Wire format: a part message/delivery-status (RFC 3464) or message/global-delivery-status (RFC 6533): groups of fields with empty
lines between; the first is about the message, each further one about a recipient.  MTAs send it base64 or quoted-printable
encoded, without the empty lines, as text/plain, or in the middle of the text; groups are told apart by their fields here.

How it fails: what lacks a recipient is left out; a report without any gives an empty list, and others try the text.

Known limits: Exchange's X-Display-Name and X.400 addresses are no recipients; Original-Recipient, where it came along, is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from relaywarden_monitor.reports import address
from relaywarden_monitor.reports.mime import Part, index, split_head

TYPES = frozenset({"message/delivery-status", "message/global-delivery-status", "text/delivery-status"})
_MOST_RECIPIENTS = 100
_STARTS = ("final-recipient", "original-recipient", "action")
_IN_TEXT = re.compile(r"^[ \t>]{0,8}(?=(?:Reporting-MTA|Final-Recipient|Original-Recipient):)", re.MULTILINE | re.IGNORECASE)
_STATUS = re.compile(r"\b([245]\.\d{1,3}\.\d{1,3})\b")
_ACTIONS = {
    "failed": "failed", "failure": "failed", "fail": "failed", "expired": "failed", "error": "failed", "bounced": "failed",
    "delayed": "delayed", "delay": "delayed", "deferred": "delayed", "delivered": "delivered", "deliverable": "delivered",
    "relayed": "relayed", "expanded": "expanded",
}  # fmt: skip
_SAID = re.compile(
    r"^.{0,80}?\b(?:host|server)\s+([\w.-]{1,253})\s?(?:\[[\w.:]{1,60}\])?(?::\d+)?\s+(?:said|refused to talk to me):\s*"
)
_QUOTED = re.compile(
    r"(?:said|returned|responded|error from remote|response from)\b.{0,300}?(?<![\d.])(?=[245]\d\d[ -])", re.IGNORECASE
)
_GIVING_UP = re.compile(r"\s*Giving up on [\w.:\[\]-]{1,80}\.?\s*$")
_IN_REPLY = re.compile(r"\s*\(in reply to [^()]{1,60}\)\s*$")


@dataclass(frozen=True, slots=True)
class Failure:
    """What a report says of one recipient."""

    recipient: str
    action: str = "failed"
    status: str = ""
    reply: str = ""
    relay: str = ""
    vmta: str = ""
    category: str = ""  # PowerMTA's own


@dataclass(frozen=True, slots=True)
class Notification:
    """The whole report: the message's fields and its recipients."""

    reporting_mta: str = ""
    envelope_id: str = ""
    queue_id: str = ""
    failures: tuple[Failure, ...] = ()


def find(message: Part, text: str) -> Notification | None:
    """The notification in a message, or in its `text`; None where there is none with a recipient."""
    status = "\n\n".join(part.text() for part in message.walk() if part.type in TYPES)
    found = parse(status) if status else None
    if found is None and (inline := _IN_TEXT.search(text)):
        found = parse(text[inline.start() :])
    return found


def parse(text: str) -> Notification | None:
    """The fields of a delivery status; None where no recipient is among them."""
    about: dict[str, str] = {}
    failures: list[Failure] = []
    for group in _groups(text):
        failure = _failure(group)
        if failure and len(failures) < _MOST_RECIPIENTS:
            failures.append(failure)
        for name, value in group.items():
            about.setdefault(name, value)
    if not failures:
        return None
    return Notification(
        reporting_mta=host(about.get("reporting-mta", "")),
        envelope_id=about.get("original-envelope-id", ""),
        queue_id=about.get("x-postfix-queue-id", ""),
        failures=tuple(failures),
    )


def host(value: str) -> str:
    """Of `dns; mx.example (192.0.2.1)`: the name."""
    found = re.search(r"[\w.:-]{1,253}", value.rpartition(";")[2])
    return found.group().lower().rstrip(".") if found else ""


def bare_reply(diagnostic: str) -> tuple[str, str]:
    """A diagnostic without the MTA's own words around it, and the host that these name ("" if none)."""
    text = " ".join(diagnostic.split())
    kind, semicolon, rest = text.partition(";")
    if semicolon and re.fullmatch(r"(?:smtp|lmtp|dns|unix|x400|x-?[\w.-]{1,40})", kind.strip(), re.IGNORECASE):
        text = rest.strip()
    said = _SAID.match(text)
    text = _GIVING_UP.sub("", _IN_REPLY.sub("", text[said.end() :] if said else text))
    if quoted := _QUOTED.search(text):  # Exim and qmail, who tell it in a sentence
        text = text[quoted.end() :].rstrip("'")
    return text, said.group(1).lower() if said else ""


def status_in(text: str) -> str:
    """The first enhanced status code (RFC 3463) of a failure in a text."""
    codes = [code for code in _STATUS.findall(text[:2000]) if not code.startswith("2")]
    return next((code for code in codes if not code.endswith(".0.0")), codes[0] if codes else "")


def action_of(value: str, status: str) -> str:
    """The action's name; a report that gives none is about a failure unless its status says success."""
    word = re.match(r"[a-z]*", value.strip().lower())
    return _ACTIONS.get(word.group() if word else "", "delivered" if status.startswith("2.") else "failed")


def _groups(text: str) -> Iterator[dict[str, str]]:
    for block in re.split(r"\n[ \t]*\n", text[: 256 * 1024].strip("\n")):
        group: dict[str, str] = {}
        for name, value in split_head(re.sub(r"(?m)^> ?", "", block).encode("utf-8", "surrogatepass"))[0]:
            key = name.lower()
            if key in group and key in _STARTS:  # the empty line between two recipients is missing
                yield group
                group = {}
            if key not in group:
                group[key] = next(iter(index([(name, value)])[key]))
        if group:
            yield group


def _failure(group: dict[str, str]) -> Failure | None:
    original, final = address.typed(group.get("original-recipient", "")), address.typed(group.get("final-recipient", ""))
    if address.is_redacted(original):
        original = ""
    recipient = original or final or address.typed(group.get("x-actual-recipient", ""))
    if not recipient and not ("final-recipient" in group and "status" in group):
        return None
    reply, said_by = bare_reply(group.get("diagnostic-code", "") or group.get("x-supplementary-info", ""))
    status = status_in(group.get("status", "")) or next(iter(_STATUS.findall(group.get("status", ""))), "")
    if not status or (status.endswith(".0.0") and status[0] != "2"):
        status = status_in(reply) or status
    return Failure(
        recipient,
        action_of(group.get("action", ""), status),
        status,
        reply,
        host(group.get("remote-mta", "")) or said_by,
        group.get("x-powermta-virtualmta", ""),
        group.get("x-powermta-bouncecategory", ""),
    )
