"""route - which pool carries a message, which member of it, and the headers that say so to the MTA.

The pool is the tenant's, or `bulk` for mail sent in bulk where the plan says so, or `quarantine` for mail that is not
trusted.  Members take turns; one that warms up carries what its allowance admits, the rest goes to the others.  The header
(X-Virtual-MTA by default) names the member or the pool: PowerMTA obeys it, and Postfix through milter_header_checks; copies
from clients were deleted before (`control`).

Known limits: each worker counts its own turns.  With `target: pool` PowerMTA chooses the member, so warm-up is left to it.
A held message that is released by `postsuper -r` passes Postfix again without us and loses its route; release by `-H`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from relaywarden import pools
from relaywarden.config.settings import OnFull, Settings
from relaywarden.errors import RelaywardenError
from relaywarden.pools import Member, Pool

QUARANTINE = "quarantine"  # the pool of mail that is not trusted
BULK = "bulk"


class Admission(Protocol):
    """What warm-up and operator allow (`allowance`)."""

    def admits(self, member: str, recipients: Sequence[str]) -> bool:
        """May this member carry mail for these recipients now?  Spends its allowance where it warms up."""
        ...

    def borrows(self, member: str, recipients: Sequence[str]) -> bool:
        """The same, and worth asking the ledger for: nobody else of the pool can carry it."""
        ...

    def largest(self, members: Sequence[str], recipients: Sequence[str]) -> str | None:
        """The one with the largest cap; None: none may send at all."""
        ...


class FullError(RelaywardenError):
    """Every member of the pool is paused, or warms up and has reached its cap for these recipients."""


@dataclass(frozen=True, slots=True)
class Route:
    """The choice, and the header that carries it."""

    pool: str
    member: str
    header: str
    value: str


class Router:
    """The pools of one configuration and the turns of this process."""

    def __init__(self, settings: Settings) -> None:
        self._pools = pools.build(settings.pools)
        self._send_when_full = {name for name, pool in settings.pools.items() if pool.when_full is OnFull.SEND}
        self._header = settings.route.header
        self._by_member = settings.route.target == "member"
        self._turns = {name: itertools.count(os.getpid()) for name in self._pools}

    def has(self, pool: str) -> bool:
        """Is there a pool of this name?"""
        return pool in self._pools

    def route(self, name: str, recipients: Sequence[str], admission: Admission) -> Route | None:
        """A route through the pool `name`; None: no such pool, nothing is tagged; raises FullError."""
        pool = self._pools.get(name)
        if pool is None:
            return None
        if not self._by_member:
            return Route(name, "", self._header, name)
        turn = next(self._turns[name])  # next() of a count is atomic under the GIL
        member = pool.member(turn)
        if not admission.admits(member.name, recipients):
            member = self._another(pool, turn, recipients, admission)
        return Route(name, member.name, self._header, member.name)

    def _another(self, pool: Pool, turn: int, recipients: Sequence[str], admission: Admission) -> Member:
        """The next member in turn that may carry it."""
        refused = pool.member(turn)
        others = dict.fromkeys(pool.member(turn + step) for step in range(1, len(pool.order)))
        for member in others:
            if member != refused and admission.admits(member.name, recipients):
                return member
        for member in dict.fromkeys((refused, *others)):
            if admission.borrows(member.name, recipients):
                return member
        by_name = {member.name: member for member in pool.members}
        name = admission.largest(list(by_name), recipients)
        if name is None:
            raise FullError(f"no member of pool {pool.name} may carry this now: paused, or its warm-up has not begun")
        if pool.name not in self._send_when_full:
            raise FullError(f"no member of pool {pool.name} may carry this now: no room under the caps of warm-up")
        return by_name[name]
