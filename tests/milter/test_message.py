"""The message as rebuilt for scan and signing, where its body is kept, and its body hash against dkimpy's."""

from __future__ import annotations

import hashlib
import resource
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import dkim.canonicalization
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden_milter.bodyhash import BodyHash
from relaywarden_milter.headers import values, wire_header
from relaywarden_milter.message import MAX_HEADERS, Message

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


def test_pieces_say_their_size_and_can_be_read_twice() -> None:
    for in_memory, body in ((10**6, 100), (10**6, 100_000), (50, 100), (50, 300_000)):
        message = Message(10**7, in_memory=in_memory)
        message.add_header("Subject", b"s")
        for start in range(0, body, 60_000):
            message.add_body(bytes(min(60_000, body - start)))
        octets = message.pieces([("X", b"1")])
        whole = b"".join(octets)
        assert whole == b"".join(octets) == b"X: 1\r\n\r\n" + bytes(body)
        assert octets.size == len(whole)
        assert not octets.lost
        message.close()


def test_a_message_gives_its_file_back_when_it_ends_in_whatever_way() -> None:
    def closed(message: Message) -> None:
        message.close()
        message.close()

    def too_large(message: Message) -> None:
        message.add_body(bytes(100_000))

    def too_many_headers(message: Message) -> None:
        for _ in range(MAX_HEADERS + 1):
            message.add_header("a", b"")

    def disk_full(message: Message) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
        try:
            message.add_body(bytes(20_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert message.body_lost

    ends: list[Callable[[Message], None]] = [closed, too_large, too_many_headers, disk_full]
    for end in ends:
        before = len(list(Path("/proc/self/fd").iterdir()))
        message = Message(130_000, in_memory=1000)
        message.add_body(bytes(40_000))
        assert len(list(Path("/proc/self/fd").iterdir())) == before + 1
        end(message)
        assert len(list(Path("/proc/self/fd").iterdir())) == before, end.__name__
        assert message.pieces().lost, end.__name__


def test_a_body_that_cannot_be_kept_is_lost_but_hashed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    message, kept = Message(10**6, in_memory=1000), Message(10**6, in_memory=10**6)
    for chunk in (b"hello\r\n" * 100, b"again\r\n" * 100, b"end\r\n"):
        message.add_body(chunk)
        kept.add_body(chunk)
    assert "No such file" in message.body_lost
    assert message.pieces().lost == message.body_lost
    assert message.body_pieces().size == 0  # not only the end of it
    assert not message.too_large
    assert (message.size, message.body.digest()) == (kept.size, kept.body.digest())


def test_a_body_that_was_not_asked_for_cannot_be_scanned() -> None:
    message = Message(1000, keep_body=False)
    message.add_body(b"hello\r\n")
    assert message.pieces().lost


def test_values_ignores_case_and_blanks_before_the_colon() -> None:
    assert values([("From ", b"1"), ("fRoM", b"2"), ("Form", b"3")], "from") == [b"1", b"2"]
