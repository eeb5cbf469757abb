"""Both ledgers, on a clock that the test sets: one contract for two stores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from relaywarden.ledger.operations import Ledger
from relaywarden.ledger.redis_store import RedisLedger
from relaywarden.ledger.sqlite import SqliteLedger
from testbed.factories import WorkFolder
from testbed.fakeclock import FakeClock
from testbed.ledgerstore import START_MS, TICKET_TTL_MS, Store, StoreMaker
from testbed.redis import RedisServer


@pytest.fixture(scope="session")
def clocked_redis(work_folder: WorkFolder) -> Iterator[tuple[RedisServer, FakeClock]]:
    """A real Redis whose TIME is the test's."""
    clock = FakeClock(work_folder("clock"), START_MS)
    with RedisServer(work_folder("clocked-redis"), env=clock.environment()) as server:
        yield server, clock


@pytest.fixture(params=["sqlite", "redis"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreMaker]:
    """Makes an empty store, as often as a test wants one."""
    made: list[Store] = []

    def make() -> Store:
        if request.param == "sqlite":
            clock = FakeClock(tmp_path / f"clock-{len(made)}", START_MS)
            path = tmp_path / f"ledger-{len(made)}.db"
            ledger: Ledger = SqliteLedger(path, timeout_ms=1000, ticket_ttl_ms=TICKET_TTL_MS, clock=clock)
        else:
            server, clock = request.getfixturevalue("clocked_redis")
            clock.now_ms = START_MS
            server.flush()
            client = redis.Redis(host=server.host, port=server.port, protocol=2)
            ledger = RedisLedger(client, server.url, ticket_ttl_ms=TICKET_TTL_MS)
        made.append(Store(ledger, clock))
        return made[-1]

    yield make
    for store in made:
        store.ledger.close()


@pytest.fixture
def store(new_store: StoreMaker) -> Store:
    """One empty store."""
    return new_store()
