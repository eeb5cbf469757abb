"""The limits of a replay refuse exactly what the real ledger would."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaywarden.config.settings import Settings
from relaywarden.ledger.operations import Charge, Decision, Read, Snapshot, Status, recipient_digest
from relaywarden.ledger.sqlite import SqliteLedger
from relaywarden.tenants import Directory, Tenant
from relaywarden_monitor.replay.hours import HourlyTill
from relaywarden_monitor.replay.tally import Use
from relaywarden_monitor.replay.till import Mail, Till

START_MS = 1_795_507_200_000
LIMITS = (
    "messages: 3/10s", "messages: 1/s burst 4", "recipients: 8/m", "recipients: 20/hour", "bytes: 3000/m",
    "unique_recipients: 6/m",
)  # fmt: skip
MAILS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 3000), st.integers(0, 200_000)),  # milliseconds since the mail before
        st.lists(st.integers(0, 12), min_size=1, max_size=6, unique=True),  # recipients
        st.integers(1, 1500),
    ),
    max_size=25,
)


def tenant(limits: list[str], **plan: object) -> Tenant:
    rows = [dict([row.split(": ")]) for row in limits]
    made = Settings.model_validate({"plans": {"p": {"limits": rows, **plan}}, "tenants": {"acme": {"plan": "p"}}})
    (found,) = Directory(made)
    return found


@pytest.mark.parametrize("plan", [{}, {"mode": "observe"}, {"on_exceed": "hold"}])
@settings(max_examples=25)
@given(mails=MAILS, limits=st.lists(st.sampled_from(LIMITS), min_size=1, max_size=4, unique=True))
def test_property_the_same_as_the_ledger(
    plan: dict[str, str], mails: list[tuple[int, list[int], int]], limits: list[str]
) -> None:
    acme = tenant(limits, **plan)
    uses: dict[str, Use] = {}
    till, account, now = Till(acme, uses), acme.account(), START_MS
    with tempfile.TemporaryDirectory() as folder:
        ledger = SqliteLedger(Path(folder) / "l.db", timeout_ms=1000, ticket_ttl_ms=600_000, clock=lambda: now)
        spoken = 0
        for number, (later, people, size) in enumerate(mails):
            now += later
            names = [f"r{one}@x.example" for one in people]
            charges = [Charge(account, f"t{number}", name, size) for name in names]
            decisions = cast("list[Decision]", ledger.apply(charges))
            refused = till.charge(account, Mail(now, len(names), size, tuple(map(recipient_digest, names))))
            assert refused == sum(one.status is Status.REFUSED for one in decisions)
            spoken += sum(one.refusal is not None for one in decisions)
            assert sum(use.refused for use in uses.values()) == spoken
        (snapshot,) = cast("list[Snapshot]", ledger.apply([Read(account)]))
        ledger.close()
    till.peaks()
    for used in snapshot.balances:
        assert (uses[used.key].peak or 0.0) >= 99.9 * (used.used - 1) / used.allowed


def test_the_highest_use_is_the_nearest_miss() -> None:
    acme = tenant(["recipients: 100/hour", "messages: 10/s burst 50", "unique_recipients: 50/day"])
    uses: dict[str, Use] = {}
    till = Till(acme, uses)
    for number in range(40):
        till.charge(acme.account(), Mail(START_MS + number, 2, 0, (recipient_digest(f"r{number % 5}"),)))
    till.peaks()
    peaks = [use.peak for use in uses.values()]
    assert peaks == [80.0, pytest.approx(79.2, abs=0.5), 10.0]
    assert sum(use.refused for use in uses.values()) == 0


def test_caps_on_one_message_come_first() -> None:
    acme = tenant(["recipients: 100/hour"], recipients_per_message=10, bytes_per_message=5000)
    uses: dict[str, Use] = {}
    till = Till(acme, uses)
    assert till.charge(acme.account(), Mail(START_MS, 25, 100)) == 15
    assert till.charge(acme.account(), Mail(START_MS, 3, 6000)) == 3
    assert {name: use.refused for name, use in uses.items()} == {
        "recipients/1h": 0, "recipients_per_message: 10": 15, "bytes_per_message: 5000": 3,
    }  # fmt: skip


def test_a_log_that_claims_a_billion_recipients_takes_no_longer() -> None:
    acme = tenant(["recipients: 1_000_000/hour"])
    uses: dict[str, Use] = {}
    refused = Till(acme, uses).charge(acme.account(), Mail(START_MS, 999_999_999))
    assert refused == 999_998_999


def test_a_slowed_tenant_has_a_quarter_of_its_limits() -> None:
    acme = tenant(["recipients: 100/hour"])
    till = Till(acme, {})
    till.state = {"slow": {"factor": 0.25, "until_ms": START_MS + 1000}}
    assert till.charge(acme.account(), Mail(START_MS, 30)) == 5
    assert till.charge(acme.account(), Mail(START_MS + 1000, 30)) == 0


@settings(max_examples=100)
@given(amounts=st.lists(st.integers(0, 60), max_size=40), hour=st.integers(10, 100), day=st.integers(50, 400))
def test_property_hours_never_admit_more_than_a_window_does(amounts: list[int], hour: int, day: int) -> None:
    acme = tenant([f"recipients: {hour}/hour", f"recipients: {day}/day"])
    uses: dict[str, Use] = {}
    till = HourlyTill(acme, uses)
    for number, amount in enumerate(amounts):
        till.charge(number, amount, amount)
    for use, limit in zip(uses.values(), (hour, day), strict=True):
        assert (use.peak or 0.0) <= 100
        if sum(amounts) <= limit:
            assert use.refused == 0
    assert bool(uses["recipients/1h"].refused) == any(amount > hour for amount in amounts)
