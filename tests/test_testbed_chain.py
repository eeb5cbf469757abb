"""The whole chain on real parts: AUTH, Postfix, policyd, rspamd, milter, ledger, pool transport, sink."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dkim
import pytest

from contrib.demo.world import make_key
from testbed.dns import DnsServer
from testbed.factories import PostfixFactory, SidecarFactory, WorkFolder
from testbed.postfix import Postfix
from testbed.rspamd import GTUBE, Rspamd
from testbed.sidecar import Sidecar
from testbed.sink import Sink
from testbed.smtpclient import Client, Transaction, plain_message

pytestmark = pytest.mark.postfix
SENDER = "shop@acme.example"


@dataclass
class Chain:
    postfix: Postfix
    sidecar: Sidecar

    def send(self, subject: str, body: str = "Hello.", extra: str = "", login: str = "acme") -> Transaction:
        sender = f"shop@{login}.example"
        with Client(self.postfix.host, self.postfix.submission_port, login=login, password="secret") as client:
            return client.send(sender, ["you@b.test"], plain_message(sender, ["you@b.test"], subject, body, extra))


def _config(postfix: Postfix, rspamd: Rspamd, folder: Path, key: Path) -> dict[str, Any]:
    return {
        "store": f"sqlite:///{folder}/ledger.db",
        "policyd": {"listen": [f"unix:{postfix.policy_socket}"], "workers": 1},
        "milter": {"listen": f"unix:{postfix.milter_socket}", "workers": 1},
        "scan": {"url": rspamd.url},
        "plans": {"small": {"limits": [{"recipients": "2/hour"}]}, "large": {"limits": [{"recipients": "500/hour"}]}},
        "tenants": {
            "acme": {
                "plan": "large",
                "from_domains": ["acme.example"],
                "dkim": [{"domain": "acme.example", "selector": "chain", "key": str(key)}],
                "pool": "transactional",
            },
            "tiny": {"plan": "small", "pool": "bulk"},
        },
        "pools": {
            "transactional": {"members": {"tx1": {"ip": "127.0.0.11"}}},
            "bulk": {"members": {"bk1": {"ip": "127.0.0.21"}}},
            "quarantine": {"members": {"q1": {"ip": "127.0.0.31"}}},
        },
    }


@pytest.fixture(scope="module")
def chain(
    postfix_factory: PostfixFactory,
    sidecar_factory: SidecarFactory,
    rspamd: Rspamd,
    dns: DnsServer,
    work_folder: WorkFolder,
) -> Iterator[Chain]:
    folder = work_folder("chain")
    key = folder / "acme.pem"
    dns.add({"chain._domainkey.acme.example": {"TXT": make_key(key)}})
    postfix = postfix_factory(users={"acme": "secret", "tiny": "secret"})
    yield Chain(postfix, sidecar_factory(_config(postfix, rspamd, folder, key)))


def test_delivered_mail_is_signed_untagged_and_from_its_pool(chain: Chain, sink: Sink, dns: DnsServer) -> None:
    assert chain.send("chain", extra="X-Virtual-MTA: bk1\n").accepted
    (received,) = sink.wait(1, where=lambda one: one.message["Subject"] == "chain")
    assert received.peer == "127.0.0.11"
    assert received.message["X-Virtual-MTA"] is None
    assert dkim.DKIM(received.raw).verify(dnsfunc=dns.txt)


def test_tenant_over_its_limit_is_told_to_wait(chain: Chain, sink: Sink) -> None:
    answers = [chain.send(f"tiny {number}", login="tiny").last.code for number in range(4)]
    assert answers == [250, 250, 450, 450]
    received = sink.wait(2, where=lambda one: one.sender == "shop@tiny.example")
    assert {one.peer for one in received} == {"127.0.0.21"}


def test_what_rspamd_refuses_is_refused(chain: Chain) -> None:
    refused = chain.send("spam", GTUBE)
    assert refused.end is not None
    assert refused.end.code == 554
    soft = chain.send("later", extra="X-Testbed-Action: soft reject\n")
    assert soft.end is not None
    assert 400 <= soft.end.code < 500
