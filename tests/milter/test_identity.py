"""Whose From is it?  Every reading that a mail program could take must belong to the tenant."""

from __future__ import annotations

import base64
import sys
import time
import unicodedata
from encodings.aliases import aliases

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden import domains
from relaywarden.config.settings import Settings
from relaywarden.errors import MessageError
from relaywarden.tenants import Directory
from relaywarden_milter import identity
from relaywarden_milter.identity import (
    authors,
    belongs,
    envelope_domain,
    from_domains,
    other_domains,
    parse_addresses,
    related,
    sender_domain,
    spoofed,
)
from relaywarden_milter.mailboxes import decode_words, parse_mailboxes


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
        b"a@[192.0.2.1].acme.example", b"a@[1]acme.example", b"a@[]", b"a@" + b"\xc3\xb6" * 5_000,
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


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (b"a@acme.example", [""]),
        (b"<a@acme.example>", [""]),
        (b"Acme   Support <a@acme.example>", ["Acme Support"]),
        (b'"Acme, Inc. \\"x\\" (y)" <a@acme.example>', ['Acme, Inc. "x" (y)']),
        (b"Folded\r\n name\n <a@acme.example>", ["Folded name"]),
        (b"a@acme.example (Acme \\) (nested) Inc)", ["Acme ) (nested) Inc"]),
        (b"Acme (x@other.example) <a@acme.example> (behind)", ["Acme x@other.example behind"]),
        (b"=?utf-8?q?x=40other=2Eexample?= <a@acme.example>", ["x@other.example"]),
        (b'"=?utf-8?B?eEBvdGhlci5leGFtcGxl?=" <a@acme.example>', ["x@other.example"]),
        (b"a@acme.example (=?us-ascii?Q?other=2eexample?=)", ["other.example"]),
        (b"=?utf-8?q?J=C3?= =?UTF-8?q?=B6rg?= <a@acme.example>", ["J\u00f6rg"]),
        (b"=?iso-8859-1*de?q?J=F6rg?= M =?x?q?y?= <a@acme.example>", ["J\u00f6rg M =?x?q?y?="]),
        (
            b"=?utf-8?q?oth?= =?iso-8859-1?q?er=2E?= =?utf-8?q?example?= =?x-no?q?z?= <a@a.example>",
            ["other.example =?x-no?q?z?="],
        ),
        (b"=?utf-8?b?Y?= <a@acme.example>", ["=?utf-8?b?Y?="]),
        (b"=?utf-8?q?=FF=FE?= <a@acme.example>", ["\ufffd\ufffd"]),
        (b"=?hex?q?6162?= =?punycode?q?a-b?= =?idna?q?a?= =?rot13?q?a?= <a@acme.example>", None),
        (b"=?utf-7?q?+2AA-?= <a@acme.example>", ["\ufffd"]),
        (b"=?utf-8?q?a=0D=0ABcc=3A_x=00y?= <a@acme.example>", ["a Bcc: xy"]),
        ("J\u00f6rg <a@acme.example>".encode(), ["J\u00f6rg"]),
        (b"One <a@one.example>, b@two.example, (three) c@three.example", ["One", "", "three"]),
        (b"other.example: a@one.example, B <b@two.example>;", ["other.example:", "B"]),
        (b"a@one.example, other.example:;", ["other.example:"]),
        (b"=?utf-8?q?x:other=2Eexample?= <a@acme.example>", ["x:other.example"]),
        (b"(x@other.example), a@one.example", ["x@other.example"]),
        (b"Acme <a@acme.example(inside)>", ["Acme inside"]),
    ],
)
def test_names(value: bytes, names: list[str] | None) -> None:
    found = [mailbox.display_name for mailbox in parse_mailboxes(value)]
    assert found == (names if names is not None else [value.decode().removesuffix(" <a@acme.example>")])


_PIECES = [
    b"=?utf-8?q?", b"=?utf-8?b?", b"=?gb2312?B?", b"?=", b"=41=2E", b"QUJD", b'"', b"(", b")", b"\\", b"<", b">", b",", b":",
    b";", b"a@acme.example", b" ", b"\r\n ", b"\xff", b"\x00", b"\xc3\xb6", b"=?", b"?",
]  # fmt: skip


