"""smtpload - customers' SMTP sessions: each logs in once, then sends message after message, as `smtp-source -d` does.

One command at a time without PIPELINING, as most applications send.  Greeting, EHLO and AUTH PLAIN are said here, before the
clock starts; MAIL, RCPT, DATA and the message are pieces for `loadclient`.

Fails with SessionError when the login is refused, with LoadError when a message is.
"""

from __future__ import annotations

import base64
import socket

from loadclient import NUMBER, LoadClient, Measured
from milterload import RECIPIENT, SENDER, message


class SessionError(RuntimeError):
    """The server did not take the login."""


def login(host: str, port: int, user: str, password: str) -> socket.socket:
    """A session that may send."""
    sock = socket.create_connection((host, port), timeout=20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    secret = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
    for command in ("", "EHLO app.acme.example\r\n", f"AUTH PLAIN {secret}\r\n"):
        sock.sendall(command.encode())
        reply = b""
        while not reply.endswith(b"\n") or reply.splitlines()[-1][3:4] != b" ":
            piece = sock.recv(4096)
            if not piece:
                raise SessionError(f"closed after {reply!r}")
            reply += piece
        if not reply.startswith(b"2"):
            raise SessionError(reply.decode(errors="replace").strip())
    return sock


def pieces(size: int) -> list[bytes]:
    """One transaction."""
    headers, body = message(size)
    # Postfix adds its own Received; each message has an id of its own, as its log shows.
    kept = [(name, NUMBER.join(value.split(b"4711"))) for name, value in headers if name != b"Received"]
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in kept)
    return [b"MAIL FROM:<%b>\r\n" % SENDER, b"RCPT TO:<%b>\r\n" % RECIPIENT, b"DATA\r\n", lines + b"\r\n" + body + b".\r\n"]


def drive(
    load: LoadClient, address: tuple[str, int], user: tuple[str, str], size: int, sessions: int, messages: int
) -> Measured:
    """So many messages over so many sessions; ends when the last is accepted."""
    host, port = address
    return load.run("smtp", [login(host, port, *user) for _ in range(sessions)], pieces(size), messages=messages)
