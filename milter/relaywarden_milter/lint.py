"""lint - find what breaks a signature on the way, or has receivers refuse the mail.  Pure.

Looked for, each by its setting in `lint`: lines over `line_length` octets (Postfix' smtp client breaks them), a CR or LF
that stands alone (programs on the way disagree about what it is), 8-bit text that nothing announces, no Date or Message-ID
(a later hop adds it), and a second one of the headers that RFC 5322 section 3.6 and RFC 2045 allow once.  `repair` mends.

Headers are as `message` has them: a folded value with bare LF (or CRLF).  The body comes in chunks, cut anywhere, and is
looked at as it arrives: nothing of it is kept.  64 KiB of text take about a third of the time of their body hash.

Known limits: lines end at LF or CRLF, as they do for Postfix; a body whose lines end at CR alone is one long line as well.
Parts of a multipart message are not taken apart.  From is not counted here (`identity` does), a NUL is noted, not judged.
"""

from __future__ import annotations

import codecs
import io
import re
from dataclasses import dataclass
from typing import Literal

from relaywarden.config.settings import LintSettings, OnFault
from relaywarden_milter.headers import Header, field_name

Kind = Literal["long_lines", "bare_line_ends", "eight_bit", "missing_headers", "duplicate_headers"]  # as in LintSettings

