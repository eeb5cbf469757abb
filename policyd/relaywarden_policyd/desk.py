"""desk - what the connections of a worker share: the judge of the day, the way to the ledger, the meters and the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

from relaywarden.ledger.operations import Result, Steer
from relaywarden.logs import event
from relaywarden_policyd.batch import Batcher
from relaywarden_policyd.decide import Judge
from relaywarden_policyd.meters import Meters
from relaywarden_policyd.protocol import Request
from relaywarden_policyd.verdict import Action, Verdict
from relaywarden_policyd.wiring import NOTES

if TYPE_CHECKING:
    from relaywarden_policyd.connection import Connection

log = logging.getLogger(__name__)
_SAID = {Action.DUNNO: "admitted", Action.HOLD: "held", Action.DEFER: "refused", Action.REJECT: "refused"}


def nobody_waits(result: Result, local: bool) -> None:
    """For operations without a request."""


class Desk:
    """What the connections of a worker share."""

    def __init__(self, judge: Judge, batcher: Batcher, meters: Meters) -> None:
        self.judge, self.batcher, self.meters = judge, batcher, meters
        self.counted: Callable[[int], None] = lambda _: None  # is told the number of connections when it changes
        self.connections: set[Connection] = set()
        self.asked_at_the_end: set[str] = set()  # policy contexts whose transactions end before our eyes
        self._log_admitted = log.isEnabledFor(logging.DEBUG)

    def note(self, request: Request, verdict: Verdict, begun: float) -> None:
        """Count and log one decision."""
        self.meters.decision(request.state, verdict, perf_counter() - begun)
        loud = verdict.action is not Action.DUNNO or verdict.observed
        if not loud and not self._log_admitted:
            return
        text = "would be refused" if verdict.observed else _SAID[verdict.action]
        event(log, logging.INFO if loud else logging.DEBUG, text, state=request.state.value, queue_id=request.queue_id,
              instance=request.instance, login=request.sasl_username, sender=request.sender, recipient=request.recipient,
              client=request.connection, said=verdict.text, **_told(verdict))  # fmt: skip

    def open_tickets(self) -> int:
        """Transactions that were charged and whose end was not seen yet."""
        return sum(connection.in_transaction for connection in self.connections)

    def check_wiring(self, request: Request) -> None:
        """Count what is wrong with how Postfix asks; warn of it the first time."""
        fault = self.judge.wiring.look(request)
        if fault is not None and self.meters.fault(fault):
            note = {"faults": {fault.value: {"at_ms": time.time_ns() // 1_000_000, "context": request.policy_context}}}
            self.batcher.submit(Steer(NOTES, note), nobody_waits)
            event(log, logging.WARNING, "Postfix may be wired wrongly, warned of once", fault=fault.value,
                  state=request.state.value, client=request.connection, policy_context=request.policy_context)  # fmt: skip


def _told(verdict: Verdict) -> dict[str, Any]:
    """The fields of a verdict that say something: `observed=False` on every line would not."""
    return {name: value for name, value in verdict.fields().items() if value is not False}
