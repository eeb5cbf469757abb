"""A dirty list is stopped within tens of recipients, a good one hardly ever; both worked out exactly, not sampled."""

from __future__ import annotations

import functools
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from relaywarden.config.monitor_settings import HealthSettings
from relaywarden_monitor.bursts import LONGEST_SECONDS, QUIET_SECONDS, Bursts
from relaywarden_monitor.notify.alerts import Level

HEALTH = HealthSettings()


@functools.cache
def level_of(seen: int, invalid: int) -> Level:
    """What one look says, asked of a burst that begins with this look."""
    finding = Bursts().feed("acme", 0.0, invalid, seen, HEALTH)
    return finding.level if finding else Level.NONE


def tripped(share: float, level: Level, recipients: int) -> float:
    """The probability that a list with this share of invalid recipients has reached the level by then."""
    alive, reached = {0: 1.0}, 0.0
    for seen in range(1, recipients + 1):
        after: Counter[int] = Counter()
        for invalid, probability in alive.items():
            after[invalid] += probability * (1 - share)  # type: ignore[assignment]  # a Counter adds floats as well
            after[invalid + 1] += probability * share  # type: ignore[assignment]
        for invalid in [invalid for invalid in after if level_of(seen, invalid).height >= level.height]:
            reached += after.pop(invalid)
        alive = dict(after)
    return reached


def test_a_good_list_hardly_ever_trips() -> None:
    assert tripped(0.02, Level.ACT, 200) < 0.0001
    assert tripped(0.02, Level.WARN, 200) < 0.001


def test_a_dirty_list_trips_within_60_recipients() -> None:
    assert tripped(0.25, Level.ACT, 60) > 0.95
    assert tripped(0.25, Level.WARN, 60) > 0.99
    assert tripped(0.5, Level.ACT, 30) > 0.99


def test_each_level_is_told_once_a_burst() -> None:
    bursts = Bursts()
    told = [bursts.feed("acme", float(at), at % 9 == 0, 1, HEALTH) for at in range(60)]
    told += [bursts.feed("acme", 60.0 + at, 1, 1, HEALTH) for at in range(60)]
    findings = [finding for finding in told if finding]
    assert [finding.level for finding in findings] == [Level.WARN, Level.ACT]
    assert bursts.level("acme", 120.0) is Level.ACT
    assert findings[1].text.endswith(" at least (act from 10.00%)")
    assert findings[1].name == "invalid"


def test_nothing_is_said_before_the_twentieth_recipient() -> None:
    bursts = Bursts()
    told = [bursts.feed("acme", 0.0, 1, 1, HEALTH) for _ in range(20)]
    assert told[:-1] == [None] * 19
    assert told[-1] is not None


def test_only_the_first_recipients_of_a_burst_count() -> None:
    bursts = Bursts()
    assert bursts.feed("acme", 0.0, 0, 200, HEALTH) is None
    assert bursts.feed("acme", 1.0, 1000, 1000, HEALTH) is None


def test_a_burst_begins_after_a_quiet_time() -> None:
    bursts = Bursts()
    assert bursts.feed("acme", 0.0, 200, 200, HEALTH)
    assert bursts.level("acme", QUIET_SECONDS - 1) is Level.ACT
    assert bursts.feed("acme", QUIET_SECONDS - 1, 200, 200, HEALTH) is None
    assert bursts.level("acme", 2 * QUIET_SECONDS - 1) is Level.NONE
    assert bursts.feed("acme", 2 * QUIET_SECONDS - 1, 200, 200, HEALTH)


def test_a_burst_begins_anew_after_an_hour() -> None:
    bursts = Bursts()
    told = [bursts.feed("acme", float(at), 200, 200, HEALTH) for at in range(0, int(LONGEST_SECONDS) + 1, 60)]
    assert [number for number, finding in enumerate(told) if finding] == [0, 60]


def test_the_tenant_that_was_quiet_longest_is_forgotten() -> None:
    bursts = Bursts(capacity=2)
    for tenant in ("a", "b", "a", "c"):
        bursts.feed(tenant, 0.0, 30, 30, HEALTH)
    assert len(bursts) == 2
    assert [bursts.level(tenant, 1.0) for tenant in "abc"] == [Level.ACT, Level.NONE, Level.ACT]


@given(st.lists(st.tuples(st.floats(-1e9, 1e10), st.integers(-2, 300), st.integers(0, 300)), max_size=40))
def test_whatever_comes_a_share_is_a_share(outcomes: list[tuple[float, int, int]]) -> None:
    bursts = Bursts()
    for at, invalid, seen in outcomes:
        finding = bursts.feed("acme", at, max(0, invalid), seen, HEALTH)
        if finding is not None:
            assert 0 < finding.share.part <= finding.share.whole <= HEALTH.burst
            assert finding.level is not Level.NONE
