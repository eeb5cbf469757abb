"""volume - more mail than the tenant ever sends, at once or drop by drop.  Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from relaywarden_monitor.patterns import chance
from relaywarden_monitor.patterns.evidence import Evidence, Kind, span
from relaywarden_monitor.patterns.signals.look import Look, heaviest
from relaywarden_monitor.patterns.windows import DAY, HOUR, QUARTER, RECIPIENTS, REFUSED, SPANS

_BURST_SHARE = 0.5  # of a day's volume within a quarter of an hour
_LEAST = 0.3  # weights below it are not worth a word


def volume(look: Look) -> list[Evidence]:
    """Recipients in any span against the highest count of the past and the expectation, with the tail probability."""
    return heaviest(_volumes(look)) if look.settled else _ramp(look)


def drip(look: Look) -> Iterator[Evidence]:
    """The slow sum: above normal hour after hour, though no hour stands out."""
    signals, sum_now = look.settings.signals, look.record.peaks.drift
    if look.settled and sum_now > signals.drift_limit * _LEAST and look.amounts[DAY][RECIPIENTS] >= signals.floor:
        seen, normal = look.amounts[DAY][RECIPIENTS], look.record.day
        text = f"{seen:.0f} recipients in 24 hours, {normal:.0f} are normal, above normal for hours on end"
        weight = min(2.0, sum_now / signals.drift_limit)
        yield Evidence("drip", Kind.VOLUME, weight, text, {"seen": seen, "normal": normal, "excess_days": sum_now})


def shape(look: Look) -> Iterator[Evidence]:
    """Transactional mail is a stream: half of a day's mail within a quarter of an hour is none."""
    seen, day = look.amounts[QUARTER][RECIPIENTS], look.amounts[DAY][RECIPIENTS]
    if not look.settled or seen < max(look.settings.signals.floor_volume, _BURST_SHARE * day) or day <= 0:
        return
    usual = (look.record.peaks.tops[QUARTER] + 1) / (look.record.peaks.tops[DAY] + 1)
    if usual < _BURST_SHARE / 2:
        share = seen / day
        text = f"{share:.0%} of the recipients of 24 hours came within 15 minutes"
        yield Evidence("shape", Kind.VOLUME, share, text, {"share": share, "seen": seen, "usual": usual})


def refused(look: Look) -> Iterator[Evidence]:
    """Limits turned many away: no guilt by itself, since clients try again."""
    turned, taken = look.amounts[HOUR][REFUSED], look.amounts[HOUR][RECIPIENTS]
    if turned >= max(look.settings.signals.floor_volume, taken):
        weight = min(look.settings.signals.refused_most, 0.4 * math.log10(turned))
        text = f"limits refused {turned:.0f} recipients in 1 hour, {taken:.0f} were taken"
        yield Evidence("refused", Kind.VOLUME, weight, text, {"refused": turned, "taken": taken})


def _volumes(look: Look) -> Iterator[Evidence]:
    signals, record = look.settings.signals, look.record
    dispersion = -1.0
    for index in look.busy(signals.floor_volume):
        seen, normal, top = look.amounts[index][RECIPIENTS], look.expected(index), record.peaks.tops[index]
        # Half a floor on both sides: a few more than a few is not many times as many.
        ratio = seen / (max(top, normal) + signals.floor_volume / 2)
        if ratio < signals.rise:
            continue
        if dispersion < 0:
            dispersion = record.baseline.dispersion(look.settings.learning)
        surprise = chance.of_count(seen, normal, dispersion)
        weight = min(signals.volume_most, 2 * math.log10(ratio / signals.rise))
        if surprise < signals.surprise or weight < _LEAST:
            continue
        text = f"{seen:.0f} recipients in {span(SPANS[index])}, {normal:.0f} are normal, at most {top:.0f} so far"
        numbers = {"seen": seen, "normal": normal, "top": top, "ratio": ratio, "surprise": surprise, "seconds": SPANS[index]}
        yield Evidence("volume", Kind.VOLUME, weight, text, numbers)


def _ramp(look: Look) -> list[Evidence]:
    learning, seen = look.settings.learning, look.amounts[DAY][RECIPIENTS]
    allowed = learning.ramp_start * learning.ramp_growth ** max(0, int(look.days))
    if seen <= allowed:
        return []
    weight = min(look.settings.signals.ramp_most, 1 + math.log10(seen / allowed))
    text = f"{seen:.0f} recipients in 24 hours, {allowed:.0f} expected of a tenant known for {look.days:.0f} days"
    return [Evidence("ramp", Kind.VOLUME, weight, text, {"seen": seen, "allowed": allowed, "days": look.days})]