@given(st.binary(max_size=200) | st.lists(st.sampled_from(_PIECES), max_size=20).map(b"".join))
def test_hostile_values_give_names_that_can_be_written_or_an_error(value: bytes) -> None:
    headers = [("From", value), ("Sender", value)]
    for read in (authors, from_domains, sender_domain):
        try:
            read(headers)
        except MessageError as error:
            assert str(error).isascii()
    try:
        for mailbox in parse_mailboxes(value):
            mailbox.display_name.encode()
            assert "@" in mailbox.address
            assert not {"\r", "\n", "\0"} & set(mailbox.display_name)
    except MessageError:
        return


@pytest.mark.parametrize("charset", sorted({*aliases, *aliases.values(), "punycode", "idna", "undefined", "unicode_escape"}))
def test_no_charset_breaks_the_decoding(charset: str) -> None:
    for data in (b"", b"\xff\xfe", bytes(range(256)), b"+2AA-\x1b$B!"):
        decode_words(f"=?{charset}?b?{base64.b64encode(data).decode()}?=")
        decode_words(f"=?{charset.upper()}?q?{data.hex('=')}?=")


@given(
    st.text(max_size=80) | st.lists(st.sampled_from(_PIECES)).map(lambda pieces: b"".join(pieces).decode("utf-8", "replace"))
)
def test_decoding_never_raises(text: str) -> None:
    decode_words(text)


def test_made_up_charsets_are_not_remembered() -> None:
    import encodings

    before = len(encodings._cache)
    for number in range(50):
        assert decode_words(f"=?made-up-{number}?q?a?=").strip() == f"=?made-up-{number}?q?a?="
    assert len(encodings._cache) == before


def test_huge_names_take_no_time() -> None:
    others = {"other.example": "other"}
    pieces = [
        b"=?a?q?",
        b"=?utf-8?q?a?=",
        b"=?x?q?a?= ",
        b"=?a?q?a",
        b"(=?)",
        b",",
        b":",
        b"()",
        b"=?",
        b"(a),",
        "\u33c2".encode(),
    ]
    pieces += ["\ufdfa.".encode(), "\u00f6.\u00fc ".encode(), b"a.b ", b"a.", "\u0436.".encode(), "\u200b".encode()]
    for piece in pieces:
        started = time.process_time()
        for value in (piece * (64_000 // len(piece)), b"\xe2\x80\xae" + piece * (60_000 // len(piece))):
            try:
                names = [mailbox.display_name for mailbox in parse_mailboxes(value + b" <a@acme.example>")]
            except MessageError:
                continue
            spoofed(names, ["acme.example"], others)
        assert time.process_time() - started < 1, piece


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], None),
        ([b"A <a@ACME.example>"], "acme.example"),
        ([b"a@acme.example", b"a@acme.example"], "expected at most one Sender header, got 2"),
        ([b"a@acme.example, b@acme.example"], "expected one address in the Sender header, got 2"),
        ([b""], "the Sender header has no address"),
        ([b"a@-.example"], "the Sender header has no proper domain"),
        ([b"a b@acme.example"], "the Sender header has no proper address"),
    ],
)
def test_sender(values: list[bytes], expected: str | None) -> None:
    headers = [("From", b"x@other.example"), *(("sender", value) for value in values)]
    if expected is None or " " not in expected:
        assert sender_domain(headers) == expected
    else:
        with pytest.raises(MessageError, match=f"^{expected}$"):
            sender_domain(headers)


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        ("", None),
        ("a@ACME.example.", "acme.example"),
        ('"a@other.example"@acme.example', "acme.example"),
        ('"a b\\"@x"@acme.example', "acme.example"),
        ("a@[192.0.2.1]", "[192.0.2.1]"),
        ("a@[IPv6:2001:db8::1]", "[ipv6:2001:db8::1]"),
        ("j\u00f6rg@m\u00fcller.example", "xn--mller-kva.example"),
        ("bounce+x=y.example@b.acme.example", "b.acme.example"),
    ],
)
def test_envelope_sender(sender: str, expected: str | None) -> None:
    assert envelope_domain(sender) == expected


