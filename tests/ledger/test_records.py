"""Outcomes by the hour, notes, claims and suppressed recipients, on every store."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaywarden.ledger.operations import Account, Charge, Decision, Read, Settle, Snapshot, Status, Steer
from relaywarden.ledger.records import (
    DAY_MS,
    HISTORY_MS,
    HOUR_MS,
    Claim,
    Claimed,
    History,
    Hours,
    Listed,
    Look,
    Looked,
    Note,
    Noted,
    Notes,
    Suppress,
    Suppressed,
    Suppression,
    Tallied,
    Tally,
)
from relaywarden.ledger.ticket import Phase, Ticket
from relaywarden.limits import Limit, Meter
from testbed.ledgerstore import START_MS, Store, StoreMaker

ACME = Account.of("acme", [Limit.parse(Meter.RECIPIENTS, "9/h")])
HOUR = START_MS // HOUR_MS


def snapshot(store: Store) -> Snapshot:
    return cast("Snapshot", store.do(Read(ACME)))


def hours(store: Store, back: int = 48) -> dict[int, dict[str, int]]:
    found = cast("Hours", store.do(History("acme", store.clock.now_ms - back * HOUR_MS, store.clock.now_ms)))
    return {hour: dict(amounts) for hour, amounts in found.hours.items()}


def test_outcomes_are_counted_by_the_hour_in_which_they_happened(store: Store) -> None:
    assert store.do(Tally("acme", {"delivered": 5}, {"bounced.mailbox": 2})) == Tallied()
    store.do(Tally("acme", {"delivered": 1, "bounced": 0}, at_ms=START_MS - HOUR_MS))
    store.do(Tally("acme", {"deferred": 3}, at_ms=START_MS - DAY_MS))
    store.do(Tally("acme", {"delivered": 1}, at_ms=START_MS + DAY_MS))  # a clock that is wrong: now
    assert hours(store) == {
        HOUR: {"delivered": 6, "bounced.mailbox": 2}, HOUR - 1: {"delivered": 1}, HOUR - 24: {"deferred": 3},
    }  # fmt: skip
    found = snapshot(store)
    assert (found.hour["delivered"], found.today["delivered"]) == (6, 7)
    assert found.today["deferred"] == found.hour["deferred"] == 0
    assert store.ledger.tenants() == ["acme"]
    assert hours(store, 0) == {HOUR: {"delivered": 6, "bounced.mailbox": 2}}


def test_the_record_of_an_hour_expires(store: Store) -> None:
    store.do(Tally("acme", {"delivered": 5}, keep_ms=2 * HOUR_MS))
    store.clock.now_ms += 3 * HOUR_MS - 1
    assert hours(store) == {HOUR: {"delivered": 5}}
    store.clock.now_ms += 2
    assert hours(store) == {}


def test_a_step_that_is_repeated_counts_once(store: Store) -> None:
    first = Tally("acme", {"delivered": 5}, mark=("mail.log", "17"))
    assert store.do(first) == Tallied(True)
    assert store.do(first) == Tallied(False)
    assert store.do(Tally("acme", {"delivered": 1}, mark=("acct.csv", "17"))) == Tallied(True)
    assert store.do(Tally("acme", {"delivered": 1}, mark=("mail.log", "18"))) == Tallied(True)
    assert store.do(Tally("beta", {"delivered": 1}, mark=("mail.log", "18"))) == Tallied(True)
    assert hours(store) == {HOUR: {"delivered": 7}}


def test_a_mark_never_goes_back(store: Store) -> None:
    """A failover may forget the reader's position and keep the marks: what is read again counts nothing."""
    for tag in ("8.100", "9.99", "9.100"):
        assert store.do(Tally("acme", {"delivered": 1}, mark=("mail.log", tag))) == Tallied(True)
    for tag in ("8.100", "8.101", "9.99", "9.100", "09.100"):
        assert store.do(Tally("acme", {"delivered": 1}, mark=("mail.log", tag))) == Tallied(False)
    for tag in ("10.1", f"10.{10**15 - 1}", "x", "10.1", f"10.{10**15}", "1", "2", "1"):  # all others: the last one is known
        assert store.do(Tally("acme", {"delivered": 1}, mark=("mail.log", tag))) == Tallied(True)
        assert store.do(Tally("acme", {"delivered": 1}, mark=("mail.log", tag))) == Tallied(False)
    assert hours(store) == {HOUR: {"delivered": 11}}


