"""journal - what was admitted without the ledger and must still be charged there.

Each entry is the operation itself and its time: it is charged even past a limit, since the mail is on its way, unless the
milter has meanwhile counted the message, which is why the ledger is told how long ago it was admitted.  Operations carry
their ticket, so what the store had carried out after all (its answer was late) is not charged twice.  Entries go to the
ledger in order, in batches, once it answers again.

How it fails: the journal is bounded; when it is full nothing more may be admitted without the ledger (`full`).  Known limit:
it is in memory: what a worker had not yet reconciled when it was killed is never charged.
"""

from __future__ import annotations

import time
from collections import deque

from relaywarden.ledger.operations import Charge, Operation, Reconcile

CAPACITY = 50_000
BATCH = 64


class Journal:
    """Of one worker."""

    def __init__(self) -> None:
        self._entries: deque[tuple[float, Operation]] = deque()  # (when it was admitted, what)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def full(self) -> bool:
        """Whether no more may be admitted that could not be charged later."""
        return len(self._entries) >= CAPACITY

    def add(self, operation: Operation) -> None:
        """Note what was admitted."""
        self._entries.append((time.monotonic(), operation))

    def take(self) -> list[tuple[float, Operation]]:
        """The next batch, for `charges` and, if it was not carried out, `put_back`."""
        return [self._entries.popleft() for _ in range(min(BATCH, len(self._entries)))]

    def put_back(self, batch: list[tuple[float, Operation]]) -> None:
        """The batch was not carried out."""
        self._entries.extendleft(reversed(batch))


def charges(batch: list[tuple[float, Operation]]) -> list[Operation]:
    """The operations of a batch as the ledger must take them: with their age."""
    now = time.monotonic()
    return [
        operation._replace(late_ms=int(1000 * (now - admitted)) + 1) if isinstance(operation, Charge | Reconcile) else operation
        for admitted, operation in batch
    ]
