"""harm - what came of the mail: recipients that do not exist, that asked for no more, complaints, blocks.  Pure.

Each share is put against the larger of what any tenant may have and twice what is usual for this one, and weighs by how
improbable it is: a dirty list stands out within tens of recipients, and one complaint of three mails convicts nobody.  A share
of invalid recipients below what any tenant may have, but far above this one's own, still supports other evidence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from relaywarden_monitor.patterns import chance
from relaywarden_monitor.patterns.evidence import Evidence, Kind, span
from relaywarden_monitor.patterns.signals.look import Look, heaviest
from relaywarden_monitor.patterns.usual import SHARES
from relaywarden_monitor.patterns.windows import SPANS

_DECADES = 4.0
_LEAST = 0.3
_RISE = 2.0


@dataclass(frozen=True, slots=True)
class _Sort:
    name: str  # in `usual.SHARES`
    limit: str  # in SignalSettings
    fewest: int
    text: str


_SORTS = (
    _Sort("invalid", "invalid_from", 5, "recipients do not exist"),
    _Sort("suppressed", "suppressed_from", 5, "recipients are on the suppression list"),
    _Sort("blocked", "blocked_from", 5, "attempts were blocked for what the tenant sends"),
    _Sort("complained", "complained_from", 3, "recipients complained"),
)
_PLACES = [(sort, SHARES[sort.name][0], SHARES[sort.name][1]) for sort in _SORTS]


def harm(look: Look) -> Iterator[Evidence]:
    """One evidence for each sort of harm that is too frequent."""
    day = look.amounts[-1]
    for sort, part, whole in _PLACES:
        if day[part] >= sort.fewest or any(amounts[part] >= sort.fewest for amounts in look.amounts):
            yield from heaviest(_shares(look, sort, part, whole))


def _shares(look: Look, sort: _Sort, part: int, whole: tuple[int, ...]) -> Iterator[Evidence]:
    signals, usual = look.settings.signals, look.record.usual.share(sort.name)
    allowed = max(getattr(signals, sort.limit), _RISE * usual)
    hinted = max(signals.invalid_hint, _RISE * usual) if sort.name == "invalid" and look.settled else allowed
    for index, amounts in enumerate(look.amounts):
        bad, of = amounts[part], sum([amounts[field] for field in whole])
        if bad < sort.fewest or bad <= hinted * of:
            continue
        weight = min(signals.harm_most, chance.of_share(bad, of, allowed) / _DECADES)
        if hinted < allowed:
            weight = max(weight, min(signals.hint_most, chance.of_share(bad, of, hinted) / _DECADES))
        if weight >= _LEAST:
            share = bad / max(bad, of)
            text = f"{bad:.0f} of {of:.0f} {sort.text} in {span(SPANS[index])} ({share:.1%}, usually {usual:.1%})"
            yield Evidence(sort.name, Kind.HARM, weight, text, {"part": bad, "whole": of, "share": share, "usual": usual})
