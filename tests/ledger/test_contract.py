"""The contract, scenario by scenario, on both stores."""

from __future__ import annotations

from typing import cast

import pytest

from relaywarden.ledger.operations import (
    Abandon,
    Account,
    Charge,
    Decision,
    Read,
    Reconcile,
    Refund,
    Refusal,
    Refuse,
    Reset,
    Result,
    Settle,
    Settlement,
    Snapshot,
    Status,
    Steer,
)
from relaywarden.ledger.ticket import Phase, Ticket
from relaywarden.limits import Limit, Meter, Scope
from testbed.ledgerstore import Store


def limits(**texts: str) -> list[Limit]:
    return [Limit.parse(Meter(meter), text) for meter, text in texts.items()]


def account(observe: bool = False, **texts: str) -> Account:
    return Account.of("acme", limits(**texts), observe)


def decide(store: Store, operation: Charge | Reconcile) -> Decision:
    return cast("Decision", store.do(operation))


def read(store: Store, acc: Account) -> Snapshot:
    return cast("Snapshot", store.do(Read(acc)))


def used(store: Store, acc: Account) -> list[int]:
    return [balance.used for balance in read(store, acc).balances]


def test_exactly_n_are_admitted_and_the_refusal_says_when(store: Store) -> None:
    acc = account(messages="3/hour")
    for n in range(3):
        assert decide(store, Charge(acc, f"t{n}", "r@x")).status is Status.ADMITTED
        store.clock.now_ms += 600_000
    refused = decide(store, Charge(acc, "t9", "r@x"))
    assert refused.status is Status.REFUSED
    assert refused.refusal is not None
    assert (refused.refusal.key, refused.refusal.used, refused.refusal.allowed) == ("messages/1h", 3, 3)
    wait = refused.refusal.retry_after_ms
    assert wait is not None
    assert 1_800_000 < wait <= 1_860_000  # the first left the window 30 minutes from now; W/60 late at the most
    store.clock.now_ms += wait - 1
    assert decide(store, Charge(acc, "t10", "r@x")).status is Status.REFUSED
    store.clock.now_ms += 1
    assert decide(store, Charge(acc, "t11", "r@x")).status is Status.ADMITTED


def test_all_limits_or_none(store: Store) -> None:
    acc = account(messages="100/hour", recipients="2/hour", bytes="1000/day")
    assert decide(store, Charge(acc, "t1", "a@x", 400)).status is Status.ADMITTED
    assert decide(store, Charge(acc, "t2", "a@x", 700)).status is Status.REFUSED
    assert used(store, acc) == [1, 1, 400]
    counters = read(store, acc).today
    assert (counters["messages"], counters["recipients"], counters["bytes"], counters["refused"]) == (1, 1, 400, 1)


def test_the_same_request_again_is_answered_as_before(store: Store) -> None:
    acc = account(recipients="1/hour")
    first = Charge(acc, "t1", "a@x")
    second = Charge(acc, "t1", "b@x")
    assert decide(store, first) == Decision(Status.ADMITTED)
    refused = decide(store, second)
    assert refused.status is Status.REFUSED
    store.do(Reset("acme"))
    assert decide(store, first) == Decision(Status.ADMITTED, repeated=True)
    assert decide(store, second) == Decision(Status.REFUSED, refused.refusal, repeated=True)
    assert used(store, acc) == [0]
    assert read(store, acc).today["refused"] == 1


def test_every_wiring_gives_the_same_totals(store: Store) -> None:
    """RCPT only, DATA only, END-OF-MESSAGE only and all together; the milter settles in each."""
    recipients = ("a@x", "b@x", "c@x")
    totals = []
    for wiring in ("rcpt", "data", "eom", "all"):
        acc = Account.of(wiring, limits(messages="9/h", recipients="90/h", bytes="99999/h", unique_recipients="90/h"))
        if wiring in ("rcpt", "all"):
            for n, recipient in enumerate(recipients):
                store.do(Charge(acc, "t1", recipient, 500, "Q1" if n else "", "127.0.0.1:4000"))
        if wiring in ("data", "all"):
            store.do(Reconcile(acc, "t1", 3, 500, "Q1", "127.0.0.1:4000"))
        if wiring in ("eom", "all"):
            store.do(Reconcile(acc, "t1", 3, 611, "Q1", "127.0.0.1:4000"))
        assert store.do(Settle(acc, "Q1", "127.0.0.1:4000", recipients, 620)) == Settlement(True, 3, 620)
        totals.append((used(store, acc), dict(read(store, acc).today)))
    assert totals[0][0] == [1, 3, 620, 3]
    assert all(total == totals[0] for total in totals)


