"""What the lint found is mended: the result lints clean, and the text that a person reads is the same."""

from __future__ import annotations

import binascii
import email
import email.policy
import tracemalloc
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden.config.settings import LintSettings
from relaywarden_milter.edits import Change, Edits
from relaywarden_milter.headers import Header, wire_header
from relaywarden_milter.lint import BodyLint, examine
from relaywarden_milter.rebody import BodyPlan, How
from relaywarden_milter.rebody import body as carried_out
from relaywarden_milter.repair import Mended, date, mend, message_id
from testbed.milterclient import Reply

NOW = 1_700_000_000.25
SOUND: list[Header] = [
    ("From", b"a@acme.example"),
    ("To", b"b@example.net"),
    ("Subject", b"one\n two"),
    ("Date", b"Mon, 1 Jan 2024 00:00:00 +0000"),
    ("Message-ID", b"<1@acme.example>"),
]
PIECES = [
    b"a", b"word ", b"\t", b"\r\n", b"\r\n\r\n", b"\r", b"\n", b"=", b"=3D", b".", b"--b", b"\0", b"x" * 75, b"z" * 800,
    b" blank" * 200, "ü".encode() * 300, "€😀".encode(), b"\xfc", b"\x80" * 9, b"q" * 9000,
]  # fmt: skip
BODIES = st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join)
CUTS = st.lists(st.integers(min_value=0), max_size=6)
VALUES = st.lists(
    st.sampled_from(
        [b"word", b" ", b"\n ", b"\r", b"\n", b"\r\n\t", b"\0", b"x" * 70, b" many words" * 30, "ü".encode(), b"\xfc"]
    ),
    max_size=6,
).map(b"".join)
NAMES = st.sampled_from(
    ["From", "To", "to", "Cc", "Reply-To", "Subject", "Date", "Message-ID", "References", "X-Long", "X-long", "MIME-Version"]
)
TYPES = st.sampled_from([
    None, b"", b"text/plain", b"TEXT/html; charset=utf-8", b"multipart/mixed; boundary=b", b"(c) multipart/mixed; boundary=b",
    b"message/rfc822", b"application/pdf", b"text",
])  # fmt: skip
ENCODINGS = st.sampled_from([None, b"", b"7bit", b"8bit", b"8-bit", b"binary", b"base64", b"quoted-printable", b"x-uu"])
PLANS = st.builds(BodyPlan, st.sampled_from(How), st.booleans(), st.integers(78, 998), st.sampled_from([b"\r\n", b"\r\n "]))


def chunked(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def linted(body: bytes, limit: int = 998) -> BodyLint:
    lint = BodyLint(limit)
    lint.update(body)
    return lint


def mended(headers: list[Header], body: bytes = b"", *, declared: bool = False, **settings: Any) -> tuple[Edits, Mended, bytes]:
    """The edits, what was done, and the body as it is sent."""
    lint = LintSettings.model_validate(settings)
    seen = linted(body, lint.line_length)
    edits = Edits(headers)
    result = mend(edits, seen, examine(headers, seen, declared, lint), NOW, "acme.example", "4XyZ", lint)
    if result.body is not None:
        body = b"".join(carried_out([body], result.body))
    return edits, result, body


def plain(headers: list[Header]) -> list[tuple[bytes, bytes]]:
    return [(name.strip().lower().encode(), value) for name, value in headers]


def sent(headers: list[Header], edits: Edits) -> list[tuple[bytes, bytes]]:
    """The headers after Postfix carried out the steps."""
    reply = Reply("c")
    for step in edits.steps:
        if isinstance(step, Change):
            reply.changes.append(("m", step.index, step.name, step.value or ""))
        else:
            reply.changes.append(("h", 0, step.name, step.value))
    return [(name.strip().lower(), value) for name, value in reply.apply([(name.encode(), value) for name, value in headers])]


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8), TYPES, ENCODINGS, BODIES, st.booleans(), st.integers(78, 998))
def test_what_was_mended_lints_clean_and_stays_so(
    headers: list[Header], kind: bytes | None, encoding: bytes | None, body: bytes, declared: bool, limit: int
) -> None:
    headers += [("Content-Type", kind)] if kind is not None else []
    headers += [("Content-Transfer-Encoding", encoding)] if encoding is not None else []
    edits, result, after = mended(headers, body, declared=declared, line_length=limit)
    if result.refused is not None:
        assert (edits.headers, edits.steps, result.done, result.body) == (headers, [], [], None)
        return
    # An 8bit that we declared is known by its header, so the client's word is not needed again.
    assert examine(edits.headers, linted(after, limit), declared, LintSettings(line_length=limit)) == []
    assert plain(edits.headers) == sent(headers, edits)
    again, second, _ = mended(edits.headers, after, declared=declared, line_length=limit)
    assert (again.steps, second) == ([], Mended([]))
    assert bool(result.done) == bool(edits.steps or result.body)


