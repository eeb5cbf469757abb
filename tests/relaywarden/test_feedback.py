"""Tokens come back to tenant and message whatever case they arrive in; what is not ours, to the last bit, says nothing."""

from __future__ import annotations

import base64
import datetime
import os
import re
import string
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from relaywarden.config.settings import FeedbackSettings
from relaywarden.errors import KeyFileError
from relaywarden.feedback import Tokens, headers

NOW = 1_795_514_400.0  # 2026-11-24 10:00 UTC
BASE32 = string.ascii_lowercase + "234567"
TOKENS = Tokens(bytes(range(32)))
VECTOR = "eu7pdt6t6n2sebmf6feqahifohwctlfrilthbminqxzsfsmcf6la5k3h"  # of acme, 3Pt2mN2VXxznjll and NOW

tenants = st.text(string.ascii_letters + string.digits + "._@+-", min_size=1, max_size=64)
packable = st.text(string.ascii_letters + string.digits, min_size=5, max_size=20)
raw = st.text(max_size=16).filter(lambda text: len(text.encode("utf-8", "replace")) <= 16 and text.isprintable())
queue_ids = packable | raw
moments = st.floats(1_577_836_800, 4e9)


def settings(**changes: Any) -> FeedbackSettings:
    return FeedbackSettings(**{"sender_id": "relayex", "address": "fbl@relay.example", "secret": Path("/none")} | changes)


@given(tenants, queue_ids, moments)
def test_a_token_opens_to_what_it_was_made_of(tenant: str, queue_id: str, now: float) -> None:
    token = TOKENS.make(tenant, queue_id, now)
    opened = TOKENS.open(token)
    assert opened is not None
    assert opened.queue_id == queue_id
    assert opened.tenant_tag == TOKENS.tag(tenant)
    assert opened.hour.tzinfo is datetime.timezone.utc
    assert 0 <= now - opened.hour.timestamp() < 3600
    assert TOKENS.make(tenant, queue_id, opened.hour.timestamp()) == token
    assert set(token) <= set(BASE32)
    assert len(token) <= 64


@given(tenants, queue_ids, st.data())
def test_case_and_white_space_on_the_way_do_not_matter(tenant: str, queue_id: str, data: st.DataObject) -> None:
    token = TOKENS.make(tenant, queue_id, NOW)
    folded = "".join(c.upper() if data.draw(st.booleans()) else c for c in token)
    at = data.draw(st.integers(0, len(token)))
    for arrived in (folded, token.upper(), folded[:at] + "\r\n\t " + folded[at:]):
        assert TOKENS.open(arrived) == TOKENS.open(token) != None  # noqa: E711  # both halves at once


@given(tenants, queue_ids, st.data())
def test_any_other_change_of_a_character_makes_it_nothing(tenant: str, queue_id: str, data: st.DataObject) -> None:
    token = TOKENS.make(tenant, queue_id, NOW)
    at = data.draw(st.integers(0, len(token) - 1) | st.just(len(token) - 1))
    other = data.draw(st.sampled_from(BASE32 + "018=+ -\0") | st.characters())
    assume(other.lower() != token[at] or not other.isascii())
    assert TOKENS.open(token[:at] + other + token[at + 1 :]) is None
    assert TOKENS.open(token[:at] + token[at + 1 :]) is None
    if not other.isspace():
        assert TOKENS.open(token[:at] + other + token[at:]) is None


def test_every_spelling_of_the_last_character_but_one_makes_it_nothing() -> None:
    """Base32 has spare bits there: a decoder alone would not see them change."""
    token = TOKENS.make("acme", "3Pt2mN2VXxznjll", NOW)
    assert [c for c in BASE32 if TOKENS.open(token[:-1] + c)] == [token[-1]]


