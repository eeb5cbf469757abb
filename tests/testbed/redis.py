"""A private Redis server, without persistence, on a free loopback port.

`url` is what goes into `store:`.  `pause` and `resume` freeze it (SIGSTOP), so that a test can have a store that
accepts connections and never answers; `stop` (or `kill`: SIGKILL) and `start` give one that refuses them.  Sentinel and
Cluster are made of several of these: redissentinel.py, rediscluster.py.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import TracebackType

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from testbed.ports import HOST, free_port
from testbed.process import Process, program


class RedisServer:
    """redis-server; give `options` as in redis.conf, e.g. {"maxmemory": "10mb"}."""

    def __init__(self, work: Path, options: dict[str, str] | None = None, env: dict[str, str] | None = None) -> None:
        self.work, self.host, self.port = work, HOST, free_port()
        self.options, self.env = options or {}, env
        self.log = work / "redis.log"
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}/0"

    def start(self, wait: bool = True) -> RedisServer:
        """Start it; without `wait` it may still be loading its data."""
        self.work.mkdir(parents=True, exist_ok=True)
        options = {
            "bind": self.host,
            "port": str(self.port),
            "dir": str(self.work),
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
            **self.options,
        }
        argv = [program("redis-server", "redis-server")]
        for name, value in options.items():
            argv += [f"--{name}", value]
        self._process = Process("redis-server", argv, self.log, ready=self._answers if wait else lambda: True, env=self.env)
        self._process.start()
        return self

    def client(self, timeout: float = 5.0, db: int = 0) -> redis.Redis:
        """A new client, without the package's own retries; close it, or use it as a context manager."""
        password, retry = self.options.get("requirepass"), Retry(NoBackoff(), 0)
        return redis.Redis(host=self.host, port=self.port, db=db, password=password, socket_timeout=timeout, retry=retry)

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()

    def pause(self) -> None:
        os.kill(self._running.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self._running.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it without a chance to say goodbye."""
        self._running.stop(first=signal.SIGKILL)
        self._process = None

    @property
    def running(self) -> bool:
        return self._process is not None

    def stop(self) -> None:
        if self._process is not None:
            if self._process.alive():
                self.resume()
            self._process.stop()
            self._process = None

    @property
    def _running(self) -> Process:
        if self._process is None:
            raise RuntimeError("redis-server is not running")
        return self._process

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False  # not listening, or still loading

    def __enter__(self) -> RedisServer:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
