"""exchange - one HTTP request and its answer, under one deadline, with a sign of life while it takes long.

http.client does the HTTP; here is what it leaves open.  A socket's timeout starts afresh with each octet, so that a server
that sends one now and then is waited for without end: these sockets wait in slices, for receiving and sending, until the
deadline of the whole exchange.  Between the slices `tick` is called from the same thread.

Wire format: POST with Content-Length (never chunked), the body in the pieces that are given.  Nothing is shut down before
the answer is read: rspamd would abort the scan.  A connection serves one request, as rspamd closes it anyway.  rspamd
compresses its answer, unasked, when the request was compressed; `Compression: zstd` says so.

How it fails: OSError (TimeoutError at the deadline), http.client.HTTPException, ScanError for an answer without measure,
BodyError when the message itself cannot be read.

Known limits: looking up a host's name has no deadline but the resolver's own, and no tick comes while connecting, which
takes up to half of the time for each address of the name.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import zstandard

from relaywarden.errors import ScanError

TICK_SECONDS = 5.0
_LARGEST_REPLY = 4 * 2**20
_LARGEST_WINDOW = 2**23  # of a compressed answer; what a decoder must be able to take (RFC 8878, section 3.1.1.1.2)
_SHORTEST_WAIT = 0.001  # 0 would mean "do not wait"


class BodyError(ScanError):
    """The message could not be read or compressed: no server is to blame."""


@dataclass(slots=True)
class Wait:
    """How long to wait, and whom to tell meanwhile; one for a message, also when several servers are asked in turn."""

    deadline: float  # by time.monotonic()
    tick: Callable[[], None] | None = None
    interval: float = TICK_SECONDS
    next_tick: float = field(init=False)

    def __post_init__(self) -> None:
        self.next_tick = time.monotonic() + self.interval

    def slice(self) -> float:
        """How long the next wait may take, in seconds; calls `tick` when it is due; raises TimeoutError at the deadline."""
        if self.tick is not None and time.monotonic() >= self.next_tick:
            self.tick()
            self.next_tick = time.monotonic() + self.interval
        now = time.monotonic()
        if now >= self.deadline:
            raise TimeoutError("no answer in time")
        until = self.deadline if self.tick is None else min(self.deadline, self.next_tick)
        return max(_SHORTEST_WAIT, until - now)


@dataclass(frozen=True, slots=True)
class Target:
    """A server: where it is, and how it is trusted."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None

    @property
    def name(self) -> str:
        """For logs and metrics."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def tls_context() -> ssl.SSLContext:
    """The system's certificate authorities, and sockets that keep the deadline."""
    context = ssl.create_default_context()
    context.sslsocket_class = _TlsSocket
    return context


def post(target: Target, path: str, headers: list[tuple[str, bytes]], body: Iterable[bytes], wait: Wait) -> tuple[int, bytes]:
    """Status and body of the answer; `headers` hold Content-Length.  Raises OSError, HTTPException, ScanError."""
    connection = _Connection(target, wait) if target.tls is None else _TlsConnection(target, target.tls, wait)
    try:
        connection.connect()
        try:
            connection.putrequest("POST", path)
            for name, value in headers:
                connection.putheader(name, value)
            connection.endheaders()
            for piece in body:
                connection.send(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it may have answered without reading all, and closed: the answer, if any, says why
        return _answer(connection)
    finally:
        connection.close()


def _answer(connection: http.client.HTTPConnection) -> tuple[int, bytes]:
    with connection.getresponse() as response:
        body = _bounded(response)
        if response.length:
            raise ScanError("rspamd's answer is cut short")
        if "zstd" not in {response.headers["Compression"], response.headers["Content-Encoding"]}:
            return response.status, body
    try:
        with zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).stream_reader(body) as reader:
            return response.status, _bounded(reader)
    except zstandard.ZstdError as error:
        raise ScanError("rspamd's answer is not what zstd makes") from error


def _bounded(source: Any) -> bytes:
    body = bytearray()
    while piece := source.read(65536):
        body += piece
        if len(body) > _LARGEST_REPLY:
            raise ScanError(f"rspamd's answer is larger than {_LARGEST_REPLY} octets")
    return bytes(body)


def _patient(sock: socket.socket, wait: Wait, call: Callable[..., int], *args: Any) -> int:
    """Repeat a call that times out until it does not, or the deadline is there."""
    while True:
        sock.settimeout(wait.slice())
        try:
            return call(*args)
        except TimeoutError:
            continue  # this slice is over; `slice` knows when it was the last one


class _Socket(socket.socket):
    wait: Wait

    def recv_into(self, *args: Any) -> int:
        return _patient(self, self.wait, super().recv_into, *args)

    def sendall(self, data: Any, flags: int = 0) -> None:
        left = memoryview(data)
        while left:
            left = left[_patient(self, self.wait, super().send, left, flags) :]


class _TlsSocket(ssl.SSLSocket):
    wait: Wait

    def recv_into(self, *args: Any) -> int:
        return _patient(self, self.wait, super().recv_into, *args)

    def sendall(self, data: Any, flags: int = 0) -> None:
        left = memoryview(data)
        while left:
            left = left[_patient(self, self.wait, super().send, left, flags) :]


class _Connection(http.client.HTTPConnection):
    def __init__(self, target: Target, wait: Wait) -> None:
        super().__init__(target.host, target.port, timeout=_to_connect(wait))
        self._wait = wait

    def connect(self) -> None:
        super().connect()
        plain = self.sock
        sock = _Socket(plain.family, plain.type, plain.proto, plain.detach())
        sock.wait = self._wait
        self.sock = sock


class _TlsConnection(http.client.HTTPSConnection):
    def __init__(self, target: Target, context: ssl.SSLContext, wait: Wait) -> None:
        super().__init__(target.host, target.port, timeout=_to_connect(wait), context=context)
        self._wait = wait

    def connect(self) -> None:
        super().connect()
        if isinstance(self.sock, _TlsSocket):
            self.sock.wait = self._wait


def _to_connect(wait: Wait) -> float:
    """Half of what is left: a name mostly has two addresses, and each is tried for that long."""
    return max(_SHORTEST_WAIT, (wait.deadline - time.monotonic()) / 2)
