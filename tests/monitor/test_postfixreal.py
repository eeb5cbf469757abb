"""The events of a real Postfix' log equal what its clients and the receiving side know.

One Postfix serves the module.  It delivers to the sink, which answers by recipient, and to servers that hang up or refuse
to talk; a small milter refuses on a port of its own.  All mail is sent first, with long queue ids and then with short ones;
the log is read when the queue is empty.
"""

from __future__ import annotations

import contextlib
import smtplib
import socketserver
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from relaywarden_monitor.events import Accepted, Attempt, Described, Event, Gone, Notified, Outcome, Refused
from relaywarden_monitor.ingest.postfixlog import PostfixLog
from testbed import postfixconf
from testbed.factories import PostfixFactory
from testbed.ports import HOST, free_port
from testbed.postfix import Postfix
from testbed.process import wait_for
from testbed.sink import Sink

pytestmark = pytest.mark.postfix
SENDER = "shop@acme.example"
REPLIES = {
    "no-user": "550 5.1.1 <x>: no such user, status=sent (250 2.0.0 Ok)",
    "lines": "554-5.7.1 first line\r\n554-5.7.1 second line\r\n554 5.7.1 last line",
    "later": "450-4.2.1 busy\r\n450 4.2.1 try later",
    "once": "451 4.7.1 greylisted",
}
# As Postfix joins them.
HEARD = {name: reply.replace("\r\n", " ") for name, reply in REPLIES.items()}
RESTRICTIONS = "check_recipient_access regexp:{ {/^bad/ REJECT} }, permit_sasl_authenticated"
ODD = ['"x y"@one.test', '"q>, relay=none"@one.test', '"a,b"@one.test', r'"b\"c"@one.test']


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address, daemon_threads = True, True


class _HangsUp(socketserver.StreamRequestHandler):
    """Closes at RCPT, without a word."""

    def handle(self) -> None:
        self.wfile.write(b"220 hangs.up\r\n")
        for line in self.rfile:
            if line[:4].upper() == b"RCPT":
                return
            self.wfile.write(b"250 2.0.0 Ok\r\n")


class _Unfriendly(socketserver.StreamRequestHandler):
    """Does not want to talk."""

    def handle(self) -> None:
        self.wfile.write(b"554 5.7.1 your address is listed\r\n")
        self.rfile.readline()


class _Milter(socketserver.StreamRequestHandler):
    """Refuses the recipient rcpt@..., and every message at its end; asks to be told nothing else (milter protocol 6)."""

    def handle(self) -> None:
        while len(head := self.rfile.read(4)) == 4:
            packet = self.rfile.read(struct.unpack("!I", head)[0])
            if packet[:1] == b"O":
                # No connect, helo, mail, body, headers, end of headers, unknown, data; RCPT is wanted.
                self._answer(b"O" + struct.pack("!III", 6, 0, 0x01 | 0x02 | 0x04 | 0x10 | 0x20 | 0x40 | 0x100 | 0x200))
            elif packet[:1] == b"R":
                self._answer(b"y550 5.7.1 not this one\0" if packet.startswith(b"R<rcpt@") else b"c")
            elif packet[:1] == b"E":
                self._answer(b"y550 5.7.1 not this message\0")
            elif packet[:1] == b"Q":
                return

    def _answer(self, packet: bytes) -> None:
        self.wfile.write(struct.pack("!I", len(packet)) + packet)


