"""The parts of the volume patterns, each by itself: chance, windows, baseline, peaks, names, templates, ladder."""

from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden_monitor.patterns import chance, ladder
from relaywarden_monitor.patterns.baseline import Baseline, slot
from relaywarden_monitor.patterns.domains import Domains
from relaywarden_monitor.patterns.evidence import Evidence, Kind, plain
from relaywarden_monitor.patterns.ladder import Standing, Step, advance, spoken, wanted
from relaywarden_monitor.patterns.names import Names
from relaywarden_monitor.patterns.peaks import Peaks
from relaywarden_monitor.patterns.settings import LadderSettings, LearningSettings, SignalSettings
from relaywarden_monitor.patterns.templates import LARGEST, SPAN, Templates
from relaywarden_monitor.patterns.traffic import Group
from relaywarden_monitor.patterns.windows import DAY, HOUR, MINUTE, NEW, RECIPIENTS, SPANS, Windows

LEARNING, SIGNALS, LADDER = LearningSettings(), SignalSettings(), LadderSettings()
MONDAY = 1_767_571_200 // 3600  # 2026-01-05 00:00 UTC, in hours
CIRCUMSTANCES = {Kind.VOLUME, Kind.REACH, Kind.FANOUT}


def evidence(kind: Kind, weight: float) -> Evidence:
    return Evidence(kind.value, kind, weight, f"{kind.value} of {weight}")


anything = st.lists(st.builds(evidence, st.sampled_from(Kind), st.floats(0, 4)), max_size=8)


# Chance


def _log_negative_binomial(count: int, mean: float, dispersion: float) -> float:
    size = 1 / dispersion
    odds = size * math.log(size / (size + mean)) + count * math.log(mean / (size + mean))
    return math.lgamma(count + size) - math.lgamma(size) - math.lgamma(count + 1) + odds


