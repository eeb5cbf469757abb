"""judge - when a tenant's bad outcomes are too many, and for how long that counts.  Pure: no I/O, no clock.

    judge     amounts -> findings: for bounces, complaints and blocks the level, with the evidence
    decide    findings -> what is done about the tenant: diverted or suspended, for how long
    settle    once that is over: what was counted so far is not held against the tenant again
    counted   the hours that are still held against the tenant
    review    `judge` of what `counted` leaves
    heard     what a person said meanwhile; a person's word is never overwritten

A share convicts by its lower Wilson bound alone, and not before `health.min_sample` recipients.  Complaints need three at
least: one of 200 is a share of 0.5 %, which is more than any provider tolerates, and says nothing.  They come late, so they
are put against all deliveries of the window, even where the window began anew after an action.  Blocks are told from the
threshold for people on, but convict only from twenty on: a mailbox or two that refuse a tenant's mail must not divert it.

The hold doubles each time it comes again within a week of the end of the last, and lasts a week at most.  While it lasts
nothing prolongs it.  The window begins anew when it ends, by itself or by a person's word, as coss.com does it: else the same
bounces would convict twice.

JSON form of a Standing (`document`), for the monitor's own notes; the steering entry has only what workers need:

    {"action": "divert"|"suspend", "reason", "since_ms", "until_ms", "times", "by", "mark": {"at_ms", "amounts"} or null}

How it fails: `Standing.read` raises StandingError for what is none.

Known limits: the records do not say who blocked.  Whoever gets twenty different messages of a tenant (one that mails little)
and refuses each can still have it diverted by himself.  Complaints about mail from before the window count against the
window's deliveries.  The hour in which the window begins counts as a whole.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from relaywarden import outcomes
from relaywarden.config.monitor_settings import HealthSettings, Threshold
from relaywarden.errors import RelaywardenError
from relaywarden.ledger.records import HOUR_MS
from relaywarden.limits import format_duration
from relaywarden.outcomes import Amounts, Share
from relaywarden_monitor.classify.vocabulary import CATEGORIES
from relaywarden_monitor.notify.alerts import Level, Reading
from relaywarden_monitor.notify.notice import Evidence
from relaywarden_monitor.verdict import Scope

BY = "monitor"
WEEK_MS = 7 * 24 * HOUR_MS
FEWEST_COMPLAINTS = 3
FEWEST_BLOCKS = 20  # to act; people are told of fewer
_MOST_DOUBLINGS = 20  # of a second these are twelve days
_LONGEST_REASON = 200
_WORDS = ("divert", "hold", "suspended")  # of an entry of steering
_NAMES = frozenset({*outcomes.OUTCOMES, outcomes.BLOCKED, outcomes.INVALID})
_TITLES = {"bounces": "hard bounces", "complaints": "complaints", "blocks": "blocked attempts"}
_SCOPES = {"bounces": {Scope.MAILBOX}, "complaints": set(), "blocks": {Scope.DOMAIN, Scope.CONTENT, Scope.AUTH}}
_WHY = {
    name: frozenset(outcomes.WHY + category for category, meaning in CATEGORIES.items() if meaning.scope in scopes)
    for name, scopes in _SCOPES.items()
}


class StandingError(RelaywardenError):
    """What was kept of a tenant's standing cannot be read."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One share of one tenant, and what it amounts to."""

    name: str  # bounces, complaints, blocks; invalid: of a burst
    level: Level
    share: Share
    lower: float  # as much of the share as is sure, 0 to 1
    threshold: float  # the highest that was passed; where none was, the one for people
    text: str  # one line of plain ASCII
    evidence: Evidence = field(default_factory=dict)

    def reading(self, tenant: str) -> Reading:
        """In the words of the book of alerts."""
        undo = f"relaywarden resume {shlex.quote(tenant)}" if self.level is Level.ACT else ""
        return Reading(f"tenant:{tenant}:{self.name}", self.level, tenant, self.text, self.evidence, undo)


@dataclass(frozen=True, slots=True)
class Mark:
    """What was counted of an hour before the window began anew."""

    at_ms: int
    amounts: Amounts


