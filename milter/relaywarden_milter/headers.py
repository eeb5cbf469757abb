"""headers - a message's header fields as the milter protocol delivers them.  Pure.

Postfix hands over each header as a name and a value: the name without blanks before the colon, the value without the first
blank after it, a folded value with bare LF.  Rebuilding `Name: value` is therefore not exact to the octet, which relaxed
canonicalization does not see (milter-traps, 27).
"""

from __future__ import annotations

import re
from functools import lru_cache

Header = tuple[str, bytes]  # name as received, value with the exact octets received
_LINE_END = re.compile(rb"\r?\n|\r")
_UNFOLDED = re.compile(rb"\r\n(?![ \t])")


def wire_header(name: str, value: bytes) -> bytes:
    """A header as it goes over the wire; a line break in the value never ends the header or the header block."""
    if b"\n" in value or b"\r" in value:
        value = _UNFOLDED.sub(b"\r\n ", _LINE_END.sub(b"\r\n", value))
    return b"%s: %s\r\n" % (name.encode("utf-8", "replace"), value)


@lru_cache(maxsize=2048)
def field_name(name: str) -> str:
    """A header name for comparison: case does not count, nor do blanks before the colon.

    The same few names come with every message, and each stage asks; Postfix bounds their length (line_length_limit).
    """
    return name.strip().lower()


def values(headers: list[Header], name: str) -> list[bytes]:
    """All values of one header, in order; `name` in lower case."""
    return [value for given, value in headers if field_name(given) == name]
