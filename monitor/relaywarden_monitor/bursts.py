"""bursts - stop a dirty list within tens of recipients, not at the end of the day.  Pure: no I/O, no clock.

A tenant's burst begins with its first recipient after ten quiet minutes, and anew after an hour.  Of its first `health.burst`
recipients the share that does not exist is judged again with each outcome, from the twentieth on.

Many looks give chance many chances: the z of a single look would let the bound of a good list pass by accident in one burst or
another.  So each look needs a larger z.  Worked out exactly over all runs of 200 recipients, at the default thresholds:

    z                       a list with 2 % invalid         one with 25 %, within 60 recipients
    warn (5 %)   3.0        0.079 % of the bursts           99.3 %
    act (10 %)   2.0        0.006 % of the bursts           95.1 %

A `health.confidence` above these holds in their place.

How it fails: of more than CAPACITY tenants the one that was quiet longest is forgotten; its next outcome begins a burst.  After
a restart all do.

Known limit: the order of outcomes is that of the answers, not that of the customer's list.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from relaywarden.config.monitor_settings import HealthSettings
from relaywarden.outcomes import Share
from relaywarden_monitor.judge import Finding, rate
from relaywarden_monitor.notify.alerts import Level

QUIET_SECONDS = 600.0
LONGEST_SECONDS = 3600.0
FIRST_LOOK = 20
Z_WARN, Z_ACT = 3.0, 2.0
CAPACITY = 100_000


@dataclass(slots=True)
class Burst:
    """What is known of one tenant's burst; times in seconds since 1970."""

    begun: float
    last: float
    seen: int = 0
    invalid: int = 0
    told: Level = Level.NONE

    def over(self, at: float) -> bool:
        """Whether an outcome at this time belongs to another burst."""
        return at - self.last >= QUIET_SECONDS or at - self.begun >= LONGEST_SECONDS

    def add(self, at: float, invalid: int, seen: int, most: int) -> bool:
        """Count outcomes as far as there is room; whether there was."""
        self.last = max(self.last, at)
        room = min(seen, most - self.seen)
        if room <= 0:
            return False
        self.seen += room
        self.invalid += min(invalid, seen) * room // seen  # of a batch nobody knows the order
        return True


class Bursts:
    """The bursts of all tenants; one per monitor, not for several threads."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._bursts: OrderedDict[str, Burst] = OrderedDict()

    def __len__(self) -> int:
        return len(self._bursts)

    def feed(self, tenant: str, at: float, invalid: int, seen: int, health: HealthSettings) -> Finding | None:
        """Count `seen` recipients, `invalid` of which do not exist; a finding each time the burst reaches another level."""
        burst = self._bursts.get(tenant)
        if burst is None or burst.over(at):
            burst = self._bursts[tenant] = Burst(at, at)
        self._bursts.move_to_end(tenant)
        if len(self._bursts) > self._capacity:
            self._bursts.popitem(last=False)
        if not burst.add(at, invalid, seen, health.burst) or burst.seen < min(FIRST_LOOK, health.burst):
            return None
        share = Share(burst.invalid, burst.seen)
        z_warn, z_act = max(Z_WARN, health.confidence), max(Z_ACT, health.confidence)
        level, lower, passed = rate(share, health.invalid, z_warn, z_act)
        if level.height <= burst.told.height:
            return None
        burst.told = level
        return _finding(share, level, lower, passed, burst)

    def level(self, tenant: str, at: float) -> Level:
        """What the tenant's burst has reached; NONE once it is over."""
        burst = self._bursts.get(tenant)
        return Level.NONE if burst is None or burst.over(at) else burst.told


def _finding(share: Share, level: Level, lower: float, passed: float, burst: Burst) -> Finding:
    text = f"invalid recipients: {share} of the first ones of a burst, {lower:.2%} at least ({level.value} from {passed:.2%})"
    evidence: dict[str, str | int | float] = {
        "part": share.part, "whole": share.whole, "share": round(share.value, 6), "lower": round(lower, 6),
        "threshold": passed, "seconds": round(burst.last - burst.begun),
    }  # fmt: skip
    return Finding("invalid", level, share, lower, passed, text, evidence)
