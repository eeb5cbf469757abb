"""The Asker against a real DNS server, and against one that does what real ones do not."""

from __future__ import annotations

import asyncio
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from relaywarden.errors import SpecError
from relaywarden_monitor.dnswatch import lookup, nameservers
from relaywarden_monitor.dnswatch.lookup import Asker
from relaywarden_monitor.dnswatch.nameservers import resolvers
from relaywarden_monitor.dnswatch.replies import Reply, Status
from testbed.dns import DnsServer, Records
from testbed.factories import WorkFolder
from testbed.ports import HOST, free_port

LONG = "x" * 3000
RECORDS: Records = {
    "a.example": {"A": ["192.0.2.1", "192.0.2.2"], "AAAA": "2001:db8::1", "TXT": ["one", LONG]},
    "mail.example": {"MX": ["20 Second.Example.", "10 first.example."]},
    "null.example": {"MX": "0 ."},
    "1.2.0.192.in-addr.arpa": {"PTR": "Host.Example."},
}


@pytest.fixture(scope="module")
def server(work_folder: WorkFolder) -> Iterator[DnsServer]:
    with DnsServer(work_folder("dns"), RECORDS) as started:
        yield started


def asking(*servers: tuple[str, int], rate: int = 1000) -> Asker:
    return Asker(resolvers([f"{host}:{port}" for host, port in servers]), rate)


async def ask(server: DnsServer, *questions: tuple[str, str]) -> list[Reply]:
    asker = asking((server.host, server.port))
    return [await asker.ask(*question) for question in questions]


def test_kinds_of_records(server: DnsServer) -> None:
    a, aaaa, txt, mx, null, ptr = asyncio.run(
        ask(
            server,
            ("A.Example.", "A"),
            ("a.example", "AAAA"),
            ("a.example", "TXT"),
            ("mail.example", "MX"),
            ("null.example", "MX"),
            ("1.2.0.192.in-addr.arpa", "PTR"),
        )
    )
    assert sorted(a.records) == ["192.0.2.1", "192.0.2.2"]
    assert aaaa.records == ("2001:db8::1",)
    assert sorted(txt.records) == ["one", LONG]  # does not fit a UDP answer
    assert mx.records == ("first.example", "second.example")
    assert null.records == ("",)
    assert ptr.records == ("host.example",)


def test_what_is_not_there(server: DnsServer) -> None:
    empty, nowhere, *impossible = asyncio.run(
        ask(
            server,
            ("mail.example", "A"),
            ("nowhere.example", "A"),
            ("a..example", "A"),
            ("x" * 64 + ".example", "A"),
            ("a." * 150 + "example", "A"),
            ("\u20ac.example", "A"),
            ("", "A"),
        )
    )
    assert empty == Reply(Status.EMPTY)
    assert nowhere == Reply(Status.NXDOMAIN)
    assert {reply.status for reply in impossible} == {Status.NXDOMAIN}


def test_nothing_is_asked_twice(server: DnsServer) -> None:
    async def go() -> int:
        asker = asking((server.host, server.port))
        await asyncio.gather(*(asker.ask("mail.example", "MX") for _ in range(50)))
        await asker.ask("MAIL.example.", "MX")
        return asker.sent

    assert asyncio.run(go()) == 1


def test_the_rate_holds(server: DnsServer) -> None:
    async def go() -> float:
        asker = asking((server.host, server.port), rate=100)
        began = time.monotonic()
        await asyncio.gather(*(asker.ask(f"n{number}.example", "A") for number in range(31)))
        assert asker.sent == 31
        return time.monotonic() - began

    assert asyncio.run(go()) >= 0.29


def test_memory_is_bounded(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "_ROOM", 10_000)

    async def go() -> tuple[int, int]:
        asker = asking((server.host, server.port))
        for number in range(60):
            await asker.ask(f"n{number}.example", "A")
        sent = asker.sent
        await asker.ask("n59.example", "A")
        await asker.ask("n0.example", "A")
        return asker.sent - sent, len(asker._asked)

    again, kept = asyncio.run(go())
    assert again == 1  # the oldest was forgotten, the newest not
    assert kept <= 20


