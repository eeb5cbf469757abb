"""The machinery of the demo: where everything is, what is started, and how it is stopped when it was left running.

One work folder has it all: keys, configuration, queue, ledger, logs.  Everything listens on loopback.  `World.start`
yields the name of each step as it begins it, for the progress display.  It fails with the testbed's StartError, which
shows the end of the log of what did not start.

`leave_running` writes state.json (process ids with their start times, so that a recycled id is never taken for ours);
`stop_world` reads it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from testbed.dns import DnsServer
from testbed.ports import accepts
from testbed.postfix import POOL_IPS, Postfix
from testbed.process import Process, wait_for
from testbed.rspamd import Rspamd
from testbed.sidecar import Sidecar
from testbed.sink import Sink

SELECTOR = "rw1"
OPERATOR = "relay.example"
TENANTS = {"acme": "transactional", "burst": "bulk", "spammy": "quarantine"}
BURST_LIMIT = 5
POOLS = {"transactional": ["tx1", "tx2"], "bulk": ["bk1"], "quarantine": ["q1"]}


class World:
    """The private mail system of one demo."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.passwords = {login: secrets.token_hex(8) for login in TENANTS}  # one that begins with "-" is an option
        self.running = contextlib.ExitStack()
        self.sink: Sink
        self.dns: DnsServer
        self.rspamd: Rspamd
        self.postfix: Postfix
        self.sidecar: Sidecar

    def start(self) -> Iterator[str]:
        enter = self.running.enter_context
        yield "keys: RSA-2048 for each tenant and for the relay"
        domains = [OPERATOR, *(f"{tenant}.example" for tenant in TENANTS)]
        records = {f"{SELECTOR}._domainkey.{domain}": {"TXT": make_key(self._key(domain))} for domain in domains}
        yield "DNS: unbound with the public keys, NXDOMAIN for the rest of the world"
        self.dns = enter(DnsServer(self.work / "dns", records))
        yield "the world: an SMTP server that receives"
        self.sink = enter(Sink())
        yield "rspamd, asking that DNS server only"
        self.rspamd = enter(Rspamd(self.work / "rspamd", dns=(self.dns.host, self.dns.port)))
        yield "Postfix, with the files of contrib/postfix"
        next_hop = f"[{self.sink.host}]:{self.sink.port}"
        self.postfix = Postfix(self.work / "postfix", users=self.passwords, next_hop=next_hop)
        enter(self.postfix)
        yield "relaywarden run: policyd and milter on one SQLite ledger"
        self.sidecar = enter(Sidecar(self.work / "relaywarden", self.config()))

    def config(self) -> dict[str, Any]:
        """What an operator writes; see contrib/postfix/relaywarden.yaml."""
        standard = {"messages": "10/s burst 50"}, {"recipients": "500/hour"}, {"recipients": "5_000/day"}
        return {
            "store": f"sqlite:///{self.work}/ledger.db",
            "policyd": {"listen": [f"unix:{self.postfix.policy_socket}"], "workers": 1},
            "milter": {"listen": f"unix:{self.postfix.milter_socket}", "workers": 1},
            "scan": {"url": self.rspamd.url, "timeout": "5s", "on_error": "tempfail"},
            "plans": {
                "standard": {"mode": "enforce", "limits": list(standard), "on_exceed": "defer"},
                "small": {"mode": "enforce", "limits": [{"messages": f"{BURST_LIMIT}/hour"}], "on_exceed": "defer"},
            },
            "unknown_login": "reject",
            "tenants": {
                tenant: {
                    "logins": [tenant],
                    "plan": "small" if tenant == "burst" else "standard",
                    "from_domains": [f"{tenant}.example"],
                    "dkim": [self._dkim(f"{tenant}.example")],
                    "pool": pool,
                }
                for tenant, pool in TENANTS.items()
            },
            "operator": {"dkim": [self._dkim(OPERATOR)]},
            "pools": {
                pool: {"members": {member: {"ip": POOL_IPS[member]} for member in members}} for pool, members in POOLS.items()
            },
            "route": {"header": "X-Virtual-MTA", "target": "member"},
        }

    def leave_running(self) -> None:
        """Let everything outlive this program; the sink becomes a process that writes to WORK/received/."""
        self.sink.stop()
        tests = Path(__file__).resolve().parents[2] / "tests"
        folder = self.work / "received"
        process = Process(
            "sink",
            [sys.executable, "-m", "testbed.sink", str(self.sink.port), str(folder)],
            self.work / "sink.log",
            ready=lambda: accepts((self.sink.host, self.sink.port)),
            env={"PYTHONPATH": str(tests)},
        )
        process.start()
        pids = {"sidecar": self.sidecar.pid, "postfix": self.postfix.pid, "rspamd": self.rspamd.pid}
        pids |= {"dns": self.dns.pid, "sink": process.pid}
        state = {name: [pid, started(pid)] for name, pid in pids.items()}
        (self.work / "state.json").write_text(json.dumps(state, indent=2) + "\n")
        self.running.pop_all()

    def _key(self, domain: str) -> Path:
        return self.work / "keys" / f"{domain}.{SELECTOR}.pem"

    def _dkim(self, domain: str) -> dict[str, str]:
        return {"domain": domain, "selector": SELECTOR, "key": str(self._key(domain))}


def make_key(path: Path) -> str:
    """Write a new private key (PKCS#8 PEM, 0600); the text of its DNS record is returned."""
    path.parent.mkdir(mode=0o755, exist_ok=True)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.touch(mode=0o600)
    path.write_bytes(pem)
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}"


def started(pid: int) -> str:
    """When a process started, in clock ticks since boot; empty if it is gone or only a zombie is left."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _gone(pid: int, start: str) -> bool:
    return started(pid) != start


def stop_world(work: Path) -> list[str]:
    """Stop what `leave_running` left; the names of what was still running."""
    state: dict[str, tuple[int, str]] = json.loads((work / "state.json").read_text())
    stopped = []
    for name, (pid, start) in state.items():
        if _gone(pid, start):
            continue
        os.kill(pid, signal.SIGTERM)
        wait_for(f"{name} does not stop", partial(_gone, pid, start), timeout=30)
        stopped.append(name)
    (work / "state.json").unlink()
    return stopped
