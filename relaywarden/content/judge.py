"""judge - is a message transactional mail, or bulk mail?  Pure, from its headers and a bounded part of its text.

A linear model: the sum of its features (features.py), each times its worth (weights.py), is the log-odds of bulk; the
logistic function makes a score of it, from 0 (transactional) to 1 (bulk).  Below TRANSACTIONAL it is the one, from BULK on the
other, between them unsure.  No header alone reaches BULK: List-Unsubscribe is advised for receipts too (Yahoo's sender FAQ).

Surveys, birthdays, win-backs, digests, upselling, changelogs and invitations to follow count as bulk: many get them at once,
and nobody asked.  The end of a trial, a quota, a breach, new terms are business.  What one message cannot show is how it is
sent: thousands of one body are the business of fan-out.

How it fails: it never raises.  A message that shows nothing is not bulk.

Known limits: the languages of lexicon.py; others by structure, headers, numbers and emoji.  Notices of breaches and of new
terms read like business with one person, and are judged so.  Where a message shows a mailing's footer and no word that the
lexicon knows, it leans to bulk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from relaywarden.content import features, lexicon
from relaywarden.content.text import Headers, Look, look
from relaywarden.content.weights import BIAS, WEIGHTS

Stream = Literal["transactional", "bulk", "unsure"]
TRANSACTIONAL, BULK = 0.4, 0.6
_MOST_REASONS = 6
_SAYS_SOMETHING = 0.25  # log-odds below which a reason is not worth reading


@dataclass(frozen=True, slots=True)
class Judgement:
    """The stream, its score, and the weightiest reasons for and against (`-`) bulk, weightiest first."""

    stream: Stream
    score: float
    reasons: tuple[str, ...]


def judge(headers: Headers, body: bytes | Look, recipients: int = 1) -> Judgement:
    """How a message reads.

    `headers` are its fields in order, `body` all octets behind the empty line (or what `look` made of both, where the
    fingerprint needs it too), `recipients` the number in this transaction.
    """
    seen = body if isinstance(body, Look) else look(headers, body)
    found = features.measure(headers, seen, recipients)
    worths = {name: value * WEIGHTS[name].worth for name, value in found.values.items() if value}
    score = round(1 / (1 + math.exp(-max(-30.0, min(30.0, BIAS.worth + sum(worths.values()))))), 3)
    stream: Stream = "bulk" if score >= BULK else "transactional" if score < TRANSACTIONAL else "unsure"
    telling = [(abs(worth), name) for name, worth in worths.items() if abs(worth) >= _SAYS_SOMETHING]
    weighty = sorted(telling, reverse=True)[:_MOST_REASONS]
    return Judgement(stream, score, tuple(_reason(name, worths[name], found) for _, name in weighty))


def _reason(name: str, worth: float, found: features.Measured) -> str:
    """`words of promotion (discount, sale)`, after `-` if against bulk.  Words are the lexicon's, not the sender's."""
    words = ", ".join(lexicon.SPELLED.get(word, word) for word in found.words.get(name, ()))
    return f"{'-' if worth < 0 else ''}{WEIGHTS[name].text}{f' ({words})' if words else ''}"
