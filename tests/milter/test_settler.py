"""Ledger operations on a store that comes and goes (a real Redis), and on SQLite from many threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from relaywarden.config.settings import Settings
from relaywarden.errors import StoreUnavailableError
from relaywarden.ledger.connect import open_ledger
from relaywarden.ledger.operations import (
    Account,
    Ledger,
    Operation,
    PartlyUnavailableError,
    Read,
    Refund,
    Result,
    Settle,
    Snapshot,
)
from relaywarden_milter.settler import Settler
from testbed.factories import WorkFolder
from testbed.process import wait_for
from testbed.redis import RedisServer

ACCOUNT = Account.of("acme", ())


def settle(number: int) -> Settle:
    return Settle(ACCOUNT, f"4Q{number}", f"192.0.2.1:{number}", ("a@x.example",), 1000)


@contextmanager
def settler(store: str, capacity: int = 20_000) -> Iterator[Settler]:
    settings = Settings.model_validate({"store": store, "ledger": {"timeout": "0.3s"}})
    made = Settler(lambda: open_ledger(settings), 0.3, capacity)
    made.start()
    yield made
    made.close()


def counted(store: str) -> dict[str, int]:
    ledger = open_ledger(Settings.model_validate({"store": store}))
    try:
        (snapshot,) = ledger.apply([Read(ACCOUNT)])
        assert isinstance(snapshot, Snapshot)
        return dict(snapshot.today)
    finally:
        ledger.close()


def test_operations_are_in_the_store_when_submit_returns(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/ledger.db"
    with settler(store) as made:
        assert made.submit([settle(1)])
        assert counted(store)["messages"] == 1
        assert made.submit([Refund(ACCOUNT, "4Q2", "192.0.2.1:1", counter="rejected")])
        assert counted(store)["rejected"] == 1


def test_many_threads_share_round_trips(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/ledger.db"
    with settler(store) as made:
        threads = [
            threading.Thread(target=lambda first=first: [made.submit([settle(number)]) for number in range(first, first + 25)])
            for first in range(0, 500, 25)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counted(store)["messages"] == 500


def test_a_store_that_is_down_holds_up_nobody_and_is_caught_up(work_folder: WorkFolder) -> None:
    with RedisServer(work_folder("redis")) as redis, settler(redis.url) as made:
        assert made.submit([settle(1)])
        redis.stop()
        began = time.monotonic()
        results = [made.submit([settle(number)]) for number in range(2, 52)]
        assert time.monotonic() - began < 1.5
        assert not any(results)
        redis.start()
        wait_for("the queue is not settled", lambda: made.settled)
        assert made.submit([settle(99)])
        assert counted(redis.url)["messages"] == 51  # the restarted Redis forgot the first


def test_a_store_that_hangs_costs_one_timeout(work_folder: WorkFolder) -> None:
    with RedisServer(work_folder("redis")) as redis, settler(redis.url) as made:
        assert made.submit([settle(1)])
        redis.pause()
        began = time.monotonic()
        assert not made.submit([settle(2)])
        assert not made.submit([settle(3)])
        assert time.monotonic() - began < 1.5
        redis.resume()
        wait_for("the queue is not settled", lambda: made.settled)
        # The store may carry out what it had received when we stopped waiting, and then get it again: nothing is lost.
        assert counted(redis.url)["messages"] == 3


def test_what_waits_is_bounded_and_the_oldest_goes(work_folder: WorkFolder, caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer(work_folder("redis")) as redis:
        redis.stop()
        with settler(redis.url, capacity=10) as made:
            for number in range(30):
                assert not made.submit([settle(number)])
            waiting = [entry.operation.queue_id for entry in made._waiting if isinstance(entry.operation, Settle)]
            assert waiting == [f"4Q{number}" for number in range(20, 30)]
            redis.start()
            wait_for("the queue is not settled", lambda: made.settled)
        assert counted(redis.url)["messages"] == 10
    assert sum("the store does not answer" in record.getMessage() for record in caplog.records) == 1


class HalfDown:
    """A real ledger behind a failure of one tenant's node, as a Redis Cluster shows it."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.broken = ledger, "acme"

    def apply(self, operations: Sequence[Operation]) -> list[Result]:
        results: list[Result | StoreUnavailableError] = []
        for operation in operations:
            name = operation.account.tenant if isinstance(operation, Settle) else ""
            results.append(StoreUnavailableError("down") if name == self.broken else self.ledger.apply([operation])[0])
        if any(isinstance(result, StoreUnavailableError) for result in results):
            raise PartlyUnavailableError("one node is down", results)
        return [result for result in results if not isinstance(result, StoreUnavailableError)]

    def tenants(self) -> list[str]:
        return self.ledger.tenants()

    def messages(self, queue_id: str) -> list[tuple[str, bytes]]:
        return self.ledger.messages(queue_id)

    def close(self) -> None:
        self.ledger.close()


