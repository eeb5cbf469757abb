"""sent - one accepted message as the milter described it in its note of the story (see `relaywarden.story`).  Plain values.

The note's fields that are read here, all optional: at, fp (fingerprint of the body, 16 hexadecimal digits), bulk (0 to 1), to
(digests of the first recipients, 16 hexadecimal digits each, joined), from (domain of From), net (network of the client), helo,
score (rspamd's).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_DIGITS = 16
_LONGEST = 255


@dataclass(frozen=True, slots=True)
class Sent:
    """One message."""

    tenant: str
    at: float  # seconds since 1970
    recipients: int
    login: str = ""
    fingerprint: int = 0  # 0: not known
    bulk: float = 0.0
    digests: tuple[str, ...] = ()
    from_domain: str = ""
    network: str = ""
    helo: str = ""
    score: float | None = None


def read(tenant: str, at: float, recipients: int, login: str, note: Mapping[str, Any]) -> Sent:
    """From the facts of the log and the milter's note; what is not of its form counts as not known."""
    score = note.get("score")
    digests = str(note.get("to") or "")
    return Sent(
        tenant,
        _number(note.get("at"), at),
        recipients,
        login,
        _fingerprint(note.get("fp")),
        min(1.0, max(0.0, _number(note.get("bulk"), 0.0))),
        tuple(digests[start : start + _DIGITS] for start in range(0, len(digests), _DIGITS)),
        str(note.get("from") or "")[:_LONGEST],
        str(note.get("net") or "")[:_LONGEST],
        str(note.get("helo") or "")[:_LONGEST],
        float(score) if isinstance(score, int | float) else None,
    )


def _number(value: Any, default: float) -> float:
    return float(value) if isinstance(value, int | float) else default


def _fingerprint(text: Any) -> int:
    try:
        return int(str(text or "0"), 16)
    except ValueError:
        return 0