@given(BODIES, CUTS, PLANS)
def test_the_body_is_the_same_however_it_is_cut(body: bytes, cuts: list[int], plan: BodyPlan) -> None:
    assert b"".join(carried_out(chunked(body, cuts), plan)) == b"".join(carried_out([body], plan))


@given(BODIES, CUTS)
def test_quoted_printable_decodes_to_the_same_octets(body: bytes, cuts: list[int]) -> None:
    encoded = b"".join(carried_out(chunked(body, cuts), BodyPlan(How.QUOTED)))
    assert binascii.a2b_qp(encoded) == body
    lint = linted(encoded, 76)
    assert (lint.longest_line, lint.eight_bit, lint.bare_line_ends) == (0, False, 0)
    assert encoded.count(b"\r\n") - encoded.count(b"=\r\n") == body.count(b"\r\n")
    assert not any(line.endswith((b" ", b"\t")) for line in encoded.split(b"\r\n"))


@given(BODIES, CUTS)
def test_soft_line_breaks_decode_to_the_same_octets(body: bytes, cuts: list[int]) -> None:
    quoted = body.replace(b"=", b"").replace(b"--b", b"=E4")
    encoded = b"".join(carried_out(chunked(quoted, cuts), BodyPlan(How.SOFT)))
    assert binascii.a2b_qp(encoded) == binascii.a2b_qp(quoted)
    lint = linted(encoded, 76)
    assert (lint.longest_line, lint.eight_bit) == (0, False)


@given(BODIES, CUTS, st.integers(78, 998), st.sampled_from([b"\r\n", b"\r\n "]))
def test_broken_lines_differ_by_what_was_inserted_only(body: bytes, cuts: list[int], limit: int, glue: bytes) -> None:
    after = b"".join(carried_out(chunked(body, cuts), BodyPlan(How.BREAK, line_length=limit, glue=glue)))
    at = 0
    rest = after
    while rest:
        same = next((place for place, (old, new) in enumerate(zip(body[at:], rest, strict=False)) if old != new), None)
        if same is None:
            assert rest == body[at:]
            break
        inserted = glue if rest.startswith(glue, same) and not body[at + same : at + same + 1].isspace() else b"\r\n"
        assert rest.startswith(inserted, same)
        at, rest = at + same, rest[same + len(inserted) :]
    assert linted(after, limit).longest_line == 0
    assert linted(after, limit).utf8 == linted(body, limit).utf8
    assert linted(after, limit).bare_line_ends == linted(body, limit).bare_line_ends
    if not linted(body, limit).longest_line:
        assert after == body


def test_a_line_is_broken_before_its_last_blank_that_fits_else_at_the_limit_but_not_within_a_character() -> None:
    plan = BodyPlan(How.BREAK, line_length=78)
    for before, after in (
        (b"x" * 78 + b" y\r\nz\r\n", b"x" * 78 + b"\r\n y\r\nz\r\n"),
        (b"x" * 40 + b"\t" + b"y" * 38 + b"\r\n", b"x" * 40 + b"\r\n\t" + b"y" * 38 + b"\r\n"),
        (b"x" * 79 + b"\r\n", b"x" * 78 + b"\r\n x\r\n"),
        (b"x" * 78 + b"\r\n", b"x" * 78 + b"\r\n"),
        (b"x" * 77 + "ü".encode() + b"\r\n", b"x" * 77 + b"\r\n " + "ü".encode() + b"\r\n"),
        (b"x" * 156, b"x" * 78 + b"\r\n " + b"x" * 77 + b"\r\n x"),
    ):
        assert b"".join(carried_out([before], plan)) == after


