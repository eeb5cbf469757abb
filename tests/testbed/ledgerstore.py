"""What the ledger's tests share: a store with its clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from relaywarden.ledger.operations import Ledger, Operation, Result
from testbed.fakeclock import FakeClock

START_MS = 1_795_507_200_000  # 2026-11-24 08:00 UTC
TICKET_TTL_MS = 3_600_000


@dataclass
class Store:
    """A ledger and the clock it runs by."""

    ledger: Ledger
    clock: FakeClock

    def do(self, operation: Operation) -> Result:
        (result,) = self.ledger.apply([operation])
        return result


StoreMaker = Callable[[], Store]
