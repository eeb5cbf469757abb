"""Keys for the tests of the milter, made once a session (an RSA key takes longer than most tests)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from relaywarden.config.settings import DkimSettings
from relaywarden.dkimkeys import load_key
from testbed.dns import DnsServer
from testbed.factories import WorkFolder


@dataclass(frozen=True)
class Keys:
    """Key files, and DNS records for them."""

    folder: Path
    dns: DnsServer

    def setting(self, domain: str, selector: str, name: str = "rsa") -> dict[str, str]:
        """One entry of a `dkim:` list, published in DNS."""
        entry = {"domain": domain, "selector": selector, "key": str(self.folder / f"{name}.pem")}
        key = load_key(DkimSettings.model_validate(entry))
        self.dns.add({f"{selector}._domainkey.{domain}": {"TXT": key.dns_record()}})
        return entry


@pytest.fixture(scope="session")
def keys(work_folder: WorkFolder, dns: DnsServer) -> Keys:
    """`rsa`, `rsa2`, `ed25519` and the forbidden `short`."""
    folder = work_folder("keys")
    save = _saver(folder)
    save("rsa", generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    save("rsa2", generate_private_key(65537, 3072).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    short = generate_private_key(65537, 1024)  # noqa: S505  # the one that must be refused
    save("short", short.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    save("ed25519", Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Keys(folder, dns)


def _saver(folder: Path) -> Callable[[str, bytes], None]:
    def save(name: str, data: bytes) -> None:
        path = folder / f"{name}.pem"
        path.touch(mode=0o600)
        path.write_bytes(data)

    return save
