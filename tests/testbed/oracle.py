"""The plain oracle of the ledger: a list of events, summed anew for every question.

It knows nothing of slots.  What it holds a store to are the promises themselves: an admitted request never makes more than
the limit in the window that ends now, and a refused one would have made more than the limit in a window longer by W/60.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from relaywarden.ledger.operations import Balance
from relaywarden.ledger.window import PARTS
from relaywarden.limits import Meter


@dataclass(eq=False)
class Event:
    """One charge.  `late_ms`: the latest clock reading so far, up to which a stepped clock may have moved it."""

    meter: Meter
    amount: int
    at_ms: int
    late_ms: int
    granted: bool = False  # it went to a grant, so no window knows of it


@dataclass
class Grant:
    """So much of one meter beyond the limits."""

    amount: int
    until_ms: int
    used: int = 0

    def room(self, amount: int, now_ms: int) -> bool:
        return now_ms < self.until_ms and self.used + amount <= self.amount


@dataclass
class OracleTicket:
    """What one transaction was charged."""

    message: Event | None = None
    recipients: dict[str, Event] = field(default_factory=dict)
    sizes: list[Event] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    phase: str = "open"

    @property
    def size(self) -> int:
        return sum(event.amount for event in self.sizes)


class Oracle:
    """All events of one tenant."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.tickets: dict[str, OracleTicket] = {}
        self.grants: dict[Meter, Grant] = {}
        self.ghosts: list[Event] = []
        self.latest_ms = 0

    def see(self, now_ms: int) -> None:
        self.latest_ms = max(self.latest_ms, now_ms)

    def add(self, meter: Meter, amount: int, now_ms: int, granted: bool = False) -> Event:
        event = Event(meter, amount, now_ms, self.latest_ms, granted)
        if granted:
            self.grants[meter].used += amount
        else:
            self.events.append(event)
        return event

    def drop(self, event: Event, amount: int | None = None) -> None:
        part = event.amount if amount is None else min(amount, event.amount)
        if event.late_ms > event.at_ms and not event.granted:
            # Charged while the clock had stepped back, it was booked later than it says: a refund may miss it, and it then
            # expires by itself, late rather than early.
            self.ghosts.append(Event(event.meter, part, event.at_ms, event.late_ms))
        if event.granted:
            grant = self.grants.get(event.meter)
            if grant is not None and grant.used >= part:
                grant.used -= part
        elif part == event.amount:
            self.events.remove(event)
        event.amount -= part

    def certain(self, balance: Balance, now_ms: int) -> int:
        """Used for certain: charged within the window.  What has left it does not come back when the clock steps back."""
        start = max(now_ms, self.latest_ms) - balance.limit.window_ms
        return sum(e.amount for e in self.events if e.meter is balance.limit.meter and e.at_ms > start)

    def possible(self, balance: Balance, now_ms: int) -> int:
        """Used at the most: charged within a window longer by W/60, by the latest time it may have been booked at."""
        start = now_ms - balance.limit.window_ms - balance.limit.window_ms / PARTS
        counted = [*self.events, *self.ghosts]
        return sum(e.amount for e in counted if e.meter is balance.limit.meter and e.late_ms >= start - 1)
