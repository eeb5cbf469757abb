"""sign - DKIM signatures (RFC 6376, RFC 8463): relaxed/relaxed, dkimpy's choice of header fields, OpenSSL's work on the key.

What is ours, and why:
- the private key operation, by `relaywarden.dkimkeys` (dkimpy's RSA is Python's pow: 13 ms instead of 0.25);
- keys parsed once, where dkimpy parses the PEM for each signature; t=, x= and i= as configured, which dkimpy does not offer;
- the body hash, made while the body arrived (`bodyhash`), where dkimpy splits and copies the whole message several times;
- the header fields are canonicalized and hashed once a message, not once a signature: only the signature field itself differs;
- relaxed header canonicalization strips only space and tab (section 3.4.2), where dkimpy's strips form feeds too.

Signed: RFC 6376's list plus List-Unsubscribe-Post (RFC 8058 section 4 demands it), Feedback-ID and CFBL-* (RFC 9477), and what
`signing.headers` adds, each as often as it is there.  Oversigned (named once more than it is there, so that nobody can add
another one: section 8.15): From always; with `safe` also To, Cc, Subject and Reply-To, and of the other singletons those that
are there.  A Date or Message-ID that is missing is never oversigned, because a later hop may rightly add it.  Never signed:
trace and route headers.  Known limit: at most 50 fields of one name are covered, the last ones.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache

import dkim

from relaywarden.config.settings import SigningSettings
from relaywarden.dkimkeys import SigningKey
from relaywarden_milter.headers import Header, field_name

_FIELD_NAMES = (
    "from sender reply-to subject date message-id to cc mime-version content-type content-transfer-encoding content-id"
    " content-description resent-date resent-from resent-sender resent-to resent-cc resent-message-id in-reply-to references"
    " list-id list-help list-unsubscribe list-unsubscribe-post list-subscribe list-post list-owner list-archive"
    " feedback-id cfbl-address cfbl-feedback-id autocrypt"
)
FIELDS = frozenset(_FIELD_NAMES.split())
_OVERSIGNED = ("from", "to", "cc", "subject", "reply-to")
_SINGLETONS = (
    "sender date message-id mime-version content-type content-transfer-encoding in-reply-to references list-unsubscribe"
    " list-unsubscribe-post feedback-id cfbl-address cfbl-feedback-id"
)
_OVERSIGNED_IF_THERE = frozenset(_SINGLETONS.split())
_MOST_OF_ONE_NAME = 50
_NAME = b"DKIM-Signature"
_LINE = 76
_USUAL_LENGTH = 1_000  # octets of h=
_BLANKS = re.compile(rb"[ \t]{2,}|\t")
_UNFIT = re.compile(r"[^A-Za-z0-9.-]+")
_Canonical = tuple[bytes, bytes]


class Style:
    """How the signatures of one configuration look."""

    def __init__(self, settings: SigningSettings) -> None:
        self.fields = {name: name.encode() for name in FIELDS | {name.lower() for name in settings.headers}}
        self.expire_seconds = (settings.expire + 999) // 1000 if settings.expire else 0
        self.timestamp = settings.timestamp
        safe = settings.oversign == "safe"
        oversigned = _OVERSIGNED if safe else _OVERSIGNED[:1] if settings.oversign == "from" else ()
        self.oversigned = [(name, name.encode()) for name in oversigned]
        self.oversigned_if_there = _OVERSIGNED_IF_THERE if safe else frozenset[str]()


class Signer:
    """Signs one message any number of times; its header fields are canonicalized and hashed once."""

    def __init__(self, headers: Sequence[Header], body_digest: bytes, style: Style) -> None:
        """`body_digest`: SHA-256 of the relaxed body (`bodyhash`)."""
        fields: list[_Canonical] = []
        counts: dict[str, int] = {}
        wanted = style.fields
        for name, value in reversed(headers):
            folded = field_name(name)
            octets = wanted.get(folded)
            if octets is not None:
                count = counts[folded] = counts.get(folded, 0) + 1
                if count <= _MOST_OF_ONE_NAME:
                    fields.append((octets, relaxed(value)))
        fields.reverse()
        names = [name for name, _ in fields]
        # Of a name that stands there too often, one more would name one that is there.
        names += [octets for name, octets in style.oversigned if counts.get(name, 0) <= _MOST_OF_ONE_NAME]
        there = style.oversigned_if_there
        names += [name.encode() for name, count in counts.items() if name in there and count <= _MOST_OF_ONE_NAME]
        chosen = fields if len(counts) == len(fields) else dkim.select_headers(fields, names)
        self._hash = hashlib.sha256(b"".join([b"%b:%b" % field for field in chosen]))
        self._h = b" : ".join(names)
        self._bh = base64.b64encode(body_digest)
        self._style = style

    def sign(self, key: SigningKey, now: int, tenant: str = "") -> str:
        """The value of a DKIM-Signature header, folded by LF and a space as libmilter wants it; `now` in seconds.

        `tenant` stands in i= where the configuration writes {tenant}.
        """
        style = self._style
        identity = key.identity.replace("{tenant}", _atom(tenant)) if key.identity else ""
        when = b" t=%d;" % now if style.timestamp else b""
        if style.expire_seconds:
            when += b" x=%d;" % (now + style.expire_seconds)
        make = _usual_beginning if len(self._h) <= _USUAL_LENGTH else _beginning
        beginning = make(key.algorithm, key.domain, key.selector, identity, self._h)
        unsigned = b"%b;\n%b bh=%b;\n b=" % (beginning, when, self._bh)
        signature = base64.b64encode(key.sign(self.digest(unsigned)))
        lines = [signature[at : at + 70] for at in range(0, len(signature), 70)]
        return (unsigned + b"\n ".join(lines)).decode("ascii")

    def digest(self, unsigned: bytes) -> bytes:
        """What a key signs (section 3.7): the fields, then the signature field with an empty b= and no line end."""
        whole = self._hash.copy()
        whole.update(_NAME.lower() + b":" + relaxed(unsigned)[:-2])
        return whole.digest()


def relaxed(value: bytes) -> bytes:
    """RFC 6376 section 3.4.2: unfolded, runs of blanks as one space, none at the ends, CRLF."""
    if b"\n" in value:
        value = value.replace(b"\r\n", b"").replace(b"\n", b"")
    if b"  " in value or b"\t" in value:
        value = _BLANKS.sub(b" ", value)
    return value.strip(b" ") + b"\r\n"


def _atom(name: str) -> str:
    """A tenant's name as part of a local part that needs no quoting in i=; what does not fit is written `_HEX`."""
    return _UNFIT.sub(lambda found: "".join(f"_{octet:02x}" for octet in found[0].encode("utf-8", "replace")), name)[:64]


def _beginning(algorithm: bytes, domain: str, selector: str, identity: str, names: bytes) -> bytes:
    """The tags that are the same for every message of a kind, folded."""
    tags = [b"v=1", b"a=%b" % algorithm, b"c=relaxed/relaxed", b"d=%b" % domain.encode()]
    if identity:
        tags.append(b"i=%b" % identity.encode())
    return _folded(b"; ".join([*tags, b"s=%b" % selector.encode(), b"h=%b" % names]))


_usual_beginning = lru_cache(maxsize=1024)(_beginning)  # of bounded length, as header names come from clients


def _folded(value: bytes) -> bytes:
    """Broken at blanks only: dkimpy's own fold cuts a long d= in two, and then it names no domain."""
    lines, line, length = [], [b""], len(_NAME)
    for word in value.split(b" "):
        if length + len(word) >= _LINE and len(line) > 1:
            lines.append(b" ".join(line))
            line, length = [b""], 0
        line.append(word)
        length += len(word) + 1
    return b"\n".join([*lines, b" ".join(line)]).strip()
