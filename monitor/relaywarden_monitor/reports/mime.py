"""mime - a message as a tree of parts, in bounded time and memory, whatever the bytes are.

The parser of the standard library is not used: it raises on some inputs, is slow on others, and knows no bounds.  This one
looks at each octet a fixed number of times a level.  Attachments are never decompressed, nothing but text is decoded, and of
that only the beginning.

    LARGEST    octets of a message that are read; what comes after is as if it had been cut off
    DEEPEST    levels of multipart and message/*
    MOST_PARTS parts of a message, MOST_FIELDS header fields of a part, LONGEST_FIELD characters of one

How it fails: it does not.  What is no message is a part without fields whose body is all of it; a multipart without end ends
with its data; bad base64 is decoded as far as it goes; an unknown charset is read as UTF-8, else as Latin-1.

Known limits: RFC 2231 continuations of a boundary are not joined, BinHex and uuencode are not known.
"""

from __future__ import annotations

import binascii
import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.errors import HeaderParseError
from email.header import decode_header

LARGEST = 16 * 2**20
DEEPEST = 8
MOST_PARTS = 100
MOST_FIELDS = 1000
LONGEST_FIELD = 8192
LONGEST_TEXT = 256 * 1024
_LARGEST_HEAD = 256 * 1024
_LONGEST_WORDS = 2000
_PARAMETER = re.compile(r';\s*([\w-]+)\*?\s*=\s*("(?:[^"\\]|\\.)*"|[^;\s"]*)')
_NAME = re.compile(rb"[!-9;-~]{1,100}[ \t]*:")
_NO_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"))
# Codecs of Python that turn text of a mail into text; not those that unpack, escape or take quadratic time (punycode).
_CHARSETS = re.compile(
    r"utf-(?:8|16|16-le|16-be|7)|ascii|iso8859-\d+|cp(?:125\d|437|850|852|855|866|874|932|949|950)|koi8-[rut]|mac-\w+|"
    r"tis-620|shift_jis\w*|euc_(?:jp|kr|jis\w*)|iso2022_(?:jp|kr)\w*|gb2312|gbk|gb18030|hz|big5(?:hkscs)?|johab"
)


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its header fields (names in lower case, values unfolded), and its body, not decoded."""

    fields: Mapping[str, tuple[str, ...]]
    body: bytes
    type: str = "text/plain"
    parameters: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()

    def first(self, name: str) -> str:
        """The first field of this (lower-case) name, "" if there is none."""
        return next(iter(self.fields.get(name, ())), "")

    def walk(self, *, into_messages: bool = False) -> Iterator[Part]:
        """This part and those in it; those of an enclosed message only where wanted."""
        yield self
        if into_messages or not self.type.startswith("message/") or self.type == "message/delivery-status":
            for part in self.parts:
                yield from part.walk(into_messages=into_messages)

    def text(self) -> str:
        """The beginning of the body as text, with line ends as `\\n`."""
        return _decode(_transfer_decode(self.body, self.first("content-transfer-encoding")), self.parameters.get("charset", ""))


def parse(data: bytes) -> Part:
    """The message; never raises."""
    data = data[:LARGEST].translate(None, b"\0").replace(b"\r\n", b"\n")
    if b"\r" in data and b"\n" not in data[:_LARGEST_HEAD]:
        data = data.replace(b"\r", b"\n")  # written by a Macintosh of old
    return _parse(data, 0, _Budget())


def words(value: str) -> str:
    """A header value with its encoded words (RFC 2047) decoded."""
    if "=?" not in value:
        return value
    try:
        pieces = decode_header(value[:_LONGEST_WORDS])
    except (HeaderParseError, binascii.Error, ValueError, LookupError):
        return value  # not what RFC 2047 allows: the raw value is all there is
    return "".join(_decode(piece, charset or "") if isinstance(piece, bytes) else piece for piece, charset in pieces)


def split_head(data: bytes) -> tuple[list[tuple[str, str]], bytes]:
    """Header fields (name as written, value with its folds as `\\n`) and what follows the empty line."""
    found: list[tuple[str, list[str]]] = []
    room, position = 0, 0
    while position < len(data):
        end = data.find(b"\n", position)
        end = len(data) if end < 0 else end
        if end == position:
            position += 1
            break
        line = data[position : min(end, position + LONGEST_FIELD)]
        if line[:1] in b" \t":
            room -= len(line)
            if found and room > 0:
                found[-1][1].append(_plain(line))
        elif _NAME.match(line):
            if len(found) == MOST_FIELDS:
                break
            name, _, value = line.partition(b":")
            room = LONGEST_FIELD - len(value)
            found.append((name.strip().decode("ascii"), [_plain(value)]))
        elif not line.startswith((b"From ", b">From ")):
            break  # the empty line was lost: the body begins here
        position = end + 1
        if position > _LARGEST_HEAD:
            break
    return [(name, "\n".join(lines).strip()) for name, lines in found], data[position:]


def index(fields: list[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """By lower-case name, values unfolded."""
    found: dict[str, tuple[str, ...]] = {}
    for name, value in fields:
        key = name.lower()
        if len(found.get(key, ())) < MOST_PARTS:
            found[key] = (*found.get(key, ()), re.sub(r"\n[ \t]*", " ", value))
    return found


@dataclass(slots=True)
class _Budget:
    parts: int = MOST_PARTS


def _parse(data: bytes, depth: int, budget: _Budget) -> Part:
    budget.parts -= 1
    head, body = split_head(data)
    fields = index(head)
    type_, parameters = _content_type(fields.get("content-type", ("",))[0])
    parts: tuple[Part, ...] = ()
    if depth < DEEPEST and budget.parts > 0:
        if type_.startswith("multipart/"):
            parts = _multipart(body, parameters.get("boundary", ""), depth, budget)
        elif type_ in {"message/rfc822", "message/global", "message/partial"}:
            inner = body
            if fields.get("content-transfer-encoding", ("",))[0].lower().strip() in {"base64", "quoted-printable"}:
                inner = _transfer_decode(body, fields["content-transfer-encoding"][0]).replace(b"\r\n", b"\n")
            parts = (_parse(inner.lstrip(b"\n"), depth + 1, budget),)
    return Part(fields, body, type_, parameters, parts)


def _multipart(body: bytes, boundary: str, depth: int, budget: _Budget) -> tuple[Part, ...]:
    line = b"\n--" + boundary.encode("utf-8", "replace")
    body = b"\n" + body
    if not boundary:  # lost on the way: the first line that looks like one
        found = re.search(rb"\n--[^\s]{1,200}", body[:_LARGEST_HEAD])
        if not found:
            return ()
        line = found.group()
    parts: list[Part] = []
    start = _delimiter(body, line, 0)
    while start >= 0 and budget.parts > 0:
        content = body.find(b"\n", start + 1)
        if content < 0 or body.startswith(b"--", start + len(line)):
            break
        end = _delimiter(body, line, content)
        parts.append(_parse(body[content + 1 : end if end >= 0 else len(body)], depth + 1, budget))
        start = end
    return tuple(parts)


def _delimiter(body: bytes, line: bytes, start: int) -> int:
    """Where the next delimiter line begins, -1: nowhere.  A longer boundary that begins like ours is another's."""
    found = body.find(line, start)
    while found >= 0:
        after = body[found + len(line) : found + len(line) + 2]
        if after == b"--" or after[:1] in {b"", b"\n", b" ", b"\t"}:
            return found
        found = body.find(line, found + len(line))
    return -1


