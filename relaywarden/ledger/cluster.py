"""cluster - a Redis Cluster: which node holds a tenant, and a batch carried out by several nodes.

`SlotMap` (no I/O) knows the primary of each of the 16,384 slots, from CLUSTER SLOTS.  A batch is split by node, each part
keeps its order, and all operations of one tenant share a part, since a tenant's keys share a slot.  MOVED: the map is
corrected and the operation sent to the node that was named; the whole map is read again before the next batch.

How it fails: a node that is down fails the operations of its own tenants only; their replies are exceptions.  While it is
down they fail at once.  Asynchronously, a task tries the node every quarter of a second until it answers, so that a hung
node delays one batch and no more; blocking, it is tried by the next batch after that time.  When a replica is promoted the
map follows.  A slot that is being moved answers TRYAGAIN or ASK: its tenants' operations fail until it has arrived.

Known limits: the cluster needs `cluster-require-full-coverage no`, or every node answers CLUSTERDOWN when one is lost.  Nodes
must be reachable under the addresses that they announce (`cluster-announce-ip`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from redis import exceptions
from redis.crc import key_slot

from relaywarden.ledger.lane import Address, Command
from relaywarden.ledger.routes import AsyncServer, Route, Server

RETRY_SECONDS = 0.25
_MAX_REDIRECTS = 3
_FAILURES = (exceptions.RedisError, OSError)
_PING: Command = ("PING",)
_SLOTS: Command = ("CLUSTER", "SLOTS")


class SlotMap:
    """The primary of every slot, and when to ask for it again."""

    def __init__(self, seeds: Iterable[Address]) -> None:
        self._seeds = list(seeds)
        self._owners: dict[int, Address] = {}
        self.stale = True
        self._ask_again = 0.0

    @property
    def primaries(self) -> list[Address]:
        """All nodes that own slots."""
        return sorted(set(self._owners.values()))

    def wanted(self, now: float) -> bool:
        """Whether it is time to ask for the map."""
        return not self._owners or (self.stale and now >= self._ask_again)

    def sources(self, down: Callable[[Address], bool]) -> list[Address]:
        """Whom to ask, most promising first."""
        known = dict.fromkeys([*self.primaries, *self._seeds])
        return sorted(known, key=down)

    def learn(self, reply: Any, asked: Address, now: float) -> None:
        """Take in the reply to CLUSTER SLOTS: [[first, last, [host, port, ...], replicas...], ...]."""
        if not isinstance(reply, list) or not reply:
            raise exceptions.ConnectionError(f"{asked[0]}:{asked[1]} knows of no cluster: {reply!r:.100}")
        owners: dict[int, Address] = {}
        for first, last, primary, *_ in reply:
            host = primary[0].decode() if primary[0] else asked[0]  # a node that does not know its own address
            owners.update(dict.fromkeys(range(first, last + 1), (host, primary[1])))
        self._owners = owners
        self.stale = False
        self._ask_again = now + RETRY_SECONDS

    def asked_in_vain(self, now: float) -> None:
        """Nobody answered: go on with what is known for a while."""
        self._ask_again = now + RETRY_SECONDS

    def moved(self, error: exceptions.MovedError) -> None:
        """One slot has another owner; most likely others have too."""
        self._owners[error.slot_id] = (error.host, error.port)
        self.stale = True

    def split(self, commands: Sequence[Command], indexes: Iterable[int], replies: list[Any]) -> dict[Address, list[int]]:
        """The commands of each node; those whose slot nobody owns get their error at once."""
        parts: dict[Address, list[int]] = {}
        for index in indexes:
            slot = key_slot(commands[index][3].encode())  # EVALSHA sha 2 KEY ...
            owner = self._owners.get(slot)
            if owner is None:
                replies[index] = exceptions.ConnectionError(f"CLUSTERDOWN slot {slot} is not served")
                self.stale = True
            else:
                parts.setdefault(owner, []).append(index)
        return parts


class Cluster:
    """A `Route` to all nodes of a cluster; safe to share between threads."""

    def __init__(self, seeds: Sequence[Address], connect: Callable[[Address], Server], timeout: float) -> None:
        self._connect, self._timeout = connect, timeout
        self._map = SlotMap(seeds)
        self._servers: dict[Address, Server] = {}
        self._down: dict[Address, tuple[float, Exception]] = {}

    def execute(self, commands: Sequence[Command]) -> list[Any]:
        """See Route."""
        deadline = time.monotonic() + self._timeout
        self._discover(deadline)
        replies: list[Any] = [None] * len(commands)
        pending: Sequence[int] = range(len(commands))
        for _ in range(_MAX_REDIRECTS):
            parts = sorted(self._map.split(commands, pending, replies).items(), key=lambda part: part[0] in self._down)
            for left, (address, indexes) in zip(range(len(parts), 0, -1), parts, strict=True):
                share = max(0.01, (deadline - time.monotonic()) / left)  # a hung node must not use up its neighbours' time
                for index, reply in zip(indexes, self._ask(address, [commands[i] for i in indexes], share), strict=True):
                    replies[index] = reply
            pending = _redirected(self._map, replies)
            if not pending:
                break
        return replies

    def primaries(self) -> Sequence[Route]:
        """See Route."""
        self._discover(time.monotonic() + self._timeout)
        return [self._server(address) for address in self._map.primaries]

    def close(self) -> None:
        """See Route."""
        for server in self._servers.values():
            server.close()

    def _server(self, address: Address) -> Server:
        return self._servers.get(address) or self._servers.setdefault(address, self._connect(address))

    def _ask(self, address: Address, commands: Sequence[Command], timeout: float) -> list[Any]:
        until, error = self._down.get(address, (0.0, None))
        if error is not None and time.monotonic() < until:
            return [error] * len(commands)
        try:
            replies = self._server(address).execute(commands, timeout)
        except _FAILURES as failure:
            self._down[address] = (time.monotonic() + RETRY_SECONDS, failure)
            self._map.stale = True
            return [failure] * len(commands)
        self._down.pop(address, None)
        return replies

    def _discover(self, deadline: float) -> None:
        if not self._map.wanted(time.monotonic()):
            return
        sources = self._map.sources(self._down.__contains__)
        failure: Exception = exceptions.ConnectionError("no node of the cluster is known")
        for left, address in zip(range(len(sources), 0, -1), sources, strict=True):
            # Half of the time is for the batch itself.
            (reply,) = self._ask(address, [_SLOTS], max(0.01, (deadline - time.monotonic()) / left / 2))
            try:
                if isinstance(reply, Exception):
                    raise reply
                self._map.learn(reply, address, time.monotonic())
            except _FAILURES as error:
                failure = error
            else:
                return
        self._map.asked_in_vain(time.monotonic())
        if not self._map.primaries:
            raise failure


class AsyncCluster:
    """An `AsyncRoute` to all nodes of a cluster."""

    def __init__(self, seeds: Sequence[Address], connect: Callable[[Address], AsyncServer], timeout: float) -> None:
        self._connect, self._timeout = connect, timeout
        self._map = SlotMap(seeds)
        self._servers: dict[Address, AsyncServer] = {}
        self._down: dict[Address, Exception] = {}
        self._watchers: dict[Address, asyncio.Task[None]] = {}

    async def execute(self, commands: Sequence[Command]) -> list[Any]:
        """See AsyncRoute."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        if self._map.wanted(loop.time()):
            await self._discover(deadline)
        replies: list[Any] = [None] * len(commands)
        pending: Sequence[int] = range(len(commands))
        for _ in range(_MAX_REDIRECTS):
            parts = self._map.split(commands, pending, replies)
            asked = [self._ask(address, [commands[i] for i in indexes], deadline) for address, indexes in parts.items()]
            answers = await asyncio.gather(*asked) if len(asked) > 1 else [await part for part in asked]
            for indexes, answer in zip(parts.values(), answers, strict=True):
                for index, reply in zip(indexes, answer, strict=True):
                    replies[index] = reply
            pending = _redirected(self._map, replies)
            if not pending:
                break
        return replies

    async def close(self) -> None:
        """See AsyncRoute."""
        for watcher in self._watchers.values():
            watcher.cancel()
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)
        for server in self._servers.values():
            await server.close()

    def _server(self, address: Address) -> AsyncServer:
        return self._servers.get(address) or self._servers.setdefault(address, self._connect(address))

    async def _ask(self, address: Address, commands: Sequence[Command], deadline: float) -> list[Any]:
        if (error := self._down.get(address)) is not None:
            return [error] * len(commands)
        try:
            return await self._server(address).execute(commands, deadline)
        except _FAILURES as failure:
            self._map.stale = True
            if address not in self._watchers:
                self._down[address] = failure
                self._watchers[address] = asyncio.get_running_loop().create_task(self._watch(address))
            return [failure] * len(commands)

    async def _watch(self, address: Address) -> None:
        """Try a node that is down until it answers (then it is asked again) or is no part of the cluster any more."""
        try:
            while address in self._map.sources(self._down.__contains__):
                await asyncio.sleep(RETRY_SECONDS)
                try:
                    (reply,) = await self._server(address).execute([_PING])
                except _FAILURES as error:
                    self._down[address] = error
                    continue
                if not isinstance(reply, Exception):
                    return
        finally:
            self._down.pop(address, None)
            self._watchers.pop(address, None)

    async def _discover(self, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        failure: Exception = exceptions.ConnectionError("no node of the cluster is known")
        sources = self._map.sources(self._down.__contains__)
        for left, address in zip(range(len(sources), 0, -1), sources, strict=True):
            now = loop.time()
            (reply,) = await self._ask(address, [_SLOTS], now + (deadline - now) / left / 2)
            try:
                if isinstance(reply, Exception):
                    raise reply
                self._map.learn(reply, address, loop.time())
            except _FAILURES as error:
                failure = error
            else:
                return
        self._map.asked_in_vain(loop.time())
        if not self._map.primaries:
            raise failure


def _redirected(slots: SlotMap, replies: Sequence[Any]) -> list[int]:
    """What is to be sent again, to the nodes that MOVED named."""
    moved = [index for index, reply in enumerate(replies) if isinstance(reply, exceptions.MovedError)]
    for index in moved:
        slots.moved(replies[index])
    return moved
