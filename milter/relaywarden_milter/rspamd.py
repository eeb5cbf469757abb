"""rspamd - ask rspamd's normal worker over HTTP: POST /checkv2 with the message, everything else in headers.

Envelope values come from clients: they are sent as UTF-8 octets in header VALUES only, without CR, LF and NUL.  `User` makes
rspamd treat the mail as outbound.  The message is sent piece by piece as it lies in its spool; with `scan.compression: zstd`
it is compressed into another spool first, as rspamd wants to know the length.

Several servers: the first of the list that is not down (`upstreams`) is asked.  One deadline holds for all of them
together; a server gets half of the time that is left as long as one that is not down comes after it, so `scan.timeout`
should be twice what a slow scan takes.

How it fails: ScanError, after all servers were tried within the deadline; at once when all are down, or when the message's
body could not be kept.

Known limit: rspamd is told of about 1,000 recipients of a message, as there is no room for more in its request.
"""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable, Iterator

import zstandard

from relaywarden.config.settings import ScanSettings
from relaywarden.errors import ScanError
from relaywarden_milter import meters
from relaywarden_milter.envelope import Envelope
from relaywarden_milter.exchange import TICK_SECONDS, BodyError, Wait, post
from relaywarden_milter.headers import Header
from relaywarden_milter.message import Message, Octets
from relaywarden_milter.scan import Scan, parse_reply
from relaywarden_milter.spool import Spool
from relaywarden_milter.upstreams import Upstream

Tick = Callable[[], None]

_FORBIDDEN = str.maketrans("", "", "\r\n\0")
# rspamd's parser takes 80 KiB of headers and closes the connection at more: a message with thousands of recipients would
# neither be scanned nor leave the server in good repute.
_ROOM_FOR_RECIPIENTS = 48 * 1024
_LONGEST_VALUE = 2048  # of Postfix' line_length_limit
_LEVEL = 1  # of zstd: the higher ones take longer than a local network does


class Scanner:
    """One per process; safe to use from several threads."""

    def __init__(self, settings: ScanSettings, *, tick_seconds: float = TICK_SECONDS) -> None:
        """Raises ScanError for a URL that is none."""
        self._settings = settings
        self._timeout = settings.timeout / 1000
        self._tick_seconds = tick_seconds
        self.upstreams = [Upstream(url) for url in settings.url]

    def scan(
        self,
        message: bytes | Message | Octets,
        envelope: Envelope,
        tick: Tick | None = None,
        *,
        headers: list[Header] | None = None,
        body: Spool | None = None,
        settings_id: str = "",
    ) -> Scan:
        """The verdict on a message; raises ScanError.

        `headers` and `body` go in place of those of a Message, `settings_id` before the one of the settings.  `tick` is called
        every `tick_seconds` while this waits; it must not raise.
        """
        started = time.monotonic()
        wait = Wait(started + self._timeout, tick, self._tick_seconds)
        octets = message.pieces(headers, body) if isinstance(message, Message) else message
        if isinstance(octets, bytes):
            octets = Octets(octets, Spool())
        try:
            found = self._send(octets, request_headers(envelope, self._settings, settings_id), wait)
        except _AllDownError:
            meters.labelled(meters.SCANS, "skipped").inc()
            raise
        except ScanError:
            meters.labelled(meters.SCANS, "error").inc()
            meters.SCAN_SECONDS.observe(time.monotonic() - started)
            raise
        meters.SCAN_SECONDS.observe(time.monotonic() - started)
        return found

    def close(self) -> None:
        """Nothing outlives a scan, so there is nothing to close."""

    def _send(self, octets: Octets, headers: list[tuple[str, bytes]], wait: Wait) -> Scan:
        if octets.lost:
            raise BodyError(f"the message is not scanned: {octets.lost}")
        now = time.monotonic()
        if not any(upstream.breaker.ready(now) for upstream in self.upstreams):
            raise _AllDownError
        if self._settings.compression == "none":
            return self._first_answer(octets, headers, wait)
        packed = compressed(octets)
        try:
            return self._first_answer(Octets(b"", packed), [*headers, ("Compression", b"zstd")], wait)
        finally:
            packed.close()

    def _first_answer(self, octets: Octets, headers: list[tuple[str, bytes]], wait: Wait) -> Scan:
        headers.append(("Content-Length", b"%d" % octets.size))
        deadline, problems = wait.deadline, []
        for index, upstream in enumerate(self.upstreams, start=1):
            now = time.monotonic()
            if now >= deadline:
                problems.append(f"{upstream.target.name}: no time left")
                break
            # A server that is down, though it could be probed, is not worth taking time from one that works.
            others = any(not other.breaker.is_open for other in self.upstreams[index:])
            wait.deadline = now + (deadline - now) / 2 if others else deadline
            if not upstream.breaker.admits(now, wait.deadline):
                continue
            try:
                status, reply = post(upstream.target, "/checkv2", headers, _readable(octets), wait)
                if status != http.client.OK:
                    raise ScanError(f"rspamd answered {status}")  # noqa: TRY301  # one of several failures of a server
                found = parse_reply(reply)
            except BodyError:
                raise
            except (ScanError, OSError, http.client.HTTPException, ValueError) as error:
                reason = _reason(error)
                upstream.failed(time.monotonic(), reason)
                problems.append(f"{upstream.target.name}: {reason}")
            else:
                upstream.succeeded()
                return found
        raise ScanError("; ".join(problems)) if problems else _AllDownError


