"""Signatures, verified by dkimpy and by Perl's Mail::DKIM."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from relaywarden.config.settings import DkimSettings, SigningSettings
from relaywarden.dkimkeys import SigningKey, load_key
from relaywarden_milter.headers import Header, wire_header
from relaywarden_milter.message import Message
from relaywarden_milter.sign import Signer, Style
from testbed.dkimverify import by_dkimpy, by_perl
from testbed.dns import DnsServer

STYLE = Style(SigningSettings())
BASE: list[Header] = [
    ("From", b"Acme <a@acme.example>"),
    ("To", b"b@else.example"),
    ("Subject", b"Hello"),
    ("Date", b"Tue, 24 Nov 2026 08:00:00 +0000"),
    ("Message-ID", b"<1@acme.example>"),
]
SHAPES: dict[str, tuple[list[Header], bytes]] = {
    "plain": (BASE, b"hello\r\n"),
    "empty body": (BASE, b""),
    "only line ends": (BASE, b"\r\n\r\n\r\n"),
    "blanks at line ends": (BASE, b"a  b \t\r\n \t\r\n\r\n"),
    "no line end at the end": (BASE, b"hello\r\nworld"),
    "8-bit": (
        [*BASE, ("X-Name", "Grüße".encode()), ("Reply-To", "Jörg <j@acme.example>".encode("latin-1"))],
        "ü\r\n".encode("latin-1"),
    ),
    "long lines": (BASE, b"x" * 5000 + b"\r\n" + b"y " * 4000 + b"\r\n"),
    "folded": ([("From", b"Acme\n <a@acme.example>"), ("Subject", b"one\n\ttwo \n  three  "), *BASE[1:2]], b"x\r\n"),
    "repeated": ([*BASE, ("To", b"c@else.example"), ("Received", b"from x"), ("List-Unsubscribe", b"<https://x/>")], b"x\r\n"),
    "form feed": ([*BASE, ("Reply-To", b"a@acme.example\x0c")], b"\x0c\r\n"),
    "empty header": ([*BASE, ("Cc", b""), ("Sender", b" ")], b"x\r\n"),
    "names in odd case": ([("FROM", b"a@acme.example"), ("sUBJECT", b"x")], b"x\r\n"),
    "large": (BASE, b"A line of a long body, with  blanks.\r\n" * 30_000),
}


@pytest.fixture(scope="module")
def signing_keys(keys: Any) -> list[SigningKey]:
    entries = [
        keys.setting("acme.example", "r2048"), keys.setting("acme.example", "e", "ed25519"),
        keys.setting("relay.example", "r3072", "rsa2"),
    ]  # fmt: skip
    return [load_key(DkimSettings.model_validate(entry)) for entry in entries]


def signed(headers: list[Header], body: bytes, keys: list[SigningKey], chunk: int = 65535) -> bytes:
    message = Message(2**30)
    for name, value in headers:
        message.add_header(name, value)
    for at in range(0, len(body), chunk):
        message.add_body(body[at : at + chunk])
    signer = Signer(message.headers, message.body.digest(), STYLE)
    lines = [wire_header("DKIM-Signature", signer.sign(key, 1_700_000_000).encode()) for key in keys]
    # The wire ends every line with CRLF, whatever the last chunk did.
    whole = b"".join(lines) + message.raw() + (b"" if body.endswith(b"\r\n") or not body else b"\r\n")
    message.close()
    return whole


def expected(keys: list[SigningKey]) -> list[tuple[str, str, str]]:
    return [(key.domain, key.selector, "pass") for key in keys]


def test_every_shape_verifies(signing_keys: list[SigningKey], dns: DnsServer) -> None:
    messages = [signed(headers, body, signing_keys) for headers, body in SHAPES.values()]
    rsa = [signing_keys[0], signing_keys[2]]  # Debian 12's Mail::DKIM knows no Ed25519
    for shape, message, perl in zip(SHAPES, messages, by_perl(messages, dns), strict=True):
        assert [found for found in perl if found[1] != "e"] == expected(rsa), shape
        if shape != "form feed":  # dkimpy strips it as if it were a blank
            assert by_dkimpy(message, dns) == expected(signing_keys), shape


def test_generated_messages_verify(signing_keys: list[SigningKey], dns: DnsServer) -> None:
    rng = random.Random(4)
    names = ["To", "Cc", "Subject", "Reply-To", "References", "List-Id", "Feedback-ID", "X-Other", "Received", "Comments"]
    pieces = [b" ", b"  ", b"\t", b"a", b"word", b"\n ", b"\n\t", b"=?utf-8?q?x?=", b";", b"\xc3\xbc", b"<a@b.example>"]
    lines = [b"\r\n", b"x\r\n", b" \r\n", b"a  b\t\r\n", b"\t\tx\r\n", b"z" * 990 + b"\r\n"]
    messages = []
    for _ in range(300):
        headers: list[Header] = [("From", b"a@acme.example")]
        headers += [
            (rng.choice(names), b"v" + b"".join(rng.choices(pieces, k=rng.randrange(12)))) for _ in range(rng.randrange(12))
        ]
        rng.shuffle(headers)
        body = b"".join(rng.choices(lines, k=rng.randrange(30)))
        messages.append(signed(headers, body, signing_keys[:1], chunk=rng.choice((1, 7, 65535))))
    for message, perl in zip(messages, by_perl(messages, dns), strict=True):
        assert perl == expected(signing_keys[:1])
        assert by_dkimpy(message, dns) == expected(signing_keys[:1])


def test_what_is_signed(signing_keys: list[SigningKey]) -> None:
    headers = [*BASE, ("List-Unsubscribe-Post", b"List-Unsubscribe=One-Click"), ("Feedback-ID", b"a:b:c:relay"),
               ("CFBL-Address", b"f@relay.example"), ("CFBL-Feedback-ID", b"x"), ("X-Virtual-MTA", b"tx1"), ("Received", b"r"),
               ("To", b"second")]  # fmt: skip
    value = Signer(headers, Message(1).body.digest(), STYLE).sign(signing_keys[0], 1_700_000_000)
    tags = dict(tag.strip().split("=", 1) for tag in re.sub(r"\s+", "", value).split(";"))
    assert tags["h"].split(":") == [
        "from", "to", "subject", "date", "message-id", "list-unsubscribe-post", "feedback-id",
        "cfbl-address", "cfbl-feedback-id", "to",
        "from", "to", "cc", "subject", "reply-to", "cfbl-feedback-id", "cfbl-address", "feedback-id", "list-unsubscribe-post",
        "message-id", "date",
    ]  # fmt: skip
    assert (tags["t"], tags["c"], tags["d"], tags["s"]) == ("1700000000", "relaxed/relaxed", "acme.example", "r2048")
    assert "\r" not in value
    assert all(len(line) <= 78 for line in value.split("\n"))


def test_changes_break_the_signature(signing_keys: list[SigningKey], dns: DnsServer) -> None:
    message = signed(BASE, b"hello\r\n", signing_keys[:1])
    changed = [
        message.replace(b"hello", b"hallo"),
        message.replace(b"Subject: Hello", b"Subject: Hallo"),
        message.replace(b"To: b@", b"From: evil@else.example\r\nTo: b@"),  # oversigned: a second From is noticed
    ]
    for verdicts in by_perl(changed, dns):
        assert verdicts[0][2] != "pass"


def test_long_domains_and_many_headers_still_verify(keys: Any, dns: DnsServer) -> None:
    domain = ".".join(["a" * 50, "b" * 50, "c" * 40, "acme", "example"])
    key = load_key(DkimSettings.model_validate(keys.setting(domain, "s" * 60)))
    message = signed([*BASE, *[("To", b"%d@else.example" % number) for number in range(500)]], b"x\r\n", [key])
    assert by_perl([message], dns) == [expected([key])]
    assert by_dkimpy(message, dns) == expected([key])
    assert len(re.findall(rb"(?<!-)\bto\s+:", message)) == 50
