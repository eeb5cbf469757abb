"""loadclient - runs loadclient.c: the load of a bench, by a client that costs next to nothing.

A client in Python took 12 % of a two-core machine from OpenDKIM, which answers sixteen times a message, and 6 % from
relaywarden: that is no comparison.  So the protocols are spoken here until the connections stand and the messages are cut
into pieces (`milterload`, `smtpload`), and a small C program, compiled at each start, does the rest on the same sockets.

Fails with LoadError, with what the program said: an answer that is no acceptance, silence, a closed connection.
"""

from __future__ import annotations

import itertools
import os
import socket
import statistics
import struct
import subprocess
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from testbed.process import program

NUMBER = b"0NUMBER0"  # stands in a piece where each message puts its own number, 8 hexadecimal digits
_SEND_BUFFER = 2**20  # no piece may block the one thread that serves all connections
_SO_SNDBUFFORCE = 32
_runs = itertools.count(1)


class LoadError(RuntimeError):
    """The load did not come to its end."""


@dataclass
class Measured:
    """One run: messages finished in that time, and by each session; the client's own CPU seconds; all latencies in seconds.

    There are more latencies than messages: those under way at the end were waited for.
    """

    seconds: float
    client_cpu: float
    messages: int
    shares: array[float]
    latencies: array[float]

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds if self.seconds else 0.0

    @property
    def fairness(self) -> float:
        """The messages of the session served least, as a part of what an even share would be."""
        return min(self.shares) * len(self.shares) / self.messages if self.messages else 0.0

    @property
    def client_share(self) -> float:
        """The client's part of all cores."""
        return self.client_cpu / self.seconds / (os.cpu_count() or 1) if self.seconds else 0.0


def summary(runs: Sequence[Measured], cpu: float) -> dict[str, Any]:
    """The runs of one competitor in a table's words; `cpu` is the CPU seconds that it spent on them."""
    latencies = sorted(latency for run in runs for latency in run.latencies)
    return {
        "messages_per_second": round(statistics.median(run.rate for run in runs), 1),
        "p50_ms": round(1000 * latencies[len(latencies) // 2], 2),
        "p99_ms": round(1000 * latencies[len(latencies) * 99 // 100], 2),
        "max_ms": round(1000 * latencies[-1], 2),
        "fairness": round(min(run.fairness for run in runs), 3),
        "cpu_us": round(1e6 * cpu / len(latencies)),
        "client_share": round(statistics.mean(run.client_share for run in runs), 3),
        "rounds": [round(run.rate, 1) for run in runs],
    }


class LoadClient:
    """The compiled program."""

    def __init__(self, work: Path) -> None:
        self._binary = work / "loadclient"
        source = Path(__file__).with_suffix(".c")
        subprocess.run([program("gcc", "gcc"), "-O2", "-o", str(self._binary), str(source)], check=True)

    def run(
        self,
        protocol: Literal["milter", "smtp"],
        sockets: Sequence[socket.socket],
        pieces: Sequence[bytes],
        *,
        seconds: float = 0.0,
        messages: int = 0,
    ) -> Measured:
        """Send message after message on each socket, for `seconds` or until `messages` are accepted; closes the sockets."""
        numbers = [sock.fileno() for sock in sockets]
        for sock in sockets:
            sock.setblocking(True)
            sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE if os.geteuid() == 0 else socket.SO_SNDBUF, _SEND_BUFFER)
        first = next(_runs) << 22  # no two runs of a bench use a number twice
        argv = [str(self._binary), protocol, str(seconds), str(messages), str(first), *map(str, numbers)]
        try:
            done = subprocess.run(
                argv, input=script(pieces), capture_output=True, check=False, pass_fds=numbers, timeout=seconds + 300
            )
        finally:
            for sock in sockets:
                sock.close()
        if done.returncode != 0:
            raise LoadError(done.stderr.decode(errors="replace").strip())
        elapsed, cpu, count = struct.unpack_from("3d", done.stdout)
        head = 24 + 8 * len(sockets)
        shares, latencies = array("d", done.stdout[24:head]), array("d", done.stdout[head:])
        if not latencies or len(latencies) < count:
            raise LoadError(f"{int(count)} messages, {len(latencies)} latencies")
        return Measured(elapsed, cpu, int(count), shares, latencies)


def script(pieces: Sequence[bytes]) -> bytes:
    """The pieces as loadclient.c reads them."""
    parts = [struct.pack("I", len(pieces))]
    for piece in pieces:
        places, at = [], piece.find(NUMBER)
        while at >= 0:
            places.append(at)
            at = piece.find(NUMBER, at + 1)
        parts += [struct.pack(f"II{len(places)}I", len(piece), len(places), *places), piece]
    return b"".join(parts)
