"""postfixlog - Postfix' log as events: who sent a message, what it was, what became of it.

Wire format: postfixline says what a line is, postfixattempt and postfixrefusal what the two long kinds are.  The others, after
the queue id:

    smtpd     client=name[192.0.2.9], sasl_method=PLAIN, sasl_username=acme, sasl_sender=...     Accepted
    cleanup   message-id=<...>, resent-message-id=<...>                                          Described
    qmgr      from=<...>, size=257, nrcpt=5 (queue active)                                       Described
    qmgr      from=<...>, status=expired, returned to sender                                     Attempt, see below
    qmgr      removed (postsuper too)                                                            Gone
    bounce    sender non-delivery notification: NEWID; delay, delivery status, postmaster        Notified

`status=expired` names no recipient: all that were deferred last are given up.  Its Attempt has an empty recipient.

State: which client and login each smtpd process serves, for refusals that come before there is a queue id.  It holds the last
256 sessions that named a login; `state` and `restore` carry it over a restart, without them only those logins are missing.
So the same lines give the same events, however they are cut.

How it fails: a line with a queue id that begins as one of ours and does not fit is counted in `unknown`, the first one is
logged as a warning; so are lines that name Postfix in a form that no syslog daemon is known to write.  Other texts are notes
for people (TLS, warnings, `host ... said` before the next MX is tried) and give nothing.

Known limits: a session that was never let in names no login, so its refusals have none (policyd counts them itself).  After a
content filter that speaks SMTP a message has a second queue id, without login.  `postfix reload` after a change of
enable_long_queue_ids, or a queue restored from a copy, renames what is queued and does not log it: the rest of these
messages has no login.
"""

from __future__ import annotations

import datetime
import logging
import re
from collections.abc import Callable, Iterable
from typing import Any

from relaywarden import logs
from relaywarden.errors import ProtocolError
from relaywarden_monitor.events import Accepted, Attempt, Described, Event, Gone, Notified, Outcome
from relaywarden_monitor.ingest import postfixline
from relaywarden_monitor.ingest.postfixattempt import attempt
from relaywarden_monitor.ingest.postfixline import NOQUEUE, Line, LineParser, shown
from relaywarden_monitor.ingest.postfixrefusal import refused

MOST_SESSIONS = 256
LONGEST_SESSION = 512  # characters of host, client and login; a longer one is not remembered
_CLIENT = re.compile(rb"client=([^\[\]\s]{0,255}\[[^\]\s]{1,64}\])(?::\d{1,5})?(?:, (.*))?", re.DOTALL)
_ACTIVE = re.compile(rb"from=<(.*)>, size=(\d{1,18}), nrcpt=(\d{1,9}) \(queue active\)", re.DOTALL)
_NOTICE = re.compile(rb"(sender|postmaster) (non-delivery|delay|delivery status) notification: ([0-9A-Za-z]{6,32})")
_MESSAGE_ID = re.compile(rb"(?:resent-)?message-id=(.*)", re.DOTALL)
_EXPIRED = (b">, status=expired, returned to sender", b">, status=force-expired, returned to sender")
_log = logging.getLogger(__name__)


