"""batch - all operations of one event-loop turn go to the ledger together: one round trip for all connections.

While a batch is under way the next one gathers, so that the load itself makes the batches larger.  A caller hands in an
operation and a callback; the callback gets the result, and whether it was decided without the ledger.

How it fails: nobody waits longer than `patience` for the store.  A batch that is late is decided by the limiter, and what
that admits is noted in the journal; the batch itself goes on until the ledger's timeout.  From then on the breaker is open:
every request is decided locally at once, and the store is tried with a few operations at a time until a batch comes back in
time.  Then the journal is charged to the ledger, a small batch of it after each batch of requests, so that neither a long
journal holds up verdicts nor a busy hour the journal.

Known limits: a late batch may have been carried out by the store, and refused what the limiter admitted: the journal charges
it then; or admitted what the limiter put off: that recipient stays charged until DATA or the milter corrects it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import cast

from relaywarden.errors import LedgerError, StoreUnavailableError
from relaywarden.ledger.operations import AsyncLedger, Decision, Operation, PartlyUnavailableError, Result, Status
from relaywarden.logs import event
from relaywarden_policyd.breaker import Breaker
from relaywarden_policyd.journal import Journal, charges
from relaywarden_policyd.limiter import LATER, LastSeen
from relaywarden_policyd.meters import Meters

log = logging.getLogger(__name__)
MAX_BATCH = 256
PROBE = 8  # operations that may wait for a store that was down
MAX_WAITING = 4096
LAG_SECONDS = 0.005

Done = Callable[[Result, bool], None]


class _Waiting:
    """One operation on its way."""

    __slots__ = ("done", "operation")

    def __init__(self, operation: Operation, done: Done) -> None:
        self.operation = operation
        self.done: Done | None = done

    def conclude(self, result: Result, local: bool) -> None:
        """Give the result, unless one was given before."""
        done, self.done = self.done, None
        if done is not None:
            done(result, local)


class Batcher:
    """Collects operations and applies them; one for each worker."""

    def __init__(self, ledger: AsyncLedger, limiter: LastSeen, meters: Meters, timeout: float, patience: float) -> None:
        self._ledger, self._limiter, self._meters = ledger, limiter, meters
        self._timeout, self._patience = timeout, patience
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Waiting] = []
        self._since = 0.0  # when the first of those that wait came
        self._task: asyncio.Task[None] | None = None
        self._watching: asyncio.TimerHandle | None = None
        self._overdue = False  # the batch under way has had its time
        self._scheduled = False
        self._journal = Journal()
        self._journal_is_next = False
        self._breaker = Breaker(meters)

    @property
    def full(self) -> bool:
        """Whether so much waits that callers should stop reading requests."""
        return len(self._waiting) >= MAX_WAITING

    def submit(self, operation: Operation, done: Done) -> None:
        """Have `operation` carried out; `done(result, local)` is called later, once, and never from within."""
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append(_Waiting(operation, done))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._start)

    def tick(self) -> None:
        """From time to time: try a store that was down although nobody asks, so that the journal is charged."""
        if self._journal and self._task is None and not self._scheduled:
            self._start()

    async def close(self) -> None:
        """Wait for what is under way, and charge what the journal holds if the store answers."""
        while self._task or self._waiting or (self._journal and not self._breaker.open):
            await asyncio.wait({self._task}) if self._task else await asyncio.sleep(0)
            if self._task is None:
                self._start()
        if self._journal:
            event(
                log,
                logging.ERROR,
                "stopping with mail admitted that the store was never told of",
                operations=len(self._journal),
            )

    def _start(self) -> None:
        self._scheduled = False
        if self._breaker.open:
            if self._task is None and self._breaker.may_try:
                self._launch(self._take(PROBE))
            self._decide_locally(self._take(len(self._waiting)))
        elif self._task is None and self._journal and (self._journal_is_next or not self._waiting):
            self._launch([])
        elif self._task is None and self._waiting:
            self._launch(self._take(MAX_BATCH))

    def _take(self, count: int) -> list[_Waiting]:
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken

    def _launch(self, batch: list[_Waiting]) -> None:
        """A batch of requests; where there is none, one of the journal."""
        self._journal_is_next = bool(batch)
        self._task = self._loop.create_task(self._apply(batch) if batch else self._reconcile())
        self._task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a batch ended by an error", exc_info=error)
        if self._waiting or (self._journal and not self._breaker.open):
            self._start()

    async def _apply(self, batch: list[_Waiting]) -> None:
        begun = time.monotonic()
        waited = begun - self._since
        # With more requests than we can take they wait for us rather than the store, which must have its time even then.
        patience = max(self._patience - waited, self._patience / 2)
        try:
            results = await self._ask([item.operation for item in batch], batch, patience)
        except PartlyUnavailableError as error:
            self._partly_failed(batch, error)
            return
        except (LedgerError, asyncio.CancelledError) as error:
            self._failed(error)
            self._decide_locally(batch)
            return
        except BaseException:
            # A fault of ours must not leave Postfix waiting; `_finished` logs it with its traceback.
            self._decide_locally(batch)
            raise
        self._breaker.answered(not self._overdue, len(self._journal))
        self._meters.batch(len(batch), time.monotonic() - begun)
        limiter = self._limiter
        for item, result in zip(batch, results, strict=True):
            if isinstance(result, Decision) and (result.status is Status.SUSPENDED or limiter.suspended):
                limiter.learn(item.operation, result)
            item.conclude(result, False)

    async def _reconcile(self) -> None:
        """Charge a batch of the journal; its results are only what is already so."""
        batch = self._journal.take()
        try:
            # Those who came meanwhile wait behind this batch, so it is watched like one of requests.
            await self._ask(charges(batch), [], self._patience)
        except PartlyUnavailableError as error:
            pairs = zip(batch, error.results, strict=True)
            self._journal.put_back([entry for entry, result in pairs if isinstance(result, StoreUnavailableError)])
            self._failed(error)
        except (LedgerError, asyncio.CancelledError) as error:
            self._journal.put_back(batch)
            self._failed(error)
        except BaseException:
            self._journal.put_back(batch)
            raise
        else:
            self._breaker.answered(not self._overdue, len(self._journal))
            self._meters.unreconciled(len(self._journal))

    async def _ask(self, operations: Sequence[Operation], batch: list[_Waiting], patience: float) -> list[Result]:
        """The ledger's results; `batch` is decided without them when they are not back within `patience`."""
        task = cast("asyncio.Task[None]", asyncio.current_task())
        # The ledger has a timeout of its own; this one holds whatever it does.  asyncio.wait_for would cost a second task.
        alarm = self._loop.call_later(self._timeout, task.cancel)
        self._overdue = False
        self._watch(batch, patience)
        try:
            return await self._ledger.apply(operations)
        finally:
            alarm.cancel()
            if self._watching is not None:
                self._watching.cancel()

    def _watch(self, batch: list[_Waiting], seconds: float) -> None:
        self._watching = self._loop.call_later(seconds, self._late, batch, self._loop.time() + seconds)

    def _late(self, batch: list[_Waiting], due: float) -> None:
        """The store has had its time: nobody waits for it any longer."""
        if self._loop.time() - due > LAG_SECONDS:
            # It was us who had no time: the answer may lie in the socket's buffer.
            self._watch(batch, LAG_SECONDS)
            return
        self._overdue = True
        self._breaker.late(f"no answer within {self._patience * 1000:g} ms")
        self._decide_locally(batch)
        self._decide_locally(self._take(len(self._waiting)))

    def _partly_failed(self, batch: list[_Waiting], error: PartlyUnavailableError) -> None:
        """One node of a cluster is down: its tenants are decided locally, all others as ever."""
        self._breaker.answered(True, len(self._journal))
        self._breaker.partly_failed(str(error))
        for item, result in zip(batch, error.results, strict=True):
            if isinstance(result, StoreUnavailableError):
                self._decide_locally([item])
            else:
                item.conclude(result, False)

    def _failed(self, error: BaseException) -> None:
        self._breaker.failed(str(error) or f"no answer within {self._timeout:g} s")
        self._decide_locally(self._take(len(self._waiting)))

    def _decide_locally(self, batch: list[_Waiting]) -> None:
        for item in batch:
            if item.done is None:
                continue
            decision = LATER if self._journal.full else self._limiter.decide(item.operation)
            if decision.status in (Status.ADMITTED, Status.HELD):
                self._journal.add(item.operation)
            item.conclude(decision, True)
        self._meters.unreconciled(len(self._journal))