def test_recipients_that_postfix_refused_come_back_at_data(store: Store) -> None:
    acc = account(messages="9/h", recipients="90/h")
    for recipient in ("a@x", "b@x", "c@x"):
        store.do(Charge(acc, "t1", recipient))
    assert decide(store, Reconcile(acc, "t1", 2, 0)).status is Status.ADMITTED
    assert used(store, acc) == [1, 2]
    assert read(store, acc).today["recipients"] == 2


def test_a_message_refused_at_its_end_costs_nothing(store: Store) -> None:
    acc = account(messages="9/h", recipients="90/h", bytes="1000/h")
    store.do(Charge(acc, "t1", "a@x", 0))
    refused = decide(store, Reconcile(acc, "t1", 1, 5000, "Q1"))
    assert refused.refusal == Refusal("bytes/1h", 0, 1000, None)  # larger than the limit itself: waiting never helps
    assert used(store, acc) == [0, 0, 0]
    assert decide(store, Reconcile(acc, "t1", 1, 5000, "Q1")).repeated
    assert read(store, acc).today["refused"] == 1


def test_refund_gives_back_what_the_ticket_was_charged(store: Store) -> None:
    acc = account(messages="9/h", recipients="90/h", bytes="9999/h")
    store.do(Charge(acc, "t1", "a@x", 100, "", "127.0.0.1:4000"))
    store.clock.now_ms += 120_000
    store.do(Charge(acc, "t1", "b@x", 100, "Q1", "127.0.0.1:4000"))
    store.do(Charge(acc, "t2", "b@x", 7, "Q2", "127.0.0.1:4001"))
    assert cast("Settlement", store.do(Refund(acc, "Q1", "127.0.0.1:4000"))).found
    assert used(store, acc) == [1, 1, 7]
    store.do(Refund(acc, "Q1", "127.0.0.1:4000"))  # once is enough
    assert used(store, acc) == [1, 1, 7]


def test_a_rejection_keeps_the_charge_and_is_counted(store: Store) -> None:
    acc = account(messages="9/h")
    store.do(Charge(acc, "t1", "a@x", 100, "Q1", "127.0.0.1:4000"))
    store.do(Settle(acc, "Q1", "", ("a@x",), 120, "rejected"))
    assert used(store, acc) == [1]
    assert read(store, acc).hour["rejected"] == 1


def test_a_message_without_policy_request_is_counted_at_settling(store: Store) -> None:
    acc = account(messages="1/h", recipients="1/h", bytes="10/h", unique_recipients="1/h")
    assert store.do(Settle(acc, "Q7", "127.0.0.1:4000", ("a@x", "b@x"), 400)) == Settlement(False, 2, 400)
    assert used(store, acc) == [1, 2, 400, 2]
    store.do(Settle(acc, "Q8", "127.0.0.1:4000", ("a@x",), 100))
    assert used(store, acc) == [2, 3, 500, 2]


def test_two_transactions_of_one_connection_are_told_apart(store: Store) -> None:
    acc = account(messages="9/h", recipients="9/h")
    connection = "127.0.0.1:4000"
    store.do(Charge(acc, "t1", "a@x", 0, "", connection))
    store.do(Settle(acc, "Q1", connection, ("a@x",), 10))
    store.do(Charge(acc, "t2", "a@x", 0, "", connection))
    assert cast("Settlement", store.do(Refund(acc, "Q2", connection))).found
    assert used(store, acc) == [1, 1]


def test_suspension_holds_from_the_next_request_until_it_ends(store: Store) -> None:
    acc = account(messages="9/h")
    until = store.clock.now_ms + 60_000
    store.do(Steer("acme", {"suspended": {"reason": "stolen password", "until_ms": until}}))
    assert decide(store, Charge(acc, "t1", "a@x")) == Decision(Status.SUSPENDED, reason="stolen password")
    assert used(store, acc) == [0]
    assert read(store, acc).today["refused"] == 1
    store.clock.now_ms = until
    assert decide(store, Charge(acc, "t2", "a@x")).status is Status.ADMITTED
    store.do(Steer("acme", {"suspended": {"reason": ""}}))
    assert decide(store, Reconcile(acc, "t2", 1, 10)).status is Status.SUSPENDED
    assert used(store, acc) == [0]  # none of it will be sent
    store.do(Steer("acme", {"suspended": None}))
    assert decide(store, Charge(acc, "t3", "a@x")).status is Status.ADMITTED
    assert read(store, acc).state == {}


