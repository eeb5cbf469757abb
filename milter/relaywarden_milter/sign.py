"""sign - DKIM signatures (RFC 6376, RFC 8463): relaxed/relaxed, dkimpy's work on the header, OpenSSL's on the key.

dkimpy selects the header fields from the bottom up, hashes them, folds the result; what is ours:
- the private key operation, by `relaywarden.dkimkeys` (dkimpy's RSA is Python's pow: 13 ms instead of 0.25);
- keys parsed once, where dkimpy parses the PEM for each signature; t= from the caller's clock;
- the body hash, made while the body arrived (`bodyhash`), where dkimpy splits and copies the whole message several times;
- relaxed header canonicalization strips only space and tab (section 3.4.2), where dkimpy's strips form feeds too.

Signed: RFC 6376's list plus List-Unsubscribe-Post (RFC 8058 section 4 demands it), Feedback-ID and CFBL-* (RFC 9477), each as
often as it is there; From once more than it is there, so that nobody can add a second.  Never signed: trace and route headers.
Known limit: at most 50 fields of one name are covered, the last ones.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence

import dkim

from relaywarden.dkimkeys import SigningKey
from relaywarden_milter.bodyhash import BodyHash
from relaywarden_milter.message import Header

_FIELD_NAMES = (
    "from sender reply-to subject date message-id to cc mime-version content-type content-transfer-encoding content-id"
    " content-description resent-date resent-from resent-sender resent-to resent-cc resent-message-id in-reply-to references"
    " list-id list-help list-unsubscribe list-unsubscribe-post list-subscribe list-post list-owner list-archive"
    " feedback-id cfbl-address cfbl-feedback-id autocrypt"
)
FIELDS = frozenset(_FIELD_NAMES.split())
_MOST_OF_ONE_NAME = 50
_NAME = "DKIM-Signature"
_LINE = 76
_BLANKS = re.compile(rb"[ \t]{2,}|\t")
_Canonical = tuple[bytes, bytes]


class Signer:
    """Signs one message any number of times; the canonical header fields are made once."""

    def __init__(self, headers: Sequence[Header], body: BodyHash) -> None:
        self._fields: list[_Canonical] = []
        names: list[bytes] = []
        seen: dict[bytes, int] = {}
        for name, value in reversed(headers):
            folded = name.strip().lower()
            if folded not in FIELDS:
                continue
            key = folded.encode()
            seen[key] = seen.get(key, 0) + 1
            if seen[key] <= _MOST_OF_ONE_NAME:
                self._fields.append((key, relaxed(value)))
                names.append(key)
        self._fields.reverse()
        self._names = [*reversed(names), b"from"]
        self._body = base64.b64encode(body.digest())

    def sign(self, key: SigningKey, now: int) -> str:
        """The value of a DKIM-Signature header, folded by LF and a space as libmilter wants it."""
        tags = [
            (b"v", b"1"), (b"a", key.algorithm), (b"c", b"relaxed/relaxed"), (b"d", key.domain.encode()),
            (b"s", key.selector.encode()), (b"t", b"%d" % now), (b"h", b" : ".join(self._names)), (b"bh", self._body),
        ]  # fmt: skip
        unsigned = _folded(b"; ".join(b"%b=%b" % tag for tag in tags)) + b";\r\n b="
        sha256 = hashlib.sha256()
        dkim.hash_headers(sha256, _Relaxed, self._fields, self._names, (_NAME.encode(), b" " + unsigned), {})
        signature = base64.b64encode(key.sign(sha256.digest()))
        lines = [signature[at : at + 70] for at in range(0, len(signature), 70)]
        return (unsigned + b"\r\n ".join(lines)).replace(b"\r\n", b"\n").decode("ascii")


def relaxed(value: bytes) -> bytes:
    """RFC 6376 section 3.4.2: unfolded, runs of blanks as one space, none at the ends, CRLF."""
    if b"\n" in value:
        value = value.replace(b"\r\n", b"").replace(b"\n", b"")
    return _BLANKS.sub(b" ", value).strip(b" ") + b"\r\n"


def _folded(value: bytes) -> bytes:
    """Broken at blanks only: dkimpy's own fold cuts a long d= in two, and then it names no domain."""
    lines, line = [], b" " * len(_NAME)
    for word in value.split(b" "):
        if len(line) + len(word) >= _LINE and line.strip():
            lines.append(line)
            line = b""
        line += b" " + word
    return b"\r\n".join([*lines, line]).strip()


class _Relaxed:
    """dkimpy asks this to canonicalize the signature header itself."""

    @staticmethod
    def canonicalize_headers(headers: Sequence[_Canonical]) -> list[_Canonical]:
        return [(name.lower(), relaxed(value)) for name, value in headers]
