"""The published test vectors: RFC 8463 appendix A (both signatures, to the octet) and RFC 6376 section 3.4.5 and 3.4.4.

Ed25519 and RSASSA-PKCS1-v1_5 are deterministic: a signer that builds the same input makes the same signature.
"""

from __future__ import annotations

import base64
import hashlib
import re

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from relaywarden.config.settings import SigningSettings
from relaywarden.dkimkeys import SigningKey
from relaywarden_milter.bodyhash import BodyHash
from relaywarden_milter.headers import Header
from relaywarden_milter.sign import Signer, Style, relaxed

# RFC 8463 appendix A: published keys, of no use to anybody.
ED25519_SEED = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
RSA_KEY = b"""-----BEGIN RSA PRIVATE KEY-----
MIICXQIBAAKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQi
Y/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqM
KrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB
AoGAH0cxOhFZDgzXWhDhnAJDw5s4roOXN4OhjiXa8W7Y3rhX3FJqmJSPuC8N9vQm
6SVbaLAE4SG5mLMueHlh4KXffEpuLEiNp9Ss3O4YfLiQpbRqE7Tm5SxKjvvQoZZe
zHorimOaChRL2it47iuWxzxSiRMv4c+j70GiWdxXnxe4UoECQQDzJB/0U58W7RZy
6enGVj2kWF732CoWFZWzi1FicudrBFoy63QwcowpoCazKtvZGMNlPWnC7x/6o8Gc
uSe0ga2xAkEA8C7PipPm1/1fTRQvj1o/dDmZp243044ZNyxjg+/OPN0oWCbXIGxy
WvmZbXriOWoSALJTjExEgraHEgnXssuk7QJBALl5ICsYMu6hMxO73gnfNayNgPxd
WFV6Z7ULnKyV7HSVYF0hgYOHjeYe9gaMtiJYoo0zGN+L3AAtNP9huqkWlzECQE1a
licIeVlo1e+qJ6Mgqr0Q7Aa7falZ448ccbSFYEPD6oFxiOl9Y9se9iYHZKKfIcst
o7DUw1/hz2Ck4N5JrgUCQQCyKveNvjzkkd8HjYs0SwM0fPjK16//5qDZ2UiDGnOe
uEzxBDAr518Z8VFbR41in3W4Y3yCDgQlLlcETrS+zYcL
-----END RSA PRIVATE KEY-----
"""
HEADERS: list[Header] = [
    ("From", b"Joe SixPack <joe@football.example.com>"),
    ("To", b"Suzie Q <suzie@shopping.example.net>"),
    ("Subject", b"Is dinner ready?"),
    ("Date", b"Fri, 11 Jul 2003 21:00:37 -0700 (PDT)"),
    ("Message-ID", b"<20030712040037.46341.5F8J@football.example.com>"),
]
BODY = b"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"
BH = "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="
SIGNED = {
    "brisbane": (
        b"v=1; a=ed25519-sha256; c=relaxed/relaxed;\n d=football.example.com; i=@football.example.com;\n"
        b" q=dns/txt; s=brisbane; t=1528637909; h=from : to :\n subject : date : message-id : from : subject : date;\n"
        b" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\n b=",
        "/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11BusFa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==",
    ),
    "test": (
        b"v=1; a=rsa-sha256; c=relaxed/relaxed;\n d=football.example.com; i=@football.example.com;\n"
        b" q=dns/txt; s=test; t=1528637909; h=from : to : subject :\n date : message-id : from : subject : date;\n"
        b" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\n b=",
        "F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz"
        "dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=",
    ),
}


def key(selector: str) -> SigningKey:
    if selector == "brisbane":
        private: Ed25519PrivateKey | RSAPrivateKey = Ed25519PrivateKey.from_private_bytes(base64.b64decode(ED25519_SEED))
    else:
        loaded = load_pem_private_key(RSA_KEY, password=None)  # 1024 bits: `load_key` would refuse it
        assert isinstance(loaded, RSAPrivateKey)
        private = loaded
    return SigningKey("football.example.com", selector, private, identity="@football.example.com")


def body_hash(body: bytes) -> str:
    hashing = BodyHash()
    hashing.update(body)
    return base64.b64encode(hashing.digest()).decode()


@pytest.mark.parametrize("selector", SIGNED)
def test_rfc_8463_signatures_are_reproduced(selector: str) -> None:
    unsigned, published = SIGNED[selector]
    signer = Signer(HEADERS, base64.b64decode(BH), Style(SigningSettings()))
    assert base64.b64encode(key(selector).sign(signer.digest(unsigned))).decode() == published


def test_rfc_8463_body_hash_and_public_keys() -> None:
    assert body_hash(BODY) == BH
    assert key("brisbane").dns_record().endswith("p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
    assert "p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6" in key("test").dns_record()


def test_rfc_6376_section_3_4_5() -> None:
    assert relaxed(b" X ") == b"X\r\n"
    assert relaxed(b" Y\t\r\n\tZ  ") == b"Y Z\r\n"
    expected = base64.b64encode(hashlib.sha256(b" C\r\nD E\r\n").digest()).decode()
    assert body_hash(b" C \r\nD \t E\r\n\r\n\r\n") == expected


def test_rfc_6376_section_3_4_4_empty_body() -> None:
    assert body_hash(b"") == "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    assert body_hash(b"\r\n\r\n") == body_hash(b"")


def test_tags_as_configured() -> None:
    style = Style(SigningSettings.model_validate({"expire": "14d", "headers": ["X-Order"], "oversign": "from"}))
    signer = Signer([*HEADERS, ("X-Order", b"1"), ("X-Other", b"2")], b"", style)
    named = SigningKey("relay.example", "rw1", key("brisbane").private, identity="{tenant}@relay.example")
    value = re.sub(r"\s+", "", signer.sign(named, 1_700_000_000, "acme@shop"))
    tags = dict(tag.split("=", 1) for tag in value.split(";"))
    assert (tags["t"], tags["x"]) == ("1700000000", str(1_700_000_000 + 14 * 86_400))
    assert tags["i"] == "acme_40shop@relay.example"
    assert tags["h"] == "from:to:subject:date:message-id:x-order:from"
    bare = Style(SigningSettings.model_validate({"timestamp": False, "oversign": "none"}))
    value = Signer(HEADERS, b"", bare).sign(key("brisbane"), 1)
    assert " t=" not in value
    assert " x=" not in value
    assert re.sub(r"\s+", "", value.split("h=")[1].split(";")[0]) == "from:to:subject:date:message-id"


def test_what_is_absent_but_may_be_added_later_is_not_oversigned() -> None:
    value = Signer(HEADERS[:1], b"", Style(SigningSettings())).sign(key("brisbane"), 1)
    assert re.sub(r"\s+", "", value.split("h=")[1].split(";")[0]) == "from:from:to:cc:subject:reply-to"