def _content_type(value: str) -> tuple[str, dict[str, str]]:
    value = value[:1000]
    type_ = value.partition(";")[0].strip().lower()
    if "/" not in type_:
        type_ = "text/plain"
    parameters: dict[str, str] = {}
    for name, text in _PARAMETER.findall(value):
        parameters.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text)
    return type_, parameters


def _transfer_decode(body: bytes, encoding: str) -> bytes:
    name = encoding.strip().lower()
    body = body[: 2 * LONGEST_TEXT]
    if name == "base64":
        body = body.translate(None, _NO_BASE64)
        body = body[: len(body) - (len(body) % 4 == 1)]
        return binascii.a2b_base64(body + b"=" * (-len(body) % 4))
    return binascii.a2b_qp(body) if name == "quoted-printable" else body


def _decode(data: bytes, charset: str) -> str:
    data = data[:LONGEST_TEXT]
    try:
        codec = codecs.lookup(charset.strip("'\" ")[:40] or "utf-8").name
    except (LookupError, ValueError, UnicodeError):
        codec = ""  # as hostile as the rest of the message
    if not _CHARSETS.fullmatch(codec) or codec in {"ascii", "utf-8"}:
        return _plain(data).replace("\r\n", "\n")
    return data.decode(codec, "replace").replace("\r\n", "\n")


def _plain(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        if b"\x1b$" in data:  # ISO-2022-JP says what it is
            return data.decode("iso2022_jp", "replace")
        return data.decode("latin-1")