@dataclass(frozen=True, slots=True)
class Standing:
    """What was done about a tenant last; it is kept as long as it makes a difference to the next time."""

    action: str  # divert or suspend; a person may also say hold
    reason: str
    since_ms: int
    until_ms: int
    times: int = 1
    by: str = BY
    mark: Mark | None = None

    def holds(self, now_ms: int) -> bool:
        """Whether it is in force."""
        return now_ms < self.until_ms

    def steering(self, now_ms: int) -> dict[str, Any] | None:
        """The entry of section `tenants`; None: remove it."""
        if not self.holds(now_ms):
            return None
        times = {"by": self.by, "until_ms": self.until_ms, "times": self.times, "since_ms": self.since_ms}
        if self.action == "suspend":
            return {"suspended": {"reason": self.reason, "until_ms": self.until_ms, "by": self.by}, **times}
        return {self.action: self.reason, **times}

    def document(self) -> dict[str, Any]:
        """As JSON values; `read` takes it again."""
        mark = None if self.mark is None else {"at_ms": self.mark.at_ms, "amounts": dict(self.mark.amounts)}
        return {
            "action": self.action, "reason": self.reason, "since_ms": self.since_ms, "until_ms": self.until_ms,
            "times": self.times, "by": self.by, "mark": mark,
        }  # fmt: skip

    @classmethod
    def read(cls, document: Any) -> Standing:
        """From JSON values; raises StandingError."""
        try:
            mark = document["mark"]
            if mark is not None:
                mark = Mark(int(mark["at_ms"]), {str(name): int(amount) for name, amount in mark["amounts"].items()})
            since, until, times = (int(document[name]) for name in ("since_ms", "until_ms", "times"))
            action, reason, by = (str(document[name]) for name in ("action", "reason", "by"))
        except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
            raise StandingError(f"expected a tenant's standing: {type(error).__name__}: {error}") from error
        if action not in {"divert", "suspend", "hold"} or times < 1:
            raise StandingError(f"expected a tenant's standing, got action {action!r:.40} for the {times}. time")
        return cls(action, _plain(reason), since, until, times, by, mark)


def judge(health: HealthSettings, amounts: Amounts, delivered: int = 0) -> list[Finding]:
    """One finding for each share, also where nothing is wrong: a recovery has to be seen.

    `delivered`: the deliveries that complaints may be about, where these are more than the `amounts` say.
    """
    found = outcomes.shares(amounts)
    complaints = found["complaints"]
    found["complaints"] = Share(complaints.part, max(complaints.whole, delivered))
    return [_finding(health, name, share, _reasons(name, amounts)) for name, share in found.items()]


def decide(previous: Standing | None, findings: Iterable[Finding], health: HealthSettings, now_ms: int) -> Standing | None:
    """What holds from now on: `previous` itself where nothing changes, None where nothing is worth being kept."""
    if previous is not None and (previous.by != BY or previous.holds(now_ms)):
        return previous
    again = previous is not None and now_ms - previous.until_ms <= WEEK_MS
    guilty = [finding for finding in findings if finding.level is Level.ACT]
    if not guilty or health.action == "none":
        return previous if again else None
    times = previous.times + 1 if previous is not None and again else 1
    held = min(WEEK_MS, health.hold_for << min(times - 1, _MOST_DOUBLINGS))
    reason = _plain("; ".join(finding.text for finding in guilty))
    return Standing(health.action, reason, now_ms, now_ms + held, times, BY, previous.mark if previous else None)


def heard(kept: Standing | None, said: Mapping[str, Any] | None, now_ms: int) -> Standing | None:
    """`kept`, with what the steering entry `said` of this tenant makes of it; kept and said must be of one moment.

    A person's word comes back as a Standing by somebody else: go by it, but do not keep it in the place of ours.  A word
    of ours that is gone was ended by a person: it is over now, and the window begins anew.
    """
    entry = {} if said is None else said
    for word in _WORDS:
        found = entry.get(word)
        more = found if isinstance(found, Mapping) else entry
        until = more.get("until_ms")
        by = str(more.get("by") or "operator")
        if found and by != BY and (not until or until > now_ms):
            reason = more.get("reason") if more is found else found
            action = "suspend" if word == "suspended" else word
            return Standing(action, _plain(str(reason or "")), 0, int(until or 2**53), by=by)
    if kept is not None and kept.holds(now_ms) and not any(entry.get(word) for word in _WORDS):
        return replace(kept, until_ms=now_ms)
    return kept


