"""routes - the way to one Redis primary, blocking or asynchronous: a fixed server, or the one that Sentinel names.

A route carries out a batch of commands and gives their replies, errors among them as exceptions.  It connects at the first
batch and again after a failure, each time asking Sentinel where the primary is now.  Scripts that the server does not know
(NOSCRIPT: the first batch, after a restart, a failover, SCRIPT FLUSH) are loaded over the same connection, and only what
failed for it is sent again, in order.

How it fails: redis.exceptions; the whole of it, finding and connecting included, keeps the given timeout.  A connection is
dropped after a failure, never used out of step.

Known limits: with Sentinel, a primary that was cut off from its sentinels, but not from us, is used until it answers
READONLY or closes the connection; `min-replicas-to-write 1` in Redis makes it refuse (NOREPLICAS) instead.  A blocking
connection keeps its timeout in parts (see connect.py): its whole is somewhat longer when several servers hang at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol

import hiredis
from redis import exceptions
from redis.connection import ConnectionPool

from relaywarden.ledger import scripts
from relaywarden.ledger.lane import Address, Command, Door, Lane, dial

_WRITTEN_TOGETHER = 65_536  # bytes


class Route(Protocol):
    """Where a blocking ledger's commands go."""

    def execute(self, commands: Sequence[Command]) -> list[Any]:
        """One reply for each command, failures as exceptions; raises RedisError where nothing was carried out."""
        ...

    def primaries(self) -> Sequence[Route]:
        """One route to each server that holds a part of the ledger."""
        ...

    def close(self) -> None:
        """Give back connections."""
        ...


class AsyncRoute(Protocol):
    """Where an asynchronous ledger's commands go."""

    async def execute(self, commands: Sequence[Command]) -> list[Any]:
        """One reply for each command, failures as exceptions; raises RedisError where nothing was carried out."""
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...


def _loads() -> list[Command]:
    return [("SCRIPT", "LOAD", script.source) for script in scripts.scripts().values()]


def _unloaded(replies: Sequence[Any]) -> list[int]:
    return [index for index, reply in enumerate(replies) if isinstance(reply, exceptions.NoScriptError)]


class Server:
    """One primary behind a redis-py connection pool; safe to share between threads."""

    def __init__(self, pool: ConnectionPool, timeout: float) -> None:
        self._pool, self._timeout = pool, timeout

    def execute(self, commands: Sequence[Command], timeout: float | None = None) -> list[Any]:
        """See Route."""
        deadline = time.monotonic() + (timeout or self._timeout)
        connection: Any = self._pool.get_connection()
        try:
            replies = _exchange(connection, commands, deadline)
            if missing := _unloaded(replies):
                loads = _loads()
                resent = _exchange(connection, [*loads, *(commands[index] for index in missing)], deadline)
                for index, reply in zip(missing, resent[len(loads) :], strict=True):
                    replies[index] = reply
        except BaseException:
            connection.disconnect()
            raise
        finally:
            self._pool.release(connection)
        return replies

    def primaries(self) -> Sequence[Route]:
        """See Route."""
        return [self]

    def close(self) -> None:
        """See Route."""
        self._pool.disconnect()


def _packed(commands: Sequence[Command]) -> Iterator[bytes]:
    """The commands as sent, together: the library writes to the socket once for each of these."""
    waiting: list[bytes] = []
    size = 0
    for command in commands:
        text = hiredis.pack_command(command)
        waiting.append(text)
        size += len(text)
        if size >= _WRITTEN_TOGETHER:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def _exchange(connection: Any, commands: Sequence[Command], deadline: float) -> list[Any]:
    connection.send_packed_command(list(_packed(commands)))
    replies: list[Any] = []
    for _ in commands:
        try:
            # A thousandth is left to replies that are here already, so that one slow server hides no other's.
            replies.append(connection.read_response(timeout=max(0.001, deadline - time.monotonic())))
        except exceptions.ResponseError as error:
            replies.append(error)
    return replies


Finder = Callable[[], Awaitable[Address | str]]


class AsyncServer:
    """One primary behind a `Lane`; `find` says where it is now."""

    def __init__(self, find: Finder, door: Door, timeout: float, close: Callable[[], Awaitable[None]] | None = None) -> None:
        """`close` gives back what `find` uses."""
        self._find, self._door, self._timeout, self._close = find, door, timeout, close
        self._lane: Lane | None = None
        self._connecting: asyncio.Lock | None = None

    async def execute(self, commands: Sequence[Command], deadline: float | None = None) -> list[Any]:
        """See AsyncRoute; `deadline` by the loop's clock, if it is earlier than the timeout's."""
        deadline = deadline or asyncio.get_running_loop().time() + self._timeout
        lane = self._lane
        if lane is None or not lane.usable:
            lane = await self._connect(deadline)
        replies = await lane.execute(commands, deadline)
        if missing := _unloaded(replies):
            loads = _loads()
            resent = await lane.execute([*loads, *(commands[index] for index in missing)], deadline)
            for index, reply in zip(missing, resent[len(loads) :], strict=True):
                replies[index] = reply
        if any(isinstance(reply, exceptions.ReadOnlyError) for reply in replies):
            lane.close()  # a primary no longer: find the new one
        return replies

    async def close(self) -> None:
        """See AsyncRoute."""
        if self._lane is not None:
            self._lane.close()
            await self._lane.wait_closed()
        if self._close is not None:
            await self._close()

    async def _connect(self, deadline: float) -> Lane:
        self._connecting = self._connecting or asyncio.Lock()
        async with self._connecting:
            if self._lane is None or not self._lane.usable:
                left = deadline - asyncio.get_running_loop().time()
                try:
                    where = await asyncio.wait_for(self._find(), max(0.0, left))
                except asyncio.TimeoutError as error:
                    raise exceptions.ConnectionError("Timeout asking Sentinel for the primary") from error
                self._lane = await dial(where, self._door, deadline)
            return self._lane


def fixed(where: Address | str) -> Finder:
    """A server that never moves."""

    async def find() -> Address | str:
        return where

    return find
