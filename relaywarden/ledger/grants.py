"""grants - what an operator allowed a tenant beyond its limits: so much of one meter, until a day.  No I/O.

A charge that a limit of the meter would refuse goes to a grant with room instead, as a whole, and not into the windows: a
breach notification to half a million customers leaves the tenant's ordinary mail its ordinary room.  Grants are part of
the dynamic state: {id: {meter, amount, used, until_ms, reason, by}}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relaywarden.limits import Meter

GRANTED = 0.5  # of a millisecond: marks, in a ticket's time of charge, what went to a grant


class Grants:
    """The grants of a tenant at one moment; `drawn` says whether the state must be stored."""

    def __init__(self, state: Mapping[str, Any], now_ms: int) -> None:
        self._all: Mapping[str, dict[str, Any]] = state.get("grants") or {}
        self._now = now_ms
        self.drawn = False

    def covers(self, meter: Meter, amount: int) -> bool:
        """Whether a grant has room for all of it."""
        return self._with_room(meter, amount) is not None

    def draw(self, meter: Meter, amount: int) -> None:
        """Charge it to the grant that `covers` found."""
        grant = self._with_room(meter, amount)
        if grant is not None:
            grant["used"] = grant.get("used", 0) + amount
            self.drawn = True

    def give_back(self, meter: Meter, amount: int) -> None:
        """Return what was drawn, to the first grant of the meter that has as much drawn."""
        for name in sorted(self._all):
            grant = self._all[name]
            if grant["meter"] == meter.value and grant.get("used", 0) >= amount:
                grant["used"] -= amount
                self.drawn = True
                return

    def _with_room(self, meter: Meter, amount: int) -> dict[str, Any] | None:
        for name in sorted(self._all):
            grant = self._all[name]
            alive = not grant.get("until_ms") or grant["until_ms"] > self._now
            if alive and grant["meter"] == meter.value and grant.get("used", 0) + amount <= grant["amount"]:
                return grant
        return None
