"""milterload - what Postfix says to a milter about one transactional message, as pieces for `loadclient`.

A message is cut where the milter said that it answers; whatever it does not answer goes out in one piece, as Postfix sends
it.  `check_signs` runs one message the slow way first and verifies the signature, so that nobody is measured who only waves
the mail through.

Fails with ConnectionError when that message is refused or is not signed well.
"""

from __future__ import annotations

import dkim

from loadclient import NUMBER, LoadClient, Measured
from testbed.milterclient import _NO_REPLY, _NOT_SENT, MilterClient, packet, strings, wire

LOGIN, DOMAIN, SELECTOR = b"acme", "acme.example", "rw1"
SENDER, RECIPIENT = b"b@acme.example", b"customer@else.example"
Headers = list[tuple[bytes, bytes]]
_CHUNK = 65535
_CLIENT = ("192.0.2.9", 40001)


def message(size: int) -> tuple[Headers, bytes]:
    """A transactional message of about this many octets: headers as a milter is shown them, body with CRLF."""
    headers = [
        (b"Received", b"from app.acme.example (app.acme.example [192.0.2.9])\n\tby relay.example with ESMTPSA id 1234"),
        (b"Date", b"Tue, 24 Nov 2026 08:00:00 +0000"),
        (b"From", b'"Acme Shop" <orders@acme.example>'),
        (b"To", b"Customer <customer@else.example>"),
        (b"Subject", b"Your order 4711 has been sent"),
        (b"Message-ID", b"<4711.20261124@acme.example>"),
        (b"MIME-Version", b"1.0"),
        (b"Content-Type", b"text/plain; charset=utf-8"),
        (b"Content-Transfer-Encoding", b"7bit"),
        (b"List-Unsubscribe", b"<https://acme.example/u/4711>"),
        (b"List-Unsubscribe-Post", b"List-Unsubscribe=One-Click"),
    ]
    line = b"The parcel with your order is on its way and will arrive soon, thank you.\r\n"
    return headers, line * max(1, (size - 700) // len(line))


def check_signs(address: str, record: bytes, size: int = 3000) -> int:
    """Does the milter sign, with the key of this DNS record?  How many pieces a message has for it."""
    headers, body = message(size)
    with MilterClient(address) as client:
        reply = client.message(headers, body, login=LOGIN, sender=SENDER, recipients=[RECIPIENT])
        steps = client.steps
    if not reply.accepted:
        raise ConnectionError(f"{address} refused the message: {reply.kind} {reply.text}")
    signed = dkim.DKIM(wire(reply.apply(headers), body))
    if not signed.verify(0, dnsfunc=lambda *_args, **_more: record):
        raise ConnectionError(f"{address} does not sign the message well: {reply.changes}")
    return len(pieces(steps, headers, body))


def pieces(steps: int, headers: Headers, body: bytes) -> list[bytes]:
    """What to send for one message to a milter that negotiated these steps, cut where it answers."""
    macros = strings(b"{auth_authen}", LOGIN, b"{auth_type}", b"PLAIN", b"{mail_addr}", SENDER)
    queue = strings(b"i", NUMBER)
    commands: list[tuple[bytes, bytes]] = [
        (b"M", packet(b"D", b"M" + macros) + packet(b"M", strings(b"<%b>" % SENDER))),
        (b"R", packet(b"D", b"R" + queue) + packet(b"R", strings(b"<%b>" % RECIPIENT))),
        (b"T", packet(b"D", b"T" + queue) + packet(b"T")),
        *((b"L", packet(b"L", strings(name, value))) for name, value in headers),
        (b"N", packet(b"N")),
        *((b"B", packet(b"B", body[at : at + _CHUNK])) for at in range(0, len(body), _CHUNK)),
        (b"E", packet(b"D", b"E" + queue) + packet(b"E")),
    ]
    found = [b""]
    for command, data in commands:
        if steps & _NOT_SENT.get(command, 0):
            continue
        found[-1] += data
        if not steps & _NO_REPLY.get(command, 0) and command != b"E":
            found.append(b"")
    return found


def drive(load: LoadClient, address: str, size: int, connections: int, *, seconds: float = 0.0, messages: int = 0) -> Measured:
    """Keep this many SMTP sessions' connections to the milter busy for so long, or for so many messages."""
    clients = []
    for _ in range(connections):  # each begins to talk at once, as Postfix' smtpd does
        clients.append(client := MilterClient(address))
        client.negotiate()
        client.begin(_CLIENT)
    sockets, script = [client.sock for client in clients], pieces(clients[0].steps, *message(size))
    return load.run("milter", sockets, script, seconds=seconds, messages=messages)
