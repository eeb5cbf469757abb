"""The ledger equals Postfix's own log, whichever restriction lists policyd is wired to.

Each wiring gets the same mail through a real Postfix: messages with 1 to 40 recipients, some of which Postfix refuses by
itself after policyd admitted them; transactions given up by RSET, by a new MAIL and by hanging up; mail that rspamd
refuses; several messages on one connection.  RELAYWARDEN_MESSAGES sets how many (2,000 in `make campaign`).
"""

from __future__ import annotations

import json
import os
import random
import re
import smtplib
from dataclasses import dataclass
from typing import Any

import pytest

from testbed.factories import PostfixFactory, SidecarFactory
from testbed.postfix import Postfix
from testbed.process import StartError, wait_for
from testbed.redis import RedisServer
from testbed.rspamd import GTUBE, Rspamd
from testbed.sidecar import Sidecar
from testbed.sink import Sink

pytestmark = pytest.mark.postfix
MESSAGES = int(os.environ.get("RELAYWARDEN_MESSAGES", "60"))
OFF = "permit_sasl_authenticated, reject"
# Postfix refuses some recipients by itself, after policyd has seen them.
ASK = "check_policy_service { unix:relaywarden/policy, timeout=10s, default_action=451 }"
RCPT = f"{ASK}, check_recipient_access regexp:{{ {{/^refused/ 550 5.1.1 no such user}} }}, {OFF}"
OFF_TOO = f"check_recipient_access regexp:{{ {{/^refused/ 550 5.1.1 no such user}} }}, {OFF}"
WIRINGS = {
    "rcpt": (RCPT, "", ""),
    "data": (OFF_TOO, ASK, ""),
    "end-of-message": (OFF_TOO, "", ASK),
    "all": (RCPT, ASK, ASK),
    "milter alone": (OFF_TOO, "", ""),
}


@dataclass
class Sent:
    """What was accepted, as the client was told it."""

    messages: int = 0
    recipients: int = 0
    size: int = 0
    rejected: int = 0
    rejected_recipients: int = 0
    rejected_size: int = 0


def make_message(number: int, body: str) -> bytes:
    text = (
        f"From: shop@acme.example\r\nTo: customers@b.test\r\nSubject: order {number}\r\n"
        f"Date: Tue, 24 Nov 2026 08:00:00 +0000\r\nMessage-ID: <{number}@acme.example>\r\n\r\n{body}\r\n"
    )
    return text.encode()


def send_all(postfix: Postfix, count: int) -> Sent:
    """The same mail for every wiring."""
    chance, sent = random.Random(20261124), Sent()
    client: smtplib.SMTP | None = None
    for number in range(count):
        if client is None:
            client = smtplib.SMTP(postfix.host, postfix.submission_port, timeout=30)
            client.ehlo("client.test")
            client.login("acme", "secret")
        client.mail("shop@acme.example", ["SIZE=900"] if chance.random() < 0.5 else [])
        most = chance.choice([1, 1, 1, 2, 3, 5, 40])
        names = [f"{'refused' if chance.random() < 0.2 else 'user'}{n}.{number}@b.test" for n in range(most)]
        accepted = sum(client.rcpt(name)[0] == 250 for name in names)
        fate = chance.random()
        if fate < 0.05:
            client.rset()
        elif fate < 0.1:
            client.close()  # hangs up in mid-transaction
            client = None
        elif accepted:
            gtube = fate < 0.15
            message = make_message(number, GTUBE if gtube else "Thank you. " * chance.randrange(1, 300))
            code, text = client.data(message)
            if gtube:
                assert code == 554, text
                sent.rejected += 1
                sent.rejected_recipients += accepted
                sent.rejected_size += len(message)
            else:
                assert code == 250, text
                sent.messages += 1
                sent.recipients += accepted
                sent.size += len(message)
        else:
            client.rset()
    if client is not None:
        client.quit()
    return sent


def logged(postfix: Postfix) -> tuple[int, int]:
    """(messages, recipients) as qmgr took them into the active queue."""
    lines = re.findall(r"qmgr\[\d+\]: (\w+): from=.*nrcpt=(\d+) \(queue active\)", postfix.log.read_text())
    return len({queue_id for queue_id, _ in lines}), sum(int(count) for _, count in dict(lines).items())


def config(postfix: Postfix, rspamd: Rspamd, store: str) -> dict[str, Any]:
    limits = [
        {"messages": "100000/hour"},
        {"recipients": "1000000/day"},
        {"bytes": "9GiB/day"},
        {"recipients": "1000/s burst 5000"},
    ]
    return {
        "store": store,
        "policyd": {"listen": f"unix:{postfix.policy_socket}"},
        "milter": {"listen": f"unix:{postfix.milter_socket}"},
        "scan": {"url": rspamd.url},
        "plans": {"standard": {"limits": limits}},
        "tenants": {"acme": {"plan": "standard"}},
    }


def told(sidecar: Sidecar) -> dict[str, Any]:
    done = sidecar.cli("show", "acme", "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
@pytest.mark.parametrize("wiring", WIRINGS)
def test_the_ledger_equals_the_log(
    postfix_factory: PostfixFactory,
    sidecar_factory: SidecarFactory,
    redis_server: RedisServer,
    rspamd: Rspamd,
    sink: Sink,
    wiring: str,
    kind: str,
) -> None:
    rcpt, data, end = WIRINGS[wiring]
    lists = {
        "relaywarden_recipient_restrictions": rcpt,
        "relaywarden_data_restrictions": data,
        "relaywarden_end_of_data_restrictions": end,
    }
    postfix = postfix_factory(users={"acme": "secret"}, settings=lists)
    store = redis_server.url if kind == "redis" else f"sqlite:///{postfix.work}/ledger.db"
    sidecar = sidecar_factory(config(postfix, rspamd, store))
    sent = send_all(postfix, MESSAGES)
    assert sent.messages > 0
    assert sent.rejected > 0
    postfix.wait_empty(timeout=120)
    assert logged(postfix) == (sent.messages, sent.recipients)
    # What was given up is refunded when the milter hears of it, which may be after the client's last reply.
    expected = (sent.messages + sent.rejected, sent.recipients + sent.rejected_recipients, sent.size + sent.rejected_size)

    def counters() -> tuple[int, int, int]:
        today = told(sidecar)["counters"]["today"]
        return today["messages"], today["recipients"], today["bytes"]

    try:
        wait_for("the ledger", lambda: counters() == expected, timeout=20)
    except StartError:
        assert counters() == expected
    shown = told(sidecar)
    assert [row["used"] for row in shown["used"]][:3] == list(expected)
    assert shown["counters"]["today"]["rejected"] == sent.rejected
    assert shown["counters"]["today"]["refused"] == 0
    sink.clear()