def test_a_line_end_that_is_cut_in_two_is_no_reason_to_break() -> None:
    for size in (*range(75, 82), *range(8189, 8196)):
        body = b"x" * size + b"\r\n" + b"y" * size + b"\r\n"
        for plan in (BodyPlan(How.BREAK, line_length=78), BodyPlan(How.SOFT), BodyPlan(How.QUOTED), BodyPlan(mend_ends=True)):
            whole = b"".join(carried_out([body], plan))
            for cut in range(size - 2, size + 4):
                assert b"".join(carried_out([body[:cut], body[cut:]], plan)) == whole


def test_blanks_at_line_ends_are_encoded_within_the_line_length() -> None:
    for size in range(100):
        for line in (b"x" * size + b" \r\n", b"\xfc" * size + b"\t\r\n", b"x" * size + b"\n\r\n"):
            encoded = b"".join(carried_out([line], BodyPlan(How.QUOTED)))
            assert linted(encoded, 76).longest_line == 0
            assert binascii.a2b_qp(encoded) == line


def test_a_body_of_one_endless_line_takes_little_memory() -> None:
    for how in (How.QUOTED, How.SOFT, How.BREAK):
        tracemalloc.start()
        try:
            total = sum(map(len, carried_out((b"\xc3\xa4=x" * 2**14 for _ in range(60)), BodyPlan(how, mend_ends=True))))
            assert tracemalloc.get_traced_memory()[1] < 2 * 2**20
        finally:
            tracemalloc.stop()
        assert total > 60 * 2**16


@given(st.text(max_size=2000).filter(lambda text: "\r" not in text and "\n" not in text), CUTS)
def test_a_reader_sees_the_same_text_after_encoding(line: str, cuts: list[int]) -> None:
    headers = [
        *SOUND,
        ("MIME-Version", b"1.0"),
        ("Content-Type", b"text/plain; charset=utf-8"),
        ("Content-Transfer-Encoding", b"8bit"),
    ]
    body = f"Grüße\r\n{line}\r\n.\r\n{'ä' * 600}\r\n".encode()
    edits, result, after = mended(headers, body, declared=True)
    assert result.done == ["body as quoted-printable"]
    assert result.body is not None
    assert b"".join(carried_out(chunked(body, cuts), result.body)) == after
    assert text_of(edits.headers, after) == text_of(headers, body)


def text_of(headers: list[Header], body: bytes) -> bytes:
    raw = b"".join(wire_header(name, value) for name, value in headers) + b"\r\n" + body
    payload = email.message_from_bytes(raw, policy=email.policy.SMTP).get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload


@pytest.mark.parametrize(
    ("body", "charset"), [("ü\r\n".encode(), "utf-8"), (b"\xfc\r\n", "iso-8859-1"), (b"x" * 999, "us-ascii")]
)
def test_text_without_mime_headers_gets_all_of_them(body: bytes, charset: str) -> None:
    edits, result, after = mended(SOUND, body)
    assert edits.headers[len(SOUND) :] == [
        ("MIME-Version", b"1.0"),
        ("Content-Type", f"text/plain; charset={charset}".encode()),
        ("Content-Transfer-Encoding", b"quoted-printable"),
    ]
    assert result.done == ["body as quoted-printable"]
    assert text_of(edits.headers, after) == body


def test_multipart_is_declared_and_its_lines_are_broken() -> None:
    multipart: list[Header] = [*SOUND, ("Content-Type", b"multipart/mixed; boundary=b")]
    edits, result, _ = mended(multipart, b"--b\r\n\r\n\xfc\r\n--b--\r\n")
    assert (result.done, result.body) == (["declared 8bit"], None)
    assert edits.headers == [*multipart, ("Content-Transfer-Encoding", b"8bit")]
    edits, result, after = mended([*multipart, ("Content-Transfer-Encoding", b"7bit")], b"\xfc" + b"x" * 998 + b"\r\n\r")
    assert result.done == ["body lines broken", "body line ends", "declared 8bit"]
    assert edits.steps == [Change("Content-Transfer-Encoding", 1, "8bit")]
    assert after == b"\xfc" + b"x" * 997 + b"\r\n x\r\n\r\n"