class _Faulty(socketserver.BaseRequestHandler):
    """Answers as the first label of the name says; UDP and TCP."""

    def handle(self) -> None:
        tcp = not isinstance(self.request, tuple)
        if tcp:
            (length,) = struct.unpack("!H", self.request.recv(2))
            wire = self.request.recv(length)
        else:
            wire = self.request[0]
        answer = self.answer(dns.message.from_wire(wire), tcp=tcp)
        if answer is None:
            return
        if tcp:
            self.request.sendall(struct.pack("!H", len(answer)) + answer)
        else:
            self.request[1].sendto(answer, self.client_address)

    def answer(self, query: dns.message.Message, *, tcp: bool) -> bytes | None:
        name = query.question[0].name
        what = name.labels[0].decode()
        reply = dns.message.make_response(query)
        if what == "silence":
            return None
        if what == "garbage":
            return b"\x00\xff" * 40
        if what == "servfail":
            reply.set_rcode(dns.rcode.SERVFAIL)
        elif what == "refused":
            reply.set_rcode(dns.rcode.REFUSED)
        elif what == "loop":
            other = name.to_text().replace("loop", "pool")
            reply.answer = [dns.rrset.from_text(one, 60, "IN", "CNAME", two) for one, two in ((name, other), (other, name))]
        elif what == "cut" and not tcp:
            reply.flags |= dns.flags.TC
        elif what == "many":
            reply.answer = [dns.rrset.from_text(name, 60, "IN", "A", *(f"10.0.{n >> 8}.{n & 255}" for n in range(3000)))]
            reply.flags |= dns.flags.TC if not tcp else 0
            if not tcp:
                reply.answer = []
        elif what == "cut":
            reply.answer = [dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.9")]
        return reply.to_wire(max_size=65_535)


@contextmanager
def faulty() -> Iterator[tuple[str, int]]:
    """One port for UDP and TCP."""
    address = (HOST, free_port())
    with socketserver.ThreadingTCPServer(address, _Faulty) as tcp, socketserver.ThreadingUDPServer(address, _Faulty) as udp:
        for one in (tcp, udp):
            threading.Thread(target=one.serve_forever, args=(0.05,), daemon=True).start()
        yield address
        tcp.shutdown()
        udp.shutdown()


def test_faults_are_replies(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nameservers, "SECONDS", 0.5)

    async def go(bad: tuple[str, int]) -> list[Reply]:
        asker = asking(bad)
        kinds = ("silence", "garbage", "servfail", "refused", "loop", "cut", "many")
        return await asyncio.gather(*(asker.ask(f"{kind}.example", "A") for kind in kinds))

    async def second(bad: tuple[str, int]) -> Reply:
        return await asking(bad, (server.host, server.port)).ask("silence.example", "A")

    with faulty() as bad:
        silence, garbage, servfail, refused, loop, cut, many = asyncio.run(go(bad))
        assert silence == Reply(Status.FAILED, why="no answer within 0.5 s", silent=True)
        assert {reply.status for reply in (garbage, servfail, refused, loop)} == {Status.FAILED}
        assert (servfail.why, refused.why) == ("SERVFAIL", "REFUSED")
        assert garbage.why
        assert loop.why
        assert cut.records == ("192.0.2.9",)
        assert len(many.records) == 3000
        assert asyncio.run(second(bad)).status is Status.NXDOMAIN  # the next name server knows


def test_dead_name_servers_are_given_up_and_dead_domains_are_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nameservers, "SECONDS", 0.2)

    async def go(address: tuple[str, int]) -> tuple[Asker, Reply]:
        asker = asking(address)
        await asyncio.gather(*(asker.ask(f"silence.n{number}.example", "A") for number in range(60)))
        return asker, await asker.ask("cut.example", "A")

    with faulty() as alive:
        asker, last = asyncio.run(go(alive))
        assert last.records == ("192.0.2.9",)
        assert asker.sent > 120  # each twice, and the probes
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind((HOST, 0))
        asker, last = asyncio.run(go(deaf.getsockname()))
    assert last.why == "not asked, as no name server answers"
    assert asker.sent < 120
    assert caplog.text.count("no name server answers") == 1


def test_name_servers_of_the_settings() -> None:
    def read(*texts: str) -> list[tuple[str, int]]:
        return [(str(resolver.nameservers[0]), resolver.port) for resolver in resolvers(texts)]

    assert read("192.0.2.53", "192.0.2.53:5353", "2001:db8::53", "[2001:db8::53]:5353", "[2001:db8::53]") == [
        ("192.0.2.53", 53),
        ("192.0.2.53", 5353),
        ("2001:db8::53", 53),
        ("2001:db8::53", 5353),
        ("2001:db8::53", 53),
    ]


@pytest.mark.parametrize("text", ["", "ns.example", "192.0.2.53:", "192.0.2.53:x", "192.0.2.53:0", "192.0.2.53:70000", "[::1"])
def test_a_name_server_that_is_none(text: str) -> None:
    with pytest.raises(SpecError, match=r"dns\.nameservers: expected an address"):
        resolvers([text])


def test_without_name_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns.asyncresolver, "Resolver", partial(dns.asyncresolver.Resolver, "/dev/null"))
    with pytest.raises(SpecError, match="the system has no name server either"):
        resolvers([])
