"""A primary, its replica and three sentinels that fail over within a second or two.

`url` is what goes into `store:`.  `kill_primary` ends the primary by SIGKILL; `wait_failover` polls until the sentinels
name the replica and it takes writes.  `restore` brings everything back to one primary with one replica.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import redis

from testbed.ports import HOST, free_port
from testbed.process import Process, program, wait_for
from testbed.redis import RedisServer

SERVICE = "relaywarden"
DOWN_AFTER_MS = 500


class RedisSentinel:
    """Two servers, three sentinels; `env` goes to the servers (a clock of the test's)."""

    def __init__(self, work: Path, env: dict[str, str] | None = None) -> None:
        self.work = work
        # A step of a test's clock looks like silence of the replica.
        options = {"repl-diskless-sync-delay": "0", "repl-timeout": str(2**31 - 1 if env else 60)}
        self.servers = [RedisServer(work / name, dict(options), env) for name in ("one", "two")]
        self.ports = [free_port() for _ in range(3)]
        self._sentinels: list[Process] = []
        self._primary = self.servers[0]

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'{HOST}:{port}' for port in self.ports)}/{SERVICE}"

    @property
    def primary(self) -> RedisServer:
        """The server that the sentinels name now."""
        with redis.Redis(host=HOST, port=self.ports[0], socket_timeout=5) as client:
            _, port = client.sentinel_get_master_addr_by_name(SERVICE)
        return next(server for server in self.servers if server.port == port)

    def start(self) -> RedisSentinel:
        one, two = self.servers
        one.start()
        two.options["replicaof"] = f"{one.host} {one.port}"
        two.start()
        wait_for("the replica follows", lambda: self._follows(two), log=two.log)
        for port in self.ports:
            self._start_sentinel(port)
        wait_for("the sentinels know each other and the replica", self._complete)
        return self

    def flush(self) -> None:
        self.primary.flush()

    def kill_primary(self) -> RedisServer:
        """SIGKILL for the primary; gives back the server that was it."""
        primary = self.primary
        primary.kill()
        return primary

    def wait_failover(self, old: RedisServer) -> RedisServer:
        """The new primary, once all sentinels name it and it takes writes."""
        (new,) = (server for server in self.servers if server is not old)
        wait_for("failover", lambda: all(self._names(port, new) for port in self.ports) and self._role(new) == "master")
        return new

    def restore(self, old: RedisServer) -> None:
        """Start the server that was killed; the sentinels make it a replica."""
        new = self.wait_failover(old)
        old.options["replicaof"] = f"{new.host} {new.port}"
        old.start()
        wait_for("the old primary follows the new one", lambda: self._follows(old), log=old.log)
        wait_for("the sentinels know the replica again", self._complete)

    def stop(self) -> None:
        for sentinel in self._sentinels:
            sentinel.stop()
        self._sentinels = []
        for server in self.servers:
            server.stop()

    def _start_sentinel(self, port: int) -> None:
        folder = self.work / f"sentinel-{port}"
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "sentinel.conf"  # Sentinel rewrites its own configuration
        config.write_text(
            f"port {port}\nbind {HOST}\ndir {folder}\n"
            f"sentinel monitor {SERVICE} {HOST} {self._primary.port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {SERVICE} 3000\n"
        )
        argv = [program("redis-sentinel", "redis-sentinel"), str(config)]
        process = Process("redis-sentinel", argv, folder / "sentinel.log", ready=lambda: self._answers(port))
        process.start()
        self._sentinels.append(process)

    def _complete(self) -> bool:
        return all(
            state["num-other-sentinels"] == 2 and state["num-slaves"] == 1 and state["flags"] == "master"
            and all(replica["flags"] == "slave" and replica["master-link-status"] == "ok" for replica in replicas)
            for state, replicas in map(self._state, self.ports)
        )  # fmt: skip

    def _state(self, port: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        with redis.Redis(host=HOST, port=port, socket_timeout=5) as client:
            return client.sentinel_master(SERVICE), list(client.sentinel_slaves(SERVICE))

    def _names(self, port: int, server: RedisServer) -> bool:
        with redis.Redis(host=HOST, port=port, socket_timeout=5) as client:
            return bool(client.sentinel_get_master_addr_by_name(SERVICE)[1] == server.port)

    @staticmethod
    def _answers(port: int) -> bool:
        try:
            with redis.Redis(host=HOST, port=port, socket_timeout=5) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    @staticmethod
    def _role(server: RedisServer) -> str:
        with server.client() as client:
            return str(client.info("replication")["role"])

    @staticmethod
    def _follows(server: RedisServer) -> bool:
        try:
            with server.client() as client:
                return bool(client.info("replication").get("master_link_status") == "up")
        except redis.RedisError:
            return False  # still loading

    def __enter__(self) -> RedisSentinel:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
