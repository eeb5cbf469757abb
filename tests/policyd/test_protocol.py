"""The policy protocol's parser and reply encoder: any bytes, in any pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden_policyd.protocol import (
    MAX_LINE,
    MAX_REPLY,
    MAX_REQUEST,
    MalformedError,
    Parser,
    Request,
    State,
    encode_reply,
    parse_request,
)

POSTFIX = (
    b"request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nclient_address=2001:db8::7\n"
    b"client_name=app.acme.example\nclient_port=41234\nreverse_client_name=app.acme.example\nserver_address=192.0.2.1\n"
    b"server_port=587\nhelo_name=app\nsender=prvs=123=bounce+x=y@acme.example\nrecipient=bob@example.com\n"
    b"recipient_count=0\nqueue_id=\ninstance=7b1.66f0aa00.1c3d4.0\nsize=3120\netrn_domain=\nstress=\nsasl_method=PLAIN\n"
    b"sasl_username=acme\nsasl_sender=\nccert_subject=\nccert_issuer=\nccert_fingerprint=\nccert_pubkey_fingerprint=\n"
    b"encryption_protocol=TLSv1.3\nencryption_cipher=TLS_AES_256_GCM_SHA384\nencryption_keysize=256\n"
    b"policy_context=submission\ncompatibility_level=3.8\nmail_version=3.8.6\n\n"
)
PARSED = Request(
    State.RCPT,
    instance="7b1.66f0aa00.1c3d4.0",
    sasl_username="acme",
    sender="prvs=123=bounce+x=y@acme.example",
    recipient="bob@example.com",
    size=3120,
    client_address="2001:db8::7",
    client_port="41234",
    client_name="app.acme.example",
    policy_context="submission",
)


def request(**attributes: str) -> bytes:
    lines = {"request": "smtpd_access_policy", **attributes}
    return "".join(f"{name}={value}\n" for name, value in lines.items()).encode(errors="surrogateescape") + b"\n"


def test_what_postfix_sends() -> None:
    assert Parser().feed(POSTFIX) == [PARSED]
    assert PARSED.connection == "2001:db8::7:41234"


def test_one_byte_at_a_time() -> None:
    parser = Parser()
    found = [item for index in range(len(POSTFIX)) for item in parser.feed(POSTFIX[index : index + 1])]
    assert found == [PARSED]
    assert parser.idle


values = st.text(st.characters(exclude_characters="\0\n", codec="utf-8"), max_size=40)
whole_requests = st.fixed_dictionaries(
    {"protocol_state": st.sampled_from([state.value for state in State]), "instance": values},
    optional={
        "sasl_username": values,
        "sender": values,
        "recipient": values,
        "recipient_count": st.integers(0, 10**6).map(str),
        "size": st.integers(0, 10**12).map(str),
        "tls_sni": values,
    },
).map(lambda attributes: request(**attributes))


@given(st.lists(whole_requests, max_size=6), st.data())
def test_any_split_of_any_sequence_equals_the_whole(blocks: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(blocks)
    whole = [item for block in blocks for item in Parser().feed(block)]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    parser = Parser()
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert [item for piece in pieces for item in parser.feed(piece)] == whole
    assert len(whole) == len(blocks)


@given(st.lists(st.one_of(whole_requests, st.binary(max_size=60)), max_size=5), st.data())
def test_a_fault_is_found_at_the_same_place_however_the_bytes_come(blocks: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(blocks)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert _outcome(pieces) == _outcome([stream])


def _outcome(pieces: list[bytes]) -> tuple[list[Request], str]:
    parser, found = Parser(), []
    for piece in pieces:
        try:
            found += parser.feed(piece)
        except MalformedError as error:
            return found + error.requests, str(error)
    return found, ""


@given(st.binary(max_size=4096))
def test_no_bytes_raise_anything_but_our_error(data: bytes) -> None:
    try:
        Parser().feed(data + b"\n\n")
    except MalformedError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (b"\n\n", "empty line"),
        (b"garbage\n\n", "name=value"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\n\n", "name=value"),
        (b"protocol_state=RCPT\n\n", "request=smtpd_access_policy"),
        (b"request=junk\n\n", "request=smtpd_access_policy"),
        (request(sender="a\0b"), "NUL"),
        (request(size="12k"), "size"),
        (request(size="-1"), "size"),
        (request(recipient_count="1_0"), "recipient_count"),
        (request(size="9" * 5000), "size"),
        (request(**{"": "x"}), "without a name"),
        (request(sender="x" * (MAX_LINE + 1)), "attribute of more"),
        (request(**{f"x{i}": "x" * 16000 for i in range(5)}), "request of more"),
    ],
)
def test_what_is_malformed(block: bytes, reason: str) -> None:
    parser = Parser()
    with pytest.raises(MalformedError, match=reason):
        parser.feed(block)
    with pytest.raises(MalformedError, match=reason):  # and it stays so: there is no way to find the next request
        parser.feed(POSTFIX)


def test_an_endless_request_is_given_up() -> None:
    parser = Parser()
    with pytest.raises(MalformedError, match="more than"):
        for _ in range(MAX_REQUEST // 1000 + 1):
            parser.feed(b"x=" + b"y" * 997 + b"\n")


def test_the_requests_before_a_fault_can_be_answered() -> None:
    with pytest.raises(MalformedError) as caught:
        Parser().feed(POSTFIX + POSTFIX + b"junk\n\n")
    assert caught.value.requests == [PARSED, PARSED]


def test_absent_empty_and_zero_say_the_same() -> None:
    plain = Parser().feed(request(protocol_state="DATA"))
    assert Parser().feed(request(protocol_state="DATA", size="", recipient_count="", instance="")) == plain
    assert Parser().feed(request(protocol_state="DATA", size="0", recipient_count="0")) == plain


def test_of_duplicates_the_last_is_kept_and_unknown_ones_are_ignored() -> None:
    (found,) = Parser().feed(b"request=smtpd_access_policy\nsize=1\nsize=2\nfrobnicate=yes\nprotocol_state=SPDY\n\n")
    assert (found.size, found.state) == (2, State.OTHER)


def test_values_that_are_not_utf8() -> None:
    (found,) = Parser().feed(request(recipient="b\udcff@x", sasl_username="a\udcff", instance="i\udcfe"))
    assert found.recipient == "b\udcff@x"
    assert (found.sasl_username, found.instance) == ("a\\xff", "i\\xfe")


def test_crlf_is_not_postfix() -> None:
    with pytest.raises(MalformedError):
        Parser().feed(request().replace(b"\n", b"\r\n") + b"\n\n")


@pytest.mark.parametrize(("port", "address"), [("", "192.0.2.1"), ("unknown", "192.0.2.1"), ("0", "192.0.2.1"), ("25", "")])
def test_no_connection_without_a_known_port_and_address(port: str, address: str) -> None:
    block = request(client_port=port, client_address=address)
    assert parse_request(block[:-2]).connection == ""


@given(st.text())
def test_a_reply_is_one_line_that_postfix_reads_as_meant(action: str) -> None:
    encoded = encode_reply(action)
    assert encoded.startswith(b"action=")
    assert encoded.endswith(b"\n\n")
    assert encoded.count(b"\n") == 2
    text = encoded[7:-2].decode()  # valid UTF-8
    assert text
    assert not text.isdigit()  # all-numerical is PERMIT
    assert text.isprintable()
    assert len(encoded) <= MAX_REPLY + 9


@pytest.mark.parametrize(
    ("action", "line"),
    [
        ("DUNNO", b"DUNNO"),
        ("450", b"450 Refused by policy"),
        ("REJECT 5.7.1 a\r\naction=OK\0", b"REJECT 5.7.1 a action=OK"),
        ("  ", b"DUNNO"),
        ("REJECT \udcff", b"REJECT"),
    ],
)
def test_replies(action: str, line: bytes) -> None:
    assert encode_reply(action) == b"action=" + line + b"\n\n"
