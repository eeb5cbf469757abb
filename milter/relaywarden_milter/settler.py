"""settler - carry ledger operations to the store without ever holding up mail for longer than one store timeout.

Sessions queue their operations and wait; one thread commits all that is queued in one round trip (group commit).  While other
sessions are at work on a message it waits for them to come too, for PATIENCE at most; a session that is alone is served at
once.  In the ordinary case an operation is in the store before Postfix hears that its message was taken.

How it fails: with the store down, operations wait in memory, bounded, and are tried again every second; sessions then do not
wait at all.  Where one node of a Redis Cluster is down, only the operations that met it wait.  When too many wait, the oldest
are given up and counted; those messages stay charged as policyd charged them.  What still waits when the process is killed is
lost in the same way.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from relaywarden.errors import StoreUnavailableError
from relaywarden.ledger.operations import Ledger, Operation, PartlyUnavailableError
from relaywarden.logs import event
from relaywarden_milter import meters

log = logging.getLogger(__name__)
_BATCH = 128
_RETRY_SECONDS = 1.0
PATIENCE = 0.006  # seconds
_STEP = 0.001
_ENOUGH = 8  # operations; more in one round trip hardly makes each of them cheaper
CAPACITY = 20_000


class _Entry:
    """One operation on its way."""

    __slots__ = ("answered", "done", "operation")

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.done = False
        self.answered: threading.Lock | None = None  # locked while a session waits for this one

    def answer(self) -> None:
        """Let the session go on; once, whoever says it."""
        lock, self.answered = self.answered, None
        if lock is not None:
            try:
                lock.release()
            except RuntimeError:
                pass  # two said it at the same moment


class Settler:
    """One per process; safe to use from several threads."""

    def __init__(self, connect: Callable[[], Ledger], timeout: float, capacity: int = CAPACITY) -> None:
        self._connect = connect
        self._ledger: Ledger | None = None
        self._timeout = timeout
        self._waiting: deque[_Entry] = deque()
        self._capacity = capacity
        self._mutex = threading.Lock()  # guards the queue
        self._work = threading.Event()  # something is queued
        self._busy = False  # a batch is on its way
        self._down = False
        self._unsettled_shown = 0
        self.at_work: Callable[[], int] = lambda: 0  # how many sessions work on a message, those that wait here included
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="settler", daemon=True)

    def start(self) -> None:
        """Start the committing thread; after fork, with signals blocked."""
        self._thread.start()

    @property
    def settled(self) -> bool:
        """Nothing waits, and the store answered last time."""
        return not self._waiting and not self._busy and not self._down

    def submit(self, operations: Sequence[Operation]) -> bool:
        """Carry out the operations of one message; False: they wait for the store."""
        if not operations:
            return True
        answered = threading.Lock()
        answered.acquire()
        last = self._enqueue(operations, answered)
        if self._down:
            return False
        self._work.set()
        answered.acquire(timeout=self._timeout)
        return last.done

    def close(self) -> int:
        """One last attempt at what waits; how many operations are lost."""
        self._stopping.set()
        self._work.set()
        if self._thread.ident is not None:
            self._thread.join(self._timeout)
        if not self._thread.is_alive():
            self._commit_all()
            if self._ledger is not None:
                self._ledger.close()
        return len(self._waiting)

    def _enqueue(self, operations: Sequence[Operation], answered: threading.Lock) -> _Entry:
        """All of them, in order; the last one's entry."""
        entries = [_Entry(operation) for operation in operations]
        entries[-1].answered = answered
        with self._mutex:
            self._waiting.extend(entries)
            while len(self._waiting) > self._capacity:
                self._waiting.popleft().answer()
                meters.UNSETTLED_LOST.inc()
        return entries[-1]

    def _run(self) -> None:
        self._open()
        while not self._stopping.is_set():
            try:
                self._turn()
            except Exception:  # without this thread nothing would ever be settled again
                log.exception("settling failed in a way that nobody expected")
                self._stopping.wait(_RETRY_SECONDS)

    def _turn(self) -> None:
        if self._down:
            self._stopping.wait(_RETRY_SECONDS)
            self._commit_all()
            return
        self._work.wait()
        self._work.clear()
        until = time.monotonic() + PATIENCE
        while len(self._waiting) < min(self.at_work(), _ENOUGH) and time.monotonic() < until:
            time.sleep(_STEP)
        while not self._down and self._commit():
            pass

    def _open(self) -> None:
        """Connect now, so that the first message does not wait for it."""
        try:
            self._ledger = self._connect()
        except Exception as error:  # noqa: BLE001  # the first operation meets it again and says what it means
            event(log, logging.WARNING, "the store does not answer yet", error=error)

    def _commit_all(self) -> None:
        """Try everything that waits now, once."""
        left, carried_out, failed = len(self._waiting), 0, 0
        while left > 0 and (batch := self._take()):
            left -= len(batch)
            unavailable = self._apply(batch)
            carried_out += len(batch) - unavailable
            failed += unavailable
            if unavailable == len(batch):
                break
        if self._down and carried_out and not failed:
            event(log, logging.INFO, "the store answers again", settled=carried_out, waiting=len(self._waiting))
            self._down = False

    def _commit(self) -> bool:
        """Carry out the next batch, False when there is none."""
        batch = self._take()
        if batch:
            self._apply(batch)
        return bool(batch)

    def _take(self, most: int = _BATCH) -> list[_Entry]:
        with self._mutex:
            self._busy = bool(self._waiting)
            return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def _apply(self, batch: list[_Entry]) -> int:
        """Send one batch to the store; how many of it must wait."""
        waiting: list[_Entry] = []
        try:
            ledger = self._ledger or self._connect()
            self._ledger = ledger
            ledger.apply([entry.operation for entry in batch])
        except PartlyUnavailableError as error:
            results = zip(batch, error.results, strict=True)
            waiting = [entry for entry, result in results if isinstance(result, StoreUnavailableError)]
            self._put_back(waiting, error, self._waiting.extend)  # behind those that may have more luck
        except StoreUnavailableError as error:
            waiting = batch
            self._put_back(waiting, error, lambda entries: self._waiting.extendleft(reversed(list(entries))))
        except Exception:
            if len(batch) > 1:
                return self._apply_singly(batch)  # the others must not go with the one at fault
            # Not a matter of waiting: keeping it would block everything behind it for ever.
            log.exception("the ledger refused an operation of the milter; it is given up")
            meters.UNSETTLED_LOST.inc()
            batch[0].answer()
            batch = []
        self._busy = False
        for entry in set(batch).difference(waiting) if waiting else batch:
            entry.done = True
            entry.answer()
        if self._unsettled_shown or self._waiting:
            self._unsettled_shown = len(self._waiting)
            meters.UNSETTLED.set(self._unsettled_shown)
        return len(waiting)

    def _apply_singly(self, batch: list[_Entry]) -> int:
        """Send each of a batch alone, in order, until the store goes down; how many of it must wait."""
        with self._mutex:
            self._waiting.extendleft(reversed(batch))
        for carried_out in range(len(batch)):
            if self._apply(self._take(1)):
                return len(batch) - carried_out
        return 0

    def _put_back(self, entries: list[_Entry], error: StoreUnavailableError, put: Callable[[Iterable[_Entry]], None]) -> None:
        with self._mutex:
            put(entries)
        if not self._down:
            event(log, logging.ERROR, "the store does not answer; mail goes on and is settled later", error=error)
        self._down = True
        with self._mutex:
            everybody = list(self._waiting)
        for entry in everybody:
            entry.answer()