def test_base64_is_broken_without_a_blank_and_cannot_hold_eight_bits() -> None:
    headers = [*SOUND, ("Content-Type", b"image/png"), ("Content-Transfer-Encoding", b"base64")]
    edits, result, after = mended(headers, b"A" * 2000)
    assert after == b"A" * 998 + b"\r\n" + b"A" * 998 + b"\r\nAAAA"
    assert (edits.steps, result.done) == ([], ["body lines broken"])
    edits, result, _ = mended(headers, b"A\xfc" * 2000)
    assert result.refused is not None
    assert result.refused.kind == "eight_bit"
    assert result.refused.text.endswith("cannot be mended with the Content-Transfer-Encoding that is there")


def test_line_ends_alone_are_mended_without_encoding() -> None:
    edits, result, after = mended(SOUND, b"a\rb\nc\r\n\r")
    assert (edits.steps, result.done, after) == ([], ["body line ends"], b"a\r\nb\r\nc\r\n\r\n")


def test_date_and_message_id_are_added_or_filled() -> None:
    edits, result, _ = mended([("From", b"a@acme.example"), ("Date", b" ")])
    assert result.done == ["added Date", "added Message-ID"]
    assert edits.headers[1] == ("Date", b"Tue, 14 Nov 2023 22:13:20 +0000")
    assert edits.headers[2] == (
        "Message-ID",
        b"<60a2418221090.4XyZ@acme.example>",
    )
    assert date(0) == "Thu, 01 Jan 1970 00:00:00 +0000"


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_message_id_is_sound_whatever_it_is_made_of(domain: str, queue_id: str) -> None:
    made = message_id(NOW, domain, queue_id)
    assert made.isascii()
    assert made.isprintable()
    assert not set(" <>@,;") & set(made[1:-1].replace("@", "", 1))
    assert message_id(NOW, domain, "") != message_id(NOW, domain, "")


def test_addresses_are_joined_and_of_other_headers_the_first_that_says_something_is_kept() -> None:
    headers: list[Header] = [
        *SOUND,
        ("TO", "Ü <c@example.net>,".encode()),
        ("Subject", b"two"),
        ("to", b""),
        ("Reply-To", b" "),
        ("reply-to", b"r@acme.example"),
        ("Sender", b""),
        ("Sender", b"s@acme.example"),
    ]
    edits, result, _ = mended(headers)
    assert result.done == ["dropped Subject", "joined To", "dropped Reply-To", "dropped Sender"]
    assert edits.headers == [
        SOUND[0],
        ("To", "b@example.net, Ü <c@example.net>".encode()),
        *SOUND[2:],
        ("reply-to", b"r@acme.example"),
        ("Sender", b"s@acme.example"),
    ]
    assert plain(edits.headers) == sent(headers, edits)


def test_joined_addresses_are_folded() -> None:
    many = b", ".join(b"someone%d@example.net" % number for number in range(40))
    edits, result, _ = mended([*SOUND, ("To", many), ("To", many)])
    assert result.done == ["joined To"]
    assert edits.headers[1][1].replace(b"\n", b"") == b"b@example.net, " + many + b", " + many
    assert max(map(len, wire_header(*edits.headers[1]).split(b"\r\n"))) <= 998


def test_long_header_lines_are_folded_at_blanks_and_stray_line_ends_mended() -> None:
    value = b" ".join([b"word%d" % number for number in range(400)])
    headers: list[Header] = [
        ("X-A", b"1"),
        *SOUND,
        ("x-a", value),
        ("X-B", b"a\r\n\n \tb\rc\n"),
        ("X-C", b"a" + b" " * 5000 + b"b"),
    ]
    edits, result, _ = mended(headers)
    assert result.done == ["refolded x-a", "refolded X-B", "refolded X-C"]
    assert edits.headers[6][1].replace(b"\n", b"") == value
    assert [len(line) for line in wire_header(*edits.headers[6]).split(b"\r\n")][:2] == [998, 992]
    assert edits.headers[7:] == [("X-B", b"a\n b c"), ("X-C", b"a\n b")]
    assert plain(edits.headers) == sent(headers, edits)


