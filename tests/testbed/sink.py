"""A receiving SMTP server that keeps every message, and every refusal: the world behind the relay.

It runs on aiosmtpd in a thread of its own and records per message the peer's source address (which IP of a pool the
mail left from), HELO, envelope, the raw octets and the time.  `replies` maps a recipient, or the stage names "MAIL" and
"DATA" (the reply after the final dot), to an SMTP reply given instead of acceptance, e.g. {"DATA": "451 4.7.0 later"};
it may be changed while it runs.  `python -m testbed.sink PORT FOLDER` runs it alone and writes each message to FOLDER,
with a line of JSON in FOLDER/received.jsonl.

Known limits: no TLS, no AUTH; about a thousand messages a second (benches that need more use Postfix's smtp-sink).
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from types import TracebackType
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP

from testbed.ports import HOST, free_port
from testbed.process import wait_for


@dataclass(frozen=True)
class Received:
    """One message as it arrived."""

    peer: str
    helo: str
    sender: str
    recipients: tuple[str, ...]
    raw: bytes
    at: float = field(default_factory=time.time)

    @property
    def message(self) -> EmailMessage:
        return message_from_bytes(self.raw, policy=policy.default)


class _Handler:
    # aiosmtpd prescribes the names and the arguments.
    # ruff: noqa: N802, ARG002

    def __init__(self, sink: Sink) -> None:
        self.sink = sink

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        reply = self.sink.replies.get("MAIL")
        if reply is None:
            envelope.mail_from, reply = address, "250 2.1.0 Ok"
        return reply

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        reply = self.sink.replies.get(address)
        if reply is not None:
            self.sink.refused[address] += 1
        else:
            envelope.rcpt_tos.append(address)
            reply = "250 2.1.5 Ok"
        return reply

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        reply = self.sink.replies.get("DATA")
        if reply is not None:
            return reply
        recipients = tuple(envelope.rcpt_tos)
        self.sink.keep(
            Received(session.peer[0], session.host_name, envelope.mail_from or "", recipients, envelope.original_content)
        )
        return "250 2.0.0 Ok: kept"


class Sink:
    """The server; `messages` is what came in so far, `port` where it listens."""

    def __init__(self, host: str = HOST, port: int | None = None) -> None:
        self.host, self.port = host, port or free_port(host)
        self.replies: dict[str, str] = {}
        self.refused: Counter[str] = Counter()  # RCPT by recipient; written by the server's thread alone
        self._messages: list[Received] = []
        self._lock = threading.Lock()
        self._controller: Controller | None = None

    @property
    def messages(self) -> list[Received]:
        with self._lock:
            return list(self._messages)

    def keep(self, message: Received) -> None:
        with self._lock:
            self._messages.append(message)

    def clear(self) -> None:
        with self._lock:
            self._messages.clear()

    def wait(self, count: int = 1, *, timeout: float = 20.0, where: Callable[[Received], bool] | None = None) -> list[Received]:
        """The messages (that satisfy `where`), once there are at least this many; StartError if not in time."""

        def matching() -> list[Received]:
            return [message for message in self.messages if where is None or where(message)]

        wait_for(f"the sink did not get {count} message(s)", lambda: len(matching()) >= count, timeout=timeout)
        return matching()

    def start(self) -> Sink:
        self._controller = Controller(
            _Handler(self),
            hostname=self.host,
            port=self.port,
            ready_timeout=10.0,
            data_size_limit=None,
            enable_SMTPUTF8=True,
            ident="relaywarden testbed sink",
            server_hostname="sink.test",
        )
        self._controller.start()  # returns when it greets
        return self

    def stop(self) -> None:
        if self._controller is not None:
            self._controller.stop()
            self._controller = None

    def __enter__(self) -> Sink:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def write_message(folder: Path, number: int, message: Received) -> None:
    """One received message as FOLDER/NNNN.eml and a line of received.jsonl."""
    name = f"{number:04}.eml"
    (folder / name).write_bytes(message.raw)
    facts = {"file": name, "peer": message.peer, "helo": message.helo, "sender": message.sender}
    line = json.dumps({**facts, "recipients": message.recipients, "at": message.at})
    with (folder / "received.jsonl").open("a") as file:
        file.write(line + "\n")


def _serve(port: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("*.eml")))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with Sink(port=port) as sink:
        seen = 0
        while not stop.wait(0.2):
            for message in sink.messages[seen:]:
                seen, number = seen + 1, number + 1
                write_message(folder, number, message)


SMTP.local_part_limit = 0  # RFC 5321's 64 octets is not what real receivers enforce

if __name__ == "__main__":
    _serve(int(sys.argv[1]), Path(sys.argv[2]))
