"""What has expired goes by itself: in SQLite with what is written next, in Redis with its key."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from relaywarden.ledger.connect import open_ledger
from relaywarden.ledger.operations import Account, Charge, Operation
from relaywarden.ledger.records import DAY_MS, HOUR_MS, Claim, Note, Suppress, Suppression, Tally
from relaywarden.ledger.sqlite import SqliteLedger
from relaywarden.limits import Limit, Meter
from testbed.fakeclock import FakeClock
from testbed.ledgerstore import START_MS, TICKET_TTL_MS, Store, settings
from testbed.redis import RedisServer

ACME = Account.of("acme", [Limit.parse(Meter.RECIPIENTS, "99/h")])


def suppress(name: str, days: int) -> Mapping[str, Suppression]:
    return {name: Suppression(name, "bounced", START_MS, START_MS + days * DAY_MS)}


@pytest.fixture
def file(tmp_path: Path) -> Iterator[tuple[Store, Path]]:
    clock, path = FakeClock(tmp_path / "clock", START_MS), tmp_path / "ledger.db"
    ledger = SqliteLedger(path, timeout_ms=1000, ticket_ttl_ms=TICKET_TTL_MS, clock=clock)
    yield Store(ledger, clock), path
    ledger.close()


def _rows(path: Path, table: str) -> int:
    with sqlite3.connect(path) as db:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608  # one of three below


def _notes(step: int, now_ms: int) -> list[Operation]:  # all make a hundred rows that hold for an hour
    return [Note(f"!m:{step}.{number}", "story", {"log": "x"}, HOUR_MS) for number in range(100)]


def _claims(step: int, now_ms: int) -> list[Operation]:
    return [Claim("!rows", tuple(f"{step}.{number}" for number in range(100)), "tag", HOUR_MS)]


def _hours(step: int, now_ms: int) -> list[Operation]:
    return [Tally(f"t{number}.{step}", {"delivered": 1}, keep_ms=0) for number in range(100)]


def _suppressions(step: int, now_ms: int) -> list[Operation]:
    names = [f"{step}.{number}@x" for number in range(100)]
    return [Suppress("acme", {name: Suppression(name, "bounced", 0, now_ms + HOUR_MS) for name in names})]


@pytest.mark.parametrize(
    ("table", "batch"), [("note", _notes), ("note", _claims), ("hour", _hours), ("suppressed", _suppressions)]
)
def test_expired_rows_of_sqlite_do_not_pile_up(
    file: tuple[Store, Path], table: str, batch: Callable[[int, int], list[Operation]]
) -> None:
    store, path = file
    found = []
    for step in range(8):
        if step == 5:
            store.clock.now_ms += 2 * HOUR_MS
        store.ledger.apply(batch(step, store.clock.now_ms))
        found.append(_rows(path, table))
    assert found == [100, 200, 300, 400, 500, 400, 300, 300]


@pytest.fixture
def redis(clocked_redis: tuple[RedisServer, FakeClock]) -> Iterator[tuple[Store, Redis]]:
    server, clock = clocked_redis
    clock.now_ms = START_MS
    server.flush()
    ledger, client = open_ledger(settings(server.url)), Redis.from_url(server.url)
    yield Store(ledger, clock), client
    client.close()
    ledger.close()


def _ends(client: Any, key: str) -> int:
    return int(client.execute_command("PEXPIRETIME", f"rw:{{acme}}:{key}"))


def test_the_list_in_redis_ends_with_its_last_entry(redis: tuple[Store, Redis]) -> None:
    store, client = redis
    store.do(Suppress("acme", {**suppress("a@x", 2), **suppress("b@x", 9)}))
    assert _ends(client, "x") == _ends(client, "y") == START_MS + 9 * DAY_MS
    store.do(Suppress("acme", {"b@x": None}))
    assert _ends(client, "x") == _ends(client, "y") == START_MS + 2 * DAY_MS
    store.clock.now_ms += 2 * DAY_MS + 1
    assert client.keys("rw:{acme}:[xy]") == []
    far = Suppression("a@x", "manual", START_MS, 10**17)
    store.do(Suppress("acme", {"a@x": far}))
    assert _ends(client, "x") == _ends(client, "y") == 9 * 10**15


def test_expired_entries_in_redis_go_with_what_is_written_or_charged_next(redis: tuple[Store, Redis]) -> None:
    store, client = redis
    names = [f"{number}@x" for number in range(150)]
    store.do(Suppress("acme", {name: Suppression(name, "bounced", 0, START_MS + 10) for name in names}))
    store.do(Suppress("acme", suppress("b@x", 9)))
    store.do(Charge(ACME, "t1", "warm@x"))
    store.clock.now_ms += 10
    store.do(Charge(ACME, "t2", "7@x"))  # from now on the fast path again
    assert client.hlen("rw:{acme}:x") == client.zcard("rw:{acme}:y") == 150
    store.do(Suppress("acme", suppress("7@x", 9)))
    assert client.hlen("rw:{acme}:x") == client.zcard("rw:{acme}:y") == 51
    store.do(Suppress("acme", {}))
    assert client.hlen("rw:{acme}:x") == client.zcard("rw:{acme}:y") == 2
