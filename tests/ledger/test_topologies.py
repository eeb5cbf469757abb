"""Redis with more than one server: where keys live, what a failover loses, whom a lost node concerns."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, cast

import pytest
from redis import Redis

from relaywarden.errors import StoreUnavailableError
from relaywarden.ledger.connect import open_async_ledger, open_ledger
from relaywarden.ledger.operations import (
    Account,
    Charge,
    Decision,
    Ledger,
    Operation,
    PartlyUnavailableError,
    Read,
    Result,
    Settle,
    Snapshot,
    Status,
    Steer,
)
from relaywarden.limits import Limit, Meter
from testbed.factories import WorkFolder
from testbed.ledgerstore import AsyncInStep, settings
from testbed.ports import HOST, free_port
from testbed.process import program, wait_for
from testbed.redis import RedisServer
from testbed.rediscluster import RedisCluster
from testbed.redissentinel import RedisSentinel

TIMEOUT = 1.0
Opener = Callable[[str], Ledger]


def blocking(url: str) -> Ledger:
    return open_ledger(settings(url, f"{TIMEOUT:g}s"))


def asynchronous(url: str) -> Ledger:
    return AsyncInStep(url, f"{TIMEOUT:g}s")


both = pytest.mark.parametrize("opener", [blocking, asynchronous])


def account(tenant: str, **texts: str) -> Account:
    return Account.of(tenant, [Limit.parse(Meter(meter), text) for meter, text in (texts or {"messages": "1000/d"}).items()])


def tenants_by_node(cluster: RedisCluster, count: int = 12) -> dict[int, list[str]]:
    """Tenants by their node's port."""
    found: dict[int, list[str]] = {}
    for name in (f"tenant{number}" for number in range(count)):
        found.setdefault(cluster.node_of(name).port, []).append(name)
    assert len(found) == 3
    return found


def used(ledger: Ledger, acc: Account) -> int:
    (snapshot,) = ledger.apply([Read(acc)])
    return cast("Snapshot", snapshot).balances[0].used


def parts(ledger: Ledger, operations: Sequence[Operation]) -> list[Result | StoreUnavailableError]:
    """What became of each operation."""
    try:
        return list(ledger.apply(operations))
    except PartlyUnavailableError as error:
        return list(error.results)
    except StoreUnavailableError as error:
        return [error] * len(operations)


def keys(node: RedisServer) -> list[bytes]:
    with node.client() as client:
        return cast("list[bytes]", client.keys("*"))


@both
def test_all_keys_of_a_tenant_share_a_slot(cluster: RedisCluster, opener: Opener) -> None:
    acc = account("acme", messages="9/h", recipients="90/h", bytes="9999/h", unique_recipients="9/h")
    with closing(opener(cluster.url)) as ledger:
        ledger.apply([Charge(acc, "t1", "a@x", 100, "Q1", "127.0.0.1:4000"), Charge(acc, "t1", "b@x")])
        ledger.apply([Steer("acme", {"mode": "enforce"}), Settle(acc, "Q2", "127.0.0.1:4001", ("a@x",), 10)])
    found = {key for node in cluster.nodes for key in keys(node)}
    kinds = Counter(key.removeprefix(b"rw:{acme}:")[:1] for key in found)
    assert kinds.keys() == {b"b", b"c", b"e", b"q", b"s", b"t", b"u"}
    with cluster.nodes[0].client() as client:
        assert len({client.execute_command("CLUSTER", "KEYSLOT", key) for key in found}) == 1


@both
def test_a_batch_reaches_every_node_and_scripts_may_vanish(cluster: RedisCluster, opener: Opener) -> None:
    names = [name for group in tenants_by_node(cluster).values() for name in group]
    with closing(opener(cluster.url)) as ledger:
        for number in range(3):
            results = ledger.apply([Charge(account(name), f"t{number}", "a@x") for name in names])
            assert results == [Decision(Status.ADMITTED)] * len(names)
            for node in cluster.nodes[number:]:
                with node.client() as client:
                    client.script_flush()
        assert [used(ledger, account(name)) for name in names] == [3] * len(names)
        assert ledger.tenants() == sorted(names)
    assert all(keys(node) for node in cluster.nodes)


