"""meters - what the monitor counts for Prometheus.  Labels never hold anything a stranger chose."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

RECORDS = Counter("relaywarden_monitor_records_total", "Lines and rows read, by source", ["source"])
OUTCOMES = Counter("relaywarden_monitor_outcomes_total", "Attempts by what became of them", ["outcome"])
LAG = Gauge("relaywarden_monitor_lag_bytes", "What a source has that was not read yet", ["source"], multiprocess_mode="livesum")
REPORTS = Counter("relaywarden_monitor_reports_total", "Messages that came as reports, and how far they are to be believed",
                  ["kind", "standing"])  # fmt: skip
REACTIONS = Counter("relaywarden_monitor_reactions_total", "What was done about bad outcomes", ["what"])
FAULTS = Counter("relaywarden_monitor_faults_total", "Errors of our own, by the part that met them", ["part"])
