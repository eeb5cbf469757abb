"""What the ledger's tests share: a store with its clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from relaywarden.config.settings import Settings
from relaywarden.ledger.connect import open_async_ledger, open_ledger
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


def settings(url: str, timeout: str = "5s") -> Settings:
    """The configuration of a ledger and nothing else."""
    return Settings.model_validate({"store": url, "ledger": {"timeout": timeout, "ticket_ttl": f"{TICKET_TTL_MS // 1000}s"}})


class AsyncInStep:
    """A `Ledger` on top of an `AsyncLedger` that has an event loop to itself, so that one contract tries both."""

    def __init__(self, url: str, timeout: str = "5s") -> None:
        self._loop = asyncio.new_event_loop()
        self._ledger = open_async_ledger(settings(url, timeout))
        self._names = open_ledger(settings(url, timeout))  # only the blocking ledger lists and searches

    def apply(self, operations: Sequence[Operation]) -> list[Result]:
        return self._loop.run_until_complete(self._ledger.apply(operations))

    def tenants(self) -> list[str]:
        return self._names.tenants()

    def messages(self, queue_id: str) -> list[tuple[str, bytes]]:
        return self._names.messages(queue_id)

    def close(self) -> None:
        self._loop.run_until_complete(self._ledger.close())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self._names.close()


StoreMaker = Callable[[], Store]
