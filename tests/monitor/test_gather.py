"""From messages and outcomes to what the signals look at."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relaywarden.outcomes import wilson_lower
from relaywarden_monitor.attribute import Judged
from relaywarden_monitor.events import Attempt, Outcome
from relaywarden_monitor.patterns import sent
from relaywarden_monitor.patterns.gather import SPAN, Gatherer
from relaywarden_monitor.patterns.novelty import LARGEST, Novelty
from relaywarden_monitor.patterns.sent import Sent
from testbed.classifying import classifier

START = 1_795_507_200.0


def digest(number: int) -> str:
    return f"{(number * 0x9E3779B97F4A7C15 + 12345) % 2**64:016x}"


def message(at: float, number: int, fingerprint: int = 7, tenant: str = "acme", bulk: float = 0.5) -> Sent:
    return Sent(tenant, at, 1, "login", fingerprint, bulk, (digest(number),), "acme.example", "192.0.2.0/24", "helo", 1.5)


def test_messages_of_some_seconds_are_one_slice() -> None:
    gatherer = Gatherer()
    for number in range(4):
        gatherer.sent(message(START + number, number % 3))
    gatherer.sent(message(START + SPAN + 1, 9, fingerprint=0xF0F0F0F0F0F0))
    gatherer.sent(message(START, 1, tenant="beta"))
    first, second, other = sorted(gatherer.slices(), key=lambda piece: (piece.tenant, piece.begin))
    assert (first.messages, first.recipients, first.new_recipients, first.bulk) == (4, 4, 3, 2.0)
    assert (first.groups[7].messages, first.groups[7].recipients, first.groups[7].bulk) == (4, 3, 2.0)
    assert (first.score, first.scored, first.from_domains, first.networks) == (
        6.0, 4, frozenset({"acme.example"}), frozenset({"192.0.2.0/24"}),
    )  # fmt: skip
    assert (second.messages, set(second.groups), other.tenant) == (1, {0xF0F0F0F0F0F0}, "beta")
    assert gatherer.slices() == []


def test_outcomes_are_gathered_with_their_domains() -> None:
    gatherer = Gatherer()
    gone, ok = "550 5.1.1 no such user", ""
    for number, reply in enumerate([ok, ok, gone]):
        outcome = Outcome.BOUNCED if reply else Outcome.DELIVERED
        verdict = classifier().classify(reply) if reply else None
        attempt = Attempt(START, "4Q", f"r{number}@X.example", outcome, "tx1", reply=reply)
        gatherer.outcome(Judged(attempt, verdict, "other", "tx1", "acme"))
    gatherer.outcome(Judged(Attempt(START, "4Q", "x@y", Outcome.DELIVERED), None, "other", "", ""))  # of nobody
    gatherer.complained("acme", START)
    (piece,) = gatherer.slices()
    assert (piece.delivered, piece.invalid, piece.complained, dict(piece.domains)) == (2, 1, 1, {"x.example": 3})


def test_a_note_from_anywhere_is_read() -> None:
    found = sent.read("acme", 5.0, 3, "l", {"fp": "00ff", "bulk": 7, "to": digest(1) + digest(2), "score": "x", "at": "y"})
    assert (found.fingerprint, found.bulk, found.digests, found.score, found.at) == (
        255,
        1.0,
        (digest(1), digest(2)),
        None,
        5.0,
    )
    assert sent.read("acme", 5.0, 3, "l", {"fp": "no number"}).fingerprint == 0


def test_a_recipient_is_new_once() -> None:
    table = Novelty()
    assert [table.is_new(digest(n)) for n in (1, 2, 1, 2, 3)] == [True, True, False, False, True]
    again = Novelty.unpack(table.pack())
    assert not again.is_new(digest(3))
    assert Novelty.unpack("nonsense").is_new(digest(3))


def test_the_table_knows_everybody_of_a_small_tenant_and_stays_small() -> None:
    table = Novelty()
    for number in range(300):
        table.is_new(digest(number))
    forgotten = sum(table.is_new(digest(number)) for number in range(300))
    assert forgotten < 60
    for number in range(20_000):
        table.is_new(digest(number))
    assert len(table.pack()) <= 4 * LARGEST * 4 / 3 + 4


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 9), st.sampled_from(["a", "b"])), max_size=60))
def test_property_nothing_is_lost(events: list[tuple[float, int, str]]) -> None:
    gatherer, pieces = Gatherer(), []
    for number, (offset, recipient, tenant) in enumerate(sorted(events)):
        gatherer.sent(message(START + offset, recipient, tenant=tenant))
        if number % 7 == 0:
            pieces += gatherer.slices()
    pieces += gatherer.slices()
    for tenant in "ab":
        assert sum(piece.messages for piece in pieces if piece.tenant == tenant) == sum(name == tenant for *_, name in events)
    assert all(piece.end - piece.begin <= 2 * SPAN for piece in pieces)


@given(st.integers(0, 500), st.integers(0, 500), st.floats(0, 5))
def test_property_the_lower_bound_is_a_share_below_the_share(part: int, whole: int, z: float) -> None:
    lower = wilson_lower(part, whole, z)
    assert 0 <= lower <= 1
    assert lower <= (min(1.0, part / whole) if whole else 0) + 1e-9
