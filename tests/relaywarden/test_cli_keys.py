"""`keys`: rollover from a new key to the retirement of the old one, against a real DNS server and ledger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from relaywarden import steering
from relaywarden.cli.output import iso_time
from relaywarden.config.load import load
from relaywarden.config.settings import DkimSettings
from relaywarden.dkimdns import judge
from relaywarden.dkimkeys import create_key, load_key
from relaywarden.errors import KeyFileError
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


def run(folder: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "relaywarden", "--config", str(folder / "relaywarden.yaml"), "keys", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)
    assert "Traceback" not in done.stderr
    return done


def words(folder: Path) -> Mapping[str, Any]:
    """What `keys switch` has said so far."""
    ledger = open_ledger(load(folder / "relaywarden.yaml"))
    try:
        return steering.read(ledger).selectors
    finally:
        ledger.close()


@pytest.fixture
def cli(tmp_path: Path, dns: DnsServer) -> Cli:
    return partial(run, tmp_path, f"--nameserver={dns.host}@{dns.port}")


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

    assert cli("retire", domain).stderr == f"Error: no key of {domain} was replaced; `keys` lists them\n"
    refused = cli("switch", domain)
    assert refused.returncode == 1
    assert "k1 signs on" in refused.stderr
    dns.add({f"k2._domainkey.{domain}": {"TXT": first.dns_record()}})  # published, but the wrong one
    assert "another public key" in cli("switch", domain).stderr
    new = load_key(DkimSettings(domain=domain, selector="k2", key=second))
    dns.replace({f"k2._domainkey.{domain}": {"TXT": new.dns_record()}})
    switched = cli("switch", domain)
    assert switched.returncode == 0, switched.stderr
    again = cli("switch", domain)
    assert (again.returncode, again.stderr) == (0, "")
    since = words(tmp_path)[f"{domain}/k1"]["since_ms"]
    assert again.stdout == f"{domain}: k2 signs already since {iso_time(since)}; nothing changed\n"
    assert words(tmp_path)[f"{domain}/k1"]["since_ms"] == since
    roles = {item["selector"]: item["role"] for item in json.loads(cli("--json").stdout)}
    assert roles == {"k1": "replaced", "k2": "signs"}

    assert "wait until" in cli("retire", domain).stderr
    assert "without next" in cli("retire", domain, "--after", "1ms").stdout
    write(tmp_path, entry | {"selector": "k2", "key": str(second)})
    assert 'IN TXT "v=DKIM1; p="' in cli("retire", domain, "--after", "1ms").stdout
    assert words(tmp_path) == {}


def test_a_name_server_may_stand_behind_switch(tmp_path: Path, dns: DnsServer) -> None:
    domain = "behind.example"
    for name in ("k1", "k2"):
        create_key(tmp_path / f"{name}.pem", "ed25519")
    heir = {"selector": "k2", "key": str(tmp_path / "k2.pem")}
    write(tmp_path, {"domain": domain, "selector": "k1", "key": str(tmp_path / "k1.pem"), "next": heir})
    new = load_key(DkimSettings(domain=domain, selector="k2", key=tmp_path / "k2.pem"))
    dns.add({f"k2._domainkey.{domain}": {"TXT": new.dns_record()}})
    for arguments in (["switch", domain, "--no-dns"], ["--no-dns", "switch", domain]):
        refused = run(tmp_path, *arguments)
        assert refused.returncode == 2
        assert "--unchecked" in refused.stderr
    assert words(tmp_path) == {}
    done = run(tmp_path, "switch", domain, f"--nameserver={dns.host}@{dns.port}")
    assert done.returncode == 0, done.stderr
    assert "k2 signs from now on" in done.stdout


def test_without_dns_a_switch_is_possible_when_it_is_meant(tmp_path: Path) -> None:
    for name in ("k1", "k2"):
        create_key(tmp_path / f"{name}.pem", "ed25519")
    heir = {"selector": "k2", "key": str(tmp_path / "k2.pem")}
    write(tmp_path, {"domain": "a.example", "selector": "k1", "key": str(tmp_path / "k1.pem"), "next": heir})
    assert run(tmp_path, "switch", "a.example", "--no-dns", "--unchecked").returncode == 0
    assert words(tmp_path)["a.example/k1"]["to"] == "k2"


@pytest.mark.parametrize(
    ("domain", "selector"),
    [
        ("acme.example", "bad selector"),
        ("acme.example", "../x"),
        ("not a domain", "rw1"),
        ("", "rw1"),
        ("*.acme.example", "rw1"),
    ],
)
def test_a_name_that_is_none_makes_no_key(tmp_path: Path, domain: str, selector: str) -> None:
    (tmp_path / "relaywarden.yaml").write_text(f"store: sqlite:///{tmp_path}/ledger.db\n")
    done = run(tmp_path, "new", domain, selector)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("relaywarden: " + ("selector" if domain == "acme.example" else "domain"))
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("*.pem"))


def test_the_first_key_of_a_domain_lies_beside_the_configuration_and_is_told_as_an_entry(tmp_path: Path) -> None:
    config = tmp_path / "relaywarden.yaml"
    tenants = {"acme": {"plan": "p", "from_domains": ["acme.example"]}}
    document = {"store": f"sqlite:///{tmp_path}/ledger.db", "plans": {"p": {}}, "tenants": tenants}
    config.write_text(json.dumps(document))
    done = run(tmp_path, "new", "ACME.example", "2026")
    assert done.returncode == 0, done.stderr
    path = tmp_path / "keys" / "acme.example.2026.pem"
    assert path.parent.stat().st_mode & 0o777 == 0o750
    assert path.stat().st_mode & 0o077 == 0  # the configuration is for everybody, so its mode is no model
    assert "next" not in done.stdout
    assert "add to tenant acme" in done.stdout
    entry = yaml.safe_load(done.stdout[done.stdout.index("    dkim:") :])
    config.write_text(json.dumps(document | {"tenants": {"acme": tenants["acme"] | entry}}))
    (listed,) = json.loads(run(tmp_path, "--no-dns", "--json").stdout)
    assert (listed["selector"], listed["file"], listed["error"], listed["role"]) == ("2026", str(path), "", "signs")


def test_the_key_that_the_configuration_names_is_made_where_it_names_it(tmp_path: Path) -> None:
    heir = {"selector": "k2", "key": str(tmp_path / "b.pem")}
    write(tmp_path, {"domain": "acme.example", "selector": "k1", "key": str(tmp_path / "a.pem"), "next": heir})
    other = run(tmp_path, "new", "acme.example", "k1", "--file", str(tmp_path / "c.pem"))
    assert (other.returncode, (tmp_path / "c.pem").exists()) == (2, False)
    done = run(tmp_path, "new", "acme.example", "k1")
    assert done.stdout.startswith(f"{tmp_path}/a.pem: the key that the configuration names is made\n")
    assert done.stdout.endswith("then reload\n")
    assert "next" not in done.stdout
    assert (tmp_path / "a.pem").exists()
    assert "then reload, and after that: relaywarden keys switch" in run(tmp_path, "new", "acme.example", "k2").stdout
    assert run(tmp_path, "--no-dns").returncode == 0


def test_a_relative_file_is_told_as_an_absolute_one(tmp_path: Path) -> None:
    write(tmp_path, {"domain": "acme.example", "selector": "k1", "key": str(tmp_path / "k1.pem")})
    done = run(tmp_path, "new", "acme.example", "k2", "--file", "mine.pem", cwd=tmp_path)
    assert done.stdout.startswith(f"{tmp_path}/mine.pem: made\n")
    assert f"next: {{selector: k2, key: {tmp_path}/mine.pem}}" in done.stdout


def test_an_ed25519_key_alone_comes_with_a_warning(tmp_path: Path) -> None:
    write(tmp_path, {"domain": "acme.example", "selector": "k1", "key": str(tmp_path / "k1.pem")})
    alone = run(tmp_path, "new", "acme.example", "k1", "--type", "ed25519")
    assert "verify RSA only" in alone.stdout
    assert "verify RSA only" not in run(tmp_path, "new", "acme.example", "k2").stdout
    create_key(tmp_path / "rsa.pem", "rsa")
    write(tmp_path, {"domain": "acme.example", "selector": "k3", "key": str(tmp_path / "rsa.pem")})
    beside = run(tmp_path, "new", "acme.example", "k4", "--type", "ed25519").stdout
    assert "should have an RSA key" not in beside
    assert "an entry of its own" in beside


def test_the_first_key_is_for_those_who_may_read_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "relaywarden.yaml"
    config.write_text(f"store: sqlite:///{tmp_path}/ledger.db\n")
    config.chmod(0o640)
    done = run(tmp_path, "new", "acme.example", "k1", "--type", "ed25519")
    assert done.returncode == 0, done.stderr
    made, model = (tmp_path / "keys" / "acme.example.k1.pem").stat(), config.stat()
    assert (made.st_mode & 0o777, made.st_uid, made.st_gid) == (0o640, model.st_uid, model.st_gid)
    assert "should have an RSA key too" in done.stdout
    assert "root's alone" not in done.stdout


@pytest.mark.timeout(30)
def test_a_fifo_in_the_place_of_a_key_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "k.pem")
    with pytest.raises(KeyFileError, match="regular file"):
        load_key(DkimSettings(domain="acme.example", selector="k", key=tmp_path / "k.pem"))


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
