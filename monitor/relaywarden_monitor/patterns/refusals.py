"""refusals - what policyd turned away, for the engine: it leaves no line in the log that Postfix delivers by.

policyd counts in the tenant's hour of the ledger (`refused`, `suppressed`).  `since` reads the hours of tenants that send, once
a minute each, and says how much was added since the last look.

How it fails: StoreUnavailableError goes to the caller, and the next look says more.

Known limits: what was added before the first look at a tenant is not told.  Of several hosts that share a ledger each hears of
all refusals.  A tenant of whom nothing at all is accepted is not looked at: the limits do what is needed there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from relaywarden.ledger.operations import Ledger
from relaywarden.ledger.records import HOUR_MS, History, Hours

_EVERY = 60.0  # seconds between two looks at one tenant
_TOGETHER = 200
_MOST_TENANTS = 50_000


class Added(NamedTuple):
    """What came to a tenant's counters."""

    refused: int = 0
    suppressed: int = 0


class _Look(NamedTuple):
    at: float
    hours: Mapping[int, Added]


class Refusals:
    """One per monitor; used by one thread."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._last: OrderedDict[str, _Look] = OrderedDict()

    def since(self, names: Iterable[str], now: float) -> dict[str, Added]:
        """What was added at these tenants, where anything was; `now` in seconds; raises StoreUnavailableError."""
        due = [name for name in names if name not in self._last or now - self._last[name].at >= _EVERY]
        added: dict[str, Added] = {}
        looks: dict[str, _Look] = {}  # taken over at the end: what an error kept from being told is told next time
        for start in range(0, len(due), _TOGETHER):
            some = due[start : start + _TOGETHER]
            results = self._ledger.apply([History(name, int(now * 1000) - HOUR_MS, int(now * 1000)) for name in some])
            for name, result in zip(some, results, strict=True):
                found = _counts(result.hours) if isinstance(result, Hours) else {}
                more = _difference(found, self._last.get(name))
                looks[name] = _Look(now, found)
                if any(more):
                    added[name] = more
        for name, look in looks.items():
            self._last[name] = look
            self._last.move_to_end(name)
        while len(self._last) > _MOST_TENANTS:
            self._last.popitem(last=False)
        return added


def _counts(hours: Mapping[int, Mapping[str, int]]) -> dict[int, Added]:
    return {hour: Added(names.get("refused", 0), names.get("suppressed", 0)) for hour, names in hours.items()}


def _difference(found: Mapping[int, Added], last: _Look | None) -> Added:
    """Hours that the last look did not see began after it, or it saw nothing in them."""
    if last is None:
        return Added()
    seen = {hour: last.hours.get(hour, Added()) for hour in found if hour >= int(last.at * 1000) // HOUR_MS - 1}
    return Added(
        sum(max(0, found[hour].refused - before.refused) for hour, before in seen.items()),
        sum(max(0, found[hour].suppressed - before.suppressed) for hour, before in seen.items()),
    )
