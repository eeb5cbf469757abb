"""lateledger - a ledger that may not open yet: tried again with every batch, so that a worker starts without its store.

How it fails: as long as the store does not open (no folder, no rights, locked), `apply` raises StoreUnavailableError; the
batcher decides without it and tries again.  Known limit: opening SQLite is done in the event loop; a file that is locked
just then holds up the worker for the ledger's timeout.
"""

from __future__ import annotations

from collections.abc import Sequence

from relaywarden.config.settings import Settings
from relaywarden.ledger.connect import open_async_ledger
from relaywarden.ledger.operations import AsyncLedger, Operation, Result


class LateLedger:
    """An `AsyncLedger` by the settings, opened when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ledger: AsyncLedger | None = None

    async def apply(self, operations: Sequence[Operation]) -> list[Result]:
        """As the ledger itself."""
        if self._ledger is None:
            self._ledger = open_async_ledger(self._settings)
        return await self._ledger.apply(operations)

    async def close(self) -> None:
        """Close it if it was ever opened."""
        if self._ledger is not None:
            await self._ledger.close()