def test_a_letter_that_only_folds_to_ascii_makes_it_nothing() -> None:
    token = next(t for n in range(99) if "k" in (t := TOKENS.make("acme", f"4bXmLk{n:04}", NOW)))
    assert "\N{KELVIN SIGN}".lower() == "k"
    assert TOKENS.open(token.replace("k", "\N{KELVIN SIGN}", 1)) is None


@given(st.tuples(tenants, queue_ids, st.integers(0, 999)), st.tuples(tenants, queue_ids, st.integers(0, 999)))
def test_different_messages_never_have_the_same_token(one: tuple[str, str, int], two: tuple[str, str, int]) -> None:
    first, second = (TOKENS.make(tenant, queue_id, NOW + 3600 * hour) for tenant, queue_id, hour in (one, two))
    assert (first == second) == (one == two)


def test_queue_ids_that_look_alike_have_tokens_of_their_own() -> None:
    alike = ["AAAAA", "0AAAAA", "00AAAAA", "00000", "000000", "aaaaa", "AAAAAA", "A" * 16, "A" * 16 + "-", "", "\0", "0"]
    assert len({TOKENS.make("acme", queue_id, NOW) for queue_id in alike}) == len(alike)
    assert [opened.queue_id for q in alike if (opened := TOKENS.open(TOKENS.make("acme", q, NOW)))][:8] == alike[:8]


@given(
    st.text(max_size=300) | st.text(BASE32, max_size=70) | st.binary(max_size=45).map(lambda b: base64.b32encode(b).decode())
)
def test_random_text_is_nothing(text: str) -> None:
    assert TOKENS.open(text) is None
    assert TOKENS.open(text.rstrip("=").lower()) is None


def test_a_token_of_another_relay_is_nothing() -> None:
    other = Tokens(bytes(range(1, 33)))
    assert TOKENS.open(other.make("acme", "3Pt2mN2VXxznjll", NOW)) is None
    assert TOKENS.tag("acme") != other.tag("acme")
    assert other.open(other.make("acme", "3Pt2mN2VXxznjll", NOW)) is not None


@given(st.text(), st.text(), st.floats(-1e12, 1e12))
def test_nothing_that_a_message_brings_makes_it_fail(tenant: str, queue_id: str, now: float) -> None:
    for text in (queue_id, queue_id + "\ud800\udcff"):
        token = TOKENS.make(tenant, text, now)
        assert TOKENS.open(token) is not None
        assert len(token) <= 64


@pytest.mark.parametrize("length", range(5, 18))
def test_the_token_fits_a_local_part_for_all_queue_ids_of_postfix(length: int) -> None:
    assert len("fbl+" + TOKENS.make("acme", "z" * length, NOW)) <= 64


def test_a_queue_id_of_15_characters_makes_58() -> None:
    assert len(TOKENS.make("acme", "z" * 15, NOW)) == 58


def test_tenants_are_found_by_their_tags_and_have_labels() -> None:
    names = [f"tenant{n}" for n in range(500)]
    opened = TOKENS.open(TOKENS.make("tenant77", "4bXmLk0001", NOW))
    assert opened is not None
    assert TOKENS.find(opened.tenant_tag, names) == "tenant77"
    assert TOKENS.find(opened.tenant_tag, names[:77]) is None
    assert TOKENS.find(b"", names) is None
    labels = {TOKENS.label(name) for name in names}
    assert len(labels) == 500
    assert all(re.fullmatch("[a-z2-7]{8}", label) for label in labels)
    assert TOKENS.label("tenant77") == Tokens(bytes(range(32))).label("tenant77")


def test_the_text_form_stays_what_it_is() -> None:
    """Complaints come weeks later, perhaps to a newer version: these must still open."""
    opened = TOKENS.open(VECTOR)
    assert opened is not None
    assert (TOKENS.find(opened.tenant_tag, ["acme"]), opened.queue_id) == ("acme", "3Pt2mN2VXxznjll")
    assert opened.hour == datetime.datetime(2026, 11, 24, 10, tzinfo=datetime.timezone.utc)
    assert TOKENS.make("acme", "3Pt2mN2VXxznjll", NOW) == VECTOR


