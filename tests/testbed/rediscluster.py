"""A Redis Cluster of three nodes without replicas, which goes on when one of them is lost.

`url` is what goes into `store:`.  `node_of` is the node of a tenant's slot; `kill()` or `pause()` it like any server;
`restore` brings it back with its slots (and empty: nothing is persistent).  `moving_slot` moves a tenant's slot with its keys;
within its block the slot is between two nodes.

On a clock that the test sets, it moves while the cluster comes up (a node takes writes two seconds after its start, by
that clock), and no node is ever found to be down: its time does not pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import redis
from redis.crc import key_slot

from relaywarden.ledger.scripts import base_key
from testbed.fakeclock import FakeClock
from testbed.ports import free_port
from testbed.process import wait_for
from testbed.redis import RedisServer

SLOTS = 16384


class RedisCluster:
    """Three primaries, by the host's clock or by one that the test sets."""

    def __init__(self, work: Path, clock: FakeClock | None = None) -> None:
        options = {
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            # Longer than any step of a test's clock, as a step looks to a node like silence of the others.
            "cluster-node-timeout": "1000" if clock is None else str(10 * 366 * 86_400_000),
            "cluster-require-full-coverage": "no",  # the loss of one node is that of its slots
        }
        self._clock, env = clock, clock.environment() if clock else None
        self.nodes = [
            RedisServer(work / str(number), {**options, "cluster-port": str(free_port())}, env) for number in range(3)
        ]

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'{node.host}:{node.port}' for node in self.nodes)}"

    def start(self) -> RedisCluster:
        for node in self.nodes:
            node.start()
        share = SLOTS // len(self.nodes) + 1
        first = self.nodes[0]
        for number, node in enumerate(self.nodes):
            slots = range(number * share, min((number + 1) * share, SLOTS))
            self._do(node, "CLUSTER", "ADDSLOTSRANGE", slots[0], slots[-1])
            if node is not first:
                self._do(first, "CLUSTER", "MEET", node.host, node.port, node.options["cluster-port"])
        wait_for("the cluster is up", self._up, log=first.log)
        return self

    def flush(self) -> None:
        for node in self.nodes:
            node.flush()

    def node_of(self, tenant: str) -> RedisServer:
        """The node that owns a tenant's slot, as the nodes see it."""
        slot = key_slot(base_key(tenant).encode())
        alive = next(node for node in self.nodes if node.running)
        for first, last, owner, *_ in self._do(alive, "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == owner[1])
        raise LookupError(f"no node owns slot {slot}")

    def restore(self, node: RedisServer) -> None:
        """Start a killed node again, or let a paused one go on."""
        if node.running:
            node.resume()
        else:
            node.start()
        wait_for("the cluster is up again", self._up, log=node.log)

    @contextmanager
    def moving_slot(self, tenant: str) -> Iterator[tuple[RedisServer, RedisServer]]:
        """A tenant's slot between two nodes: its keys move at the end of the block."""
        slot, source = key_slot(base_key(tenant).encode()), self.node_of(tenant)
        target = next(node for node in self.nodes if node is not source)
        ids = {node.port: self._do(node, "CLUSTER", "MYID").decode() for node in self.nodes}
        self._do(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source.port])
        self._do(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target.port])
        yield source, target
        while keys := self._do(source, "CLUSTER", "GETKEYSINSLOT", slot, 100):
            self._do(source, "MIGRATE", target.host, target.port, "", 0, 5000, "KEYS", *keys)
        for node in (target, source, *self.nodes):
            self._do(node, "CLUSTER", "SETSLOT", slot, "NODE", ids[target.port])

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    def _up(self) -> bool:
        """Every node sees every slot served by a node that is well."""
        if self._clock is not None:
            self._clock.now_ms += 50
        wanted = {b"cluster_state:ok", b"cluster_slots_ok:%d" % SLOTS, b"cluster_known_nodes:%d" % len(self.nodes)}
        try:
            return all(wanted <= set(self._do(node, "CLUSTER", "INFO").split()) for node in self.nodes)
        except redis.RedisError:
            return False

    @staticmethod
    def _do(node: RedisServer, *command: Any) -> Any:
        with node.client() as client:
            return client.execute_command(*command)

    def __enter__(self) -> RedisCluster:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
