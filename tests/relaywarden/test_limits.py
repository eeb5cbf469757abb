"""Limits parse from their text and print back to it; errors say what was expected."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden.errors import SpecError
from relaywarden.limits import Limit, Meter, format_bytes, format_duration, parse_amount, parse_duration


@pytest.mark.parametrize(
    ("text", "amount"), [("1_000", 1000), ("2GiB", 2 << 30), ("5 MB", 5_000_000), (7, 7), ("1.5k", 1500), ("0", 0)]
)
def test_amounts(text: str | int, amount: int) -> None:
    assert parse_amount(text) == amount


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("10s", 10_000),
        ("hour", 3_600_000),
        ("15m", 900_000),
        ("30d", 2_592_000_000),
        ("2 days", 172_800_000),
        ("200ms", 200),
        (5, 5000),
    ],
)
def test_durations(text: str | float, ms: int) -> None:
    assert parse_duration(text) == ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "lots",
        "10",
        "10/",
        "/h",
        "-5/h",
        "10/fortnight",
        "10/0s",
        "1.5/h",
        "5/h burst",
        "5/h burst 0",
        "0/s burst 5",
        "9/9999d",
        "5/h/h",
        "1e3/h",
        "5/h burst 1 burst 2",
    ],
)
def test_what_is_no_limit_says_what_was_expected(text: str) -> None:
    with pytest.raises(SpecError, match="expected"):
        Limit.parse(Meter.MESSAGES, text)


@given(st.sampled_from(list(Meter)), st.integers(1, 2**53 - 1), st.integers(1, 400 * 86_400), st.none() | st.integers(1, 10**9))
def test_a_limit_prints_what_it_parses(meter: Meter, amount: int, seconds: int, burst: int | None) -> None:
    limit = Limit(meter, amount, seconds * 1000, None if meter is Meter.UNIQUE_RECIPIENTS else burst)
    printed_meter, _, text = str(limit).partition(": ")
    assert Limit.parse(Meter(printed_meter), text) == limit


def test_a_balance_outlives_a_change_of_the_amount() -> None:
    assert Limit.parse(Meter.BYTES, "1GiB/day").balance_id == Limit.parse(Meter.BYTES, "2GiB/24h").balance_id


def test_formats_for_people() -> None:
    assert [format_bytes(n) for n in (0, 1023, 1536, 5 << 40)] == ["0 B", "1023 B", "1.5 KiB", "5 TiB"]
    assert [format_duration(n) for n in (1_500, 90_000, 3_600_000)] == ["1500ms", "90s", "1h"]
