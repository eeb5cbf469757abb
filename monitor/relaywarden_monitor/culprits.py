"""culprits - whose volume to a provider changed, when the provider complains of an address.  Pure: no I/O, no clock.

Ranked by the excess: what a tenant sent in the last hour beyond its usual hour (the mean of the past 7 days).  A newcomer's
usual hour is none, so all of its mail is excess.  Who sent less than FEWEST beyond the usual, or less than half as much again,
did not change.

Known limit: a mean knows no time of day.  At noon everybody sends more than usual; the ranking still names who did most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

FEWEST = 20
LEAST_GROWTH = 1.5


class Culprit(NamedTuple):
    """A tenant and its recipients an hour at that provider."""

    tenant: str
    now: int
    usual: float
    growth: float  # now over usual, of which one recipient is the least

    def __str__(self) -> str:
        return f"{self.tenant} ({self.now} in the last hour, usually {self.usual:.0f})"


def culprits(last_hour: Mapping[str, int], usual: Mapping[str, float], most: int = 3) -> list[Culprit]:
    """The tenants whose volume grew, the largest excess first; usual hours that are no number count as none."""
    found = []
    for tenant, now in last_hour.items():
        before = usual.get(tenant, 0.0)
        before = before if math.isfinite(before) and before > 0 else 0.0
        growth = now / max(1.0, before)
        if now - before >= FEWEST and growth >= LEAST_GROWTH:
            found.append(Culprit(tenant, now, before, growth))
    return sorted(found, key=lambda culprit: (culprit.usual - culprit.now, culprit.tenant))[:most]
