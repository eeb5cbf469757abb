"""`keys`: rollover from a new key to the retirement of the old one, against a real DNS server and ledger."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relaywarden import steering
from relaywarden.config.load import load
from relaywarden.config.settings import DkimSettings
from relaywarden.dkimdns import judge
from relaywarden.dkimkeys import create_key, load_key
from relaywarden.ledger.connect import open_ledger
from testbed.dns import DnsServer

Cli = Callable[..., subprocess.CompletedProcess[str]]


def write(folder: Path, entry: dict[str, Any]) -> Path:
    document = {
        "store": f"sqlite:///{folder}/ledger.db",
        "plans": {"p": {}},
        "tenants": {"acme": {"plan": "p", "from_domains": [entry["domain"]], "dkim": [entry]}},
    }
    path = folder / "relaywarden.yaml"
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def cli(tmp_path: Path, dns: DnsServer) -> Cli:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "relaywarden", "--config", str(tmp_path / "relaywarden.yaml"), "keys"]
        server = [f"--nameserver={dns.host}@{dns.port}"]
        return subprocess.run([*command, *server, *arguments], capture_output=True, text=True, timeout=60, check=False)

    return run


def test_rollover(tmp_path: Path, dns: DnsServer, cli: Cli) -> None:
    domain = "rollover.example"
    create_key(tmp_path / "k1.pem", "rsa")
    entry: dict[str, Any] = {"domain": domain, "selector": "k1", "key": str(tmp_path / "k1.pem")}
    write(tmp_path, entry)
    first = load_key(DkimSettings.model_validate(entry))

    listed = cli("--json")
    assert listed.returncode == 1  # it signs, and DNS does not have it
    assert json.loads(listed.stdout)[0]["dns"][0]["text"] == "no DKIM record"
    dns.add({f"k1._domainkey.{domain}": {"TXT": first.dns_record()}})
    assert cli().returncode == 0

    made = cli("new", domain, "k2")
    assert made.returncode == 0, made.stderr
    assert "k2._domainkey.rollover.example. IN TXT" in made.stdout
    assert cli("new", domain, "k2").returncode == 2  # never over another file
    second = tmp_path / f"{domain}.k2.pem"
    assert second.stat().st_mode & 0o077 == 0
    assert "no next" in cli("switch", domain, "--selector", "k1").stderr
    write(tmp_path, entry | {"next": {"selector": "k2", "key": str(second)}})

    refused = cli("switch", domain)
    assert refused.returncode == 1
    assert "k1 signs on" in refused.stderr
    dns.add({f"k2._domainkey.{domain}": {"TXT": first.dns_record()}})  # published, but the wrong one
    assert "another public key" in cli("switch", domain).stderr
    new = load_key(DkimSettings(domain=domain, selector="k2", key=second))
    dns.replace({f"k2._domainkey.{domain}": {"TXT": new.dns_record()}})
    switched = cli("switch", domain)
    assert switched.returncode == 0, switched.stderr
    roles = {item["selector"]: item["role"] for item in json.loads(cli("--json").stdout)}
    assert roles == {"k1": "replaced", "k2": "signs"}

    assert "wait until" in cli("retire", domain).stderr
    assert "without next" in cli("retire", domain, "--after", "1ms").stdout
    write(tmp_path, entry | {"selector": "k2", "key": str(second)})
    assert 'IN TXT "v=DKIM1; p="' in cli("retire", domain, "--after", "1ms").stdout
    ledger = open_ledger(load(tmp_path / "relaywarden.yaml"))
    assert steering.read(ledger).selectors == {}
    ledger.close()


@pytest.mark.parametrize(
    ("record", "ok"),
    [
        ("v=DKIM1; k=rsa; p={p}", True),
        ("p={p}", True),
        ("v=DKIM1; h=sha1:sha256; s=email; p={p}", True),
        ("v=DKIM1; p=", False),
        ("v=DKIM1; k=ed25519; p={p}", False),
        ("v=DKIM1; h=sha1; p={p}", False),
        ("v=DKIM1; s=tlsrpt; p={p}", False),
        ("v=DKIM1; p=AAAA", False),
        ("v=spf1 -all", False),
    ],
)
def test_a_record_is_judged_as_receivers_do(tmp_path: Path, record: str, ok: bool) -> None:
    create_key(tmp_path / "k.pem", "rsa")
    key = load_key(DkimSettings(domain="acme.example", selector="k", key=tmp_path / "k.pem"))
    public = key.dns_record().partition("p=")[2]
    assert judge(key, [record.format(p=public[:100] + " " + public[100:]).encode()])[0] is ok
    assert not judge(key, [])[0]
    assert not judge(key, [key.dns_record().encode()] * 2)[0]
