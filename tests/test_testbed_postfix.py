"""contrib/postfix, as it is, on a real Postfix: what policyd is asked, which transport a tag picks, what gets out.

policyd and the milter are stand-ins here (`testbed.standins`), so that these tests say something about the Postfix side
alone: the wiring, the fragments, and the traps that they are to avoid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from testbed.factories import PostfixFactory
from testbed.postfix import Postfix
from testbed.process import wait_for
from testbed.sink import Received, Sink
from testbed.smtpclient import Client, Transaction, plain_message
from testbed.standins import PolicyStandIn, TaggingMilter

pytestmark = pytest.mark.postfix
USERS = {"acme": "secret", "mail@acme.example": "another"}
SENDER = "news@acme.example"


@dataclass
class Relay:
    postfix: Postfix
    policy: PolicyStandIn
    sink: Sink

    def send(self, *recipients: str, subject: str = "hi", extra: str = "", login: str = "acme") -> Transaction:
        with Client(self.postfix.host, self.postfix.submission_port, login=login, password=USERS[login]) as client:
            return client.send(SENDER, recipients, plain_message(SENDER, recipients, subject, extra=extra))

    def delivered(self, subject: str) -> Received:
        return self.sink.wait(1, where=lambda message: message.message["Subject"] == subject)[0]


@pytest.fixture(scope="module")
def relay(postfix_factory: PostfixFactory, sink: Sink) -> Iterator[Relay]:
    postfix = postfix_factory(users=USERS)
    with PolicyStandIn(postfix.policy_socket) as policy, TaggingMilter(postfix.milter_socket):
        yield Relay(postfix, policy, sink)


@pytest.fixture(autouse=True)
def clean(relay: Relay) -> None:
    relay.policy.clear()
    relay.sink.clear()


@pytest.mark.parametrize("login", USERS)
def test_policy_sees_every_stage_with_the_login_as_given(relay: Relay, login: str) -> None:
    assert relay.send("b@b.test", "c@c.test", login=login).accepted
    seen = relay.policy.requests
    assert [one["protocol_state"] for one in seen] == ["RCPT", "RCPT", "END-OF-MESSAGE"]
    assert {one["sasl_username"] for one in seen} == {login}
    assert {one["policy_context"] for one in seen} == {"submission"}
    assert [one["recipient_count"] for one in seen] == ["0", "0", "2"]
    assert len({one["instance"] for one in seen}) == 1
    assert seen[0]["queue_id"] == ""
    assert seen[-1]["queue_id"] == seen[1]["queue_id"] != ""


def test_refusal_is_shown_to_the_client_and_the_rest_goes_on(relay: Relay) -> None:
    relay.policy.actions = {"limit@b.test": "DEFER_IF_PERMIT 4.7.1 slow down"}
    sent = relay.send("limit@b.test", "c@c.test", subject="partly")
    assert sent.rcpt["limit@b.test"].code == 450
    assert "slow down" in sent.rcpt["limit@b.test"].text
    assert relay.delivered("partly").recipients == ("c@c.test",)


def test_wrong_password_and_no_login_get_no_further(relay: Relay) -> None:
    for options in ({"login": "acme", "password": "wrong"}, {}):
        with Client(relay.postfix.host, relay.postfix.submission_port, **options) as client:  # type: ignore[arg-type]
            assert client.auth is None or client.auth.code == 535
            assert client.send(SENDER, ["b@b.test"], b"Subject: x\n\nhi\n").last.code == 554
    assert relay.policy.requests == []


def test_xclient_stands_in_for_a_login(relay: Relay) -> None:
    claim = {"LOGIN": "someone", "ADDR": "192.0.2.7", "PORT": "777"}
    with Client(relay.postfix.host, relay.postfix.xclient_port, xclient=claim) as client:
        assert client.send(SENDER, ["b@b.test"], plain_message(SENDER, ["b@b.test"], "xclient")).accepted
    first = relay.policy.requests[0]
    assert (first["sasl_username"], first["client_address"], first["client_port"]) == ("someone", "192.0.2.7", "777")
    seen = relay.delivered("xclient").message
    assert (seen["X-Seen-Login"], seen["X-Seen-Client"]) == ("someone", "192.0.2.7:777")


@pytest.mark.parametrize("member", ["tx1", "tx2", "bk1", "q1"])
def test_tag_picks_the_source_address_and_does_not_get_out(relay: Relay, member: str) -> None:
    sent = relay.send("b@b.test", "c@c.test", subject=f"by {member}", extra=f"X-Pool: {member}\n")
    received = relay.delivered(f"by {member}")
    assert received.peer == relay.postfix.pool_ips[member]
    assert received.helo == f"{member}.relay.example"
    assert received.message["X-Virtual-MTA"] is None
    assert received.recipients == ("b@b.test", "c@c.test")
    deliveries = [event for event in relay.postfix.wait_removed(sent.queue_id) if "status" in event.fields]
    assert {(event.service, event.fields["status"]) for event in deliveries} == {(member, "sent")}


def test_tag_of_a_client_has_no_effect_and_does_not_get_out(relay: Relay) -> None:
    relay.send("b@b.test", subject="forged", extra="X-Pool: none\nX-Virtual-MTA: bk1\n")
    received = relay.delivered("forged")
    assert received.peer == "127.0.0.1"
    assert received.message["X-Virtual-MTA"] is None


def test_tag_that_no_transport_has_is_held(relay: Relay) -> None:
    sent = relay.send("b@b.test", subject="unknown", extra="X-Pool: nosuch\n")
    event = relay.postfix.wait_event(sent.queue_id, "milter-header-hold")
    assert "no transport for this pool member" in event.text
    (waiting,) = relay.postfix.queue()
    assert (waiting["queue_name"], waiting["queue_id"]) == ("hold", sent.queue_id)
    relay.postfix.release(sent.queue_id)
    relay.delivered("unknown")


def test_missing_date_and_message_id_are_there_before_the_milter(relay: Relay) -> None:
    relay.send("b@b.test", subject="bare")
    message = relay.delivered("bare").message
    assert message["Date"]
    assert message["Message-ID"]
    assert message["X-Seen-Headers"] == "date message-id"


def test_address_that_the_host_lacks_defers_instead_of_leaving_elsewhere(relay: Relay) -> None:
    relay.postfix.postconf({"relaywarden_ip_bk1": "192.0.2.21"})
    relay.postfix.reload()
    try:
        sent = relay.send("b@b.test", subject="no address", extra="X-Pool: bk1\n")
        relay.postfix.wait_event(sent.queue_id, "status=deferred")
        assert relay.sink.messages == []
    finally:
        relay.postfix.postconf({"relaywarden_ip_bk1": "127.0.0.21"})
        relay.postfix.reload()
    relay.postfix.flush()
    assert relay.delivered("no address").peer == "127.0.0.21"


def test_without_policyd_or_milter_clients_are_told_to_come_back(postfix_factory: PostfixFactory) -> None:
    postfix = postfix_factory(users=USERS)
    with Client(postfix.host, postfix.submission_port, login="acme", password="secret") as client:
        assert client.send(SENDER, ["b@b.test"], b"Subject: x\n\nhi\n").last.code == 451
    with (
        TaggingMilter(postfix.milter_socket),
        Client(postfix.host, postfix.submission_port, login="acme", password="secret") as client,
    ):
        last = client.send(SENDER, ["b@b.test"], b"Subject: x\n\nhi\n").last
    assert last.code == 451
    assert "Submission is temporarily unavailable" in last.text
    wait_for("a client got in", lambda: postfix.queue() == [], timeout=5)


def test_pmta_gets_everything_with_its_tag(postfix_factory: PostfixFactory, sink: Sink) -> None:
    postfix = postfix_factory(users=USERS, pmta=True)
    with PolicyStandIn(postfix.policy_socket) as policy, TaggingMilter(postfix.milter_socket):
        sent = Relay(postfix, policy, sink).send("b@b.test", subject="to pmta", extra="X-Pool: bk1\n")
        received = Relay(postfix, policy, sink).delivered("to pmta")
        assert received.message.get_all("X-Virtual-MTA") == ["bk1"]
        deliveries = [event for event in postfix.wait_removed(sent.queue_id) if "status" in event.fields]
        assert [event.service for event in deliveries] == ["pmta"]


@pytest.mark.parametrize(
    ("settings", "stages"),
    [
        ({"relaywarden_data_restrictions": "", "relaywarden_end_of_data_restrictions": ""}, ["RCPT"]),
        (
            {
                "relaywarden_recipient_restrictions": "permit_sasl_authenticated, reject",
                "relaywarden_data_restrictions": "",
            },
            ["END-OF-MESSAGE"],
        ),
    ],
)
def test_one_wiring_alone_as_the_readme_says(
    postfix_factory: PostfixFactory, sink: Sink, settings: dict[str, str], stages: list[str]
) -> None:
    postfix = postfix_factory(users=USERS, settings=settings)
    with PolicyStandIn(postfix.policy_socket) as policy, TaggingMilter(postfix.milter_socket):
        assert Relay(postfix, policy, sink).send("b@b.test").accepted
        assert [one["protocol_state"] for one in policy.requests] == stages
