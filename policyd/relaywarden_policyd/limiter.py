"""limiter - who decides while the ledger does not answer.

`Limiter` is the seam: given the operation that could not reach the store, it returns the decision to answer with, at once
and without I/O.  `FailOpen` is the strategy of this release.

Known limits: what FailOpen admits is charged nowhere; the bounded local limiter, which charges it when the store is back,
takes its place later.
"""

from __future__ import annotations

from typing import Protocol

from relaywarden.ledger.operations import Decision, Operation, Status


class Limiter(Protocol):
    """Decides without the store."""

    def decide(self, operation: Operation) -> Decision:
        """The decision on one operation that the store did not take."""
        ...


class FailOpen:
    """Admits everything.

    We fail open here on purpose: customers' mail does not stop because our own store is down.  The metric
    `relaywarden_policyd_store_up` and one log line in each direction say so.
    """

    _ADMITTED = Decision(Status.ADMITTED)

    def decide(self, operation: Operation) -> Decision:  # noqa: ARG002 - a strategy that looks at nothing
        """Admitted."""
        return self._ADMITTED
