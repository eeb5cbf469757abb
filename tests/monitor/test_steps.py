"""What a source says is counted exactly once, wherever the monitor or the store dies."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaywarden import story
from relaywarden.config.settings import Settings
from relaywarden.errors import StoreUnavailableError
from relaywarden.ledger.connect import open_ledger
from relaywarden.ledger.operations import Charge, Ledger, Operation, Result
from relaywarden.ledger.records import HOUR_MS, History, Hours, Noted, Notes
from relaywarden.outcomes import total
from relaywarden.tenants import Directory
from relaywarden_monitor.attribute import Attributor
from relaywarden_monitor.docket import Docket
from relaywarden_monitor.events import Accepted, Attempt, Described, Event, Gone, Outcome
from relaywarden_monitor.ingest.source import Chunk, Position
from relaywarden_monitor.steps import Stepper, Stopped
from testbed.classifying import classifier
from testbed.redis import RedisServer

START = 1_795_507_200.0  # 2026-11-24 08:00 UTC
NEVER = 10**9


class ListSource:
    """Events in a list; the position is an index."""

    def __init__(self, name: str, events: Sequence[Event], digests: Sequence[bytes] = ()) -> None:
        self.name, self._events, self._digests, self._at = name, events, digests, 0

    def open(self, position: Position | None) -> None:
        self._at = position["at"] if position else 0

    def read(self, most: int, until: Position | None = None) -> Chunk | None:
        end = until["at"] if until else min(len(self._events), self._at + most)
        begin, self._at = self._at, end
        if end == begin:
            return None
        if self._digests:
            return RowChunk(self._events[begin:end], {"at": end}, end - begin, self._digests[begin:end])
        return Chunk(self._events[begin:end], {"at": end}, end - begin)

    def lag(self) -> int:
        return len(self._events) - self._at

    def close(self) -> None:
        pass


class RowChunk(Chunk):
    """With the digests of its rows, as accounting gives them."""

    def __init__(self, events: Sequence[Event], position: Position, records: int, digests: Sequence[bytes]) -> None:
        super().__init__(events, position, records)
        object.__setattr__(self, "digests", digests)


class Killed(BaseException):
    """The process is no more."""


class Mortal:
    """A ledger whose process dies at the n-th batch: before it reaches the store, or after."""

    def __init__(self, ledger: Ledger, batches: int, *, after: bool) -> None:
        self._ledger, self._left, self._after = ledger, batches, after

    def apply(self, operations: Sequence[Operation]) -> list[Result]:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Killed
        results = self._ledger.apply(operations)
        if self._left == 0:
            raise Killed
        return results

    def tenants(self) -> list[str]:
        return self._ledger.tenants()

    def messages(self, queue_id: str) -> list[tuple[str, bytes]]:
        return self._ledger.messages(queue_id)

    def close(self) -> None:
        pass


def configuration(store: str = "sqlite:////nowhere.db") -> Settings:
    return Settings.model_validate({
        "store": store,
        "plans": {"p": {}},
        "tenants": {"acme": {"plan": "p"}, "beta": {"plan": "p"}},
        "pools": {"t": {"members": {"tx1": {"ip": "192.0.2.1"}, "tx2": {"ip": "192.0.2.2"}}}},
        "monitor": {"postfix_log": "/var/log/mail.log"},
    })  # fmt: skip


def stepper(
    source: ListSource, ledger: Ledger, *, sift: bool = False, stop: Callable[[float], bool] = lambda _: False
) -> Stepper:
    return Stepper(source, ledger, Docket(), stop, sift=sift, remember_ms=HOUR_MS, history_ms=1000 * 24 * HOUR_MS)


def exhaust(source: ListSource, ledger: Ledger, most: int, *, sift: bool = False) -> None:
    reader, attributor = stepper(source, ledger, sift=sift), Attributor(configuration(), classifier())
    while reader.step(attributor, most)[1] is not None:
        pass


def counts(ledger: Ledger, book: str) -> dict[str, int]:
    (found,) = ledger.apply([History(book, int(START * 1000) - 24 * HOUR_MS, int(START * 1000) + 24 * HOUR_MS)])
    return {name: amount for name, amount in total(cast("Hours", found).hours.values()).items() if "." not in name}


def attempt(number: int, outcome: Outcome, at: float, reply: str = "", recipient: str = "") -> Attempt:
    return Attempt(at, f"4Q{number}", recipient or f"r{number}@x.example", outcome, "tx1", "mx.x.example", "", "", reply)


MESSAGES = st.lists(
    st.tuples(st.sampled_from(["acme", "beta"]), st.sampled_from(list(Outcome)), st.integers(-3, 3)), min_size=1, max_size=12
)


def events_of(messages: list[tuple[str, Outcome, int]]) -> list[Event]:
    found: list[Event] = []
    for number, (tenant, outcome, hours) in enumerate(messages):
        at = START + 3600 * hours + number
        found += [Accepted(at, f"4Q{number}", tenant), attempt(number, outcome, at), Gone(at, f"4Q{number}")]
    return found


@pytest.fixture(params=["sqlite", "redis"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Ledger]:
    """Makes an empty store each time."""
    numbers = itertools.count()

    def make() -> Ledger:
        if request.param == "redis":
            server: RedisServer = request.getfixturevalue("redis_server")
            server.flush()
            return open_ledger(configuration(server.url))
        return open_ledger(configuration(f"sqlite:///{tmp_path}/{next(numbers)}.db"))

    return make


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(messages=MESSAGES, most=st.integers(1, 9), deaths=st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=6))
def test_property_each_event_counts_once_whatever_dies(
    open_store: Callable[[], Ledger], messages: list[tuple[str, Outcome, int]], most: int, deaths: list[tuple[int, bool]]
) -> None:
    ledger, events = open_store(), events_of(messages)
    for batches, after in [*deaths, (NEVER, False)]:
        try:
            exhaust(ListSource("log", events), Mortal(ledger, batches, after=after), most)
        except Killed:
            continue
    for tenant in ("acme", "beta"):
        expected = Counter(outcome.value for name, outcome, _ in messages if name == tenant)
        assert {name: amount for name, amount in counts(ledger, tenant).items() if name in expected} == expected
    (found,) = ledger.apply([Notes(story.book("4Q0"), story.TOPIC)])
    told = story.read("4Q0", cast("Noted", found).fields)
    assert told is not None
    assert (told.tenant, [item.kind for item in told.events]) == (messages[0][0], [messages[0][1].value])
    ledger.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(cut=st.integers(0, 12), most=st.integers(1, 5), death=st.tuples(st.integers(1, 12), st.booleans()))
def test_property_rows_of_pipe_and_file_count_once(
    open_store: Callable[[], Ledger], cut: int, most: int, death: tuple[int, bool]
) -> None:
    """The pipe has missed what came after `cut`; the file has all."""
    ledger = open_store()
    events = [Attempt(START, "", f"r{n}@x.example", Outcome.DELIVERED, "tx1", tenant="acme") for n in range(12)]
    digests = [n.to_bytes(8, "big") for n in range(12)]
    for batches, after in (death, (NEVER, False)):
        try:
            mortal = Mortal(ledger, batches, after=after)
            exhaust(ListSource("pipe", events[:cut], digests[:cut]), mortal, most, sift=True)
            exhaust(ListSource("file", events, digests), mortal, most, sift=True)
        except Killed:
            continue
    assert counts(ledger, "acme")["delivered"] == 12
    ledger.close()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(configuration(f"sqlite:///{tmp_path}/ledger.db"))
    yield opened
    opened.close()


def test_a_message_is_known_over_a_restart(ledger: Ledger) -> None:
    exhaust(ListSource("log", [Accepted(START, "4Q1", "acme")]), ledger, 10)
    exhaust(ListSource("log2", [attempt(1, Outcome.DELIVERED, START + 9)]), ledger, 10)
    assert counts(ledger, "acme") == {"delivered": 1}


def test_a_new_message_under_an_old_queue_id_is_another(ledger: Ledger) -> None:
    events: list[Event] = [
        Accepted(START, "ABC123", "acme"), Gone(START, "ABC123"), Accepted(START + 5, "ABC123", "beta"),
        Attempt(START + 6, "ABC123", "r@x.example", Outcome.DELIVERED, "tx1"),
    ]  # fmt: skip
    exhaust(ListSource("log", events), ledger, 10)
    assert (counts(ledger, "acme"), counts(ledger, "beta")) == ({}, {"delivered": 1})


def test_what_policyd_said_is_kept_with_the_story(ledger: Ledger) -> None:
    account = next(tenant for tenant in Directory(configuration()) if tenant.name == "acme").account()
    ledger.apply([Charge(account, "t1", "r1@x.example", queue_id="4Q1")])
    exhaust(ListSource("log", [Accepted(START, "4Q1", "acme"), Described(START, "4Q1", recipients=1)]), ledger, 10)
    (found,) = ledger.apply([Notes(story.book("4Q1"), story.TOPIC)])
    told = story.read("4Q1", cast("Noted", found).fields)
    assert told is not None
    assert len(told.facts["ticket"]) > 20


def test_while_the_store_is_down_the_step_waits(ledger: Ledger) -> None:
    class Down(Mortal):
        def apply(self, operations: Sequence[Operation]) -> list[Result]:
            raise StoreUnavailableError(f"down, {len(operations)} operations wait")

    pauses: list[float] = []

    def stop(seconds: float) -> bool:
        pauses.append(seconds)
        return len(pauses) == 3

    source = ListSource("log", events_of([("acme", Outcome.DELIVERED, 0)]))
    with pytest.raises(Stopped):
        stepper(source, Down(ledger, NEVER, after=False), stop=stop).step(Attributor(configuration(), classifier()), 10)
    exhaust(source, ledger, 10)
    assert counts(ledger, "acme") == {"delivered": 1}
