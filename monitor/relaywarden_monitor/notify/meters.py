"""meters - what the notices count for Prometheus.  Labels never hold anything a client chose."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

NOTICES = Counter(
    "relaywarden_monitor_notices_total",
    "Notices by channel: told, failed (given up after notify.keep), dropped (too many waited, or the channel is gone)",
    ["channel", "result"],
)
WAITING = Gauge(
    "relaywarden_monitor_notices_waiting", "Notices that wait for their channel", ["channel"], multiprocess_mode="livesum"
)
