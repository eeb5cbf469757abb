"""breaker - whether the store is asked or done without; the place that logs both directions, once each.

It opens when a batch fails or is late.  From then on the store is tried again `RETRY_SECONDS` after each failure, by one
batch at a time, and the first batch that comes back in time closes it.

A Redis Cluster may lose one node: then only its tenants go without the store and the breaker stays closed; that is logged
once in `PARTLY_SECONDS`, since the batches without those tenants succeed and nothing says when it is over.
"""

from __future__ import annotations

import logging
import time

from relaywarden.logs import event
from relaywarden_policyd.meters import Meters

log = logging.getLogger(__name__)
RETRY_SECONDS = 0.25
PARTLY_SECONDS = 60.0


class Breaker:
    """Of one worker."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._retry_at = self._partly_quiet_until = 0.0
        self.open = False
        meters.store_up(True)

    @property
    def may_try(self) -> bool:
        """Whether it is time to try a store that was down."""
        return time.monotonic() >= self._retry_at

    def late(self, reason: str) -> None:
        """A batch is not back in time."""
        self._retry_at = time.monotonic() + RETRY_SECONDS
        if not self.open:
            self.open = True
            self._meters.store_up(False)
            event(log, logging.ERROR, "the store does not answer, deciding without it", reason=reason)

    def failed(self, reason: str) -> None:
        """A batch was not carried out."""
        self._meters.store_failed()
        self.late(reason)

    def partly_failed(self, reason: str) -> None:
        """One node of a cluster did not carry out its part; all others did."""
        self._meters.store_failed()
        if time.monotonic() >= self._partly_quiet_until:
            self._partly_quiet_until = time.monotonic() + PARTLY_SECONDS
            event(log, logging.ERROR, "a part of the store does not answer, deciding without it", reason=reason)

    def answered(self, in_time: bool, unreconciled: int) -> None:
        """A batch came back."""
        if not in_time:
            self._retry_at = time.monotonic() + RETRY_SECONDS
        elif self.open:
            self.open = False
            self._meters.store_up(True)
            event(log, logging.WARNING, "the store answers again", unreconciled=unreconciled)
