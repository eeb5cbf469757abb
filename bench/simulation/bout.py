"""bout - something out of the ordinary for a while, on top of a tenant's ordinary mail; and all that a tenant will do.

Plain values.  Part of the SIMULATION.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from simulation.flow import Flow
from simulation.profile import Profile

MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Bout:
    """So many recipients within a while; times are seconds since 1970."""

    label: str
    begin: float
    seconds: float
    recipients: float
    flow: Flow
    pattern: tuple[float, ...] = (1.0,)  # how they are spread over equal parts of the while
    step: float = MINUTE  # length of the slices, seconds
    ordinary: float = 1.0  # a factor on the ordinary mail meanwhile: an outage stops it
    refused: float = 0.0  # recipients that limits refuse meanwhile
    lag: float = 0.0  # seconds until outcomes are known
    misuse: bool = False
    granted: bool = False  # the tenant asked before, and a person allowed it

    @property
    def end(self) -> float:
        """When it is over."""
        return self.begin + self.seconds

    def part(self, begin: float, end: float) -> float:
        """The share of it that falls into this while."""
        width, total = self.seconds / len(self.pattern), sum(self.pattern)
        share = 0.0
        for number, weight in enumerate(self.pattern):
            first = self.begin + number * width
            overlap = min(end, first + width) - max(begin, first)
            if overlap > 0:
                share += weight / total * overlap / width
        return share


@dataclass(frozen=True, slots=True)
class Plan:
    """All that one tenant will do."""

    profile: Profile
    flows: list[tuple[float, Flow]]  # what its ordinary mail is like from then on, in the order of time
    bouts: list[Bout] = field(default_factory=list)  # in the order of time

    @property
    def misuse(self) -> Bout | None:
        """The first bout of misuse."""
        return next((bout for bout in self.bouts if bout.misuse), None)

    @property
    def attack_end(self) -> float:
        """When the last bout of misuse is over."""
        return max((bout.end for bout in self.bouts if bout.misuse), default=0.0)
