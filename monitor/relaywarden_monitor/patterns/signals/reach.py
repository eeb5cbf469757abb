"""reach - recipients that the tenant does not usually write to.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from relaywarden_monitor.patterns import chance
from relaywarden_monitor.patterns.evidence import Evidence, Kind, span
from relaywarden_monitor.patterns.signals.look import Look, allowance, heaviest
from relaywarden_monitor.patterns.windows import NEW, PLACED, RECIPIENTS, SPANS, STRANGE

_RISE = 1.2
_DECADES = 4.0  # powers of ten of improbability that make a weight of 1
_LEAST = 0.3


def new_recipients(look: Look) -> list[Evidence]:
    """The share of recipients that are new against the tenant's own usual share."""
    return heaviest(_shares(look, _NEW))


def spread(look: Look) -> list[Evidence]:
    """The share of recipients in domains that the tenant does not usually write to: a list from elsewhere."""
    return heaviest(_shares(look, _STRANGE))


@dataclass(frozen=True, slots=True)
class _Sort:
    name: str
    share: str  # in `usual.SHARES`
    part: int
    whole: int
    most: str  # in SignalSettings
    kind: Kind
    text: str


_NEW = _Sort("new-recipients", "new", NEW, RECIPIENTS, "reach_most", Kind.REACH, "are new")
_STRANGE = _Sort("spread", "strange", STRANGE, PLACED, "spread_most", Kind.PLACES, "are in domains that are not usual")


def _shares(look: Look, sort: _Sort) -> Iterator[Evidence]:
    signals, usual = look.settings.signals, look.record.usual.share(sort.share)
    most = allowance(usual, _RISE)
    if most is None or not look.settled:
        return
    for index in look.busy(signals.floor):
        whole = look.amounts[index][sort.whole]
        part = min(look.amounts[index][sort.part], whole)
        if whole < signals.floor or part <= most * whole:
            continue
        weight = min(getattr(signals, sort.most), chance.of_share(part, whole, most) / _DECADES)
        if weight >= _LEAST:
            text = f"{part:.0f} of {whole:.0f} recipients in {span(SPANS[index])} {sort.text}, usually {usual:.0%}"
            yield Evidence(sort.name, sort.kind, weight, text, {"part": part, "whole": whole, "usual": usual})
