"""connection - one peer (a Postfix smtpd) and its requests, answered in the order in which they came.

Every request gets a slot; a slot is filled at once, or when the ledger's batch comes back; the filled slots at the head
are written out together.  `_flush` is the only place that writes to the socket.

How it fails: bytes that are no policy request are logged once, requests before them are answered, then the connection is
closed without a further reply, which is what SMTPD_POLICY_README asks for: Postfix logs it and tries again.  A healthy
connection is never closed by us, however long it idles, except to stop: then as soon as nothing is outstanding.

Where no milter is wired, a transaction that another follows (or that its connection ends with) before its END-OF-MESSAGE, on
a service that does ask there, was aborted and is given back.  Postfix also closes connections that were idle for 300 s: if
the transaction goes on after that, END-OF-MESSAGE charges it again.

Known limits: no bound on the number of connections but the process's file descriptors.  With
`smtpd_policy_service_request_limit` set, Postfix closes connections within a transaction and goes on at once over another: if
another worker takes that one, its END-OF-MESSAGE may be booked before this worker's end of the connection, which then gives the
message back.  Leave it at its default, 0.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from time import perf_counter
from typing import cast

from relaywarden.ledger.operations import Abandon, Account, Decision, Done, Result
from relaywarden.logs import event
from relaywarden_policyd.decide import Question, answer
from relaywarden_policyd.desk import Desk, nobody_waits
from relaywarden_policyd.protocol import DUNNO, MalformedError, Parser, Request, State, encode_reply
from relaywarden_policyd.verdict import Action, Verdict

log = logging.getLogger(__name__)
MAX_OUTSTANDING = 64  # requests of one connection; Postfix itself never has more than one


class _Slot:
    """One request on its way to its reply."""

    __slots__ = ("begun", "connection", "question", "reply", "request")

    def __init__(self, connection: Connection, request: Request) -> None:
        self.connection, self.request, self.begun = connection, request, perf_counter()
        self.question: Question | None = None
        self.reply = b""

    def settle(self, result: Result, local: bool) -> None:
        """The ledger's result is here."""
        try:
            question = cast("Question", self.question)
            self.conclude(answer(question, cast("Decision | Done", result), local=local))
            self.connection.flush()
        except Exception:  # a fault of ours: Postfix must not wait for it, and the rest of the batch even less
            log.exception("a request could not be answered")
            self.connection.abort()

    def conclude(self, verdict: Verdict) -> None:
        """The verdict is here."""
        self.reply = DUNNO if verdict.action is Action.DUNNO else encode_reply(verdict.reply)
        self.connection.concluded(self.request, verdict, self.begun)


class Connection(asyncio.Protocol):
    """The transport's callbacks."""

    __slots__ = (
        "_accepted", "_blocked", "_charged", "_closing", "_context", "_desk", "_instance", "_parser", "_paused", "_slots",
        "_transport",
    )  # fmt: skip

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._parser = Parser()
        self._slots: deque[_Slot] = deque()
        self._transport: asyncio.Transport | None = None
        self._closing = self._paused = self._blocked = False
        self._instance, self._accepted = "", 0  # this transaction, and how many recipients of it were let through
        self._charged: Account | None = None  # whom its recipients were charged to, until its end is seen
        self._context = ""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction was charged whose end was not seen yet."""
        return self._charged is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A peer came."""
        self._transport = cast("asyncio.Transport", transport)
        self._desk.connections.add(self)
        self._desk.counted(len(self._desk.connections))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the peer may leave as it likes
        """The peer went; what is still outstanding is decided and thrown away, Postfix will ask again."""
        self._transport = None
        self._slots.clear()
        self._abandon()
        self._desk.connections.discard(self)
        self._desk.counted(len(self._desk.connections))

    def data_received(self, data: bytes) -> None:
        """Bytes of the peer."""
        if self._closing:
            return
        try:
            requests = self._parser.feed(data)
        except MalformedError as error:
            requests = error.requests
            self._desk.meters.malformed()
            event(log, logging.WARNING, "not a policy request, closing the connection", peer=self._peer(), fault=str(error))
            self._closing = True
        for request in requests:
            self._take(request)
        self.flush()

    def eof_received(self) -> bool:
        """The peer sends no more; it still gets its replies."""
        self._closing = True
        self.flush()
        return True

    def pause_writing(self) -> None:
        """The peer does not read its replies: take no more requests from it."""
        self._blocked = True
        self._throttle()

    def resume_writing(self) -> None:
        """It reads again."""
        self._blocked = False
        self._throttle()

    def stop(self) -> None:
        """Close as soon as nothing is outstanding."""
        self._closing = True
        self.flush()

    def abort(self) -> None:
        """Close at once; Postfix connects again and resends."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def concluded(self, request: Request, verdict: Verdict, begun: float) -> None:
        """Book a verdict of this connection."""
        turned_away = verdict.action in (Action.DEFER, Action.REJECT)
        if turned_away and request.state is State.RCPT and request.instance == self._instance:
            self._accepted -= 1
        self._desk.note(request, verdict, begun)

    def flush(self) -> None:
        """Write the replies that are next in order; close if that was all there will be."""
        slots, transport = self._slots, self._transport
        if transport is None:
            return
        ready = []
        while slots and slots[0].reply:
            ready.append(slots.popleft().reply)
        if ready:
            transport.write(ready[0] if len(ready) == 1 else b"".join(ready))
        if self._closing and not slots:
            transport.close()
        elif self._paused or len(slots) >= MAX_OUTSTANDING or self._desk.batcher.full:
            self._throttle()

    def _take(self, request: Request) -> None:
        desk = self._desk
        earlier = 0
        if request.state is State.RCPT:
            if request.instance != self._instance:
                self._abandon()
                self._instance, self._accepted, self._context = request.instance, 0, request.policy_context
            earlier = self._accepted
            self._accepted += 1
        elif request.state is State.END_OF_MESSAGE and request.instance == self._instance:
            self._charged = None
            desk.asked_at_the_end.add(request.policy_context)
        desk.check_wiring(request)
        slot = _Slot(self, request)
        self._slots.append(slot)
        asked = desk.judge.ask(request, earlier)
        if isinstance(asked, Verdict):
            slot.conclude(asked)
        else:
            slot.question = asked
            if request.state is State.RCPT:
                self._charged = asked.operation.account
            desk.batcher.submit(asked.operation, slot.settle)

    def _abandon(self) -> None:
        """A transaction that was charged and never came to its end, on a service that asks there, was given up."""
        account, self._charged = self._charged, None
        known = self._desk.judge.gives_back and self._context in self._desk.asked_at_the_end
        if account is not None and self._instance and known:
            self._desk.batcher.submit(Abandon(account, self._instance), nobody_waits)

    def _throttle(self) -> None:
        """Read, or do not read, from the peer."""
        transport = self._transport
        if transport is None or self._closing:
            return
        stop = self._blocked or len(self._slots) >= MAX_OUTSTANDING or (self._desk.batcher.full and bool(self._slots))
        if stop and not self._paused:
            self._paused = True
            transport.pause_reading()
        elif not stop and self._paused:
            self._paused = False
            transport.resume_reading()

    def _peer(self) -> str:
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "unix"