def test_the_last_word_again_changes_nothing(store: Store) -> None:
    """The milter sends again what it got no answer to."""
    acc = account(messages="9/h", recipients="9/h", bytes="9999/h")
    store.do(Charge(acc, "t1", "a@x", 100, "", "127.0.0.1:4000"))
    for _ in range(2):
        store.do(Settle(acc, "Q1", "127.0.0.1:4000", ("a@x",), 120))
        store.do(Settle(acc, "Q2", "127.0.0.1:4001", ("a@x", "b@x"), 50, "rejected"))
        store.do(Refund(acc, "Q3", "127.0.0.1:4002", "rejected"))
        store.do(Refund(acc, "Q1", "127.0.0.1:4000", "rejected"))
    assert used(store, acc) == [2, 3, 170]
    assert read(store, acc).today["rejected"] == 2


def test_a_grant_carries_what_the_limits_refuse_and_leaves_them_alone(store: Store) -> None:
    acc = account(messages="99/h", recipients="2/h", bytes="1000/h")
    until = store.clock.now_ms + 86_400_000
    grant = {"meter": "recipients", "amount": 3, "used": 0, "until_ms": until, "reason": "breach notification"}
    store.do(Steer("acme", {"grants": {"g1": grant}}))
    outcomes = [decide(store, Charge(acc, f"t{n}", "a@x", 10, f"Q{n}", "127.0.0.1:1")) for n in range(6)]
    assert [(o.status, o.granted) for o in outcomes] == [
        (Status.ADMITTED, False), (Status.ADMITTED, False), (Status.ADMITTED, True), (Status.ADMITTED, True),
        (Status.ADMITTED, True), (Status.REFUSED, False),
    ]  # fmt: skip
    assert used(store, acc) == [5, 2, 50]
    assert read(store, acc).state["grants"]["g1"]["used"] == 3
    assert read(store, acc).today["recipients"] == 5
    store.do(Refund(acc, "Q3", ""))  # goes back to where it came from
    assert (used(store, acc), read(store, acc).state["grants"]["g1"]["used"]) == ([4, 2, 40], 2)
    assert decide(store, Charge(acc, "t7", "a@x")).granted
    store.do(Steer("acme", {"grants": {"g2": {**grant, "meter": "bytes", "amount": 5000}}}))
    assert decide(store, Charge(acc, "t8", "a@x", 3000)).status is Status.REFUSED  # recipients are used up
    store.clock.now_ms = until - 1
    assert decide(store, Reconcile(acc, "t9", 1, 3000)).granted
    store.clock.now_ms = until
    assert decide(store, Reconcile(acc, "t10", 1, 3000)).status is Status.REFUSED  # the grant has ended
    store.do(Steer("acme", {"grants": {"g1": None, "g2": None}}))
    assert read(store, acc).state == {}


def test_the_last_refusal_is_remembered(store: Store) -> None:
    acc = account(messages="1/h")
    assert (read(store, acc).refused_ms, read(store, acc).last_refusal) == (0, None)
    store.do(Charge(acc, "t1", "a@x"))
    refused = decide(store, Charge(acc, "t2", "a@x"))
    snapshot = read(store, acc)
    assert (snapshot.refused_ms, snapshot.last_refusal) == (store.clock.now_ms, refused.refusal)


def test_overrides_act_at_once(store: Store) -> None:
    acc = account(messages="1/h")
    store.do(Charge(acc, "t1", "a@x"))
    assert decide(store, Charge(acc, "t2", "a@x")).status is Status.REFUSED
    store.do(Steer("acme", {"limits": {"messages/1h": 2}}))
    assert decide(store, Charge(acc, "t3", "a@x")).status is Status.ADMITTED
    assert read(store, acc).balances[0].allowed == 2


