"""Whose From is it?  Every reading that a mail program could take must belong to the tenant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden.errors import MessageError
from relaywarden_milter.identity import belongs, from_domains, parse_addresses


@pytest.mark.parametrize(
    ("value", "domains"),
    [
        (b"a@acme.example", ("acme.example",)),
        (b"<a@ACME.Example>", ("acme.example",)),
        (b'"Acme, Inc. <x@evil.example>" <a@acme.example>', ("acme.example",)),
        (b"Acme (x@evil.example) <a@acme.example>", ("acme.example",)),
        (b"Acme (nested (x@evil.example)) <a@acme.example>", ("acme.example",)),
        (b"a@acme.example (Acme \\) Inc)", ("acme.example",)),
        (b"=?utf-8?q?x=40evil=2Eexample?= <a@acme.example>", ("acme.example",)),
        (b"a@acme.example, b@other.example,c@acme.example", ("acme.example", "other.example")),
        (b"Team: a@one.example, b@two.example;", ("one.example", "two.example")),
        (b'"quoted local"@acme.example', ("acme.example",)),
        (b"a . b @ acme . example", ("acme.example",)),
        (b"<@relay.example,@x.example:a@acme.example>", ("acme.example",)),
        (b"a@[192.0.2.1]", ("[192.0.2.1]",)),
        (b"Folded\n name\n <a@acme.example>", ("acme.example",)),
        ("Jörg <jörg@müller.example>".encode(), ("xn--mller-kva.example",)),
        (b"a@acme.example.", ("acme.example",)),
        (b" a@acme.example ,, ", ("acme.example",)),
    ],
)
def test_domains(value: bytes, domains: tuple[str, ...]) -> None:
    assert from_domains([("From", value)]) == domains


@pytest.mark.parametrize(
    "value",
    [
        b"", b"root", b"<>", b"a@", b"@acme.example", b"a@b@acme.example", b"<a@acme.example> <b@evil.example>",
        b"b@evil.example <a@acme.example>", b"<a@acme.example> b@evil.example", b"<a@acme.example", b"a@acme.example>",
        b"x y@acme.example", b"\xff@acme.example", b'"open <a@acme.example>', b"(open a@acme.example", b"a@acme.example\x00",
        b"a@acme..example", b"a@-x-.example", b'a@"acme.example"', b"a@acme.example:b@evil.example", b"<<a@acme.example>>",
        b"a@acme.example, root", b"a@" + b"x" * 300, b"a@acme_.example@", b"a@acme.example b", b",", b"g:;",
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_refused(value: bytes) -> None:
    with pytest.raises(MessageError):
        from_domains([("From", value)])


@pytest.mark.parametrize(
    "headers", [[], [("From", b"a@acme.example")] * 2, [("From", b"a@acme.example"), ("FROM ", b"b@x.example")]]
)
def test_exactly_one_from(headers: list[tuple[str, bytes]]) -> None:
    with pytest.raises(MessageError, match="exactly one From header"):
        from_domains(headers)


@given(st.binary(max_size=200) | st.text(alphabet='ab<>@,;:"\\()[]. \t\n=?', max_size=60).map(str.encode))
def test_garbage_is_an_address_or_an_error(value: bytes) -> None:
    try:
        addresses = parse_addresses(value)
    except MessageError:
        return
    assert addresses
    assert all("@" in address for address in addresses)


def test_huge_values_take_no_time() -> None:
    for value in (b"(" * 60_000, b"a," * 30_000, b'"' * 60_001, b"<" * 60_000, b"a@b.example," * 5_000, b"x" * 10**6):
        with pytest.raises(MessageError):
            parse_addresses(value)


@pytest.mark.parametrize(
    ("domain", "patterns", "expected"),
    [
        ("acme.example", ["acme.example"], True),
        ("evilacme.example", ["acme.example"], False),
        ("acme.example", ["*.acme.example"], False),
        ("m.acme.example", ["*.acme.example"], True),
        ("a.b.acme.example", ["x.example", "*.acme.example"], True),
        ("evilacme.example", ["*.acme.example"], False),
        ("acme.example.evil.example", ["acme.example", "*.acme.example"], False),
        ("any.example", [], True),
    ],
)
def test_belongs(domain: str, patterns: list[str], *, expected: bool) -> None:
    assert belongs(domain, patterns) is expected