@both
def test_scripts_are_loaded_again_behind_sentinel(sentinel: RedisSentinel, opener: Opener) -> None:
    acc = account("acme")
    with closing(opener(sentinel.url)) as ledger:
        for number in range(3):
            assert ledger.apply([Charge(acc, f"t{number}", "a@x")] * 2)[1] == Decision(Status.ADMITTED, repeated=True)
            with sentinel.primary.client() as client:
                client.script_flush()
        assert used(ledger, acc) == 3


@both
def test_a_slot_that_moves_takes_its_counters_along(cluster: RedisCluster, opener: Opener) -> None:
    acc, other = account("acme", messages="3/h"), account("other")
    with closing(opener(cluster.url)) as ledger:
        ledger.apply([Charge(acc, "t1", "a@x"), Charge(acc, "t2", "a@x")])
        with cluster.moving_slot("acme") as (source, target):
            # Half of a tenant's keys here, half of them there: nothing may be decided on either.
            results = parts(ledger, [Charge(acc, "t3", "a@x"), Charge(other, "t1", "a@x")])
            assert isinstance(results[0], StoreUnavailableError)
            assert results[1] == Decision(Status.ADMITTED)
            with source.client() as client:
                client.migrate(target.host, target.port, ["rw:{acme}:b"], 0, 5000)
            (result,) = parts(ledger, [Charge(acc, "t3", "a@x")])
            assert isinstance(result, StoreUnavailableError)
        assert ledger.apply([Charge(acc, "t2", "a@x")]) == [Decision(Status.ADMITTED, repeated=True)]
        statuses = [cast("Decision", r).status for r in ledger.apply([Charge(acc, "t3", "a@x"), Charge(acc, "t4", "a@x")])]
        assert statuses == [Status.ADMITTED, Status.REFUSED]
    assert any(key.startswith(b"rw:{acme}") for key in keys(target))


@both
@pytest.mark.parametrize("how", ["kill", "pause"])
def test_a_lost_node_concerns_its_own_tenants_only(cluster: RedisCluster, opener: Opener, how: str) -> None:
    groups = tenants_by_node(cluster)
    lost = cluster.nodes[1]
    names = [name for group in groups.values() for name in group]

    def batch(ticket: str) -> list[Operation]:
        return [Charge(account(name), ticket, "a@x") for name in names]

    with closing(opener(cluster.url)) as ledger:
        ledger.apply(batch("t1"))
        getattr(lost, how)()
        try:
            for number in range(2, 12):
                begun = time.monotonic()
                for name, result in zip(names, parts(ledger, batch(f"t{number}")), strict=True):
                    if name in groups[lost.port]:
                        assert isinstance(result, StoreUnavailableError)
                    else:
                        assert result == Decision(Status.ADMITTED)
                assert time.monotonic() - begun < TIMEOUT * 1.5
            with pytest.raises(StoreUnavailableError):
                ledger.apply([Charge(account(groups[lost.port][0]), "t9", "a@x")])
        finally:
            cluster.restore(lost)
        wait_for("the node's tenants are served again", lambda: _served(ledger, batch("t20")))


def _served(ledger: Ledger, operations: Sequence[Operation]) -> bool:
    return not any(isinstance(result, Exception) for result in parts(ledger, operations))


@both
@pytest.mark.parametrize("how", ["stop", "pause"])
def test_a_single_server_that_is_lost_keeps_the_timeout(redis_server: RedisServer, opener: Opener, how: str) -> None:
    acc = account("acme")
    with closing(opener(redis_server.url)) as ledger:
        ledger.apply([Charge(acc, "t1", "a@x")])
        getattr(redis_server, how)()
        try:
            for _ in range(2):  # with a connection at first, then without one
                begun = time.monotonic()
                with pytest.raises(StoreUnavailableError):
                    ledger.apply([Charge(acc, f"t{n}", "a@x") for n in range(2, 40)])
                assert time.monotonic() - begun < TIMEOUT * 1.3
        finally:
            redis_server.resume() if how == "pause" else redis_server.start()
        expected = 39 if how == "pause" else 38  # a restarted one is empty
        assert len(ledger.apply([Charge(acc, f"t{n}", "a@x") for n in range(2, 40)])) == 38
        assert used(ledger, acc) == expected


