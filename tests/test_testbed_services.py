"""The stand-ins for the world are what they say: DNS, Redis, rspamd, the sink, and how a service fails to start."""

from __future__ import annotations

import smtplib
from pathlib import Path

import pytest
import redis

from testbed.dns import DnsServer, record_lines
from testbed.ports import accepts, free_port
from testbed.process import MissingProgramError, Process, StartError, program
from testbed.redis import RedisServer
from testbed.rspamd import GTUBE, Rspamd
from testbed.sink import Sink
from testbed.smtpclient import Client, plain_message


def test_ports_are_not_given_twice() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50


def test_missing_program_names_the_package() -> None:
    with pytest.raises(MissingProgramError, match="apt-get install no-such-package"):
        program("no-such-program", "no-such-package")


def test_failed_start_shows_the_log(tmp_path: Path) -> None:
    process = Process("thing", ["sh", "-c", "echo broken on purpose; exit 3"], tmp_path / "log", ready=lambda: False)
    with pytest.raises(StartError, match=r"status 3(.|\n)*broken on purpose"):
        process.start()


def test_start_that_never_answers_is_stopped(tmp_path: Path) -> None:
    argv = ["sh", "-c", "trap '' TERM; echo $$; while :; do read -t 1 x || :; done"]
    process = Process("thing", argv, tmp_path / "log", ready=lambda: False, timeout=0.2)
    with pytest.raises(StartError, match="did not answer"):
        process.start()
    pid = int((tmp_path / "log").read_text().split()[0])
    assert not Path(f"/proc/{pid}").exists()


def test_dns_answers_added_names_and_nxdomain(dns: DnsServer) -> None:
    assert dns.txt("nobody.test") is None
    dns.add({"key.services.test": {"TXT": "v=DKIM1; p=" + "A" * 400}, "services.test": {"MX": "10 mx.services.test."}})
    assert dns.txt(b"key.services.test.") == b"v=DKIM1; p=" + b"A" * 400
    assert [str(mx.exchange) for mx in dns.resolver().resolve("services.test", "MX")] == ["mx.services.test."]


def test_dns_txt_is_quoted() -> None:
    assert record_lines({"a.test": {"TXT": 'say "hi"'}}) == ['a.test. 60 IN TXT "say \\"hi\\""']


def test_redis_can_be_paused_and_stopped(work_folder: object, tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        with server.client() as client:
            client.set("name", "value")
        server.pause()
        with server.client(timeout=0.2) as client, pytest.raises(redis.TimeoutError):
            client.ping()
        server.resume()
        with server.client() as client:
            assert client.get("name") == b"value"
        server.stop()
        assert not accepts((server.host, server.port))
        server.start()
        with server.client() as client:
            assert client.get("name") is None


def test_redis_server_fixture_is_empty(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        assert client.dbsize() == 0
        client.set("left", "over")


ACTIONS = ["no action", "greylist", "add header", "rewrite subject", "soft reject", "reject", "quarantine", "discard"]


@pytest.mark.parametrize("action", ACTIONS)
def test_rspamd_gives_the_action_asked_for(rspamd: Rspamd, action: str) -> None:
    message = plain_message("a@a.test", ["b@b.test"], "hi", extra=f"X-Testbed-Action: {action}\n")
    assert rspamd.check(message, {"User": "acme", "From": "a@a.test", "Rcpt": "b@b.test"})["action"] == action


def test_rspamd_rejects_gtube_and_nothing_else(rspamd: Rspamd) -> None:
    headers = {"User": "acme", "From": "a@a.test", "Rcpt": "b@b.test"}
    extra = "Date: Mon, 24 Nov 2025 08:00:00 +0000\nMessage-ID: <1@a.test>\n"
    assert rspamd.check(plain_message("a@a.test", ["b@b.test"], "hi", extra=extra), headers)["action"] == "no action"
    refused = rspamd.check(plain_message("a@a.test", ["b@b.test"], "hi", GTUBE, extra), headers)
    assert refused["action"] == "reject"
    assert "GTUBE" in refused["symbols"]


def test_sink_records_what_came_and_from_where(sink: Sink) -> None:
    sink.clear()
    with smtplib.SMTP(sink.host, sink.port, source_address=("127.0.0.11", 0), local_hostname="tx1.test") as client:
        client.sendmail("a@a.test", ["b@b.test", "c@c.test"], b"Subject: one\r\n\r\n.dot\r\n")
    (received,) = sink.wait(1)
    assert (received.peer, received.helo, received.sender) == ("127.0.0.11", "tx1.test", "a@a.test")
    assert received.recipients == ("b@b.test", "c@c.test")
    assert received.raw == b"Subject: one\r\n\r\n.dot\r\n"


def test_sink_replies_can_be_chosen(sink: Sink) -> None:
    sink.clear()
    try:
        with Client(sink.host, sink.port) as client:
            sink.replies = {"gone@b.test": "550 5.1.1 no such user"}
            sent = client.send("a@a.test", ["gone@b.test", "b@b.test"], b"Subject: x\n\nhi\n")
            assert (sent.rcpt["gone@b.test"].code, sent.accepted) == (550, True)
            sink.replies = {"DATA": "451 4.7.0 later"}
            sent = client.send("a@a.test", ["b@b.test"], b"Subject: x\n\nhi\n")
            assert sent.end is not None
            assert sent.end.code == 451
    finally:
        sink.replies = {}
    assert [message.recipients for message in sink.messages] == [("b@b.test",)]
    with pytest.raises(StartError, match="did not get 2"):
        sink.wait(2, timeout=0.1)
