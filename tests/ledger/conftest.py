"""All ledgers, on a clock that the test sets: one contract for every store and topology, blocking and asynchronous."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relaywarden.ledger.connect import open_ledger
from relaywarden.ledger.operations import Ledger
from relaywarden.ledger.sqlite import SqliteLedger
from testbed.factories import WorkFolder
from testbed.fakeclock import FakeClock
from testbed.ledgerstore import START_MS, TICKET_TTL_MS, AsyncInStep, Store, StoreMaker, settings
from testbed.redis import RedisServer
from testbed.rediscluster import RedisCluster
from testbed.redissentinel import RedisSentinel

Clocked = tuple[RedisServer | RedisSentinel | RedisCluster, FakeClock]


@pytest.fixture(scope="session")
def clocked_redis(work_folder: WorkFolder) -> Iterator[Clocked]:
    """A real Redis whose TIME is the test's."""
    clock = FakeClock(work_folder("clock"), START_MS)
    with RedisServer(work_folder("clocked-redis"), env=clock.environment()) as server:
        yield server, clock


@pytest.fixture(scope="session")
def clocked_sentinel(work_folder: WorkFolder) -> Iterator[Clocked]:
    """The same behind Sentinel."""
    clock = FakeClock(work_folder("clock"), START_MS)
    with RedisSentinel(work_folder("clocked-sentinel"), env=clock.environment()) as servers:
        yield servers, clock


@pytest.fixture(scope="session")
def clocked_cluster(work_folder: WorkFolder) -> Iterator[Clocked]:
    """A cluster whose nodes run by the test's clock."""
    clock = FakeClock(work_folder("clock"), START_MS)
    with RedisCluster(work_folder("clocked-cluster"), clock) as nodes:
        yield nodes, clock


@pytest.fixture(scope="session")
def sentinel_servers(work_folder: WorkFolder) -> Iterator[RedisSentinel]:
    with RedisSentinel(work_folder("sentinel")) as servers:
        yield servers


@pytest.fixture
def sentinel(sentinel_servers: RedisSentinel) -> RedisSentinel:
    """Sentinel by the host's clock, with nothing in it."""
    sentinel_servers.flush()
    return sentinel_servers


@pytest.fixture(scope="session")
def cluster_nodes(work_folder: WorkFolder) -> Iterator[RedisCluster]:
    with RedisCluster(work_folder("cluster")) as nodes:
        yield nodes


@pytest.fixture
def cluster(cluster_nodes: RedisCluster) -> RedisCluster:
    """A cluster by the host's clock, with nothing in it."""
    cluster_nodes.flush()
    return cluster_nodes


def _open(url: str) -> Ledger:
    return open_ledger(settings(url))


STORES: dict[str, tuple[str, Callable[[str], Ledger]]] = {
    "sqlite": ("", _open),
    "redis": ("clocked_redis", _open),
    "redis-async": ("clocked_redis", AsyncInStep),
    "sentinel": ("clocked_sentinel", _open),
    "sentinel-async": ("clocked_sentinel", AsyncInStep),
    "cluster": ("clocked_cluster", _open),
    "cluster-async": ("clocked_cluster", AsyncInStep),
}


@pytest.fixture(params=list(STORES))
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreMaker]:
    """Makes an empty store, as often as a test wants one."""
    count = 0
    current: Store | None = None
    fixture, opener = STORES[request.param]

    def make() -> Store:
        nonlocal count, current
        if current is not None:
            current.ledger.close()  # one at a time: a long run makes thousands
        count += 1
        if fixture:
            servers, clock = request.getfixturevalue(fixture)
            clock.now_ms = START_MS
            servers.flush()
            ledger = opener(servers.url)
        else:
            clock = FakeClock(tmp_path / f"clock-{count}", START_MS)
            path = tmp_path / f"ledger-{count}.db"
            ledger = SqliteLedger(path, timeout_ms=1000, ticket_ttl_ms=TICKET_TTL_MS, clock=clock)
        current = Store(ledger, clock)
        return current

    yield make
    if current is not None:
        current.ledger.close()


@pytest.fixture
def store(new_store: StoreMaker) -> Store:
    """One empty store."""
    return new_store()
