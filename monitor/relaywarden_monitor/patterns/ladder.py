"""ladder - evidence in, step and expiry out.  Pure: no I/O, no clock.

    wanted      evidence -> the step that it justifies
    advance     where a tenant stands, and what is wanted now -> where it stands from now on
    spoken      a person's word -> where it stands from now on

What justifies a step (weights of `evidence`; `strong` kinds weigh at least 1):

    watched     two strong kinds, or a heavy one
    slowed      a network or From domain that is new, and two marks of a thief; or harm, and any other strong kind but content;
                or content of marketing, and volume or other recipients; or volume out of all proportion to new recipients
    diverted    content of marketing in a template that goes to far more recipients than it ever did
    held        a new network or From domain, three marks of a thief, and much weight in all
    suspended   held for ten minutes, and the evidence still grew

Marks of a thief: volume, new recipients and unfamiliar templates, which a launch on a new machine has too, and which count only
beside other recipient domains or harm, or all three together beside several new names.

Volume, reach and fan-out are circumstances: a launch day has all three, month-end invoices and statements two of them.
Alone they never go beyond watched, but for volume out of all proportion.

Up at once; down only when the step's time is over.  Then what still comes is judged by a lower bar, and the step is prolonged
or ended.  Each step within a week of the end of the last doubles the time.  A person's word stands until its own time is over.

Known limits: a thief who sends the customer's own template to the customer's own recipients from the customer's own network
is, to this ladder, the customer.  One whose list is clean and in the customer's usual domains is only watched.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

from relaywarden_monitor.patterns.evidence import Evidence, Kind, plain, weights
from relaywarden_monitor.patterns.settings import LadderSettings

BY = "patterns"
_MOST_DOUBLINGS = 12
_LONGEST_REASON = 300


class Step(IntEnum):
    """Where a tenant may stand, in order."""

    NORMAL = 0
    WATCHED = 1
    SLOWED = 2
    DIVERTED = 3
    HELD = 4
    SUSPENDED = 5


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a tenant stands; times are seconds since 1970."""

    step: Step = Step.NORMAL
    since: float = 0.0
    until: float | None = None  # None: for good (of NORMAL: until there is evidence)
    times: int = 0  # steps to SLOWED or beyond, each within a week of the last
    ended: float | None = None  # when the last of these ended
    by: str = BY
    reason: str = ""

    @property
    def automatic(self) -> bool:
        """Whether it follows from evidence, not from a person's word."""
        return self.by == BY

    def over(self, now: float) -> bool:
        """Whether its time has passed."""
        return self.until is not None and now >= self.until

    def document(self) -> list[Any]:
        """As JSON values; `read` takes it again."""
        return [int(self.step), self.since, self.until, self.times, self.ended, self.by, self.reason]

    @classmethod
    def read(cls, document: Any) -> Standing:
        """From JSON values; raises ValueError or TypeError."""
        step, since, until, times, ended, by, reason = document
        spans = [None if value is None else float(value) for value in (until, ended)]
        return cls(
            Step(step), float(since), spans[0], int(times), spans[1], plain(str(by)), plain(str(reason), _LONGEST_REASON)
        )


def wanted(evidence: Iterable[Evidence], settings: LadderSettings, relief: float = 1.0) -> Step:
    """The step that this evidence justifies, SUSPENDED left aside; `relief` lowers the bar for what is in force already."""
    weight = weights(evidence)
    total = sum(weight.values()) / relief
    strong = {kind for kind, value in weight.items() if value >= settings.strong * relief}
    if _is_thief(weight, strong, settings, relief) and total >= settings.held:
        return Step.HELD
    if Kind.FANOUT in strong and weight[Kind.CONTENT] >= settings.broadcast * relief:
        return Step.DIVERTED
    if total >= settings.slowed and _is_guilty(weight, strong, settings, relief):
        return Step.SLOWED
    heavy = max(weight.values()) >= settings.alone * relief
    return Step.WATCHED if heavy or (total >= settings.watched and len(strong) >= 2) else Step.NORMAL


def advance(
    standing: Standing,
    seen: list[Evidence],
    lately: list[Evidence],
    settings: LadderSettings,
    now: float,
    *,
    goes_on: bool = False,
) -> Standing:
    """Where the tenant stands from now on: `standing` itself if nothing changes.

    `lately` is the evidence of the last minutes alone: what was held against the tenant does not prolong its step.
    `goes_on`: marketing still comes in numbers, in the last minute.
    """
    if not standing.automatic:
        return Standing(since=now, ended=now) if standing.over(now) else standing
    step = wanted(seen, settings)
    if _is_worst(standing, lately, settings, now):
        step = Step.SUSPENDED
    elif goes_on and _is_unimpressed(standing, lately, settings, now):
        step = max(step, Step.HELD)
    if step > standing.step:
        return _up(standing, step, seen, settings, now)
    if not standing.over(now):
        return standing
    again = wanted(seen if standing.step is Step.WATCHED else lately, settings, settings.relief)
    if standing.step is Step.WATCHED:
        return (
            replace(standing, until=now + settings.hold_watched)
            if again >= Step.WATCHED
            else replace(standing, step=Step.NORMAL, since=now, until=None, reason="")
        )
    if again >= min(standing.step, Step.HELD):
        return _up(replace(standing, ended=now), standing.step, lately, settings, now)
    return replace(standing, step=Step.NORMAL, since=now, until=None, ended=now, reason="")


