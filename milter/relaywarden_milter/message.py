"""message - one message as the milter protocol delivers it.

Postfix hands over each header as a name and a value: the name without blanks before the colon, the value without the first
blank after it, a folded value with bare LF; the body in chunks of up to 64 KiB with CRLF line ends.  Rebuilding
`Name: value` is therefore not exact to the octet, which relaxed canonicalization does not see (milter-traps, 27).

The body is hashed as it arrives and kept only for a scan, so a message that is signed without being scanned takes a
constant amount of memory.  What is kept waits in a `Spool`: in memory up to a bound, in a temporary file beyond it; `close`
gives that file back.

How it fails: a message over its bounds is marked `too_large` and no longer stored.  When the file system does not take the
body (disk full), the message is marked `body_lost` and goes on: it can still be signed, by its hash, but not be scanned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from relaywarden_milter.bodyhash import BodyHash
from relaywarden_milter.headers import Header, wire_header
from relaywarden_milter.lint import BodyLint
from relaywarden_milter.spool import IN_MEMORY, Spool

MAX_HEADERS = 20_000  # a message of nothing but one-octet headers must not grow to a hundred times its size
_START, _END = 48 * 1024, 16 * 1024  # octets of the body that its content is judged by
_ONE_PIECE = 2**16  # a message up to this size is sent in one piece: a copy costs less than another packet


@dataclass(frozen=True, slots=True)
class Octets:
    """A message as it stands in RFC 5322: iterate over it as often as needed, as long as the message is not closed."""

    head: bytes  # the header block with its empty line; or all of it
    body: Spool
    lost: str = ""  # why the body is not whole, in words for the operator; do not send it then

    @property
    def size(self) -> int:
        """Octets of all pieces together."""
        return len(self.head) + self.body.size

    def __iter__(self) -> Iterator[bytes]:
        """The pieces; raises OSError when a temporary file cannot be read."""
        if self.size <= _ONE_PIECE:
            yield b"".join((self.head, *self.body))
        else:
            yield self.head
            yield from self.body


class Message:
    """Headers in the order received, and the body."""

    __slots__ = ("_bound", "_keep", "_spool", "body", "body_lost", "end", "headers", "lint", "size", "start", "too_large")

    def __init__(self, bound: int, *, keep_body: bool = True, in_memory: int = IN_MEMORY, line_length: int = 998) -> None:
        """`bound`: octets of the largest message; `in_memory`: octets of the body that are kept without a file."""
        self.headers: list[Header] = []
        self.body = BodyHash()
        self.lint = BodyLint(line_length)
        self.size = 2  # octets as SMTP counts them; the empty line between headers and body
        self.too_large = ""  # why, in words for the client
        self.body_lost = ""  # why, in words for the operator
        self.start = b""  # the first octets of the body, and the last: by them its content is judged
        self.end = b""
        self._bound = bound
        self._keep = keep_body
        self._spool = Spool(in_memory)

    def add_header(self, name: str, value: bytes) -> None:
        """The next header."""
        self.size += len(name) + len(value) + value.count(b"\n") + 4  # ": " and CRLF; the LF of a fold goes as CRLF
        if len(self.headers) >= MAX_HEADERS:
            self.too_large = f"more than {MAX_HEADERS} header fields"
        if (self.size <= self._bound and not self.too_large) or self._fits():
            self.headers.append((name, value))

    def add_body(self, chunk: bytes) -> None:
        """The next piece of the body; where it cannot be kept, `body_lost` says why."""
        self.size += len(chunk)
        if self._fits():
            self.body.update(chunk)
            self.lint.update(chunk)
            self._sample(chunk)
            if self._keep and not self.body_lost:
                try:
                    self._spool.write(chunk)
                except OSError as error:
                    self.body_lost = f"the body cannot be kept: {error.strerror or error}"
                    self._spool.close()

    @property
    def sample(self) -> bytes:
        """The body as far as it is kept for judging its content: all of a small one, beginning and end of a large one."""
        return self.start + self.end

    def _sample(self, chunk: bytes) -> None:
        room = _START - len(self.start)
        if room > 0:
            self.start += chunk[:room]
            chunk = chunk[room:]
        if chunk:
            self.end = (self.end + chunk[-_END:])[-_END:]

    def pieces(self, headers: list[Header] | None = None, body: Spool | None = None) -> Octets:
        """The message as it stands in RFC 5322, with `headers` and `body` in place of its own; see `Octets.lost`."""
        lines = [wire_header(name, value) for name, value in (self.headers if headers is None else headers)]
        head = b"".join([*lines, b"\r\n"])
        if body is not None:
            return Octets(head, body, self.too_large)
        lost = self.too_large or self.body_lost or ("" if self._keep else "the body was not kept")
        return Octets(head, self._spool, lost)

    def body_pieces(self) -> Spool:
        """The body as it arrived, as long as it is kept and neither `too_large` nor `body_lost`; reading raises OSError."""
        return self._spool

    def raw(self, headers: list[Header] | None = None) -> bytes:
        """`pieces` as one; a large message takes as much memory."""
        return b"".join(self.pieces(headers))

    def close(self) -> None:
        """Give back what the body takes, memory or file.  Headers and body hash stay."""
        if self._spool.size:
            self.body_lost = "the message is closed"
        self._spool.close()

    def _fits(self) -> bool:
        if self.size > self._bound and not self.too_large:
            self.too_large = f"more than {self._bound} octets"
        if self.too_large:
            self.headers.clear()
            self._spool.close()
        return not self.too_large