# Allowed once, as they are shown to the client.
_ONCE_NAMES = (
    "Date Subject Message-ID To Cc Bcc Reply-To Sender In-Reply-To References"
    " MIME-Version Content-Type Content-Transfer-Encoding"
)
ONCE = {name.lower(): name for name in _ONCE_NAMES.split()}
NEEDED = ("Date", "Message-ID")
STRAY = re.compile(rb"\r(?!\n[ \t])|\n(?![ \t])")  # what in a header value is no fold
_FIRST_WORD = re.compile(rb"[ \t\r\n]*([^ \t\r\n;()]+)")
_CR = 13
_LONGEST_NAME = 60


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: its setting, and a sentence for the client."""

    kind: Kind
    text: str
    header: str = ""  # where: a header's name, or "" for the body


class BodyLint:
    """Feed it chunks, then read the properties."""

    __slots__ = ("_bare", "_decoder", "_ends_in_cr", "_limit", "_line", "_longest", "_utf8", "eight_bit", "nul")

    def __init__(self, line_length: int = 998) -> None:
        """`line_length`: octets up to which a line is not measured, only passed over."""
        self.eight_bit = False
        self.nul = False
        self._limit = line_length
        self._line = 0  # octets of the line that has not ended
        self._longest = 0
        self._bare = 0
        self._ends_in_cr = False
        self._utf8 = True
        self._decoder: codecs.IncrementalDecoder | None = None  # from the first 8-bit octet on

    @property
    def longest_line(self) -> int:
        """Octets of the longest line without its line end; 0 when none is over `line_length`."""
        longest = max(self._longest, self._line)
        return longest if longest > self._limit else 0

    @property
    def bare_line_ends(self) -> int:
        """How many CR and LF stand alone; a CR at the end of what came so far is one."""
        return self._bare + self._ends_in_cr

    @property
    def utf8(self) -> bool:
        """Is the body valid UTF-8, as far as it came, with no character cut at its end?"""
        return self._utf8 and (self._decoder is None or not self._decoder.getstate()[0])

    def update(self, chunk: bytes) -> None:
        """The next piece of the body."""
        if not chunk:
            return
        self._see_octets(chunk)
        self._measure(chunk)
        self._see_line_ends(chunk)

    def _see_octets(self, chunk: bytes) -> None:
        if not self.nul and b"\0" in chunk:
            self.nul = True
        if not self.eight_bit and not chunk.isascii():
            self.eight_bit = True
            self._decoder = codecs.getincrementaldecoder("utf-8")()
        if self._decoder is not None and self._utf8:
            try:
                self._decoder.decode(chunk)
            except UnicodeDecodeError:
                self._utf8 = False  # that is what was asked

    def _measure(self, chunk: bytes) -> None:
        """From line to line in strides of the limit: whatever ends within one is short enough."""
        first = chunk.find(b"\n")
        if first < 0:
            self._line += len(chunk)
            return
        before_cr = chunk[first - 1] == _CR if first else self._ends_in_cr
        longest, limit = max(self._longest, self._line + first - before_cr), self._limit
        start, size = first + 1, len(chunk)
        while size - start > limit:
            end = chunk.rfind(b"\n", start, start + limit + 1)
            if end < 0:
                end = chunk.find(b"\n", start + limit)
                if end < 0:
                    break
                longest = max(longest, end - start - (chunk[end - 1] == _CR))
            start = end + 1
        self._longest = longest
        self._line = size - 1 - chunk.rfind(b"\n", start - 1)

    def _see_line_ends(self, chunk: bytes) -> None:
        if self._ends_in_cr:
            if chunk.startswith(b"\n"):
                chunk = chunk[1:]
            else:
                self._bare += 1
        self._ends_in_cr = chunk.endswith(b"\r")
        if self._ends_in_cr:
            chunk = chunk[:-1]
        # The quickest way to see which line ends there are; how many is asked only when it matters.
        kinds = io.IncrementalNewlineDecoder(None, False)
        kinds.decode(chunk.decode("latin-1"), True)
        if kinds.newlines is not None and kinds.newlines != "\r\n":
            self._bare += chunk.count(b"\r") + chunk.count(b"\n") - 2 * chunk.count(b"\r\n")


def examine(headers: list[Header], body: BodyLint, declared_8bit: bool, settings: LintSettings) -> list[Finding]:
    """What is wrong, as far as `settings` does not ignore it; of long lines and bare line ends in headers the first one.

    `declared_8bit`: the client said BODY=8BITMIME (RFC 6152).
    """
    if _is_clean(headers, body, declared_8bit, settings.line_length):
        return []
    found = [*_long_lines(headers, body, settings.line_length), *_bare_line_ends(headers, body)]
    if body.eight_bit and not declared_8bit and transfer_encoding(headers) not in {b"8bit", b"binary"}:
        text = "the body has 8-bit text that neither BODY=8BITMIME nor Content-Transfer-Encoding announces"
        found.append(Finding("eight_bit", text))
    counts: dict[str, int] = {}
    filled: set[str] = set()
    for given, value in headers:
        name = field_name(given)
        if name in ONCE:
            counts[name] = counts.get(name, 0) + 1
            if value.strip():
                filled.add(name)
    found += [
        Finding("missing_headers", f"the header {name} is missing or empty", name)
        for name in NEEDED
        if name.lower() not in filled
    ]
    found += [
        Finding("duplicate_headers", f"the header {ONCE[name]} is there {count} times, once is allowed", ONCE[name])
        for name, count in counts.items()
        if count > 1
    ]
    return [finding for finding in found if getattr(settings, finding.kind) is not OnFault.IGNORE]


def _is_clean(headers: list[Header], body: BodyLint, declared_8bit: bool, limit: int) -> bool:
    """Is there nothing to look at more closely?  One quick pass, which is all that most messages need."""
    if body.longest_line > limit or body.bare_line_ends or (body.eight_bit and not declared_8bit):
        return False
    seen: set[str] = set()
    for given, value in headers:
        if len(given) + len(value) + 2 > limit or b"\r" in value or (b"\n" in value and STRAY.search(value)):
            return False
        name = field_name(given)
        if name in ONCE:
            if name in seen or not value.strip():
                return False
            seen.add(name)
    return "date" in seen and "message-id" in seen


def long_line(name: str, value: bytes, limit: int) -> tuple[int, int] | None:
    """The first line of a header that is over `limit` octets: its number, counted from 1, and its length."""
    if len(name) + len(value) + 2 <= limit:
        return None
    for number, line in enumerate(value.split(b"\n"), 1):
        length = len(line) - line.endswith(b"\r") + (len(name.encode("utf-8", "replace")) + 2 if number == 1 else 0)
        if length > limit:
            return number, length
    return None


def too_long(name: str, line: tuple[int, int], limit: int) -> str:
    """The sentence about a line that `long_line` found."""
    return f"line {line[0]} of header {_shown(name)} is {line[1]} octets long, at most {limit} are allowed"


def stray(name: str) -> str:
    """The sentence about a header that `has_stray` is true of."""
    return f"header {_shown(name)} contains a CR or LF that does not fold it"


def has_stray(value: bytes) -> bool:
    """Does a header value contain a CR or LF that does not fold it (RFC 5322 section 2.2.3)?"""
    return (b"\n" in value or b"\r" in value) and STRAY.search(value) is not None


def transfer_encoding(headers: list[Header]) -> bytes:
    """The first Content-Transfer-Encoding in lower case; empty when there is none (RFC 2045 section 6.1: it is 7bit)."""
    for name, value in headers:
        if field_name(name) == "content-transfer-encoding":
            word = _FIRST_WORD.match(value)
            return word[1].lower() if word is not None else b""
    return b""


def _long_lines(headers: list[Header], body: BodyLint, limit: int) -> list[Finding]:
    found: list[Finding] = []
    for name, value in headers:
        line = long_line(name, value, limit)
        if line is not None:
            found.append(Finding("long_lines", too_long(name, line, limit), _shown(name)))
            break
    if body.longest_line > limit:
        text = f"the body has a line of {body.longest_line} octets, at most {limit} are allowed"
        found.append(Finding("long_lines", text))
    return found


def _bare_line_ends(headers: list[Header], body: BodyLint) -> list[Finding]:
    found: list[Finding] = []
    strayed = next((name for name, value in headers if has_stray(value)), None)
    if strayed is not None:
        found.append(Finding("bare_line_ends", stray(strayed), _shown(strayed)))
    if body.bare_line_ends:
        text = f"the body has {body.bare_line_ends} CR or LF that stand alone, line ends must be CRLF"
        found.append(Finding("bare_line_ends", text))
    return found


def _shown(name: str) -> str:
    """A header name that fits into a reply."""
    return name.strip()[:_LONGEST_NAME] or "without name"
