"""The lint finds what breaks signatures, the same however the body is cut, and leaves sound messages alone."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden.config.settings import LintSettings
from relaywarden_milter.headers import Header
from relaywarden_milter.lint import BodyLint, Finding, examine, transfer_encoding

BODIES = st.lists(
    st.sampled_from(
        [b"a", b"word ", b"\r\n", b"\r\n\r\n", b"\r", b"\n", b"\0", b"x" * 77, b"y" * 200, "ü€😀".encode(), b"\xfc", b"\xc3"]
    )
).map(b"".join)
CUTS = st.lists(st.integers(min_value=0))
SOUND: list[Header] = [
    ("From", b"a@acme.example"),
    ("To", b"b@example.net"),
    ("Subject", b"one\n two"),
    ("Date", b"Mon, 1 Jan 2024 00:00:00 +0000"),
    ("Message-ID", b"<1@acme.example>"),
]
ALL = LintSettings()


def chunked(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def linted(body: bytes, cuts: list[int] | None = None, line_length: int = 998) -> BodyLint:
    lint = BodyLint(line_length)
    for chunk in chunked(body, cuts or []):
        lint.update(chunk)
    return lint


def found(headers: list[Header], body: bytes = b"", *, declared: bool = False, settings: LintSettings = ALL) -> list[Finding]:
    return examine(headers, linted(body, line_length=settings.line_length), declared, settings)


@given(BODIES, CUTS)
def test_a_body_is_seen_as_a_whole_however_it_is_cut(body: bytes, cuts: list[int]) -> None:
    lint = linted(body, cuts, 78)
    longest = max(len(line) for line in re.split(rb"\r?\n", body))
    assert lint.longest_line == (longest if longest > 78 else 0)
    assert lint.bare_line_ends == len(re.findall(rb"[\r\n]", body.replace(b"\r\n", b"")))
    assert lint.eight_bit == (not body.isascii())
    assert lint.nul == (b"\0" in body)
    try:
        body.decode()
        assert lint.utf8
    except UnicodeDecodeError:
        assert not lint.utf8


def test_a_line_of_just_the_limit_is_fine_and_one_octet_more_is_not() -> None:
    for size, expected in ((998, 0), (999, 999), (70_000, 70_000)):
        for end in (b"\r\n", b"\n", b""):
            for before in (b"", b"short\r\n", b"x" * 998 + b"\r\n"):
                body = before + b"x" * size + end
                assert linted(body).longest_line == expected
                assert linted(body, [len(body) - 1]).longest_line == expected


def test_a_sound_message_is_left_alone() -> None:
    assert found(SOUND, b"hello\r\n") == []
    assert found([*SOUND, ("References", b"<a>\r\n <b>\n\t<c>")], b"") == []


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("Subject", b"a\n b\n " + b"c" * 1199, "line 3 of header Subject is 1200 octets long, at most 998 are allowed"),
        ("X-Y", b"c" * 994, "line 1 of header X-Y is 999 octets long, at most 998 are allowed"),
    ],
)
def test_a_long_header_line_is_named(name: str, value: bytes, text: str) -> None:
    headers = [*(header for header in SOUND if header[0] != name), (name, value)]
    assert found(headers) == [Finding("long_lines", text, name)]


def test_a_header_line_of_just_the_limit_is_fine() -> None:
    assert found([*SOUND, ("X-Y", b"c" * 993 + b"\n " + b"d" * 997 + b"\r\n " + b"e" * 997)]) == []


def test_a_long_body_line_is_found() -> None:
    assert found(SOUND, b"x" * 1000) == [Finding("long_lines", "the body has a line of 1000 octets, at most 998 are allowed")]


@pytest.mark.parametrize("value", [b"a\rb", b"a\nb", b"a\r\nb", b"a\n", b"a\r", b"a\n\n b", b"a\r\r\n b", b"a\r b"])
def test_a_stray_line_end_in_a_header_is_found(value: bytes) -> None:
    text = "header X-Y contains a CR or LF that does not fold it"
    assert found([*SOUND, ("X-Y", value)]) == [Finding("bare_line_ends", text, "X-Y")]


def test_bare_line_ends_in_the_body_are_counted() -> None:
    text = "the body has 3 CR or LF that stand alone, line ends must be CRLF"
    assert found(SOUND, b"a\rb\nc\r\n\r") == [Finding("bare_line_ends", text)]


def test_eight_bit_text_must_be_announced_by_the_client_or_the_header() -> None:
    text = "the body has 8-bit text that neither BODY=8BITMIME nor Content-Transfer-Encoding announces"
    for encoding in (b"7bit", b"", b"base64", b"quoted-printable", b"8bits"):
        headers = [*SOUND, ("Content-Transfer-Encoding", encoding)]
        assert found(headers, "ü".encode()) == [Finding("eight_bit", text)]
        assert found(headers, "ü".encode(), declared=True) == []
    for encoding in (b"8bit", b" 8BIT (really)", b"binary;"):
        assert found([*SOUND, ("content-transfer-encoding ", encoding)], b"\xfc") == []
    assert (
        transfer_encoding([("Content-Transfer-Encoding", b"\n Base64 "), ("Content-Transfer-Encoding", b"7bit")]) == b"base64"
    )


def test_missing_and_empty_headers_are_found() -> None:
    missing = [Finding("missing_headers", f"the header {name} is missing or empty", name) for name in ("Date", "Message-ID")]
    assert found([]) == missing
    assert found([("Date", b" \n "), ("message-id", b"")]) == missing
    assert found([("DATE ", b"x"), ("message-id", b"<x>")]) == []


def test_headers_that_are_allowed_once_are_counted() -> None:
    text = "the header MIME-Version is there 3 times, once is allowed"
    twice = [("mime-version", b"1.0"), ("MIME-Version ", b"1.0"), ("Mime-Version", b"")]
    assert found([*SOUND, *twice]) == [Finding("duplicate_headers", text, "MIME-Version")]
    assert found([*SOUND, ("Received", b"1"), ("Received", b"2"), ("From", b"b@acme.example")]) == []


def test_what_is_ignored_is_not_reported() -> None:
    body = b"x" * 1000 + b"\r\xfc"
    headers: list[Header] = [("To", b"a"), ("To", b"b\rc"), ("X", b"y" * 1000)]
    kinds = {finding.kind for finding in found(headers, body)}
    assert kinds == {"long_lines", "bare_line_ends", "eight_bit", "missing_headers", "duplicate_headers"}
    for kind in kinds:
        settings = LintSettings.model_validate({kind: "ignore"})
        assert {finding.kind for finding in found(headers, body, settings=settings)} == kinds - {kind}


@given(st.lists(st.tuples(st.text(max_size=12), st.binary(max_size=300)), max_size=10), BODIES, st.booleans())
def test_nothing_that_a_client_sends_stops_the_lint(headers: list[Header], body: bytes, declared: bool) -> None:
    settings = LintSettings(line_length=78)
    for finding in found(headers, body, declared=declared, settings=settings):
        assert finding.text
        assert "\n" not in finding.text.replace(finding.header, "")
