"""bodyhash - the DKIM body hash (relaxed, SHA-256) of a body that arrives in pieces.  Pure.

RFC 6376 section 3.4.4: blanks at line ends go, runs of blanks become one space, empty lines at the end go, and a body that
is not empty ends with exactly one CRLF.  dkimpy does this on the whole body with three regular expressions over several
copies (0.1 ms for 3 KB, 5 ms for 100 KB); here it is done per chunk by translate and replace, and nothing is kept.
A test compares both on generated bodies and cuts.

What cannot be decided yet is held back: a blank or CR at the end of a chunk, and a count of line ends.
"""

from __future__ import annotations

import hashlib

_TABS = bytes.maketrans(b"\t", b" ")
_BLANK_LINES = 8192


class BodyHash:
    """Feed it chunks, then take `digest`."""

    __slots__ = ("_any", "_held", "_line_ends", "_sha256")

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._held = b""  # "", " ", "\r" or " \r" at the end of what came so far
        self._line_ends = 0  # CRLFs seen since the last other octet: the body's end, or not
        self._any = False

    def update(self, chunk: bytes) -> None:
        """The next piece of the body."""
        data = self._held + chunk if self._held else chunk
        if b"\t" in data:
            data = data.translate(_TABS)
        while b"  " in data:
            data = data.replace(b"  ", b" ")
        data = data.replace(b" \r\n", b"\r\n")
        end = len(data)
        if data.endswith(b"\r"):
            end -= 1
        if data.endswith(b" ", 0, end):
            end -= 1
        self._held = data[end:]
        line_ends = _trailing_line_ends(data, end)
        content = data[: end - 2 * line_ends]
        if content:
            self._flush_line_ends()
            self._sha256.update(content)
            self._any = True
        self._line_ends += line_ends

    def digest(self) -> bytes:
        """The hash of the body so far, as if it ended here."""
        final = self._sha256.copy()
        held = self._held.replace(b" ", b"") if self._held == b" " else self._held
        if held:  # the body ended within a line, after a CR
            final.update(b"\r\n" * self._line_ends + held)
        if held or self._any:
            final.update(b"\r\n")
        return final.digest()

    def _flush_line_ends(self) -> None:
        while self._line_ends:
            run = min(self._line_ends, _BLANK_LINES)
            self._sha256.update(b"\r\n" * run)
            self._line_ends -= run


def _trailing_line_ends(data: bytes, end: int) -> int:
    """How many CRLFs stand before `end`."""
    start = len(data[:end].rstrip(b"\r\n"))
    tail = data[start:end]
    if 2 * tail.count(b"\r\n") == len(tail):
        return len(tail) // 2
    count = 0
    while data.endswith(b"\r\n", start, end - 2 * count):
        count += 1
    return count
