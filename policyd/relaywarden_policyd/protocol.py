"""protocol - the bytes of Postfix policy delegation, without I/O.

A request is lines `name=value`, ended by an empty line; a reply is one `action=TEXT` and an empty line:

    request=smtpd_access_policy\\n protocol_state=RCPT\\n ... instance=7b.66f0.1c.0\\n \\n    ->    action=DUNNO\\n \\n

Rules from SMTPD_POLICY_README: `request=smtpd_access_policy` is required; attributes come in any order; unknown ones are
ignored; of duplicates any one may be kept (here the last); an attribute that is absent, empty or 0 says the same; a name
ends at the FIRST "=", values may hold more of them (VERP and BATV senders do); neither holds NUL or newline.

How it fails: `Parser.feed` raises ProtocolError, with what was wrong, and from then on for every further byte.  The
requests that were complete before the fault are in the error's `requests`: they can still be answered.

Known limits: values that are not UTF-8 keep their bytes as surrogate escapes where they name an address, and become
readable escapes (`\\xff`) where they end up in keys and logs; CRLF line ends are not Postfix's and are not accepted.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from relaywarden.errors import ProtocolError

MAX_REQUEST = 64 * 1024  # with the empty line; Postfix itself stays below 10 KiB
MAX_LINE = 16 * 1024
MAX_REPLY = 480  # an SMTP reply line holds 512 octets (RFC 5321 4.5.3.1.5), and Postfix puts the address in front
MAX_DIGITS = 15  # exact in the doubles that Lua and SQLite count in

_END = b"\n\n"
_REQUIRED = "smtpd_access_policy"


class State(Enum):
    """protocol_state: the SMTP command that Postfix asks about; OTHER for one that this program does not know."""

    __hash__ = object.__hash__  # Enum's own is written in Python, and members are equal only to themselves

    CONNECT = "CONNECT"
    EHLO = "EHLO"
    HELO = "HELO"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    END_OF_MESSAGE = "END-OF-MESSAGE"
    VRFY = "VRFY"
    ETRN = "ETRN"
    OTHER = ""


_NO_PORT = ("", "0", "unknown")
_STATES = {state.value: state for state in State}


class Request(NamedTuple):
    """What policyd reads of a request.  A named tuple, not a dataclass: it is made once a request, in half the time."""

    state: State
    instance: str = ""  # constant through one message transaction, changes with the next; empty before MAIL
    sasl_username: str = ""
    sender: str = ""
    recipient: str = ""  # at DATA and END-OF-MESSAGE only when there is exactly one
    recipient_count: int = 0  # accepted recipients; 0 before DATA
    size: int = 0  # the client's claim until END-OF-MESSAGE, true then
    queue_id: str = ""  # empty until a recipient was accepted
    client_address: str = ""
    client_port: str = ""  # text: Postfix may say "unknown"
    client_name: str = ""
    policy_context: str = ""

    @property
    def connection(self) -> str:
        """`address:port` of the SMTP client, by which the milter finds a ticket without queue id; empty if unknown."""
        known = self.client_address and self.client_port not in _NO_PORT
        return f"{self.client_address}:{self.client_port}" if known else ""


class MalformedError(ProtocolError):
    """Bytes that are no policy request; `requests` came, complete, before them in the same data."""

    def __init__(self, reason: str, requests: list[Request]) -> None:
        super().__init__(reason)
        self.requests = requests


class Parser:
    """Turns the bytes of one connection, in whatever pieces they come, into requests."""

    def __init__(self) -> None:
        self._rest = bytearray()  # the beginning of a request whose end has not come
        self._fault = ""

    @property
    def idle(self) -> bool:
        """Whether the peer stands between two requests."""
        return not self._rest

    def feed(self, data: bytes) -> list[Request]:
        """The requests that `data` completes; raises MalformedError."""
        requests: list[Request] = []
        if self._fault:
            raise MalformedError(self._fault, requests)
        try:
            if not self._rest and data.find(_END) + 2 == len(data) > 2:
                # The common case, without a copy: Postfix sends one request and waits for its reply.
                requests.append(parse_request(data[:-2]))
            else:
                self._collect(data, requests)
        except ProtocolError as error:
            self._fault = str(error)
            raise MalformedError(self._fault, requests) from None
        return requests

    def _collect(self, data: bytes, requests: list[Request]) -> None:
        rest = self._rest
        start, scan = 0, max(0, len(rest) - 1)  # the end may straddle the pieces
        rest += data
        while (end := rest.find(_END, scan)) >= 0:
            requests.append(parse_request(bytes(rest[start:end])))
            start = scan = end + 2
        del rest[:start]
        if len(rest) > MAX_REQUEST:
            raise ProtocolError(f"a request of more than {MAX_REQUEST} bytes")


def parse_request(block: bytes) -> Request:
    """One request, without its empty line; raises ProtocolError."""
    if len(block) + len(_END) > MAX_REQUEST:
        raise ProtocolError(f"a request of more than {MAX_REQUEST} bytes")
    if b"\0" in block:
        raise ProtocolError("a NUL byte")
    try:
        text = block.decode()
        clean = True
    except UnicodeDecodeError:
        text = block.decode(errors="surrogateescape")
        clean = False
    lines = text.split("\n")
    if len(text) > MAX_LINE and max(map(len, lines)) > MAX_LINE:
        raise ProtocolError(f"an attribute of more than {MAX_LINE} characters")
    try:
        attributes = dict([line.split("=", 1) for line in lines])
    except ValueError:
        raise ProtocolError(_bad_line(lines)) from None
    get = attributes.get
    if get("request") != _REQUIRED:
        raise ProtocolError(f"expected request={_REQUIRED}, got {str(get('request'))[:80]!r}")
    if "" in attributes:
        raise ProtocolError("an attribute without a name")
    key = str if clean else _readable
    return Request(
        _STATES.get(get("protocol_state", ""), State.OTHER),
        key(get("instance", "")),
        key(get("sasl_username", "")),
        get("sender", ""),
        get("recipient", ""),
        _number("recipient_count", get("recipient_count")),
        _number("size", get("size")),
        key(get("queue_id", "")),
        key(get("client_address", "")),
        key(get("client_port", "")),
        key(get("client_name", "")),
        key(get("policy_context", "")),
    )


def _bad_line(lines: list[str]) -> str:
    bad = next((line for line in lines if "=" not in line), "")
    return f"expected name=value, got {bad[:80]!r}" if bad else "an empty line where a request should begin"


def _number(name: str, text: str | None) -> int:
    if not text:
        return 0
    if len(text) > MAX_DIGITS or not (text.isascii() and text.isdigit()):
        raise ProtocolError(f"expected {name} to be a number, got {text[:80]!r}")
    return int(text)


def _readable(text: str) -> str:
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def encode_reply(action: str) -> bytes:
    """The one reply to a request, in bytes that Postfix can only read as `action` says.

    Control characters become spaces, the length is bounded, the result is UTF-8 (with smtputf8_enable Postfix treats
    anything else as a failed request).  A bare number is PERMIT to Postfix (access(5): all-numerical result), so one gets
    the text that makes it the reply code it was meant to be; an empty action, which Postfix logs as an error, is DUNNO.
    """
    text = " ".join("".join(c if c.isprintable() else " " for c in action).split())
    if text.isdigit():
        text = f"{text} Refused by policy"
    encoded = text.encode(errors="replace")[:MAX_REPLY].decode(errors="ignore").rstrip().encode()
    return b"action=%s\n\n" % (encoded or b"DUNNO")


DUNNO = encode_reply("DUNNO")
