"""route - which pool and member carries a message, written into the route header.

The header (X-Virtual-MTA by default) is obeyed by PowerMTA as it is and by Postfix through milter_header_checks; copies from
clients were deleted before (`control`).  Members take turns; each worker starts at another place.

Known limit: a held message that is released by `postsuper -r` passes Postfix again without us and loses its route;
release by `postsuper -H`.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass

from relaywarden import pools
from relaywarden.config.settings import Settings
from relaywarden.tenants import Tenant

QUARANTINE = "quarantine"  # the pool of mail that is not trusted


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
        self._header = settings.route.header
        self._by_member = settings.route.target == "member"
        self._turns = {name: itertools.count(os.getpid()) for name in self._pools}

    def route(self, tenant: Tenant, *, divert: bool = False) -> Route | None:
        """The tenant's route, or that of the quarantine pool; None: no such pool, nothing is tagged."""
        pool = self._pools.get(QUARANTINE if divert else tenant.pool or "")
        if pool is None:
            return None
        member = pool.member(next(self._turns[pool.name]))  # next() of a count is atomic under the GIL
        return Route(pool.name, member.name, self._header, member.name if self._by_member else pool.name)
