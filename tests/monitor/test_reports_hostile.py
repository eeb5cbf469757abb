"""Whatever the bytes are: `read` raises nothing, gives at least one report, and ends in bounded time.

RELAYWARDEN_FUZZ: how many mutations of the fixtures are tried (default 300).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden.feedback import Tokens
from relaywarden_monitor.reports import mime
from relaywarden_monitor.reports.read import read
from relaywarden_monitor.reports.report import Report
from relaywarden_monitor.verdict import Blame, Scope, Severity, Verdict

FIXTURES = [path.read_bytes() for path in sorted((Path(__file__).parent / "data" / "reports").glob("*.eml"))]
TOKENS = Tokens(bytes(range(32)))
LARGE = 20 * 2**20
SLOWEST = 3.0  # CPU seconds; the slowest of these takes 0.15 on the machine that they were written on
BOUNCE = b"From: MAILER-DAEMON@x.example\nSubject: Undelivered Mail\n"


def classify(reply: str, relay: str, status: str) -> Verdict:
    assert reply.isprintable()
    assert relay.isprintable()
    assert len(reply) <= 2000
    return Verdict("x", Scope.POLICY, Blame.POOL, Severity.LOW, None, "other", "nothing", status.startswith("4"))


def checked(data: bytes, envelope_to: str = "") -> list[Report]:
    found = read(data, classify, TOKENS, envelope_to)
    assert found
    assert len(found) <= 200
    assert all(report.opened is None or report.token for report in found)
    return found


@given(st.binary(max_size=2000), st.text(max_size=100))
def test_any_octets(data: bytes, envelope_to: str) -> None:
    checked(data, envelope_to)


HEADER = st.sampled_from(
    ["Content-Type: ", "Content-Transfer-Encoding: ", "Subject: ", "From: ", "To: ", "Date: ", "Feedback-ID: ",
     "Auto-Submitted: ", "X-Failed-Recipients: ", "Feedback-Type: ", "Final-Recipient: rfc822; ", "Diagnostic-Code: smtp; ",
     "Arrival-Date: "]
)  # fmt: skip
VALUE = st.text(max_size=60) | st.sampled_from(
    ["multipart/report; boundary=b", "message/delivery-status", "message/rfc822", "message/feedback-report", "base64",
     "quoted-printable", "text/html; charset=utf-7", "text/plain; charset=punycode", "text/plain; charset=\ud800",
     "=?x?b?====?=", "=?utf-8?B?/w==?=", "Thu, 99 Zzz 99999999 99:99:99 +9999", "failed", "<a@b.example>", "550 5.1.1 x"]
)  # fmt: skip


@given(st.lists(st.tuples(HEADER, VALUE) | st.just(("", "")) | st.just(("--b", "")), max_size=30))
def test_any_fields(lines: list[tuple[str, str]]) -> None:
    checked("\n".join(name + value for name, value in lines).encode("utf-8", "surrogatepass"))


def test_mutations_of_the_fixtures() -> None:
    chance = random.Random(17)
    for _ in range(int(os.environ.get("RELAYWARDEN_FUZZ", "300"))):
        data = bytearray(chance.choice(FIXTURES))
        for _ in range(chance.randint(1, 8)):
            at = chance.randrange(len(data) + 1)
            how = chance.randrange(5)
            if how == 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            elif how == 1:
                del data[at : at + chance.randint(1, 200)]
            elif how == 2:
                data[at:at] = data[chance.randrange(len(data) + 1) :][:200]
            elif how == 3:
                data[at:at] = chance.choice(
                    [b"\0", b"\n\n", b"\r", b"\x1b[2J", b"\xff", b"--b1--\n", b"=?", b"\xed\xa0\x80", b"<", b";"]
                )
            else:
                data[at:] = chance.choice(FIXTURES)[at:]
        checked(bytes(data))


def large(piece: bytes, head: bytes = BOUNCE + b"Content-Type: text/plain\n\n") -> Callable[[], bytes]:
    return lambda: head + piece * (LARGE // len(piece))


HOSTILE = {
    "one line": large(b"a"), "one line of dots": large(b"a."), "one line of at signs": large(b"a.a@a.a@"),
    "a line an address": large(b"<user@example.org>: 550 5.1.1 is unknown\n"),
    "recipients in text": lambda: BOUNCE + b"\n" + b"".join(b"<u%d@example.org>: 550 5.1.1 no\n" % n for n in range(500_000)),
    "labels": large(b"for user to recipient "), "codes": large(b"550 5.1.1 "), "quotes": large(b"> > > a@b.example\n"),
    "heads": large(b"From: a\nTo: b\n"), "fields": large(b"X-A: b\n", b""), "folds": large(b"\n a", b"Subject: "),
    "parts": large(b"--b\n\n\n", BOUNCE + b"Content-Type: multipart/mixed; boundary=b\n\n"),
    "messages": large(b"Content-Type: message/rfc822\n\n", b""),
    "base64": large(b"QUJD", BOUNCE + b"Content-Transfer-Encoding: base64\n\n"),
    "html": large(b"<a ", BOUNCE + b"Content-Type: text/html\n\n"),
    "styles": large(b"<style>", BOUNCE + b"Content-Type: text/html\n\n"),
    "recipients": large(
        b"Final-Recipient: rfc822; a@b.example\nAction: failed\n\n", BOUNCE + b"Content-Type: message/delivery-status\n\n"
    ),
    "replies of marks": large(
        b"Final-Recipient: rfc822; a@b.example\nDiagnostic-Code: " + b"!" * 8000 + b"abc\n\n",
        BOUNCE + b"Content-Type: message/delivery-status\n\n",
    ),
    "words like tokens": large(b"a" * 56 + b" "), "nuls": large(b"\0"), "returns": large(b"\r", b""),
    "zip bomb": large(b"\x1f\x8b\x08\0", BOUNCE + b"Content-Type: application/gzip\n\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_twenty_megabytes_take_no_time(name: str) -> None:
    data = HOSTILE[name]()
    started = time.process_time()
    checked(data, "bounce+a@relay.example")
    assert time.process_time() - started < SLOWEST


def test_depth_and_number_of_parts_are_bounded() -> None:
    nested = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(2000))
    parts = list(mime.parse(nested).walk())
    assert len(parts) == mime.DEEPEST + 1
    wide = mime.parse(b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * 5000)
    assert len(wide.parts) < mime.MOST_PARTS
    assert len(mime.parse(b"A: b\n" * 5000).fields["a"]) <= mime.MOST_FIELDS


def test_charsets_that_unpack_or_crawl_are_not_used() -> None:
    for charset in ("punycode", "zip", "rot13", "unicode_escape", "idna", "undefined", "no such"):
        part = mime.parse(f"Content-Type: text/plain; charset={charset}\n\nplain".encode())
        assert part.text() == "plain"
    assert mime.parse(b"Content-Type: text/plain; charset=koi8-r\n\n\xee\xc5\xd4").text() == "\u041d\u0435\u0442"
