"""What rspamd said of a tenant's messages, and the sections of the dynamic state, on every store."""

from __future__ import annotations

import math
from collections import Counter
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaywarden.ledger.operations import Account, Charge, Decision, Done, Read, Reset, Score, Snapshot, Status, Steer
from relaywarden.ledger.scores import (
    BUCKETS,
    LONGEST_NAME,
    MOST_NAMES,
    MOST_OF_A_MESSAGE,
    SCORE_EDGES,
    Scores,
    Tableau,
    names_of,
)
from relaywarden.limits import Limit, Meter
from testbed.ledgerstore import START_MS, Store, StoreMaker

ACME = Account.of("acme", [Limit.parse(Meter.MESSAGES, "9/h")])


def read(store: Store) -> Snapshot:
    return cast("Snapshot", store.do(Read(ACME)))


def scores(store: Store) -> Scores:
    found = read(store).scores
    assert found is not None
    return found


def test_scores_fall_into_buckets_by_their_edges(store: Store) -> None:
    assert read(store).scores is None
    for score in (-3.5, 0, 1.999, 2, 5, 7.9, 8, 14.99, 15, 99):
        assert store.do(Score("acme", score)) == Done()
    assert len(SCORE_EDGES) + 1 == BUCKETS == 8
    assert scores(store) == Scores((1, 2, 1, 1, 1, 1, 1, 2), 10, 150.389, ())


def test_the_sum_is_exact_to_the_thousandth(store: Store) -> None:
    store.ledger.apply([Score("acme", 0.1)] * 30)
    assert scores(store).total == 3.0


def test_symbols_are_ranked_by_count_and_name(store: Store) -> None:
    for symbols in (("R_SPF_ALLOW", "BAYES_SPAM"), ("BAYES_SPAM", "ÄRGER", "Z"), ("a", "BAYES_SPAM", "Z")):
        store.do(Score("acme", 1, symbols))
    assert scores(store).symbols == (("BAYES_SPAM", 3), ("Z", 2), ("R_SPF_ALLOW", 1), ("a", 1), ("ÄRGER", 1))


def test_a_new_day_starts_with_nothing(store: Store) -> None:
    store.do(Score("acme", 3, ("A",)))
    store.clock.now_ms += 15 * 3_600_000 + 3_599_999  # it was 08:00
    store.do(Score("acme", 3, ("B",)))
    assert scores(store).symbols == (("A", 1), ("B", 1))
    store.clock.now_ms += 1
    assert read(store).scores is None
    store.do(Score("acme", -1, ("C",)))
    assert scores(store) == Scores((1, 0, 0, 0, 0, 0, 0, 0), 1, -1.0, (("C", 1),))


def test_names_from_outside_are_bounded(store: Store) -> None:
    hostile = ("x" * 500, "x" * 501, "", "nul\0\n", "{}[]\"'%s", "\ud800", "é" * 70, "𝄞" * 70, *(f"N{n}" for n in range(90)))
    store.do(Score("acme", 1, hostile))
    names = [name for name, _ in scores(store).symbols]
    assert set(names) == {
        "x" * 64, "nul\0\n", "{}[]\"'%s", "?", "é" * 64, "𝄞" * 64, *(f"N{n}" for n in range(14)),
    }  # fmt: skip
    assert {count for _, count in scores(store).symbols} == {1}
    assert len(names) == MOST_OF_A_MESSAGE


def test_a_score_is_a_number_of_sensible_size(store: Store) -> None:
    for score in (math.inf, 1e308, -math.inf):
        store.do(Score("acme", score))
    assert scores(store) == Scores((1, 0, 0, 0, 0, 0, 0, 2), 3, 1_000_000.0, ())
    with pytest.raises(ValueError, match="nan"):
        Score("acme", math.nan)


def test_a_flood_of_names_does_not_hide_a_frequent_one(store: Store) -> None:
    """One symbol in every message, among nineteen new ones each time."""
    for start in range(0, 100, 20):
        store.ledger.apply(
            [Score("acme", 1, ("BAYES_SPAM", *(f"RANDOM{n}.{i}" for i in range(19)))) for n in range(start, start + 20)]
        )
    found = scores(store)
    assert len(found.symbols) == MOST_NAMES
    counts = dict(found.symbols)
    least = found.symbols[-1][1]
    assert 100 <= counts["BAYES_SPAM"] <= 100 + least
    assert sum(counts.values()) == 2000


def test_a_name_may_lose_its_place_and_come_back_in_one_message(store: Store) -> None:
    names = [f"N{n:02}" for n in range(MOST_NAMES)]
    for start in (0, 20):
        store.do(Score("acme", 1, tuple(names[start : start + 20])))
    store.do(Score("acme", 1, ("X", "N00")))  # X takes the place of N00, N00 that of N01
    assert scores(store).symbols == (("N00", 2), ("X", 2), *((name, 1) for name in names[2:]))


NAMES = st.one_of(
    st.sampled_from([f"SYM{n}" for n in range(70)]), st.text(max_size=70), st.text("aAäzß𝄞", min_size=1, max_size=2)
)
Message = tuple[float, tuple[str, ...]]
MESSAGES = st.lists(st.tuples(st.floats(-50, 50), st.lists(NAMES, max_size=25).map(tuple)), max_size=20)


