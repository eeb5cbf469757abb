"""rspamd - ask rspamd's normal worker over HTTP: POST /checkv2 with the message, everything else in headers.

Envelope values come from clients: they are sent as UTF-8 octets in header VALUES only, without CR, LF and NUL.  `User` makes
rspamd treat the mail as outbound.  rspamd closes each connection after its answer; closing only our half would make it
abort the scan, so nothing is shut down early.

How it fails: ScanError, after all URLs were tried within ONE deadline, which also holds for a server that sends an octet now
and then.  A breaker opens after some failures in a row; while it is open no message waits for a dead scanner, and one
probe at a time finds out when it is back.
"""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.util import parse_url

from relaywarden.config.settings import ScanSettings
from relaywarden.errors import ScanError
from relaywarden_milter import meters
from relaywarden_milter.envelope import Envelope
from relaywarden_milter.scan import Scan, parse_reply

_LARGEST_REPLY = 4 * 2**20
_FAILURES_TO_OPEN = 5
_OPEN_SECONDS = 3.0
_FORBIDDEN = str.maketrans("", "", "\r\n\0")


class Scanner:
    """One per process; safe to use from several threads."""

    def __init__(self, settings: ScanSettings) -> None:
        self._settings = settings
        self._timeout = settings.timeout / 1000
        self._upstreams = [_upstream(url) for url in settings.url]
        self._breaker = Breaker()

    def scan(self, message: bytes, envelope: Envelope) -> Scan:
        """The verdict on a message; raises ScanError."""
        if not self._breaker.admits():
            meters.SCANS.labels("skipped").inc()
            raise ScanError("rspamd did not answer lately and is not asked at the moment")
        started = time.monotonic()
        try:
            found = self._first_answer(message, request_headers(envelope, self._settings), started + self._timeout)
        except ScanError:
            self._breaker.failed()
            meters.SCANS.labels("error").inc()
            raise
        finally:
            meters.SCAN_SECONDS.observe(time.monotonic() - started)
        self._breaker.succeeded()
        return found

    def close(self) -> None:
        """Forget the connections."""
        for upstream in self._upstreams:
            upstream.close()

    def _first_answer(self, message: bytes, headers: urllib3.HTTPHeaderDict, deadline: float) -> Scan:
        problems = []
        for upstream in self._upstreams:
            if time.monotonic() >= deadline:
                problems.append(f"{upstream.host}:{upstream.port}: no time left")
                break
            try:
                return parse_reply(_post(upstream, message, headers, deadline))
            except ScanError as error:
                problems.append(f"{upstream.host}:{upstream.port}: {error}")
            except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                problems.append(f"{upstream.host}:{upstream.port}: {type(error).__name__}")
        raise ScanError("; ".join(problems))


@dataclass(slots=True)
class Breaker:
    """Closed, open for a while after failures in a row, then one probe at a time."""

    failures: int = 0
    closed_at: float = 0.0  # while open: when the next probe may go
    lock: Any = None

    def __post_init__(self) -> None:
        self.lock = threading.Lock()

    def admits(self) -> bool:
        """May a request go?  While open this lets one through each few seconds."""
        with self.lock:
            if self.failures < _FAILURES_TO_OPEN:
                return True
            now = time.monotonic()
            if now < self.closed_at:
                return False
            self.closed_at = now + _OPEN_SECONDS
            return True

    def failed(self) -> None:
        """A request failed."""
        with self.lock:
            self.failures += 1
            self.closed_at = time.monotonic() + _OPEN_SECONDS

    def succeeded(self) -> None:
        """A request was answered."""
        with self.lock:
            self.failures = 0


def request_headers(envelope: Envelope, settings: ScanSettings) -> urllib3.HTTPHeaderDict:
    """rspamd's request headers; unknown values are left out."""
    headers = urllib3.HTTPHeaderDict()
    given = [
        ("From", envelope.sender), ("IP", envelope.address), ("Helo", envelope.helo), ("Hostname", envelope.hostname),
        ("User", envelope.login or ""), ("Queue-Id", envelope.queue_id), ("Settings-ID", settings.settings_id),
        ("MTA-Tag", settings.mta_tag), ("MTA-Name", envelope.mta_name),
    ]  # fmt: skip
    for name, value in [*given, *(("Rcpt", recipient) for recipient in envelope.recipients)]:
        if safe := _octets(value):
            headers.add(name, safe)
    headers.add("User-Agent", "relaywarden")
    headers.add("Content-Type", "message/rfc822")
    return headers


def _octets(value: str) -> str:
    """UTF-8 octets in the disguise of Latin-1, which is how http.client wants them."""
    return value.translate(_FORBIDDEN).strip().encode("utf-8", "surrogateescape").decode("latin-1")


def _upstream(url: str) -> urllib3.HTTPConnectionPool:
    parsed = parse_url(url if "://" in url else f"http://{url}")
    if parsed.host is None or parsed.scheme not in {"http", "https"}:
        raise ScanError(f"scan.url: expected http://host:port, got {url!r}")
    secure = parsed.scheme == "https"
    pool = (urllib3.HTTPSConnectionPool if secure else urllib3.HTTPConnectionPool)(
        parsed.host.strip("[]"), parsed.port or 11333, maxsize=4, retries=False
    )
    if not secure:
        pool.ConnectionCls = _DeadlineConnection
    return pool


def _post(upstream: urllib3.HTTPConnectionPool, message: bytes, headers: urllib3.HTTPHeaderDict, deadline: float) -> bytes:
    _now.deadline = deadline
    left = max(0.001, deadline - time.monotonic())
    response = upstream.urlopen(
        "POST", "/checkv2", body=message, headers=headers, timeout=urllib3.Timeout(total=left),
        preload_content=False, redirect=False,
    )  # fmt: skip
    try:
        body = bytearray()
        while piece := response.read(65536):
            body += piece
            if len(body) > _LARGEST_REPLY:
                raise ScanError(f"rspamd's answer is larger than {_LARGEST_REPLY} octets")
            if time.monotonic() > deadline:
                raise ScanError("rspamd's answer took too long")
        if response.status != 200:
            raise ScanError(f"rspamd answered {response.status}")
        return bytes(body)
    finally:
        response.close()


_now = threading.local()  # the deadline of the request that this thread is about to make


class _DeadlineSocket(socket.socket):
    """A socket whose every wait ends at one deadline: a timeout alone starts afresh with each octet received."""

    deadline = float("inf")

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(max(0.001, self.deadline - time.monotonic()))
        return super().recv_into(*args, **kwargs)


class _DeadlineConnection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        plain = super()._new_conn()
        timeout = plain.gettimeout()
        sock = _DeadlineSocket(fileno=plain.detach())
        sock.settimeout(timeout)
        sock.deadline = _now.deadline
        return sock