def test_the_headers_are_those_of_google_and_rfc_9477() -> None:
    token = TOKENS.make("acme", "3Pt2mN2VXxznjll", NOW)
    assert headers(settings(), TOKENS, "acme", "bulk", "3Pt2mN2VXxznjll", NOW) == [
        ("Feedback-ID", f"{token}:{TOKENS.label('acme')}:bulk:relayex"),
        ("CFBL-Address", f"fbl+{token}@relay.example; report=arf"),
        ("CFBL-Feedback-ID", token),
    ]


def test_without_an_address_there_is_no_cfbl() -> None:
    assert [name for name, _ in headers(settings(address=""), TOKENS, "acme", "bulk", "4bXmLk0001", NOW)] == ["Feedback-ID"]


def test_a_local_part_never_exceeds_what_smtp_allows() -> None:
    """The token comes back in CFBL-Feedback-ID then."""
    for address, queue_id in (
        ("fbl@relay.example", "a-queue-id-that-is-raw"),
        ("complaint-reports@relay.example", "4bXmLk0001"),
    ):
        found = dict(headers(settings(address=address), TOKENS, "acme", "bulk", queue_id, NOW))
        assert found["CFBL-Address"] == f"{address}; report=arf"
        assert TOKENS.open(found["CFBL-Feedback-ID"]) is not None


@given(st.text(), st.text(), st.text())
def test_no_name_can_add_a_field_or_a_line(tenant: str, stream: str, queue_id: str) -> None:
    for name, value in headers(settings(), TOKENS, tenant, stream, queue_id, NOW):
        assert re.fullmatch(r"[\x21-\x7e]+(; report=arf)?", value)
        if name == "Feedback-ID":
            assert value.count(":") == 3
            assert value.endswith(":relayex")


def test_the_secret_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(bytes(range(32)))
    path.chmod(0o640)
    tokens = Tokens.from_file(path)
    assert tokens.make("acme", "4bXmLk0001", NOW) == TOKENS.make("acme", "4bXmLk0001", NOW)
    assert tokens.warning == ""
    path.chmod(0o644)
    assert "anybody may read this secret" in Tokens.from_file(path).warning


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (None, 0, "cannot read the secret"),
        (b"", 0o600, "expected at least 32 random bytes, got 0"),
        (os.urandom(31), 0o600, "got 31"),
        (b"x" * 32, 0o600, "random"),
        (os.urandom(5000), 0o600, "not a secret file"),
        (os.urandom(32), 0o602, "anybody may change"),
    ],
)
def test_a_secret_file_that_cannot_be_used_says_why(tmp_path: Path, content: bytes | None, mode: int, said: str) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    with pytest.raises(KeyFileError, match=said) as raised:
        Tokens.from_file(path)
    assert str(path) in str(raised.value)


def test_a_folder_is_no_secret(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=re.escape(str(tmp_path))):
        Tokens.from_file(tmp_path)


def test_threads_share_one_object() -> None:
    wanted = [TOKENS.make("acme", f"4bXmLk{n:04}", NOW) for n in range(500)]

    def work(_: int) -> bool:
        made = [TOKENS.make("acme", f"4bXmLk{n:04}", NOW) for n in range(500)]
        opened = [TOKENS.open(token) for token in made]
        return made == wanted and all(o is not None and o.queue_id == f"4bXmLk{n:04}" for n, o in enumerate(opened))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(16)))


def test_making_a_token_costs_microseconds() -> None:
    """9 were measured; the bound is generous because the machine may be busy, and the best of several runs counts."""
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        for _ in range(500):
            TOKENS.make("acme", "3Pt2mN2VXxznjll", NOW)
        best = min(best, (time.perf_counter() - start) / 500)
    assert best < 20e-6
