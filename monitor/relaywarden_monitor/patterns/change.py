"""change - a step up or down, with its reasons, and the line that people read.  Plain values."""

from __future__ import annotations

import time
from dataclasses import dataclass

from relaywarden_monitor.patterns.evidence import Evidence, plain
from relaywarden_monitor.patterns.ladder import Standing, Step

_LONGEST = 400
_TOLD = 4  # reasons in the line; all of them are in `reasons`


@dataclass(frozen=True, slots=True)
class Change:
    """One tenant's step; times are seconds since 1970.  `before` is `after` where a step was prolonged."""

    tenant: str
    before: Step
    after: Step
    at: float
    until: float | None  # None: for good, or nothing to end
    reasons: tuple[Evidence, ...]  # the heaviest first
    text: str  # one line of plain ASCII
    by: str  # "patterns", or the person whose word it was


def describe(name: str, before: Standing, after: Standing, reasons: tuple[Evidence, ...], now: float, by: str) -> Change:
    """The change, and its line: `acme: normal -> held until 2026-11-24 09:00 UTC: new client network: 192.0.2.0/24; ...`."""
    steps = f"{before.step.name.lower()} -> {after.step.name.lower()}"
    if before.step is after.step:
        steps = f"{after.step.name.lower()} goes on"
    until = "" if after.until is None else f" until {utc(after.until)}"
    repeated = f" (for the {after.times}. time)" if after.times > 1 and after.step >= Step.SLOWED else ""
    why = "; ".join(item.text for item in reasons[:_TOLD]) or after.reason
    if after.step < before.step and after.automatic:
        why = "its time is over, and what comes now is no reason to go on" if before.until else why
    text = plain(f"{name}: {steps}{until}{repeated}" + (f": {why}" if why else ""), _LONGEST)
    return Change(name, before.step, after.step, now, after.until, reasons, text, by)


def utc(at: float) -> str:
    """`2026-11-24 09:00 UTC`."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))
