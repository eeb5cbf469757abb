"""feedback - tokens by which a complaint finds its way back to tenant and message, and the headers that carry them.

Wire format: base32 (RFC 4648; lower case, no padding) of AES-SIV (RFC 5297, 256-bit AES; the version is the associated data):

    16 octets   synthetic IV: it authenticates the rest
     5 octets   tag of the tenant: HMAC-SHA256 of its name, cut short
     3 octets   highest bit: the queue id is raw, not packed; then hours since 2020-01-01 UTC
     n octets   queue id: 5 to 20 of 0-9A-Za-z as a bijective base-62 number (12 octets for up to 16 of them);
                any other as UTF-8, cut at 16 octets

The same tenant, queue id and hour give the same token.  Case may change on the way: `open` takes either.  A queue id of 15
characters makes 58 characters of token; up to 17 characters `fbl+TOKEN` fits the 64 octets of a local part (RFC 5321
section 4.5.3.1.1).

How it fails: a secret file that is unusable, or that others may write, is a KeyFileError; one that others may read has a
`warning`.  `open` never raises: what is not ours, down to the last
bit, is None.  A forged report must penalise nobody.

Known limits: who has a copy of a message has its token, and may complain as often as he likes; count each recipient
once.  Raw queue ids that differ only beyond 16 octets are one.  Tags are 40 bits: among 10,000 tenants
two share one once in 22,000 relays.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hmac
import re
import string
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from relaywarden import secretfile
from relaywarden.config.settings import FeedbackSettings
from relaywarden.errors import KeyFileError

SMALLEST_SECRET = 32
LONGEST_LOCAL_PART = 64
_LARGEST_SECRET = 4096
_VERSION = [b"\x01"]
_EPOCH = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
_EPOCH_SECONDS = _EPOCH.timestamp()
_TAG = 5
_HEAD = _TAG + 3  # tag and hour
_RAW = 1 << 23
_RAW_LENGTH = 16
_LONGEST_TOKEN = 64  # what 16 + _HEAD + _RAW_LENGTH octets make
_LONGEST_TEXT = 4 * _LONGEST_TOKEN  # with white space in it
_PACKABLE = re.compile(r"[0-9A-Za-z]{5,20}")
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_VALUE = {character: value for value, character in enumerate(_ALPHABET, 1)}
_UNFIT = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, slots=True)
class Opened:
    """What a token of ours says."""

    tenant_tag: bytes  # Tokens.find() knows whose
    queue_id: str
    hour: datetime.datetime  # UTC, the beginning of the hour in which the message was taken


class Tokens:
    """Makes and opens tokens; safe to use from several threads."""

    def __init__(self, secret: bytes) -> None:
        """`secret`: the same on every host; raises KeyFileError if it cannot be one."""
        self.warning = ""  # about the file's permissions
        if len(secret) < SMALLEST_SECRET or len(set(secret)) < 8:
            raise KeyFileError(f"not a secret: expected at least {SMALLEST_SECRET} random bytes, got {len(secret)} bytes")
        try:
            self._cipher = AESSIV(_derive(secret, b"relaywarden feedback token", 64))
        except UnsupportedAlgorithm as error:
            raise KeyFileError("the OpenSSL of cryptography has no AES-SIV; expected OpenSSL 3.0 or newer") from error
        self._tag_key = _derive(secret, b"relaywarden feedback tenant", 32)

    @classmethod
    def from_file(cls, path: Path) -> Tokens:
        """Read the secret file; raises KeyFileError with the file, what is wrong and what was expected."""
        secret, warning = secretfile.read(path, "secret", _LARGEST_SECRET)
        try:
            tokens = cls(secret)
        except KeyFileError as error:
            raise KeyFileError(f"{path}: {error}; make it by: head -c {SMALLEST_SECRET} /dev/urandom") from error
        tokens.warning = warning
        return tokens

    def make(self, tenant: str, queue_id: str, now: float) -> str:
        """The token of a message that `tenant` sends; `now` in seconds since 1970."""
        hours = min(max(int(now - _EPOCH_SECONDS) // 3600, 0), _RAW - 1)
        if _PACKABLE.fullmatch(queue_id):
            name = _pack(queue_id)
        else:
            hours |= _RAW
            name = queue_id.encode("utf-8", "replace")[:_RAW_LENGTH]
        sealed = self._cipher.encrypt(self.tag(tenant) + hours.to_bytes(3, "big") + name, _VERSION)
        return _text(sealed)

    def open(self, token: str) -> Opened | None:
        """What a token says, None if it is not ours.  White space in it does not count (RFC 9477 section 5.2)."""
        if len(token) > _LONGEST_TEXT or not token.isascii():
            return None  # str.lower() makes ASCII of some letters that are not
        text = "".join(token.split()).lower()
        if len(text) > _LONGEST_TOKEN:
            return None
        try:
            sealed = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
            if _text(sealed) != text:
                return None  # base32 leaves bits of the last character unused
            plain = self._cipher.decrypt(sealed, _VERSION)
        except (binascii.Error, ValueError, InvalidTag):
            return None
        return _opened(plain)

    def tag(self, tenant: str) -> bytes:
        """The tenant's name inside a token."""
        return hmac.digest(self._tag_key, tenant.encode("utf-8", "replace"), "sha256")[:_TAG]

    def label(self, tenant: str) -> str:
        """A stable name of the tenant that tells outsiders nothing: 8 letters and digits."""
        return _text(self.tag(tenant))

    def find(self, tag: bytes, names: Iterable[str]) -> str | None:
        """Which of `names` has this tag."""
        return next((name for name in names if self.tag(name) == tag), None)


