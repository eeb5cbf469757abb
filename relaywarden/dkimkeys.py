"""dkimkeys - DKIM private keys: read once, checked, ready to sign.

A key file holds an RSA key (PEM, PKCS#1 or PKCS#8, LF or CRLF; 2048 bits or more: RFC 8301 section 3.2 has verifiers ignore
short keys, and 1024 bits are refused by large receivers) or an Ed25519 key (PEM PKCS#8, or the base64 text of the raw
32-byte seed, as dkimpy's dknewkey writes it; RFC 8463).

How it fails: KeyFileError with the file, what is wrong and what was expected.  A key that others may write is never used;
one that others may read has a `warning`, which `relaywarden check` shows: refusing to sign would stop mail without making the
key any more secret.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from relaywarden import secretfile
from relaywarden.config.settings import DkimSettings
from relaywarden.errors import KeyFileError

MINIMUM_RSA_BITS = 2048
_LARGEST_FILE = 64 * 1024
_PADDING = PKCS1v15()
_SHA256 = Prehashed(hashes.SHA256())
_EXPECTED = "expected an RSA key of at least 2048 bits in PEM, or an Ed25519 key in PEM or as the base64 text of its seed"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One d=, s= and the private key behind it; safe to use from several threads."""

    domain: str
    selector: str
    private: RSAPrivateKey | Ed25519PrivateKey
    warning: str = ""
    identity: str = ""  # i=

    @property
    def algorithm(self) -> bytes:
        """The a= tag."""
        return b"rsa-sha256" if isinstance(self.private, RSAPrivateKey) else b"ed25519-sha256"

    @property
    def bits(self) -> int:
        """The size of an RSA key; 256 for Ed25519."""
        return self.private.key_size if isinstance(self.private, RSAPrivateKey) else 256

    def sign(self, digest: bytes) -> bytes:
        """The signature of a SHA-256 digest: RSASSA-PKCS1-v1_5 (RFC 6376 section 3.3.1) or PureEdDSA (RFC 8463)."""
        if isinstance(self.private, RSAPrivateKey):
            return self.private.sign(digest, _PADDING, _SHA256)
        return self.private.sign(digest)

    def dns_record(self) -> str:
        """The TXT record that belongs at `selector._domainkey.domain`."""
        public = self.private.public_key()
        if isinstance(self.private, RSAPrivateKey):
            data = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
            return f"v=DKIM1; k=rsa; p={base64.b64encode(data).decode()}"
        data = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return f"v=DKIM1; k=ed25519; p={base64.b64encode(data).decode()}"


def load_key(settings: DkimSettings) -> SigningKey:
    """Read and check one key; raises KeyFileError."""
    data, warning = secretfile.read(settings.key, "private key", _LARGEST_FILE)
    return SigningKey(settings.domain, settings.selector, parse_key(data, str(settings.key)), warning, settings.identity)


def following(settings: DkimSettings) -> DkimSettings | None:
    """The key that stands ready to take this one's place (`next`), as an entry of its own."""
    if settings.next is None:
        return None
    return settings.model_copy(update={"selector": settings.next.selector, "key": settings.next.key, "next": None})


def create_key(path: Path, kind: str, like: Path | None = None) -> None:
    """Write a new private key, `rsa` (2048 bits) or `ed25519`; never over another file; raises KeyFileError.

    Mode 0640 or less, owner and group as those of the key `like`, so that the same programs can read it.
    """
    made = generate_private_key(65537, MINIMUM_RSA_BITS) if kind == "rsa" else Ed25519PrivateKey.generate()
    text = made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        model = like.stat() if like is not None and like.exists() else None
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            if model is not None:
                os.fchmod(descriptor, stat.S_IMODE(model.st_mode) & 0o640)
                if os.geteuid() == 0:
                    os.fchown(descriptor, model.st_uid, model.st_gid)
            file.write(text)
    except FileExistsError as error:
        raise KeyFileError(f"{path}: there is a file already; expected a name that is free") from error
    except OSError as error:
        raise KeyFileError(f"{path}: cannot write the private key: {error.strerror or error}") from error


def parse_key(data: bytes, where: str) -> RSAPrivateKey | Ed25519PrivateKey:
    """The private key in `data`; raises KeyFileError naming `where`."""
    text = data.replace(b"\r\n", b"\n").strip()
    if b"-----BEGIN" not in text:
        return _parse_seed(text, where)
    try:
        key = serialization.load_pem_private_key(text + b"\n", password=None)
    except TypeError as error:  # cryptography's word for "this key has a passphrase"
        raise KeyFileError(f"{where}: the key is protected by a passphrase; expected one without") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{where}: not a readable private key; {_EXPECTED}") from error
    if isinstance(key, RSAPrivateKey) and key.key_size < MINIMUM_RSA_BITS:
        raise KeyFileError(f"{where}: an RSA key of {key.key_size} bits; expected at least {MINIMUM_RSA_BITS}")
    if not isinstance(key, RSAPrivateKey | Ed25519PrivateKey):
        raise KeyFileError(f"{where}: a key of another kind ({type(key).__name__}); {_EXPECTED}")
    return key


def _parse_seed(text: bytes, where: str) -> Ed25519PrivateKey:
    try:
        seed = base64.b64decode(text, validate=True)
        return Ed25519PrivateKey.from_private_bytes(seed)
    except (binascii.Error, ValueError) as error:
        raise KeyFileError(f"{where}: neither PEM nor the base64 text of a 32-byte seed; {_EXPECTED}") from error
