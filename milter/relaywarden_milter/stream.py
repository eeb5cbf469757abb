"""stream - is a message sent as transactional mail or as bulk mail?  Pure, from its headers and its number of recipients.

Evidence adds up to a score from 0 (transactional) to 1 (bulk).  No single header convicts: receipts carry List-Unsubscribe
too, because receivers ask for it.  What tells a newsletter by how it is sent over time (fan-out of one body) is not seen
here: this looks at one message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from relaywarden_milter.headers import Header, field_name

_BULK, _TRANSACTIONAL = 0.6, 0.35
_MANY_RECIPIENTS, _SOME_RECIPIENTS = 20, 5
_CAMPAIGN = frozenset(
    [
        "x-campaign",
        "x-campaign-id",
        "x-campaignid",
        "x-mailer-campaign",
        "x-mc-user",
        "x-cid-campaign",
        "x-newsletter",
        "x-mailing-id",
    ]
)


class Kind(Enum):
    """How a message is sent."""

    TRANSACTIONAL = "transactional"
    UNSURE = "unsure"
    BULK = "bulk"


@dataclass(frozen=True, slots=True)
class Stream:
    """The judgement with its reasons."""

    kind: Kind
    score: float
    reasons: tuple[str, ...]


def _says(*words: str) -> Callable[[bytes], bool]:
    wanted = frozenset(word.encode() for word in words)
    return lambda value: value.strip().lower().split(b";")[0].split(b" ")[0] in wanted


def _always(value: bytes) -> bool:
    return bool(value.strip())


_EVIDENCE: dict[str, tuple[Callable[[bytes], bool], float]] = {
    "precedence": (_says("bulk", "list", "junk"), 0.45),
    "list-id": (_always, 0.35),
    "list-unsubscribe": (_always, 0.15),
    "list-unsubscribe-post": (_always, 0.2),
    "auto-submitted": (_says("auto-generated", "auto-replied", "auto-notified"), -0.3),
    "in-reply-to": (_always, -0.3),
    **dict.fromkeys(_CAMPAIGN, (_always, 0.3)),
}


def judge(headers: Sequence[Header], recipients: int) -> Stream:
    """How this message is sent; `recipients`: those of this transaction."""
    score, reasons = 0.0, []
    for name, value in headers:
        evidence = _EVIDENCE.get(field_name(name))
        if evidence is not None and field_name(name) not in reasons and evidence[0](value):
            score += evidence[1]
            reasons.append(field_name(name))
    if recipients > _SOME_RECIPIENTS:
        score += 0.4 if recipients >= _MANY_RECIPIENTS else 0.15
        reasons.append(f"{recipients} recipients")
    score = round(min(1.0, max(0.0, score)), 3)
    kind = Kind.BULK if score >= _BULK else Kind.TRANSACTIONAL if score < _TRANSACTIONAL else Kind.UNSURE
    return Stream(kind, score, tuple(reasons))
