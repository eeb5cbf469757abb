"""The milter as a process, driven by a client that speaks the milter protocol, well and badly."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from testbed.dkimverify import by_dkimpy
from testbed.dns import DnsServer
from testbed.factories import SidecarFactory, WorkFolder
from testbed.milterclient import Header, MilterClient, Reply, packet, strings, wire
from testbed.ports import HOST, free_port
from testbed.process import wait_for
from testbed.sidecar import Sidecar

HEADERS: list[Header] = [
    (b"From", b"Acme <a@acme.example>"),
    (b"To", b"b@x.example"),
    (b"Subject", b"hi\n there"),
    (b"X-Job", b"forged"),
    (b"x-virtual-mta", b"forged"),
    (b"X-Virtual-MTA", b"forged too"),
]
BODY = b"hello  world\r\n\r\n"


def config(folder: Path, keys: Any, **change: Any) -> dict[str, Any]:
    base = {
        "store": f"sqlite:///{folder}/ledger.db",
        "milter": {"listen": f"unix:{folder}/milter", "workers": 2, "drain_timeout": "10s", "max_message_size": "5MB"},
        "plans": {"p": {"limits": [{"recipients": "500/hour"}]}},
        "tenants": {"acme": {"plan": "p", "from_domains": ["acme.example"], "dkim": [keys.setting("acme.example", "rw1")]}},
        "operator": {"dkim": [keys.setting("relay.example", "rw1", "rsa2")]},
        "pools": {"transactional": {"members": {"tx1": {"ip": "192.0.2.1"}, "tx2": {"ip": "192.0.2.2"}}}},
    }
    return {**base, **change}


@pytest.fixture(scope="module")
def folder(work_folder: WorkFolder) -> Path:
    return work_folder("milter")


@pytest.fixture(scope="module")
def sidecar(folder: Path, keys: Any, sidecar_factory: SidecarFactory) -> Sidecar:
    return sidecar_factory(config(folder, keys), "milter")


@pytest.fixture(scope="module")
def address(sidecar: Sidecar, folder: Path) -> str:
    return str(folder / "milter")


def workers(sidecar: Sidecar) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{sidecar.pid}/task/{sidecar.pid}/children").read_text().split()]


def delivered(reply: Reply, dns: DnsServer) -> list[tuple[str, str, str]]:
    return by_dkimpy(reply.wire(HEADERS, BODY), dns)


def check(address: str, dns: DnsServer) -> None:
    """A healthy milter signs and tags."""
    with MilterClient(address) as client:
        reply = client.message(HEADERS, BODY)
    assert delivered(reply, dns) == [("acme.example", "rw1", "pass"), ("relay.example", "rw1", "pass")]


def test_only_what_needs_an_answer_is_answered_and_all_of_the_message_is_asked_for(address: str) -> None:
    with MilterClient(address) as client:
        assert client.steps & 0x5F == 0x40  # everything but end of headers is sent to us
        assert client.steps & 0xFF080 == 0x8B080  # only MAIL is answered (DATA and unknown commands are not sent)


def test_headers_are_deleted_signed_and_tagged(address: str, dns: DnsServer) -> None:
    with MilterClient(address) as client:
        for _ in range(3):  # several messages in one session
            reply = client.message(HEADERS, BODY)
            assert reply.kind == "c"
            result = reply.apply(HEADERS)
            names = [name.lower() for name, _ in result]
            assert names.count(b"x-virtual-mta") == 1
            assert dict(result)[b"X-Virtual-MTA"] in (b"tx1", b"tx2")
            assert b"x-job" not in names
            assert names[:2] == [b"dkim-signature"] * 2  # below Postfix's own Received
            assert delivered(reply, dns) == [("acme.example", "rw1", "pass"), ("relay.example", "rw1", "pass")]


def test_refusals_reach_the_client(address: str) -> None:
    with MilterClient(address) as client:
        reply = client.message([(b"From", b"x@100%evil.example")], BODY)
        assert (reply.kind, reply.text[:9]) == ("y", "550 5.7.1")
        reply = client.message([(b"From", b"x@evil.example")], BODY)
        assert "evil.example" in reply.text
        assert client.message(HEADERS, BODY, login=b"nobody").text.startswith("550 5.7.1")
        assert client.message(HEADERS, BODY, login=b"\xff\xfe").text.startswith("550 5.7.1")
        assert client.message(HEADERS, b"x" * 6_000_000).text.startswith("552 5.3.4")
        assert client.message(HEADERS, BODY, login=None).kind == "c"


def test_the_ledger_is_told(sidecar: Sidecar, address: str) -> None:
    def counters() -> dict[str, int]:
        done = sidecar.cli("show", "acme", "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, int] = json.loads(done.stdout)["counters"]["today"]
        return found

    with MilterClient(address) as client:
        client.message(HEADERS, BODY, queue_id=b"4LEDGER1")
        before = counters()
        client.message(HEADERS, BODY, queue_id=b"4LEDGER2", recipients=[b"a@x.example", b"b@x.example"])
        client.message([(b"From", b"x@evil.example")], BODY, queue_id=b"4LEDGER3")
        client.envelope(b"acme", b"a@acme.example", [b"a@x.example"], b"4LEDGER4")
        client.abort()
        client.message(HEADERS, BODY, queue_id=b"4LEDGER5")  # after it, the abort was handled
    after = counters()
    assert after["messages"] - before["messages"] == 3  # the rejected one too, which is not free; the aborted one not
    assert after["recipients"] - before["recipients"] == 4
    assert after["rejected"] - before["rejected"] == 1


def test_state_does_not_leak_between_messages(address: str, dns: DnsServer) -> None:
    with MilterClient(address) as client:
        client.envelope(b"nobody", b"x@evil.example", [b"a@x.example"], b"4Q")
        client.content([(b"From", b"x@evil.example"), (b"From", b"y@evil.example")], b"evil\r\n")
        client.abort()
        assert delivered(client.message(HEADERS, BODY), dns)[0][2] == "pass"
        client.envelope(b"acme", b"a@acme.example", [b"a@x.example"], b"4Q")
        client.content(HEADERS, b"first\r\n")
        # MAIL again without abort: the old message is gone
        assert delivered(client.message(HEADERS, BODY), dns)[0][2] == "pass"


def test_octets_that_are_not_text(address: str, dns: DnsServer) -> None:
    with MilterClient(address) as client:
        pass
    client = MilterClient(address)
    client.negotiate()
    client.begin(helo=b"\xff\xfe\x80")
    headers = [*HEADERS, (b"Reply-To", b"\xff\x00\xfe"[:1] + b"\xfe <r@acme.example>"), (b"X-\xff", b"8-bit name")]
    reply = client.message(headers, b"\x00\xff\x80\r\n", sender=b"\xff@acme.example", recipients=[b"\xfe@x.example"])
    assert reply.kind == "c"
    assert reply.replaced == b"=00=FF=80\r\n"
    shown = [header for header in reply.apply(headers) if header[1] != b"8-bit name"]
    assert by_dkimpy(wire(shown, reply.replaced), dns)[0][2] == "pass"
    client.close()


def test_an_event_out_of_place_is_passed_over(address: str, dns: DnsServer) -> None:
    with MilterClient(address) as client:
        client.send_raw(packet(b"E") + packet(b"R", strings(b"<b@x.example>")) + packet(b"B", b"body"))  # no MAIL
        assert delivered(client.message(HEADERS, BODY), dns)[0][2] == "pass"  # libmilter answers none of them


def test_an_mta_that_offers_too_little_is_refused(address: str) -> None:
    client = MilterClient(address)
    client.send_raw(packet(b"O", struct.pack("!III", 6, 0, 0)))
    with pytest.raises(ConnectionError):
        client.read()
    client.close()


EVENTS = [b"C", b"D", b"H", b"M", b"R", b"T", b"L", b"N", b"B", b"E", b"A", b"K", b"U", b"Q", b"O", b"\xff"]


def hostile_packets(rng: random.Random) -> bytes:
    """A few packets: events in any order, their data right, random, truncated or with a false length."""
    out = b""
    for _ in range(rng.randrange(1, 12)):
        command = rng.choice(EVENTS)
        good = {
            b"C": strings(b"host") + b"4" + struct.pack("!H", 25) + strings(b"192.0.2.1"),
            b"D": b"M" + strings(b"{auth_authen}", b"acme", b"i", b"4Q"),
            b"L": strings(b"From", b"a@acme.example"),
            b"O": struct.pack("!III", 6, 0x1FF, 0x1FFFFF),
        }.get(command, strings(b"<a@acme.example>"))
        data = rng.choice((good, good, good, rng.randbytes(rng.randrange(40)), good[: rng.randrange(len(good) + 1)], b""))
        made = packet(command, data)
        if rng.random() < 0.05:
            made = struct.pack("!I", rng.choice((0, 1, 2**31, 2**32 - 1, len(data)))) + made[4:]
        out += made
    return out


def test_events_in_any_order_do_no_harm(sidecar: Sidecar, address: str, dns: DnsServer) -> None:
    rng = random.Random(17)
    before = workers(sidecar)
    for round_ in range(600):
        client = MilterClient(address, timeout=10.0)
        try:
            if round_ % 3:
                client.negotiate()
            client.send_raw(hostile_packets(rng))
            client.sock.shutdown(socket.SHUT_WR)
            while client.sock.recv(65536):
                pass  # until the milter closes; a timeout here is a hung session
        except (BrokenPipeError, ConnectionResetError):
            pass  # the milter closed first
        client.sock.close()
    check(address, dns)
    assert workers(sidecar) == before
    assert "error in milter callback" not in sidecar.log.read_text()


def test_many_connections_at_once(sidecar: Sidecar, address: str, dns: DnsServer) -> None:
    clients = [MilterClient(address) for _ in range(150)]
    for client in clients:
        client.negotiate()
        client.begin()
    for client in clients:
        client.envelope(b"acme", b"a@acme.example", [b"b@x.example"], b"4Q")
        client.content(HEADERS, BODY)
    for client in clients:
        client.send_raw(packet(b"D", b"E" + strings(b"i", b"4Q")))
    assert all(client.end().kind == "c" for client in clients)
    for client in clients:
        client.close()
    check(address, dns)


def test_a_killed_worker_is_replaced_and_its_sibling_goes_on(sidecar: Sidecar, address: str, dns: DnsServer) -> None:
    before = workers(sidecar)
    os.kill(before[0], signal.SIGKILL)
    wait_for("no new worker", lambda: len(set(workers(sidecar)) - set(before)) == 1)
    for _ in range(5):
        check(address, dns)
    assert Path(address).exists()  # milter-traps, 18c


def test_reload_takes_new_settings_and_keeps_sessions(
    folder: Path, keys: Any, work_folder: WorkFolder, sidecar_factory: SidecarFactory, dns: DnsServer
) -> None:
    own = work_folder("reload")
    sidecar = sidecar_factory(config(own, keys), "milter")
    address = str(own / "milter")
    with MilterClient(address) as client:
        assert client.message([(b"From", b"a@new.example")], BODY).text.startswith("550")
        client.envelope(b"acme", b"a@acme.example", [b"b@x.example"], b"4Q")  # this message keeps the rules it began with
        client.content([(b"From", b"a@new.example")], BODY)

        good = sidecar.config
        sidecar.config = {**good, "plans": {}}  # the tenants' plan is gone: not usable
        sidecar.write()
        os.kill(sidecar.pid, signal.SIGHUP)
        wait_for("no reload", lambda: sidecar.log.read_text().count("the old settings stay in force") >= 1)
        missing = [{"domain": "new.example", "selector": "rw2", "key": str(own / "none.pem")}]
        sidecar.config = {**good, "tenants": {"acme": {"plan": "p", "dkim": missing}}}
        sidecar.write()
        os.kill(sidecar.pid, signal.SIGHUP)
        wait_for("no reload", lambda: sidecar.log.read_text().count("cannot read the private key") >= 2)
        check(address, dns)

        entry = keys.setting("new.example", "rw2", "ed25519")
        sidecar.config = {**good, "tenants": {"acme": {"plan": "p", "from_domains": ["new.example"], "dkim": [entry]}}}
        sidecar.write()
        os.kill(sidecar.pid, signal.SIGHUP)
        wait_for("no reload", lambda: sidecar.log.read_text().count("info: reloaded") == 2)
        assert client.end().text.startswith("550")
        reply = client.message([(b"From", b"a@new.example")], BODY)
    found = by_dkimpy(wire(reply.apply([(b"From", b"a@new.example")]), BODY), dns)
    assert found == [("new.example", "rw2", "pass"), ("relay.example", "rw1", "pass")]


@pytest.mark.parametrize("kind", ["unix", "inet"])
def test_stop_finishes_the_message_in_flight(
    kind: str, keys: Any, work_folder: WorkFolder, sidecar_factory: SidecarFactory, dns: DnsServer
) -> None:
    own = work_folder("drain")
    document = config(own, keys)
    port = free_port()
    if kind == "inet":
        document["milter"]["listen"] = f"inet:{HOST}:{port}"
    sidecar = sidecar_factory(document, "milter")
    where: Any = str(own / "milter") if kind == "unix" else (HOST, port)
    clients = [MilterClient(where) for _ in range(4)]
    for client in clients:
        client.negotiate()
        client.begin()
        client.envelope(b"acme", b"a@acme.example", [b"b@x.example"], b"4Q")
    os.kill(sidecar.pid, signal.SIGTERM)
    wait_for("still listens", lambda: not connects(where))
    for client in clients:
        client.content(HEADERS, BODY)
        assert delivered(client.end(), dns)[0][2] == "pass"
        client.close()
    wait_for("does not end", lambda: not sidecar.alive())
    assert sidecar.stop() == 0
    assert not (own / "milter").exists()


def connects(where: Any) -> bool:
    """Does a new connection get as far as a negotiation?"""
    try:
        client = MilterClient(where, timeout=0.5)
    except OSError:
        return False
    try:
        client.negotiate()
    except OSError:
        return False
    finally:
        client.sock.close()
    return True


def test_a_missing_key_puts_mail_off_until_it_is_there(
    keys: Any, work_folder: WorkFolder, sidecar_factory: SidecarFactory
) -> None:
    own = work_folder("nokey")
    document = config(own, keys)
    document["tenants"]["acme"]["dkim"] = [{"domain": "acme.example", "selector": "late", "key": str(own / "late.pem")}]
    sidecar_factory(document, "milter")
    with MilterClient(str(own / "milter")) as client:
        reply = client.message(HEADERS, BODY)
        assert reply.text.startswith("451 4.7.5")
        assert reply.changes == []
        (own / "late.pem").touch(mode=0o600)
        (own / "late.pem").write_bytes((keys.folder / "rsa.pem").read_bytes())
        wait_for("still put off", lambda: client.message(HEADERS, BODY).kind == "c", every=0.25)


def test_a_store_that_is_down_never_stops_mail(
    keys: Any, work_folder: WorkFolder, sidecar_factory: SidecarFactory, dns: DnsServer
) -> None:
    own = work_folder("nostore")
    sidecar = sidecar_factory(config(own, keys, store=f"redis://{HOST}:{free_port()}/0", ledger={"timeout": "0.3s"}), "milter")
    for _ in range(3):
        check(str(own / "milter"), dns)
    assert "settled=later" in sidecar.log.read_text()


def test_without_listen_it_says_so(keys: Any, work_folder: WorkFolder) -> None:
    own = work_folder("nolisten")
    document = config(own, keys)
    del document["milter"]
    sidecar = Sidecar(own, document, "milter")
    sidecar.write()
    done = sidecar.cli("milter")
    assert done.returncode == 2
    assert "milter.listen is not set" in done.stderr
