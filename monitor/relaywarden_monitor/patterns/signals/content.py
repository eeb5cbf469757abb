"""content - what the messages say: unlike anything so far, like marketing, like spam.  Pure.

List-Unsubscribe or any one header convicts nobody: only the mean of the scores that the milter gave whole messages counts, and
only where it is joined by a fan-out or rose above the tenant's own.
"""

from __future__ import annotations

from collections.abc import Iterator

from relaywarden_monitor.patterns import chance
from relaywarden_monitor.patterns.evidence import Evidence, Kind, span
from relaywarden_monitor.patterns.signals.look import Look, allowance, heaviest
from relaywarden_monitor.patterns.windows import BULK, GROUPED, HOUR, MESSAGES, RECIPIENTS, SCORE, SCORED, SPANS, UNFAMILIAR

_RISE = 1.5
_DECADES = 6.0
_LEAST = 0.3
_PER_TENTH = 10.0  # weight for each 1.0 of score above `bulk_from`
_FEWEST_MESSAGES = 20
_FEWEST_SCORED = 20


def unfamiliar(look: Look) -> list[Evidence]:
    """The share of recipients of templates that the tenant has not used before."""
    return heaviest(_unfamiliar(look)) if look.settled else []


def bulk(look: Look) -> list[Evidence]:
    """The mean content score of all mail, where it is that of marketing and has risen."""
    return heaviest(_bulk(look))


def score(look: Look) -> Iterator[Evidence]:
    """rspamd's mean score against the usual mean."""
    signals, amounts = look.settings.signals, look.amounts[HOUR]
    if amounts[SCORED] < _FEWEST_SCORED:
        return
    now, usual = amounts[SCORE] / amounts[SCORED], look.record.usual.share("score")
    rise = now - usual
    if rise >= signals.score_rise:
        weight = min(signals.score_most, rise / (2 * signals.score_rise))
        text = f"rspamd's mean score is {now:.1f}, usually {usual:.1f}"
        yield Evidence("score", Kind.CONTENT, weight, text, {"score": now, "usual": usual, "messages": amounts[SCORED]})


def _unfamiliar(look: Look) -> Iterator[Evidence]:
    signals, usual = look.settings.signals, look.record.usual.share("unfamiliar")
    most = allowance(usual, _RISE)
    if most is None:
        return
    for index in look.busy(signals.floor):
        part, whole = look.amounts[index][UNFAMILIAR], look.amounts[index][GROUPED]
        if part < signals.floor or part <= most * whole:
            continue
        weight = min(signals.template_most, chance.of_share(part, whole, most) / _DECADES)
        if weight >= _LEAST:
            text = f"{part:.0f} of {whole:.0f} recipients in {span(SPANS[index])} got messages of an unknown template"
            yield Evidence("unfamiliar", Kind.CONTENT, weight, text, {"part": part, "whole": whole, "usual": usual})


def _bulk(look: Look) -> Iterator[Evidence]:
    signals = look.settings.signals
    for index in look.busy(signals.floor_volume):
        amounts = look.amounts[index]
        if amounts[MESSAGES] < _FEWEST_MESSAGES:
            continue
        now = amounts[BULK] / amounts[MESSAGES]
        weight = min(signals.bulk_most, (now - signals.bulk_from) * _PER_TENTH)
        if weight < 1:
            continue
        usual = look.record.usual.share("bulk")
        if now >= usual + signals.bulk_rise:
            text = f"the mean content score in {span(SPANS[index])} is {now:.2f}, usually {usual:.2f} (1 is marketing)"
            yield Evidence("bulk", Kind.CONTENT, weight, text, {"score": now, "usual": usual, "seen": amounts[RECIPIENTS]})
