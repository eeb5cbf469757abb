"""Turns of pool members, and the route header."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden.config.settings import Settings
from relaywarden.pools import Member, Pool
from relaywarden_milter.route import FullError, Route, Router
from relaywarden_milter.rules import NoWarmup


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


POOLS: dict[str, Any] = {
    "transactional": {"members": {"tx1": {"ip": "192.0.2.1"}, "tx2": {"ip": "192.0.2.2"}}},
    "bulk": {"members": {"bk1": {"ip": "192.0.2.3"}}},
    "new": {"members": {"n1": {"ip": "192.0.2.4"}, "n2": {"ip": "192.0.2.5"}}, "when_full": "send"},
}


def router(**route: str) -> Router:
    return Router(Settings.model_validate({"pools": POOLS, "route": route}))


class Says:
    """An allowance that admits these members, and names the first of a pool as the largest."""

    def __init__(self, *members: str, largest: bool = True, borrows: str = "") -> None:
        self.members, self._largest, self._borrows = members, largest, borrows

    def admits(self, member: str, recipients: Sequence[str]) -> bool:
        assert recipients == ["b@x.example"]
        return member in self.members

    def borrows(self, member: str, recipients: Sequence[str]) -> bool:
        assert recipients == ["b@x.example"]
        return member == self._borrows

    def largest(self, members: Sequence[str], recipients: Sequence[str]) -> str | None:
        assert recipients == ["b@x.example"]
        return members[0] if self._largest else None


TO = ["b@x.example"]


def test_members_take_turns() -> None:
    made = router()
    routes = [made.route("transactional", TO, NoWarmup()) for _ in range(4)]
    assert Counter(route.value for route in routes if route) == {"tx1": 2, "tx2": 2}
    bulk = made.route("bulk", TO, NoWarmup())
    assert bulk == Route("bulk", "bk1", "X-Virtual-MTA", "bk1")
    assert made.route("none", TO, NoWarmup()) is None


def test_what_one_member_may_not_carry_goes_by_another() -> None:
    made = router()
    routes = [made.route("transactional", TO, Says("tx2")) for _ in range(4)]
    assert {route.member for route in routes if route} == {"tx2"}


def test_a_pool_in_which_nobody_may_send() -> None:
    with pytest.raises(FullError, match="transactional"):
        router().route("transactional", TO, Says())
    largest = router().route("new", TO, Says())
    assert largest is not None
    assert largest.member == "n1"
    with pytest.raises(FullError, match="new"):  # paused, not only full
        router().route("new", TO, Says(largest=False))


def test_the_ledger_is_asked_before_mail_is_put_off() -> None:
    made = router()
    routes = [made.route("transactional", TO, Says(borrows="tx1")) for _ in range(4)]
    assert {route.member for route in routes if route} == {"tx1"}


def test_target_pool_leaves_the_member_to_powermta() -> None:
    assert router(target="pool", header="X-Pool").route("bulk", TO, Says()) == Route("bulk", "", "X-Pool", "bulk")