def settle(standing: Standing, hours: Mapping[int, Amounts], now_ms: int) -> Standing:
    """Once an action is over, with the mark from which outcomes count again; else `standing` itself.  Call it at every look."""
    if standing.holds(now_ms) or (standing.mark is not None and standing.mark.at_ms >= standing.until_ms):
        return standing
    return replace(standing, mark=Mark(now_ms, _judged(hours.get(now_ms // HOUR_MS, {}))))


def counted(health: HealthSettings, hours: Mapping[int, Amounts], standing: Standing | None, now_ms: int) -> Counter[str]:
    """What is held against the tenant: the hours (since 1970) of the window, as far as they come after the mark."""
    mark = standing.mark if standing is not None else None
    first, last = (now_ms - health.window) // HOUR_MS, now_ms // HOUR_MS
    begun = mark.at_ms // HOUR_MS if mark is not None else first
    found = outcomes.total(amounts for hour, amounts in hours.items() if max(first, begun) <= hour <= last)
    if mark is not None and begun >= first:
        found.subtract(mark.amounts)
    return +found  # without what is not positive


def review(health: HealthSettings, hours: Mapping[int, Amounts], standing: Standing | None, now_ms: int) -> list[Finding]:
    """`judge` what counts against the tenant."""
    whole = counted(health, hours, None, now_ms)
    return judge(health, counted(health, hours, standing, now_ms), whole["delivered"])


def rate(share: Share, threshold: Threshold, z_warn: float, z_act: float) -> tuple[Level, float, float]:
    """The level that a share reaches, its lower bound, and the threshold that it passed (or has to fear next)."""
    if (lower := share.lower(z_act)) >= threshold.act:
        return Level.ACT, lower, threshold.act
    lower = share.lower(z_warn)
    return (Level.WARN if lower >= threshold.warn else Level.NONE), lower, threshold.warn


def _finding(health: HealthSettings, name: str, share: Share, why: list[tuple[str, int]]) -> Finding:
    threshold: Threshold = getattr(health, name)
    level, lower, passed = rate(share, threshold, health.confidence, health.confidence)
    if name == "blocks" and level is Level.ACT and share.part < FEWEST_BLOCKS:
        level, passed = Level.WARN, threshold.warn
    fewest = FEWEST_COMPLAINTS if name == "complaints" else 1
    if share.whole < health.min_sample or share.part < fewest:
        level, passed = Level.NONE, threshold.warn
    window = format_duration(health.window)
    evidence: dict[str, str | int | float] = {
        "part": share.part, "whole": share.whole, "share": round(share.value, 6), "lower": round(lower, 6),
        "threshold": passed, "window": window,
    }  # fmt: skip
    text = f"{_TITLES[name]}: {share} in {window}, {lower:.2%} at least"
    if level is not Level.NONE:
        text += f" ({level.value} from {passed:.2%})"
    if why:
        evidence["reasons"] = ", ".join(f"{category} {amount}" for category, amount in why)
        text += f", most of them {why[0][0]}"
    return Finding(name, level, share, lower, passed, text, evidence)


def _reasons(name: str, amounts: Amounts) -> list[tuple[str, int]]:
    return outcomes.reasons({key: amount for key, amount in amounts.items() if key in _WHY[name]})


def _judged(amounts: Amounts) -> Amounts:
    return {name: amount for name, amount in amounts.items() if name in _NAMES or name.startswith(outcomes.WHY)}


def _plain(text: str) -> str:
    line = "".join(char if char.isascii() and char.isprintable() else " " for char in text)
    return line if len(line) <= _LONGEST_REASON else f"{line[: _LONGEST_REASON - 3]}..."
