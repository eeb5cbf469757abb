"""Hostile peers: garbage, mutated, truncated and pipelined requests over many connections of a real policyd.

Afterwards it must answer as before, hold no more descriptors and hardly more memory, and have logged no traceback.
RELAYWARDEN_FUZZ sets the number of inputs (200,000 in `make fuzz`; the last result is in docs/campaigns.rst).
"""

from __future__ import annotations

import os
import random
import socket
from contextlib import closing
from pathlib import Path

from relaywarden_policyd.protocol import MalformedError, Parser
from testbed.factories import WorkFolder
from testbed.policypeer import DUNNO, Peer, request
from testbed.ports import HOST, free_port
from testbed.process import wait_for
from testbed.sidecar import Sidecar

INPUTS = int(os.environ.get("RELAYWARDEN_FUZZ", "4000"))
AT_ONCE = 40  # connections
HANGS = 10.0  # seconds in which any server that does not hang has done something
_ODD = [
    b"=",
    b"\n",
    b"\n\n",
    b"\0",
    b"\r\n",
    b"\xff\xfe",
    b"size=-1\n",
    b"recipient_count=99999999999999999999\n",
    b"instance=\n",
]


def mutated(chance: random.Random) -> bytes:
    """A request as Postfix sends it, with something wrong; or nothing wrong, or no request at all."""
    kind = chance.randrange(8)
    if kind == 0:
        return chance.randbytes(chance.randrange(1, 400))
    state = chance.choice(["RCPT", "DATA", "END-OF-MESSAGE", "MAIL", "CONNECT", "", "ETRN", "X" * 50])
    data = request(
        login=chance.choice(["acme", "", "big", "unknown", "ACME", "a" * 300, "ü"]),
        recipient=f"u{chance.randrange(10**6)}@x.example",
        instance=chance.choice(["", "1.2.3", f"{chance.random()}"]),
        state=state,
        size=str(chance.choice([0, 1, 10**6, 10**12, "x", ""])),
        recipient_count=str(chance.choice([0, 1, 50, "", "-3"])),
        queue_id=chance.choice(["", "4QID", "'; DROP TABLE ticket; --", "{}*?["]),
    )
    if kind == 1:
        return data[: chance.randrange(len(data))]  # cut off
    if kind == 2:
        at = chance.randrange(len(data))
        return data[:at] + chance.choice(_ODD) + data[at:]
    if kind == 3:
        at = chance.randrange(len(data))
        return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
    if kind == 4:
        return data * chance.randrange(2, 6)  # pipelined
    if kind == 5:
        lines = data.split(b"\n")
        chance.shuffle(lines)
        return b"\n".join(lines) + b"\n\n"
    return data


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Attacker:
    """One hostile connection; the parser in this process sees the same bytes, and so knows what replies are due."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._sock = socket.create_connection(address, timeout=HANGS)
        self._parser = Parser()
        self._due, self._received = 0, b""
        self.broken = False  # what follows is nobody's concern: the server closes

    def send(self, data: bytes) -> None:
        """In the same pieces that the parser sees; a server that takes no more for as long as HANGS fails the test."""
        try:
            self._due += len(self._parser.feed(data))
        except MalformedError as error:
            self._due += len(error.requests)
            self.broken = True
        self._sock.sendall(data)

    def end(self) -> None:
        """Send no more and take what there is to take: every request has its reply, then the server closes."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
            while data := self._sock.recv(65536):
                self._received += data
        except ConnectionError:
            pass  # it closed with bytes of ours unread; then the kernel may drop replies that were on their way
        else:
            assert self._received.count(b"action=") == self._due
        self._sock.close()

    def vanish(self) -> None:
        """Without reading a reply."""
        self._sock.close()


def attack(address: tuple[str, int], inputs: int, chance: random.Random) -> None:
    """So many inputs over `AT_ONCE` connections; each ends after its first fault, or at some time without one."""
    attackers: list[Attacker] = []
    for sent in range(inputs):
        if len(attackers) < AT_ONCE:
            attackers.append(Attacker(address))
        attacker = chance.choice(attackers)
        attacker.send(mutated(chance))
        if attacker.broken or chance.random() < 0.05:
            attackers.remove(attacker)
            attacker.end() if chance.random() < 0.7 else attacker.vanish()
        if sent % 5000 == 4999:
            healthy(address)
    for attacker in attackers:
        attacker.end()


def healthy(address: tuple[str, int]) -> None:
    """Another peer notices nothing."""
    with closing(Peer(address)) as peer:
        assert peer.ask(request()) == DUNNO


def test_fuzz_hostile_peers(work_folder: WorkFolder) -> None:
    work = work_folder("policyd")
    config = {
        "store": f"sqlite:///{work}/ledger.db",
        "policyd": {"listen": f"inet:{HOST}:{free_port()}", "workers": 1},
        "plans": {"p": {"limits": [{"recipients": "100000000/hour"}, {"bytes": "1TiB/day"}], "recipients_per_message": 50}},
        "unknown_login": {"plan": "p"},
        "tenants": {"acme": {"plan": "p"}, "big": {"plan": "p"}},
        "log": {"level": "error"},
    }
    with Sidecar(work, config, "policyd") as sidecar:
        (worker,) = (int(pid) for pid in Path(f"/proc/{sidecar.pid}/task/{sidecar.pid}/children").read_text().split())
        port = int(str(config["policyd"]["listen"]).rpartition(":")[2])  # type: ignore[index]
        attack((HOST, port), INPUTS // 10, random.Random(1))
        wait_for("connections to be let go", lambda: descriptors(worker) < 60)
        before, memory = descriptors(worker), resident(worker)
        attack((HOST, port), INPUTS, random.Random(2))
        wait_for("connections to be let go", lambda: descriptors(worker) <= before)
        healthy((HOST, port))
        children = Path(f"/proc/{sidecar.pid}/task/{sidecar.pid}/children").read_text().split()
        assert children == [str(worker)], "the worker died"
        assert resident(worker) - memory < 24 * 2**20
        assert "Traceback" not in sidecar.log.read_text()