@contextlib.contextmanager
def serving(handler: type[socketserver.BaseRequestHandler]) -> Iterator[int]:
    """A server with this handler, in a thread; its port."""
    port = free_port()
    with _Server((HOST, port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield port
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Story:
    """What was sent, as the clients know it, and the events of the log."""

    accepted: dict[str, tuple[str, set[str]]] = field(default_factory=dict)  # queue id -> login, recipients
    refused: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # stage, reply, login
    events: list[Event] = field(default_factory=list)
    log: list[bytes] = field(default_factory=list)
    reader: PostfixLog = field(default_factory=PostfixLog)


def send(story: Story, port: int, login: str, messages: list[list[str]]) -> None:
    """One session; a name that begins with `bad` is refused by Postfix."""
    known = ""
    with smtplib.SMTP(HOST, port, timeout=30) as client:
        client.ehlo("client.test")
        client.login(login, "secret")
        for number, recipients in enumerate(messages):
            client.mail(SENDER)
            taken = {name for name in recipients if client.docmd("RCPT", f"TO:<{name}>")[0] == 250}
            if taken:
                code, text = client.data(f"Message-ID: <{number}.{login}@acme.example>\r\nSubject: x\r\n\r\nx\r\n".encode())
                known = login
                if code == 250:
                    story.accepted[text.decode().rpartition(" ")[2]] = (login, taken)
            else:
                client.rset()
            for name in set(recipients) - taken:
                story.refused["RCPT", f"554 5.7.1 <{name}>: Recipient address rejected: Access denied", known] += 1


def send_everything(story: Story, port: int, run: str) -> None:
    """The mail of one form of queue ids."""
    names = [f"{name}.{run}@one.test" for name in ("ok", "no-user", "lines", "once", "later")]
    send(
        story, port, "acme",
        [[f"bad.{run}1@one.test"], [*names, *ODD], [f"ok.{run}@tx1.test", f"bad.{run}2@one.test"], [f"bad.{run}3@one.test"]],
    )  # fmt: skip
    send(story, port, "beta", [[f"{name}.{run}@{name}.test"] for name in ("hangs", "unfriendly", "closed")])


def finished(story: Story, postfix: Postfix) -> bool:
    """Read the whole log; is every message that was accepted out of the queue, and out of the log?"""
    story.log = postfix.log.read_bytes().splitlines(keepends=True)
    story.reader = PostfixLog()
    story.events = story.reader.feed(story.log, time.time())
    active = {event.queue_id for event in story.events if isinstance(event, Described) and event.sender is not None}
    gone = {event.queue_id for event in story.events if isinstance(event, Gone)}
    notices = {event.notice_id for event in story.events if isinstance(event, Notified)}
    return set(story.accepted) | notices <= active == gone


def services(short: int, refusing: int, milter: int) -> str:
    """One whose cleanup makes short queue ids (a reload would rename what is queued), one with the small milter."""
    return (
        f"{HOST}:{short} inet n - n - - smtpd\n  -o syslog_name=postfix/short\n  -o cleanup_service_name=clean-short\n"
        "  -o smtpd_recipient_restrictions=$relaywarden_recipient_restrictions\n"
        "clean-short unix n - n - 0 cleanup\n  -o enable_long_queue_ids=no\n"
        f"{HOST}:{refusing} inet n - n - - smtpd\n  -o syslog_name=postfix/refusing\n"
        f"  -o smtpd_milters=inet:{HOST}:{milter}\n  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject\n"
    )


def routes(ports: dict[str, int], sink: Sink) -> str:
    hops = {f"{name}.test": f"smtp:[{HOST}]:{port}" for name, port in ports.items()}
    hops["tx1.test"] = f"tx1:[{sink.host}]:{sink.port}"
    return "inline:{" + ", ".join(f"{domain}={hop}" for domain, hop in hops.items()) + "}"


@pytest.fixture(scope="module")
def story(postfix_factory: PostfixFactory, sink: Sink) -> Iterator[Story]:
    told = Story()
    short, refusing = free_port(), free_port()
    with serving(_HangsUp) as hangs, serving(_Unfriendly) as unfriendly, serving(_Milter) as milter:
        postfix = postfix_factory(
            users={"acme": "secret", "beta": "secret"},
            extra_master=services(short, refusing, milter),
            settings={
                **postfixconf.WITHOUT_POLICYD,
                "relaywarden_milter": "",
                "relaywarden_recipient_restrictions": RESTRICTIONS,
                "transport_maps": routes({"hangs": hangs, "unfriendly": unfriendly, "closed": free_port()}, sink),
                "maximal_queue_lifetime": "3s",
                "bounce_queue_lifetime": "3s",
                "smtp_address_preference": "ipv4",
            },
        )  # fmt: skip
        for run, port in (("long", postfix.submission_port), ("short", short)):
            sink.replies.update({f"{name}.{run}@one.test": reply for name, reply in REPLIES.items()})
            send_everything(told, port, run)
        greylisted = [f"once.{run}@one.test" for run in ("long", "short")]
        wait_for("nothing is deferred", lambda: all(f"to=<{name}>" in postfix.log.read_text() for name in greylisted))
        for name in greylisted:
            del sink.replies[name]
        refuse_by_milter(told, refusing)
        wait_for("mail is left", lambda: finished(told, postfix), timeout=40, log=postfix.log, every=0.2)
    yield told


def refuse_by_milter(story: Story, port: int) -> None:
    with smtplib.SMTP(HOST, port, timeout=30) as client:
        client.ehlo("client.test")
        client.login("beta", "secret")
        client.mail(SENDER)
        assert client.rcpt("rcpt@one.test") == (550, b"5.7.1 not this one")
        assert client.rcpt("ok@one.test")[0] == 250
        assert client.data(b"Subject: x\r\n\r\nx\r\n") == (550, b"5.7.1 not this message")
    story.refused["RCPT", "550 5.7.1 not this one", "beta"] += 1
    story.refused["END-OF-MESSAGE", "5.7.1 not this message", ""] += 1


def attempts(story: Story, recipient: str) -> list[Attempt]:
    return [event for event in story.events if isinstance(event, Attempt) and event.recipient == recipient]


def test_everything_is_understood(story: Story) -> None:
    assert story.reader.unknown == 0
    # Each line with status= is an attempt, by the simplest reading that there is.
    statuses = [line for line in story.log if b", status=" in line]
    assert len(statuses) == sum(isinstance(event, Attempt) for event in story.events) > 20
    assert all(abs(event.at - time.time()) < 300 for event in story.events)


def test_queue_ids_of_both_forms_lead_to_the_login(story: Story) -> None:
    logins = {event.queue_id: event.login for event in story.events if isinstance(event, Accepted)}
    assert {queue_id: login for queue_id, (login, _) in story.accepted.items()}.items() <= logins.items()
    assert len({len(queue_id) > 12 for queue_id in story.accepted}) == 2


def test_every_accepted_recipient_has_one_final_outcome(story: Story) -> None:
    for queue_id, (_, recipients) in story.accepted.items():
        found = [event for event in story.events if isinstance(event, Attempt) and event.queue_id == queue_id]
        final = Counter(event.recipient for event in found if event.outcome is not Outcome.DEFERRED and event.recipient)
        if any(event.given_up for event in found):
            final.update({event.recipient for event in found} - {""} - set(final))
        assert final == Counter(recipients)


def test_what_was_delivered_is_what_the_sink_has(story: Story, sink: Sink) -> None:
    notices = {event.notice_id for event in story.events if isinstance(event, Notified)}
    delivered = Counter(
        event.recipient
        for event in story.events
        if isinstance(event, Attempt) and event.outcome is Outcome.DELIVERED and event.queue_id not in notices
    )
    kept = Counter(name for message in sink.messages for name in message.recipients)
    assert kept.pop(SENDER) == len(notices)
    assert delivered == kept


@pytest.mark.parametrize("run", ["long", "short"])
def test_replies_are_the_words_of_the_sink(story: Story, run: str) -> None:
    for name, outcome in (("no-user", Outcome.BOUNCED), ("lines", Outcome.BOUNCED), ("later", Outcome.DEFERRED)):
        found = attempts(story, f"{name}.{run}@one.test")
        assert {(event.outcome, event.reply, event.relay_ip) for event in found} == {(outcome, HEARD[name], HOST)}
        assert {event.status for event in found} == {HEARD[name][4:9]}
    once = attempts(story, f"once.{run}@one.test")
    assert [event.outcome for event in once][-1] is Outcome.DELIVERED
    assert (once[0].reply, once[-1].reply) == (HEARD["once"], "250 2.0.0 Ok: kept")


@pytest.mark.parametrize("run", ["long", "short"])
def test_a_member_is_named_and_the_others_are_not(story: Story, run: str) -> None:
    assert [event.member for event in attempts(story, f"ok.{run}@tx1.test")] == ["tx1"]
    assert [event.member for event in attempts(story, f"ok.{run}@one.test")] == [""]


CALLS: dict[str, Callable[[str], bool]] = {
    "hangs": lambda reply: reply.startswith("lost connection with "),
    "unfriendly": lambda reply: reply == "554 5.7.1 your address is listed",
    "closed": lambda reply: reply.startswith("connect to ") and reply.endswith("Connection refused"),
}


@pytest.mark.parametrize("name", CALLS)
def test_servers_that_do_not_answer(story: Story, name: str) -> None:
    found = [*attempts(story, f"{name}.long@{name}.test"), *attempts(story, f"{name}.short@{name}.test")]
    assert {event.outcome for event in found} == {Outcome.DEFERRED}
    own = [event.reply for event in found if not event.reply.startswith("delivery temporarily suspended: ")]
    assert own
    assert all(CALLS[name](reply) for reply in own)
    given_up = {event.queue_id for event in story.events if isinstance(event, Attempt) and event.given_up}
    assert {event.queue_id for event in found} <= given_up


def test_refusals_are_what_the_clients_heard(story: Story) -> None:
    found = Counter((event.stage, event.reply, event.login) for event in story.events if isinstance(event, Refused))
    assert found == story.refused
    assert sum(event.by_milter for event in story.events if isinstance(event, Refused)) == 2


def test_customers_are_notified_of_what_bounced(story: Story) -> None:
    bounced = {event.queue_id for event in story.events if isinstance(event, Attempt) and event.outcome is Outcome.BOUNCED}
    noticed = {event.queue_id for event in story.events if isinstance(event, Notified) and event.kind == "non-delivery"}
    assert noticed == bounced


def test_messages_are_described(story: Story) -> None:
    for queue_id, (_, recipients) in story.accepted.items():
        found = [event for event in story.events if isinstance(event, Described) and event.queue_id == queue_id]
        assert any(event.message_id.endswith("@acme.example") for event in found)
        assert {event.sender for event in found if event.sender is not None} == {SENDER}
        assert max(event.recipients for event in found) == len(recipients)
        assert max(event.size for event in found) > 100


def test_the_log_file_is_whole(story: Story) -> None:
    """Reading it byte for byte again, in pieces, gives the same."""
    reader = PostfixLog()
    now = time.time()
    again = [event for line in story.log for event in reader.feed([line], now)]
    assert again == PostfixLog().feed(story.log, now)