def test_a_header_of_nothing_but_line_ends_is_deleted() -> None:
    headers: list[Header] = [
        ("X-A", b"\r"),
        *SOUND,
        ("x-a", b"\n\n"),
        ("X-B", b"1"),
        ("X-A", b"a\rb"),
        ("Cc", b","),
        ("Cc", b", "),
    ]
    edits, result, _ = mended(headers)
    assert result.done == ["dropped Cc", "refolded X-A", "refolded x-a"]
    assert edits.headers == [*SOUND, ("X-B", b"1"), ("X-A", b"a b"), ("Cc", b",")]
    assert plain(edits.headers) == sent(headers, edits)


def test_what_was_planned_before_stays_planned() -> None:
    edits, lint = Edits([*SOUND[:3], ("X-Job", b"1"), ("Date", b"")]), LintSettings()
    edits.delete_one("X-Job", 1)
    assert mend(edits, BodyLint(), examine(edits.headers, BodyLint(), False, lint), NOW, "a.example", "1", lint).refused is None
    assert [step.name for step in edits.steps] == ["X-Job", "Date", "Message-ID"]


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (
            ("X-A", b"a " + b"x" * 1000),
            "line 1 of header X-A is 1007 octets long, at most 998 are allowed, and it has no blank to fold at",
        ),
        (("X-A", b"\xfc\rx"), "header X-A contains a CR or LF that does not fold it, and its text is not UTF-8"),
        (("To", b"\xfc"), "the header To is there 2 times, once is allowed, and its text is not UTF-8"),
        (("To", b"x@y" * 30_000), "the header To is there 2 times, once is allowed, and these are too long to join"),
    ],
)  # fmt: skip
def test_what_cannot_be_mended_is_refused_and_nothing_is_changed(header: Header, text: str) -> None:
    headers = [*SOUND[:3], header]  # Date and Message-ID could be added
    edits, result, _ = mended(headers, long_lines="ignore" if header[0] == "To" else "repair")
    assert result.refused is not None
    assert result.refused.text == text
    assert (edits.headers, edits.steps, result.done, result.body) == (headers, [], [], None)


def test_too_many_faults_are_refused() -> None:
    for header in (("Subject", b"x"), ("X-A", b"a\rb")):
        _, result, _ = mended([*SOUND, *[header] * 20_000])
        assert result.refused is not None
        assert "too many" in result.refused.text
    _, result, _ = mended([*SOUND, *[("Content-Transfer-Encoding", b"7bit")] * 20_000], b"\xfc", duplicate_headers="ignore")
    assert result.refused is not None
    assert "too many" in result.refused.text


def test_settings_say_what_is_refused_and_what_is_left() -> None:
    headers: list[Header] = [("X-A", b"a b" * 500)]
    edits, result, _ = mended(headers, missing_headers="refuse")
    assert result.refused is not None
    assert result.refused.text == "the header Date is missing or empty"
    assert edits.steps == []
    edits, result, _ = mended(headers, missing_headers="ignore", long_lines="ignore")
    assert (edits.steps, result) == ([], Mended([]))
    # A stray line end is mended even where the line stays too long.
    edits, result, _ = mended([*SOUND, ("X-A", b"x" * 2000 + b"\r")], long_lines="ignore")
    assert edits.steps == [Change("X-A", 1, "x" * 2000)]


def test_a_hostile_header_is_mended_in_no_time() -> None:
    for value in (b" " * 100_000 + b"\r", b"\r " * 50_000, b"a \t" * 33_000 + b"\r", b"a" + b" " * 100_000 + b"\n b" + b"\r"):
        _, result, _ = mended([*SOUND, ("X-A", value)])
        assert result.done == ["refolded X-A"]
