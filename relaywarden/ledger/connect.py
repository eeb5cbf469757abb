"""connect - from `store:` in the configuration to an open ledger.

Nothing connects to Redis before the first batch, so that a program starts while its store is down, and may fork first.

`ledger.timeout` is for a whole batch.  The asynchronous ledger keeps it by one deadline.  redis-py, on which the blocking
one is built, has timeouts for single steps only: connecting and greeting get a part each, asking the sentinels another, and
what is left is for the batch.  Known limits: sentinels are asked without password or TLS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import redis.asyncio.sentinel
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry

from relaywarden.config.settings import Settings
from relaywarden.ledger.cluster import AsyncCluster, Cluster
from relaywarden.ledger.lane import Address, Door
from relaywarden.ledger.operations import AsyncLedger, Ledger, Operation, Result
from relaywarden.ledger.redis_store import AsyncRedisLedger, RedisLedger
from relaywarden.ledger.routes import AsyncRoute, AsyncServer, Finder, Route, Server, fixed
from relaywarden.ledger.sqlite import SqliteLedger
from relaywarden.ledger.store_url import Store


def open_ledger(settings: Settings) -> Ledger:
    """A blocking ledger; raises SpecError, StoreUnavailableError (SQLite at once, Redis at the first batch)."""
    store, ttl = Store.parse(settings.store), settings.ledger.ticket_ttl
    if store.scheme == "sqlite":
        return SqliteLedger(Path(store.path), timeout_ms=settings.ledger.timeout, ticket_ttl_ms=ttl)
    return RedisLedger(_route(store, settings.ledger.timeout / 1000), str(store), ticket_ttl_ms=ttl)


def open_async_ledger(settings: Settings) -> AsyncLedger:
    """A ledger for a running event loop; raises SpecError, StoreUnavailableError."""
    store, ttl = Store.parse(settings.store), settings.ledger.ticket_ttl
    if store.scheme == "sqlite":
        return ThreadedLedger(open_ledger(settings))
    return AsyncRedisLedger(_async_route(store, settings.ledger.timeout / 1000), str(store), ticket_ttl_ms=ttl)


def _route(store: Store, timeout: float) -> Route:
    options: dict[str, Any] = {
        "db": store.db,
        "username": store.username,
        "password": store.password,
        "socket_timeout": timeout / 4,
        "socket_connect_timeout": timeout / 4,
        "protocol": 2,  # RESP2: scripts reply arrays and integers only, and its parser is the faster one
        "retry": Retry(NoBackoff(), 0),  # whoever asks the ledger decides what a failure means; it is never waited out here
    }
    if store.scheme == "redis+sentinel":
        for_sentinels = _for_sentinels(store, timeout, Retry(NoBackoff(), 0))
        sentinel = redis.sentinel.Sentinel(store.hosts, sentinel_kwargs=for_sentinels)  # type: ignore[no-untyped-call]
        pool = redis.sentinel.SentinelConnectionPool(store.service, sentinel, **options)  # type: ignore[no-untyped-call]
        return Server(pool, timeout)
    if store.scheme == "redis+cluster":

        def node(address: Address) -> Server:
            return Server(ConnectionPool(host=address[0], port=address[1], **options), timeout)

        return Cluster(store.hosts, node, timeout)
    if store.scheme == "redis+unix":
        del options["socket_connect_timeout"]
        return Server(ConnectionPool(connection_class=UnixDomainSocketConnection, path=store.path, **options), timeout)
    if store.scheme == "rediss":
        options["connection_class"] = SSLConnection
    return Server(ConnectionPool(host=store.hosts[0][0], port=store.hosts[0][1], **options), timeout)


def _async_route(store: Store, timeout: float) -> AsyncRoute:
    door = Door(store.username, store.password, store.db, tls=store.scheme == "rediss")
    if store.scheme == "redis+sentinel":
        for_sentinels = _for_sentinels(store, timeout, AsyncRetry(NoBackoff(), 0))
        sentinel = redis.asyncio.sentinel.Sentinel(store.hosts, sentinel_kwargs=for_sentinels)  # type: ignore[no-untyped-call]
        find: Finder = partial(sentinel.discover_master, store.service)
        return AsyncServer(find, door, timeout, sentinel.aclose)
    if store.scheme == "redis+cluster":
        return AsyncCluster(store.hosts, lambda address: AsyncServer(fixed(address), door, timeout), timeout)
    return AsyncServer(fixed(store.path if store.scheme == "redis+unix" else store.hosts[0]), door, timeout)


def _for_sentinels(store: Store, timeout: float, retry: Any) -> dict[str, Any]:
    """Each sentinel may have to be connected to and be read from; all of them together get half of the time."""
    step = timeout / (4 * len(store.hosts))
    return {"socket_timeout": step, "socket_connect_timeout": step, "retry": retry, "protocol": 2}


class ThreadedLedger:
    """An `AsyncLedger` that runs a blocking one in a thread of its own, one batch at a time."""

    def __init__(self, ledger: Ledger) -> None:
        """Takes the ledger over."""
        self._ledger = ledger
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")

    async def apply(self, operations: Sequence[Operation]) -> list[Result]:
        """The same as the blocking ledger's."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._ledger.apply, operations)

    async def close(self) -> None:
        """Finish the batch in hand, then close."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._ledger.close)
        self._thread.shutdown()