@pytest.mark.parametrize("how", ["account", "state", "limit"])
def test_observing_charges_and_tells_but_admits(store: Store, how: str) -> None:
    base = limits(messages="1/h")
    if how == "limit":
        base = [Limit.parse(Meter.MESSAGES, "1/h", observe=True)]
    acc = Account.of("acme", base, how == "account")
    if how == "state":
        store.do(Steer("acme", {"mode": "observe"}))
    store.do(Charge(acc, "t1", "a@x"))
    decision = decide(store, Charge(acc, "t2", "a@x"))
    assert decision.status is Status.ADMITTED
    assert decision.refusal is not None
    assert decision.refusal.key == "messages/1h"
    assert used(store, acc) == [2]


def test_what_is_to_be_held_is_charged_past_the_limit_and_counted_once(store: Store) -> None:
    acc = Account.of("acme", limits(recipients="1/h"), hold=True)
    assert decide(store, Charge(acc, "t1", "a@x")).status is Status.ADMITTED
    for recipient in ("b@x", "c@x"):
        held = decide(store, Charge(acc, "t1", recipient))
        assert held.status is Status.HELD
        assert held.refusal is not None
    assert used(store, acc) == [3]
    counters = read(store, acc).today
    assert (counters["held"], counters["refused"]) == (1, 0)
    store.do(Steer("acme", {"mode": "observe"}))
    assert decide(store, Charge(acc, "t1", "d@x")).status is Status.ADMITTED  # observing goes before holding


def test_refusals_by_policyds_own_rules_are_counted_once(store: Store) -> None:
    acc = account(messages="9/h", recipients="9/h")
    store.do(Charge(acc, "t1", "a@x"))
    for _ in range(2):
        store.do(Refuse(acc, "t1", "b@x"))
    assert (used(store, acc), read(store, acc).today["refused"]) == ([1, 1], 1)
    for _ in range(2):
        store.do(Refuse(acc, "t1"))
    assert (used(store, acc), read(store, acc).today["refused"]) == ([0, 0], 2)


def test_bytes_charged_in_steps_come_back_from_each(store: Store) -> None:
    acc = account(bytes="9999/m")
    store.do(Charge(acc, "t1", "a@x", 100, "Q1"))
    store.clock.now_ms += 20_000
    store.do(Reconcile(acc, "t1", 1, 900))
    store.clock.now_ms += 20_000
    store.do(Reconcile(acc, "t1", 1, 500))
    assert used(store, acc) == [500]
    store.do(Refund(acc, "Q1", ""))
    assert used(store, acc) == [0]


def test_a_recipient_refused_by_a_suspension_may_come_again(store: Store) -> None:
    acc = account(recipients="9/h")
    store.do(Steer("acme", {"suspended": {"reason": ""}}))
    assert decide(store, Charge(acc, "t1", "a@x")).status is Status.SUSPENDED
    store.do(Steer("acme", {"suspended": None}))
    assert decide(store, Charge(acc, "t1", "a@x")) == Decision(Status.ADMITTED)
    assert decide(store, Charge(acc, "t1", "a@x")) == Decision(Status.ADMITTED, repeated=True)


def test_what_was_admitted_without_the_store_is_charged_in_any_case(store: Store) -> None:
    acc = account(messages="9/h", recipients="1/h")
    store.do(Steer("acme", {"mode": "enforce"}))
    store.do(Charge(acc, "t1", "a@x"))
    assert decide(store, Charge(acc, "t2", "a@x")).status is Status.REFUSED
    for _ in range(2):
        assert decide(store, Charge(acc, "t2", "a@x", late_ms=5)).status is Status.ADMITTED
    assert used(store, acc) == [2, 2]
    assert decide(store, Reconcile(acc, "t3", 5, 0)).status is Status.REFUSED
    assert decide(store, Reconcile(acc, "t3", 5, 0, late_ms=5)).status is Status.ADMITTED
    assert used(store, acc) == [3, 7]


