"""Eight workers, two hundred connections, one tenant: exactly N are admitted, on both stores; and never more than N while
workers are killed, where each client does what Postfix does: it connects again and sends the same request again."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from concurrent.futures import ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from testbed.factories import WorkFolder
from testbed.policypeer import DUNNO, request
from testbed.ports import HOST, free_port
from testbed.redis import RedisServer
from testbed.sidecar import Sidecar

LIMIT = 1_000
CLIENTS, CONNECTIONS, EACH = 4, 50, 10  # 2,000 requests over 200 connections


def config(store: str) -> dict[str, Any]:
    return {
        "store": store,
        # The store is slow to eight busy workers on two cores: what is counted here are its decisions, not the limiter's.
        "policyd": {"listen": f"inet:{HOST}:{free_port()}", "workers": 8, "patience": "60s"},
        "ledger": {"timeout": "60s", "on_down": "defer"},
        "plans": {"small": {"limits": [{"recipients": f"{LIMIT}/hour"}, {"recipients": "5000/day"}, {"messages": "5000/30d"}]}},
        "tenants": {"acme": {"plan": "small"}},
    }


async def _ask(port: int, data: bytes) -> bytes:
    """One request, on new connections until one answers."""
    while True:
        try:
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(data)
                return await reader.readuntil(b"\n\n")
            finally:
                writer.close()
        except (OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.01)  # the worker was killed; Postfix waits, then connects again


async def _connection(port: int, requests: list[bytes]) -> int:
    """Requests over one connection that stays open; how many were admitted."""
    admitted, reader, writer = 0, None, None
    for data in requests:
        reply = b""
        try:
            if writer is None or reader is None:
                reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(data)
            reply = await reader.readuntil(b"\n\n")
        except (OSError, asyncio.IncompleteReadError):
            reader = writer = None
            reply = await _ask(port, data)
        admitted += reply == DUNNO
    if writer is not None:
        writer.close()
    return admitted


def client(port: int, name: int) -> int:
    """One process with its connections; how many requests were admitted."""

    async def run() -> int:
        plans = [
            [request(instance=f"{name}.{n}.{k}", recipient=f"u{name}.{n}.{k}@x.example") for k in range(EACH)]
            for n in range(CONNECTIONS)
        ]
        return sum(await asyncio.gather(*(_connection(port, plan) for plan in plans)))

    return asyncio.run(run())


def used(sidecar: Sidecar) -> int:
    return int(json.loads(sidecar.cli("show", "acme", "--json").stdout)["used"][0]["used"])


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
@pytest.mark.parametrize("killing", [False, True])
def test_exactly_n(work_folder: WorkFolder, redis_server: RedisServer, kind: str, killing: bool) -> None:
    work = work_folder("policyd")
    store = redis_server.url if kind == "redis" else f"sqlite:///{work}/ledger.db"
    with Sidecar(work, config(store), "policyd") as sidecar:
        port = int(sidecar.config["policyd"]["listen"].rpartition(":")[2])
        with ProcessPoolExecutor(CLIENTS, mp_context=get_context("spawn")) as pool:
            running = [pool.submit(client, port, number) for number in range(CLIENTS)]
            chance = random.Random(3)
            while killing and not all(future.done() for future in running):
                workers = Path(f"/proc/{sidecar.pid}/task/{sidecar.pid}/children").read_text().split()
                if workers:
                    try:
                        os.kill(int(chance.choice(workers)), signal.SIGKILL)
                    except ProcessLookupError:
                        pass  # it died of the last one
                wait(running, timeout=0.2)
            admitted = sum(future.result(timeout=120) for future in running)
        # A request is answered once for every time it is sent, and charged once: what was killed before its reply is asked
        # again and admitted again, so the clients' sum is exact with and without killing.
        assert admitted == LIMIT
        assert used(sidecar) == LIMIT