def test_the_record_of_an_hour_is_never_kept_for_less_than_was_said(store: Store) -> None:
    store.do(Suppress("acme", {"gone@x": entry("gone@x", days=99)}))
    store.do(Tally("acme", {"delivered": 5}, keep_ms=90 * DAY_MS))
    store.do(Tally("acme", {"delivered": 1}, keep_ms=HOUR_MS))
    assert charge(store, "t1", "gone@x").status is Status.SUPPRESSED
    store.clock.now_ms += 80 * DAY_MS
    assert hours(store, 80 * 24)[HOUR]["delivered"] == 6


def test_as_many_details_as_a_source_can_bring(store: Store) -> None:
    details = {f"bounced.x{number}": 1 for number in range(1000)}
    assert store.do(Tally("acme", {"bounced": 1000}, details)) == Tallied(True)
    assert hours(store) == {HOUR: {"bounced": 1000, **details}}
    with pytest.raises(ValueError, match="at most 1000 details, got 1001"):
        Tally("acme", {}, {**details, "y": 1})


def test_what_is_named_counts_once(store: Store) -> None:
    for _ in range(3):
        store.do(Tally("acme", {"complained": 1}, once="token", once_ms=DAY_MS))
    assert hours(store) == {HOUR: {"complained": 1}}
    store.clock.now_ms += DAY_MS + 1
    store.do(Tally("acme", {"complained": 1}, once="token", once_ms=DAY_MS))
    assert snapshot(store).today["complained"] == 1


