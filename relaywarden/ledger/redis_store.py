"""redis_store - the ledger in Redis: a single server, Sentinel or Cluster, for any number of hosts.

A batch goes out as one pipeline (in a Cluster one for each node) of EVALSHA commands; each script is atomic on the server
and takes the time from it.  routes.py and cluster.py say how the servers are reached.

How it fails: refused, slow beyond the timeout, READONLY, OOM, LOADING, CLUSTERDOWN: StoreUnavailableError with Redis' words.
Where only some operations of a batch failed (one node of a Cluster is down): PartlyUnavailableError, with a result for each.
A batch that timed out may have been carried out; charges are deduplicated by their ticket, so sending it again is safe.
Take, Tally and Score have no ticket: sent again, they may count twice.

Known limits: Redis replicates asynchronously.  A failover loses what the old primary acknowledged in its last moments, so a
tenant may get that much more than its limit; `min-replicas-to-write 1` with a small `min-replicas-max-lag` bounds it, at the
price that nothing is charged while no replica is connected.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import RedisError

from relaywarden.errors import StoreUnavailableError
from relaywarden.ledger import scripts
from relaywarden.ledger.operations import Operation, PartlyUnavailableError, Result
from relaywarden.ledger.routes import AsyncRoute, Route

_FAILURES = (RedisError, OSError)


class RedisLedger:
    """A `Ledger` in Redis; safe to share between threads."""

    def __init__(self, route: Route, where: str, *, ticket_ttl_ms: int) -> None:
        """`where` names the store in errors, without credentials."""
        self._route = route
        self._where = where
        self._ticket_ttl_ms = ticket_ttl_ms

    def apply(self, operations: Sequence[Operation]) -> list[Result]:
        """One pipeline for the whole batch; raises StoreUnavailableError."""
        commands = [scripts.command(operation, self._ticket_ttl_ms) for operation in operations]
        try:
            replies = self._route.execute(commands)
        except _FAILURES as error:
            raise _unavailable(self._where, error) from error
        return _results(self._where, operations, replies)

    def tenants(self) -> list[str]:
        """Names of all tenants with balances or state, by SCAN (of every primary of a Cluster)."""
        found: set[str] = set()
        try:
            for server in self._route.primaries():
                for pattern in ("rw:{*}:b", "rw:{*}:s"):
                    found.update(scripts.tenant_of_key(key.decode()) for key in _scan(server, pattern))
        except _FAILURES as error:
            raise _unavailable(self._where, error) from error
        return sorted(found)

    def messages(self, queue_id: str) -> list[tuple[str, bytes]]:
        """(tenant, ticket) of the message with this queue id, by SCAN."""
        found = []
        try:
            for server in self._route.primaries():
                for key in _scan(server, f"rw:{{*}}:q:{_literal(queue_id)}"):
                    base = key[: key.rindex(b"}") + 1]
                    (name,) = _values(server, [("GET", key)])
                    (ticket,) = _values(server, [("GET", base + b":t:" + name)]) if name else (None,)
                    if ticket:
                        found.append((scripts.tenant_of_key(key.decode()), ticket))
        except _FAILURES as error:
            raise _unavailable(self._where, error) from error
        return found

    def close(self) -> None:
        """Close the connections."""
        self._route.close()


class AsyncRedisLedger:
    """An `AsyncLedger` in Redis."""

    def __init__(self, route: AsyncRoute, where: str, *, ticket_ttl_ms: int) -> None:
        """`where` names the store in errors, without credentials."""
        self._route = route
        self._where = where
        self._ticket_ttl_ms = ticket_ttl_ms

    async def apply(self, operations: Sequence[Operation]) -> list[Result]:
        """One pipeline for the whole batch; raises StoreUnavailableError."""
        commands = [scripts.command(operation, self._ticket_ttl_ms) for operation in operations]
        try:
            replies = await self._route.execute(commands)
        except _FAILURES as error:
            raise _unavailable(self._where, error) from error
        return _results(self._where, operations, replies)

    async def close(self) -> None:
        """Close the connections."""
        await self._route.close()


def _literal(text: str) -> str:
    """Text for a SCAN pattern that matches itself only."""
    return "".join(f"\\{char}" if char in "*?[]\\^" else char for char in text)


def _values(server: Route, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    replies = server.execute(commands)
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _scan(server: Route, pattern: str) -> list[bytes]:
    keys: list[bytes] = []
    cursor = b"0"
    while True:
        (reply,) = server.execute([("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)])
        if isinstance(reply, Exception):
            raise reply
        cursor, found = reply
        keys += found
        if cursor == b"0":
            return keys


def _results(where: str, operations: Sequence[Operation], replies: Sequence[Any]) -> list[Result]:
    failed = [reply for reply in replies if isinstance(reply, Exception)]
    if not failed:
        return [scripts.result(operation, reply) for operation, reply in zip(operations, replies, strict=True)]
    if len(failed) == len(replies):
        raise _unavailable(where, failed[0]) from failed[0]
    results = [
        _unavailable(where, reply) if isinstance(reply, Exception) else scripts.result(operation, reply)
        for operation, reply in zip(operations, replies, strict=True)
    ]
    raise PartlyUnavailableError(str(_unavailable(where, failed[0])), results) from failed[0]


def _unavailable(where: str, error: BaseException) -> StoreUnavailableError:
    return StoreUnavailableError(f"ledger {where}: {error or type(error).__name__}")
