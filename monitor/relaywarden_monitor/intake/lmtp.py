"""lmtp - bounce messages and complaints over LMTP, from Postfix' lmtp(8).

Wire format: RFC 2033 by aiosmtpd, with a DATA of our own: lines of any length, and one reply for each recipient.  What exceeds
the limit is read and dropped, and the message accepted: a refusal would make Postfix bounce to who complains.

    250 2.0.0   the report was counted, or was none
    451 4.3.0   the ledger is down, or we are stopping: Postfix keeps the message
    421 4.3.2   too many connections

How it fails: a delivery that raises anything but StoreUnavailableError is a fault of ours; it is logged with its traceback and
answered 451, so that no report is lost by it.  `start` raises RelaywardenError for an address that cannot be listened on.

Known limits: no TLS and no AUTH: the addresses must be local.  Pipelined commands are answered one at a time.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiosmtpd.lmtp import LMTP

from relaywarden.addresses import Address, listen
from relaywarden.errors import RelaywardenError, StoreUnavailableError
from relaywarden.logs import event
from relaywarden_monitor.intake.deliver import Deliver

log = logging.getLogger(__name__)
logging.getLogger("mail.log").setLevel(logging.WARNING)  # aiosmtpd tells of every command
_DRAIN_SECONDS = 10.0
_CHUNK = 64 * 1024
_LONGEST_COMMAND = 2048  # RFC 5321 section 4.5.3.1.4 wants 512, extensions more
_MOST_RECIPIENTS = 100
_TAKEN = "250 2.0.0 Ok"
_LATER = "451 4.3.0 The report cannot be counted now, try again later"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may ask of us."""

    most_bytes: int = 4 * 2**20  # of a message are kept
    connections: int = 50
    at_once: int = 4  # deliveries at the same time
    timeout: float = 300.0  # seconds without a command


@dataclass(slots=True)
class Counts:
    """Since the start; written by the event loop only."""

    messages: int = 0
    cut: int = 0  # larger than the limit
    deferred: int = 0
    turned_away: int = 0  # connections


