"""What convicts a tenant, what is done about it, when that ends, and that nothing convicts twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden.config.monitor_settings import HealthSettings
from relaywarden.ledger.records import HOUR_MS
from relaywarden_monitor.judge import (
    WEEK_MS,
    Finding,
    Standing,
    StandingError,
    counted,
    decide,
    heard,
    judge,
    review,
    settle,
)
from relaywarden_monitor.notify.alerts import AlertBook, Level

HEALTH = HealthSettings()
NOW = 490_000 * HOUR_MS + 1_234_000  # some minutes after an hour began
BAD = {"delivered": 800, "bounced": 200, "invalid": 200, "why.no-mailbox": 180, "why.mailbox-disabled": 20}
GOOD = {"delivered": 1000, "bounced": 5, "invalid": 5}


def found(amounts: Mapping[str, int], health: HealthSettings = HEALTH, delivered: int = 0) -> dict[str, Finding]:
    return {finding.name: finding for finding in judge(health, amounts, delivered)}


def levels(amounts: Mapping[str, int], health: HealthSettings = HEALTH) -> list[Level]:
    return [finding.level for finding in judge(health, amounts)]


def hit(now_ms: int = NOW, previous: Standing | None = None, health: HealthSettings = HEALTH) -> Standing:
    standing = decide(previous, judge(HEALTH, BAD), health, now_ms)
    assert standing is not None
    return standing


@pytest.mark.parametrize(
    ("amounts", "name", "level"),
    [
        ({}, "bounces", Level.NONE),
        ({"delivered": 0, "bounced": 199, "invalid": 199}, "bounces", Level.NONE),  # too few
        ({"delivered": 0, "bounced": 200, "invalid": 200}, "bounces", Level.ACT),
        ({"delivered": 900, "bounced": 100, "invalid": 0}, "bounces", Level.NONE),  # bounced for other reasons
        ({"delivered": 940, "bounced": 60, "invalid": 60}, "bounces", Level.WARN),
        ({"delivered": 915, "bounced": 85, "invalid": 85}, "bounces", Level.WARN),  # above act, but not surely
        ({"delivered": 3, "complained": 1}, "complaints", Level.NONE),
        ({"delivered": 200, "complained": 1}, "complaints", Level.NONE),
        ({"delivered": 200, "complained": 2}, "complaints", Level.NONE),
        ({"delivered": 10_000, "complained": 15}, "complaints", Level.WARN),
        ({"delivered": 10_000, "complained": 60}, "complaints", Level.ACT),
        ({"delivered": 0, "complained": 60}, "complaints", Level.NONE),
        ({"delivered": 300, "complained": 900}, "complaints", Level.ACT),  # more than all: all of them
        ({"delivered": 900, "deferred": 100, "blocked": 100}, "blocks", Level.ACT),
        ({"delivered": 970, "deferred": 30, "blocked": 30}, "blocks", Level.WARN),
        ({"delivered": 200, "deferred": 19, "blocked": 19}, "blocks", Level.WARN),  # a few mailboxes convict nobody
        ({"delivered": 200, "deferred": 20, "blocked": 20}, "blocks", Level.ACT),
        ({"delivered": 900, "deferred": 100}, "blocks", Level.NONE),
    ],
)
def test_a_share_convicts_as_far_as_the_sample_carries_it(amounts: dict[str, int], name: str, level: Level) -> None:
    assert found(amounts)[name].level is level


def test_one_complaint_convicts_nobody_however_sure_the_operator_wants_to_be() -> None:
    bold = HealthSettings(confidence=0, min_sample=1)
    assert found({"delivered": 1, "complained": 1}, bold)["complaints"].level is Level.NONE
    assert found({"delivered": 100, "complained": 3}, bold)["complaints"].level is Level.ACT


@given(
    st.dictionaries(
        st.sampled_from(["delivered", "bounced", "deferred", "complained", "invalid", "blocked"]), st.integers(0, 10**6)
    )
)
def test_a_finding_always_has_its_evidence_and_a_level_that_fits_it(amounts: dict[str, int]) -> None:
    for finding in judge(HEALTH, amounts):
        assert finding.text.isascii()
        assert finding.text.isprintable()
        json.dumps(dict(finding.evidence), allow_nan=False)
        threshold = getattr(HEALTH, finding.name)
        if finding.level is Level.NONE:
            assert finding.threshold == threshold.warn
        else:
            assert finding.lower >= finding.threshold == getattr(threshold, finding.level.value)
            assert finding.share.whole >= HEALTH.min_sample


def test_the_evidence_names_the_replies_of_that_kind() -> None:
    more = {**BAD, "deferred": 100, "blocked": 100, "why.spam-content": 100, "why.mailbox-full": 900}
    bounces, blocks = found(more)["bounces"], found(more)["blocks"]
    assert bounces.evidence["reasons"] == "no-mailbox 180, mailbox-disabled 20"
    assert blocks.evidence["reasons"] == "spam-content 100"
    assert bounces.text == "hard bounces: 200 of 1000 (20.00%) in 1d, 18.00% at least (act from 8.00%), most of them no-mailbox"
    assert "reasons" not in found(more)["complaints"].evidence


def test_the_book_of_alerts_takes_a_finding_and_its_recovery() -> None:
    book = AlertBook(calm=60.0)
    notices = [book.look(found(amounts)["bounces"].reading("ac me"), at) for at, amounts in ((0, BAD), (1, GOOD), (99, GOOD))]
    first, second, last = notices
    assert first is not None
    assert (first.key, first.undo) == ("tenant:ac me:bounces", "relaywarden resume 'ac me'")
    assert second is None
    assert last is not None


def test_a_tenant_is_diverted_for_an_hour_with_the_reason() -> None:
    standing = hit()
    assert standing.steering(NOW) == {
        "divert": standing.reason, "by": "monitor", "until_ms": NOW + HOUR_MS, "times": 1, "since_ms": NOW,
    }  # fmt: skip
    assert standing.reason.startswith("hard bounces: 200 of 1000")
    assert standing.steering(standing.until_ms) is None


def test_it_is_suspended_or_left_alone_where_the_plan_says_so() -> None:
    entry = hit(health=HealthSettings(action="suspend")).steering(NOW)
    assert entry is not None
    assert entry["suspended"]["until_ms"] == NOW + HOUR_MS
    assert entry["suspended"]["by"] == entry["by"] == "monitor"
    assert decide(None, judge(HEALTH, BAD), HealthSettings(action="none"), NOW) is None
    assert decide(None, judge(HEALTH, GOOD), HEALTH, NOW) is None


def test_while_it_holds_nothing_prolongs_it() -> None:
    standing = hit()
    assert decide(standing, judge(HEALTH, BAD), HEALTH, standing.until_ms - 1) is standing


def test_the_hold_doubles_up_to_a_week_and_is_forgotten_after_a_week() -> None:
    standing, held = hit(), []
    for _ in range(12):
        held.append((standing.until_ms - standing.since_ms) // HOUR_MS)
        standing = hit(standing.until_ms + WEEK_MS, standing)
    assert held == [1, 2, 4, 8, 16, 32, 64, 128, 168, 168, 168, 168]
    assert decide(standing, judge(HEALTH, GOOD), HEALTH, standing.until_ms + WEEK_MS) is standing
    assert decide(standing, judge(HEALTH, GOOD), HEALTH, standing.until_ms + WEEK_MS + 1) is None
    assert hit(standing.until_ms + WEEK_MS + 1, standing).times == 1


def test_what_led_to_an_action_does_not_lead_to_the_next() -> None:
    hour = NOW // HOUR_MS
    hours: dict[int, Mapping[str, int]] = {hour: BAD}
    standing = hit()
    assert counted(HEALTH, hours, standing, NOW + 1)["invalid"] == 200  # still seen while it holds
    now = standing.until_ms
    hours[hour + 1] = {**BAD, "google.delivered": 800}  # it went on in quarantine
    standing = settle(standing, hours, now)
    assert settle(standing, hours, now + 1) is standing
    assert all(finding.level is Level.NONE for finding in review(HEALTH, hours, standing, now))
    assert decide(standing, review(HEALTH, hours, standing, now), HEALTH, now) is standing
    hours[hour + 1] = {name: 2 * amount for name, amount in BAD.items()}
    again = decide(standing, review(HEALTH, hours, standing, now + 2), HEALTH, now + 2)
    assert again is not None
    assert again.times == 2
    assert counted(HEALTH, hours, again, now + 3)["invalid"] == 200  # not those of the first time
    assert settle(again, hours, now + 3) is again
    assert settle(again, hours, again.until_ms).mark != again.mark


@given(st.lists(st.integers(0, 500), min_size=60, max_size=60), st.integers(0, 59))
def test_what_counts_is_exactly_what_came_after_the_mark_and_in_the_window(amounts: list[int], marked: int) -> None:
    first = NOW // HOUR_MS - 59
    at = (first + marked) * HOUR_MS + 17
    hours = {first + number: {"delivered": amount} for number, amount in enumerate(amounts[: marked + 1])}
    standing = settle(Standing("divert", "", 0, at), hours, at)
    hours |= {first + number: {"delivered": amount} for number, amount in enumerate(amounts) if number > marked}
    hours[first + marked] = {"delivered": amounts[marked] + 7}
    late = 7 if marked >= 35 else 0
    begin = max(35, marked + 1)  # 24 hours and the one that has begun
    expected = sum(amounts[begin:]) + late
    assert counted(HEALTH, hours, standing, NOW)["delivered"] == expected


def test_complaints_that_come_late_are_put_against_the_whole_window() -> None:
    hour = NOW // HOUR_MS
    hours: dict[int, Mapping[str, int]] = {hour - 3: {"delivered": 50_000}}
    standing = settle(Standing("divert", "", 0, NOW), hours, NOW)
    hours[hour] = {"delivered": 300, "complained": 6}
    (complaints,) = (finding for finding in review(HEALTH, hours, standing, NOW + 1) if finding.name == "complaints")
    assert (complaints.level, complaints.share.whole) == (Level.NONE, 50_300)


@pytest.mark.parametrize(
    ("said", "action"),
    [
        ({"suspended": {"reason": "abuse", "by": "root"}}, "suspend"),
        ({"suspended": {"reason": "abuse", "by": "root", "until_ms": NOW + 5}}, "suspend"),
        ({"hold": "look at it", "by": "root"}, "hold"),
        ({"divert": "by hand"}, "divert"),
    ],
)
def test_a_persons_word_wins(said: dict[str, Any], action: str) -> None:
    standing = heard(hit(), said, NOW)
    assert standing is not None
    assert standing.action == action
    assert standing.by != "monitor"
    assert decide(standing, judge(HEALTH, BAD), HEALTH, NOW + 2 * WEEK_MS) is standing


def test_our_own_word_is_not_taken_for_a_persons() -> None:
    for health in (HEALTH, HealthSettings(action="suspend")):
        standing = hit(health=health)
        assert heard(standing, standing.steering(NOW), NOW) is standing
    assert heard(None, {"suspended": {"reason": "abuse", "by": "root", "until_ms": NOW}}, NOW) is None


def test_a_person_who_ends_it_begins_the_window_anew() -> None:
    hours: dict[int, Mapping[str, int]] = {NOW // HOUR_MS: BAD}
    standing = heard(hit(), None, NOW + 60_000)
    assert standing is not None
    assert not standing.holds(NOW + 60_000)
    standing = settle(standing, hours, NOW + 60_000)
    assert decide(standing, review(HEALTH, hours, standing, NOW + 60_001), HEALTH, NOW + 60_001) is standing


def test_a_standing_survives_json() -> None:
    standing = settle(hit(), {}, NOW + HOUR_MS)
    for kept in (standing, hit(), replace(standing, by="root", action="hold")):
        assert Standing.read(json.loads(json.dumps(kept.document()))) == kept


@pytest.mark.parametrize("change", [{"times": 0}, {"action": "shout"}, {"mark": 5}, {"until_ms": "soon"}, {"times": 1e999}])
def test_what_is_no_standing_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(StandingError, match="expected a tenant's standing"):
        Standing.read({**hit().document(), **change})
    with pytest.raises(StandingError, match="expected a tenant's standing"):
        Standing.read([change])