def test_a_cancelled_batch_leaves_the_connection_in_step(redis_server: RedisServer) -> None:
    acc = account("acme")

    async def run() -> None:
        ledger = open_async_ledger(settings(redis_server.url, "5s"))
        await ledger.apply([Charge(acc, "t0", "a@x")])
        for number in range(1, 30):
            task = asyncio.create_task(ledger.apply([Charge(acc, f"t{number}", "a@x")] * 20))
            await asyncio.sleep(0)  # one turn of the loop: the batch is sent
            task.cancel()
            (snapshot,) = await ledger.apply([Read(acc)])
            assert task.cancelled()
            assert isinstance(snapshot, Snapshot)
            assert snapshot.balances[0].used == number + 1
        both = await asyncio.gather(*(ledger.apply([Charge(acc, f"u{n}", "a@x"), Read(acc)]) for n in range(50)))
        assert [cast("Snapshot", results[1]).balances[0].used for results in both] == list(range(31, 81))
        await ledger.close()

    asyncio.run(run())


@pytest.mark.parametrize("full", ["maxmemory", "readonly"])
@both
def test_a_server_that_takes_no_writes_is_unavailable(redis_server: RedisServer, opener: Opener, full: str) -> None:
    acc = account("acme")
    with closing(opener(redis_server.url)) as ledger, redis_server.client() as client:
        ledger.apply([Charge(acc, "t1", "a@x")])
        if full == "maxmemory":
            client.config_set("maxmemory", "1")
        else:
            client.replicaof("127.0.0.1", "1")
        try:
            with pytest.raises(StoreUnavailableError):
                ledger.apply([Charge(acc, "t2", "a@x")])
        finally:
            client.config_set("maxmemory", "0")
            client.replicaof("NO", "ONE")
        assert ledger.apply([Charge(acc, "t2", "a@x")]) == [Decision(Status.ADMITTED)]


class Hammer:
    """Charges one tenant from several sides; each ticket is sent again until it is answered."""

    def __init__(self, url: str, acc: Account) -> None:
        self.acc, self.url = acc, url
        self.admitted: list[str] = []
        self.refused = 0
        self.errors: list[tuple[float, BaseException]] = []
        self.slowest = 0.0
        self.stop = threading.Event()

    def blocking(self, name: str) -> None:
        with closing(open_ledger(settings(self.url, f"{TIMEOUT:g}s"))) as ledger:
            for ticket in self._tickets(name):
                while not self.stop.is_set():
                    begun = time.monotonic()
                    try:
                        (result,) = ledger.apply([Charge(self.acc, ticket, "a@x")])
                    except StoreUnavailableError as error:
                        self._failed(begun, error)
                        self.stop.wait(0.02)
                        continue
                    self._answered(ticket, result)
                    break

    async def asynchronous(self, name: str) -> None:
        ledger = open_async_ledger(settings(self.url, f"{TIMEOUT:g}s"))
        for first in self._tickets(name):
            tickets = [f"{first}.{number}" for number in range(16)]
            while not self.stop.is_set():
                begun = time.monotonic()
                try:
                    results = await ledger.apply([Charge(self.acc, ticket, "a@x") for ticket in tickets])
                except StoreUnavailableError as error:
                    self._failed(begun, error)
                    await asyncio.to_thread(self.stop.wait, 0.02)
                    continue
                for ticket, result in zip(tickets, results, strict=True):
                    self._answered(ticket, result)
                break
            await asyncio.to_thread(self.stop.wait, 0.01)  # so that the limit is not reached before the failover
        await ledger.close()

    def _tickets(self, name: str) -> Iterator[str]:
        number = 0
        while not self.stop.is_set():
            number += 1
            yield f"{name}.{number}"

    def _answered(self, ticket: str, result: Result) -> None:
        assert isinstance(result, Decision)
        if result.status is Status.ADMITTED:
            self.admitted.append(ticket)
        else:
            self.refused += 1

    def _failed(self, begun: float, error: BaseException) -> None:
        self.errors.append((time.monotonic(), error))
        self.slowest = max(self.slowest, time.monotonic() - begun)


