"""rspamd's answers, good, odd and hostile, and what they mean."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden.config.settings import ScanSettings
from relaywarden.errors import ScanError
from relaywarden_milter.scan import Fate, Scan, meaning, parse_reply

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
REPLIES = st.fixed_dictionaries(
    {"action": st.sampled_from(["no action", "reject", "Custom"])},
    optional=dict.fromkeys(("score", "required_score", "symbols", "subject", "messages", "milter", "is_skipped"), JSON),
)


def settings(**values: object) -> ScanSettings:
    return ScanSettings.model_validate({"url": "http://127.0.0.1:1", **values})


def test_a_full_answer() -> None:
    reply = {
        "action": "Rewrite Subject", "score": 7.5, "required_score": 15, "subject": "*** Hi",
        "symbols": {"A": {"name": "A", "score": 1.5, "options": ["x"]}, "B": {"score": -1}},
        "messages": {"smtp_message": "no\n thanks"},
        "milter": {
            "add_headers": {"X-A": "1", "X-B": {"value": "2", "order": 1}, "X-C": ["3", {"value": "4"}, 5]},
            "remove_headers": {"X-D": 0, "X-E": [1, 3, -1, "x"]},
        },
    }  # fmt: skip
    scan = parse_reply(json.dumps(reply).encode())
    assert scan == Scan(
        action="rewrite subject", score=7.5, required=15.0, symbols=(("A", 1.5), ("B", -1.0)), subject="*** Hi",
        text="no\n thanks", add=(("X-A", "1"), ("X-B", "2"), ("X-C", "3"), ("X-C", "4")),
        remove=(("X-D", 0), ("X-E", -1), ("X-E", 3), ("X-E", 1)),
    )  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [b"", b"pong\r\n", b"[]", b"null", b"{}", b'{"action": 1}', b'{"action": ""}', b"{" * 100_000, b"[" * 100_000,
     b'{"error": "overload"}', b"\xff\xfe", b'{"action":'],
)  # fmt: skip
def test_an_answer_without_a_verdict_is_an_error(body: bytes) -> None:
    with pytest.raises(ScanError):
        parse_reply(body)


def test_numbers_that_are_none() -> None:
    body = (
        b'{"action": "no action", "score": NaN, "required_score": Infinity, "symbols": {"A": {"score": 1' + b"0" * 4000 + b"}}}"
    )
    scan = parse_reply(body)
    assert (scan.score, scan.required, scan.symbols) == (0.0, 0.0, (("A", 0.0),))


@given(REPLIES)
def test_whatever_stands_beside_the_action_is_no_error(reply: dict[str, object]) -> None:
    scan = parse_reply(json.dumps(reply).encode())
    assert all(isinstance(name, str) and isinstance(value, str) for name, value in scan.add)
    assert meaning(scan, settings()).fate in Fate


@given(st.binary(max_size=100))
def test_garbage_is_a_verdict_or_an_error(body: bytes) -> None:
    try:
        parse_reply(body)
    except ScanError:
        pass  # the one error there is


@pytest.mark.parametrize(
    ("action", "fate"),
    [
        ("no action", Fate.ACCEPT), ("greylist", Fate.ACCEPT), ("add header", Fate.ACCEPT), ("rewrite subject", Fate.ACCEPT),
        ("soft reject", Fate.TEMPFAIL), ("reject", Fate.REJECT), ("quarantine", Fate.HOLD), ("discard", Fate.DISCARD),
        ("operator's own", Fate.TEMPFAIL),
    ],
)  # fmt: skip
def test_meaning(action: str, fate: Fate) -> None:
    found = meaning(Scan(action), settings())
    assert found.fate is fate
    assert found.spam_header is (action == "add header")
    assert bool(found.subject) is (action == "rewrite subject")
    assert found.known is (action != "operator's own")


def test_meaning_follows_the_configuration() -> None:
    assert meaning(Scan("greylist"), settings(greylist="tempfail")).fate is Fate.TEMPFAIL
    assert meaning(Scan("x"), settings(custom_action="accept")).fate is Fate.ACCEPT
    assert meaning(Scan("x"), settings(custom_action="quarantine")).fate is Fate.HOLD
    assert meaning(Scan("reject", text="go away"), settings()).text == "go away"
