"""Whether members that warm up may carry a message: several workers on one ledger, its clock in the test's hand."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden import steering, warmup
from relaywarden.config.settings import Settings
from relaywarden.errors import ConfigError
from relaywarden.ledger.connect import open_ledger
from relaywarden.ledger.operations import Operation, Result, Take
from relaywarden.ledger.sqlite import SqliteLedger
from relaywarden_milter.allowance import LIFE, MOST, Allowance
from relaywarden_milter.mxcache import MxCache
from testbed.factories import WorkFolder
from testbed.fakeclock import FakeClock
from testbed.process import wait_for
from testbed.redis import RedisServer
from testbed.warmsite import START, Site, settings, to

NOON_MS = 1_795_521_600_000  # 2026-11-24 12:00 UTC
DAY_MS = 86_400_000
SMALL = {"daily": [24, 48, 96]}  # 2, 4 and 8 an hour
LARGE = {"daily": [7_200, 14_400]}  # 600 and 1200 an hour: chunks of 10 and 20


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(schedule: dict[str, Any] = SMALL, **options: Any) -> Site:
        folder = tmp_path / f"site-{len(made)}"
        made.append(Site(folder, FakeClock(folder, NOON_MS), settings(schedule, **options)))
        return made[-1]

    yield make
    for one in made:
        for ledger in one.ledgers:
            ledger.close()


class Counted:
    """A real ledger, and how often it was asked for credit."""

    def __init__(self, ledger: SqliteLedger) -> None:
        self.ledger, self.leases = ledger, 0

    def apply(self, operations: Sequence[Operation]) -> list[Result]:
        self.leases += sum(isinstance(operation, Take) for operation in operations)
        return self.ledger.apply(operations)

    def tenants(self) -> list[str]:
        return self.ledger.tenants()

    def messages(self, queue_id: str) -> list[tuple[str, bytes]]:
        return self.ledger.messages(queue_id)

    def close(self) -> None:
        self.ledger.close()


def spend(worker: Allowance, turns: int = 1, member: str = "new1", amount: int = 1, provider: str = "gmail.com") -> int:
    """How many recipients get through before so many turns bring nothing more."""
    admitted = 0
    for _ in range(turns):
        while worker.admits(member, to(provider, amount)):
            admitted += amount
        worker.turn()
    return admitted


def test_credit_comes_with_the_turn_after_it_was_asked_for(site: Callable[..., Site]) -> None:
    one = site()
    worker = one.worker()
    worker.turn()
    assert one.used("new1", "google") == [0, 0]  # nobody asked
    assert not worker.admits("new1", to("gmail.com"))
    worker.turn()
    assert one.used("new1", "google") == [1, 1]
    assert worker.admits("new1", to("gmail.com"))
    assert not worker.admits("new1", to("gmail.com"))
    assert spend(worker, turns=10) == 1  # two an hour
    one.clock.now_ms += 62 * 60_000
    assert spend(worker, turns=10) == 2


def test_members_without_warmup_and_those_that_are_through_carry_everything(site: Callable[..., Site]) -> None:
    one = site()
    worker = one.worker()
    assert worker.warming == {"new1", "new2"}
    assert worker.admits("old", to("gmail.com", 5_000))
    assert worker.admits("old", to("unknown.example"))
    one.clock.now_ms += 3 * DAY_MS
    worker.turn()
    assert worker.admits("new1", to("unknown.example", 5_000))
    assert not worker.admits("new2", to("gmail.com"))
    early = site(start=START + datetime.timedelta(days=1)).worker()
    assert spend(early, turns=5) == 0  # before day 0


def test_a_domain_that_is_not_known_yet_is_not_admitted(site: Callable[..., Site]) -> None:
    worker = site(LARGE).worker()
    mixed = [*to("gmail.com"), *to("unknown.example")]
    assert not worker.admits("new1", mixed)
    worker.turn()
    assert not worker.admits("new1", mixed)
    assert worker.admits("new1", to("gmail.com", 10))  # the refusal cost nothing


def test_all_providers_of_a_message_or_none(site: Callable[..., Site]) -> None:
    one = site()
    worker = one.worker()
    both = [*to("gmail.com"), *to("yahoo.de"), "root", "x@[192.0.2.1]"]
    assert not worker.admits("new1", both)
    worker.turn()
    assert one.used("new1", "other") == [2, 2]
    assert worker.admits("new1", both)
    assert spend(worker, turns=3, provider="yahoo.de") == 1  # that is all of this hour
    assert not worker.admits("new1", both)
    worker.turn()
    assert worker.admits("new1", to("gmail.com"))  # google's was not spent in vain


def test_a_message_to_many_is_waited_for_if_there_is_any_hope(site: Callable[..., Site]) -> None:
    one = site(LARGE)
    worker = one.worker()
    assert not worker.admits("new1", to("gmail.com", 60))
    worker.turn()
    assert worker.admits("new1", to("gmail.com", 60))
    for hopeless in (MOST + 1, 5_000):
        assert not worker.admits("new1", to("gmail.com", hopeless))
    worker.turn()
    assert one.used("new1", "google") == [70, 70]  # the usual chunk, for smaller ones
    small = site().worker()
    assert not small.admits("new1", to("gmail.com", 3))
    small.turn()
    assert not small.admits("new1", to("gmail.com", 3))


def test_unspent_credit_lapses_and_no_pair_is_leased_for_that_nobody_asks_for(site: Callable[..., Site]) -> None:
    one = site(LARGE)
    worker = one.worker()
    assert not worker.admits("new1", to("gmail.com"))
    worker.turn()
    one.clock.now_ms += int(LIFE * 1000) - 1
    assert worker.admits("new1", to("gmail.com"))
    one.clock.now_ms += 1
    worker.turn()
    assert one.used("new1", "google") == [20, 20]  # asked for a moment ago, so there is new credit
    one.clock.now_ms += 61_000
    worker.turn()
    one.clock.now_ms += int(LIFE * 1000)
    worker.turn()
    assert one.used("new1", "google")[0] == 20
    assert not worker.admits("new1", to("gmail.com"))


def test_a_clock_that_is_set_back_does_not_make_credit_last(site: Callable[..., Site]) -> None:
    one = site(LARGE)
    worker = one.worker()
    worker.admits("new1", to("gmail.com"))
    worker.turn()
    one.clock.now_ms -= 7_200_000
    assert not worker.admits("new1", to("gmail.com"))


def test_the_ledger_is_not_asked_more_often_than_it_helps(site: Callable[..., Site]) -> None:
    one = site(LARGE)
    worker = one.worker()
    worker.admits("new1", to("gmail.com"))
    worker.turn()
    assert worker.admits("new1", to("gmail.com"))
    worker.turn()
    assert one.used("new1", "google") == [10, 10]  # nine are left
    assert worker.admits("new1", to("gmail.com", 5))
    worker.turn()
    assert one.used("new1", "google") == [16, 16]
    small = site()
    ledger = small.connect()
    counted = Counted(ledger)
    worker = Allowance(small.settings, lambda: counted, MxCache(), lambda: small.clock.now_ms / 1000)
    assert spend(worker, turns=50) == 2
    assert counted.leases == 3  # it said when there will be more
    small.clock.now_ms += 60_000
    assert spend(worker, turns=50) == 0
    assert counted.leases == 4  # but caps may change: once a minute


@pytest.mark.parametrize("ahead", [-7_200.0, 0.0, 43_300.0])
def test_the_day_is_the_stores(site: Callable[..., Site], ahead: float) -> None:
    """2026-11-24 12:00 there, whatever this host believes."""
    one = site()
    worker = one.worker(ahead=ahead)
    worker.turn()
    assert spend(worker, turns=10) == 2


def test_a_host_with_a_wrong_clock_knows_no_better_before_it_has_read(site: Callable[..., Site]) -> None:
    worker = site().worker(ahead=-100 * 86_400.0)
    assert not worker.admits("new1", to("gmail.com"))
    worker.turn()
    worker.admits("new1", to("gmail.com"))
    worker.turn()
    assert worker.admits("new1", to("gmail.com"))


def test_midnight_brings_no_burst(site: Callable[..., Site]) -> None:
    """Demand without end, every five minutes from noon of day 0 to noon of day 2."""
    one = site({"daily": [240, 480, 960]})
    workers = [one.worker(), one.worker()]
    sent: list[tuple[int, int]] = []
    for minute in range(0, 48 * 60, 5):
        one.clock.now_ms = NOON_MS + minute * 60_000
        amount = sum(spend(worker, turns=4) for worker in workers)
        sent.append((one.clock.now_ms, amount))
        hour = sum(amount for at, amount in sent if at > one.clock.now_ms - 3_600_000)
        day = warmup.day_of(START, warmup.date_of(one.clock.now_ms), 0)
        assert hour <= (20, 40, 80)[day] + len(workers)
    midnight = NOON_MS + 12 * 3_600_000
    assert 0 < sum(amount for at, amount in sent if midnight <= at < midnight + 3_600_000) <= 42


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1_500), st.integers(1, 12), st.booleans()), max_size=60))
def test_however_workers_ask_the_hour_is_kept(
    tmp_path_factory: pytest.TempPathFactory, demand: list[tuple[int, int, int, bool]]
) -> None:
    """All that three workers leased in any hour is within the cap; what they sent, within the cap and their chunks."""
    folder = tmp_path_factory.mktemp("demand")
    one = Site(folder, FakeClock(folder, NOON_MS), settings(LARGE))
    try:
        workers = [one.worker() for _ in range(3)]
        sent: list[tuple[int, int]] = []
        for index, gap, amount, turning in demand:
            one.clock.now_ms += gap * 1_000
            if workers[index].admits("new1", to("gmail.com", amount)):
                sent.append((one.clock.now_ms, amount))
            if turning:
                workers[index].turn()
            cap = (600, 1_200)[warmup.day_of(START, warmup.date_of(one.clock.now_ms), 0)]
            assert sum(amount for at, amount in sent if at > one.clock.now_ms - 3_600_000) <= cap + 3 * 2 * cap // 60
            assert one.used("new1", "google")[1] <= cap
    finally:
        for ledger in one.ledgers:
            ledger.close()


def _rush(folder: Path, results: Any) -> None:
    """A worker process with its own connection: as many as it can get."""
    made = settings({"hourly": [240]}, f"sqlite:///{folder}/ledger.db", datetime.datetime.now(datetime.timezone.utc).date())
    worker = Allowance(made, lambda: open_ledger(made), MxCache())
    worker.start()
    deadline = time.monotonic() + 4.0
    totals = [0] * 4

    def thread(index: int) -> None:
        while time.monotonic() < deadline:
            if worker.admits("new1", to("gmail.com", 1 + index % 2)):
                totals[index] += 1 + index % 2

    threads = [threading.Thread(target=thread, args=(index,)) for index in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    worker.close()
    results.put(sum(totals))


def test_processes_and_threads_on_one_ledger_never_exceed_the_cap_together(tmp_path: Path) -> None:
    context = get_context("fork")
    results: Any = context.Queue()
    processes = [context.Process(target=_rush, args=(tmp_path, results)) for _ in range(3)]
    for process in processes:
        process.start()
    admitted = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    # Midnight may fall into the test: then it is two days' schedule, but the window of an hour is the same.
    assert 200 <= sum(admitted) <= 240, admitted


def test_bad_counters_pause_the_pair_for_every_worker(site: Callable[..., Site], caplog: pytest.LogCaptureFixture) -> None:
    one = site(LARGE)
    first, second = one.worker(), one.worker()
    for worker in (first, second):
        worker.admits("new1", to("gmail.com"))
        worker.turn()
    assert second.admits("new1", to("gmail.com"))
    one.happened("new1", "google", delivered=30, deferred=30)
    one.clock.now_ms += 6_000
    assert spend(first, turns=3) == 10  # until it leases again and sees the counters
    paused = one.entry("new1")["paused"]["google"]
    assert paused["until_ms"] == one.clock.now_ms + 6 * 3_600_000
    assert (paused["by"], "30 of 60 attempts deferred" in paused["reason"]) == ("relaywarden", True)
    second.turn()
    assert not second.admits("new1", to("gmail.com"))
    second.admits("new1", to("yahoo.de"))
    second.turn()
    assert second.admits("new1", to("yahoo.de"))  # the others go on
    assert sum("warm-up paused" in record.getMessage() for record in caplog.records) == 1
    one.clock.now_ms += 6 * 3_600_000
    second.turn()
    assert spend(second, turns=3) > 0  # the pause is over, and what it was for is not held against it again
    one.happened("new1", "google", deferred=60)
    assert spend(second, turns=100) < 600
    assert sum("warm-up paused" in record.getMessage() for record in caplog.records) == 2


def test_bounces_step_back_one_day_and_once_a_day(site: Callable[..., Site], caplog: pytest.LogCaptureFixture) -> None:
    one = site({"daily": [1_200, 2_400, 4_800]})
    one.clock.now_ms += DAY_MS
    workers = [one.worker(), one.worker()]
    one.happened("new1", "google", delivered=30, bounced=30)
    for worker in workers:
        spend(worker, turns=2)
    assert one.entry("new1")["back"] == {"google": 1}
    one.happened("new1", "google", bounced=60)
    total = sum(spend(worker, turns=120) for worker in workers)
    assert one.entry("new1")["back"] == {"google": 1}
    assert 80 <= total <= 100  # day 0's hundred an hour, and not day 1's two hundred
    one.clock.now_ms += DAY_MS
    one.happened("new1", "google", bounced=60)
    spend(workers[0], turns=2)
    assert one.entry("new1")["back"] == {"google": 2}
    assert sum("stepped back" in record.getMessage() for record in caplog.records) == 2


def test_an_operators_pause_holds_at_once_and_for_warm_members_too(site: Callable[..., Site]) -> None:
    one = site(LARGE)
    worker = one.worker()
    worker.admits("new1", to("gmail.com"))
    worker.turn()

    def pause(member: str, provider: str) -> None:
        entry = warmup.paused({}, provider, None, "why", "ops", one.clock.now_ms)
        one.ledger.apply([steering.say("members", {member: entry})])
        worker.steer(steering.read(one.ledger))

    pause("new1", "*")
    assert not worker.admits("new1", to("gmail.com"))
    assert worker.largest(["new1", "new2"]) == "new2"
    pause("old", "google")
    assert not worker.admits("old", to("gmail.com"))
    assert worker.admits("old", to("yahoo.de"))
    assert worker.admits("old", to("unknown.example"))
    pause("old", "*")
    assert not worker.admits("old", to("unknown.example"))
    assert not worker.admits("old", to("yahoo.de"))


def test_an_operators_pause_is_not_overwritten_by_a_worker_that_has_not_read_it(site: Callable[..., Site]) -> None:
    one = site(LARGE)
    worker = one.worker()
    worker.steer(steering.read(one.ledger))
    worker.admits("new1", to("gmail.com"))
    entry = warmup.paused({}, "google", None, "complaints", "ops", one.clock.now_ms)
    one.ledger.apply([steering.say("members", {"new1": entry})])
    one.happened("new1", "google", deferred=100)
    worker.turn()
    assert one.entry("new1") == entry
    assert not worker.admits("new1", to("gmail.com"))


def test_the_member_with_the_largest_cap(site: Callable[..., Site]) -> None:
    one = site()
    worker = one.worker()
    assert worker.largest(["new1", "new2", "old"]) == "new2"  # 24 and 200 a day
    assert worker.largest(["new1"], to("gmail.com")) == "new1"
    assert worker.largest(["old"]) is None
    assert worker.largest([]) is None
    worker.steer(steering.Words(members={"new2": warmup.paused({}, "google", None, "why", "ops", 0)}, now_ms=NOON_MS))
    assert worker.largest(["new1", "new2"], to("gmail.com")) == "new1"
    assert worker.largest(["new1", "new2"], to("yahoo.de")) == "new2"
    assert site(start=START + datetime.timedelta(days=1)).worker().largest(["new1", "new2"]) is None


def test_a_reload_changes_schedules_and_members(site: Callable[..., Site]) -> None:
    one = site()
    worker = one.worker()
    assert spend(worker, turns=5) == 2
    worker.reload(settings({"daily": [240]}))
    assert spend(worker, turns=30) == 18  # what was used still counts
    assert not worker.admits("new1", to("yahoo.de"))
    worker.turn()
    later = settings({"daily": [240]}, start=START + datetime.timedelta(days=1))
    worker.reload(later)
    assert not worker.admits("new1", to("yahoo.de"))  # credit or not: it begins tomorrow
    with pytest.raises(ConfigError):
        worker.reload(Settings.model_validate({"pools": {"p": {"members": {"x": {"ip": "::1", "warmup": {
            "start": START, "schedule": "none"}}}}}}))  # fmt: skip
    assert worker.warming == {"new1", "new2"}
    worker.reload(Settings.model_validate({}))
    assert worker.warming == frozenset()
    assert worker.admits("new1", to("gmail.com"))
    worker.turn()


def test_without_the_store_credit_runs_out_and_is_back_with_it(
    work_folder: WorkFolder, caplog: pytest.LogCaptureFixture
) -> None:
    today = datetime.datetime.now(datetime.timezone.utc).date()
    with RedisServer(work_folder("redis")) as redis:
        made = settings({"hourly": [6_000, 6_000]}, redis.url, today)
        worker = Allowance(made, lambda: open_ledger(made), MxCache())
        worker.admits("new1", to("gmail.com"))
        worker.turn()
        assert worker.admits("new1", to("gmail.com"))
        redis.stop()
        assert spend(worker, turns=4) == 99
        assert not worker.admits("new1", to("gmail.com"))
        redis.start()
        assert spend(worker, turns=3) > 0
        worker.close()
    said = [record.getMessage() for record in caplog.records]
    assert sum("the store does not answer" in text for text in said) == 1


def test_the_thread_leases_as_soon_as_it_is_asked(tmp_path: Path) -> None:
    today = datetime.datetime.now(datetime.timezone.utc).date()
    made = settings({"hourly": [6_000, 6_000]}, f"sqlite:///{tmp_path}/ledger.db", today)
    worker = Allowance(made, lambda: open_ledger(made), MxCache())
    worker.start()
    try:
        wait_for("no credit came", lambda: worker.admits("new1", to("gmail.com")))
        began = time.monotonic()
        worker.admits("new1", to("yahoo.de"))
        wait_for("no credit came", lambda: worker.admits("new1", to("yahoo.de")), every=0.002)
        assert time.monotonic() - began < 0.5  # not only at the next second
    finally:
        worker.close()
    worker.close()


def test_an_owner_who_brings_the_words_spares_the_reading(site: Callable[..., Site]) -> None:
    one = site(LARGE)
    worker = one.worker()
    entry = warmup.paused({}, "*", None, "why", "ops", one.clock.now_ms)
    worker.steer(steering.read(one.ledger))
    one.ledger.apply([steering.say("members", {"new1": entry})])
    worker.admits("new1", to("gmail.com"))
    worker.turn()
    assert worker.admits("new1", to("gmail.com"))  # not read yet: the owner has the word
    one.clock.now_ms += 6_000  # and when the owner falls silent, it is read here
    worker.turn()
    assert not worker.admits("new1", to("gmail.com"))


def test_what_nobody_has_credit_for_is_borrowed_up_to_the_cap(site: Callable[..., Site]) -> None:
    """In a pool that only warms up, retries at different workers must not use the cap up."""
    here = site()
    workers = [here.worker() for _ in range(4)]
    for worker in workers:
        worker.turn()  # connects
    answers = [worker.borrows("new1", to("gmail.com")) for worker in workers]
    assert sorted(answers) == [False, False, True, True]  # two an hour
    here.clock.now_ms += 3_600_000 + 120_000
    assert sum(worker.borrows("new1", to("gmail.com")) for worker in workers) == 2
    assert not workers[0].borrows("old", to("gmail.com"))  # a warm member needs no credit
    assert not workers[0].borrows("new1", to("nobody.knows.example"))
