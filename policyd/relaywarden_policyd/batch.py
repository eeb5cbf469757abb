"""batch - all operations of one event-loop turn go to the ledger together: one round trip for all connections.

While a batch is under way the next one gathers, so that the load itself makes the batches larger.  A caller hands in an
operation and a callback; the callback gets the result, and whether it was decided without the ledger.

How it fails: when the store does not answer (StoreUnavailableError, or nothing within the ledger's timeout), the batch and
everything that waits behind it is decided by the `Limiter`.  From then on the store is tried with one batch at a time,
`RETRY_SECONDS` apart, and everything else is decided at once: a dead store costs a request nothing, and a hung one only
the requests of the trying batch.  Each direction is logged once.

Known limits: a batch that timed out may have been carried out by the store; its requests are then charged although they
were decided without it (never the other way round, and never twice, as a resent request finds its ticket).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import NamedTuple, cast

from relaywarden.errors import LedgerError, StoreUnavailableError
from relaywarden.ledger.operations import AsyncLedger, Decision, Operation, PartlyUnavailableError, Result
from relaywarden.logs import event
from relaywarden_policyd.limiter import Limiter
from relaywarden_policyd.meters import Meters

log = logging.getLogger(__name__)
MAX_BATCH = 512
MAX_IN_FLIGHT = 1
PROBE = 8  # operations that may wait for a store that was down
MAX_WAITING = 4096
RETRY_SECONDS = 0.25
PARTLY_SECONDS = 60.0  # between two log lines about one node of a cluster

Done = Callable[[Result, bool], None]


class _Waiting(NamedTuple):
    operation: Operation
    done: Done


class Batcher:
    """Collects operations and applies them; one for each worker."""

    def __init__(self, ledger: AsyncLedger, limiter: Limiter, meters: Meters, timeout: float) -> None:
        self._ledger, self._limiter, self._meters, self._timeout = ledger, limiter, meters, timeout
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Waiting] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._down = False
        self._partly_quiet_until = 0.0
        self._retry_at = 0.0
        meters.store_up(True)

    @property
    def full(self) -> bool:
        """Whether so much waits that callers should stop reading requests."""
        return len(self._waiting) >= MAX_WAITING

    def submit(self, operation: Operation, done: Done) -> None:
        """Have `operation` carried out; `done(result, local)` is called later, once, and never from within."""
        self._waiting.append(_Waiting(operation, done))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._start)

    async def close(self) -> None:
        """Wait for what is under way."""
        while self._tasks or self._waiting:
            await asyncio.wait(self._tasks) if self._tasks else await asyncio.sleep(0)

    def _start(self) -> None:
        self._scheduled = False
        if self._down:
            if not self._tasks and time.monotonic() >= self._retry_at:
                self._launch(PROBE)
            self._decide_locally(self._take(len(self._waiting)))
        while self._waiting and len(self._tasks) < MAX_IN_FLIGHT:
            self._launch(MAX_BATCH)

    def _launch(self, count: int) -> None:
        task = self._loop.create_task(self._apply(self._take(count)))
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _take(self, count: int) -> list[_Waiting]:
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a batch ended by an error", exc_info=error)
        if self._waiting:
            self._start()

    async def _apply(self, batch: list[_Waiting]) -> None:
        begun = time.monotonic()
        task = cast("asyncio.Task[None]", asyncio.current_task())
        # The ledger has a timeout of its own; this one holds whatever it does.  asyncio.wait_for would cost a second task.
        alarm = self._loop.call_later(self._timeout, task.cancel)
        try:
            results = await self._ledger.apply([item.operation for item in batch])
        except PartlyUnavailableError as error:
            self._partly_failed(batch, error)
            return
        except (LedgerError, asyncio.CancelledError) as error:
            self._store_failed(str(error) or f"no answer within {self._timeout:g} s")
            self._decide_locally(batch)
            return
        except BaseException:
            # A fault of ours must not leave Postfix waiting; `_finished` logs it with its traceback.
            self._decide_locally(batch)
            raise
        finally:
            alarm.cancel()
        self._store_answered()
        self._meters.batch(len(batch), time.monotonic() - begun)
        for item, result in zip(batch, results, strict=True):
            item.done(result, False)

    def _partly_failed(self, batch: list[_Waiting], error: PartlyUnavailableError) -> None:
        """One node of a cluster is down: its tenants are decided locally, all others as ever."""
        self._store_answered()
        self._meters.store_failed()
        if time.monotonic() >= self._partly_quiet_until:  # batches without its tenants succeed: "again" would mean nothing
            self._partly_quiet_until = time.monotonic() + PARTLY_SECONDS
            event(log, logging.ERROR, "a part of the store does not answer, deciding without it", reason=str(error))
        for item, result in zip(batch, error.results, strict=True):
            if isinstance(result, StoreUnavailableError):
                self._decide_locally([item])
            else:
                item.done(result, False)

    def _store_answered(self) -> None:
        if self._down:
            self._down = False
            self._meters.store_up(True)
            event(log, logging.WARNING, "the store answers again")

    def _store_failed(self, reason: str) -> None:
        self._retry_at = time.monotonic() + RETRY_SECONDS
        self._meters.store_failed()
        if not self._down:
            self._down = True
            self._meters.store_up(False)
            event(log, logging.ERROR, "the store does not answer, deciding without it", reason=reason)
        self._decide_locally(self._take(len(self._waiting)))

    def _decide_locally(self, batch: list[_Waiting]) -> None:
        for item in batch:
            decision: Decision = self._limiter.decide(item.operation)
            item.done(decision, True)
