"""alerts - what is alerting now, and whether that is news.  Pure: no I/O, the time is an argument.

    none -> warn, none -> act   a crossing                        told
    warn -> act                 another crossing                  told
    act -> warn                 better, not well                  not told, nor the way back to act
    -> none                     well, if it lasts `calm` seconds  told once, as the recovery
    -> warn or act before that  it flapped                        not told; `calm` begins anew

An episode goes from the first crossing to the recovery.  In one episode each level is told once at most.  Levels are only
heard where somebody looks: call `look` for what `alerting` lists too, with NONE for what is gone, or it never recovers.

State form (JSON): {"version": 1, "alerts": [{"key", "told": "warn"|"act", "begun", "well": null|time, "times"}, ...]}, with
"told": "none" for episodes that are over; those are kept so that the next notice can say how often it came.

How it fails: `restore` takes all of a state or raises NoticeError.  With too many keys the oldest that recovered are
forgotten first, then the oldest that alert (`forgotten` counts these): such a key is told anew.

Known limit: it goes by the clock of the host.  A clock set forward may end an episode early; one set back makes it last.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from relaywarden_monitor.notify.notice import Evidence, Kind, Notice, NoticeError, Severity

CAPACITY = 10_000
_VERSION = 1
_STEP = 0.001  # seconds; the resolution of an episode's name


class Level(Enum):
    """Where something stands."""

    NONE = "none"
    WARN = "warn"
    ACT = "act"

    @property
    def height(self) -> int:
        """For comparing."""
        return _HEIGHT[self]


_HEIGHT = {Level.NONE: 0, Level.WARN: 1, Level.ACT: 2}
_SEVERITY = {Level.NONE: Severity.INFO, Level.WARN: Severity.WARN, Level.ACT: Severity.ACT}


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found about one key, in the words that go into a notice."""

    key: str
    level: Level
    subject: str
    what: str
    evidence: Evidence = field(default_factory=dict)
    undo: str = ""


@dataclass(slots=True)
class _Alert:
    """What is known of a key; `told` is NONE when its episode is over."""

    told: Level
    begun: float  # of the last episode; it names it
    well: float | None = None  # since when it has been below, without a break
    times: int = 1  # episodes so far


class AlertBook:
    """One per monitor; not for several threads."""

    def __init__(self, calm: float, capacity: int = CAPACITY) -> None:
        """`calm`: seconds below before a recovery is told, more than 0; `capacity`: most keys."""
        if not calm > 0 or capacity < 1:
            raise NoticeError(f"expected calm > 0 seconds and room for a key, got calm {calm} and capacity {capacity}")
        self._calm = calm
        self._capacity = capacity
        self._open: OrderedDict[str, _Alert] = OrderedDict()
        self._over: OrderedDict[str, _Alert] = OrderedDict()  # the longest recovered first
        self.forgotten = 0  # alerts given up for lack of room

    @property
    def alerting(self) -> dict[str, Level]:
        """What was told and is not over, with the highest level told."""
        return {key: alert.told for key, alert in self._open.items()}

    def look(self, reading: Reading, now: float) -> Notice | None:
        """The notice that this reading is worth; `now` in seconds since 1970."""
        alert = self._open.get(reading.key)
        if reading.level is Level.NONE:
            return self._well(reading, alert, now) if alert else None
        if alert is None:
            alert = self._begin(reading.key, now)
        alert.well = None
        if reading.level.height <= alert.told.height:
            return None
        alert.told = reading.level
        return _notice(reading, alert, Kind.CROSSED, now, {"times": alert.times} if alert.times > 1 else {})

    def state(self) -> dict[str, Any]:
        """What `restore` needs after a restart, as JSON values."""
        alerts = [
            {"key": key, "told": alert.told.value, "begun": alert.begun, "well": alert.well, "times": alert.times}
            for key, alert in (*self._over.items(), *self._open.items())
        ]
        return {"version": _VERSION, "alerts": alerts}

    def restore(self, state: Any) -> None:
        """Know again what `state` told; raises NoticeError and changes nothing if it is none."""
        try:
            if state["version"] != _VERSION:
                raise NoticeError(f"expected the state of alerts in version {_VERSION}, got version {state['version']!r}")
            read = [(str(document["key"]), _alert(document)) for document in state["alerts"]]
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise NoticeError(f"expected the state of alerts: {type(error).__name__}: {error}") from error
        self._open.clear()
        self._over.clear()
        for key, alert in read:
            (self._over if alert.told is Level.NONE else self._open)[key] = alert
        self._make_room(0)

    def _begin(self, key: str, now: float) -> _Alert:
        before = self._over.pop(key, None)
        self._make_room(1)
        # A clock set back must not give two episodes one name, or the second would be dropped as a repetition.
        begun = max(now, before.begun + _STEP) if before else now
        alert = self._open[key] = _Alert(Level.NONE, begun, times=before.times + 1 if before else 1)
        return alert

    def _well(self, reading: Reading, alert: _Alert, now: float) -> Notice | None:
        if alert.well is None or now < alert.well:  # the clock was set back: be sure again
            alert.well = now
        if now - alert.well < self._calm:
            return None
        lasted = max(0, round(alert.well - alert.begun))
        notice = _notice(reading, alert, Kind.RECOVERED, now, {"lasted_seconds": lasted})
        alert.told, alert.well = Level.NONE, None
        self._over[reading.key] = self._open.pop(reading.key)
        return notice

    def _make_room(self, keys: int) -> None:
        while len(self._open) + len(self._over) + keys > self._capacity:
            if self._over:
                self._over.popitem(last=False)
            else:
                self._open.popitem(last=False)
                self.forgotten += 1


def _notice(reading: Reading, alert: _Alert, kind: Kind, now: float, more: Evidence) -> Notice:
    return Notice.make(
        reading.key, kind, _SEVERITY[alert.told], subject=reading.subject, what=reading.what, at=now,
        evidence={**more, **reading.evidence}, undo=reading.undo, episode=f"{alert.begun:.3f}",
    )  # fmt: skip


def _alert(document: Any) -> _Alert:
    begun, times = float(document["begun"]), int(document["times"])
    well = None if document["well"] is None else float(document["well"])
    if not math.isfinite(begun) or not math.isfinite(well or 0.0) or times < 1:
        raise ValueError("not an alert")
    return _Alert(Level(document["told"]), begun, well, times)
