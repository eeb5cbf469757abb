"""What is seen of a message: MIME, encodings, charsets, and that no input is slow or fatal."""

from __future__ import annotations

import base64
import quopri
import time
from email.message import EmailMessage

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relaywarden.content import text
from relaywarden.content.fingerprint import fingerprint
from relaywarden.content.judge import judge

PAGE = (
    "<html><head><style>p{color:red}</style></head><body><!-- not seen --><p>Gr&uuml;&szlig;e aus K\u00f6ln&nbsp;\u2013 ja</p>"
    '<a href="https://Shop.example/a?b=1">los</a><img src="x" width="1" height="1"></body></html>'
)


def whole(message: EmailMessage) -> text.Look:
    return text.look(*text.split(message.as_bytes()))


@pytest.mark.parametrize("coding", ["base64", "quoted-printable", "8bit"])
@pytest.mark.parametrize("charset", ["utf-8", "windows-1252"])
def test_html_is_read_through_every_encoding_and_charset(coding: str, charset: str) -> None:
    octets = PAGE.encode(charset, "xmlcharrefreplace")
    body = {"base64": base64.encodebytes, "quoted-printable": quopri.encodestring}.get(coding, bytes)(octets)
    headers = [("Content-Type", f"text/html; charset={charset}"), ("Content-Transfer-Encoding", coding.upper())]
    seen = text.look(headers, body)
    assert seen.letters.split() == "Gr\u00fc\u00dfe aus K\u00f6ln ja los".encode().split()
    assert (seen.is_html, seen.hosts, seen.images, seen.pixels) == (True, (b"shop.example",), 1, 1)


def test_of_nested_alternatives_the_html_is_read_and_attachments_are_named() -> None:
    message = EmailMessage()
    message.set_content("the plain one")
    message.add_alternative("<p>the other one</p>", subtype="html")
    message.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="invoice.pdf")
    message.add_attachment("not the text", filename="note.txt")
    seen = whole(message)
    assert seen.visible == b"the other one"
    assert seen.attachments == ("application/pdf", "text/plain")


def test_plain_text_keeps_its_links() -> None:
    seen = text.look([], b"see https://a.example/x and http://b.example")
    assert (seen.hosts, seen.is_html) == ((b"a.example", b"b.example"), False)


def test_both_ends_of_a_long_text_are_read() -> None:
    page = f"<body>{'<p>first</p>'}{'<p style=x>filler</p>' * 5000}\n<p>unsubscribe</p></body>".encode()
    for coding, body in (("8bit", page), ("base64", base64.encodebytes(page)), ("quoted-printable", quopri.encodestring(page))):
        seen = text.look([("Content-Type", "text/html"), ("Content-Transfer-Encoding", coding)], body)
        assert seen.visible.startswith(b"first filler")
        assert seen.visible.endswith(b"unsubscribe")
        assert len(seen.visible) < 16 * 1024


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"=?utf-8?q?Gr=C3=BC=C3=9Fe?= =?utf-8?b?IGF1cw==?= Bonn", "Gr\u00fc\u00dfe aus Bonn"),
        (b"=?iso-8859-1?Q?caf=E9?=", "caf\u00e9"),
        (b"=?unicode_escape?q?=5Cu0041?=", "\\u0041"),
        (b"folded\r\n value", "folded value"),
        ("=?utf-8?b?!!?=", ""),
    ],
)
def test_header_words(value: bytes | str, expected: str) -> None:
    assert text.header_text(value) == expected


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_message_is_split_like_the_milter_sees_it(end: bytes) -> None:
    message = end.join([b"From mailbox", b"Subject: a", b" b", b"X: c", b"", b"body", b"", b"more"])
    headers, body = text.split(message)
    assert [(name, value.split()) for name, value in headers] == [("Subject", [b"a", b"b"]), ("X", [b"c"])]
    assert body == end.join([b"body", b"", b"more"])


HOSTILE = [
    b"<" * 300_000,
    b"<!--" * 80_000,
    b"<style" * 50_000,
    b">" + b" " * 300_000,
    b"&a;" * 100_000,
    b"<img " * 60_000,
    b"href=https://" * 25_000,
    b"=?a?q?" * 50_000,
    b"=" * 300_000,
    b"\xe2" * 300_000,
    b"0" * 300_000,
]


@pytest.mark.parametrize("octets", HOSTILE, ids=lambda octets: repr(octets[:12]))
@pytest.mark.parametrize("coding", ["8bit", "base64", "quoted-printable"])
def test_no_input_takes_long(octets: bytes, coding: str) -> None:
    headers: list[tuple[str, bytes | str]] = [("Content-Type", "text/html"), ("Content-Transfer-Encoding", coding)]
    headers += [("Subject", octets), ("From", octets)]
    start = time.process_time()
    seen = text.look(headers, octets)
    judge(headers, seen)
    fingerprint(seen)
    text.split(octets)
    assert time.process_time() - start < 0.25


def test_multiparts_without_end_are_bounded() -> None:
    nested = b"".join(b"--b\nContent-Type: multipart/mixed; boundary=b\n\n" for _ in range(5000))
    start = time.process_time()
    text.look([("Content-Type", "multipart/mixed; boundary=b")], nested)
    assert time.process_time() - start < 0.25


@given(
    st.lists(st.tuples(st.sampled_from(["Content-Type", "Subject", "From", "To", "X"]), st.binary() | st.text()), max_size=6),
    st.binary(max_size=600),
)
@example([("Content-Type", "text/html; charset=idna")], b"\xff<p>")
@example([("Content-Type", 'multipart/mixed; boundary=""')], b"--\n--")
@example([("Content-Type", "text/plain; charset=utf-16")], b"\xd8\x00")
@settings(max_examples=200, deadline=None)
def test_nothing_raises(headers: list[tuple[str, bytes | str]], body: bytes) -> None:
    seen = text.look(headers, body)
    found = judge(headers, seen)
    assert 0.0 <= found.score <= 1.0
    assert all(reason.isprintable() for reason in found.reasons)
    assert 0 <= fingerprint(seen) < 1 << 64
    text.split(body)
