"""The simulated tenants have the statistics that they claim, and the scoring counts what it says."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import statistics
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import evaluate_patterns
import simulate
from relaywarden_monitor.patterns.novelty import Novelty
from relaywarden_monitor.patterns.traffic import Slice
from simulation import draws, honest, misuse, profile, rhythm, scoring
from simulation.bout import Bout, Plan
from simulation.flow import fill, outcomes, remembered
from simulation.stream import Piece, Stream

MONDAY = 1_767_571_200.0
ZONE = 2  # of all tenants here, hours ahead of UTC


def tenant(sort: str, *, size: float = 5000.0, days: int = 42, seed: int = 1) -> profile.Profile:
    hours = rhythm.shape(profile.SORTS[sort].shape, ZONE)
    return replace(profile.draw(Random(seed), "t", MONDAY, days, sort=sort), size=size, zone=ZONE, hours=hours)


def pieces(plan: Plan, seed: int = 0) -> list[Piece]:
    return list(Stream(plan, Random(f"traffic {seed}"), 0.0).pieces())


def ordinary(sort: str, **options: float) -> Plan:
    made = tenant(sort, **options)  # type: ignore[arg-type]  # numbers of the profile
    return Plan(made, [(made.start, made.flow)])


@pytest.mark.parametrize(("mean", "tolerance"), [(0.3, 0.02), (7.0, 0.1), (29.0, 0.2), (400.0, 1.0)])
def test_poisson_counts_have_their_mean_as_variance(mean: float, tolerance: float) -> None:
    rng = Random(1)
    counts = [draws.poisson(rng, mean) for _ in range(20_000)]
    assert statistics.fmean(counts) == pytest.approx(mean, abs=tolerance * 2)
    assert statistics.variance(counts) == pytest.approx(mean, rel=0.05)


def test_wobbling_counts_are_negative_binomial() -> None:
    rng = Random(2)
    counts = [draws.poisson(rng, 100 * draws.wobble(rng, 0.2)) for _ in range(20_000)]
    assert statistics.fmean(counts) == pytest.approx(100, rel=0.02)
    assert statistics.variance(counts) == pytest.approx(100 + 0.2 * 100**2, rel=0.06)


@pytest.mark.parametrize(("number", "chance"), [(10, 0.3), (60, 0.3), (500, 0.02), (5000, 0.4), (5000, 0.97), (300, 0.15)])
def test_binomial_counts_have_their_mean_and_variance(number: int, chance: float) -> None:
    rng = Random(3)
    counts = [draws.binomial(rng, number, chance) for _ in range(20_000)]
    assert statistics.fmean(counts) == pytest.approx(number * chance, rel=0.02)
    assert statistics.variance(counts) == pytest.approx(number * chance * (1 - chance), rel=0.12)


@given(st.integers(0, 10_000), st.lists(st.floats(0.01, 100), min_size=1, max_size=9), st.integers())
def test_shares_add_up(number: int, weights: list[float], seed: int) -> None:
    parts = draws.shares(Random(seed), number, weights)
    assert sum(parts) == number
    assert len(parts) == len(weights)
    assert min(parts) >= 0


@given(st.sampled_from(sorted(profile.SORTS)), st.integers(1, 50_000), st.integers(0, 1000))
def test_a_slice_never_holds_more_than_the_gatherer_would_give(sort: str, recipients: int, seed: int) -> None:
    flow, rng = tenant(sort, seed=seed).flow, Random(seed)
    piece = Slice("t", 0, 60)
    messages = fill(piece, flow, recipients, rng)
    outcomes(piece, flow, recipients, rng)
    assert piece.messages == piece.scored == messages
    assert piece.recipients == recipients == sum(piece.domains.values()) + piece.domains_other
    assert piece.recipients == piece.delivered + piece.invalid + piece.blocked
    assert 0 <= piece.new_recipients <= recipients
    assert 0 <= piece.bulk <= messages
    assert len(piece.groups) <= 32
    assert len(piece.domains) <= 64 + len(flow.domains)
    assert sum(group.messages for group in piece.groups.values()) <= messages


@pytest.mark.parametrize("population", [100, 2_000, 20_000])
def test_looks_of_new_recipients_are_those_of_the_real_table(population: int) -> None:
    table, rng = Novelty(), Random(4)
    addresses = [hashlib.sha256(str(number).encode()).hexdigest()[:16] for number in range(population)]
    for _ in range(3 * min(population, 5000)):
        table.is_new(rng.choice(addresses))
    new = statistics.fmean(table.is_new(rng.choice(addresses)) for _ in range(4000))
    assert remembered(0.0, population) == pytest.approx(new, abs=0.15)


def test_a_season_of_an_office_has_the_volume_the_week_and_the_spread_it_should() -> None:
    plan = ordinary("receipts", size=5000.0, days=84)
    plan = replace(plan, profile=replace(plan.profile, weekly=0.0))
    seasons = [{piece.slice.begin: piece.slice.recipients for piece in pieces(plan, seed=seed)} for seed in range(10)]
    usual = [day for day in range(84) if rhythm.holidays(MONDAY + day * rhythm.DAY, shop=False) == 1]
    assert len(usual) == 84  # January to March after the holidays
    whole = sum(sum(by_hour.values()) for by_hour in seasons)
    assert whole / 840 == pytest.approx(5000, rel=0.05)
    weekend = sum(count for by_hour in seasons for at, count in by_hour.items() if rhythm.hour_of_week(at + ZONE * 3600) >= 120)
    assert weekend / whole == pytest.approx(0.2 / 5.2, rel=0.1)
    ratios = [count / (5000 / 24 * factor) for by_hour in seasons for at, count in by_hour.items()
              if (factor := plan.profile.hours[rhythm.hour_of_week(at)]) > 1]  # fmt: skip
    expected = (1 + plan.profile.of_day) * (1 + plan.profile.of_hour) - 1
    assert statistics.variance(ratios) == pytest.approx(expected, rel=0.15)


def test_growth_is_five_percent_a_week() -> None:
    counts = [0, 0]
    for piece in pieces(ordinary("growth", days=84)):
        week = int((piece.slice.begin - MONDAY) / rhythm.WEEK)
        counts[week >= 6] += piece.slice.recipients
    assert counts[1] / counts[0] == pytest.approx(1.05**6, rel=0.1)


def test_holidays_are_quiet_for_offices_and_loud_for_shops() -> None:
    black_friday = 1_795_737_600.0  # 27 November 2026
    assert rhythm.holidays(black_friday, shop=True) == 5
    assert rhythm.holidays(black_friday, shop=False) == 1
    assert rhythm.holidays(black_friday + 28 * rhythm.DAY, shop=False) == 0.3
    assert all(rhythm.holidays(MONDAY + 7 * rhythm.DAY, shop=shop) == 1 for shop in (True, False))


@pytest.mark.parametrize("sort", sorted(rhythm.SHAPES))
def test_shapes_have_a_mean_of_one_in_every_zone(sort: str) -> None:
    for zone in (-8, 0, 5):
        assert statistics.fmean(rhythm.shape(sort, zone)) == pytest.approx(1)


def bouts_of(sort: str, label: str) -> list[Bout]:
    return [bout for seed in range(6) for bout in honest.plan(Random(seed), tenant(sort, days=70)).bouts if bout.label == label]


CLAIMS: list[tuple[str, str, Callable[[Bout], bool]]] = [
    ("invoices", "invoices", lambda bout: rhythm.is_first(bout.begin + ZONE * 3600) and 9 * 4500 < bout.recipients < 33 * 6500),
    ("launch", "launch", lambda bout: bout.recipients > 19 * 4500 and bout.flow.fresh > 0.9),
    ("statements", "statements", lambda bout: 4 * 5000 < bout.recipients < 21 * 5000 and bout.flow.fresh < 0.99),
    ("otp", "rush", lambda bout: 300 <= bout.seconds <= 1200 and bout.recipients <= 16 * 5000 / 24),
    ("alerts", "storm", lambda bout: 200 <= bout.recipients <= 5000),
    ("shop", "shipments", lambda bout: bout.recipients < 0.4 * 6500),
    ("breach", "breach", lambda bout: bout.granted),
]  # fmt: skip


@pytest.mark.parametrize(("sort", "label", "claim"), CLAIMS)
def test_events_are_what_their_sort_claims(sort: str, label: str, claim: Callable[[Bout], bool]) -> None:
    found = bouts_of(sort, label)
    assert len(found) >= 5
    assert all(map(claim, found))


def test_every_sort_has_incidents_and_an_outage_silences_it_before_its_backlog() -> None:
    plans = [honest.plan(Random(seed), tenant("receipts")) for seed in range(20)]
    plan, backlog = next(
        (made, bout) for made in plans for bout in made.bouts if bout.label == "backlog" and bout.recipients > 500
    )
    outage = next(bout for bout in plan.bouts if bout.end == backlog.begin)
    plan = replace(plan, bouts=[outage, backlog])
    found = pieces(plan)
    assert not [piece for piece in found if outage.begin <= piece.slice.begin < outage.end and piece.slice.recipients]
    flushed = sum(piece.slice.recipients for piece in found if backlog.begin <= piece.slice.begin < backlog.end)
    assert flushed > 0.9 * backlog.recipients


def test_a_bout_adds_up_to_what_it_says_however_it_is_cut() -> None:
    bout = Bout("x", 1000.0, 600.0, 50.0, tenant("otp").flow, pattern=(1, 3, 0, 2))
    cuts = [990.0, 1000.0, 1049.0, 1200.5, 1333.0, 1450.0, 1601.0, 1700.0]
    assert sum(bout.part(*pair) for pair in itertools.pairwise(cuts)) == pytest.approx(1)
    assert bout.part(1150, 1300) == pytest.approx(0.5)
    assert bout.part(1300, 1450) == 0


@pytest.mark.parametrize("kind", sorted(misuse.KINDS))
def test_misuse_comes_as_announced(kind: str) -> None:
    number = next(number for number in range(60) if (found := simulate.plan(3, number, 40).misuse) and found.label == kind)
    plan = simulate.plan(3, number, 40)
    assert plan.misuse is not None
    assert plan.profile.size >= misuse.KINDS[kind].fewest
    assert (plan.misuse.begin - plan.profile.start > 20 * rhythm.DAY) == misuse.KINDS[kind].settled
    expected = sum(bout.recipients for bout in plan.bouts if bout.misuse)
    misused = [piece for piece in pieces(plan) if piece.misused]
    assert sum(piece.misused for piece in misused) == pytest.approx(expected, abs=5 * expected**0.5)
    assert misused[0].slice.begin >= plan.misuse.begin - 1
    if plan.misuse.step == misuse.FINE:
        assert max(piece.slice.end - piece.slice.begin for piece in misused) <= misuse.FINE


def test_the_same_seed_gives_the_same_traffic_and_another_another() -> None:
    def told(seed: int) -> list[tuple[float, int, int]]:
        made = simulate.plan(seed, 5, 30)
        found = simulate.stream(seed, 5, made, 0.05).pieces()
        return [(piece.slice.begin, piece.slice.recipients, hash(tuple(piece.slice.groups))) for piece in found]

    assert told(4) == told(4)
    assert told(4) != told(5)


def test_slices_follow_each_other_and_none_is_longer_than_an_hour() -> None:
    for number in range(8):
        made = simulate.plan(2, number, 30)
        before = made.profile.start
        for piece in simulate.stream(2, number, made, 0.05).pieces():
            assert before <= piece.slice.begin < piece.slice.end <= piece.slice.begin + 3600
            assert piece.slice.begin // 3600 == (piece.slice.end - 1e-3) // 3600
            before = piece.slice.end


def test_tuning_and_scoring_are_kept_apart() -> None:
    assert simulate.seeds("0-2,19") == [0, 1, 2, 19]
    assert simulate.seeds("20-39") == list(range(20, 40))
    for mixed in ("19-20", "0,39", "40", "-1", "a-b", "", "5-3"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected"):
            simulate.seeds(mixed)


def test_four_of_ten_tenants_are_misused_and_every_kind_comes() -> None:
    found = [simulate.plan(0, number, 30).misuse for number in range(100)]
    labels = [bout.label for bout in found if bout]
    assert len(labels) == 40
    assert set(labels) == set(misuse.KINDS)
    assert {labels.count(kind) for kind in misuse.KINDS} == {4}


def test_the_score_counts_days_and_is_the_same_in_two_processes() -> None:
    jobs = [(1, number, 30, 0.0, False) for number in range(12)]
    result = evaluate_patterns.summary(evaluate_patterns.run(jobs, 1))
    assert result == evaluate_patterns.summary(evaluate_patterns.run(jobs, 2))
    assert sum(amounts["tenants"] for amounts in result["honest"].values()) == 12
    whole = sum(amounts["days"] + amounts["learning_days"] for amounts in result["honest"].values())
    assert 7 * 30 <= whole <= 12 * 30
    assert sum(amounts["cases"] for amounts in result["misuse"].values()) == 4
    assert any("stolen-night" in line for line in evaluate_patterns.table(result))


def test_targets_are_missed_by_one_step_too_many_and_by_misuse_met_late() -> None:
    def result(wrong: int, late: int) -> dict[str, object]:
        steps = [scoring.Wrong("t", "otp", MONDAY, "SLOWED", "", "why")] * wrong
        scores = [scoring.Score("otp", days=20_000, wrong=steps)]
        scores += [
            scoring.Score("otp", caught=scoring.Caught("newsletter", "t", "otp", 50.0, number >= late, 5.0, 90, "DIVERTED"))
            for number in range(10)
        ]
        return evaluate_patterns.summary(scores)

    assert evaluate_patterns.failures(result(0, 1)) == []
    assert "at most 3.00 per 20,000" in "\n".join(evaluate_patterns.table(result(0, 1)))
    assert "at most 4.74 per 20,000" in "\n".join(evaluate_patterns.table(result(1, 1)))
    assert "1 steps in 20,000" in evaluate_patterns.failures(result(1, 1))[0]
    assert "newsletter: 80.0%" in evaluate_patterns.failures(result(0, 2))[0]
