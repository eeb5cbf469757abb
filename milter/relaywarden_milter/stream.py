"""stream - is a message sent as transactional mail or as bulk mail, and like which other messages?  Pure.

The judgement is that of `relaywarden.content`, from headers and the beginning and end of the body.  What tells a newsletter by
how it is sent over time (fan-out of one body) is not seen here: the fingerprint goes to the monitor, which sees it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from relaywarden.content.fingerprint import fingerprint
from relaywarden.content.judge import judge as judge_content
from relaywarden.content.text import look
from relaywarden_milter.headers import Header


class Kind(Enum):
    """How a message is sent."""

    TRANSACTIONAL = "transactional"
    UNSURE = "unsure"
    BULK = "bulk"


@dataclass(frozen=True, slots=True)
class Stream:
    """The judgement with its reasons."""

    kind: Kind
    score: float  # 0 transactional to 1 bulk
    reasons: tuple[str, ...]
    fingerprint: int  # of the text; 0: too little of it


def judge(headers: list[Header], sample: bytes, recipients: int) -> Stream:
    """How the message is sent; `sample`: the body, or beginning and end of a large one."""
    seen = look(headers, sample)
    found = judge_content(headers, seen, recipients)
    return Stream(Kind(found.stream), found.score, found.reasons, fingerprint(seen))