class LmtpIntake:
    """The listener, in a thread of its own; `deliver` is called in threads too, up to `limits.at_once` at a time."""

    def __init__(self, addresses: Sequence[Address], limits: Limits, deliver: Deliver) -> None:
        self._addresses, self.limits, self.deliver = addresses, limits, deliver
        self.counts = Counts()
        self.stopping = False
        self.sessions: set[asyncio.BaseTransport] = set()
        self.busy = 0  # sessions between DATA and its replies
        self.pool = ThreadPoolExecutor(limits.at_once, "lmtp-deliver")
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.AbstractServer] = []
        self._thread = threading.Thread(target=self._run, name="lmtp", daemon=True)

    def start(self) -> None:
        """Listen; raises RelaywardenError naming the address."""
        sockets: list[Any] = []
        try:
            for address in self._addresses:
                sockets.append(listen(address))
        except RelaywardenError:
            for sock in sockets:
                sock.close()
            raise
        self._thread.start()
        for sock in sockets:
            self._servers.append(asyncio.run_coroutine_threadsafe(self._serve(sock), self._loop).result())
        event(log, logging.INFO, "lmtp listens", addresses=",".join(map(str, self._addresses)))

    def stop(self) -> None:
        """Accept no more, finish the messages that are being delivered, close."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._drain(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()
        self.pool.shutdown()
        for address in self._addresses:
            if address.path is not None:
                Path(address.path).unlink(missing_ok=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _serve(self, sock: Any) -> asyncio.AbstractServer:
        def session() -> _Session:
            return _Session(self, self._loop)

        if sock.family.name == "AF_UNIX":
            return await self._loop.create_unix_server(session, sock=sock)
        return await self._loop.create_server(session, sock=sock)

    async def _drain(self) -> None:
        self.stopping = True
        for server in self._servers:
            server.close()
        deadline = self._loop.time() + _DRAIN_SECONDS
        while self.busy and self._loop.time() < deadline:
            await asyncio.sleep(0.02)
        if self.busy:
            event(log, logging.WARNING, "reports are still being delivered, their senders will try again", sessions=self.busy)
        for transport in list(self.sessions):
            transport.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class _Session(LMTP):
    """One connection."""

    command_size_limit = _LONGEST_COMMAND

    def __init__(self, intake: LmtpIntake, loop: asyncio.AbstractEventLoop) -> None:
        # No SIZE is announced: nothing is refused for its size.  SMTPUTF8 is, or Postfix would bounce such reports itself.
        super().__init__(
            _Recipients(), hostname="relaywarden", ident="relaywarden", data_size_limit=None, enable_SMTPUTF8=True,
            timeout=intake.limits.timeout, loop=loop, auth_exclude_mechanism=("LOGIN", "PLAIN"),
        )  # fmt: skip
        self._intake = intake

    def connection_made(self, transport: Any) -> None:
        """Turn it away where there are too many."""
        if self._intake.stopping or len(self._intake.sessions) >= self._intake.limits.connections:
            self._intake.counts.turned_away += 1
            event(log, logging.WARNING, "lmtp connection turned away", open=len(self._intake.sessions))
            transport.write(b"421 4.3.2 Too many connections, try again later\r\n")
            transport.close()
            return
        self._intake.sessions.add(transport)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Forget it."""
        if self.transport is not None:
            self._intake.sessions.discard(self.transport)
            super().connection_lost(error)

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802 - aiosmtpd finds it by this name
        """Like aiosmtpd's, but it takes lines of any length and answers for each recipient (RFC 2033 section 4.2)."""
        if await self.check_helo_needed("LHLO"):
            return
        if arg:
            await self.push("501 5.5.4 Syntax: DATA")
            return
        recipients = list(self.envelope.rcpt_tos) if self.envelope else []
        if not recipients:
            await self.push("503 5.5.1 Error: need RCPT command")
            return
        self._intake.busy += 1
        try:
            await self.push("354 End data with <CR><LF>.<CR><LF>")
            data = await self._receive()
            replies = [await self._hand_over(data, recipient) for recipient in recipients]
            await self.push("\r\n".join(replies))
            self._set_post_data_state()  # type: ignore[no-untyped-call]  # aiosmtpd's
        finally:
            self._intake.busy -= 1

    async def _receive(self) -> bytes:
        """The message up to its final dot; no more than the limit is kept."""
        kept, room, cut = bytearray(), self._intake.limits.most_bytes, False
        ending = b"\r\n"  # a dot counts after CR LF only: a bare LF before it must not smuggle a second message
        since_reset = 0
        while True:
            try:
                piece = await self._reader.readuntil(b"\n")
            except asyncio.LimitOverrunError as error:
                piece = await self._reader.read(min(max(error.consumed, 1), _CHUNK))
            after, ending = ending, (ending + piece)[-2:]
            if after == b"\r\n" and piece.startswith(b"."):
                if piece == b".\r\n":
                    break
                piece = piece[1:]  # transparency, RFC 5321 section 4.5.2
            cut = cut or len(kept) + len(piece) > room
            kept += piece[: room - len(kept)]
            since_reset += len(piece)
            if since_reset > _CHUNK:
                self._reset_timeout()
                since_reset = 0
        self._intake.counts.messages += 1
        if cut:
            self._intake.counts.cut += 1
            event(log, logging.WARNING, "a report is larger than monitor.max_report_size, its end is not read", limit=room)
        return bytes(kept)

    async def _hand_over(self, data: bytes, recipient: str) -> str:
        try:
            await self.loop.run_in_executor(self._intake.pool, self._intake.deliver, data, recipient)
        except StoreUnavailableError as error:
            event(log, logging.WARNING, "report deferred, the store is down", recipient=recipient, reason=str(error))
        except Exception:  # whatever it is, the sender must keep the report
            log.exception("report deferred, it could not be counted")
        else:
            return _TAKEN
        self._intake.counts.deferred += 1
        return _LATER


class _Recipients:
    """aiosmtpd's handler: bounds the recipients of a message."""

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802, ARG002
        """RFC 5321 section 4.5.3.1.10: the rest is sent in another transaction."""
        if len(envelope.rcpt_tos) >= _MOST_RECIPIENTS:
            return "452 4.5.3 Too many recipients"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"