@pytest.mark.parametrize("sender", ["root", "@", "a@", '"a@acme.example"', "a@[x@y]", "a@b c", "a@\udcff", "a@" + "x" * 300])
def test_an_envelope_sender_without_a_proper_domain(sender: str) -> None:
    with pytest.raises(MessageError, match="the envelope sender has no"):
        envelope_domain(sender)


@given(st.text(max_size=60) | st.text(alphabet='a@."[]\\ :\udc80\u00f6', max_size=20))
def test_an_envelope_sender_is_read_or_refused(sender: str) -> None:
    try:
        found = envelope_domain(sender)
    except MessageError:
        return
    assert (found is None) == (sender == "")
    assert found is None or found == found.lower()


@pytest.mark.parametrize(
    ("domain", "patterns", "expected"),
    [
        ("bounces.acme.com", ["acme.com"], True),
        ("bounces.acme.com", ["mail.acme.com"], True),
        ("acme.com", ["*.acme.com"], True),
        ("acme.com", ["mail.acme.com"], True),
        ("evil.com", ["acme.com"], False),
        ("evil.co.uk", ["acme.co.uk"], False),
        ("evil.github.io", ["acme.github.io"], False),
        ("evil.github.io", ["github.io"], False),
        ("co.uk", ["*.co.uk"], False),
        ("[192.0.2.1]", ["acme.com"], False),
        ("evil.com", [], True),
        ("com", ["com"], True),
    ],
)
def test_related(domain: str, patterns: list[str], *, expected: bool) -> None:
    assert related(domain, patterns) is expected


TENANTS = {
    "acme": ["acme.com", "*.mail.acme.com", "shared.com"],
    "other": ["mail.othertenant.com", "shared.com", "*.co.uk", "github.io"],
    "idn": ["m\u00fcller.com", "\u043f\u0440\u0438\u043c\u0435\u0440.com"],
    "free": [],
}
DIRECTORY = Directory(
    Settings.model_validate(
        {"plans": {"p": {}}, "tenants": {name: {"plan": "p", "from_domains": found} for name, found in TENANTS.items()}}
    )
)
OTHERS = other_domains(DIRECTORY)


def test_other_domains_name_the_tenant() -> None:
    assert OTHERS == {
        "acme.com": "acme", "shared.com": "acme", "othertenant.com": "other",
        "xn--mller-kva.com": "idn", "xn--e1afmkfd.com": "idn",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", None),
        ("Acme Support", None),
        ("Acme Inc. Support", None),
        ("J\u00f6rg M\u00fcller", None),
        ("Version 3.5", None),
        ("service@acme.com", None),
        ("service@sub.acme.com via shared.com", None),
        ("stranger@elsewhere.com", None),
        ("notothertenant.com", None),
        ("othertenant.com.elsewhere.com", None),
        ("service@othertenant.com", "othertenant.com"),
        ("othertenant.com Support", "othertenant.com"),
        ("https://www.othertenant.com/login?x", "othertenant.com"),
        ("Your account at OtherTenant.COM.", "othertenant.com"),
        ("hello...othertenant.com...", "othertenant.com"),
        ("acme.com and othertenant.com", "othertenant.com"),
        ("'othertenant.com'", "othertenant.com"),
        ("_othertenant.com_", "othertenant.com"),
        ("other\u200btenant\u3002com", "othertenant.com"),
        ("other\u00adtenant\uff0ecom", "othertenant.com"),
        ("\uff4fthertenant.com", "othertenant.com"),
        ("\u201cothertenant.com\u201d", "othertenant.com"),
        ("Support\u2014othertenant.com", "othertenant.com"),
        ("service\uff20othertenant.com", "othertenant.com"),
        ("\u043ethertenant.c\u043em", "othertenant.com"),
        ("\u041eTHERTEN\u0391NT.COM", "othertenant.com"),
        ("othertenant\u00b7com", "othertenant.com"),
        ("\u202emoc.tnanetrehto", "othertenant.com"),
        ("\u200b" * 3_000 + "othertenant.com", "othertenant.com"),
        ("info@m\u00fcller.com", "xn--mller-kva.com"),
        ("info@mu\u0308ller.com", "xn--mller-kva.com"),
        ("xn--mller-kva.com", "xn--mller-kva.com"),
        ("\u043f\u0440\u0438\u043c\u0435\u0440.com", "xn--e1afmkfd.com"),
        ("\u041f\u0420\u0418\u041c\u0415\u0420.COM", "xn--e1afmkfd.com"),
    ],
)
def test_a_name_that_shows_another_tenant(name: str, expected: str | None) -> None:
    assert spoofed(["Somebody", name], TENANTS["acme"], OTHERS) == expected


