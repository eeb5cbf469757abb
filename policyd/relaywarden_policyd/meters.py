"""meters - what policyd counts for Prometheus.

A prometheus-client counter in multiprocess mode costs more than half a decision.  So the hot path adds to plain integers,
and `flush` moves them to the real metrics once a second and at the end of the worker.

Import this module only after relaywarden.metrics.prepare().  No label carries a tenant: their number has no bound.
Known limit: what a killed worker counted in its last second is missing from the metrics (never from the ledger).
"""

from __future__ import annotations

from bisect import bisect_left

from prometheus_client import Counter, Gauge, Histogram

from relaywarden_policyd.protocol import State
from relaywarden_policyd.verdict import Action, Cause, Verdict
from relaywarden_policyd.wiring import Fault

_BOUNDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

DECISIONS = Counter("relaywarden_policyd_decisions", "Requests answered", ["state", "verdict", "cause", "observed", "limit"])
FAULTS = Counter("relaywarden_policyd_wiring_faults", "Requests that show a fault in main.cf", ["fault"])
MALFORMED = Counter("relaywarden_policyd_malformed", "Connections closed because of bytes that are no policy request")
LATENCY = Histogram("relaywarden_policyd_decision_seconds", "From request to reply", buckets=_BOUNDS)
STORE_LATENCY = Histogram("relaywarden_policyd_store_seconds", "One batch to the ledger and back", buckets=_BOUNDS)
BATCH_SIZE = Histogram("relaywarden_policyd_batch_operations", "Operations in one batch to the ledger", buckets=_SIZES)
STORE_FAILURES = Counter("relaywarden_policyd_store_failures", "Batches that the store did not carry out")
STORE_UP = Gauge("relaywarden_policyd_store_up", "1 while every worker's store answers", multiprocess_mode="livemin")
STORE_UP.set(1)  # the master has a value too, and no store: it must not be the least of all
UNRECONCILED = Gauge(
    "relaywarden_policyd_unreconciled",
    "Operations admitted without the store, still to be charged",
    multiprocess_mode="livesum",
)
OPEN_TICKETS = Gauge(
    "relaywarden_policyd_open_tickets", "Transactions charged and not seen to end", multiprocess_mode="livesum"
)
CONNECTIONS = Gauge("relaywarden_policyd_connections", "Open connections", multiprocess_mode="livesum")


class _Bucketed:
    """A histogram in plain integers."""

    def __init__(self, target: Histogram, bounds: tuple[float, ...]) -> None:
        self._target, self._bounds = target, bounds
        self._counts, self._sum = [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def flush(self) -> None:
        # prometheus-client has no "observe n times"; these are the two fields that its own observe() adds to.
        for index, count in enumerate(self._counts):
            if count:
                self._target._buckets[index].inc(count)
        self._target._sum.inc(self._sum)
        self._counts, self._sum = [0] * len(self._counts), 0.0


class Meters:
    """The counters of one worker."""

    def __init__(self) -> None:
        self._decisions: dict[tuple[State, Action, Cause, bool, str], int] = {}
        self._faults: dict[Fault, int] = {}
        self._latency = _Bucketed(LATENCY, _BOUNDS)
        self._store = _Bucketed(STORE_LATENCY, _BOUNDS)
        self._sizes = _Bucketed(BATCH_SIZE, _SIZES)

    def decision(self, state: State, verdict: Verdict, seconds: float) -> None:
        """One reply."""
        key = (state, verdict.action, verdict.cause, verdict.observed, verdict.limit)
        self._decisions[key] = self._decisions.get(key, 0) + 1
        self._latency.observe(seconds)

    def fault(self, fault: Fault) -> bool:
        """One wiring fault; whether it is the first of its kind in this worker."""
        first = fault not in self._faults
        self._faults[fault] = self._faults.get(fault, 0) + 1
        return first

    def batch(self, operations: int, seconds: float) -> None:
        """One batch that the ledger carried out."""
        self._store.observe(seconds)
        self._sizes.observe(operations)

    def store_failed(self) -> None:
        """One batch that it did not carry out."""
        STORE_FAILURES.inc()

    def store_up(self, up: bool) -> None:
        """Whether the store answers."""
        STORE_UP.set(1 if up else 0)

    def unreconciled(self, count: int) -> None:
        """What the journal holds."""
        UNRECONCILED.set(count)

    def malformed(self) -> None:
        """A connection closed for what it sent."""
        MALFORMED.inc()

    def connections(self, count: int, open_tickets: int) -> None:
        """Connections open now, and transactions on them that were charged and not seen to end."""
        CONNECTIONS.set(count)
        OPEN_TICKETS.set(open_tickets)

    def flush(self) -> None:
        """Move everything to the metrics that Prometheus sees."""
        for (state, action, cause, observed, limit), count in self._decisions.items():
            labels = (state.value or "other", action.name.lower(), cause.value, str(observed).lower(), limit)
            DECISIONS.labels(*labels).inc(count)
        self._decisions.clear()
        for fault, count in self._faults.items():
            if count:
                FAULTS.labels(fault.value).inc(count)
                self._faults[fault] = 0  # it stays in the table: it is no longer the first
        for histogram in (self._latency, self._store, self._sizes):
            histogram.flush()
