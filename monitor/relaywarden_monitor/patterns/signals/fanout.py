"""fanout - one template to far more recipients at a time than it ever went to; and whether it reads like marketing.  Pure.

Postmark defines a broadcast as "the same message to many recipients simultaneously".  Receipts and one-time passwords are many
alike too, but come at the rate that is usual for them.  So two kinds of evidence come from here: FANOUT for how it is sent,
CONTENT for what it says; only both together make a broadcast.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from relaywarden_monitor.patterns.evidence import Evidence, Kind
from relaywarden_monitor.patterns.settings import SignalSettings
from relaywarden_monitor.patterns.signals.look import Look
from relaywarden_monitor.patterns.templates import Template

_RISE = 2.0  # times what is usual for the template
_PER_TENTH = 10.0


def fanout(look: Look) -> Iterator[Evidence]:
    """Of the template that stands out most, and of the worst content among those that stand out."""
    signals = look.settings.signals
    out = [found for key, template in look.templates if (found := _outstanding(key, template, look.now, signals))]
    if not out:
        return
    ratio, _, seen, key, template = max(out, key=lambda item: item[0])
    weight = min(signals.fanout_most, 1 + math.log10(ratio / _RISE))
    text = f"one template to {seen:.0f} recipients within 3 hours, at most {template.usual:.0f} so far"
    numbers = {"fingerprint": float(key), "seen": seen, "usual": template.usual, "ratio": ratio}
    yield Evidence("fanout", Kind.FANOUT, weight, text, numbers)
    ratio, mean, seen, key, _ = max(out, key=lambda item: item[1])
    if seen >= signals.bulk_sample and mean > signals.bulk_from:
        weight = min(signals.bulk_most, (mean - signals.bulk_from) * _PER_TENTH)
        text = f"content like marketing: {mean:.2f} on average (1 is marketing) in a template to {seen:.0f} recipients"
        yield Evidence("broadcast", Kind.CONTENT, weight, text, {"fingerprint": float(key), "score": mean, "seen": seen})


def _outstanding(
    key: int, template: Template, now: float, signals: SignalSettings
) -> tuple[float, float, float, int, Template] | None:
    """(times what is usual, mean score, recipients, ...) of a template that goes to many more than usual."""
    seen = template.recent(now)
    if seen < signals.fanout_floor:
        return None
    ratio = seen / (template.usual + signals.fanout_floor)
    return (ratio, template.mean(), seen, key, template) if ratio >= _RISE else None
