"""Schedules, days, books, judgements and steering of warm-up; and that no rolling window ever holds more than its cap."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden import warmup
from relaywarden.config.settings import RampSettings, ScheduleSettings, Settings
from relaywarden.errors import ConfigError, StoreUnavailableError
from relaywarden.ledger.operations import Ledger, Take, Taken
from relaywarden.ledger.sqlite import SqliteLedger
from relaywarden.steering import Words
from relaywarden.warmup import BUILT_IN, DAY_MS, HOUR_MS, NOTHING, OK, Action, Caps
from relaywarden_milter.allowance import Allowance
from relaywarden_milter.edits import Edits
from relaywarden_milter.envelope import Envelope
from relaywarden_milter.message import Message
from relaywarden_milter.mxcache import MxCache
from relaywarden_milter.rules import Rules
from relaywarden_milter.stages.carriage import carriage
from relaywarden_milter.work import Work
from testbed.fakeclock import FakeClock
from testbed.ledgerstore import START_MS

START = datetime.date(2026, 11, 24)
RAMP = RampSettings()


def day(number: int) -> datetime.date:
    return START + datetime.timedelta(days=number)


def schedule(**lists: list[int]) -> warmup.Schedule:
    return warmup.build(ScheduleSettings.model_validate(lists))


def settings(warmups: dict[str, Any], **more: Any) -> Settings:
    members = {name: {"ip": f"192.0.2.{n}", "warmup": value} for n, (name, value) in enumerate(warmups.items(), 1)}
    return Settings.model_validate({"pools": {"tx": {"members": members}}, **more})


def test_the_built_in_schedules_are_those_that_were_published() -> None:
    default, sendgrid = BUILT_IN["default"], BUILT_IN["sendgrid"]
    assert [caps.daily for caps in default[:5]] == [200, 500, 1_000, 2_000, 5_000]
    assert (len(default), default[0], default[-1].daily) == (29, Caps(200, 17), 10_000_000)
    assert (len(sendgrid), sendgrid[0], sendgrid[41].hourly) == (42, Caps(480, 20), 19_600_000)
    for caps in BUILT_IN.values():
        assert list(caps) == sorted(caps)
        assert all(cap.hourly <= cap.daily <= 24 * cap.hourly for cap in caps)


def test_what_a_schedule_leaves_out_is_worked_out() -> None:
    assert schedule(daily=[5, 24, 25]) == (Caps(5, 1), Caps(24, 2), Caps(25, 3))
    assert schedule(hourly=[3]) == (Caps(72, 3),)
    assert schedule(daily=[9], hourly=[4]) == (Caps(9, 4),)


def test_nothing_before_the_start_and_no_cap_after_the_end() -> None:
    caps = schedule(daily=[10, 20])
    assert [warmup.caps(caps, number) for number in (-5, -1, 0, 1, 2)] == [NOTHING, NOTHING, caps[0], caps[1], None]


@given(st.integers(-400, 400), st.integers(0, 400))
def test_a_step_back_never_leads_before_the_start(elapsed: int, back: int) -> None:
    found = warmup.day_of(START, day(elapsed), back)
    assert found == elapsed if elapsed < 0 else found == max(0, elapsed - back)
    assert warmup.day_of(START, day(elapsed + 1), back) - found in {0, 1}


@given(st.integers(-10, 60), st.integers(0, 40))
def test_the_next_step_is_the_first_day_with_other_caps(elapsed: int, back: int) -> None:
    warming = warmup.plan(settings({"tx1": {"start": START}}))["tx1"]
    entry = {"back": {"google": back}}
    now = warming.caps("google", day(elapsed), entry)
    step = warmup.next_step(warming, "google", day(elapsed), entry)
    if step is None:
        assert now is None
        return
    date, caps = step
    assert warming.caps("google", date, entry) == caps != now
    before = date - datetime.timedelta(days=1)
    assert warming.caps("google", before, entry) == now


def test_a_plan_takes_schedules_by_provider() -> None:
    made = warmup.plan(
        settings(
            {"tx1": {"start": START, "providers": {"google": "slow"}}, "tx2": {"start": START, "schedule": "sendgrid"}},
            schedules={"slow": {"daily": [7]}},
        )
    )
    assert made["tx1"].caps("google", START, {}) == Caps(7, 1)
    assert made["tx1"].caps("yahoo", START, {}) == Caps(200, 17)
    assert made["tx2"].caps("yahoo", START, {}) == Caps(480, 20)
    assert not made["tx1"].over(day(28), {})
    assert made["tx1"].over(day(29), {})
    assert not made["tx1"].over(day(29), {"back": {"google": 1}})


def test_a_plan_names_what_nobody_knows() -> None:
    with pytest.raises(ConfigError) as caught:
        warmup.plan(settings({"tx1": {"start": START, "schedule": "fast", "providers": {"gogle": "none"}}}))
    said = [str(problem) for problem in caught.value.problems]
    assert said[0].startswith("pools.tx.members.tx1.warmup.schedule: no such schedule 'fast'; schedules are: default, sendgrid")
    assert "no such schedule 'none'" in said[1]
    assert "no such mailbox provider 'gogle'" in said[2]


def test_books_have_a_name_and_windows_that_outlast_a_change_of_caps() -> None:
    assert warmup.books("tx1", "google") == "!member:tx1/google"
    assert warmup.parse_books("!member:tx1/google") == ("tx1", "google")
    assert [warmup.parse_books(name) for name in ("acme", "!member:tx1", "!steering", "tx1/google")] == [None] * 4
    first, second = (warmup.account("tx1", "google", caps) for caps in (Caps(200, 17), Caps(500, 42)))
    assert [balance.key for balance in first.balances] == [balance.key for balance in second.balances]
    assert [balance.key for balance in first.balances] == ["messages/1d", "messages/1h"]


@pytest.mark.parametrize(
    ("delivered", "deferred", "bounced", "action"),
    [
        (0, 0, 0, Action.OK),
        (0, 49, 0, Action.OK),  # too few to say
        (0, 50, 0, Action.PAUSE),
        (75, 25, 0, Action.OK),  # exactly what is allowed
        (74, 26, 0, Action.PAUSE),
        (90, 0, 10, Action.OK),
        (89, 0, 11, Action.BACK),
        (40, 20, 20, Action.BACK),
        (10, 40, 10, Action.PAUSE),  # the address is not wanted now: that comes first
    ],
)
def test_judgement(delivered: int, deferred: int, bounced: int, action: Action) -> None:
    verdict = warmup.judge({"delivered": delivered, "deferred": deferred, "bounced": bounced}, RAMP)
    assert verdict.action is action
    assert bool(verdict.reason) == (action is not Action.OK)
    assert verdict.reason.isascii()


def test_counters_that_were_acted_upon_are_not_held_against_a_member_again() -> None:
    bad = {"delivered": 0, "deferred": 60, "bounced": 0}
    entry = warmup.judged({}, "google", bad, START)
    assert warmup.review({}, "google", bad, START, RAMP).action is Action.PAUSE
    assert warmup.review(entry, "google", bad, START, RAMP) == OK
    assert warmup.review(entry, "google", bad | {"deferred": 110}, START, RAMP).reason.startswith("50 of 50 attempts")
    assert warmup.review(entry, "yahoo", bad, START, RAMP).action is Action.PAUSE
    assert warmup.review(entry, "google", bad, day(1), RAMP).action is Action.PAUSE  # another day's counters


def test_one_step_back_a_day() -> None:
    bad = {"delivered": 50, "bounced": 50}
    entry = warmup.stepped_back({}, "google", 1, START)
    assert warmup.review(entry, "google", bad, START, RAMP) == OK
    assert warmup.review(entry, "google", bad, day(1), RAMP).action is Action.BACK
    again = warmup.stepped_back(entry, "google", 1, day(1))
    assert (again["back"], again["stepped"]) == ({"google": 2}, {"google": day(1).isoformat()})
    assert warmup.back_of(warmup.stepped_back(again, "*", 3), "google") == 5
    assert warmup.back_of(warmup.stepped_back(again, "*", 3), "yahoo") == 3


def test_pauses_are_of_a_provider_or_of_the_whole_member_and_end() -> None:
    entry = warmup.paused({}, "google", 2_000, "deferred", "relaywarden", 1_000)
    entry = warmup.paused(entry, "yahoo", None, "complaints", "ops", 1_000)
    assert warmup.pause_of(entry, "google", 1_999) == warmup.Pause("google", 2_000, "deferred", "relaywarden")
    assert warmup.pause_of(entry, "google", 2_000) is None
    assert warmup.pause_of(entry, "yahoo", 9e15) is not None
    assert warmup.pause_of(entry, "apple", 1_000) is None
    whole = warmup.paused(entry, "*", None, "all", "ops", 3_000)
    assert set(whole["paused"]) == {"yahoo", "*"}  # that of google has ended
    assert warmup.pause_of(whole, "apple", 3_000) == warmup.Pause("*", None, "all", "ops")
    assert set(warmup.resumed(whole, "yahoo")["paused"]) == {"*"}
    assert warmup.resumed(whole, None) == {}


STEPS = st.dictionaries(st.sampled_from(["google", "yahoo", "*"]), st.integers(0, 500))


@given(STEPS, st.sampled_from(["google", "*"]), st.integers(-400, 400), st.integers(-5, 60))
def test_an_operator_moves_between_day_0_of_today_and_the_day_of_the_calendar(
    back: dict[str, int], provider: str, days: int, elapsed: int
) -> None:
    entry = {"back": back, "paused": {"yahoo": {}}}
    changed = warmup.moved(entry, provider, days, elapsed)
    assert changed["paused"] == entry["paused"]
    for name in ("google", "yahoo", "*"):
        assert 0 <= warmup.back_of(changed, name) <= max(0, elapsed)  # so tomorrow is day 1, at the earliest
        assert warmup.day_of(START, day(elapsed + 1), warmup.back_of(changed, name)) == (
            warmup.day_of(START, day(elapsed), warmup.back_of(changed, name)) + 1
        )
    before, after = (warmup.day_of(START, day(elapsed), warmup.back_of(found, provider)) for found in (entry, changed))
    if elapsed >= 0 and days >= 0:
        assert after == max(0, before - days)
    elif elapsed >= 0:
        assert before <= after <= min(elapsed, before - days)
    json.dumps(changed)


def test_what_was_moved_back_can_be_moved_forward_again() -> None:
    stuck = {"back": {"google": 100}}  # as written by a version that did not stop at day 0
    assert warmup.moved(stuck, "google", -1, 2) == {"back": {"google": 1}}
    assert warmup.moved(stuck, "google", -2, 2) == {}
    assert warmup.moved({}, "*", 5, -3) == {}  # not begun
    assert warmup.moved({"back": {"google": 3}}, "*", 4, 5) == {"back": {"*": 4, "google": 1}}


@pytest.mark.parametrize(("paused", "why"), [(True, "paused"), (False, "no room under the caps of warm-up")])
def test_a_full_pool_is_put_off_in_neutral_words_and_the_log_says_why(paused: bool, why: str) -> None:
    made = settings(
        {"tx1": {"start": warmup.date_of(time.time() * 1000)}},
        plans={"p": {}},
        tenants={"acme": {"plan": "p", "logins": ["acme"], "pool": "tx"}},
    )

    def connect() -> Ledger:
        raise StoreUnavailableError("not needed: no credit is leased")

    allowance = Allowance(made, connect, MxCache())
    entry = warmup.paused({}, "*", None, "listed", "ops", 1) if paused else {}
    allowance.steer(Words(members={"tx1": entry}, now_ms=int(time.time() * 1000)))
    message = Message(10_000)
    rules = Rules(made, allowance)
    work = Work(rules, Envelope(login="acme", recipients=["b@x.example"]), message, Edits(message.headers))
    tenant = rules.directory.by_login("acme")
    assert tenant is not None
    refusal = carriage(work, tenant)
    assert refusal is not None
    assert (refusal.code, refusal.text) == (
        "451",
        "This relay cannot take more mail of this kind at the moment, try again later",
    )
    assert why in str(work.record["full"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["google", "*", "day", "until_ms"]), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["back", "paused", "judged", "stepped"]), JSON), st.integers(0, 2**45))
def test_any_entry_can_be_read_and_changed(entry: dict[str, Any], now_ms: int) -> None:
    """The document is written by several versions and by hand; a worker must not stumble over it."""
    assert 0 <= warmup.back_of(entry, "google") <= warmup.MOST_BACK
    assert 0 <= warmup.back_of(warmup.moved(entry, "google", 3, 9), "google") <= 9
    warmup.pause_of(entry, "google", now_ms)
    warmup.review(entry, "google", {"delivered": 100}, START, RAMP)
    changed = warmup.stepped_back(warmup.paused(entry, "google", None, "why", "me", now_ms), "google", 1, START)
    changed = warmup.judged(changed, "google", {"delivered": 1}, START)
    assert warmup.pause_of(changed, "google", now_ms) is not None
    assert warmup.pause_of(warmup.resumed(changed, None), "google", now_ms) is None
    assert changed["judged"]["google"] == {"day": "2026-11-24", "delivered": 1, "deferred": 0, "bounced": 0}
    json.dumps(changed)


@dataclass
class Book:
    """A ledger with a clock, and what it gave to one member."""

    ledger: SqliteLedger
    clock: FakeClock
    member: str = ""
    given: list[tuple[int, int]] = field(default_factory=list)

    def take(self, caps: Caps, amount: int) -> int:
        (taken,) = self.ledger.apply([Take(warmup.account(self.member, "google", caps), amount)])
        assert isinstance(taken, Taken)
        assert 0 <= taken.amount <= amount
        self.given.append((self.clock.now_ms, taken.amount))
        return taken.amount

    def within(self, window_ms: int) -> int:
        return sum(amount for at, amount in self.given if at > self.clock.now_ms - window_ms)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Book]:
    folder: Path = tmp_path_factory.mktemp("book")
    clock = FakeClock(folder, START_MS)
    ledger = SqliteLedger(folder / "ledger.db", timeout_ms=5000, ticket_ttl_ms=HOUR_MS, clock=clock)
    yield Book(ledger, clock)
    ledger.close()


_members = iter(range(10**9))


@given(st.lists(st.tuples(st.integers(0, 5 * HOUR_MS), st.integers(1, 40)), max_size=40), st.integers(0, 3))
def test_no_rolling_window_ever_holds_more_than_its_cap(book: Book, asked: list[tuple[int, int]], back: int) -> None:
    book.clock.now_ms, book.member, book.given = START_MS, f"m{next(_members)}", []
    steps = schedule(daily=[20, 50, 100, 200])
    for gap, amount in asked:
        book.clock.now_ms += gap
        caps = warmup.caps(steps, warmup.day_of(START, warmup.date_of(book.clock.now_ms), back))
        if caps is None:
            break
        used = book.within(HOUR_MS), book.within(DAY_MS)
        taken = book.take(caps, amount)
        assert book.within(HOUR_MS) <= max(caps.hourly, used[0])
        assert book.within(DAY_MS) <= max(caps.daily, used[1])
        # A slot is a sixtieth of a window: what lies further back than that and one slot no longer counts.
        if not book.given[:-1] or book.given[-2][0] < book.clock.now_ms - DAY_MS - DAY_MS // 60:
            assert taken == min(amount, caps.hourly)


def test_the_step_at_midnight_brings_no_burst(book: Book) -> None:
    """Somebody who takes all that there is, every three minutes, for two days and a half."""
    book.member, book.given = f"m{next(_members)}", []
    midnight = 24 * HOUR_MS - START_MS % DAY_MS + START_MS
    steps = schedule(daily=[240, 480, 960])
    for minute in range(-8 * 60, 2 * 24 * 60, 3):
        book.clock.now_ms = midnight + minute * 60_000
        number = warmup.day_of(START, warmup.date_of(book.clock.now_ms), 0)
        caps = warmup.caps(steps, number)
        assert caps is not None
        book.take(caps, 100)
        assert book.within(HOUR_MS) <= caps.hourly, minute
        assert book.within(DAY_MS) <= caps.daily, minute
    first_hour = sum(amount for at, amount in book.given if midnight <= at < midnight + HOUR_MS)
    assert 0 < first_hour <= 40
    second_day = sum(amount for at, amount in book.given if midnight <= at < midnight + DAY_MS)
    assert second_day > 400  # and it is not starved either
