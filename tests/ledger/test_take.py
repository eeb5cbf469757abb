"""Take and Tally, what has no ticket, on every store."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from relaywarden.ledger.operations import (
    Account,
    Charge,
    Decision,
    Operation,
    Read,
    Refusal,
    Reset,
    Snapshot,
    Status,
    Steer,
    Take,
    Taken,
)
from relaywarden.ledger.records import COUNTERS, Tallied, Tally
from relaywarden.ledger.window import PARTS
from relaywarden.limits import MAX_AMOUNT, Limit, Meter
from testbed.ledgerstore import Store, StoreMaker

BOOKS = "!member:tx1/google"


def account(*texts: str, tenant: str = BOOKS, observe: bool = False, hold: bool = False) -> Account:
    return Account.of(tenant, [Limit.parse(Meter.MESSAGES, text) for text in texts], observe, hold)


def take(store: Store, acc: Account, amount: int) -> Taken:
    return cast("Taken", store.do(Take(acc, amount)))


def read(store: Store, acc: Account) -> Snapshot:
    return cast("Snapshot", store.do(Read(acc)))


def used(store: Store, acc: Account) -> list[int]:
    return [balance.used for balance in read(store, acc).balances]


def test_as_many_are_taken_as_every_limit_admits(store: Store) -> None:
    acc = account("10/hour", "25/day")
    assert take(store, acc, 4) == Taken(4, 0)
    partly = take(store, acc, 100)
    assert partly.amount == 6
    assert used(store, acc) == [10, 10]
    store.clock.now_ms += 2 * 3_600_000
    assert take(store, acc, 10) == Taken(10, 0)
    store.clock.now_ms += 2 * 3_600_000
    last = take(store, acc, 10)
    assert last.amount == 5  # of the day; the hour would admit ten
    assert last.retry_after_ms > 19 * 3_600_000
    snapshot = read(store, acc)
    assert [balance.used for balance in snapshot.balances] == [5, 25]
    assert (snapshot.today["messages"], snapshot.hour["messages"], snapshot.today["refused"]) == (25, 5, 0)


def test_it_says_when_one_more_fits(store: Store) -> None:
    acc = account("3/hour", "8/day")
    for _ in range(3):
        assert take(store, acc, 1) == Taken(1, 0)
        store.clock.now_ms += 600_000
    refused = take(store, acc, 5)
    assert refused.amount == 0
    assert 1_800_000 < refused.retry_after_ms <= 1_860_000
    assert take(store, acc, 1) == refused  # nothing taken, nothing changed
    store.clock.now_ms += refused.retry_after_ms - 1
    assert take(store, acc, 5) == Taken(0, 1)
    store.clock.now_ms += 1
    assert take(store, acc, 1) == Taken(1, 0)


def test_what_never_fits_says_so(store: Store) -> None:
    acc = account("5/hour", "9/day")
    assert take(store, acc, 2) == Taken(2, 0)
    store.do(Steer(BOOKS, {"limits": {"messages/1h": 0}}))
    assert take(store, acc, 2) == Taken(0, -1)
    store.do(Steer(BOOKS, {"limits": {"messages/1h": None, "messages/1d": 0}}))
    assert take(store, acc, 2) == Taken(0, -1)
    rate = account("5/s burst 3", tenant="acme")
    store.do(Steer("acme", {"limits": {"messages/1s~5b3": 0}}))
    assert take(store, rate, 2) == Taken(0, -1)


def test_overrides_act_at_once(store: Store) -> None:
    acc = account("5/hour")
    assert take(store, acc, 9).amount == 5
    store.do(Steer(BOOKS, {"limits": {"messages/1h": 7}}))
    assert take(store, acc, 9).amount == 2
    store.do(Steer(BOOKS, {"limits": {"messages/1h": 3}}))
    less = take(store, acc, 9)
    assert less.amount == 0
    store.clock.now_ms += less.retry_after_ms  # seven are used, so five must go until one of three is free
    assert take(store, acc, 9).amount == 3


@pytest.mark.parametrize("how", ["suspended", "granted", "observed", "account", "hold", "limit"])
def test_neither_suspension_nor_grants_nor_modes_matter(store: Store, how: str) -> None:
    acc = account("5/hour", observe=how == "account", hold=how == "hold")
    if how == "limit":
        acc = Account.of(BOOKS, [Limit.parse(Meter.MESSAGES, "5/hour", observe=True)])
    grant = {"meter": "messages", "amount": 50, "used": 0}
    change: dict[str, dict[str, Any]] = {
        "suspended": {"suspended": {"reason": "x"}},
        "granted": {"grants": {"g": grant}},
        "observed": {"mode": "observe"},
    }
    if how in change:
        store.do(Steer(BOOKS, change[how]))
    taken = take(store, acc, 9)
    assert taken.amount == 5
    assert taken.retry_after_ms > 0
    assert used(store, acc) == [5]
    assert read(store, acc).state == change.get(how, {})


def test_only_message_limits_bind(store: Store) -> None:
    others = [Limit.parse(meter, "1/h") for meter in (Meter.RECIPIENTS, Meter.BYTES, Meter.UNIQUE_RECIPIENTS)]
    acc = Account.of("acme", [*others, Limit.parse(Meter.MESSAGES, "9/h")])
    assert take(store, acc, 12).amount == 9
    assert used(store, acc) == [0, 0, 0, 9]
    free = Account.of("free", others)
    assert take(store, free, 1_000_000) == Taken(1_000_000, 0)
    assert read(store, free).today["messages"] == 1_000_000


def test_a_rate_gives_its_burst_and_then_its_pace(store: Store) -> None:
    acc = account("10/s burst 5")
    assert take(store, acc, 9) == Taken(5, 100)
    store.clock.now_ms += 99
    assert take(store, acc, 9) == Taken(0, 1)
    store.clock.now_ms += 151
    assert take(store, acc, 9) == Taken(2, 50)
    store.clock.now_ms += 3_600_000
    assert take(store, acc, 5) == Taken(5, 0)


@pytest.mark.parametrize("text", ["3/s burst 7", "7/10s burst 13", "1/7s burst 1", "999/h burst 49", "1000000/s burst 9"])
def test_a_full_bucket_gives_all_of_its_burst(store: Store, text: str) -> None:
    """However the division of window by amount comes out."""
    acc = account(text)
    for hours in range(5):
        store.clock.now_ms += hours * 3_600_000 + 1
        taken = take(store, acc, 1000)
        assert taken.amount == acc.balances[0].limit.burst
        assert taken.retry_after_ms >= 1


def test_charges_and_takes_use_the_same_balance(store: Store) -> None:
    acc = account("3/hour", tenant="acme")
    store.do(Charge(acc, "t1", "a@x"))
    assert take(store, acc, 1) == Taken(1, 0)
    assert cast("Decision", store.do(Charge(acc, "t2", "a@x"))).status is Status.ADMITTED
    refused = cast("Decision", store.do(Charge(acc, "t3", "a@x")))
    assert refused.refusal is not None
    again = take(store, acc, 1)
    assert (again.amount, again.retry_after_ms) == (0, refused.refusal.retry_after_ms)
    store.do(Reset("acme"))
    assert take(store, acc, 5).amount == 3


def test_nothing_asked_for_is_nothing_taken(store: Store) -> None:
    acc = account("3/hour")
    assert take(store, acc, 0) == Taken(0, 0)
    assert store.ledger.tenants() == []
    with pytest.raises(ValueError, match="amount"):
        Take(acc, -1)
    with pytest.raises(ValueError, match="amount"):
        Take(acc, MAX_AMOUNT + 1)


def test_reserved_names_are_books_of_their_own(store: Store) -> None:
    names = [BOOKS, "!member:tx1/mail.ru", "!member:tx2", "member:tx1/google", "!steering"]
    for number, name in enumerate(names, 1):
        assert take(store, account("9/h", tenant=name), number) == Taken(number, 0)
    assert sorted(store.ledger.tenants()) == sorted(names)
    assert [used(store, account("9/h", tenant=name)) for name in names] == [[number] for number in range(1, 6)]


def test_the_operations_of_a_batch_are_answered_in_their_order(store: Store) -> None:
    acc = account("5/hour")
    batch: list[Operation] = [Take(acc, 3), Read(acc), Tally(BOOKS, {"bounced": 2}), Take(acc, 3), Read(acc)]
    first, before, done, second, after = store.ledger.apply(batch)
    assert first == Taken(3, 0)
    assert done == Tallied()
    assert isinstance(second, Taken)
    assert second.amount == 2
    assert isinstance(before, Snapshot)
    assert isinstance(after, Snapshot)
    assert (before.balances[0].used, after.balances[0].used) == (3, 5)
    assert (before.today["bounced"], after.today["bounced"], after.today["messages"]) == (0, 2, 5)


STEPS = st.lists(
    st.tuples(st.one_of(st.integers(0, 3_000), st.sampled_from([10_000, 30_000, 70_000])), st.integers(0, 30)), max_size=25
)


@given(steps=STEPS)
@example(steps=[(0, 30)] * 3 + [(9_999, 30), (1, 30), (166, 30), (1, 30)])
@settings(suppress_health_check=list(HealthCheck))
def test_never_more_than_n_in_any_window_and_never_less_than_fits(new_store: StoreMaker, steps: list[tuple[int, int]]) -> None:
    store, acc = new_store(), account("20/10s", "50/m")
    events: list[tuple[int, int]] = []
    for passed, amount in steps:
        store.clock.now_ms += passed
        now = store.clock.now_ms
        taken = take(store, acc, amount)
        assert 0 <= taken.amount <= amount
        assert (taken.retry_after_ms == 0) == (taken.amount == amount)
        events.append((now, taken.amount))
        full = False
        for balance in acc.balances:
            window, most = balance.limit.window_ms, balance.limit.amount
            assert sum(n for at, n in events if at > now - window) <= most  # of all windows those that end at a take hold most
            full |= sum(n for at, n in events if at >= now - window - window / PARTS - 1) + 1 > most
        assert full or taken.amount == amount


@given(steps=STEPS, text=st.sampled_from(["20/10s", "7/s", "4/s burst 9", "50/m"]))
@settings(suppress_health_check=list(HealthCheck), max_examples=20)
def test_a_take_is_as_many_charges_of_one_message(new_store: StoreMaker, steps: list[tuple[int, int]], text: str) -> None:
    store = new_store()
    one, other = account(text, tenant="one"), account(text, tenant="other")
    for step, (passed, amount) in enumerate(steps):
        store.clock.now_ms += passed
        taken = take(store, one, amount)
        charges: list[Operation] = [Charge(other, f"t{step}.{n}", "a@x") for n in range(amount)]
        decisions = cast("list[Decision]", store.ledger.apply(charges)) if charges else []
        refusals: list[Refusal] = [decision.refusal for decision in decisions if decision.refusal is not None]
        waits = {refusal.retry_after_ms for refusal in refusals} or {0}
        assert {taken.retry_after_ms} == waits
        assert taken.amount == len(decisions) - len(refusals)
    assert used(store, one) == used(store, other)


def test_a_tally_is_added_to_the_hour_and_the_day(store: Store) -> None:
    acc = account("3/hour")
    assert store.do(Tally(BOOKS, {"delivered": 7, "deferred": 2})) == Tallied()
    store.do(Tally(BOOKS, {"delivered": 1, "bounced": 0, "complained": 4}))
    expected = dict.fromkeys(COUNTERS, 0) | {"delivered": 8, "deferred": 2, "complained": 4}
    assert read(store, acc).hour == read(store, acc).today == expected
    assert used(store, acc) == [0]
    store.clock.now_ms += 3_600_000
    store.do(Tally(BOOKS, {"delivered": 1}))
    assert (read(store, acc).hour["delivered"], read(store, acc).today["delivered"]) == (1, 9)
    store.clock.now_ms += 86_400_000
    assert read(store, acc).today["delivered"] == 0
    assert store.ledger.tenants() == [BOOKS]


def test_every_counter_can_be_tallied(store: Store) -> None:
    counts = {name: number for number, name in enumerate(COUNTERS, 1)}
    store.do(Tally("acme", counts))
    assert read(store, account(tenant="acme")).today == counts


def test_an_empty_tally_leaves_nothing(store: Store) -> None:
    assert store.do(Tally("acme", {})) == store.do(Tally("acme", {"bounced": 0})) == Tallied()
    assert store.ledger.tenants() == []


def test_a_tally_of_something_else_is_an_error() -> None:
    with pytest.raises(ValueError, match="lost"):
        Tally("acme", {"delivered": 1, "lost": 1})
    with pytest.raises(ValueError, match="bounced"):
        Tally("acme", {"bounced": -1})
