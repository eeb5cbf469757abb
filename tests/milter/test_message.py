"""The message as rebuilt for scan and signing, and its body hash against dkimpy's canonicalization."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import dkim.canonicalization
from hypothesis import given
from hypothesis import strategies as st

from relaywarden_milter.bodyhash import BodyHash
from relaywarden_milter.message import MAX_HEADERS, Message, values, wire_header

BODIES = st.lists(st.sampled_from([b"a", b"word", b" ", b"\t", b"\r\n", b"\r\n\r\n", b"\r", b"\n", b"  \t "])).map(b"".join)


def chunked(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(BODIES, st.lists(st.integers(min_value=0)))
def test_body_hash_is_the_same_however_the_body_is_cut_and_as_dkimpy_makes_it(body: bytes, cuts: list[int]) -> None:
    hashed = BodyHash()
    for chunk in chunked(body, cuts):
        hashed.update(chunk)
    # dkimpy appends the missing CRLF after it strips blanks from line ends; the body on the wire always ends with CRLF.
    whole = body if body.endswith(b"\r\n") or not body else body + b"\r\n"
    assert hashed.digest() == hashlib.sha256(dkim.canonicalization.Relaxed.canonicalize_body(whole)).digest()


def test_body_hash_of_an_empty_body_and_of_nothing_but_lines() -> None:
    empty = hashlib.sha256(b"").digest()
    hashed = BodyHash()
    assert hashed.digest() == empty  # RFC 6376 section 3.4.4: relaxed turns it into nothing
    for _ in range(1000):
        hashed.update(b"\r\n" * 1000)
    assert hashed.digest() == empty
    hashed.update(b"x")
    assert hashed.digest() == hashlib.sha256(b"\r\n" * 1_000_000 + b"x\r\n").digest()


def test_message_is_rebuilt_with_crlf() -> None:
    message = Message(10_000)
    message.add_header("Subject", b"one\n two")
    message.add_header("From", b"a@b.example")
    message.add_body(b"hello\r\n")
    message.add_body(b"again\r\n")
    raw = message.raw()
    assert raw == b"Subject: one\r\n two\r\nFrom: a@b.example\r\n\r\nhello\r\nagain\r\n"
    assert message.size == len(raw)
    assert message.raw([("X", b"1")]) == b"X: 1\r\n\r\nhello\r\nagain\r\n"


@given(st.text(min_size=1, max_size=20), st.binary(max_size=100))
def test_a_header_value_never_ends_its_header(name: str, value: bytes) -> None:
    line = wire_header(name, value)
    assert line.endswith(b"\r\n")
    assert all(part[:1] in (b" ", b"\t", b"") for part in line.split(b": ", 1)[1][:-2].split(b"\r\n")[1:])


def test_too_large_messages_are_marked_and_forgotten() -> None:
    message = Message(1000)
    message.add_header("Subject", b"s")
    for _ in range(100):
        message.add_body(b"x" * 100)
    assert "more than 1000 octets" in message.too_large
    assert message.headers == []
    assert message.raw() == b"\r\n"
    many = Message(2**40)
    for _ in range(MAX_HEADERS + 1):
        many.add_header("a", b"")
    assert "header fields" in many.too_large


def test_values_ignores_case_and_blanks_before_the_colon() -> None:
    assert values([("From ", b"1"), ("fRoM", b"2"), ("Form", b"3")], "from") == [b"1", b"2"]