@pytest.mark.parametrize(("counts", "details"), [({"lost": 1}, {}), ({"bounced": -1}, {}), ({}, {"A b": 1}), ({}, {"x": -1})])
def test_what_cannot_be_counted(counts: dict[str, int], details: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Tally("acme", counts, details)


def test_notes(store: Store) -> None:
    assert store.do(Notes("!m:4X", "story")) == Noted({})
    store.do(Note("!m:4X", "story", {"a": "1", "b": '{"x": "ü\\n"}', "c": "3"}))
    store.do(Note("!m:4X", "story", {"a": None, "c": "33", "z": None}))
    store.do(Note("!m:4X", "other", {"a": "9"}))
    assert store.do(Notes("!m:4X", "story")) == Noted({"b": '{"x": "ü\\n"}', "c": "33"})
    assert store.do(Notes("!m:4X", "story", ("c", "q"))) == Noted({"c": "33"})
    assert store.do(Notes("!m:4Y", "story")) == Noted({})
    assert store.ledger.tenants() == []


def test_a_topic_lives_as_long_as_what_was_written_last(store: Store) -> None:
    store.do(Note("b", "t", {"a": "1"}, 1000))
    store.clock.now_ms += 900
    store.do(Note("b", "t", {"b": "2"}, 1000))
    store.clock.now_ms += 900
    assert store.do(Notes("b", "t")) == Noted({"a": "1", "b": "2"})
    store.clock.now_ms += 101
    assert store.do(Notes("b", "t")) == Noted({})


def test_a_topic_kept_for_good_forgets_that_it_was_to_end(store: Store) -> None:
    store.do(Note("b", "t", {"a": "1"}, 1000))
    store.do(Note("b", "t", {"b": "2"}, 0))
    store.ledger.apply([Note("b", "u", {"a": "1"}, 1000), Note("b", "u", {"b": "2"}, 0)])
    store.ledger.apply([Note("b", "v", {"a": "1"}, 0), Note("b", "v", {"b": "2"}, 1000)])
    store.clock.now_ms += 1001
    assert store.do(Notes("b", "t")) == store.do(Notes("b", "u")) == Noted({"a": "1", "b": "2"})
    assert store.do(Notes("b", "v")) == Noted({})


def test_claims(store: Store) -> None:
    assert store.do(Claim("!monitor", ("a", "b"), "step 1", 1000)) == Claimed((True, True))
    assert store.do(Claim("!monitor", ("b", "c", "c"), "step 2", 1000)) == Claimed((False, True, True))
    assert store.do(Claim("!monitor", ("a", "b"), "step 1", 1000)) == Claimed((True, True))  # said again
    assert store.do(Claim("!other", ("a",), "step 2", 1000)) == Claimed((True,))
    store.clock.now_ms += 1001
    assert store.do(Claim("!monitor", ("a",), "step 3", 1000)) == Claimed((True,))


def entry(address: str, days: int = 30, kind: str = "bounced") -> Suppression:
    return Suppression(address, kind, START_MS, START_MS + days * DAY_MS, "550 5.1.1 no such user")


def charge(store: Store, ticket: str, recipient: str, account: Account = ACME) -> Decision:
    return cast("Decision", store.do(Charge(account, ticket, recipient)))


def test_a_suppressed_recipient_is_refused_and_not_charged(store: Store) -> None:
    assert charge(store, "t0", "warm@x").status is Status.ADMITTED  # so that later charges take the fast path
    store.do(Suppress("acme", {"Gone@Example.net": entry("gone@example.net")}))
    refused = charge(store, "t1", "GONE@example.NET")
    assert (refused.status, Suppression.unpack(refused.reason)) == (Status.SUPPRESSED, entry("gone@example.net"))
    assert charge(store, "t1", "gone@example.net").status is Status.SUPPRESSED  # sent again: counted once
    assert charge(store, "t1", "other@example.net") == Decision(Status.ADMITTED)
    found = snapshot(store)
    assert (found.today["recipients"], found.today["refused"], found.balances[0].used) == (2, 1, 2)
    assert hours(store)[HOUR]["suppressed"] == 1
    other = Account.of("beta", [])
    assert charge(store, "t2", "gone@example.net", other).status is Status.ADMITTED
    assert cast("Decision", store.do(Charge(ACME, "t3", "gone@example.net", dry=True))).status is Status.SUPPRESSED
    assert cast("Decision", store.do(Charge(ACME, "t4", "gone@example.net", late_ms=5))).status is Status.ADMITTED


def test_observe_admits_a_suppressed_recipient_and_says_so(store: Store) -> None:
    store.do(Suppress("acme", {"gone@x": entry("gone@x")}))
    found = charge(store, "t1", "gone@x", Account.of("acme", [], observe=True))
    assert (found.status, found.reason) == (Status.ADMITTED, entry("gone@x").pack())
    store.do(Steer("acme", {"mode": "observe"}))
    assert charge(store, "t2", "gone@x").status is Status.ADMITTED
    store.do(Steer("acme", {"mode": "enforce"}))
    assert charge(store, "t3", "gone@x", Account.of("acme", [], observe=True)).status is Status.SUPPRESSED


def test_the_list_expires_and_can_be_changed(store: Store) -> None:
    store.do(Suppress("acme", {name: entry(name, days) for name, days in (("b@x", 1), ("a@x", 30), ("c@x", 30))}))
    assert store.do(Suppressed("acme")) == Listed((entry("a@x"), entry("b@x", 1), entry("c@x")))
    store.do(Suppress("acme", {"C@X": None, "nobody@x": None}))
    assert charge(store, "t1", "c@x").status is Status.ADMITTED
    assert charge(store, "t2", "b@x").status is Status.SUPPRESSED
    store.clock.now_ms += DAY_MS
    assert charge(store, "t3", "b@x").status is Status.ADMITTED
    assert charge(store, "t2", "b@x").status is Status.ADMITTED  # refused before, and no longer
    assert store.do(Suppressed("acme")) == Listed((entry("a@x"),))
    assert store.do(Suppressed("beta")) == Listed()


def test_a_persons_entry_yields_to_a_persons_only(store: Store) -> None:
    def put(kind: str, days: int) -> Suppression:
        store.do(Suppress("acme", {"a@x": entry("a@x", days, kind)}))
        (found,) = cast("Listed", store.do(Suppressed("acme"))).entries
        return found

    assert put("bounced", 5) == put("complained", 4) == put("manual", 4) == entry("a@x", 5)  # the later end stays
    assert put("complained", 6) == entry("a@x", 6, "complained")
    assert put("manual", 7) == put("bounced", 30) == entry("a@x", 7, "manual")
    assert put("manual", 2) == entry("a@x", 2, "manual")  # a person may shorten what a person said
    store.clock.now_ms += 2 * DAY_MS
    assert put("bounced", 3) == entry("a@x", 3)  # what has expired counts for nothing
    store.do(Suppress("acme", {"a@x": entry("a@x", 9, "manual")}))
    store.do(Suppress("acme", {"A@x": None}))
    assert store.do(Suppressed("acme")) == Listed()
    store.ledger.apply([Suppress("acme", {"b@x": entry("b@x", days)}) for days in (9, 8, -1)])
    store.ledger.apply([Suppress("acme", {"c@x": entry("c@x", -20_500)})])  # a time before 1970 is over, too
    assert store.do(Suppressed("acme")) == Listed((entry("b@x", 9),))
    assert charge(store, "t1", "c@x").status is Status.ADMITTED


def test_hostile_addresses_are_kept_apart(store: Store) -> None:
    odd = Suppression("x\ty\nz\udc80@x", "manual", 1, START_MS + DAY_MS, "a\tb" * 200)
    store.do(Suppress("acme", {odd.address: odd}))
    (found,) = cast("Listed", store.do(Suppressed("acme"))).entries
    assert found.address.startswith("x y z")
    assert len(found.reason) == 200
    assert charge(store, "t", odd.address).status is Status.SUPPRESSED


def test_a_ticket_is_found_by_tenant_and_queue_id(store: Store) -> None:
    store.do(Charge(ACME, "t1", "a@x", queue_id="4X"))
    store.do(Settle(ACME, "4X", "", ("a@x",), 100))
    found = cast("Looked", store.do(Look("acme", "4X"))).ticket
    ticket = Ticket.unpack(found)
    assert ticket is not None
    assert ticket.phase is Phase.SETTLED
    assert store.do(Look("acme", "4Y")) == store.do(Look("beta", "4X")) == Looked(None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["delivered", "bounced", "x.y"]), st.integers(0, 9), st.integers(-3, 1), st.booleans()),
        max_size=20,
    )
)
def test_property_any_steps_said_twice_count_once(new_store: StoreMaker, steps: list[tuple[str, int, int, bool]]) -> None:
    store = new_store()
    expected: dict[int, dict[str, int]] = {}
    for number, (name, amount, back, twice) in enumerate(steps):
        counts, details = ({name: amount}, {}) if "." not in name else ({}, {name: amount})
        at_ms = store.clock.now_ms + back * HOUR_MS
        step = Tally("acme", counts, details, at_ms=at_ms, mark=("s", str(number)))
        assert store.ledger.apply([step, step] if twice else [step])[0] == Tallied(True)
        if amount:
            record = expected.setdefault(min(at_ms, store.clock.now_ms) // HOUR_MS, {})
            record[name] = record.get(name, 0) + amount
    assert hours(store) == expected
    assert HISTORY_MS > 30 * DAY_MS
