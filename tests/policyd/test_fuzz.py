"""Hostile peers: garbage, mutated, truncated and pipelined requests over many connections of a real policyd.

Afterwards it must answer as before, hold no more descriptors and hardly more memory, and have logged no traceback.
RELAYWARDEN_FUZZ sets the number of inputs (200,000 in `make fuzz`; the last result is in docs/campaigns.rst).
"""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

from testbed.factories import WorkFolder
from testbed.policypeer import DUNNO, Peer, request
from testbed.ports import HOST, free_port
from testbed.process import wait_for
from testbed.sidecar import Sidecar

INPUTS = int(os.environ.get("RELAYWARDEN_FUZZ", "4000"))
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


def attack(address: tuple[str, int], inputs: int, chance: random.Random) -> None:
    """So many inputs, a few of them on each connection; the peer reads what comes, or goes away."""
    sent = 0
    while sent < inputs:
        with socket.create_connection(address, timeout=20) as sock:
            for _ in range(min(chance.randrange(1, 40), inputs - sent)):
                sent += 1
                try:
                    sock.sendall(mutated(chance))
                    if chance.random() < 0.3:
                        sock.settimeout(0.0005)
                        sock.recv(65536)
                except TimeoutError:
                    pass  # half a request gets no reply
                except OSError:
                    break  # closed, as it should be after garbage
                finally:
                    sock.settimeout(20)


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
        peer = Peer.of(sidecar)
        assert peer.ask(request()) == DUNNO
        peer.close()
        children = Path(f"/proc/{sidecar.pid}/task/{sidecar.pid}/children").read_text().split()
        assert children == [str(worker)], "the worker died"
        assert resident(worker) - memory < 24 * 2**20
        assert "Traceback" not in sidecar.log.read_text()
