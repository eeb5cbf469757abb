"""Stand-ins for policyd and the milter, to test the Postfix side of contrib/postfix alone.

`PolicyStandIn` answers DUNNO, or what `actions` has for a recipient, and keeps every request.  `TaggingMilter` is a
process of its own (libmilter owns the signals of its process) that adds `X-Virtual-MTA` with the value of the message's
`X-Pool` header ("tx1" without one, nothing for "none") and tells what it saw in X-Seen-* headers.

Known limit: no policy at all; only what the tests of Postfix need.
"""

from __future__ import annotations

import signal
import socketserver
import sys
import threading
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
