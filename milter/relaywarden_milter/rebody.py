"""rebody - write a body again, chunk by chunk, as a `BodyPlan` of `repair` says.  Pure.

It takes a few kilobytes of memory whatever the length of the lines, and gives the same result however the chunks are cut.
Quoted-printable is RFC 2045 section 6.7: lines of at most 76 octets, line ends kept, blanks at line ends encoded.  Elsewhere a
line that is too long gets a CRLF before the last blank that fits, else with a space at the limit, as Postfix' smtp client would
do it after the signature; never within a character of UTF-8.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

_ASCII = bytes(range(128))
_CRLF = b"\r\n"
_QUOTED_LINE = 76  # RFC 2045 section 6.7, rule 5
_PIECE = 8192
_TIGHT = 24  # octets that may be more than 72 when encoded
_Cutter = Callable[[bytes, int, int], tuple[int, bytes, int]]


class How(Enum):
    """What happens to the lines of a body."""

    KEEP = "keep"
    BREAK = "break"  # a CRLF is inserted
    QUOTED = "quoted"  # encoded as quoted-printable
    SOFT = "soft"  # it is quoted-printable: soft line breaks, 8-bit octets as =XX


@dataclass(frozen=True, slots=True)
class BodyPlan:
    """What must be done to the body, and the header changes that go with it."""

    how: How = How.KEEP
    mend_ends: bool = False  # a CR or LF that stands alone becomes CRLF
    line_length: int = 998  # of BREAK
    glue: bytes = b"\r\n "  # of BREAK, where there is no blank
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def changes_body(self) -> bool:
        """False: only headers change."""
        return self.mend_ends or self.how is not How.KEEP


def body(chunks: Iterable[bytes], plan: BodyPlan) -> Iterator[bytes]:
    """The body as it must be sent, in pieces."""
    if plan.mend_ends:
        chunks = _with_crlf(chunks)
    if plan.how is How.QUOTED:
        return _quoted(chunks)
    if plan.how is How.SOFT:
        return _wrapped(map(_escaped, chunks), _QUOTED_LINE, _soft_cut)
    if plan.how is How.BREAK:
        return _wrapped(chunks, plan.line_length, _hard_cutter(plan.glue))
    return iter(chunks)


def _with_crlf(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Every CRLF, CR and LF as CRLF."""
    held = b""
    for chunk in chunks:
        data = held + chunk
        held = b"\r" if data.endswith(b"\r") else b""
        data = data[: len(data) - len(held)]
        yield data.replace(_CRLF, b"\n").replace(b"\r", b"\n").replace(b"\n", _CRLF)
    if held:
        yield _CRLF


def _quoted(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Quoted-printable; CRLF stays, all other CR and LF are encoded.  Long lines are cut into pieces at fixed places."""
    held = b""
    for chunk in chunks:
        *lines, held = (held + chunk).split(_CRLF)
        out = _quoted_lines(lines)
        at = 0
        while len(held) - at > _PIECE + 1:  # one more octet may be the CR of its CRLF
            out.append(_quoted_piece(held[at : at + _PIECE]))
            at += _PIECE
        held = held[at:]
        if out:
            yield b"".join(out)
    yield b"".join(_quoted_pieces(held))


def _quoted_lines(lines: list[bytes]) -> list[bytes]:
    """As many as possible at once; not those that binascii's text mode encodes wrongly, or to more than 76 octets."""
    single = [
        place
        for place, line in enumerate(lines)
        if line and ((len(line) >= _TIGHT and (line[-1] in b" \t" or len(line) > _PIECE)) or b"\n" in line or b"\r" in line)
    ]
    out: list[bytes] = []
    start = 0
    for place in single:
        out += (_quoted_text(lines[start:place]), *_quoted_pieces(lines[place]), _CRLF)
        start = place + 1
    out.append(_quoted_text(lines[start:]))
    return out


def _quoted_text(lines: list[bytes]) -> bytes:
    return binascii.b2a_qp(_CRLF.join((*lines, b"")), istext=True)


def _quoted_pieces(line: bytes) -> list[bytes]:
    """A whole line, without its line end."""
    pieces = []
    at = 0
    while len(line) - at > _PIECE:
        pieces.append(_quoted_piece(line[at : at + _PIECE]))
        at += _PIECE
    *before, last = line[at:].split(b"\n")
    pieces += [_quoted_piece(part) + b"=0A=\r\n" for part in before]
    return [*pieces, binascii.b2a_qp(last, istext=False).replace(b"=\n", b"=\r\n")]


def _quoted_piece(data: bytes) -> bytes:
    """Octets within a line, with a soft line break behind them: the added octet keeps the place that its `=` needs.

    An LF is encoded on a line of its own, because binascii makes the line before it too long.
    """
    if b"\n" in data:
        return b"=0A=\r\n".join(_quoted_piece(part) for part in data.split(b"\n"))
    encoded = binascii.b2a_qp(data + b"x", istext=False)[:-1]
    return (encoded if encoded.endswith(b"=\n") else encoded + b"=\n").replace(b"=\n", b"=\r\n")


def _wrapped(chunks: Iterable[bytes], limit: int, cut: _Cutter) -> Iterator[bytes]:
    """Lines of at most `limit` octets; `cut` says where one that is longer is broken, and by what."""
    held, used = b"", 0
    for chunk in chunks:
        out, held, used = _wrap(held + chunk, used, limit, cut)
        if out:
            yield out
    out, held, used = _wrap(held, used, limit, cut, final=True)
    yield out + held


def _wrap(data: bytes, used: int, limit: int, cut: _Cutter, *, final: bool = False) -> tuple[bytes, bytes, int]:
    """What is decided, what is held back, and the octets that `cut` put before the latter in its line."""
    out: list[bytes] = []
    start = done = 0
    while True:
        room = limit - used
        end = data.rfind(b"\n", start, start + room + 1)
        if end < 0 and data.startswith(_CRLF, start + room):
            end = start + room + 1
        if end >= 0:
            start, used = end + 1, 0
        elif len(data) - start <= room + (not final):  # the next octet may be the LF after a CR
            return b"".join([*out, data[done:start]]), data[start:], used
        else:
            start, glue, used = cut(data, start, start + room)
            out += (data[done:start], glue)
            done = start


def _hard_cutter(glue: bytes) -> _Cutter:
    def cut(data: bytes, start: int, end: int) -> tuple[int, bytes, int]:
        at = max(data.rfind(b" ", start + 1, end + 1), data.rfind(b"\t", start + 1, end + 1))
        if at >= 0:
            return at, _CRLF, 0
        for at in range(end, end - 4, -1):  # not within a character of UTF-8
            if data[at] & 0xC0 != 0x80:
                return at, glue, len(glue) - 2
        return end, glue, len(glue) - 2

    return cut


def _soft_cut(data: bytes, _start: int, end: int) -> tuple[int, bytes, int]:
    """Before the limit, and not within =XX."""
    for at in range(end - 1, end - 4, -1):
        if b"=" not in data[at - 2 : at]:
            return at, b"=\r\n", 0
    return end - 1, b"=\r\n", 0


def _escaped(chunk: bytes) -> bytes:
    """8-bit octets as quoted-printable has them."""
    for octet in set(chunk.translate(None, _ASCII)):
        chunk = chunk.replace(bytes((octet,)), b"=%02X" % octet)
    return chunk
