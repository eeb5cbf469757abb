"""DKIM key files: what is read, what is refused and in which words."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from relaywarden.config.settings import DkimSettings, Settings
from relaywarden.dkimkeys import create_key, load_key, parse_key
from relaywarden.errors import ConfigError, KeyFileError
from relaywarden.tenants import Directory
from relaywarden_milter.keyring import Keyring, aligned


def entry(path: Path, domain: str = "acme.example", selector: str = "s") -> DkimSettings:
    return DkimSettings(domain=domain, selector=selector, key=path)


def test_every_form_of_a_key(keys: Any) -> None:
    pem = (keys.folder / "rsa.pem").read_bytes()
    ed_pem = (keys.folder / "ed25519.pem").read_bytes()
    assert isinstance(parse_key(pem, "x"), RSAPrivateKey)
    assert isinstance(parse_key(pem.replace(b"\n", b"\r\n"), "x"), RSAPrivateKey)
    assert isinstance(parse_key((keys.folder / "rsa2.pem").read_bytes(), "x"), RSAPrivateKey)
    ed_key = parse_key(ed_pem, "x")
    assert isinstance(ed_key, Ed25519PrivateKey)
    seed = base64.b64encode(ed_key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))
    again = parse_key(seed + b"\n", "x")
    assert isinstance(again, Ed25519PrivateKey)
    assert again.sign(b"x") == ed_key.sign(b"x")


def test_keys_that_are_refused(keys: Any, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    curve = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    refused = {
        "1024 bits; expected at least 2048": (keys.folder / "short.pem").read_bytes(),
        "another kind": curve,
        "passphrase": locked,
        "not a readable private key": b"-----BEGIN PRIVATE KEY-----\nxx\n-----END PRIVATE KEY-----\n",
        "neither PEM nor": b"hello",
        "32-byte seed": base64.b64encode(b"x" * 31),
    }
    for text, data in refused.items():
        path = tmp_path / "key"
        path.touch(mode=0o600)
        path.write_bytes(data)
        with pytest.raises(KeyFileError, match=text) as caught:
            load_key(entry(path))
        assert str(path) in str(caught.value)


def test_files_that_are_refused(keys: Any, tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot read the private key: No such file"):
        load_key(entry(tmp_path / "none"))
    with pytest.raises(KeyFileError, match="regular file"):
        load_key(entry(Path("/dev/zero")))
    path = tmp_path / "open"
    path.write_bytes((keys.folder / "rsa.pem").read_bytes())
    path.chmod(0o644)
    assert "anybody may read" in load_key(entry(path)).warning
    path.chmod(0o666)
    with pytest.raises(KeyFileError, match="anybody may change"):
        load_key(entry(path))


@given(
    st.binary(max_size=200) | st.binary(max_size=60).map(lambda data: b"-----BEGIN PRIVATE KEY-----\n" + base64.b64encode(data))
)
def test_garbage_is_an_error(data: bytes) -> None:
    with pytest.raises(KeyFileError):
        parse_key(data, "x")


def test_the_longest_domain_that_is_aligned_signs() -> None:
    settings = [
        entry(Path("k"), domain, s) for domain, s in (("acme.example", "a"), ("m.acme.example", "b"), ("m.acme.example", "c"))
    ]
    assert [key.selector for key in aligned(settings, "m.acme.example")] == ["b", "c"]
    assert [key.selector for key in aligned(settings, "x.m.acme.example")] == ["b", "c"]
    assert [key.selector for key in aligned(settings, "acme.example")] == ["a"]
    assert aligned(settings, "evilacme.example") == []


def test_a_missing_key_is_an_error_until_it_is_there(keys: Any, tmp_path: Path) -> None:
    path = tmp_path / "late.pem"
    settings = Settings.model_validate({
        "plans": {"p": {}},
        "tenants": {"acme": {"plan": "p", "dkim": [{"domain": "acme.example", "selector": "s", "key": str(path)}]}},
    })  # fmt: skip
    keyring, tenant = Keyring(settings), Directory(settings).by_login("acme")
    assert tenant is not None
    with pytest.raises(ConfigError, match="cannot read the private key"):
        keyring.require_all()
    with pytest.raises(KeyFileError):
        keyring.for_tenant(tenant, ["acme.example"])
    assert keyring.for_tenant(tenant, ["other.example"]) == []
    path.touch(mode=0o600)
    path.write_bytes((keys.folder / "rsa.pem").read_bytes())
    with pytest.raises(KeyFileError):  # tried again only every few seconds
        keyring.for_tenant(tenant, ["acme.example"])
    for missing in keyring._keys.values():
        missing.due = 0.0  # type: ignore[union-attr]
    assert [key.selector for key in keyring.for_tenant(tenant, ["acme.example"])] == ["s"]
    keyring.require_all()


def test_a_key_file_that_changes_is_read_again_and_a_good_key_outlives_a_bad_file(tmp_path: Path) -> None:
    first, second = tmp_path / "k1.pem", tmp_path / "k2.pem"
    create_key(first, "ed25519")
    entry = {"domain": "acme.example", "selector": "k1", "key": str(first), "next": {"selector": "k2", "key": str(second)}}
    settings = Settings.model_validate({"plans": {"p": {}}, "tenants": {"acme": {"plan": "p", "dkim": [entry]}}})
    keyring, tenant = Keyring(settings), Directory(settings).by_login("acme")
    assert tenant is not None

    def signing() -> tuple[str, bytes]:
        (key,) = keyring.for_tenant(tenant, ["acme.example"])
        return key.selector, key.sign(b"x" * 32)

    before = signing()
    keyring.select({"acme.example/k1": {"to": "k2"}})
    assert signing() == before  # the heir is not there: the one before it signs on
    create_key(second, "ed25519")
    second.chmod(0o666)  # anybody may write it: not used
    keyring.refresh()
    assert signing() == before
    second.chmod(0o600)
    keyring.refresh()
    assert signing()[0] == "k2"
    keyring.select({})
    first.write_text("garbage")
    keyring.refresh()
    assert signing() == before
    first.unlink()
    create_key(first, "ed25519")
    keyring.refresh()
    assert signing()[1] != before[1]
