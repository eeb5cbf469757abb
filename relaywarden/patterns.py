"""patterns - where the monitor keeps what it learned of a tenant, and what of that is for people.

The ledger keeps it as notes (topic TOPIC) of the books "!patterns:TENANT": `state` and `recipients`, the monitor's own, and
`view`, a JSON object:

    at, days, settled     when it was drawn (seconds since 1970), for how long the tenant is known, whether it has a normal
    week                  recipients expected in each of the 168 hours of a week, from Monday midnight UTC
    trend                 growth against that profile
    standing, by, since, until, reason, times      where the evidence has the tenant
    evidence              list of {name, kind, weight, text, ...}, the heaviest first
    history               lines of the last changes, the oldest first

How it fails: what is not of this form is left out.
"""

from __future__ import annotations

import json
from typing import Any

from relaywarden.ledger.records import HOUR_MS

TOPIC = "engine"
STATE, RECIPIENTS, VIEW = "state", "recipients", "view"
HOURS_OF_WEEK = 168
_MONDAY = 4 * 24  # hours from 1970-01-01, a Thursday, to the first Monday


def book(tenant: str) -> str:
    """The books of what is known of a tenant."""
    return f"!patterns:{tenant}"


def read_view(text: str | None) -> dict[str, Any]:
    """The view; empty where there is none."""
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def normal(view: dict[str, Any], now_ms: int, hours: int) -> list[float]:
    """Recipients expected in each of the last so many hours, this one last; empty where nothing is known."""
    week = view.get("week")
    if not isinstance(week, list) or len(week) != HOURS_OF_WEEK or not all(isinstance(one, int | float) for one in week):
        return []
    last = now_ms // HOUR_MS
    trend = view.get("trend")
    factor = float(trend) if isinstance(trend, int | float) else 1.0
    return [week[(hour - _MONDAY) % HOURS_OF_WEEK] * factor for hour in range(last - hours + 1, last + 1)]
