"""scan - what rspamd said of a message, and what that means.  Pure; `rspamd` does the talking.

Wire format: the JSON object that answers POST /checkv2: action, score, required_score, symbols {name: {score}}, subject,
messages {smtp_message}, milter {add_headers, remove_headers}.  Everything in it is checked, since a scanner behind a broken
proxy may answer anything; without a usable action there is no verdict and ScanError is raised.  What else is misshapen
is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from relaywarden.config.settings import ScanSettings
from relaywarden.errors import ScanError

_MOST_SYMBOLS = 500
_MOST_HEADERS = 100
_LONGEST_TEXT = 400


@dataclass(frozen=True, slots=True)
class Scan:
    """A verdict of rspamd."""

    action: str
    score: float = 0.0
    required: float = 0.0
    symbols: tuple[tuple[str, float], ...] = ()
    subject: str = ""
    text: str = ""  # for the SMTP client
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[tuple[str, int], ...] = ()


class Fate(Enum):
    """What becomes of a message."""

    ACCEPT = "accept"
    REJECT = "reject"
    TEMPFAIL = "tempfail"
    HOLD = "hold"  # Postfix's hold queue: an operator looks at it
    DISCARD = "discard"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a verdict means for the message; `known` is False for an action that relaywarden has never heard of."""

    fate: Fate
    text: str = ""
    spam_header: bool = False
    subject: str = ""
    known: bool = True


def parse_reply(body: bytes) -> Scan:
    """The verdict in rspamd's answer; raises ScanError."""
    try:
        reply = json.loads(body.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise ScanError(f"rspamd's answer is not JSON: {type(error).__name__}") from error
    if not isinstance(reply, dict):
        raise ScanError(f"rspamd's answer is {type(reply).__name__}, expected an object")
    action = reply.get("action")
    if not isinstance(action, str) or not action.strip():
        problem = reply.get("error")
        raise ScanError(f"rspamd's answer has no action{f': {problem}'[:200] if isinstance(problem, str) else ''}")
    milter = _object(reply.get("milter"))
    return Scan(
        action=action.strip().lower()[:100],
        score=_number(reply.get("score")),
        required=_number(reply.get("required_score")),
        symbols=tuple(_symbols(_object(reply.get("symbols")))),
        subject=_text(reply.get("subject")),
        text=_text(_object(reply.get("messages")).get("smtp_message")),
        add=tuple(_additions(_object(milter.get("add_headers"))))[:_MOST_HEADERS],
        remove=tuple(_removals(_object(milter.get("remove_headers"))))[:_MOST_HEADERS],
    )


def meaning(scan: Scan, settings: ScanSettings) -> Meaning:
    """What the verdict means under these settings."""
    if scan.action == "no action":
        return Meaning(Fate.ACCEPT)
    if scan.action == "greylist":
        # rspamd skips greylisting for authenticated mail; an admin's rule can still ask for it.
        greylist = Fate.TEMPFAIL if settings.greylist == "tempfail" else Fate.ACCEPT
        return Meaning(greylist, scan.text or "Try again later")
    if scan.action == "add header":
        return Meaning(Fate.ACCEPT, spam_header=True)
    if scan.action == "rewrite subject":
        return Meaning(Fate.ACCEPT, subject=scan.subject or "*** SPAM ***")
    if scan.action == "soft reject":
        return Meaning(Fate.TEMPFAIL, scan.text or "Try again later")
    if scan.action == "reject":
        return Meaning(Fate.REJECT, scan.text or "The content of this message was refused")
    if scan.action == "quarantine":
        return Meaning(Fate.HOLD, "rspamd: quarantine")
    if scan.action == "discard":
        return Meaning(Fate.DISCARD)
    custom = {"accept": Fate.ACCEPT, "quarantine": Fate.HOLD, "tempfail": Fate.TEMPFAIL}[settings.custom_action]
    return Meaning(custom, scan.text or "Try again later", known=False)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float:
    try:
        number = float(value) if isinstance(value, int | float) else 0.0
    except OverflowError:  # an integer of hundreds of digits
        return 0.0
    return number if math.isfinite(number) else 0.0


def _text(value: Any) -> str:
    return value.strip()[:_LONGEST_TEXT] if isinstance(value, str) else ""


def _symbols(symbols: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in list(symbols.items())[:_MOST_SYMBOLS]:
        yield name[:100], _number(_object(value).get("score"))


def _additions(headers: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """`{name: "value"}`, `{name: {"value": ..., "order": n}}`, or lists of either."""
    for name, given in headers.items():
        for item in given if isinstance(given, list) else [given]:
            value = item.get("value") if isinstance(item, dict) else item
            if isinstance(value, str):
                yield name, value


def _removals(headers: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """`{name: n}` or `{name: [n, ...]}`; 0 is all, a negative n counts from the end.  Later ones first, as they shift."""
    for name, given in headers.items():
        numbers = given if isinstance(given, list) else [given]
        wanted = {n for n in numbers if isinstance(n, int) and not isinstance(n, bool) and abs(n) < 2**31}
        yield from ((name, n) for n in [*sorted(n for n in wanted if n < 0)][:_MOST_HEADERS])
        yield from ((name, n) for n in sorted((n for n in wanted if n >= 0), reverse=True)[:_MOST_HEADERS])