def spoken(standing: Standing, step: Step | None, by: str, reason: str, now: float, until: float | None) -> Standing:
    """A person's word: this step until then (None: for good); step None: back to what follows from evidence, from NORMAL."""
    if step is None:
        return Standing(since=now, reason=plain(f"by {by}: {reason}", _LONGEST_REASON))
    who = plain(by) or "operator"
    # Nobody may be taken for this module by his name.
    return replace(standing, step=step, since=now, until=until, by=f"{who} (person)" if who == BY else who,
                   reason=plain(reason, _LONGEST_REASON))  # fmt: skip


def _is_thief(weight: dict[Kind, float], strong: set[Kind], settings: LadderSettings, relief: float) -> bool:
    """A new name, and three marks."""
    return Kind.IDENTITY in strong and _marks(weight, strong, settings, relief) >= 3


def _is_guilty(weight: dict[Kind, float], strong: set[Kind], settings: LadderSettings, relief: float) -> bool:
    """Whether something convicts, beside the circumstances."""
    if Kind.IDENTITY in strong and _marks(weight, strong, settings, relief) >= 2:
        return True
    if weight[Kind.HARM] >= settings.harmful * relief and strong - {Kind.HARM, Kind.CONTENT}:
        return True
    if weight[Kind.CONTENT] >= settings.broadcast * relief and strong & {Kind.VOLUME, Kind.REACH, Kind.PLACES}:
        return True
    return Kind.REACH in strong and weight[Kind.VOLUME] >= settings.flood * relief


def _marks(weight: dict[Kind, float], strong: set[Kind], settings: LadderSettings, relief: float) -> int:
    """How many marks of a thief there are; none at all if they are those of a launch on a new machine.

    One template to many is no mark, since every new template of a large tenant is that.
    """
    launch = len(strong & {Kind.VOLUME, Kind.REACH}) + (weight[Kind.CONTENT] >= settings.familiar * relief)
    theft = len(strong & {Kind.PLACES, Kind.HARM})
    several = weight[Kind.IDENTITY] >= settings.named * relief
    return launch + theft if theft or (several and launch == 3) else 0


def _is_worst(standing: Standing, lately: list[Evidence], settings: LadderSettings, now: float) -> bool:
    if standing.step is not Step.HELD or now - standing.since < settings.persist:
        return False
    return wanted(lately, settings) is Step.HELD and sum(weights(lately).values()) >= settings.suspended


def _is_unimpressed(standing: Standing, lately: list[Evidence], settings: LadderSettings, now: float) -> bool:
    """A broadcast that was diverted, and goes on."""
    lasts = standing.step is Step.DIVERTED and now - standing.since >= settings.persist_broadcast
    return lasts and wanted(lately, settings) >= Step.DIVERTED


def _up(standing: Standing, step: Step, evidence: list[Evidence], settings: LadderSettings, now: float) -> Standing:
    """To a higher step, or to the same one again."""
    reason = plain("; ".join(item.text for item in by_weight(evidence)), _LONGEST_REASON)
    if step is Step.WATCHED:
        return replace(standing, step=step, since=now, until=now + settings.hold_watched, reason=reason)
    again = standing.ended is not None and now - standing.ended <= settings.repeat
    climbing = standing.step >= Step.SLOWED and standing.ended != now
    times = max(1, standing.times) if climbing else standing.times + 1 if again else 1
    hold = min(settings.longest, _hold(step, settings) * 2 ** min(times - 1, _MOST_DOUBLINGS))
    since = standing.since if step is standing.step else now
    return replace(standing, step=step, since=since, until=now + hold, times=times, reason=reason)


def by_weight(evidence: Iterable[Evidence]) -> list[Evidence]:
    """The heaviest first."""
    return sorted(evidence, key=lambda item: -item.weight)


def _hold(step: Step, settings: LadderSettings) -> float:
    holds = {
        Step.SLOWED: settings.hold_slowed,
        Step.DIVERTED: settings.hold_diverted,
        Step.HELD: settings.hold_held,
    }
    return holds.get(step, settings.hold_suspended)
