"""pools - which member of a pool carries the next message.  Pure: the caller brings the turn.

Members take turns in proportion to their weights, spread evenly (smooth weighted round robin, as in nginx): weights 3 and 1
give a, a, b, a and not a, a, a, b.  Today all weights are equal; warm-up will change them.

Known limit: each worker process counts its own turns, so over all workers the shares are right on average, not exactly.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from relaywarden.config.settings import PoolSettings

_RESOLUTION = 1_000  # longest cycle of turns that is laid out in advance


@dataclass(frozen=True, slots=True)
class Member:
    """One source address of a pool: a Postfix transport or a PowerMTA virtual MTA."""

    name: str
    ip: str
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Pool:
    """A set of members and the order in which they take turns."""

    name: str
    members: tuple[Member, ...]
    order: tuple[Member, ...]

    @classmethod
    def of(cls, name: str, members: Sequence[Member]) -> Pool:
        """Lay out one cycle of turns; a member of weight 0 gets none, unless all have none."""
        return cls(name, tuple(members), _cycle(members))

    def member(self, turn: int) -> Member:
        """Whose turn it is."""
        return self.order[turn % len(self.order)]


def build(settings: Mapping[str, PoolSettings]) -> dict[str, Pool]:
    """The pools of a configuration."""
    return {
        name: Pool.of(name, [Member(member, values.ip) for member, values in pool.members.items()])
        for name, pool in settings.items()
    }


def _cycle(members: Sequence[Member]) -> tuple[Member, ...]:
    """Each member's k-th turn of w falls due at (2k+1)/2w of the cycle; the earliest due goes first."""
    willing = [member for member in members if member.weight > 0] or [Member(m.name, m.ip) for m in members]
    total = sum(member.weight for member in willing)
    scale = Fraction(min(_RESOLUTION, total), total)
    turns = [(index, max(1, round(member.weight * scale))) for index, member in enumerate(willing)]
    due = [(Fraction(1, 2 * count), index, count) for index, count in turns]
    heapq.heapify(due)
    order = []
    for _ in range(sum(count for _, count in turns)):
        at, index, count = due[0]
        order.append(willing[index])
        heapq.heapreplace(due, (at + Fraction(1, count), index, count))
    return tuple(order)
