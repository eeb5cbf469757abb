"""outcomes - what the monitor counts by the hour, and the shares that are made of it.  Pure: no I/O, no clock.

The ledger keeps a record of every hour, name -> amount, for each tenant and for each pool member and provider
(`warmup.books`).  The names:

    delivered, deferred, bounced, complained   recipients; `deferred` counts attempts (they are counters of the tenant, too)
    deferred.SCOPE, bounced.SCOPE              the same by the scope of the reply (ip, domain, content, auth, mailbox, ...)
    why.CATEGORY                               by the category of the reply (`invalid-mailbox`, `ip-reputation`, ...)
    blocked                                    attempts that failed by the customer's domain, content or authentication
    invalid                                    recipients that do not exist
    sent, sent_to                              of a tenant: messages that the MTA took, and their recipients
    suppressed                                 requests for recipients on the suppression list (counted by the ledger itself)
    PROVIDER.delivered, ...                    of a tenant: the four outcomes by mailbox provider

Shares are taken over what they can happen to, and are believed only as far as the sample carries them: the lower bound of
Wilson's score interval (Wilson 1927; one-sided, z = 1.645 for 95 %).  One complaint of three mails is a share of 33 %, of which
the lower bound is 8 %; a minimum sample keeps it from convicting anybody at all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

OUTCOMES = ("delivered", "deferred", "bounced", "complained")
BLOCKED, INVALID = "blocked", "invalid"
SENT, SENT_TO = "sent", "sent_to"
WHY = "why."

Amounts = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Share:
    """`part` of `whole`, and how much of that is sure."""

    part: int
    whole: int

    @property
    def value(self) -> float:
        """The share, 0 of nothing."""
        return self.part / self.whole if self.whole else 0.0

    def lower(self, z: float) -> float:
        """Wilson's lower bound."""
        return wilson_lower(self.part, self.whole, z)

    def __str__(self) -> str:
        return f"{self.part} of {self.whole} ({self.value:.2%})"


def wilson_lower(part: int, whole: int, z: float) -> float:
    """Lower bound of the share behind `part` of `whole`; 0 of nothing.  `part` above `whole` counts as all of it."""
    if whole <= 0:
        return 0.0
    share = min(1.0, part / whole)
    square = z * z / whole
    centre = share + square / 2
    margin = z * math.sqrt(share * (1 - share) / whole + square / (4 * whole))
    return max(0.0, (centre - margin) / (1 + square))


def total(hours: Iterable[Amounts]) -> Counter[str]:
    """The sum of records."""
    found: Counter[str] = Counter()
    for amounts in hours:
        found.update(amounts)
    return found


def shares(amounts: Amounts) -> dict[str, Share]:
    """The shares that thresholds are about, by the name of the setting (plans.NAME.health): bounces, complaints, blocks.

    Bounces are those that say the recipient does not exist: what else bounced is not the list's fault.
    """
    delivered, bounced = amounts.get("delivered", 0), amounts.get("bounced", 0)
    attempts = delivered + bounced + amounts.get("deferred", 0)
    return {
        "bounces": Share(amounts.get(INVALID, 0), delivered + bounced),
        "complaints": Share(amounts.get("complained", 0), delivered),
        "blocks": Share(amounts.get(BLOCKED, 0), attempts),
    }


def reasons(amounts: Amounts, most: int = 5) -> list[tuple[str, int]]:
    """The most frequent categories of bad replies."""
    found = [(name.removeprefix(WHY), amount) for name, amount in amounts.items() if name.startswith(WHY) and amount]
    return sorted(found, key=lambda entry: (-entry[1], entry[0]))[:most]


def by_provider(amounts: Amounts) -> dict[str, dict[str, int]]:
    """Of a tenant's records: provider -> the four outcomes."""
    found: dict[str, dict[str, int]] = {}
    for name, amount in amounts.items():
        provider, dot, outcome = name.rpartition(".")
        if dot and outcome in OUTCOMES:
            found.setdefault(provider, dict.fromkeys(OUTCOMES, 0))[outcome] = amount
    return found
