"""In a real Postfix: a broadcast over the transactional login is noticed, diverted, held, told once, and undone."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from testbed.factories import PostfixFactory, SidecarFactory
from testbed.postfix import Postfix
from testbed.process import wait_for
from testbed.sidecar import Sidecar
from testbed.sink import Sink
from testbed.smtpclient import Client

pytestmark = pytest.mark.postfix
NEWSLETTER = """<html><body><h1>Black Friday week is here</h1>
<p>Hi {name}, our biggest sale of the year has started. Save up to 70% on everything in the shop, and enjoy free shipping until
Sunday night. Do not miss out on the deals of the season!</p>
<p><a href="https://shop.acme.example/sale?u={n}"><img src="https://cdn.acme.example/banner.png"></a></p>
<p><a href="https://shop.acme.example/women?u={n}">Shop women</a> <a href="https://shop.acme.example/men?u={n}">Shop men</a>
<a href="https://shop.acme.example/new?u={n}">New arrivals</a></p>
<p>You receive this newsletter because you subscribed to our mailing list.
<a href="https://shop.acme.example/unsubscribe?u={n}">Unsubscribe</a> |
<a href="https://shop.acme.example/view?u={n}">View in browser</a></p>
</body></html>"""
RECEIPT = """<html><body><p>Dear {name}, thank you for your order {n}. We have received your payment of {n}.90 EUR.</p>
<p>Your parcel is on its way; the tracking number is 00340{n}.</p></body></html>"""
STEPS = ("normal", "watched", "slowed", "diverted", "held", "suspended")


class Hook:
    """A webhook's receiver."""

    def __init__(self) -> None:
        self.notices: list[dict[str, Any]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # http.server's name
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.notices.extend(json.loads(body)["notices"])
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # http.server's name
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def hook() -> Iterator[Hook]:
    found = Hook()
    yield found
    found.close()


class Story:
    """One tenant's mail, and what became of it."""

    def __init__(self, postfix: Postfix, sink: Sink, sidecar: Sidecar) -> None:
        self.postfix, self.sink, self.sidecar = postfix, sink, sidecar
        self.accepted = 0
        self.refused = 0

    def connect(self, address: str) -> Client:
        return Client(self.postfix.host, self.postfix.xclient_port, xclient={"LOGIN": "acme", "ADDR": address}, helo=address)

    def send(self, client: Client, subject: str, text: str, recipient: str, number: int) -> None:
        body = text.format(name=f"Name{number}", n=number)
        head = (
            f"From: Acme <shop@acme.example>\r\nTo: <{recipient}>\r\nSubject: {subject}\r\nDate: {formatdate()}\r\n"
            "MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n"
        )
        message = (head + "\r\n" + body.replace("\n", "\r\n") + "\r\n").encode()
        sent = client.send("shop@acme.example", [recipient], message)
        if sent.accepted:
            self.accepted += 1
        else:
            self.refused += 1

    def step(self) -> str:
        done = self.sidecar.cli("tenants", "--json")
        (item,) = json.loads(done.stdout)
        return str(item["standing"])


@pytest.fixture
def world(postfix_factory: PostfixFactory, sidecar_factory: SidecarFactory, sink: Sink, hook: Hook) -> Story:
    postfix = postfix_factory(users={"acme": "secret"})
    sidecar = sidecar_factory({
        "store": f"sqlite:///{postfix.work}/ledger.db",
        "policyd": {"listen": f"unix:{postfix.policy_socket}"},
        "milter": {"listen": f"unix:{postfix.milter_socket}", "workers": 2},
        "monitor": {"postfix_log": str(postfix.log), "interval": "200ms"},
        "dns": {"every": None},
        "notify": {"webhooks": [{"url": hook.url}], "batch": "100ms"},
        "plans": {"p": {"patterns": {"start": 100}}},
        "tenants": {"acme": {"plan": "p"}},
        "pools": {
            "transactional": {"members": {"tx1": {"ip": "127.0.0.11"}}},
            "quarantine": {"members": {"q1": {"ip": "127.0.0.31"}}},
        },
    })  # fmt: skip
    return Story(postfix, sink, sidecar)


def test_a_broadcast_is_noticed_held_and_undone(world: Story, hook: Hook) -> None:
    with world.connect("192.0.2.10") as client:
        for number in range(20):
            world.send(client, f"Your order {number}", RECEIPT, f"c{number}@customers.test", number)
    assert world.step() == "normal"

    begun, number = time.monotonic(), 0
    steps: list[tuple[str, int, float]] = []
    with world.connect("203.0.113.7") as client:
        while time.monotonic() - begun < 60:
            for _ in range(25):
                number += 1
                recipient = f"list{number}@{'gone' if number % 8 == 0 else 'list'}{number % 40}.test"
                if number % 8 == 0:
                    world.sink.replies[recipient] = "550 5.1.1 no such user"
                world.send(client, "Black Friday: up to 70% off everything", NEWSLETTER, recipient, number)
            step = world.step()
            if not steps or steps[-1][0] != step:
                steps.append((step, number, round(time.monotonic() - begun, 1)))
            if step in ("held", "suspended"):
                break
    reached = [step for step, _, _ in steps]
    assert "held" in reached or "suspended" in reached, steps
    assert steps[1][1] <= 300, steps  # messages until the first step

    crossed = [notice for notice in hook.notices if notice["key"] == "tenant:acme:standing"]
    wait_for("the notice", lambda: any(notice["key"] == "tenant:acme:standing" for notice in hook.notices))
    assert len(crossed) <= 1
    said = world.sidecar.cli("explain", "acme").stdout
    assert "relaywarden resume acme" in said, said

    with world.connect("203.0.113.7") as client:  # what comes now waits in the hold queue
        for extra in range(5):
            world.send(client, "Black Friday: last hours", NEWSLETTER, f"late{extra}@list.test", extra)
    held = [entry for entry in world.postfix.queue() if entry["queue_name"] == "hold"]
    assert world.sidecar.cli("resume", "acme").returncode == 0
    assert world.step() == "normal"
    done = world.sidecar.cli("release", "acme", "--postfix", str(world.postfix.config))
    assert (done.returncode == 0) == bool(held), done.stderr
    world.postfix.wait_empty(timeout=60)
    arrived = sum(1 for message in world.sink.messages if message.sender == "shop@acme.example")
    assert arrived + sum(world.sink.refused.values()) == world.accepted  # no message was lost
    with world.connect("192.0.2.10") as client:
        for number in range(5):
            world.send(client, f"Your order {number}", RECEIPT, f"again{number}@customers.test", number)
    assert world.step() == "normal"
