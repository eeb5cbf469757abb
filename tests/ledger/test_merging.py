"""Changes of the dynamic state: what somebody else said and still holds is left as it is, on every store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaywarden import steering
from relaywarden.ledger.merging import merge
from relaywarden.ledger.operations import Account, Done, Read, Snapshot, Steer
from testbed.ledgerstore import START_MS, Store, StoreMaker

ACME = Account("acme", ())
BY_ANNA = {"reason": "stolen password", "by": "anna"}
BY_MONITOR = {"reason": "complaints", "by": "monitor", "until_ms": START_MS + 1000}


def steer(store: Store, change: Mapping[str, Any], by: str = "") -> Mapping[str, Any]:
    """The state afterwards."""
    return cast("Done", store.do(Steer("acme", change, by))).state


def pause(store: Store, pauses: Mapping[str, Any] | None, by: str = "") -> Mapping[str, Any]:
    """The member's entry afterwards."""
    told = cast("Done", store.do(steering.say("members", {"tx1": {"paused": pauses}}, by)))
    return cast("Mapping[str, Any]", told.state["members"]["tx1"])


def test_what_a_person_said_is_neither_changed_nor_removed_by_the_monitor(store: Store) -> None:
    steer(store, {"suspended": BY_ANNA})
    for change in (BY_MONITOR, None):
        assert steer(store, {"suspended": change}, "monitor") == {"suspended": BY_ANNA}
    assert steer(store, {"suspended": {"by": "anna"}}, "anna") == {"suspended": {"by": "anna"}}
    assert steer(store, {"suspended": BY_MONITOR}) == {"suspended": BY_MONITOR}  # without `by`: whatever stands there
    assert steer(store, {"suspended": None}, "monitor") == {}


@pytest.mark.parametrize("until_ms", [None, START_MS + 10])
def test_a_word_protects_itself_until_it_ends(store: Store, until_ms: int | None) -> None:
    steer(store, {"slow": {**BY_ANNA, "until_ms": until_ms}})
    store.clock.now_ms += 9
    assert steer(store, {"slow": BY_MONITOR}, "monitor")["slow"]["by"] == "anna"
    store.clock.now_ms += 1
    assert steer(store, {"slow": BY_MONITOR}, "monitor")["slow"]["by"] == ("anna" if until_ms is None else "monitor")


def test_whole_keys_are_one_word(store: Store) -> None:
    """Whom a person slowed, the monitor does not suspend beside that."""
    steer(store, {"standing": {**BY_ANNA, "step": "slowed"}, "slow": {**BY_ANNA, "factor": 0.5}})
    said = {"standing": BY_MONITOR, "slow": None, "suspended": BY_MONITOR, "limits": {"messages/1h": 9}}
    found = steer(store, said, "monitor")
    assert found == {
        "standing": {**BY_ANNA, "step": "slowed"}, "slow": {**BY_ANNA, "factor": 0.5}, "limits": {"messages/1h": 9},
    }  # fmt: skip


def test_entries_are_each_by_themselves(store: Store) -> None:
    steer(store, {"tenants": {"acme": BY_ANNA, "beta": BY_MONITOR}})
    said = steering.say("tenants", {"acme": None, "beta": None, "gamma": BY_MONITOR}, "monitor")
    assert steer(store, said.change, said.by) == {"tenants": {"acme": BY_ANNA, "gamma": BY_MONITOR}}
    assert steer(store, {"tenants": None}, "monitor") == {"tenants": {"acme": BY_ANNA}}
    assert steer(store, {"tenants": {"acme": None}}) == {}


def test_pauses_of_a_member_are_merged_provider_by_provider(store: Store) -> None:
    store.do(steering.say("members", {"tx1": {"paused": {"google": {**BY_ANNA, "until_ms": None}}, "back": {"*": 2}}}))
    found = pause(store, {"google": BY_MONITOR, "yahoo": BY_MONITOR}, "monitor")
    assert found == {"paused": {"google": {**BY_ANNA, "until_ms": None}, "yahoo": BY_MONITOR}, "back": {"*": 2}}
    found = pause(store, {"google": None, "yahoo": None}, "monitor")
    assert found == {"paused": {"google": {**BY_ANNA, "until_ms": None}}, "back": {"*": 2}}
    assert pause(store, None, "anna") == {"back": {"*": 2}}
    assert pause(store, {"*": BY_ANNA}) == {"paused": {"*": BY_ANNA}}  # without `by`: the entry as a whole
    (told,) = store.ledger.apply([steering.say("members", {"tx1": None}, "monitor")])
    assert cast("Done", told).state == {"members": {"tx1": {"paused": {"*": BY_ANNA}}}}
    assert steering.read(store.ledger).members == {"tx1": {"paused": {"*": BY_ANNA}}}


_WHO = st.sampled_from(["anna", "monitor", None])
_UNTIL = st.sampled_from([None, 0, START_MS, START_MS + 1, "soon"])
_SAID = st.fixed_dictionaries({"n": st.integers(0, 3)}, optional={"by": _WHO, "until_ms": _UNTIL})
_WORD = st.none() | st.sampled_from([7, "x"]) | _SAID
_WORDS = st.dictionaries(st.sampled_from("ab*"), _WORD, min_size=1, max_size=3)
_MEMBER = st.fixed_dictionaries({}, optional={"paused": st.none() | _WORDS, "back": st.none() | st.just({"*": 1}), "by": _WHO})
_CHANGE = st.fixed_dictionaries(
    {},
    optional={
        "standing": _WORD, "other": _WORD, "tenants": st.none() | _WORDS,
        "members": st.none() | st.dictionaries(st.sampled_from("mn"), st.none() | _MEMBER, max_size=2),
    },
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(steps=st.lists(st.tuples(_CHANGE, st.sampled_from(["", "monitor", "anna"])), min_size=1, max_size=5))
def test_property_every_store_merges_as_the_specification(new_store: StoreMaker, steps: list[tuple[Any, str]]) -> None:
    store = new_store()
    state: dict[str, Any] = {}
    for change, by in steps:
        state = merge(state, change, by, START_MS)
        assert steer(store, change, by) == state
    assert cast("Snapshot", store.do(Read(ACME))).state == state


@settings(max_examples=200)
@given(state=_CHANGE, change=_CHANGE)
def test_property_a_change_by_somebody_never_touches_what_holds_of_others(
    state: dict[str, Any], change: dict[str, Any]
) -> None:
    before = merge({}, state)
    after = merge(before, change, "monitor", START_MS)
    assert _of_others(before) <= _of_others(after)


def _of_others(state: Mapping[str, Any]) -> set[str]:
    words = [(key, state[key]) for key in ("standing", "other") if key in state]
    words += [(f"tenants {name}", word) for name, word in (state.get("tenants") or {}).items()]
    for member, entry in (state.get("members") or {}).items():
        words += [(f"{member} {name}", word) for name, word in (entry.get("paused") or {}).items()]
    return {f"{where}: {json.dumps(word, sort_keys=True)}" for where, word in words if _is_annas(word)}


def _is_annas(word: Any) -> bool:
    until = word.get("until_ms") if isinstance(word, dict) else None
    return isinstance(word, dict) and word.get("by") == "anna" and (not isinstance(until, int) or until > START_MS)
