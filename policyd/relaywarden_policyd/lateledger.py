"""lateledger - a ledger that may not open yet: tried again with every batch, so that a worker starts without its store.

SQLite is opened in a thread: creating the file, or waiting for its lock, must not hold up the requests of this worker.

How it fails: as long as the store does not open (no folder, no rights, locked), `apply` raises StoreUnavailableError; the
batcher decides without it and tries again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from relaywarden.config.settings import Settings
from relaywarden.errors import LedgerError
from relaywarden.ledger.connect import open_async_ledger
from relaywarden.ledger.operations import AsyncLedger, Operation, Result


class LateLedger:
    """An `AsyncLedger` by the settings, opened when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ledger: AsyncLedger | None = None
        self._opening: asyncio.Future[AsyncLedger] | None = None

    async def open(self) -> None:
        """Try to open it, so that the first request finds it open; if it does not open now, it may later."""
        try:
            await self._opened()
        except LedgerError:
            pass  # the first batch meets the same error, and is the one to tell of it

    async def apply(self, operations: Sequence[Operation]) -> list[Result]:
        """As the ledger itself."""
        ledger = self._ledger or await self._opened()
        return await ledger.apply(operations)

    async def close(self) -> None:
        """Close it if it was ever opened."""
        if self._opening is not None:
            await self.open()
        if self._ledger is not None:
            await self._ledger.close()

    async def _opened(self) -> AsyncLedger:
        """A caller that is cancelled leaves the attempt to the next one: it would hold the file open, known to nobody."""
        if self._opening is None:
            self._opening = asyncio.get_running_loop().run_in_executor(None, open_async_ledger, self._settings)
        try:
            self._ledger = await asyncio.shield(self._opening)
        finally:
            if self._opening.done():
                self._opening = None
        return self._ledger
