"""Who decides while the store does not answer: a share of each limit, all workers together, in bounded memory."""

from __future__ import annotations

import pytest

from relaywarden.config.settings import OnDown
from relaywarden.ledger.operations import Account, Charge, Decision, Read, Reconcile, Refuse, Status
from relaywarden.limits import Limit, Meter
from relaywarden_policyd import limiter
from relaywarden_policyd.limiter import LATER, Fixed, LastSeen, LocalLimiter


def account(*limits: tuple[str, str], tenant: str = "acme", hold: bool = False) -> Account:
    return Account.of(
        tenant, [Limit.parse(Meter(meter), text) for meter, text in limits or [("recipients", "100/hour")]], hold=hold
    )


def admitted(by: LocalLimiter, whose: Account, count: int, first: int = 0) -> int:
    decisions = [by.decide(Charge(whose, f"t{first + n}", f"u{first + n}@x.example")) for n in range(count)]
    return sum(decision.status is Status.ADMITTED for decision in decisions)


@pytest.mark.parametrize(("share", "workers", "total"), [(0.1, 1, 10), (0.1, 2, 10), (0.1, 3, 10), (0.25, 8, 25), (0, 2, 0)])
def test_all_workers_together_admit_the_share(share: float, workers: int, total: int) -> None:
    parts = [admitted(LocalLimiter(share, workers, index), account(), 100) for index in range(workers)]
    assert sum(parts) == total
    assert max(parts) - min(parts) <= 1


def test_every_limit_has_its_share_and_none_is_charged_where_one_refuses() -> None:
    whose = account(("recipients", "100/hour"), ("bytes", "1000/day"), ("messages", "10/h burst 50"))
    by = LocalLimiter(0.1, 1, 0)
    assert by.decide(Charge(whose, "big", "a@x.example", size=101)).status is Status.REFUSED
    assert by.decide(Charge(whose, "small", "a@x.example", size=100)).status is Status.ADMITTED
    assert by.decide(Charge(whose, "full", "a@x.example", size=1)).status is Status.REFUSED
    assert admitted(by, whose, 50) == 4  # a burst of 5, one of which is spent; recipients would have allowed 9


def test_what_was_answered_is_answered_again_and_counts_once() -> None:
    by, whose = LocalLimiter(0.1, 1, 0), account()
    same = Charge(whose, "t", "u@x.example")
    assert {by.decide(same).status for _ in range(50)} == {Status.ADMITTED}
    assert by.decide(Reconcile(whose, "t", 1, 0)).status is Status.ADMITTED
    assert admitted(by, whose, 50) == 9


def test_what_a_limit_would_hold_is_put_off() -> None:
    by, whose = LocalLimiter(0.1, 1, 0), account(hold=True)
    assert admitted(by, whose, 10) == 10
    assert by.decide(Charge(whose, "more", "u@x.example")).status is Status.REFUSED


def test_what_only_counts_needs_no_decision() -> None:
    for operation in (Refuse(account(), "t"), Read(account())):
        assert LocalLimiter(0, 1, 0).decide(operation).status is Status.ADMITTED


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter, "MAX_TENANTS", 5)
    monkeypatch.setattr(limiter, "MAX_TICKETS", 20)
    by = LocalLimiter(0.1, 1, 0)
    accounts = [account(tenant=f"t{n}") for n in range(50)]
    for number, whose in enumerate(accounts):
        admitted(by, whose, 10, first=10 * number)
    assert (len(by._books), len(by._tickets)) == (5, 20)
    assert admitted(by, accounts[-1], 10, first=1000) == 0, "the latest are the ones that are kept"


def test_who_was_suspended_when_last_seen_is_put_off() -> None:
    by, mine = LastSeen(Fixed(OnDown.ACCEPT)), Charge(account(), "t", "u@x.example")
    by.learn(mine, Decision(Status.SUSPENDED, reason="stolen password"))
    assert by.decide(mine) == LATER
    assert by.decide(Reconcile(account(), "t", 1, 0)) == LATER
    assert by.decide(Charge(account(tenant="other"), "t", "u@x.example")).status is Status.ADMITTED
    assert by.decide(Refuse(account(), "t")).status is Status.ADMITTED  # nobody asks
    by.learn(mine, Decision(Status.ADMITTED))
    assert by.decide(mine).status is Status.ADMITTED
