"""message - one message as the milter protocol delivers it.  Pure.

Postfix hands over each header as a name and a value: the name without blanks before the colon, the value without the first
blank after it, a folded value with bare LF; the body in chunks of up to 64 KiB with CRLF line ends.  Rebuilding
`Name: value` is therefore not exact to the octet, which relaxed canonicalization does not see (milter-traps, 27).

The body is hashed as it arrives and kept only for a scan, so a message that is signed without being scanned takes a
constant amount of memory.  A message over its bounds is marked `too_large` and no longer stored.
"""

from __future__ import annotations

import re

from relaywarden_milter.bodyhash import BodyHash

Header = tuple[str, bytes]  # name as received, value with the exact octets received

MAX_HEADERS = 20_000  # a message of nothing but one-octet headers must not grow to a hundred times its size
_LINE_END = re.compile(rb"\r?\n|\r")
_UNFOLDED = re.compile(rb"\r\n(?![ \t])")


class Message:
    """Headers in the order received, and the body."""

    __slots__ = ("_bound", "_chunks", "_keep", "body", "headers", "size", "too_large")

    def __init__(self, bound: int, *, keep_body: bool = True) -> None:
        self.headers: list[Header] = []
        self.body = BodyHash()
        self.size = 2  # octets as SMTP counts them; the empty line between headers and body
        self.too_large = ""  # why, in words for the client
        self._bound = bound
        self._keep = keep_body
        self._chunks: list[bytes] = []

    def add_header(self, name: str, value: bytes) -> None:
        """The next header."""
        self.size += len(name) + len(value) + value.count(b"\n") + 4  # ": " and CRLF; the LF of a fold goes as CRLF
        if len(self.headers) >= MAX_HEADERS:
            self.too_large = f"more than {MAX_HEADERS} header fields"
        if self._fits():
            self.headers.append((name, value))

    def add_body(self, chunk: bytes) -> None:
        """The next piece of the body."""
        self.size += len(chunk)
        if self._fits():
            self.body.update(chunk)
            if self._keep:
                self._chunks.append(chunk)

    def raw(self, headers: list[Header] | None = None) -> bytes:
        """The message as it stands in RFC 5322, with `headers` in place of its own; needs `keep_body`."""
        lines = [wire_header(name, value) for name, value in (self.headers if headers is None else headers)]
        return b"".join([*lines, b"\r\n", *self._chunks])

    def _fits(self) -> bool:
        if self.size > self._bound and not self.too_large:
            self.too_large = f"more than {self._bound} octets"
        if self.too_large:
            self.headers.clear()
            self._chunks.clear()
        return not self.too_large


def wire_header(name: str, value: bytes) -> bytes:
    """A header as it goes over the wire; a line break in the value never ends the header or the header block."""
    if b"\n" in value or b"\r" in value:
        value = _UNFOLDED.sub(b"\r\n ", _LINE_END.sub(b"\r\n", value))
    return b"%s: %s\r\n" % (name.encode("utf-8", "replace"), value)


def field_name(name: str) -> str:
    """A header name for comparison: case does not count, nor do blanks before the colon."""
    return name.strip().lower()


def values(headers: list[Header], name: str) -> list[bytes]:
    """All values of one header, in order; `name` in lower case."""
    return [value for given, value in headers if field_name(given) == name]
