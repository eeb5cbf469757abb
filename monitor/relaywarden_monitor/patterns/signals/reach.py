"""reach - recipients that the tenant does not usually write to.  Pure."""

from __future__ import annotations

from collections.abc import Iterator

from relaywarden_monitor.patterns import chance
from relaywarden_monitor.patterns.evidence import Evidence, Kind, span
from relaywarden_monitor.patterns.signals.look import Look, heaviest
from relaywarden_monitor.patterns.windows import HOUR, NEW, PAIRS, RECIPIENTS, SAME, SPANS

_RISE, _MARGIN, _MOST = 1.2, 0.1, 0.97  # a share may be 1.2 times the usual one, and a tenth more
_DECADES = 4.0  # powers of ten of improbability that make a weight of 1
_LEAST = 0.3
_UNLIKE = 3.0  # so many times more or less often two recipients share a domain


def new_recipients(look: Look) -> list[Evidence]:
    """The share of recipients that are new against the tenant's own usual share."""
    return heaviest(_new(look)) if look.settled else []


def spread(look: Look) -> Iterator[Evidence]:
    """How often two recipients share a domain (Simpson's index), against the usual: a bought list differs either way."""
    signals = look.settings.signals
    same, pairs = look.amounts[HOUR][SAME], look.amounts[HOUR][PAIRS]
    if not look.settled or pairs < 2 * signals.floor:
        return
    now, usual = same / pairs, look.record.usual.share("same")
    if usual / _UNLIKE <= now <= usual * _UNLIKE:
        return
    word = "more widely" if now < usual else "more narrowly"
    text = f"recipient domains are spread {word} than usual: two of a domain {now:.1%} of the time, usually {usual:.1%}"
    yield Evidence("spread", Kind.REACH, signals.spread_most, text, {"same": now, "usual": usual})


def _new(look: Look) -> Iterator[Evidence]:
    signals = look.settings.signals
    usual = -1.0
    for index in look.busy(signals.floor):
        whole, part = look.amounts[index][RECIPIENTS], min(look.amounts[index][NEW], look.amounts[index][RECIPIENTS])
        if usual < 0:
            usual = look.record.usual.share("new")
            most = min(_MOST, usual * _RISE + _MARGIN)
        if part <= most * whole:
            continue
        weight = min(signals.reach_most, chance.of_share(part, whole, most) / _DECADES)
        if weight >= _LEAST:
            text = f"{part:.0f} of {whole:.0f} recipients in {span(SPANS[index])} are new, usually {usual:.0%}"
            yield Evidence("new-recipients", Kind.REACH, weight, text, {"part": part, "whole": whole, "usual": usual})
