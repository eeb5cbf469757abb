"""redis_store - the ledger in Redis: a single server, Sentinel or Cluster, for any number of hosts.

A batch goes out as one pipeline (in a Cluster one for each node) of EVALSHA commands; each script is atomic on the server
and takes the time from it.  Scripts are loaded when a server does not know them (NOSCRIPT): at the first batch, after a
failover, after SCRIPT FLUSH; only what failed is sent again, in order.

How it fails: refused, slow beyond the timeout, READONLY, OOM, LOADING, CLUSTERDOWN: StoreUnavailableError with Redis' words.
A batch that timed out may have been carried out; charges are deduplicated by their ticket, so sending it again is safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import NoScriptError, RedisError

from relaywarden.errors import StoreUnavailableError
from relaywarden.ledger import scripts
from relaywarden.ledger.operations import Operation, Result

_Client = Any  # redis.Redis or redis.RedisCluster, and their asyncio twins: one shape, no common base
_FAILURES = (RedisError, OSError, TimeoutError)


class RedisLedger:
    """A `Ledger` in Redis; safe to share between threads."""

    def __init__(self, client: _Client, where: str, *, ticket_ttl_ms: int) -> None:
        """`where` names the store in errors, without credentials."""
        self._client = client
        self._where = where
        self._ticket_ttl_ms = ticket_ttl_ms

    def apply(self, operations: Sequence[Operation]) -> list[Result]:
        """One pipeline for the whole batch; raises StoreUnavailableError."""
        commands = [scripts.command(operation, self._ticket_ttl_ms) for operation in operations]
        try:
            replies = self._execute(commands)
            missing = _unloaded(replies)
            if missing:
                for script in scripts.scripts().values():
                    self._client.script_load(script.source)
                for index, reply in zip(missing, self._execute([commands[i] for i in missing]), strict=True):
                    replies[index] = reply
        except _FAILURES as error:
            raise _unavailable(self._where, error) from error
        return _results(self._where, operations, replies)

    def _execute(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        pipe = self._client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        return list(pipe.execute(raise_on_error=False))

    def tenants(self) -> list[str]:
        """Names of all tenants with balances or state, by SCAN (of every node of a Cluster)."""
        found = set()
        try:
            for pattern in ("rw:{*}:b", "rw:{*}:s"):
                for key in self._client.scan_iter(match=pattern, count=1000):
                    found.add(scripts.tenant_of_key(key.decode()))
        except _FAILURES as error:
            raise _unavailable(self._where, error) from error
        return sorted(found)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class AsyncRedisLedger:
    """An `AsyncLedger` in Redis."""

    def __init__(self, client: _Client, where: str, *, ticket_ttl_ms: int) -> None:
        """`where` names the store in errors, without credentials."""
        self._client = client
        self._where = where
        self._ticket_ttl_ms = ticket_ttl_ms

    async def apply(self, operations: Sequence[Operation]) -> list[Result]:
        """One pipeline for the whole batch; raises StoreUnavailableError."""
        commands = [scripts.command(operation, self._ticket_ttl_ms) for operation in operations]
        try:
            replies = await self._execute(commands)
            missing = _unloaded(replies)
            if missing:
                for script in scripts.scripts().values():
                    await self._client.script_load(script.source)
                for index, reply in zip(missing, await self._execute([commands[i] for i in missing]), strict=True):
                    replies[index] = reply
        except _FAILURES as error:
            raise _unavailable(self._where, error) from error
        return _results(self._where, operations, replies)

    async def _execute(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        pipe = self._client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        return list(await pipe.execute(raise_on_error=False))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _unloaded(replies: Sequence[Any]) -> list[int]:
    return [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]


def _results(where: str, operations: Sequence[Operation], replies: Sequence[Any]) -> list[Result]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise _unavailable(where, reply) from reply
    return [scripts.result(operation, reply) for operation, reply in zip(operations, replies, strict=True)]


def _unavailable(where: str, error: BaseException) -> StoreUnavailableError:
    return StoreUnavailableError(f"ledger {where}: {error or type(error).__name__}")
