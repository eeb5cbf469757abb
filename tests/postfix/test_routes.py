"""Each pool's mail leaves from its own address, by what relaywarden decides and never by what a client sends.

Real milter, real Postfix, loopback addresses as pool members; then the same with a stand-in for PowerMTA as the only next hop.
"""

from __future__ import annotations

from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from relaywarden import steering
from relaywarden.config.load import load
from relaywarden.ledger.connect import open_ledger
from testbed.factories import PostfixFactory, SidecarFactory
from testbed.postfix import Postfix
from testbed.postfixconf import WITHOUT_POLICYD
from testbed.process import wait_for
from testbed.sidecar import Sidecar
from testbed.sink import Received, Sink
from testbed.smtpclient import Client, plain_message

pytestmark = pytest.mark.postfix
USERS = {"acme": "secret", "letters": "secret"}
FORGED = (
    "X-Virtual-MTA: q1\nx-virtual-mta: bk1\nX-VIRTUAL-MTA :tx2\nX-Job: forged\nX-Envid: forged\nX-DKIM-Options: forged\n"
    "x-dkim-key: forged\nX-Schedule: forged\nX-Relaywarden-Score: forged\n"
)
NEWSLETTER = "Precedence: bulk\nList-Id: <news.letters.example>\nList-Unsubscribe: <https://letters.example/u>\n"


def config(postfix: Postfix, **change: Any) -> dict[str, Any]:
    base = {
        "store": f"sqlite:///{postfix.work}/ledger.db",
        "milter": {"listen": f"unix:{postfix.milter_socket}", "workers": 2},
        "plans": {"p": {"bulk": "divert"}},
        "tenants": {"acme": {"plan": "p"}, "letters": {"plan": "p"}},
        "pools": {
            "transactional": {"members": {"tx1": {"ip": "127.0.0.11"}, "tx2": {"ip": "127.0.0.12"}}},
            "bulk": {"members": {"bk1": {"ip": "127.0.0.21"}}},
            "quarantine": {"members": {"q1": {"ip": "127.0.0.31"}}},
        },
    }
    return {**base, **change}


def send(postfix: Postfix, sink: Sink, subject: str, extra: str = "", login: str = "acme") -> Received:
    sender = f"shop@{login}.example"
    message = plain_message(sender, ["b@b.test"], subject, extra=f"Date: {formatdate()}\n{extra}")
    with Client(postfix.host, postfix.submission_port, login=login, password="secret") as client:
        sent = client.send(sender, ["b@b.test"], message)
        assert sent.accepted, sent.last
    (received,) = sink.wait(1, where=lambda one: one.message["Subject"] == subject)
    return received


def leaked(received: Received) -> list[str]:
    return [name for name in received.message if name.lower().startswith(("x-virtual", "x-job", "x-envid", "x-relaywarden"))]


@pytest.fixture(scope="module")
def relay(postfix_factory: PostfixFactory, sidecar_factory: SidecarFactory) -> tuple[Postfix, Sidecar]:
    postfix = postfix_factory(users=USERS, settings=WITHOUT_POLICYD)
    return postfix, sidecar_factory(config(postfix), "milter")


def test_members_take_turns_and_bulk_goes_its_own_way(relay: tuple[Postfix, Sidecar], sink: Sink) -> None:
    postfix, _ = relay
    assert {send(postfix, sink, f"turn {number}").peer for number in range(8)} == {"127.0.0.11", "127.0.0.12"}
    newsletter = send(postfix, sink, "newsletter", NEWSLETTER, login="letters")
    assert newsletter.peer == "127.0.0.21"
    receipt = send(postfix, sink, "receipt", "List-Unsubscribe: <https://letters.example/u>\n", login="letters")
    assert receipt.peer in {"127.0.0.11", "127.0.0.12"}


def test_a_forged_header_never_changes_the_route_and_never_leaves(relay: tuple[Postfix, Sidecar], sink: Sink) -> None:
    postfix, _ = relay
    for number in range(4):
        received = send(postfix, sink, f"forged {number}", FORGED)
        assert received.peer in {"127.0.0.11", "127.0.0.12"}
        assert leaked(received) == []
        assert b"forged:" not in received.raw.replace(b"Subject: forged", b"")
        assert not any("forged" in str(value) for name, value in received.message.items() if name != "Subject")


def test_a_diverted_tenant_takes_the_quarantine_pool_from_the_next_second_on(
    relay: tuple[Postfix, Sidecar], sink: Sink
) -> None:
    postfix, sidecar = relay
    ledger = open_ledger(load(sidecar.file))
    try:
        ledger.apply([steering.say("tenants", {"acme": {"divert": "complaints"}})])
        numbers = iter(range(1000))
        wait_for("the diversion", lambda: send(postfix, sink, f"diverted {next(numbers)}").peer == "127.0.0.31", every=0.2)
        assert send(postfix, sink, "another tenant", login="letters").peer != "127.0.0.31"
        ledger.apply([steering.say("tenants", {"acme": None})])
        wait_for("the way back", lambda: send(postfix, sink, f"back {next(numbers)}").peer != "127.0.0.31", every=0.2)
    finally:
        ledger.close()


@pytest.mark.parametrize("target", ["member", "pool"])
def test_powermta_is_told_pool_tenant_and_message(
    postfix_factory: PostfixFactory, sidecar_factory: SidecarFactory, sink: Sink, target: str
) -> None:
    postfix = postfix_factory(users=USERS, settings=WITHOUT_POLICYD, pmta=True)
    sidecar_factory(config(postfix, route={"target": target, "powermta": True}), "milter")
    received = send(postfix, sink, f"to powermta by {target}", FORGED)
    tags = {name.lower(): value for name, value in received.message.items() if name.lower().startswith("x-")}
    queue_id = tags.pop("x-envid")
    chosen = tags.pop("x-virtual-mta")
    assert tags == {"x-job": "acme"}  # and nothing that the client sent
    assert chosen in ({"tx1", "tx2"} if target == "member" else {"transactional"})
    assert queue_id in Path(postfix.log).read_text()


def test_a_flood_of_forged_headers_is_refused_and_postfix_lives(relay: tuple[Postfix, Sidecar], sink: Sink) -> None:
    """Postfix searches its queue file for each header that a milter deletes: 16,000 of them end its cleanup by a panic."""
    postfix, _ = relay
    message = plain_message("shop@acme.example", ["b@b.test"], "flood", extra="X-Job: a\n" * 12_000)
    with Client(postfix.host, postfix.submission_port, login="acme", password="secret") as client:
        sent = client.send("shop@acme.example", ["b@b.test"], message)
    assert (sent.last.code, "too many control headers" in sent.last.text) == (554, True)
    assert "panic" not in Path(postfix.log).read_text()
    assert send(postfix, sink, "after the flood").peer in {"127.0.0.11", "127.0.0.12"}