@given(messages=MESSAGES)
@settings(suppress_health_check=list(HealthCheck))
def test_every_store_keeps_what_a_plain_model_keeps(new_store: StoreMaker, messages: list[Message]) -> None:
    store = new_store()
    store.ledger.apply([Score("acme", score, symbols) for score, symbols in messages])
    kept: list[tuple[int, bytes]] = []
    truth: Counter[bytes] = Counter()
    for _, symbols in messages:
        for name in (name.encode() for name in names_of(symbols)):
            truth[name] += 1
            old = [entry for entry in kept if entry[1] == name]
            if not old and len(kept) == MOST_NAMES:
                old = [min(kept)]
            kept = [entry for entry in kept if entry not in old] + [(sum(times for times, _ in old) + 1, name)]
    found = read(store).scores
    if not messages:
        assert found is None
        return
    assert found is not None
    assert found.symbols == tuple((name.decode(), times) for times, name in sorted(kept, key=lambda e: (-e[0], e[1])))
    assert found.buckets == tuple(
        sum(low <= score < high for score, _ in messages)
        for low, high in zip((-math.inf, *SCORE_EDGES), (*SCORE_EDGES, math.inf), strict=True)
    )
    assert found.count == len(messages)
    assert found.total == pytest.approx(sum(score for score, _ in messages), abs=0.0006 * len(messages))
    told = {name.encode(): times for name, times in found.symbols}
    for name, times in truth.items():
        assert told.get(name, 0) >= times or times <= truth.total() / MOST_NAMES


def test_scores_leave_balances_and_counters_alone(store: Store) -> None:
    store.do(Charge(ACME, "t1", "a@x", 100))
    before = read(store)
    store.do(Score("acme", 4, ("A",)))
    after = read(store)
    assert (after.balances, after.hour, after.today, after.state) == (before.balances, before.hour, before.today, {})
    assert cast("Decision", store.do(Charge(ACME, "t2", "a@x", 100))).status is Status.ADMITTED
    assert read(store).balances[0].used == 2
    assert scores(store).count == 1


def test_a_tenant_of_whom_only_scores_are_known_is_listed(store: Store) -> None:
    store.do(Score("acme", 4))
    assert store.ledger.tenants() == ["acme"]
    assert cast("Decision", store.do(Charge(ACME, "t1", "a@x"))).status is Status.ADMITTED
    assert read(store).today["messages"] == 1


def test_a_reset_forgets_balances_and_keeps_scores_and_counters(store: Store) -> None:
    store.do(Charge(ACME, "t1", "a@x"))
    store.do(Score("acme", 4, ("A",)))
    for _ in range(2):
        store.ledger.apply([Score("acme", 4, ("A",)), Reset("acme"), Score("acme", 4, ("B",))])
    snapshot = read(store)
    assert snapshot.balances[0].used == 0
    assert snapshot.today["messages"] == 1
    assert snapshot.scores == Scores((0, 0, 0, 5, 0, 0, 0, 0), 5, 20.0, (("A", 3), ("B", 2)))


def test_tenants_have_scores_of_their_own(store: Store) -> None:
    store.ledger.apply([Score("acme", 4, ("A",)), Score("other", 9, ("B",)), Score("acme", 4)])
    assert scores(store) == Scores((0, 0, 0, 2, 0, 0, 0, 0), 2, 8.0, (("A", 1),))


@given(symbols=st.lists(st.text(st.characters(exclude_categories=()), max_size=200), max_size=60))
def test_what_is_kept_of_a_message_is_bounded_and_can_be_written(symbols: list[str]) -> None:
    names = names_of(symbols)
    assert len(names) <= MOST_OF_A_MESSAGE
    assert len(set(names)) == len(names)
    assert all(1 <= len(name) <= LONGEST_NAME and name.encode() for name in names)


def test_a_damaged_value_is_an_error() -> None:
    tableau = Tableau(None, START_MS)
    tableau.add(3, ["A", "B"])
    packed = tableau.pack()
    assert Tableau(packed, START_MS).scores() == tableau.scores()
    for short in (packed[:79], packed[:85]):
        with pytest.raises(ValueError, match="not a day of scores"):
            Tableau(short, START_MS)


@pytest.mark.parametrize("section", ["limits", "grants", "faults", "tenants", "selectors", "members"])
def test_some_sections_of_the_state_are_changed_entry_by_entry(store: Store, section: str) -> None:
    paused = {"paused": {"*": {"until_ms": None, "reason": "listed"}}, "back": {"google": 2}}
    store.do(Steer("!steering", {section: {"tx1": paused, "tx2": {"back": {"*": 1}}}}))
    store.do(Steer("!steering", {section: {"tx3": {"back": {}}, "tx2": None}, "other": {"a": 1}}))
    done = cast("Done", store.do(Steer("!steering", {section: {"tx3": {"back": {"yahoo": 3}}}, "other": {"b": 2}})))
    assert done.state == {section: {"tx1": paused, "tx3": {"back": {"yahoo": 3}}}, "other": {"b": 2}}
    done = cast("Done", store.do(Steer("!steering", {section: {"tx1": None, "tx3": None}, "other": None})))
    assert done.state == {}