def test_a_late_charge_after_the_milters_last_word_is_no_second_one(store: Store) -> None:
    acc = account(messages="9/h", recipients="9/h")
    connection = "127.0.0.1:4000"
    store.do(Settle(acc, "Q1", connection, ("a@x", "b@x"), 50))  # policyd had admitted it without the store
    store.clock.now_ms += 100
    for operation in (
        Charge(acc, "t1", "a@x", 0, "", connection, late_ms=300),
        Charge(acc, "t1", "b@x", 0, "Q1", connection, late_ms=290),
        Reconcile(acc, "t1", 2, 50, "Q1", connection, late_ms=280),
    ):
        assert decide(store, operation) == Decision(Status.ADMITTED, repeated=True)
    assert used(store, acc) == [1, 2]
    assert decide(store, Charge(acc, "t2", "a@x", 0, "", connection, late_ms=50)) == Decision(Status.ADMITTED)  # the next
    assert used(store, acc) == [2, 3]
    store.do(Settle(acc, "Q2", connection, ("a@x",), 50))
    assert used(store, acc) == [2, 3]
    store.do(Refund(acc, "", "127.0.0.1:4001"))  # given up before the charge arrived
    assert decide(store, Charge(acc, "t3", "a@x", 0, "", "127.0.0.1:4001", late_ms=20)).repeated
    assert used(store, acc) == [2, 3]


def test_an_abandoned_transaction_is_given_back_and_charged_again_if_it_goes_on(store: Store) -> None:
    acc = account(messages="9/h", recipients="9/h", bytes="999/h")
    store.do(Charge(acc, "t1", "a@x", 50))
    for _ in range(2):
        store.do(Abandon(acc, "t1"))
    assert used(store, acc) == [0, 0, 0]
    store.do(Reconcile(acc, "t1", 1, 60))
    assert used(store, acc) == [1, 1, 60]
    store.do(Abandon(acc, "unknown"))
    assert used(store, acc) == [1, 1, 60]


def test_a_dry_run_spends_nothing(store: Store) -> None:
    acc = account(messages="1/h", unique_recipients="1/h")
    for operation in (Charge(acc, "t1", "a@x", dry=True), Reconcile(acc, "t1", 1, 9, dry=True)):
        assert decide(store, operation) == Decision(Status.ADMITTED)
    assert used(store, acc) == [0, 0]
    store.do(Charge(acc, "t1", "a@x"))
    assert decide(store, Charge(acc, "t2", "b@x", dry=True)).status is Status.REFUSED
    assert read(store, acc).today["refused"] == 0


def test_a_rate_admits_its_burst_and_then_its_pace(store: Store) -> None:
    acc = account(messages="10/s burst 5")
    outcomes = [decide(store, Charge(acc, f"t{n}", "a@x")) for n in range(6)]
    assert [o.status for o in outcomes] == [Status.ADMITTED] * 5 + [Status.REFUSED]
    assert outcomes[5].refusal == Refusal("messages/1s~10b5", 5, 5, 100)
    admitted = 0
    for n in range(100):  # ten seconds, ten attempts a second
        store.clock.now_ms += 100
        admitted += decide(store, Charge(acc, f"u{n}", "a@x")).status is Status.ADMITTED
    assert admitted == 100


def test_unique_recipients_count_each_once_and_slide(store: Store) -> None:
    acc = account(unique_recipients="3/h")
    for n, recipient in enumerate(["a@x", "b@x", "A@x", "a@x", "c@x", "b@x"]):
        assert decide(store, Charge(acc, f"t{n}", recipient)).status is Status.ADMITTED
    assert decide(store, Charge(acc, "t8", "d@x")).status is Status.REFUSED
    assert decide(store, Charge(acc, "t9", "a@x")).status is Status.ADMITTED  # known: costs nothing
    store.clock.now_ms += 1_800_000
    store.do(Charge(acc, "t10", "a@x"))
    store.clock.now_ms += 1_900_000
    assert used(store, acc) == [1]
    assert decide(store, Charge(acc, "t11", "d@x")).status is Status.ADMITTED
    store.do(Reset("acme"))
    assert used(store, acc) == [0]


def test_unique_recipients_stay_within_the_stated_error(store: Store) -> None:
    acc = account(observe=True, unique_recipients="100000/d")
    for start in range(0, 6000, 500):
        store.ledger.apply([Charge(acc, f"t{n}", f"user{n}@x") for n in range(start, start + 500)])
        (estimate,) = used(store, acc)
        assert abs(estimate - (start + 500)) <= 0.08 * (start + 500)  # 2.3 % standard error: 3.5 sigma


def test_counters_start_anew_each_hour_and_day(store: Store) -> None:
    acc = account(messages="99/d")
    store.do(Charge(acc, "t1", "a@x"))
    store.clock.now_ms += 3_600_000
    store.do(Charge(acc, "t2", "a@x"))
    assert (read(store, acc).hour["messages"], read(store, acc).today["messages"]) == (1, 2)
    store.clock.now_ms += 86_400_000
    assert (read(store, acc).hour["messages"], read(store, acc).today["messages"]) == (0, 0)


