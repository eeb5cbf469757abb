"""text - the visible text and the outline of a message, read from a bounded part of it.  Pure.

Wire format: MIME (RFC 2045, 2046): text/plain and text/html, alone or in multiparts within each other; base64,
quoted-printable or as they are; header words of RFC 2047.  Where a message has HTML, that is what is read; its plain
alternative says the same in other words.  Nothing is parsed as HTML: tags are cut out where they stand.

Cheap by what it leaves out: parts are sought in the first 256 KiB; of each text the first 12 KiB from its <body> and the last
4 KiB are read.  All is done on octets; only the words are decoded, at the end.

How it fails: it never raises.  What cannot be decoded is skipped or replaced, a part without its boundary ends where the
message ends, an unknown charset is read as UTF-8 and then as Latin-1.  No expression scans further than the next `<`, `=` or
line end, so that no input takes more than linear time.

Known limits: text in pictures, in attachments and behind the windows is not seen; UTF-16 is read as noise; text hidden by CSS
counts as visible.
"""

from __future__ import annotations

import binascii
import html
import quopri
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

Headers = Sequence[tuple[str, bytes | str]]

_SEARCHED = 256 * 1024
_HEAD, _TAIL = 12 * 1024, 4 * 1024
_DEEPEST, _MOST_PARTS = 6, 40
_LONGEST_VALUE = 2_000
_BASE64_HEAD, _BASE64_TAIL = 20 * 1024, 6 * 1024  # encoded; a little more than the windows
_BOUNDARY = re.compile(r'boundary\s*=\s*(?:"([^"]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE)
_CHARSET = re.compile(r'charset\s*=\s*"?([A-Za-z0-9_:.-]{1,40})', re.IGNORECASE)
# Others are never decoded: `idna` is slow, `unicode_escape` warns, `utf-7` hides text.
_DECODABLE = re.compile(r"(iso|windows|cp|koi8|gb|big5|euc|shift|mac|latin)[-_a-z0-9]*", re.IGNORECASE)
_ENCODED_WORD = re.compile(r"=\?([A-Za-z0-9_.:-]{1,40})(?:\*[^?\s]{0,20})?\?([bBqQ])\?([^?\s]{0,400})\?=")
_BETWEEN_WORDS = re.compile(r"\?=[ \t\r\n]{1,10}=\?")
_FIELD = re.compile(rb"^([!-9;-~]{1,80}):[ \t]*([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)", re.MULTILINE)
_BETWEEN_TAGS = re.compile(rb">[ \t\r\n]*([^<\s][^<]*)")
_SIGNS = re.compile(rb"\xe2[\x80-\xbf].|\xc2[\x80-\xbf]|\xf0\x9f..|\xe3\x80.", re.DOTALL)
_IMAGE = re.compile(rb"<img\b[^<>]*>")
_HOST = re.compile(rb"href\s{0,5}=[\s\"']{0,5}https?://([^\s\"'/>?#:]{1,253})")
_PLAIN_HOST = re.compile(rb"https?://([^\s\"'/>?#:]{1,253})")
_ENTITY = re.compile(rb"&#?[0-9A-Za-z]{1,10};")
_UTF8 = {"utf-8", "utf8", "us-ascii"}
_ONE_PIXEL = re.compile(rb"(?:width|height)\s{0,3}[=:]\s{0,3}[\"']?[01](?:px)?[\"';\s/>]")


@dataclass(frozen=True, slots=True)
class Look:
    """What a message shows."""

    visible: bytes  # text without tags, UTF-8, case kept, one blank between words
    letters: bytes  # the same without dashes, quotes, currencies, emoji, no-break blanks, and the stops of Chinese and Japanese
    is_html: bool
    hosts: tuple[bytes, ...]  # of each link, lower case, in order
    images: int
    pixels: int  # images of one pixel or none
    attachments: tuple[str, ...]  # media types, lower case


@dataclass(slots=True)
class _Found:
    """The first text of either kind, and what hangs beside them."""

    plain: tuple[bytes, str, str] | None = None  # content, transfer encoding, charset
    html: tuple[bytes, str, str] | None = None
    attachments: tuple[str, ...] = ()
    parts: int = 0


def look(headers: Headers, body: bytes) -> Look:
    """What a message shows; `headers` as they came, `body` all octets behind the empty line."""
    found = _Found()
    kept = {name.strip().lower(): _text(value) for name, value in headers if name[:8].lower() == "content-"}
    _walk(kept, bytes(body[:_SEARCHED]), found, 0)
    content, encoding, charset = found.html or found.plain or (b"", "", "")
    window = _window(content, encoding, is_html=found.html is not None)
    if found.html is None:
        hosts = tuple(host.lower() for host in _PLAIN_HOST.findall(window))
        return _look(_utf8(window, charset), False, hosts, 0, 0, found.attachments)
    small = window.lower()
    images = _IMAGE.findall(small)
    pixels = sum(1 for image in images if len(_ONE_PIXEL.findall(image)) >= 2)
    return _look(_visible(window, charset), True, tuple(_HOST.findall(small)), len(images), pixels, found.attachments)


def split(message: bytes) -> tuple[list[tuple[str, bytes]], bytes]:
    """A whole message as header fields and body, as the milter has them; the fields unfolded, the first 256 KiB of them."""
    head, _, body = _cut(message)
    if head[:5] == b"From ":  # of a mailbox file
        head = head.partition(b"\n")[2]
    return [(name.decode("ascii"), value) for name, value in _FIELD.findall(head[:_SEARCHED])], body


def header_text(value: bytes | str) -> str:
    """A header value with its encoded words (RFC 2047) decoded, on one line, cut at 2000 characters."""
    text = _text(value)
    if "=?" in text:
        text = _ENCODED_WORD.sub(_word, _BETWEEN_WORDS.sub("?==?", text))
    return " ".join(text.split())


def decode(octets: bytes, charset: str) -> str:
    """Text of a message's charset; what does not decode is read as Latin-1."""
    if _DECODABLE.fullmatch(charset):
        try:
            return octets.decode(charset, "replace")
        except (LookupError, UnicodeError):  # not a charset of Python
            pass
    try:
        return octets.decode()
    except UnicodeDecodeError:
        # A window may begin or end within a character; more than that is not UTF-8.
        whole = octets.decode(errors="ignore")
        return whole if len(whole.encode()) >= len(octets) - 16 else octets.decode("latin-1")


def _text(value: bytes | str) -> str:
    value = value[:_LONGEST_VALUE]
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _cut(octets: bytes) -> tuple[bytes, bytes, bytes]:
    """Header block, the empty line, and the rest; whichever line end comes first."""
    if octets[:1] == b"\n" or octets[:2] == b"\r\n":
        return b"", b"", octets.partition(b"\n")[2]
    ends = [(at, end) for end in (b"\r\n\r\n", b"\n\n") if (at := octets.find(end)) >= 0]
    if not ends:
        return octets, b"", b""
    at, end = min(ends)
    return octets[:at], end, octets[at + len(end) :]


def _walk(headers: dict[str, str], body: bytes, found: _Found, depth: int) -> None:
    found.parts += 1
    if depth > _DEEPEST or found.parts > _MOST_PARTS:
        return
    kind = headers.get("content-type", "text/plain")
    media = kind.partition(";")[0].strip().lower()
    if media.startswith("multipart/"):
        for fields, part in _parts(kind, body):
            _walk(fields, part, found, depth + 1)
        return
    if headers.get("content-disposition", "").lstrip()[:10].lower() == "attachment" or not media.startswith("text/"):
        found.attachments += (media,)
        return
    charset = match[1] if (match := _CHARSET.search(kind)) else ""
    text = (body, headers.get("content-transfer-encoding", "").strip().lower(), charset)
    if media == "text/html":
        found.html = found.html or text
    elif media == "text/plain":
        found.plain = found.plain or text
    else:
        found.attachments += (media,)


def _parts(kind: str, body: bytes) -> Iterator[tuple[dict[str, str], bytes]]:
    match = _BOUNDARY.search(kind)
    if match is None:
        return
    boundary = b"--" + (match[1] or match[2]).rstrip().encode("utf-8", "replace")
    for piece in body.split(boundary, _MOST_PARTS)[1:]:
        if piece[:2] == b"--":
            return
        head, _, rest = _cut(piece.partition(b"\n")[2])
        fields = _FIELD.findall(head[:8192])
        yield {name.decode("ascii").lower(): _text(value) for name, value in fields}, rest


def _window(content: bytes, encoding: str, *, is_html: bool) -> bytes:
    """The first 12 KiB of the text, from its <body>, and its last 4 KiB, decoded from their transfer encoding."""
    if encoding == "base64":
        content = _base64_ends(content)
    if is_html:
        start = content.find(b"<body")
        content = content[max(start, content.find(b"<BODY"), content.rfind(b"</head>"), 0) :]
    ends = 3 if encoding == "quoted-printable" else 0
    if len(content) > _HEAD + _TAIL:
        # Cut at a line end, so that no encoded character and, mostly, no word is torn.
        head, tail = content[:_HEAD], content[-_TAIL:]
        head = head[: head.rfind(b"\n", _HEAD - 1000) + 1 or _HEAD - ends]
        content = head + b"\n" + tail[tail.find(b"\n", 0, 1000) + 1 :]
    if encoding == "quoted-printable" and b"=" in content:
        content = quopri.decodestring(content)
    return content


def _base64_ends(octets: bytes) -> bytes:
    """Both ends of base64; all of it where the <body> begins late."""
    if len(octets) > _BASE64_HEAD + _BASE64_TAIL:
        head = _base64(octets[: octets.find(b"\n", _BASE64_HEAD) + 1 or _BASE64_HEAD])
        if b"<body" in head[: len(head) - _HEAD]:
            tail = octets[-_BASE64_TAIL:]
            return head + _base64(tail[tail.find(b"\n") + 1 :])
    return _base64(octets)


def _base64(octets: bytes) -> bytes:
    for surplus in range(4):
        try:
            return binascii.a2b_base64(octets[: len(octets) - surplus])
        except binascii.Error:  # cut, or not padded
            continue
    return b""


def _look(text: bytes, is_html: bool, hosts: tuple[bytes, ...], images: int, pixels: int, attachments: tuple[str, ...]) -> Look:
    visible = b" ".join(text.split())
    letters = visible if visible.isascii() else _SIGNS.sub(b" ", visible)
    return Look(visible, letters, is_html, hosts, images, pixels, attachments)


def _utf8(octets: bytes, charset: str) -> bytes:
    return octets if octets.isascii() or charset.lower() in _UTF8 else decode(octets, charset).encode("utf-8", "replace")


def _visible(window: bytes, charset: str) -> bytes:
    """HTML without comments, styles, scripts and tags."""
    for start, end in ((b"<!--", b"-->"), (b"<style", b"</style>"), (b"<STYLE", b"</STYLE>"), (b"<script", b"</script>")):
        if start in window:
            first, *others = window.split(start)
            window = b" ".join([first, *(rest.partition(end)[2] for rest in others)])
    text = _utf8(b" ".join(_BETWEEN_TAGS.findall(b">" + window)), charset)
    if b"&" not in text:
        return text
    for filler in (b"&nbsp;", b"&zwnj;", b"&#847;", b"&shy;", b"&#8199;"):
        text = text.replace(filler, b" ")
    return _ENTITY.sub(_entity, text) if b"&" in text else text


def _entity(match: re.Match[bytes]) -> bytes:
    return _character(match[0])


@lru_cache(maxsize=512)
def _character(entity: bytes) -> bytes:
    return html.unescape(entity.decode("ascii")).encode("utf-8", "replace")


def _word(match: re.Match[str]) -> str:
    charset, encoding, text = match.groups()
    octets = text.encode("ascii", "replace")
    octets = _base64(octets) if encoding in "bB" else quopri.decodestring(octets, header=True)
    return decode(octets, charset)
