"""Messages of one template share a fingerprint whatever each recipient's data; different templates do not."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaywarden.content import text
from relaywarden.content.fingerprint import BITS, NEAR, Families, bands, distance, fingerprint, near
from templates_render import written

MESSAGES = Path(__file__).parents[2] / "bench/messages"
MASKS = st.sets(st.integers(0, BITS - 1)).map(lambda bits: sum(1 << bit for bit in bits))


def mark(body: str) -> int:
    return fingerprint(text.look([("Content-Type", "text/plain; charset=utf-8")], body.encode()))


def receipt(name: str, number: int, amount: int, token: str, items: int) -> str:
    rows = "\n".join(f"{row} x Ceramic Mug, {amount}.00 EUR" for row in range(1, items + 1))
    return f"""Hi {name},
thank you for your purchase. We are packing your things and write again when they leave our warehouse.
Order #{number}, placed on 2026-03-{number % 28 + 1:02}
{rows}
Total {amount * items}.00 EUR
Follow it at https://shop.example/orders/{token}?u={number} or write to {name.lower().replace(" ", ".")}@shop.example
You can return unused things within thirty days. Your receipt serves as proof of purchase."""


@given(
    st.from_regex(r"[A-Z][a-z]{2,9}( [A-Z][a-z]{2,12})?", fullmatch=True),
    st.integers(10_000, 10**9),
    st.integers(1, 9_999),
    st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    st.integers(1, 9),
)
@settings(max_examples=150, deadline=None)
def test_a_recipients_data_do_not_count(name: str, number: int, amount: int, token: str, items: int) -> None:
    assert mark(receipt(name, number, amount, token, items)) == mark(receipt("Anna", 12_345, 20, "0" * 32, 3))


@pytest.fixture(scope="module")
def marks() -> list[list[int]]:
    """For each written message its marks as eight recipients get it, as text or in HTML of several dresses."""
    rendered = [
        [fingerprint(text.look(*text.split(sample.message))) for sample in written(MESSAGES / "apart.txt", seed)]
        for seed in range(8)
    ]
    return [list(group) for group in zip(*rendered, strict=True)]


def test_renderings_of_one_template_agree(marks: list[list[int]]) -> None:
    agreeing = [value == max(group, key=group.count) for group in marks for value in group]
    assert sum(agreeing) >= 0.97 * len(agreeing)  # among them texts of three words, whose names cannot be told from words


def test_different_templates_differ(marks: list[list[int]]) -> None:
    pairs = list(itertools.combinations([group[0] for group in marks if group[0]], 2))
    assert len(pairs) > 5_000
    assert sum(near(one, other) for one, other in pairs) < len(pairs) / 1_000


def test_a_newsletter_with_small_edits_is_the_same_family() -> None:
    flowers = ("roses", "tulips", "lilies", "daisies", "asters", "dahlias")
    lines = [f"{flower} and other {flower} need water when summers turn out dry near {flower}" for flower in flowers]
    families, base = Families(), mark("\n".join(lines))
    key = families.key(base)
    for piece in range(len(lines)):
        edited = [*lines]
        edited[piece] = edited[piece].replace("dry", "quite dry")
        assert families.key(mark("\n".join(edited))) == key
    assert families.key(mark("please look at what your neighbours bought last week in their own shops")) != key


def test_too_little_text_has_no_mark_and_is_near_nothing() -> None:
    assert mark("Hi!") == 0
    assert not near(0, 0)
    assert Families().key(0) == 0


def test_pictures_alone_are_known_by_their_links() -> None:
    pages = ["<a href='https://a.example/{}'><img src=x></a><a href='https://b.example/{}'><img src=y></a>".format(*"12"), ""]
    assert fingerprint(text.look([("Content-Type", "text/html")], pages[0].encode())) != 0


@given(st.integers(1, (1 << BITS) - 1), MASKS)
def test_near_is_a_distance(value: int, mask: int) -> None:
    other = value ^ mask
    assert distance(value, other) == distance(other, value) == bin(mask).count("1")
    assert near(value, other) == (other != 0 and distance(value, other) <= NEAR)


@given(st.integers(0, (1 << BITS) - 1), st.sets(st.integers(0, BITS - 1), max_size=7))
def test_up_to_seven_bits_leave_one_band(value: int, bits: set[int]) -> None:
    other = value ^ sum(1 << bit for bit in bits)
    assert set(bands(value)) & set(bands(other))


@given(st.lists(st.integers(1, (1 << BITS) - 1), min_size=1, max_size=40))
def test_families_are_bounded_and_stable(values: list[int]) -> None:
    families = Families(most=8)
    for value in values:
        key = families.key(value)
        assert near(key, value)
        assert families.key(value) == key
    assert len(families._known) <= 8
    assert sum(len(each) for each in families._by_band.values()) == 8 * len(families._known)