def test_failover_under_load(sentinel: RedisSentinel) -> None:
    """The primary is killed while five clients charge one tenant, up to its limit.

    Redis replicates asynchronously: charges that the dead primary had acknowledged but not passed on are lost.  So the
    promise that a failover keeps is: never more than the limit, plus what was lost.  Nothing else may go wrong.
    """
    limit = 20_000
    hammer = Hammer(sentinel.url, account("acme", messages=f"{limit}/d"))
    with ThreadPoolExecutor(5) as threads:
        running = [threads.submit(hammer.blocking, f"thread{number}") for number in range(4)]
        running.append(threads.submit(lambda: asyncio.run(hammer.asynchronous("loop"))))
        try:
            wait_for("charges before the failover", lambda: len(hammer.admitted) > 500)
            old = sentinel.kill_primary()
            wait_for("clients notice", lambda: bool(hammer.errors))
            new = sentinel.wait_failover(old)
            charged = len(hammer.admitted)
            wait_for("charging goes on by itself", lambda: len(hammer.admitted) > charged + 500)
            wait_for("every client reaches the limit", lambda: hammer.refused > 100, timeout=60)
        finally:
            hammer.stop.set()
        for future in running:
            future.result()
    lost = len(hammer.admitted) - _tickets_held(new.client(), hammer.admitted)
    assert len(hammer.admitted) == len(set(hammer.admitted))
    assert limit <= len(hammer.admitted) <= limit + lost
    assert lost <= 5 * 16  # what could be on its way: one batch of each client
    assert hammer.slowest < TIMEOUT * 1.3
    with closing(blocking(sentinel.url)) as ledger:
        assert used(ledger, hammer.acc) == limit
    sentinel.restore(old)


def _tickets_held(client: Redis, tickets: list[str]) -> int:
    with client:
        found: Any = client.exists(*(f"rw:{{acme}}:t:{ticket}" for ticket in tickets))
        return int(found)


@both
@pytest.mark.parametrize("scheme", ["redis", "redis+unix", "rediss"])
def test_password_database_socket_and_tls(
    work_folder: WorkFolder, monkeypatch: pytest.MonkeyPatch, opener: Opener, scheme: str
) -> None:
    work = work_folder("redis-door")
    options = {"requirepass": "s e:c/ret", "unixsocket": str(work / "socket")}
    if scheme == "rediss":
        key, cert, tls_port = work / "key.pem", work / "cert.pem", free_port()
        names = ["-subj", "/CN=redis", "-addext", f"subjectAltName=IP:{HOST}"]
        made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", *names, "-keyout", str(key), "-out", str(cert)]
        subprocess.run([program("openssl", "openssl"), *made], check=True, capture_output=True)
        options |= {"tls-port": str(tls_port), "tls-cert-file": str(cert), "tls-key-file": str(key), "tls-auth-clients": "no"}
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    with RedisServer(work, options) as server:
        where = {
            "redis": f"{HOST}:{server.port}/3",
            "redis+unix": f"{options['unixsocket']}?db=3",
            "rediss": f"{HOST}:{options.get('tls-port')}/3",
        }[scheme]
        acc = account("acme")
        with closing(opener(f"{scheme}://:s%20e%3Ac%2Fret@{where}")) as ledger:
            assert ledger.apply([Charge(acc, "t1", "a@x")]) == [Decision(Status.ADMITTED)]
        with server.client(db=3) as client:
            assert client.exists("rw:{acme}:t:t1")
        with (
            closing(opener(f"{scheme}://:wrong@{where}")) as ledger,
            pytest.raises(StoreUnavailableError, match=r"(?i)wrongpass|invalid|password"),
        ):
            ledger.apply([Charge(acc, "t2", "a@x")])
