"""connect - from `store:` in the configuration to an open ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.sentinel
import redis.cluster
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from relaywarden.config.settings import Settings
from relaywarden.errors import StoreUnavailableError
from relaywarden.ledger.operations import AsyncLedger, Ledger, Operation, Result
from relaywarden.ledger.redis_store import AsyncRedisLedger, RedisLedger
from relaywarden.ledger.sqlite import SqliteLedger
from relaywarden.ledger.store_url import Store


def open_ledger(settings: Settings) -> Ledger:
    """A blocking ledger; raises SpecError, StoreUnavailableError (SQLite at once, Redis at the first batch)."""
    store, ttl = Store.parse(settings.store), settings.ledger.ticket_ttl
    if store.scheme == "sqlite":
        return SqliteLedger(Path(store.path), timeout_ms=settings.ledger.timeout, ticket_ttl_ms=ttl)
    options = _options(store, settings.ledger.timeout) | {"retry": Retry(NoBackoff(), 0)}
    return RedisLedger(_client(redis, store, options), str(store), ticket_ttl_ms=ttl)


def open_async_ledger(settings: Settings) -> AsyncLedger:
    """A ledger for a running event loop; raises SpecError, StoreUnavailableError."""
    store, ttl = Store.parse(settings.store), settings.ledger.ticket_ttl
    if store.scheme == "sqlite":
        return ThreadedLedger(open_ledger(settings))
    options = _options(store, settings.ledger.timeout) | {"retry": AsyncRetry(NoBackoff(), 0)}
    return AsyncRedisLedger(_client(redis.asyncio, store, options), str(store), ticket_ttl_ms=ttl)


def _options(store: Store, timeout_ms: int) -> dict[str, Any]:
    return {
        "username": store.username,
        "password": store.password,
        "socket_timeout": timeout_ms / 1000,
        "socket_connect_timeout": timeout_ms / 1000,
        "protocol": 2,  # RESP2: scripts reply arrays and integers only, and its parser is the faster one
    }


def _client(module: Any, store: Store, options: dict[str, Any]) -> Any:
    """The client of `redis` or `redis.asyncio`; both have the same names.  Nothing connects before the first batch."""
    if store.scheme == "redis+sentinel":
        sentinel_options = {key: options[key] for key in ("socket_timeout", "socket_connect_timeout")}
        sentinel = module.sentinel.Sentinel(store.hosts, sentinel_kwargs=sentinel_options, **options)
        return sentinel.master_for(store.service, db=store.db)
    if store.scheme == "redis+cluster":
        nodes = [module.cluster.ClusterNode(host, port) for host, port in store.hosts]
        try:
            return module.cluster.RedisCluster(startup_nodes=nodes, **{k: v for k, v in options.items() if k != "retry"})
        except redis.RedisError as error:
            raise StoreUnavailableError(f"ledger {store}: {error}") from error
    if store.scheme == "redis+unix":
        return module.Redis(unix_socket_path=store.path, db=store.db, **options)
    host, port = store.hosts[0]
    return module.Redis(host=host, port=port, db=store.db, ssl=store.scheme == "rediss", **options)


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
