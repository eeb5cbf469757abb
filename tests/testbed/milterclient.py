"""A milter client: what Postfix says to a milter, octet for octet, and the means to say it wrongly.

Wire format (libmilter's mfdef.h): packets of a 4-octet length, a command octet and data; strings end with NUL.  The client
negotiates version 6 and then waits for a reply only where the milter did not negotiate it away.  `send_raw` sends anything.

`message` runs one whole transaction and returns a `Reply`: the modifications asked for and the final answer.
`Reply.apply` carries the modifications out as Postfix does, for tests that verify what would be delivered.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

Header = tuple[bytes, bytes]
# What each command's "no reply" and "do not send" bits are (mfdef.h: SMFIP_NR_*, SMFIP_NO*).
_NO_REPLY = {b"C": 0x1000, b"H": 0x2000, b"M": 0x4000, b"R": 0x8000, b"T": 0x10000, b"N": 0x40000, b"B": 0x80000, b"L": 0x80}
_NOT_SENT = {b"C": 0x1, b"H": 0x2, b"M": 0x4, b"R": 0x8, b"B": 0x10, b"L": 0x20, b"N": 0x40, b"T": 0x200}
_ALL_ACTIONS = 0x1FF
_ALL_STEPS = 0x1FFFFF
_FINAL = frozenset(b"acdrty")
_CHUNK = 65535


@dataclass
class Reply:
    """`kind`: a (accept), c (continue), r (reject), t (tempfail), d (discard), y (reply with `text`)."""

    kind: str
    text: str = ""
    changes: list[tuple[str, int, str, str]] = field(default_factory=list)  # kind (h, i, m), index, name, value
    hold: str = ""
    replaced: bytes | None = None  # the new body, where there is one

    @property
    def accepted(self) -> bool:
        return self.kind in "ac"

    def wire(self, headers: Sequence[Header], body: bytes) -> bytes:
        """The whole message after Postfix carried out the changes, as it goes out."""
        return wire(self.apply(headers), body if self.replaced is None else self.replaced)

    def apply(self, headers: Sequence[Header]) -> list[Header]:
        """The headers after Postfix carried out the changes (its own Received, which has index 0, not shown)."""
        result = list(headers)
        for kind, index, name, value in self.changes:
            line = (name.encode(), value.encode("utf-8", "surrogateescape"))
            if kind == "h":
                result.append(line)
            elif kind == "i":
                result.insert(max(0, index - 1), line)
            else:
                places = [at for at, given in enumerate(result) if given[0].strip().lower() == line[0].strip().lower()]
                if len(places) >= index and value:
                    result[places[index - 1]] = line
                elif len(places) >= index:
                    del result[places[index - 1]]
        return result


def packet(command: bytes, data: bytes = b"") -> bytes:
    return struct.pack("!IB", len(data) + 1, command[0]) + data


def strings(*values: bytes) -> bytes:
    return b"".join(value + b"\0" for value in values)


def wire(headers: Iterable[Header], body: bytes) -> bytes:
    """The message as it goes out over SMTP."""
    lines = [name + b": " + value.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") + b"\r\n" for name, value in headers]
    return b"".join([*lines, b"\r\n", body])


class MilterClient:
    """One connection to a milter; `address` is a path or (host, port)."""

    def __init__(self, address: str | tuple[str, int], timeout: float = 20.0) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        self.sock.connect(address)
        self._buffer = b""
        self.actions = self.steps = 0

    def negotiate(self, actions: int = _ALL_ACTIONS, steps: int = _ALL_STEPS) -> None:
        self.send_raw(packet(b"O", struct.pack("!III", 6, actions, steps)))
        command, data = self.read()
        if command != b"O":
            raise ConnectionError(f"expected a negotiation, got {command!r}")
        _, self.actions, self.steps = struct.unpack("!III", data[:12])

    def send_raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read(self) -> tuple[bytes, bytes]:
        """The next packet of the milter; ConnectionError at the end of the connection."""
        head = self._take(5)
        (length,) = struct.unpack("!I", head[:4])
        return head[4:5], self._take(length - 1)

    def _take(self, wanted: int) -> bytes:
        while len(self._buffer) < wanted:
            piece = self.sock.recv(65536)
            if not piece:
                raise ConnectionError("the milter closed the connection")
            self._buffer += piece
        taken, self._buffer = self._buffer[:wanted], self._buffer[wanted:]
        return taken

    def command(self, command: bytes, data: bytes = b"", macros: Mapping[bytes, bytes] | None = None) -> str:
        """One step; the reply's kind where one is due."""
        if self.steps & _NOT_SENT.get(command, 0):
            return "c"
        prefix = b""
        if macros:
            prefix = packet(b"D", command + strings(*(item for pair in macros.items() for item in pair)))
        self.send_raw(prefix + packet(command, data))
        if self.steps & _NO_REPLY.get(command, 0):
            return "c"
        return self.read()[0].decode()

    def begin(self, client: tuple[str, int] = ("192.0.2.99", 40001), helo: bytes = b"client.example") -> None:
        """connect and HELO."""
        address, port = client
        family = b"6" if ":" in address else b"4"
        data = strings(b"[" + address.encode() + b"]") + family + struct.pack("!H", port) + strings(address.encode())
        self.command(b"C", data, {b"j": b"relay.test"})
        self.command(b"H", strings(helo))

    def envelope(self, login: bytes | None, sender: bytes, recipients: Sequence[bytes], queue_id: bytes) -> None:
        macros = {b"{mail_addr}": sender}
        if login is not None:
            macros |= {b"{auth_authen}": login, b"{auth_type}": b"PLAIN"}
        self.command(b"M", strings(b"<" + sender + b">"), macros)
        for recipient in recipients:
            self.command(b"R", strings(b"<" + recipient + b">"), {b"i": queue_id, b"{rcpt_addr}": recipient})

    def message(
        self,
        headers: Sequence[Header],
        body: bytes,
        *,
        login: bytes | None = b"acme",
        sender: bytes = b"bounce@acme.example",
        recipients: Sequence[bytes] = (b"someone@else.example",),
        queue_id: bytes = b"4QUEUEID",
    ) -> Reply:
        """One whole transaction."""
        self.envelope(login, sender, recipients, queue_id)
        self.content(headers, body)
        return self.end(queue_id)

    def content(self, headers: Sequence[Header], body: bytes) -> None:
        self.command(b"T")
        for name, value in headers:
            self.command(b"L", strings(name, value))
        self.command(b"N")
        for at in range(0, len(body), _CHUNK):
            self.command(b"B", body[at : at + _CHUNK])

    def end(self, queue_id: bytes = b"4QUEUEID") -> Reply:
        """End of message, and what the milter makes of it."""
        self.send_raw(packet(b"D", b"E" + strings(b"i", queue_id)) + packet(b"E"))
        reply = Reply("")
        while not reply.kind:
            command, data = self.read()
            if command[0] in _FINAL:
                reply.kind, reply.text = command.decode(), data.rstrip(b"\0").decode("utf-8", "replace")
            elif command == b"q":
                reply.hold = data.rstrip(b"\0").decode()
            elif command in (b"i", b"m", b"h"):
                index = struct.unpack("!I", data[:4])[0] if command != b"h" else 0
                name, value = (data if command == b"h" else data[4:]).split(b"\0")[:2]
                reply.changes.append((command.decode(), index, name.decode(), value.decode("utf-8", "surrogateescape")))
            elif command == b"b":
                reply.replaced = (reply.replaced or b"") + data
            elif command != b"p":
                raise ConnectionError(f"unexpected packet {command!r}")
        return reply

    def abort(self) -> None:
        self.send_raw(packet(b"A"))

    def close(self) -> None:
        try:
            self.send_raw(packet(b"Q"))
        except OSError:
            pass  # gone already
        self.sock.close()

    def __enter__(self) -> MilterClient:
        self.negotiate()
        self.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
