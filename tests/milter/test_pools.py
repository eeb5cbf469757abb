"""Turns of pool members, and the route header."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden.config.settings import Settings
from relaywarden.pools import Member, Pool
from relaywarden.tenants import Directory, Tenant
from relaywarden_milter.route import Router


def pool(*weights: int) -> Pool:
    return Pool.of("p", [Member(chr(97 + index), f"192.0.2.{index}", weight) for index, weight in enumerate(weights)])


def test_turns_are_spread() -> None:
    assert "".join(pool(1, 1, 1).member(turn).name for turn in range(7)) == "abcabca"
    assert "".join(pool(3, 1).member(turn).name for turn in range(8)) in {"aabaaaba", "abaaabaa"}
    assert Counter(pool(5, 2, 1).order) == Counter({m: m.weight for m in pool(5, 2, 1).members})


def test_weight_zero_gets_no_turn_unless_all_have_none() -> None:
    assert {member.name for member in pool(0, 1).order} == {"b"}
    assert {member.name for member in pool(0, 0).order} == {"a", "b"}


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=8))
def test_shares_follow_weights_and_cycles_are_bounded(weights: list[int]) -> None:
    made = pool(*weights)
    assert 1 <= len(made.order) <= 1_000 + len(weights)
    if total := sum(weights):
        counts = Counter(member.name for member in made.order)
        for member in made.members:
            assert abs(counts[member.name] / len(made.order) - member.weight / total) <= 0.02 or member.weight * 1_000 < total


CONFIG: dict[str, Any] = {
    "plans": {"p": {}},
    "tenants": {"acme": {"plan": "p"}, "other": {"plan": "p", "pool": "bulk"}},
    "pools": {
        "transactional": {"members": {"tx1": {"ip": "192.0.2.1"}, "tx2": {"ip": "192.0.2.2"}}},
        "bulk": {"members": {"bk1": {"ip": "192.0.2.3"}}},
        "quarantine": {"members": {"q1": {"ip": "192.0.2.4"}}},
    },
}


def tenant(settings: Settings, login: str) -> Tenant:
    found = Directory(settings).by_login(login)
    assert found is not None
    return found


def test_routes() -> None:
    settings = Settings.model_validate(CONFIG)
    router = Router(settings)
    routes = [router.route(tenant(settings, "acme")) for _ in range(4)]
    assert Counter(route.value for route in routes if route) == {"tx1": 2, "tx2": 2}
    bulk = router.route(tenant(settings, "other"))
    assert bulk is not None
    assert (bulk.pool, bulk.member, bulk.header, bulk.value) == ("bulk", "bk1", "X-Virtual-MTA", "bk1")
    diverted = router.route(tenant(settings, "other"), divert=True)
    assert diverted is not None
    assert diverted.value == "q1"


@pytest.mark.parametrize(("target", "value"), [("member", "q1"), ("pool", "quarantine")])
def test_target(target: str, value: str) -> None:
    settings = Settings.model_validate({**CONFIG, "route": {"target": target, "header": "X-Pool"}})
    route = Router(settings).route(tenant(settings, "acme"), divert=True)
    assert route is not None
    assert (route.header, route.value) == ("X-Pool", value)


def test_no_pools_no_tag() -> None:
    settings = Settings.model_validate({**CONFIG, "pools": {}, "tenants": {"acme": {"plan": "p"}}})
    assert Router(settings).route(tenant(settings, "acme")) is None
