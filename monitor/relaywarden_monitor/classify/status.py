"""status - what a status code means where no text is known: the enhanced code, the stage of the session, the basic code.  Pure.

Sources: RFC 3463 section 3 and IANA's registry of enhanced status codes; RFC 5321 section 4.2.3 for basic codes; RFC 7372
(5.7.20 to 5.7.26), RFC 7505 (5.1.10, 5.7.27), RFC 8616 (5.7.28).  Where a code is broad (x.7.1 is whatever a policy says), the
stage at which it was given tells more: what comes after DATA is about the message, what comes after MAIL FROM about the sender.

Known limit: many servers use 5.7.1 and 5.0.0 for everything.
"""

from __future__ import annotations

from relaywarden_monitor.classify.reply import Reply
from relaywarden_monitor.classify.rules import Rule
from relaywarden_monitor.classify.vocabulary import CATEGORIES

_ENHANCED = {  # without the class; "1." is every code of subject 1 that is not listed
    "1.0": "no-mailbox", "1.1": "no-mailbox", "1.2": "recipient-dns", "1.3": "no-mailbox", "1.4": "no-mailbox",
    "1.6": "mailbox-disabled", "1.7": "sender-domain", "1.8": "sender-domain", "1.10": "no-mail-domain",
    "2.0": "mailbox-disabled", "2.1": "mailbox-disabled", "2.2": "mailbox-full", "2.3": "too-large", "2.4": "server-trouble",
    "3.4": "too-large", "3.": "server-trouble",
    "4.1": "connection", "4.2": "connection", "4.3": "recipient-dns", "4.4": "recipient-dns", "4.5": "rate",
    "4.6": "mail-loop", "4.7": "expired", "4.": "connection",
    "5.3": "too-many-recipients", "5.": "protocol",
    "6.0": "malformed", "6.7": "protocol", "6.": "malformed",
    "7.2": "recipient-policy", "7.10": "tls-required", "7.11": "tls-required",
    "7.13": "mailbox-disabled", "7.17": "no-mailbox", "7.18": "no-mail-domain",
    "7.20": "dkim", "7.21": "dkim", "7.22": "dkim", "7.23": "spf", "7.24": "spf", "7.25": "reverse-dns",
    "7.26": "unauthenticated", "7.27": "sender-domain", "7.28": "rate", "7.29": "dkim", "7.30": "tls-required",
}  # fmt: skip
_VAGUE = frozenset({"0.0", "1.0", "2.0", "3.0", "4.0", "5.0", "7.0", "7.1", "4.1"})
_BASIC = {
    420: "server-trouble", 421: "server-trouble", 431: "server-trouble", 432: "server-trouble",
    441: "connection", 442: "connection", 446: "mail-loop", 447: "expired", 449: "recipient-dns",
    450: "no-mailbox", 451: "server-trouble", 452: "server-trouble", 454: "tls-failed", 455: "protocol",
    500: "protocol", 501: "protocol", 502: "protocol", 503: "protocol", 504: "protocol",
    510: "no-mailbox", 511: "no-mailbox", 512: "recipient-dns", 513: "no-mailbox", 521: "no-mail-domain",
    523: "too-large", 530: "relay-denied", 535: "relay-denied", 550: "no-mailbox", 551: "no-mailbox", 552: "mailbox-full",
    553: "no-mailbox", 555: "protocol", 556: "no-mail-domain",
}  # fmt: skip
_BY_STAGE = {
    "data": "content-refused",
    "mail": "sender-refused",
    "rcpt": "recipient-policy",
    "ehlo": "helo",
    "helo": "helo",
    "initial": "ip-blocked",
}


def _rule(name: str, category: str) -> Rule:
    known = CATEGORIES[category]
    return Rule(name, (), category, known.scope, known.blame, known.severity, None, frozenset(), False, "RFC 3463 2003-01-01")


_BY_CODE = {category: _rule("status-code", category) for category in CATEGORIES}
_NOTHING = _rule("nothing", "unclear")


def by_enhanced(said: Reply) -> tuple[Rule, str] | None:
    """The rule that stands for the enhanced code, where it is one that says something."""
    kind = said.enhanced[2:]
    category = _ENHANCED.get(kind) or ("" if kind.endswith(".0") else _ENHANCED.get(kind.partition(".")[0] + ".", ""))
    return (_BY_CODE[category], said.enhanced) if category and kind not in _VAGUE else None


def by_stage(said: Reply) -> tuple[Rule, str] | None:
    """The rule that stands for the command which a permanent reply answered, where that says something."""
    category = _BY_STAGE.get(said.stage, "") if said.code >= 550 else ""
    return (_BY_CODE[category], said.stage) if category else None


def fallback(said: Reply) -> tuple[Rule, str]:
    """The rule that stands for the code, and the code; `nothing` where there is none."""
    if found := by_enhanced(said):
        return found
    kind = said.enhanced[2:]
    shown = said.enhanced or (str(said.code) if said.code else "")
    if not shown:
        return _NOTHING, ""
    staged = _BY_STAGE.get(said.stage, "")
    if kind.startswith("7."):
        category = staged or "recipient-policy"
    else:
        category = _ENHANCED.get(kind, "") or (staged if said.code >= 550 else "")
        subject = _ENHANCED.get(kind[:2], "")  # of x.3.0: many servers write 550 5.3.0 for an unknown user, few 450 4.3.0
        category = category or (_BASIC.get(said.code, "") if said.code >= 500 or not subject else subject)
    return _BY_CODE[category or "unclear"], shown
