"""The whole program on a real Postfix: what the world answered is what the monitor counted, and it has consequences."""

from __future__ import annotations

import json
import os
import smtplib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from typing import Any

import pytest

from relaywarden import steering, warmup
from relaywarden.config.load import load
from relaywarden.ledger.connect import open_ledger
from relaywarden.ledger.records import HOUR_MS, History, Hours
from relaywarden.outcomes import total
from relaywarden_monitor.classify import rules
from relaywarden_monitor.verdict import Scope
from testbed.classifying import classifier
from testbed.factories import PostfixFactory, SidecarFactory
from testbed.postfix import Postfix
from testbed.process import wait_for
from testbed.sidecar import Sidecar
from testbed.sink import Received, Sink
from testbed.smtpclient import Client, Transaction, plain_message

pytestmark = pytest.mark.postfix
REPORTS = "relaywarden/reports"
TENANTS = ("acme", "letters", "shop")
# A destination that refuses is asked again at once, and what was put off waits for the test.
PATIENT = {
    "default_destination_concurrency_failed_cohort_limit": "100000",
    "minimal_backoff_time": "1h",
    "maximal_backoff_time": "2h",
}


@dataclass
class World:
    postfix: Postfix
    sink: Sink
    sidecar: Sidecar

    def send(self, tenant: str, recipient: str, client: Client | None = None) -> Transaction:
        """One message; it must be taken unless the test looks at what it gives back."""
        sender = f"shop@{tenant}.example"
        message = plain_message(sender, [recipient], "Your receipt", extra=f"Date: {formatdate()}\n")
        if client is not None:
            return client.send(sender, [recipient], message)
        with Client(self.postfix.host, self.postfix.submission_port, login=tenant, password="secret") as own:
            return own.send(sender, [recipient], message)

    def report(self, recipient: str, message: bytes) -> None:
        """By LMTP, as the MX's Postfix hands it over."""
        with smtplib.LMTP(f"{self.postfix.spool}/{REPORTS}") as client:
            client.sendmail("mailer@provider.test", [recipient], message)

    def json(self, *arguments: str) -> Any:
        done = self.sidecar.cli(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def today(self, tenant: str) -> dict[str, int]:
        return dict(self.json("show", tenant)["counters"]["today"])

    def has_counted(self, tenant: str, expected: Mapping[str, int]) -> bool:
        today = self.today(tenant)
        return all(today[name] == amount for name, amount in expected.items())

    def by_scope(self, tenant: str) -> dict[str, int]:
        """deferred and bounced of today by the scope of the reply."""
        ledger = open_ledger(load(self.sidecar.file))
        try:
            now_ms = steering.read(ledger).now_ms
            (found,) = ledger.apply([History(tenant, now_ms - 2 * HOUR_MS, now_ms)])
        finally:
            ledger.close()
        assert isinstance(found, Hours)
        return {
            name: amount for name, amount in total(found.hours.values()).items() if name.startswith(("deferred.", "bounced."))
        }

    def received(self, recipient: str) -> Received:
        (found,) = self.sink.wait(1, where=lambda one: recipient in one.recipients)
        return found


@pytest.fixture(scope="module")
def world(postfix_factory: PostfixFactory, sidecar_factory: SidecarFactory, sink: Sink) -> Iterator[World]:
    postfix = postfix_factory(
        users=dict.fromkeys(TENANTS, "secret"),
        settings={
            **PATIENT,
            "transport_maps": "inline:{{bounces.test=relaywarden-lmtp:unix:" + REPORTS + "}}",
            "relay_domains": "bounces.test",
        },
        extra_master="\nrelaywarden-lmtp unix - - n - 4 lmtp\n  -o syslog_name=postfix/reports\n",
    )
    secret = postfix.work / "feedback.secret"
    secret.write_bytes(os.urandom(32))
    secret.chmod(0o600)
    sidecar = sidecar_factory({
        "store": f"sqlite:///{postfix.work}/ledger.db",
        "policyd": {"listen": f"unix:{postfix.policy_socket}"},
        "milter": {"listen": f"unix:{postfix.milter_socket}", "workers": 2},
        "monitor": {"postfix_log": str(postfix.log), "listen": f"unix:{postfix.spool}/{REPORTS}", "interval": "100ms"},
        "dns": {"every": None},
        "plans": {"p": {"health": {"min_sample": 100_000}}},
        "tenants": {name: {"plan": "p"} for name in TENANTS},
        "operator": {
            "feedback": {
                "sender_id": "relaytest", "secret": str(secret),
                "address": "fbl@bounces.test", "bounces": "bounce@bounces.test",
            },
        },
        "pools": {"transactional": {"members": {"tx1": {"ip": "127.0.0.11"}, "tx2": {"ip": "127.0.0.12"}}}},
    })  # fmt: skip
    yield World(postfix, sink, sidecar)
    sink.replies.clear()


def replies() -> list[str]:
    """A reply for every rule that knows one: what providers document, and what mail servers say."""
    found = [" ".join(text.split()) for path in rules.BUILT_IN for rule in rules.read(path) for text in rule.examples]
    return sorted(
        {
            text
            for text in found
            if text[:3].isdecimal() and text[0] in "45" and text[3:4] == " " and text.isascii() and len(text) < 400
        }
    )


def test_the_counters_are_what_the_world_said(world: World) -> None:
    texts = replies()
    assert len(texts) > 190
    kinds = {name: Counter[str]() for name in TENANTS[:2]}
    scopes = {name: Counter[str]() for name in TENANTS[:2]}
    for tenant, counts in kinds.items():
        with Client(world.postfix.host, world.postfix.submission_port, login=tenant, password="secret") as client:
            for number, text in enumerate(texts):
                recipient = f"r{number}.{tenant}@dest{number}.test"
                world.sink.replies[recipient] = text
                assert world.send(tenant, recipient, client).accepted
                kind = "bounced" if text[0] == "5" else "deferred"
                counts[kind] += 1
                scopes[tenant][f"{kind}.{classifier().classify(text).scope.value}"] += 1
            for number in range(20):
                assert world.send(tenant, f"ok{number}.{tenant}@fine.test", client).accepted
                counts["delivered"] += 1
    for tenant, expected in kinds.items():
        wait_for(
            f"the counters of {tenant} are not those of the sink", partial(world.has_counted, tenant, expected), timeout=30
        )
        assert world.by_scope(tenant) == scopes[tenant]
        asked = {recipient for recipient in world.sink.refused if f".{tenant}@" in recipient}
        assert len(asked) == expected["bounced"] + expected["deferred"]  # what the world itself says
    pools = {member["member"]: member for pool in world.json("pools") for member in pool["members"]}
    carried = Counter[str]()
    for member in pools.values():
        for provider in member["providers"]:
            carried.update({name: provider["today"][name] for name in warmup.JUDGED})
    whole = kinds["acme"] + kinds["letters"]
    # Notifications of bounces come to us, by LMTP; they are nobody's mail and go by no member.
    assert carried == whole


def test_a_message_tells_its_story(world: World) -> None:
    world.sink.replies["gone@story.test"] = "550 5.1.1 <gone@story.test>: no such user here"
    sent = world.send("shop", "gone@story.test")
    wait_for("it bounced", lambda: world.today("shop")["bounced"] == 1)
    done = world.sidecar.cli("explain", sent.queue_id)
    for part in ("shop", "gone@story.test", "5.1.1", "no such user here", "tx", "bounced"):
        assert part in done.stdout, done.stdout
    again = world.send("shop", "gone@story.test")
    assert (again.last.code, "suppression list" in again.last.text) == (554, True), again.last
    assert "gone@story.test" in world.sidecar.cli("suppress", "list", "shop").stdout


def test_complaints_and_late_bounces_come_home(world: World) -> None:
    sent = world.send("shop", "reader@home.test")
    received = world.received("reader@home.test")
    fbl = received.message["CFBL-Address"].partition(";")[0]
    late = received.sender
    assert late.startswith("bounce+")
    before = world.today("shop")
    for _ in range(2):  # a report that is sent twice counts once
        world.report(fbl, _complaint(received))
    wait_for("the complaint", lambda: world.today("shop")["complained"] == before["complained"] + 1)
    forged = fbl.replace("fbl+", "fbl+a")
    world.report(forged, _complaint(received, forged=True))
    world.report(late, _dsn("reader@home.test"))
    wait_for("the late bounce", lambda: world.today("shop")["bounced"] == before["bounced"] + 1)
    wait_for("the forged report", lambda: "forged=True" in world.sidecar.log.read_text())
    assert world.today("shop")["complained"] == before["complained"] + 1
    assert not world.send("shop", "reader@home.test").accepted  # he complained
    assert "complained" in world.sidecar.cli("explain", sent.queue_id).stdout


def test_a_provider_that_blames_an_address_gets_rest(world: World) -> None:
    text = (
        "421 4.7.28 Our system has detected an unusual rate of unsolicited mail originating from your IP address. "
        "To protect our users from spam, mail sent from your IP address has been temporarily rate limited. gsmtp"
    )
    assert classifier().classify(text).scope in (Scope.IP, Scope.RATE)
    for number in range(12):
        world.sink.replies[f"u{number}@gmail.com"] = text
        assert world.send("shop", f"u{number}@gmail.com").accepted
    settings = load(world.sidecar.file)
    ledger = open_ledger(settings)
    try:

        def paused() -> list[str]:
            words = steering.read(ledger)
            return [name for name, entry in words.members.items() if warmup.pause_of(entry, "google", words.now_ms)]

        wait_for("a member is paused", lambda: bool(paused()))
        (state,) = [steering.read(ledger).members[name] for name in paused()[:1]]
        found = warmup.pause_of(state, "google", 0)
        assert found is not None
        assert (found.by, "unusual rate" in found.reason) == ("monitor", True)
    finally:
        ledger.close()
    assert "monitor" in world.sidecar.cli("pools").stdout


def _complaint(received: Received, *, forged: bool = False) -> bytes:
    head = received.raw.partition(b"\r\n\r\n")[0].decode()
    if forged:
        head = "\r\n".join(line for line in head.split("\r\n") if not line.lower().startswith(("feedback-id", "cfbl-")))
    text = (
        "From: fbl@provider.test\nTo: fbl@bounces.test\nSubject: FW: Your receipt\nMIME-Version: 1.0\n"
        "Content-Type: multipart/report; report-type=feedback-report; boundary=x\n\n"
        "--x\nContent-Type: text/plain\n\nThis is a complaint.\n"
        "--x\nContent-Type: message/feedback-report\n\nFeedback-Type: abuse\nUser-Agent: Test/1\nVersion: 1\n"
        "Original-Rcpt-To: <reader@home.test>\n"
        f"--x\nContent-Type: text/rfc822-headers\n\n{head}\n--x--\n"
    )
    return text.replace("\r\n", "\n").replace("\n", "\r\n").encode()


def _dsn(recipient: str) -> bytes:
    text = (
        "From: MAILER-DAEMON@provider.test\nTo: bounce@bounces.test\nSubject: Undelivered\nMIME-Version: 1.0\n"
        "Content-Type: multipart/report; report-type=delivery-status; boundary=y\n\n"
        "--y\nContent-Type: text/plain\n\nIt could not be delivered.\n"
        "--y\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mx.provider.test\n\n"
        f"Final-Recipient: rfc822; {recipient}\nAction: failed\nStatus: 5.2.1\n"
        "Diagnostic-Code: smtp; 550 5.2.1 The email account that you tried to reach is disabled\n--y--\n"
    )
    return text.replace("\n", "\r\n").encode()
