"""journal - what was admitted without the ledger and must still be charged there.

Each entry is the operation itself, with an account marked late: it is charged even past a limit, since the mail is on
its way.  Operations carry their ticket, so what the store had carried out after all (its answer was late) is not charged
twice.  Entries go to the ledger in order, in batches, once it answers again.

How it fails: the journal is bounded; when it is full nothing more may be admitted without the ledger (`full`).  Known limit:
it is in memory: what a worker had not yet reconciled when it was killed is never charged.
"""

from __future__ import annotations

import dataclasses
from collections import deque

from relaywarden.ledger.operations import Charge, Operation, Reconcile

CAPACITY = 50_000
BATCH = 128


class Journal:
    """Of one worker."""

    def __init__(self) -> None:
        self._entries: deque[Operation] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def full(self) -> bool:
        """Whether no more may be admitted that could not be charged later."""
        return len(self._entries) >= CAPACITY

    def add(self, operation: Operation) -> None:
        """Note what was admitted."""
        if isinstance(operation, Charge | Reconcile):
            late = dataclasses.replace(operation.account, late=True, hold=False)
            self._entries.append(dataclasses.replace(operation, account=late))
        else:
            self._entries.append(operation)

    def take(self) -> list[Operation]:
        """The next batch."""
        return [self._entries.popleft() for _ in range(min(BATCH, len(self._entries)))]

    def put_back(self, batch: list[Operation]) -> None:
        """The batch was not carried out."""
        self._entries.extendleft(reversed(batch))
