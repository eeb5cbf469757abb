"""origin - from a report back to the message: our token, wherever it came back, and the recipient in a return path.  Pure.

Looked at, in this order: the returned message's CFBL-Feedback-ID, Feedback-ID, CFBL-Address and Return-Path; the report's own
CFBL-Feedback-ID (RFC 9477 section 3.5), Original-Mail-From and Original-Envelope-Id; the envelope recipient and the To of the
report (`fbl+TOKEN@`); References and In-Reply-To; then any word of the text that is as long as a token.

How it fails: what does not open is no token.  Where something stands in the place of one and does not open, `forged` is true.
Known limits: a token says which message, not who reports it; whoever has the message can use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from relaywarden.feedback import Opened, Tokens
from relaywarden_monitor.reports.returned import Fields

# 24 octets of seal, tag and hour and at least one of queue id make 40 characters; feedback.py takes no more than 64.
_TOKEN = r"[A-Za-z2-7]{40,64}"  # noqa: S105  # what one looks like
_WORD = re.compile(rf"(?<![A-Za-z0-9]){_TOKEN}(?![A-Za-z0-9])")
_TAGGED = re.compile(rf"\+({_TOKEN})@")
_IDENTIFIED = re.compile(rf"\s*({_TOKEN})\s*(?::|$)")
_MOST_WORDS = 64
_LONGEST = 4000


@dataclass(frozen=True, slots=True)
class Origin:
    """Which message of ours a report is about."""

    token: str = ""
    opened: Opened | None = None
    forged: bool = False


@dataclass(frozen=True, slots=True)
class Places:
    """Where a token may stand."""

    returned: Fields
    outer: Fields
    reported: Mapping[str, str]  # fields of the report itself: cfbl-feedback-id, original-mail-from, original-envelope-id
    envelope_to: str
    text: str


def find(places: Places, tokens: Tokens | None) -> Origin:
    """The first token that opens; without `tokens` none does, and nothing is forged."""
    if tokens is None:
        return Origin()
    claimed = False
    for candidate in _claims(places):
        claimed = True
        if opened := tokens.open(candidate):
            return Origin(candidate.lower(), opened)
    for number, match in enumerate(_WORD.finditer(places.text)):
        if opened := tokens.open(match.group()):
            return Origin(match.group().lower(), opened)
        if number >= _MOST_WORDS:
            break
    return Origin(forged=claimed)


def _claims(places: Places) -> Iterator[str]:
    """Words that stand where a token of ours would."""
    for fields in (places.returned, places.outer):
        for name in ("cfbl-feedback-id", "feedback-id"):
            for value in fields.get(name, ())[:4]:
                if found := _IDENTIFIED.match("".join(value[:_LONGEST].split())):
                    yield found.group(1)
        for name in ("cfbl-address", "return-path", "x-envid", "to", "cc", "delivered-to", "x-original-to"):
            for value in fields.get(name, ())[:4]:
                yield from _TAGGED.findall("".join(value[:_LONGEST].split()))[:4]
    for value in (*places.reported.values(), places.envelope_to):
        bare = "".join(value[:_LONGEST].split())
        yield from _TAGGED.findall(bare)[:4]
        if found := _IDENTIFIED.match(bare):
            yield found.group(1)
    for fields in (places.outer, places.returned):
        for name in ("references", "in-reply-to"):
            for value in fields.get(name, ())[:2]:
                yield from _WORD.findall(value[:_LONGEST])[:8]
