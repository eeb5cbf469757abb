"""signals - reasons for suspicion, each a small pure function of a Look."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from relaywarden_monitor.patterns.evidence import Evidence
from relaywarden_monitor.patterns.signals.content import bulk, score, unfamiliar
from relaywarden_monitor.patterns.signals.fanout import fanout
from relaywarden_monitor.patterns.signals.harm import harm
from relaywarden_monitor.patterns.signals.identity import identity
from relaywarden_monitor.patterns.signals.look import Look
from relaywarden_monitor.patterns.signals.reach import new_recipients, spread
from relaywarden_monitor.patterns.signals.volume import drip, refused, shape, volume

SIGNALS: tuple[Callable[[Look], Iterable[Evidence]], ...] = (
    volume, drip, shape, refused, new_recipients, spread, unfamiliar, bulk, score, fanout, identity, harm,
)  # fmt: skip


def collect(look: Look) -> list[Evidence]:
    """What all signals find."""
    return [item for signal in SIGNALS for item in signal(look)]
