"""health - what became of the mail: counts, shares, reasons and trend, and which shares are too large.  Pure: no I/O, no clock.

It reads the records of hours whose names `relaywarden.outcomes` explains.  A day is the 24 hours up to the current one, which
is not over yet; a week is 168.  The documents are contracts of `show --json` and `pools --json`:

    tenant   {"day": SPAN, "week": SPAN, "trend": [{"hour", "delivered", "deferred", "bounced", "complained"}, ... 24 of them]}
    SPAN     the four outcomes; "rates" {bounces, complaints, blocks: RATE}; "reasons" {category: amount}, the most frequent
             first; "providers" {provider: the four outcomes}, the largest first
    RATE     part, whole, share, lower (Wilson's bound), and of a tenant warn, act, level: ok, warn, act, few (too few to judge)
    signal   {"signal": a rate's name, "level": warn or act, "evidence": RATE with window (hours), min_sample, confidence}
    member   {"outcomes": the four; "rates" {deferred, bounced, complaints, address}; "reasons";
             "trend" {"delivered", "before", "change"}}; change is a share, null where nothing was delivered before

A member's `address` are attempts that failed by the reputation of the source address, of all attempts.

Known limit: `invalid`, the threshold for the first recipients of a burst, cannot be told from records of hours; the monitor
judges it while it reads.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from relaywarden import outcomes
from relaywarden.cli.output import iso_time
from relaywarden.config.monitor_settings import HealthSettings, Threshold
from relaywarden.ledger.records import HOUR_MS
from relaywarden.outcomes import OUTCOMES, Amounts, Share

DAY, WEEK = 24, 168  # hours
_MOST_REASONS = 10
_BAD = ("deferred", "bounced", "complained")

Level = Literal["ok", "warn", "act", "few"]
_FEWEST = {"complaints": 3}  # as the monitor judges: one or two complaints are nobody's habit
Records = Mapping[int, Amounts]  # by the hour since 1970


def level(share: Share, threshold: Threshold, min_sample: int, z: float, fewest: int = 1) -> Level:
    """What a share calls for: its lower bound has to reach a threshold; of fewer than `min_sample` nothing is said, nor of a
    part below `fewest`."""
    if share.whole < min_sample or 0 < share.part < fewest:
        return "few"
    lower = share.lower(z)
    return "act" if lower >= threshold.act else "warn" if lower >= threshold.warn else "ok"


def window_hours(health: HealthSettings) -> int:
    """How many hours the plan judges together."""
    return math.ceil(health.window / HOUR_MS)


def needed_hours(health: HealthSettings) -> int:
    """How many hours `tenant` and `signals` look at."""
    return max(WEEK, window_hours(health))


def tenant(records: Records, now_ms: int, health: HealthSettings) -> dict[str, Any]:
    """A tenant's outcomes."""
    spans = {name: _span(_sum(records, now_ms, hours), health) for name, hours in (("day", DAY), ("week", WEEK))}
    trend = [{"hour": iso_time(hour * HOUR_MS), **_four(records.get(hour, {}))} for hour in _hours(now_ms, DAY)]
    return {**spans, "trend": trend}


def signals(records: Records, now_ms: int, health: HealthSettings) -> list[dict[str, Any]]:
    """The shares of the plan's window that are too large."""
    hours = window_hours(health)
    rates = _rates(_sum(records, now_ms, hours), health)
    judged_by = {"window": hours, "min_sample": health.min_sample, "confidence": health.confidence}
    return [
        {"signal": name, "level": rate["level"], "evidence": {**rate, **judged_by}}
        for name, rate in rates.items()
        if rate["level"] in ("warn", "act")
    ]


def member(records: Records, now_ms: int, z: float) -> dict[str, Any]:
    """The outcomes of what a pool member carried to one provider in the last day."""
    today, before = _sum(records, now_ms, DAY), _sum(records, now_ms - DAY * HOUR_MS, DAY)
    delivered, bounced = today["delivered"], today["bounced"]
    attempts = delivered + bounced + today["deferred"]
    found = {
        "deferred": Share(today["deferred"], attempts),
        "bounced": Share(bounced, delivered + bounced),
        "complaints": Share(today["complained"], delivered),
        "address": Share(today["deferred.ip"] + today["bounced.ip"], attempts),
    }
    change = round(delivered / before["delivered"] - 1, 4) if before["delivered"] else None
    return {
        "outcomes": _four(today),
        "rates": {name: _rate(share, z) for name, share in found.items()},
        "reasons": dict(outcomes.reasons(today, _MOST_REASONS)),
        "trend": {"delivered": delivered, "before": before["delivered"], "change": change},
    }


def volume(amounts: Amounts) -> int:
    """All four outcomes together."""
    return sum(amounts.get(name, 0) for name in OUTCOMES)


def bad(amounts: Amounts) -> int:
    """What was not delivered, or was complained about."""
    return sum(amounts.get(name, 0) for name in _BAD)


def _hours(now_ms: int, count: int) -> range:
    newest = now_ms // HOUR_MS
    return range(newest - count + 1, newest + 1)


def _sum(records: Records, now_ms: int, count: int) -> Counter[str]:
    return outcomes.total(records[hour] for hour in _hours(now_ms, count) if hour in records)


def _four(amounts: Amounts) -> dict[str, int]:
    return {name: amounts.get(name, 0) for name in OUTCOMES}


def _span(amounts: Amounts, health: HealthSettings) -> dict[str, Any]:
    providers = sorted(outcomes.by_provider(amounts).items(), key=lambda entry: (-volume(entry[1]), entry[0]))
    return {
        **_four(amounts),
        "rates": _rates(amounts, health),
        "reasons": dict(outcomes.reasons(amounts, _MOST_REASONS)),
        "providers": dict(providers),
    }


def _rates(amounts: Amounts, health: HealthSettings) -> dict[str, dict[str, Any]]:
    thresholds = {"bounces": health.bounces, "complaints": health.complaints, "blocks": health.blocks}
    return {
        name: {
            **_rate(share, health.confidence),
            "warn": thresholds[name].warn,
            "act": thresholds[name].act,
            "level": level(share, thresholds[name], health.min_sample, health.confidence, _FEWEST.get(name, 1)),
        }
        for name, share in outcomes.shares(amounts).items()
    }


def _rate(share: Share, z: float) -> dict[str, Any]:
    return {"part": share.part, "whole": share.whole, "share": round(share.value, 6), "lower": round(share.lower(z), 6)}