class PostfixLog:
    """Reads the log of one source; used by one thread."""

    def __init__(self, tz: datetime.tzinfo | None = None) -> None:
        """`tz`: the zone of stamps that name none; default the system's."""
        self._parser = LineParser(tz)
        self._misfits = 0
        self._sessions: dict[str, tuple[str, str]] = {}  # "host pid" -> client, login; the latest last
        self._readers: dict[str, Callable[[Line], Event | None]] = {
            **dict.fromkeys(postfixline.AGENTS, _delivery),
            **dict.fromkeys(postfixline.QUEUE_MANAGERS, _queue),
            **dict.fromkeys(postfixline.SERVERS, self._server),
            "postsuper": _queue,
            "cleanup": _cleanup,
            "bounce": _bounce,
        }

    @property
    def unknown(self) -> int:
        """Lines so far that look like Postfix' and were not understood."""
        return self._misfits + self._parser.strange

    def feed(self, lines: Iterable[bytes], reference: float) -> list[Event]:
        """The events of whole lines, in their order; `reference`: seconds since 1970, about when they were written."""
        events, parse, take = [], self._parser.parse, self.take
        for raw in lines:
            line = parse(raw, reference)
            if line is not None:
                found = take(line)
                if found is not None:
                    events.append(found)
        return events

    def take(self, line: Line) -> Event | None:
        """The event of one line, such as postfixline.from_parts makes of a journal's record."""
        try:
            return self._readers[line.service](line)
        except ProtocolError as error:
            level = logging.DEBUG if self._misfits else logging.WARNING
            self._misfits += 1
            logs.event(
                _log, level, "log line not understood", service=line.service, queue_id=line.queue_id,
                reason=str(error), line=shown(line.text[:500]),
            )  # fmt: skip
            return None

    def state(self) -> dict[str, Any]:
        """What a restart should not lose, as JSON."""
        return {"sessions": [[key, client, login] for key, (client, login) in self._sessions.items()]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave; what is not of that shape is left out, and logged."""
        sessions = state.get("sessions")
        self._sessions.clear()
        for row in sessions if isinstance(sessions, list) else []:
            match row:
                case [str(key), str(client), str(login)]:
                    self._remember(key, client, login)
                case _:
                    logs.event(_log, logging.WARNING, "kept session not understood", expected="[key, client, login]", got=row)

    def _server(self, line: Line) -> Event | None:
        """smtpd, qmqpd, postscreen."""
        text = line.text
        key = f"{line.host} {line.pid}"
        if not line.queue_id:  # connect, disconnect
            self._sessions.pop(key, None)
            return None
        if text.startswith(b"client="):
            client, login = _client(text)
            self._remember(key, client, login)
            return None if line.queue_id == NOQUEUE else Accepted(line.at, line.queue_id, login, client)
        client, login = self._sessions.get(key, ("", ""))
        return refused(line, login, client)

    def _remember(self, key: str, client: str, login: str) -> None:
        sessions = self._sessions
        sessions.pop(key, None)
        if login and len(key) + len(client) + len(login) <= LONGEST_SESSION:
            sessions[key] = (client, login)
            if len(sessions) > MOST_SESSIONS:
                del sessions[next(iter(sessions))]


def _client(text: bytes) -> tuple[str, str]:
    """(client, login).  The client of the session may name itself what it likes in sasl_sender, which is why that is last."""
    found = _CLIENT.fullmatch(text)
    if found is None:
        raise ProtocolError("expected client=name[address]")
    _, _, tail = (found[2] or b"").partition(b"sasl_username=")
    return shown(found[1]), shown(tail.partition(b", sasl_sender=")[0])


def _cleanup(line: Line) -> Event | None:
    found = _MESSAGE_ID.match(line.text)
    if found is not None:
        text = found[1]
        return Described(line.at, line.queue_id, shown(text[1:-1] if text[:1] == b"<" and text[-1:] == b">" else text))
    return _delivery(line) if line.text.startswith(b"to=<") else refused(line)


def _queue(line: Line) -> Event | None:
    text = line.text
    if text == b"removed":
        return Gone(line.at, line.queue_id)
    if text.startswith(b"from=<"):
        if found := _ACTIVE.fullmatch(text):
            return Described(line.at, line.queue_id, "", shown(found[1]), int(found[2]), int(found[3]))
        if text.endswith(_EXPIRED):
            return Attempt(line.at, line.queue_id, "", Outcome.BOUNCED, given_up=True)
        raise ProtocolError("expected from=<...>, size=..., nrcpt=... (queue active), or status=expired, returned to sender")
    return _delivery(line)


def _delivery(line: Line) -> Event | None:
    """Delivery agents, and who bounces or defers by itself: the queue manager, cleanup."""
    return attempt(line) if line.text.startswith(b"to=<") else None


def _bounce(line: Line) -> Event | None:
    found = _NOTICE.fullmatch(line.text)
    if found is None:
        return None
    kind = "postmaster" if found[1] == b"postmaster" else found[2].decode().removesuffix(" status")
    return Notified(line.at, line.queue_id, found[3].decode(), kind)
