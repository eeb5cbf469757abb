"""milterpeers - the milters that are compared, started as their documentation has it, all with one key.

Each yields a `Peer`: a name, the milter's Unix socket, and the processes whose CPU time its messages cost.

* relaywarden: workers, SQLite ledger, logging a line a message to a file, as in production;
* OpenDKIM: relaxed/relaxed, the header fields that relaywarden signs, its own thread pool (Debian's libmilter), without
  syslog (a default of the program; Debian's package logs two lines a message);
* rspamd: Debian's rules (testbed.rspamd says what is off) with hyperscan, two scanning workers; its own milter twice, with
  `self_scan` (the proxy worker scans) and with an upstream (as Debian has it), each with two workers and dkim_signing.

Fails with the testbed's StartError.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bench_policyd import children, cpu_seconds
from milterload import DOMAIN, LOGIN, SELECTOR
from relaywarden_milter.sign import FIELDS
from testbed.dns import DnsServer
from testbed.ports import accepts
from testbed.process import Process, program, wait_for
from testbed.rspamd import Rspamd
from testbed.sidecar import Sidecar

TENANT = LOGIN.decode()
_HYPERSCAN_SECONDS = 120.0
_PROXIES = """
worker "rspamd_proxy" {{
  bind_socket = "{work}/self_scan.sock mode=0666";
  milter = yes; timeout = 120s; count = {workers};
  upstream "local" {{ default = yes; self_scan = yes; }}
}}
worker "rspamd_proxy" {{
  bind_socket = "{work}/upstream.sock mode=0666";
  milter = yes; timeout = 120s; count = {workers};
  upstream "local" {{ default = yes; hosts = "{host}:{port}"; }}
}}
"""
_SIGNING = """
enabled = true;
allow_username_mismatch = true;
use_esld = false;
sign_headers = "{fields}";
domain {{ {domain} {{ selector = "{selector}"; path = "{key}"; }} }}
"""


@dataclass(frozen=True)
class Key:
    """An RSA-2048 key: its file, and its DNS record."""

    path: Path
    record: bytes


@dataclass(frozen=True)
class Peer:
    """A running milter; `pids` are its processes, without their children."""

    name: str
    address: str
    pids: list[int] = field(default_factory=list)

    def cpu(self) -> float:
        """CPU seconds of it and all its children so far."""
        return sum(_tree_cpu(pid) for pid in self.pids)


def _tree_cpu(pid: int) -> float:
    return cpu_seconds(pid) + sum(_tree_cpu(child) for child in children(pid))


def make_key(work: Path) -> Key:
    """A new key for everybody."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path = work / "key.pem"
    path.touch(mode=0o600)
    pkcs1 = serialization.PrivateFormat.TraditionalOpenSSL  # OpenDKIM and rspamd know both forms, but say so of this one
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs1, serialization.NoEncryption()))
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Key(path, b"v=DKIM1; k=rsa; p=" + base64.b64encode(public))


def configuration(work: Path, key: Key, workers: int, listen: str) -> dict[str, Any]:
    """What an operator writes for a tenant without pools; limits that no bench reaches."""
    return {
        "store": f"sqlite:///{work}/ledger.db",
        "milter": {"listen": listen, "workers": workers},
        "plans": {"standard": {"limits": [{"recipients": f"1_000_000_000/{unit}"} for unit in ("minute", "hour", "day")]}},
        "tenants": {
            TENANT: {
                "plan": "standard",
                "from_domains": [DOMAIN],
                "dkim": [{"domain": DOMAIN, "selector": SELECTOR, "key": str(key.path)}],
            }
        },
    }


@contextmanager
def relaywarden(work: Path, key: Key, workers: int, rspamd: Rspamd | None = None) -> Iterator[Peer]:
    """Our milter, as an operator runs it; with the scanner it asks, whose CPU time counts too."""
    config = configuration(work, key, workers, f"unix:{work}/milter")
    if rspamd is not None:
        config["scan"] = {"url": rspamd.url, "timeout": "10s", "on_error": "tempfail"}
    with Sidecar(work, config, "milter") as sidecar:
        yield Peer("relaywarden", f"{work}/milter", [sidecar.pid, *([rspamd.pid] if rspamd else [])])


@contextmanager
def opendkim(work: Path, key: Key) -> Iterator[Peer]:
    """OpenDKIM, signing for everyone who is logged in."""
    conf, path = work / "opendkim.conf", work / "opendkim.sock"
    conf.write_text(
        f"Mode s\nDomain {DOMAIN}\nSelector {SELECTOR}\nKeyFile {key.path}\nCanonicalization relaxed/relaxed\n"
        f"SignHeaders {','.join(sorted(FIELDS))}\nOversignHeaders From\nInternalHosts 0.0.0.0/0\nMacroList {{auth_type}}\n"
        "Syslog no\nBackground no\nRequireSafeKeys no\nUMask 000\n"
    )
    argv = [program("opendkim", "opendkim"), "-f", "-x", str(conf), "-p", f"local:{path}"]
    with Process("opendkim", argv, work / "opendkim.log", ready=lambda: accepts(str(path))) as process:
        yield Peer("opendkim", str(path), [process.pid])


@contextmanager
def scanner(work: Path, dns: DnsServer, workers: int) -> Iterator[Rspamd]:
    """rspamd for ours: normal workers alone."""
    with Rspamd(work, dns=(dns.host, dns.port), lua="", workers=workers, stock_urls=True) as rspamd:
        _wait_for_hyperscan(rspamd, workers)
        yield rspamd


@contextmanager
def rspamd_milters(work: Path, dns: DnsServer, key: Key, workers: int) -> Iterator[list[Peer]]:
    """rspamd with the same rules and its own milter and signing."""
    rspamd = Rspamd(work, dns=(dns.host, dns.port), lua="", workers=workers, stock_urls=True)
    fields = ":".join(["(o)from", *sorted(FIELDS - {"from"})])
    rspamd.local_d["dkim_signing.conf"] = _SIGNING.format(domain=DOMAIN, selector=SELECTOR, key=key.path, fields=fields)
    # common.conf includes this file at its top level, where a worker can be added.
    rspamd.local_d["../rspamd.conf.local"] = _PROXIES.format(work=work, workers=workers, host=rspamd.host, port=rspamd.port)
    with rspamd:
        _wait_for_hyperscan(rspamd, 2 * workers)  # the normal ones, and the proxies that scan themselves
        names = ("self_scan", "upstream")
        for name in names:
            wait_for(f"rspamd's milter ({name})", lambda name=name: accepts(f"{work}/{name}.sock"), log=rspamd.log)  # type: ignore[misc]
        yield [Peer(f"rspamd, {name}", f"{work}/{name}.sock", [rspamd.pid]) for name in names]


def _wait_for_hyperscan(rspamd: Rspamd, workers: int) -> None:
    """The rules are compiled after the start; a worker's scans before it loaded them are slower."""

    def loaded() -> bool:
        lines = rspamd.log.read_text(errors="replace").splitlines()
        return sum("hyperscan database of" in line and "(main)" not in line for line in lines) >= workers

    wait_for("rspamd's hyperscan", loaded, timeout=_HYPERSCAN_SECONDS, log=rspamd.log)


def readable_work(work: Path) -> Path:
    """Let the users of the peers enter a folder of ours."""
    work.mkdir(parents=True, exist_ok=True)
    os.chmod(work, 0o755)  # noqa: PTH101, S103
    return work
