"""lane - one asyncio connection to a Redis server, for batches of commands: one write out, replies counted off in order.

redis.asyncio spends on each reply of a pipeline a timeout context, a stream reader and its telemetry, more than the
decision itself takes; here hiredis packs a batch into one write and parses what comes back.  Wire format: RESP2 over TCP,
TLS or a Unix socket, after AUTH and SELECT where the store asks for them.  Several batches may be on their way at once.

How it fails: redis.exceptions throughout.  Error replies stand in the list of replies, as exceptions; a connection that is
refused, closed or breaks the protocol raises ConnectionError, one that is silent beyond the deadline TimeoutError.  Then the
connection is dropped, since a late reply would answer the wrong request.  A caller that is cancelled leaves its replies to
be counted off, and its deadline in force: the connection stays in step, or is dropped.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import hiredis
from redis import exceptions

Command = tuple[Any, ...]
Address = tuple[str, int]

_ERRORS: dict[str, type[exceptions.ResponseError]] = {
    "MOVED": exceptions.MovedError,
    "ASK": exceptions.AskError,
    "NOSCRIPT": exceptions.NoScriptError,
    "READONLY": exceptions.ReadOnlyError,
}


def _error(text: str) -> exceptions.ResponseError:
    """An error reply by its first word, as redis-py's own connections give it."""
    kind, _, rest = text.partition(" ")
    return _ERRORS[kind](rest) if kind in _ERRORS else exceptions.ResponseError(text)


@dataclass(frozen=True, slots=True)
class Door:
    """What a server wants of a new connection."""

    username: str | None = None
    password: str | None = None
    db: int = 0
    tls: bool = False


class _Batch:
    """Replies that are awaited, and who awaits them."""

    __slots__ = ("alarm", "count", "future", "replies")

    def __init__(self, count: int, future: asyncio.Future[list[Any]], alarm: asyncio.TimerHandle) -> None:
        self.count, self.future, self.alarm = count, future, alarm
        self.replies: list[Any] = []


class Lane(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=_error)
        self._batches: deque[_Batch] = deque()
        self._transport: asyncio.Transport | None = None
        self._lost = self._loop.create_future()

    @property
    def usable(self) -> bool:
        """Whether it is connected."""
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed by either side."""
        self._transport = None
        self._fail(exceptions.ConnectionError(str(exc) if exc else "Connection closed by server."))
        if not self._lost.done():
            self._lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Replies, in the order of the commands."""
        reader, batches = self._reader, self._batches
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                batch = batches[0]
                batch.replies.append(reply)
                if len(batch.replies) == batch.count:
                    batches.popleft()
                    batch.alarm.cancel()
                    if not batch.future.done():
                        batch.future.set_result(batch.replies)
        except (hiredis.HiredisError, IndexError) as error:
            self.close(exceptions.ConnectionError(f"not a reply to what was asked: {error}"))

    async def execute(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        """The replies; `deadline` by the loop's clock; raises redis' ConnectionError, TimeoutError."""
        if self._transport is None:
            raise exceptions.ConnectionError("Connection closed by server.")
        if not commands:
            return []
        batch = _Batch(len(commands), self._loop.create_future(), self._loop.call_at(deadline, self._expired))
        self._batches.append(batch)
        self._transport.write(b"".join([hiredis.pack_command(command) for command in commands]))
        return await batch.future

    def close(self, error: Exception | None = None) -> None:
        """Drop the connection with whatever is on its way."""
        self._fail(error or exceptions.ConnectionError("Connection closed."))
        if self._transport is not None:
            self._transport.abort()
            self._transport = None  # connection_lost comes in a later turn of the loop; nobody may write until then

    async def wait_closed(self) -> None:
        """Until the socket of a dropped connection is closed."""
        await self._lost

    def _expired(self) -> None:
        self.close(exceptions.TimeoutError("Timeout reading from socket"))

    def _fail(self, error: Exception) -> None:
        while self._batches:
            batch = self._batches.popleft()
            batch.alarm.cancel()
            if not batch.future.done():
                batch.future.set_exception(error)


async def dial(address: Address | str, door: Door, deadline: float) -> Lane:
    """Connect to (host, port) or a Unix socket's path; raises redis' ConnectionError, TimeoutError, AuthenticationError."""
    loop = asyncio.get_running_loop()
    try:
        return await asyncio.wait_for(_dial(address, door, deadline), max(0.0, deadline - loop.time()))
    except asyncio.TimeoutError as error:
        raise exceptions.TimeoutError("Timeout connecting to server") from error
    except OSError as error:
        raise exceptions.ConnectionError(f"Error connecting to {_name(address)}: {error}") from error


async def _dial(address: Address | str, door: Door, deadline: float) -> Lane:
    loop = asyncio.get_running_loop()
    if isinstance(address, str):
        _, lane = await loop.create_unix_connection(Lane, address)
    else:
        tls = ssl.create_default_context() if door.tls else None
        _, lane = await loop.create_connection(Lane, address[0], address[1], ssl=tls)
    greeting: list[Command] = []
    if door.password:
        greeting.append(("AUTH", *((door.username,) if door.username else ()), door.password))
    if door.db:
        greeting.append(("SELECT", door.db))
    try:
        refused = [reply for reply in await lane.execute(greeting, deadline) if isinstance(reply, exceptions.ResponseError)]
    except BaseException:
        lane.close()
        raise
    if refused:
        lane.close()
        raise exceptions.AuthenticationError(str(refused[0])) from refused[0]
    return lane


def _name(address: Address | str) -> str:
    return address if isinstance(address, str) else f"{address[0]}:{address[1]}"
