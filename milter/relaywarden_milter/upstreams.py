"""upstreams - the rspamd servers of `scan.url`, each with a breaker of its own.

The order of the list is preference.  A server that failed three times in a row is down: it is skipped, so that it costs
nothing per message, but for one probe every few seconds, which is a real message.  Going down and coming back are each
logged once, by each worker process for itself, and shown by the metric `relaywarden_milter_upstream_up`.

Everything but the right answer is a failure: refused, silent, overload (closed without an answer), 4xx, 5xx, garbage.

Known limits: a message that no server can take counts against each of them, three in a row open the breaker for a few
seconds.  A reload begins with closed breakers.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from relaywarden.errors import ScanError
from relaywarden.logs import event
from relaywarden_milter import meters
from relaywarden_milter.exchange import Target, tls_context

log = logging.getLogger(__name__)
FAILURES_TO_OPEN = 3
OPEN_SECONDS = 5.0
_PORT = 11333


@dataclass(slots=True)
class Breaker:
    """Closed, open for a while after failures in a row, then one probe at a time.  Times are those of time.monotonic()."""

    failures: int = 0
    next_probe: float = 0.0  # while open
    lock: Any = field(default_factory=threading.Lock)

    @property
    def is_open(self) -> bool:
        """Did it fail too often?"""
        return self.failures >= FAILURES_TO_OPEN

    def ready(self, now: float) -> bool:
        """Would `admits` say yes?  Takes nothing."""
        return not self.is_open or now >= self.next_probe

    def admits(self, now: float, until: float) -> bool:
        """May a request go that ends by `until`?  While open this lets one through at a time."""
        with self.lock:
            if not self.ready(now):
                return False
            if self.is_open:
                self.next_probe = until + OPEN_SECONDS  # should the probe never report, the next one goes then
            return True

    def failed(self, now: float) -> bool:
        """A request failed; was this the one that opened it?"""
        with self.lock:
            self.failures += 1
            self.next_probe = now + OPEN_SECONDS
            return self.failures == FAILURES_TO_OPEN

    def succeeded(self) -> bool:
        """A request was answered; was it open until now?"""
        with self.lock:
            was_open, self.failures = self.is_open, 0
            return was_open


class Upstream:
    """One server."""

    def __init__(self, url: str) -> None:
        """`url`: `http://host:port`, also https or without scheme; raises ScanError."""
        self.target = _target(url)
        self.breaker = Breaker()
        self._up = meters.UPSTREAM_UP.labels(self.target.name)
        self._up.set(1)

    def failed(self, now: float, reason: str) -> None:
        """Note a failure; `reason` is for the operator."""
        if self.breaker.failed(now):
            self._up.set(0)
            event(log, logging.WARNING, "rspamd is down, it is skipped but for a probe now and then",
                  upstream=self.target.name, reason=reason)  # fmt: skip

    def succeeded(self) -> None:
        """Note an answer."""
        if self.breaker.succeeded():
            self._up.set(1)
            event(log, logging.INFO, "rspamd answers again", upstream=self.target.name)


def _target(url: str) -> Target:
    try:
        parsed = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parsed.hostname, parsed.port or _PORT
    except ValueError as error:
        raise ScanError(f"scan.url: expected http://host:port, got {url!r}: {error}") from error
    if not host or parsed.scheme not in {"http", "https"}:
        raise ScanError(f"scan.url: expected http://host:port, got {url!r}")
    return Target(host, port, tls_context() if parsed.scheme == "https" else None)
