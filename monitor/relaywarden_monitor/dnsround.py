"""dnsround - ask DNS every so often, in a thread of its own, and hand over what became better or worse.

How it fails: what DNS did not answer counts as it was before.  An error of our own is logged with its traceback, and the next
round is tried in its turn.
"""

from __future__ import annotations

import logging
import threading

from relaywarden.config.settings import Settings
from relaywarden_monitor import meters
from relaywarden_monitor.dnswatch.examine import run
from relaywarden_monitor.dnswatch.findings import Finding, Level
from relaywarden_monitor.notify import alerts
from relaywarden_monitor.notify.alerts import Reading

log = logging.getLogger(__name__)
_CLOSING = 5.0  # seconds


class DnsRound:
    """One per configuration."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._every = settings, (settings.dns.every or 0) / 1000
        self._stopping = threading.Event()
        self._lock, self._news = threading.Lock(), list[Finding]()
        self._thread = threading.Thread(target=self._run, name="dns", daemon=True)

    def start(self) -> None:
        """Begin with a round now; nothing where `dns.every` is empty or nothing is to be asked about."""
        if self._every and self._settings.pools:
            self._thread.start()

    def stop(self) -> None:
        """No further round; one that is under way is left to its time-outs."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(_CLOSING)

    def news(self) -> list[Reading]:
        """What was found since the last call."""
        with self._lock:
            found, self._news = self._news, []
        return [_reading(finding) for finding in found if finding.level is not Level.UNKNOWN]

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                found = run(self._settings)
            except Exception:
                log.exception("asking DNS failed in a way that nobody expected; the next round is tried")
                meters.FAULTS.labels("dns").inc()
            else:
                with self._lock:
                    self._news = found
            self._stopping.wait(self._every)


def _reading(finding: Finding) -> Reading:
    level = alerts.Level.WARN if finding.level is Level.FAULT else alerts.Level.NONE
    evidence = {"evidence": finding.evidence} if finding.evidence else {}
    return Reading(
        f"dns:{finding.subject}:{finding.check}", level, finding.subject, f"{finding.check}: {finding.text}", evidence,
        "relaywarden dns",
    )  # fmt: skip