def test_one_node_down_keeps_only_its_own_waiting(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/ledger.db"
    half = HalfDown(open_ledger(Settings.model_validate({"store": store})))
    made = Settler(lambda: half, 0.3)
    made.start()
    assert not made.submit([settle(1)])
    other = Account.of("other", ())
    for number in range(300):
        made.submit([Settle(other, f"4R{number}", f"192.0.2.2:{number}", ("a@x.example",), 1000)])
    wait_for("the others are not settled", lambda: len(made._waiting) == 1)
    half.broken = ""
    wait_for("the queue is not settled", lambda: made.settled)
    made.close()
    assert counted(store)["messages"] == 1


class Picky:
    """A real ledger that refuses one operation in a way that is no matter of waiting, and is down at one call."""

    def __init__(self, ledger: Ledger, down_at: int = 0) -> None:
        self.ledger, self.down_at, self.calls = ledger, down_at, 0
        self.carried_out: list[str] = []

    def apply(self, operations: Sequence[Operation]) -> list[Result]:
        names = [operation.queue_id for operation in operations if isinstance(operation, Settle)]
        self.calls += 1
        if self.calls == self.down_at:
            raise StoreUnavailableError("down")
        if "4Qbad" in names:
            raise ValueError("a fault of ours")
        self.carried_out += names
        return self.ledger.apply(operations)

    def tenants(self) -> list[str]:
        return self.ledger.tenants()

    def messages(self, queue_id: str) -> list[tuple[str, bytes]]:
        return self.ledger.messages(queue_id)

    def close(self) -> None:
        self.ledger.close()


def test_one_operation_at_fault_takes_no_other_with_it(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/ledger.db"
    made = Settler(lambda: Picky(open_ledger(Settings.model_validate({"store": store}))), 1.0)
    bad = Settle(ACCOUNT, "4Qbad", "192.0.2.1:1", ("a@x.example",), 1000)
    made.start()
    assert not made.submit([settle(1), bad])  # in one batch: the answer is that of the last
    assert made.submit([bad, settle(2)])
    made.close()
    assert counted(store)["messages"] == 2


@pytest.mark.parametrize(
    ("names", "down_at"),
    [
        pytest.param(["4Q1", "4Q2", "4Q3"], 1, id="the batch"),
        pytest.param(["4Q1", "4Qbad", "4Q2", "4Q3"], 2, id="the first alone"),
        pytest.param(["4Q1", "4Qbad", "4Q2", "4Q3"], 4, id="one behind that at fault"),
    ],
)
def test_an_outage_keeps_the_order(tmp_path: Path, names: list[str], down_at: int) -> None:
    picky = Picky(open_ledger(Settings.model_validate({"store": f"sqlite:///{tmp_path}/ledger.db"})), down_at)
    made = Settler(lambda: picky, 1.0)
    made.start()
    assert not made.submit([Settle(ACCOUNT, name, f"192.0.2.1:{name}", ("a@x.example",), 1000) for name in names])
    wait_for("the queue is not settled", lambda: made.settled)
    made.close()
    assert picky.carried_out == ["4Q1", "4Q2", "4Q3"]