@pytest.mark.parametrize("mean", [2.0, 40.0, 3000.0])
@pytest.mark.parametrize("dispersion", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("times", [1.0, 2.0, 5.0])
def test_the_tail_of_counts_is_close_to_the_exact_sum(mean: float, dispersion: float, times: float) -> None:
    count = math.ceil(mean * times)
    below = math.fsum(math.exp(_log_negative_binomial(k, mean, dispersion)) for k in range(count))
    far = math.fsum(math.exp(_log_negative_binomial(k, mean, dispersion)) for k in range(count, count * 12 + 200))
    exact = -math.log10(far if far < 0.1 else 1 - below)
    if exact < 12:
        assert chance.of_count(count, mean, dispersion) == pytest.approx(exact, abs=0.6)


@pytest.mark.parametrize(("part", "whole", "usual"), [(9, 20, 0.1), (30, 200, 0.04), (150, 200, 0.5), (3, 1000, 0.0005)])
def test_the_tail_of_shares_is_close_to_the_exact_sum(part: int, whole: int, usual: float) -> None:
    exact = math.fsum(math.comb(whole, k) * usual**k * (1 - usual) ** (whole - k) for k in range(part, whole + 1))
    assert chance.of_share(part, whole, usual) == pytest.approx(-math.log10(exact), abs=0.5)


@given(st.floats(0, 1e7), st.floats(0, 1e6), st.floats(0, 4))
def test_more_is_never_more_probable(count: float, mean: float, dispersion: float) -> None:
    less, more = (chance.of_count(seen, mean, dispersion) for seen in (count, count * 1.5 + 1))
    assert 0 <= less <= more + 1e-6


# Windows


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 50)), min_size=1, max_size=60))
def test_a_window_holds_no_less_than_its_span_and_no_more_than_two(slices: list[tuple[int, int]]) -> None:
    windows, at, sent = Windows(), 1_000_000.0, []
    for gap, count in slices:
        at += gap
        windows.add(at, at, [(RECIPIENTS, float(count))])
        sent.append((at, count))
    for index, span in enumerate(SPANS):
        two = sum(count for when, count in sent if when > at - 2 * span)
        bucket = sum(count for when, count in sent if when // span == at // span)
        assert bucket <= windows.recipients(index, at) + 1e-3
        assert windows.recipients(index, at) <= two + 1e-3
        assert windows.read(index, at)[RECIPIENTS] == pytest.approx(windows.recipients(index, at))


def test_a_long_slice_gives_a_short_span_its_part() -> None:
    windows = Windows()
    windows.add(7200.0, 10_800.0, [(RECIPIENTS, 600.0), (NEW, 60.0)])
    assert windows.read(MINUTE, 10_799.9)[RECIPIENTS] == pytest.approx(10, abs=0.1)
    assert windows.read(HOUR, 10_799.9)[NEW] == pytest.approx(60)
    assert windows.read(DAY, 10_800.0 + 3 * 86_400)[RECIPIENTS] == 0


# Baseline


def taught(weeks: int, count: dict[int, int], growth: float = 1.0, baseline: Baseline | None = None) -> Baseline:
    """A tenant with so many recipients in an hour of the day on working days, and a tenth of that at weekends."""
    baseline = baseline or Baseline()
    for hour in range(MONDAY, MONDAY + 168 * weeks):
        week, weekend = (hour - MONDAY) / 168, slot(hour) >= 120
        seen = count.get(hour % 24, 2) * (0.1 if weekend else 1) * growth**week
        baseline.learn(hour, seen, LEARNING.clip, LEARNING)
    return baseline


def test_hours_of_the_week_are_learned() -> None:
    assert slot(MONDAY) == 0
    baseline = taught(6, {9: 500, 10: 900})
    assert baseline.expected(MONDAY + 10, LEARNING) == pytest.approx(900, rel=0.1)
    assert baseline.expected(MONDAY + 120 + 10, LEARNING) < 200
    assert baseline.expected(MONDAY + 3, LEARNING) < 20
    assert baseline.surprise(900, MONDAY + 10, 3600, LEARNING) < 1
    assert baseline.surprise(900, MONDAY + 10, 60, LEARNING) > 6
    assert baseline.surprise(900, MONDAY + 3, 3600, LEARNING) > 6


def test_a_thin_hour_leans_on_its_like() -> None:
    """After three days Thursday is expected to be like Monday to Wednesday."""
    baseline = Baseline()
    for hour in range(MONDAY, MONDAY + 72):
        baseline.learn(hour, 500 if hour % 24 == 10 else 5, 10, LEARNING)
    assert baseline.expected(MONDAY + 72 + 10, LEARNING) > 4 * baseline.expected(MONDAY + 72 + 3, LEARNING)


def test_a_quiet_week_and_an_outlier_hardly_change_normal() -> None:
    baseline = taught(6, {10: 900})
    normal = baseline.expected(MONDAY + 10, LEARNING)
    for hour in range(MONDAY, MONDAY + 168):
        baseline.learn(hour, 0, LEARNING.clip, LEARNING)
    assert baseline.expected(MONDAY + 10, LEARNING) > 0.8 * normal
    baseline = taught(6, {10: 900})
    baseline.learn(MONDAY + 10, 1_000_000, LEARNING.clip, LEARNING)
    assert baseline.expected(MONDAY + 10, LEARNING) < 2 * normal


def test_growth_is_followed() -> None:
    baseline = taught(20, {10: 400}, growth=1.05)
    last = 400 * 1.05**20
    assert baseline.trend > 1.05
    assert baseline.expected(MONDAY + 10, LEARNING) == pytest.approx(last, rel=0.25)


def test_dispersion_is_learned() -> None:
    rng, calm, wild = random.Random(1), Baseline(), Baseline()
    for hour in range(MONDAY, MONDAY + 168 * 6):
        calm.learn(hour, rng.gauss(400, 20), LEARNING.clip, LEARNING)
        wild.learn(hour, 400 * rng.expovariate(1), LEARNING.clip, LEARNING)
    assert calm.dispersion(LEARNING) < 0.1
    assert wild.dispersion(LEARNING) > 0.5


def test_the_state_of_a_baseline_is_small_and_exact() -> None:
    baseline, again = taught(5, {9: 123_456, 10: 7}), Baseline()
    kept = json.dumps(baseline.state())
    again.restore(json.loads(kept))
    assert len(kept) < 4096
    assert again.week(LEARNING) == baseline.week(LEARNING)
    assert again.dispersion(LEARNING) == baseline.dispersion(LEARNING)


# Peaks


def test_the_slow_sum_sees_three_times_normal_within_a_day_but_no_single_hour() -> None:
    drip, burst = Peaks(), Peaks()
    for hour in range(24):
        drip.sum_up(30, 10, 240, SIGNALS)
        burst.sum_up(5000 if hour == 3 else 10, 10, 240, SIGNALS)
    assert drip.drift > SIGNALS.drift_limit
    assert burst.drift == 0


# Names


def test_a_name_is_new_for_a_day_and_weighs_by_its_rarity() -> None:
    names = Names(0.02)
    for day in range(30):
        names.see({"192.0.2.0/24"}, day * 24, settled=day > 3, alarmed=False)
    assert names.fresh(29 * 24) == []
    names.see({"192.0.2.0/24", "203.0.113.0/24"}, 721, settled=True, alarmed=False)
    assert names.fresh(721) == ["203.0.113.0/24"]
    assert names.surprise() > 1.7
    assert names.fresh(726) == []  # not in use any more
    names.see({"203.0.113.0/24"}, 750, settled=True, alarmed=False)
    assert names.fresh(750) == []


def test_under_alarm_a_name_stays_new_and_a_person_makes_it_known() -> None:
    names = Names(0.02)
    names.see({"old"}, 0, settled=False, alarmed=False)
    for hour in range(100, 200):
        names.see({"old", "thief"}, hour, settled=True, alarmed=True)
    assert names.fresh(200) == ["thief"]
    names.accept()
    assert names.fresh(200) == []


def test_a_tenant_with_new_names_every_day_is_known_for_it() -> None:
    names = Names(0.02)
    for day in range(60):
        names.see({f"198.51.{day}.0/24"}, day * 24, settled=True, alarmed=False)
    assert names.surprise() < 0.1
    assert len(names.state()[3]) <= 32


@given(st.text(max_size=200))
def test_names_come_out_as_one_line_of_ascii(name: str) -> None:
    names = Names(0.02)
    names.see({name or "-"}, 100, settled=True, alarmed=False)
    (told,) = names.fresh(100)
    assert told.isascii()
    assert told.isprintable()
    assert len(plain(name)) <= 120


# Templates


def test_a_template_is_familiar_on_its_third_day_unless_under_alarm() -> None:
    templates, thief = Templates(), Templates()
    group = {7: Group(50, 50, 10.0)}
    assert [templates.add(group, day * 86_400.0, learns=True) for day in range(1, 6)] == [50, 50, 0, 0, 0]
    assert [thief.add(group, day * 86_400.0, learns=False) for day in range(1, 6)] == [50] * 5


def test_a_flood_of_templates_displaces_no_familiar_one() -> None:
    templates = Templates()
    for day in range(1, 5):
        templates.add({7: Group(5, 5, 1.0)}, day * 86_400.0, learns=True)
    for number in range(1000):
        templates.add({100 + number: Group(90, 90, 50.0)}, 5 * 86_400.0, learns=True)
    assert templates.add({7: Group(5, 5, 1.0)}, 5 * 86_400.0, learns=True) == 0
    assert len(templates.state()) == LARGEST


def test_a_template_knows_its_usual_rate() -> None:
    templates = Templates()
    for bucket in range(1, 30):
        templates.add({7: Group(80, 80, 16.0)}, bucket * SPAN, learns=True)
    ((_, template),) = templates.recent()
    assert template.usual == pytest.approx(80, rel=0.05)
    assert template.mean() == pytest.approx(0.2)
    assert templates.recent() == []


# Domains


def test_a_domain_is_usual_from_its_third_day_on_unless_under_alarm() -> None:
    domains, thief = Domains(), Domains()
    counts = {"gmail.com": 9, "gmx.net": 1}
    assert [domains.strange(counts, day * 86_400.0, learns=True) for day in range(1, 5)] == [10, 10, 0, 0]
    assert [thief.strange(counts, day * 86_400.0, learns=False) for day in range(1, 5)] == [10] * 4


def test_a_flood_of_domains_displaces_no_usual_one() -> None:
    domains = Domains()
    for day in range(1, 8):
        domains.strange({"gmail.com": 1}, day * 86_400.0, learns=True)
        domains.strange({f"{day}-{number}.example": 1 for number in range(60)}, day * 86_400.0, learns=True)
    assert domains.strange({"gmail.com": 5, "other.example": 2}, 9 * 86_400.0, learns=True) == 2
    again = Domains()
    again.restore(domains.state())
    assert again.strange({"gmail.com": 5}, 9 * 86_400.0, learns=True) == 0
    with pytest.raises(ValueError, match="7 octets"):
        again.restore("AAAA")


# Ladder


@given(st.sampled_from(Kind), st.lists(st.floats(0, 4), max_size=5))
def test_one_kind_alone_is_never_more_than_watched(kind: Kind, weights: list[float]) -> None:
    step = wanted([evidence(kind, weight) for weight in weights], LADDER)
    assert step <= Step.WATCHED
    assert step is Step.NORMAL or max(weights) >= LADDER.alone


@given(anything)
def test_circumstances_alone_are_never_more_than_watched(seen: list[Evidence]) -> None:
    found = [item for item in seen if item.kind in CIRCUMSTANCES and item.weight < LADDER.flood]
    assert wanted(found, LADDER) <= Step.WATCHED


@given(anything, anything)
def test_more_evidence_never_lowers_the_step(seen: list[Evidence], more: list[Evidence]) -> None:
    assert wanted(seen, LADDER) <= wanted(seen + more, LADDER)
    assert wanted(seen, LADDER) <= wanted(seen, LADDER, LADDER.relief)


@given(st.lists(st.tuples(anything, st.floats(1, 20_000)), max_size=20))
def test_nobody_goes_down_before_his_time(course: list[tuple[list[Evidence], float]]) -> None:
    standing, now = Standing(), 0.0
    for seen, passed in course:
        now += passed
        after = advance(standing, seen, seen, LADDER, now)
        assert after.step >= standing.step or standing.over(now)
        assert after.step is Step.NORMAL or (after.until or 0) > now
        assert after.step < Step.SUSPENDED or standing.step >= Step.HELD
        standing = after


@given(st.sampled_from(Step), anything, st.floats(0, 9999))
def test_a_persons_word_stands_above_all_evidence(step: Step, seen: list[Evidence], passed: float) -> None:
    standing = spoken(Standing(), step, "anna", "a breach has to be told", 0.0, 10_000.0)
    assert advance(standing, seen, seen, LADDER, passed) is standing
    assert advance(standing, seen, seen, LADDER, 10_000.0).step is Step.NORMAL
    assert not spoken(Standing(), step, ladder.BY, "", 0.0, None).automatic


def test_the_time_doubles_with_each_repetition_and_not_by_climbing() -> None:
    guilty = [evidence(Kind.HARM, 3), evidence(Kind.VOLUME, 2)]
    thief = [*guilty, evidence(Kind.IDENTITY, 1.7), evidence(Kind.REACH, 2)]
    first = advance(Standing(), guilty, guilty, LADDER, 0.0)
    assert (first.step, first.until, first.times) == (Step.SLOWED, LADDER.hold_slowed, 1)
    climbed = advance(first, thief, thief, LADDER, 60.0)
    assert (climbed.step, climbed.until, climbed.times) == (Step.HELD, 60 + LADDER.hold_held, 1)
    again = advance(first, guilty, guilty, LADDER, 3600.0)
    assert (again.step, again.until, again.times) == (Step.SLOWED, 3600 + 2 * LADDER.hold_slowed, 2)
    over = advance(again, guilty, [], LADDER, 20_000.0)
    assert (over.step, over.until) == (Step.NORMAL, None)
    third = advance(over, guilty, guilty, LADDER, 30_000.0)
    assert (third.until or 0) - 30_000 == 4 * LADDER.hold_slowed
    late = advance(over, guilty, guilty, LADDER, 20_000.0 + LADDER.repeat + 1)
    assert late.times == 1


def test_suspended_only_after_held_has_lasted_and_goes_on() -> None:
    thief = [evidence(kind, 2) for kind in (Kind.HARM, Kind.VOLUME, Kind.IDENTITY, Kind.REACH)]
    held = advance(Standing(), thief, thief, LADDER, 0.0)
    assert held.step is Step.HELD
    assert advance(held, thief, thief, LADDER, 60.0) is held
    assert advance(held, thief, [], LADDER, 700.0) is held
    assert advance(held, thief, thief, LADDER, 700.0).step is Step.SUSPENDED


def test_standing_as_json() -> None:
    standing = spoken(Standing(times=3, ended=5.0), Step.HELD, "anna", "asked by phone", 7.0, None)
    assert Standing.read(json.loads(json.dumps(standing.document()))) == standing
