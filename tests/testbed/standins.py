"""Stand-ins for policyd and the milter, to test the Postfix side of contrib/postfix alone, and for a bad rspamd.

`PolicyStandIn` answers DUNNO, or what `actions` has for a recipient, and keeps every request.  `TaggingMilter` is a
process of its own (libmilter owns the signals of its process) that adds `X-Virtual-MTA` with the value of the message's
`X-Pool` header ("tx1" without one, nothing for "none") and tells what it saw in X-Seen-* headers.

`HttpStandIn` answers every HTTP request with the octets it was given, however wrong, and can be slow in many ways.

Known limit: no policy at all; only what the tests need.
"""

from __future__ import annotations

import hashlib
import signal
import socket
import socketserver
import ssl
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from testbed.ports import accepts
from testbed.process import Process


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False


class PolicyStandIn:
    """A policy server on a Unix socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests: list[dict[str, str]] = []
        self.actions: dict[str, str] = {}
        owner = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                request: dict[str, str] = {}
                for line in self.rfile:
                    name, found, value = line.decode(errors="replace").rstrip("\n").partition("=")
                    if found:
                        request[name] = value
                        continue
                    owner.requests.append(request)
                    self.wfile.write(f"action={owner.actions.get(request['recipient'], 'DUNNO')}\n\n".encode())
                    request = {}

        self._handler = Handler

    def clear(self) -> None:
        self.requests.clear()
        self.actions.clear()

    def __enter__(self) -> PolicyStandIn:
        self._server = _Server(str(self.path), self._handler)
        self.path.chmod(0o666)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.path.unlink()


@dataclass(frozen=True)
class HttpRequest:
    """What an `HttpStandIn` was sent."""

    head: str  # request line and headers
    body: bytes  # no more than its first 4 MiB
    size: int
    sha256: str


class HttpStandIn:
    """An HTTP server on one thread: reads a request, waits `delay`, answers, closes.  `answer` may change meanwhile.

    `drip` sends one octet each so many seconds; `reads=False` closes at once, as rspamd does under overload; `tls` speaks
    TLS.  Times are in seconds.
    """

    def __init__(
        self, answer: bytes, *, delay: float = 0.0, drip: float = 0.0, reads: bool = True, tls: ssl.SSLContext | None = None
    ) -> None:
        self.answer, self.delay, self.drip, self.reads, self.tls = answer, delay, drip, reads, tls
        self.requests: list[HttpRequest] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self.name = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"{'https' if tls else 'http'}://{self.name}"

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return  # `__exit__` closed it
            with peer:
                try:
                    if self.tls is None:
                        self._talk(peer)
                    else:
                        with self.tls.wrap_socket(peer, server_side=True) as wrapped:
                            self._talk(wrapped)
                except OSError:
                    continue  # the client is gone, as it may

    def _talk(self, peer: socket.socket) -> None:
        if self.reads:
            self.requests.append(_read_request(peer))
        if self._stop.wait(self.delay):
            return
        answer = self.answer
        if not self.drip:
            peer.sendall(answer)
            return
        for octet in answer:
            peer.sendall(bytes([octet]))
            if self._stop.wait(self.drip):
                return

    def __enter__(self) -> HttpStandIn:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


def _read_request(peer: socket.socket) -> HttpRequest:
    """All of it: closing with octets unread would reset the connection."""
    got = b""
    while b"\r\n\r\n" not in got and (piece := peer.recv(65536)):
        got += piece
    head, _, got = got.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    length = int(lengths[0]) if lengths else 0
    hashed, size, first = hashlib.sha256(got), len(got), bytearray(got)
    while size < length and (piece := peer.recv(65536)):
        hashed.update(piece)
        size += len(piece)
        first += piece[: max(0, 2**22 - len(first))]
    return HttpRequest(head.decode("latin-1"), bytes(first), size, hashed.hexdigest())


class TaggingMilter:
    """The milter, run as `python -m testbed.standins SOCKET`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        log = path.parents[1] / "standin-milter.log"
        env = {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        argv = [sys.executable, "-m", "testbed.standins", str(path)]
        self._process = Process("stand-in milter", argv, log, ready=self._accepts, env=env)

    def _accepts(self) -> bool:
        if not accepts(str(self.path)):
            return False
        self.path.chmod(0o666)
        return True

    def __enter__(self) -> TaggingMilter:
        self._process.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.stop(first=signal.SIGKILL)  # libmilter takes up to 5 s to stop politely
        self.path.unlink(missing_ok=True)


def _serve(path: str) -> None:
    import Milter

    class Tag(Milter.Base):
        def envfrom(self, *_: str) -> Any:
            self.pool, self.seen = "tx1", set[str]()
            return Milter.CONTINUE

        def header(self, name: str, value: str) -> Any:
            if name.lower() == "x-pool":
                self.pool = value
            self.seen.add(name.lower())
            return Milter.CONTINUE

        def eom(self) -> Any:
            client = f"{self.getsymval('{client_addr}')}:{self.getsymval('{client_port}')}"
            self.addheader("X-Seen-Login", self.getsymval("{auth_authen}") or "-")
            self.addheader("X-Seen-Client", client)
            self.addheader("X-Seen-Headers", " ".join(sorted(self.seen & {"date", "message-id"})))
            if self.pool != "none":
                self.addheader("X-Virtual-MTA", self.pool)
            return Milter.CONTINUE

    Milter.factory = Tag
    Milter.set_flags(Milter.ADDHDRS)
    Milter.runmilter("standin", f"unix:{path}", timeout=60)


if __name__ == "__main__":
    _serve(sys.argv[1])
