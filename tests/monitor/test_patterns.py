"""The engine of volume patterns, fed by small generated tenants: honest ones stay, thieves and broadcasts step up.

SIMULATION: the traffic is generated; `bench/simulate.py` has the larger one that scores the engine.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaywarden_monitor.patterns.change import Change
from relaywarden_monitor.patterns.engine import Engine, StateError, Step
from relaywarden_monitor.patterns.traffic import Group, Slice

MONDAY = 1_767_571_200.0  # 2026-01-05 00:00 UTC
HOUR, DAY = 3600.0, 86_400.0
OTHERS = ("gmail.com", "aol.com", "comcast.net", "orange.fr", "libero.it", "hotmail.com")  # of a list that was bought
DOMAINS = ("gmail.com", "yahoo.com", "outlook.com", "gmx.net", "a.example", "b.example")


@dataclass
class Tenant:
    """A sender with business hours and quiet weekends; counts are gamma-Poisson."""

    size: float  # messages a day
    seed: int = 1
    new: float = 0.2  # share of recipients never written to
    growth: float = 1.0  # a week
    name: str = "acme"
    network: str = "192.0.2.0/24"
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    def count(self, begin: float, end: float, factor: float = 1.0) -> int:
        day, hour = (begin - MONDAY) / DAY, begin / HOUR % 24
        shape = (0.05 + math.exp(-(((hour - 13) / 3.5) ** 2))) / 8 * (0.3 if int(day) % 7 >= 5 else 1.0)
        mean = self.size * shape * (end - begin) / HOUR * self.growth ** (day / 7) * factor
        return self.poisson(mean * self.rng.gammavariate(7, 1 / 7))

    def poisson(self, mean: float) -> int:
        return max(0, round(self.rng.gauss(mean, math.sqrt(mean)))) if mean > 30 else sum(
            1 for _ in range(100) if self.rng.random() < mean / 100
        )  # fmt: skip

    def slice(self, begin: float, end: float, factor: float = 1.0, new: float | None = None) -> Slice:
        return self.made(begin, end, self.count(begin, end, factor), [1, 2, 3], self.new if new is None else new)

    def made(
        self, begin: float, end: float, count: int, templates: list[int], new: float, *,
        bulk: float = 0.2, invalid: float = 0.01, network: str = "", domains: tuple[str, ...] = DOMAINS,
    ) -> Slice:  # fmt: skip
        piece = Slice(self.name, begin, end, count, count)
        for number, template in enumerate(templates):
            share = (count + number) // len(templates)
            if share:
                piece.groups[template] = Group(share, share, share * min(1, max(0, self.rng.gauss(bulk, 0.02))))
        piece.bulk = sum(group.bulk for group in piece.groups.values())
        piece.new_recipients = min(count, self.poisson(count * new))
        piece.domains = Counter(self.rng.choices(domains, [9, 4, 3, 2, 1, 1], k=min(count, 60)))
        piece.networks, piece.from_domains = frozenset({network or self.network}), frozenset({f"{self.name}.example"})
        piece.scored, piece.score = count, float(count)
        piece.invalid = min(count, self.poisson(count * invalid))
        piece.delivered = count - piece.invalid
        return piece


def joined(one: Slice, other: Slice) -> Slice:
    """The slices of one tenant of the same while."""
    for name in ("messages", "recipients", "bulk", "new_recipients", "score", "scored", "delivered", "invalid"):
        setattr(one, name, getattr(one, name) + getattr(other, name))
    one.groups.update(other.groups)
    one.domains += other.domains
    one.networks |= other.networks
    return one


Factor = Callable[[int, int], float]  # of day and hour


def usual(_day: int, _hour: int) -> float:
    return 1.0


def live(engine: Engine, tenant: Tenant, days: int, factor: Factor = usual, new: Factor | None = None) -> list[Change]:
    """Days of honest mail from MONDAY on, an hour a slice."""
    changes = []
    for hour in range(days * 24):
        at = MONDAY + hour * HOUR
        day = hour // 24
        piece = tenant.slice(at, at + HOUR, factor(day, hour % 24), new(day, hour % 24) if new else None)
        if piece.recipients:
            engine.observe(piece)
        changes += engine.turn(at + HOUR)
    return changes


@dataclass
class Misuse:
    """What comes on top of the honest mail."""

    hour: int
    rate: float  # messages a second
    seconds: float
    tick: float = 5.0
    templates: int = 3
    new: float = 0.95
    bulk: float = 0.45
    invalid: float = 0.1
    network: str = "203.0.113.0/24"
    domains: tuple[str, ...] = OTHERS


def suffer(engine: Engine, tenant: Tenant, misuse: Misuse, day: int = 28) -> tuple[float, int, Change] | None:
    """(seconds, messages of the misuse, change) until the first step to SLOWED or beyond."""
    begin, sent = MONDAY + day * DAY + misuse.hour * HOUR, 0
    at = begin
    while at < begin + misuse.seconds:
        count = tenant.poisson(misuse.rate * misuse.tick)
        bad = tenant.made(
            at, at + misuse.tick, count, list(range(90, 90 + misuse.templates)), misuse.new,
            bulk=misuse.bulk, invalid=misuse.invalid, network=misuse.network, domains=misuse.domains,
        )  # fmt: skip
        engine.observe(joined(tenant.slice(at, at + misuse.tick), bad))
        at, sent = at + misuse.tick, sent + count
        for change in engine.turn(at):
            if change.after >= Step.SLOWED:
                return at - begin, sent, change
    return None


HONEST: dict[str, tuple[Factor, Factor | None]] = {
    "receipts": (usual, None),
    "month-end": (lambda day, _: 20.0 if day % 30 == 28 else 1.0, None),
    "launch": (lambda day, _: 20.0 if day == 50 else 1.0, lambda day, _: 0.9 if day == 50 else 0.2),
    "holiday": (lambda day, _: 0.1 if 35 <= day < 42 else 1.0, None),
    "black-friday": (lambda day, _: 5.0 if day == 46 else 1.0, lambda day, _: 0.5 if day == 46 else 0.2),
    "codes": (lambda day, hour: 15.0 if day * 24 + hour in {700, 900, 1100, 1300} else 1.0, None),
    "weekly-statement": (lambda day, hour: 60.0 if day % 7 == 0 and hour == 9 else 1.0, None),
}


@pytest.mark.parametrize("kind", HONEST)
def test_honest_tenants_are_left_alone(kind: str) -> None:
    factor, new = HONEST[kind]
    for number, size in enumerate([20, 900, 150_000]):
        engine = Engine()
        changes = live(engine, Tenant(size, seed=number), 56, factor, new)
        assert [change.text for change in changes if change.after >= Step.SLOWED] == []


def test_growth_a_new_brand_and_a_moved_office_are_left_alone() -> None:
    engine, tenant = Engine(), Tenant(5000, growth=1.05)
    assert [change.text for change in live(engine, tenant, 70) if change.after >= Step.SLOWED] == []
    tenant.network, tenant.name = "198.51.100.0/24", "acme"
    for hour in range(24):
        at = MONDAY + 70 * DAY + hour * HOUR
        piece = tenant.made(at, at + HOUR, tenant.count(at, at + HOUR), [41, 42], 0.2)
        piece.from_domains = frozenset({"newbrand.example"})
        engine.observe(piece)
        assert [change.text for change in engine.turn(at + HOUR) if change.after >= Step.SLOWED] == []


def test_a_launch_with_a_new_text_on_a_new_machine_is_watched_at_most() -> None:
    engine, tenant = Engine(), Tenant(2000)
    live(engine, tenant, 28)
    for minute in range(720):
        at = MONDAY + 28 * DAY + 8 * HOUR + minute * 60
        count = tenant.count(at, at + 60, 20)
        engine.observe(tenant.made(at, at + 60, count, [41], 0.95, network="198.51.100.0/24"))
        assert all(change.after <= Step.WATCHED for change in engine.turn(at + 60))
    assert {"drip", "new-recipients", "network", "unfamiliar"} <= {item.name for item in engine.view("acme", at).evidence}


def test_a_retry_storm_is_watched_at_most() -> None:
    engine, tenant = Engine(), Tenant(2000)
    live(engine, tenant, 28)
    for minute in range(120):
        at = MONDAY + 28 * DAY + 13 * HOUR + minute * 60
        piece = tenant.slice(at, at + 60, 4.0)
        piece.refused = 400
        engine.observe(piece)
        assert all(change.after <= Step.WATCHED for change in engine.turn(at + 60))
    assert "refused" in {item.name for item in engine.view("acme", at).evidence}


@pytest.mark.parametrize("size", [20, 700, 20_000, 150_000])
@pytest.mark.parametrize("hour", [3, 13])
def test_a_stolen_password_steps_up_within_a_minute(size: float, hour: int) -> None:
    engine, tenant = Engine(), Tenant(size, new=0.4)
    live(engine, tenant, 28)
    found = suffer(engine, tenant, Misuse(hour, rate=10, seconds=600))
    assert found is not None
    seconds, messages, change = found
    assert seconds <= 60 or messages <= 200
    assert "203.0.113.0/24" in change.text


@pytest.mark.parametrize("size", [20, 700, 20_000, 150_000])
def test_a_newsletter_is_diverted_within_300_recipients(size: float) -> None:
    engine, tenant = Engine(), Tenant(size)
    live(engine, tenant, 28)
    broadcast = Misuse(
        10,
        rate=max(600, size) / 5400,
        seconds=5400,
        templates=1,
        new=0.2,
        bulk=0.75,
        invalid=0.02,
        network=tenant.network,
        domains=DOMAINS,
    )
    found = suffer(engine, tenant, broadcast)
    assert found is not None
    _, messages, change = found
    assert messages <= 300
    assert change.after is Step.DIVERTED
    assert {"broadcast", "fanout"} <= {item.name for item in change.reasons}


@pytest.mark.parametrize("size", [60, 700, 20_000])
def test_a_slow_drip_at_three_times_normal_steps_up_within_a_day(size: float) -> None:
    engine, tenant = Engine(), Tenant(size)
    live(engine, tenant, 28)
    assert suffer(engine, tenant, Misuse(0, rate=2 * size / DAY, seconds=DAY, tick=900, invalid=0.03)) is not None


def test_a_washed_list_steps_up_from_the_customers_own_network() -> None:
    engine, tenant = Engine(), Tenant(1000)
    live(engine, tenant, 28)
    found = suffer(engine, tenant, Misuse(10, rate=0.3, seconds=3600, tick=60, invalid=0.3, network=tenant.network))
    assert found is not None
    assert "do not exist" in found[2].text


def test_a_new_tenant_is_measured_by_its_ramp() -> None:
    engine, tenant = Engine(), Tenant(400)
    assert live(engine, tenant, 14) == []
    engine = Engine()
    found = live(engine, Tenant(30_000), 2)
    assert [item.name for item in engine.view("acme", MONDAY + 2 * DAY).evidence if item.name == "ramp"] == ["ramp"]
    assert all(change.after <= Step.WATCHED for change in found)


def test_a_step_ends_when_the_traffic_does_and_comes_back_for_twice_as_long() -> None:
    engine, tenant = Engine(), Tenant(700)
    live(engine, tenant, 28)
    theft = Misuse(3, rate=10, seconds=600)
    found = suffer(engine, tenant, theft)
    assert found is not None
    first = found[2]
    assert first.until is not None
    (ended,) = engine.turn(first.until)  # nobody sent anything; the end comes all the same
    assert (ended.before, ended.after, ended.by) == (first.after, Step.NORMAL, "patterns")
    assert engine.turn(first.until + 60) == []
    found = suffer(engine, tenant, Misuse(int((first.until - MONDAY - 28 * DAY) // HOUR) + 1, rate=10, seconds=600))
    assert found is not None
    assert found[2].until is not None
    held = {Step.SLOWED: HOUR, Step.DIVERTED: 4 * HOUR, Step.HELD: 4 * HOUR}
    assert found[2].until - found[2].at == 2 * held[found[2].after]
    assert "for the 2. time" in found[2].text


def test_a_persons_word_overrides_and_resume_forgives() -> None:
    engine, tenant = Engine(), Tenant(700)
    live(engine, tenant, 28)
    begin = MONDAY + 28 * DAY
    granted = engine.word("acme", Step.NORMAL, "anna", "breach notification", begin, begin + 6 * HOUR)
    assert granted is not None
    assert granted.text == "acme: normal goes on until 2026-02-02 06:00 UTC: breach notification"
    theft = Misuse(3, rate=10, seconds=600)
    assert suffer(engine, tenant, theft) is None
    view = engine.view("acme", begin + 4 * HOUR)
    assert (view.step, view.by) == (Step.NORMAL, "anna")
    assert view.evidence
    assert engine.word("acme", None, "anna", "they did it themselves", begin + 4 * HOUR, None) is not None
    engine.observe(tenant.slice(begin + 4 * HOUR, begin + 5 * HOUR))
    assert engine.turn(begin + 5 * HOUR) == []
    assert engine.view("acme", begin + 5 * HOUR).by == "patterns"


def test_show_tells_normal_and_now() -> None:
    engine, tenant = Engine(), Tenant(2000)
    live(engine, tenant, 28)
    found = suffer(engine, tenant, Misuse(3, rate=10, seconds=600))
    assert found is not None
    view = engine.view("acme", found[2].at)
    assert view.settled
    assert view.step is engine.standing("acme").step is found[2].after
    assert view.seen[-1] > 3 * view.normal[-1]
    assert sum(view.seen[:-1]) == pytest.approx(sum(view.normal[:-1]), rel=0.6)
    assert len(view.week) == 168
    assert max(view.week[:24]) == pytest.approx(2000 / 8, rel=0.3)
    assert view.surprise > 6
    assert any(found[2].text[:60] in line for line in view.history)
    json.dumps(view.document())
    assert engine.view("nobody", MONDAY).step is engine.standing("nobody").step is Step.NORMAL


def test_a_state_is_a_few_kib_and_an_unusable_one_is_refused() -> None:
    engine = Engine()
    live(engine, Tenant(20_000), 28)
    state = engine.state("acme")
    assert len(json.dumps(state)) < 6 * 1024
    for broken in (
        {},
        {**state, "version": 9},
        {**state, "windows": ["x"]},
        {**state, "standing": [77]},
        {**state, "usual": [0]},
    ):
        with pytest.raises(StateError, match="acme"):
            engine.restore("acme", broken)


slices = st.lists(
    st.tuples(
        st.floats(1, 7200), st.integers(1, 3000), st.integers(0, 100), st.floats(0, 1), st.integers(0, 6), st.integers(0, 30)
    ),
    min_size=1, max_size=25,
)  # fmt: skip


def fed(
    engine: Engine, course: list[tuple[float, int, int, float, int, int]], at: float
) -> list[tuple[Step, Step, float, float | None]]:
    found = []
    for passed, count, new, bulk, network, invalid in course:
        at += passed
        piece = Slice("acme", at - 1, at, count, count, {network: Group(count, count, bulk * count)}, bulk * count)
        piece.new_recipients, piece.networks = count * new // 100, frozenset({f"10.0.{network}.0/24"})
        piece.invalid, piece.delivered = count * invalid // 100, count - count * invalid // 100
        engine.observe(piece)
        found += [(change.before, change.after, change.at, change.until) for change in engine.turn(at)]
    return found


@pytest.fixture(scope="module")
def grown() -> str:
    engine = Engine()
    live(engine, Tenant(2000), 21)
    return json.dumps(engine.state("acme"))


@given(slices, slices)
@settings(max_examples=25)
def test_a_restored_tenant_is_judged_as_it_would_have_been(
    grown: str, before: list[tuple[float, int, int, float, int, int]], after: list[tuple[float, int, int, float, int, int]]
) -> None:
    one, other = Engine(), Engine()
    one.restore("acme", json.loads(grown))
    fed(one, before, MONDAY + 21 * DAY)
    other.restore("acme", json.loads(json.dumps(one.state("acme"))))
    later = MONDAY + 21 * DAY + sum(item[0] for item in before)
    assert fed(one, after, later) == fed(other, after, later)


def test_only_tenants_that_sent_something_are_looked_at() -> None:
    engine = Engine()
    for number in range(50):
        engine.observe(Tenant(500, name=f"t{number}").slice(MONDAY, MONDAY + 60, 100))
    engine.turn(MONDAY + 60)
    assert engine.turn(MONDAY + 120) == []
    found = suffer(engine, Tenant(500, name="t7"), Misuse(0, rate=50, seconds=60, invalid=0.3), day=0)
    assert found is not None
    assert found[2].tenant == "t7"
    assert all(engine.view(f"t{number}", MONDAY).step <= Step.WATCHED for number in range(50) if number != 7)


def test_hostile_names_never_reach_a_terminal_raw() -> None:
    engine, tenant = Engine(), Tenant(700, name="a\x1b[31m\nb")
    live(engine, tenant, 28)
    found = suffer(engine, tenant, Misuse(3, rate=10, seconds=600, network="\x1b]0;pwned\x07\n"))
    assert found is not None
    assert found[2].text.isprintable()
    assert found[2].text.isascii()


def test_a_full_engine_forgets_the_quietest_but_none_that_is_held() -> None:
    engine = Engine(capacity=3)
    engine.word("held", Step.HELD, "anna", "stolen", MONDAY, None)
    for number in range(5):
        engine.observe(Tenant(500, name=f"t{number}").slice(MONDAY, MONDAY + 60, 100))
    assert len(engine) == 3
    assert engine.view("held", MONDAY).step is Step.HELD