def headers(
    settings: FeedbackSettings, tokens: Tokens, tenant: str, stream: str, queue_id: str, now: float
) -> list[tuple[str, str]]:
    """The header fields of a message, to be added before it is signed.

    Feedback-ID is Google's: three identifiers of ours, then SenderId; it counts if a signature of the operator covers it.

    CFBL-Address and CFBL-Feedback-ID are RFC 9477's (syntax: sections 5.1 and 5.2).  Where the From domain is not that of the
    address, both domains MUST sign (section 3.1.3), and h= of these signatures MUST name both fields (section 3.1.4); one
    CFBL-Address counts (section 3.2); the address MUST accept ARF reports (section 3.4), and these MUST bring CFBL-Feedback-ID
    back (section 3.5).  So where `fbl+TOKEN` would exceed 64 octets, the address goes without the token.
    """
    token = tokens.make(tenant, queue_id, now)
    fields = [("Feedback-ID", f"{token}:{tokens.label(tenant)}:{_UNFIT.sub('-', stream)}:{settings.sender_id}")]
    if settings.address:
        fields += [("CFBL-Address", f"{_tagged(settings.address, token)}; report=arf"), ("CFBL-Feedback-ID", token)]
    return fields


def return_path(settings: FeedbackSettings, tokens: Tokens, tenant: str, queue_id: str, now: float) -> str:
    """The envelope sender by which a bounce finds its way back; empty where the client's own stays."""
    return _tagged(settings.bounces, tokens.make(tenant, queue_id, now)) if settings.bounces else ""


def _tagged(address: str, token: str) -> str:
    """`fbl+TOKEN@relay.example`, or without the token where the local part would be too long."""
    local, _, domain = address.rpartition("@")
    tagged = f"{local}+{token}"
    return f"{tagged if len(tagged) <= LONGEST_LOCAL_PART else local}@{domain}"


def _opened(plain: bytes) -> Opened | None:
    tag, hours, name = plain[:_TAG], int.from_bytes(plain[_TAG:_HEAD], "big"), plain[_HEAD:]
    queue_id = name.decode("utf-8", "ignore") if hours & _RAW else _unpack(name)
    return Opened(tag, queue_id, _EPOCH + datetime.timedelta(hours=hours & ~_RAW))


def _pack(queue_id: str) -> bytes:
    """Bijective base 62: unlike the usual one it tells `A` from `0A`."""
    number = 0
    for character in queue_id:
        number = number * 62 + _VALUE[character]
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _unpack(data: bytes) -> str:
    number, characters = int.from_bytes(data, "big"), []
    while number:
        number, digit = divmod(number - 1, 62)
        characters.append(_ALPHABET[digit])
    return "".join(reversed(characters))


def _text(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()


def _derive(secret: bytes, purpose: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt=None, info=purpose).derive(secret)