def test_a_clock_far_ahead_and_back_again_blocks_nobody_for_long(store: Store) -> None:
    acc = account(messages="2/h", unique_recipients="9/h")
    year = 366 * 86_400_000
    store.clock.now_ms += year
    store.do(Charge(acc, "t1", "a@x"))
    store.clock.now_ms -= year
    assert decide(store, Charge(acc, "t2", "b@x")).status is Status.ADMITTED
    assert decide(store, Charge(acc, "t3", "b@x")).status is Status.REFUSED  # both are counted
    store.clock.now_ms += 3_700_000
    assert used(store, acc) == [0, 0]
    assert decide(store, Charge(acc, "t4", "b@x")).status is Status.ADMITTED


def test_scopes_have_balances_of_their_own(store: Store) -> None:
    per_login = [Limit.parse(Meter.MESSAGES, "1/h", Scope.LOGIN), Limit.parse(Meter.MESSAGES, "3/h")]
    one, two = (Account.of("acme", per_login, login=login) for login in ("one", "two"))
    assert decide(store, Charge(one, "t1", "a@x")).status is Status.ADMITTED
    assert decide(store, Charge(one, "t2", "a@x")).status is Status.REFUSED
    assert decide(store, Charge(two, "t3", "a@x")).status is Status.ADMITTED
    assert used(store, two) == [1, 2]


def test_tenants_are_listed_and_kept_apart(store: Store) -> None:
    names = ["acme", "b}{c", "d e@f.example", "ü"]
    for name in names:
        store.do(Charge(Account.of(name, limits(messages="9/h")), "t1", "a@x"))
    assert sorted(store.ledger.tenants()) == sorted(names)


def test_a_message_is_found_by_its_queue_id(store: Store) -> None:
    for name in ("acme", "b}{c"):
        store.do(Charge(Account.of(name, limits(messages="9/h")), "t1", "a@x", 70, "4Q1" if name == "acme" else "4Q2"))
    ((tenant, packed),) = store.ledger.messages("4Q1")
    ticket = Ticket.unpack(packed)
    assert ticket is not None
    assert (tenant, ticket.phase, ticket.size, len(ticket.charged)) == ("acme", Phase.OPEN, 70, 1)
    assert [found for found, _ in store.ledger.messages("4Q2")] == ["b}{c"]
    assert store.ledger.messages("4Q*") == store.ledger.messages("4Q3") == []


def test_a_batch_keeps_the_order_of_its_operations(store: Store) -> None:
    acc = account(messages="2/h")
    results: list[Result] = store.ledger.apply(
        [Charge(acc, "t1", "a@x"), Charge(acc, "t1", "a@x"), Charge(acc, "t2", "a@x"), Charge(acc, "t3", "a@x"), Read(acc)]
    )
    statuses = [r.status for r in results if isinstance(r, Decision)]
    assert statuses == [Status.ADMITTED] * 3 + [Status.REFUSED]
    assert isinstance(results[4], Snapshot)
    assert results[4].balances[0].used == 2


def test_a_slowed_tenant_has_a_part_of_its_limits(store: Store) -> None:
    acc = account(messages="8/hour", recipients="5/s burst 20", bytes="1000/day")
    store.do(Steer("acme", {"slow": {"factor": 0.25, "until_ms": store.clock.now_ms + 60_000}}))
    assert [balance.allowed for balance in read(store, acc).balances] == [2, 5, 250]
    for n in range(2):
        assert decide(store, Charge(acc, f"t{n}", "r@x")).status is Status.ADMITTED
    refused = decide(store, Charge(acc, "t2", "r@x"))
    assert refused.refusal is not None
    assert (refused.status, refused.refusal.used, refused.refusal.allowed) == (Status.REFUSED, 2, 2)
    large = decide(store, Charge(account(bytes="1000/day"), "t3", "r@x", 900))
    assert large.refusal is not None
    assert large.refusal.retry_after_ms is not None  # too much for now, not for good
    store.clock.now_ms += 60_000
    assert decide(store, Charge(acc, "t4", "r@x", 900)).status is Status.ADMITTED
    assert [balance.allowed for balance in read(store, acc).balances] == [8, 20, 1000]