class _AllDownError(ScanError):
    def __init__(self) -> None:
        super().__init__("rspamd did not answer lately and is not asked at the moment")


def request_headers(envelope: Envelope, settings: ScanSettings, settings_id: str = "") -> list[tuple[str, bytes]]:
    """rspamd's request headers; unknown values are left out, and recipients for which there is no room."""
    given = [
        ("From", envelope.sender), ("IP", envelope.address), ("Helo", envelope.helo), ("Hostname", envelope.hostname),
        ("User", envelope.login or ""), ("Queue-Id", envelope.queue_id), ("Settings-ID", settings_id or settings.settings_id),
        ("MTA-Tag", settings.mta_tag), ("MTA-Name", envelope.mta_name),
    ]  # fmt: skip
    headers = [(name, safe) for name, value in given if (safe := _safe(value))]
    room = _ROOM_FOR_RECIPIENTS
    for recipient in envelope.recipients:
        if safe := _safe(recipient):
            room -= len(safe) + len("Rcpt: \r\n")
            if room < 0:
                break
            headers.append(("Rcpt", safe))
    return [*headers, ("User-Agent", b"relaywarden"), ("Content-Type", b"message/rfc822")]


def compressed(octets: Octets) -> Spool:
    """The message as one zstd frame, to be closed; raises BodyError."""
    packed = Spool()
    # With the size in the frame; without it rspamd (3.4) may stop before the end of what it unpacks.
    compressor = zstandard.ZstdCompressor(level=_LEVEL).compressobj(size=octets.size)
    try:
        for piece in octets:
            if done := compressor.compress(piece):
                packed.write(done)
        packed.write(compressor.flush())
    except OSError as error:
        packed.close()
        raise BodyError(f"the message cannot be compressed: {error.strerror or error}") from error
    return packed


def _readable(octets: Octets) -> Iterator[bytes]:
    """The pieces; a broken file of ours must not look like a broken server."""
    try:
        yield from octets
    except OSError as error:
        raise BodyError(f"the message cannot be read back: {error.strerror or error}") from error


def _safe(value: str) -> bytes:
    return value.translate(_FORBIDDEN).strip().encode("utf-8", "surrogateescape")[:_LONGEST_VALUE]


def _reason(error: Exception) -> str:
    """For the log: what an operator needs to tell a dead server from a slow or a wrong one."""
    if isinstance(error, ScanError | socket.gaierror):
        return str(error)
    if isinstance(error, TimeoutError):
        return "Timeout"
    return (error.strerror if isinstance(error, OSError) else "") or type(error).__name__
