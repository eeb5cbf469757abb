"""meters - what the milter counts for Prometheus.  Labels never hold anything a client chose."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

MESSAGES = Counter("relaywarden_milter_messages_total", "Messages by what became of them", ["result"])
SECONDS = Histogram("relaywarden_milter_message_seconds", "Time spent on one message at its end", buckets=_SECONDS)
FORGED = Counter("relaywarden_milter_control_headers_deleted_total", "Control headers sent by clients and deleted")
FAULTS = Counter("relaywarden_milter_faults_total", "Errors of our own caught in a milter callback", ["callback"])
SCANS = Counter("relaywarden_milter_scans_total", "Scans by action, or error, or skipped by the breaker", ["action"])
SCAN_SECONDS = Histogram("relaywarden_milter_scan_seconds", "Duration of one scan", buckets=_SECONDS)
SCORE = Histogram("relaywarden_milter_score", "Scores of rspamd", buckets=(0, 2, 4, 6, 8, 10, 15))
IDENTITY = Counter(
    "relaywarden_milter_identity_total", "Messages whose sender did not fit the tenant, by what did not", ["what"]
)
LINT = Counter("relaywarden_milter_lint_total", "Faults found before signing", ["kind"])
STREAMS = Counter("relaywarden_milter_streams_total", "Messages by how they are sent", ["stream"])
SIGNATURES = Counter("relaywarden_milter_signatures_total", "DKIM signatures made", ["kind"])
KEY_FAILURES = Counter("relaywarden_milter_key_failures_total", "Messages put off because a DKIM key cannot be used")
SESSIONS = Gauge("relaywarden_milter_sessions", "Open milter sessions", multiprocess_mode="livesum")
UNSETTLED = Gauge("relaywarden_milter_unsettled", "Ledger operations waiting for the store", multiprocess_mode="livesum")
UNSETTLED_LOST = Counter("relaywarden_milter_unsettled_lost_total", "Ledger operations given up because too many waited")
UPSTREAM_UP = Gauge(
    "relaywarden_milter_upstream_up", "1 while this rspamd answers every worker", ["upstream"], multiprocess_mode="livemin"
)


@lru_cache(maxsize=1024)
def labelled(counter: Counter, value: str) -> Counter:
    """The counter's child for one value of its label; finding it anew each time costs more than counting."""
    return counter.labels(value)
