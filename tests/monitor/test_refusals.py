"""What policyd turned away, as the engine hears of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaywarden.config.settings import Settings
from relaywarden.ledger.connect import open_ledger
from relaywarden.ledger.operations import Ledger
from relaywarden.ledger.records import HOUR_MS, Tally
from relaywarden_monitor.patterns.refusals import Added, Refusals

BEGIN = int(time.time() * 1000) // HOUR_MS * HOUR_MS - 10 * HOUR_MS


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    found = open_ledger(Settings.model_validate({"store": f"sqlite:///{tmp_path}/ledger.db"}))
    yield found
    found.close()


def add(ledger: Ledger, at: float, refused: int = 0, suppressed: int = 0) -> None:
    ledger.apply([Tally("acme", {"refused": refused}, {"suppressed": suppressed}, at_ms=int(at * 1000))])


def test_only_what_came_since_the_last_look_is_told(ledger: Ledger) -> None:
    now, refusals = BEGIN / 1000, Refusals(ledger)
    add(ledger, now + 1, 5, 2)
    assert refusals.since(["acme"], now + 2) == {}  # of before the first look
    add(ledger, now + 3, 4, 1)
    assert refusals.since(["acme"], now + 30) == {}  # a minute has not gone by
    assert refusals.since(["acme", "beta"], now + 63) == {"acme": Added(4, 1)}
    assert refusals.since(["acme"], now + 130) == {}


def test_an_hour_that_ended_between_two_looks_is_told_whole(ledger: Ledger) -> None:
    now, refusals = BEGIN / 1000, Refusals(ledger)
    add(ledger, now + 3_500, 5)
    refusals.since(["acme"], now + 3_550)
    add(ledger, now + 3_590, 2, 1)
    add(ledger, now + 3_610, 3)
    assert refusals.since(["acme"], now + 3_620) == {"acme": Added(5, 1)}
    add(ledger, now + 7_300, 1)
    assert refusals.since(["acme"], now + 7_400) == {"acme": Added(1, 0)}
    assert refusals.since(["acme"], now + 20_000) == {}
