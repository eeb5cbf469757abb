"""traffic - what the signals look at: what a tenant sent in a short while, and what came of it.  Plain values.

The milter tells of each message; the monitor gathers them into slices of some seconds (a minute at most) for each tenant.  One
slice holds everything that a signal may ask about that while, so that signals need no messages, and state stays small.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Group:
    """Messages that look alike."""

    messages: int = 0
    recipients: int = 0  # distinct ones, as far as known
    bulk: float = 0.0  # sum of the messages' scores, 0 transactional to 1 bulk


@dataclass(slots=True)
class Slice:
    """One tenant's traffic from `begin` to `end` (seconds since 1970); counts of what was accepted, but for `refused`."""

    tenant: str
    begin: float
    end: float
    messages: int = 0
    recipients: int = 0
    groups: dict[int, Group] = field(default_factory=dict)  # by body fingerprint; the largest 32
    bulk: float = 0.0  # sum of the messages' stream scores
    new_recipients: int = 0  # of `recipients` those that the tenant had not sent to in the last 30 days
    domains: Counter[str] = field(default_factory=Counter)  # of recipients; the most frequent 64
    domains_other: int = 0  # recipients in domains beside these
    from_domains: frozenset[str] = frozenset()
    networks: frozenset[str] = frozenset()  # of clients, /24 or /48
    helos: frozenset[str] = frozenset()
    logins: frozenset[str] = frozenset()
    score: float = 0.0  # sum of rspamd's scores
    scored: int = 0  # messages that were scored
    refused: int = 0  # recipients that limits refused
    suppressed: int = 0  # recipients on the suppression list
    delivered: int = 0
    invalid: int = 0  # recipients that do not exist
    blocked: int = 0
    complained: int = 0