def test_own_domains_never_count() -> None:
    idn = DIRECTORY.by_name("idn")
    assert idn is not None
    assert spoofed(["othertenant.com", "shared.com"], TENANTS["other"], OTHERS) is None
    assert spoofed(["info@m\u00fcller.com \u043f\u0440\u0438\u043c\u0435\u0440.com"], idn.from_domains, OTHERS) is None
    assert spoofed(["me@acme.com"], TENANTS["free"], OTHERS) == "acme.com"


_HIDDEN = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f\u180e\u2063\ufe0f\U000e0041\u3164"
_DOTS = ".\u3002\uff0e\uff61\u2024\ufe52"


@given(st.data())
def test_another_tenant_is_found_under_changes_of_case_width_and_with_hidden_characters(data: st.DataObject) -> None:
    shown = ""
    for char in data.draw(st.sampled_from(["othertenant.com", "www.othertenant.com", "mail.othertenant.com"])):
        if char == ".":
            changed = data.draw(st.sampled_from(_DOTS))
        else:
            changed = data.draw(st.sampled_from([char, char.upper(), chr(ord(char) + 0xFEE0), chr(ord(char.upper()) + 0xFEE0)]))
        shown += changed + data.draw(st.text(alphabet=_HIDDEN, max_size=2))
    before = data.draw(st.sampled_from(["", "service@", "Support \u2013 ", "\u300c", "(", "J\u00f6rg, ", "\uff08"]))
    after = data.draw(st.sampled_from(["", " Support", "\u300d", ")", ".", ", GmbH", "/x"]))
    assert spoofed([before + shown + after], TENANTS["acme"], OTHERS) == "othertenant.com"
    encoded = base64.b64encode((before + shown + after).encode()).decode()
    (mailbox,) = parse_mailboxes(f"=?utf-8?B?{encoded}?= <a@acme.com>".encode())
    assert spoofed([mailbox.display_name], TENANTS["acme"], OTHERS) == "othertenant.com"


@given(st.lists(st.text(max_size=60), max_size=3), st.lists(st.sampled_from(["acme.com", "*.co.uk"]), max_size=2))
def test_any_name_is_judged(names: list[str], own: list[str]) -> None:
    found = spoofed(names, own, OTHERS)
    assert found is None or found in OTHERS


def test_every_character_that_holds_a_dot_is_known() -> None:
    for code in range(sys.maxunicode + 1):
        if "." in unicodedata.normalize("NFKC", chr(code)):
            assert identity._ANY_DOT.search(chr(code)), hex(code)


def test_a_format_character_hides_no_domain() -> None:
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)) == "Cf" and unicodedata.bidirectional(chr(code)) == "BN":
            assert spoofed([f"othert{chr(code)}enant.com"], [], OTHERS), hex(code)


def test_a_name_without_a_dot_costs_next_to_nothing() -> None:
    domains.load()
    names = ["Acme Customer Support", "J\u00f6rg M\u00fcller"]
    started = time.process_time()
    for _ in range(10_000):
        spoofed(names, TENANTS["acme"], OTHERS)
    assert (time.process_time() - started) / 20_000 < 5e-6
