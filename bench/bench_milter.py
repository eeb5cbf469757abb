"""bench_milter - how many messages a second the milter signs, beside OpenDKIM in the same run.

Both get the same RSA-2048 key, the same mail (3 KB by default) over the same kind of Unix socket from the same client; ours
runs two workers with its ledger (SQLite) as in production, OpenDKIM its threads.  The rounds alternate, so that a noisy
moment does not fall on one of them alone.  The client sends whatever the milter said it does not answer in one piece, as
Postfix does, and waits for the rest.

    python bench/bench_milter.py [--seconds 5] [--rounds 3] [--connections 20] [--size 3000 ...] [--json FILE]

Known limit: client and milter share the machine's cores; the numbers compare, they are not what a server alone does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import selectors
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / name) for name in ("tests", ".")]

from testbed.milterclient import _NO_REPLY, _NOT_SENT, MilterClient, packet, strings  # noqa: E402
from testbed.ports import accepts  # noqa: E402
from testbed.process import Process, program  # noqa: E402
from testbed.sidecar import Sidecar  # noqa: E402

QUEUE_ID = b"4QUEUEID"  # stands in the script where each message puts its own
DOMAIN, SELECTOR = "acme.example", "rw1"
_FINAL = frozenset(b"acdrty")
_numbers = itertools.count()


@dataclass
class Result:
    """One milter at one size: the median round, and the latencies over all rounds."""

    milter: str
    size: int
    messages_per_second: float
    p50_ms: float
    p99_ms: float
    rounds: list[float]


def message(size: int) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """A transactional message of about this many octets."""
    headers = [
        (b"Received", b"from app.acme.example (app.acme.example [192.0.2.9])\n\tby relay.example with ESMTPSA id 1234"),
        (b"Date", b"Tue, 24 Nov 2026 08:00:00 +0000"),
        (b"From", b'"Acme Shop" <orders@acme.example>'),
        (b"To", b"Customer <customer@else.example>"),
        (b"Subject", b"Your order 4711 has been sent"),
        (b"Message-ID", b"<4711.20261124@acme.example>"),
        (b"MIME-Version", b"1.0"),
        (b"Content-Type", b"text/plain; charset=utf-8"),
        (b"Content-Transfer-Encoding", b"7bit"),
        (b"List-Unsubscribe", b"<https://acme.example/u/4711>"),
        (b"List-Unsubscribe-Post", b"List-Unsubscribe=One-Click"),
    ]
    line = b"The parcel with your order is on its way and will arrive soon, thank you. "
    body = b"\r\n".join([line.rstrip()] * max(1, (size - 700) // len(line))) + b"\r\n"
    return headers, body


def script(address: str, headers: list[tuple[bytes, bytes]], body: bytes) -> list[bytes]:
    """What to send for one message, cut where the milter answers."""
    with MilterClient(address) as client:
        steps = client.steps
    commands: list[tuple[bytes, bytes]] = [
        (
            b"M",
            packet(b"D", b"M" + strings(b"{auth_authen}", b"acme", b"{auth_type}", b"PLAIN"))
            + packet(b"M", strings(b"<b@acme.example>")),
        ),
        (b"R", packet(b"D", b"R" + strings(b"i", QUEUE_ID)) + packet(b"R", strings(b"<customer@else.example>"))),
        (b"T", packet(b"D", b"T" + strings(b"i", QUEUE_ID)) + packet(b"T")),
        *((b"L", packet(b"L", strings(name, value))) for name, value in headers),
        (b"N", packet(b"N")),
        *((b"B", packet(b"B", body[at : at + 65535])) for at in range(0, len(body), 65535)),
        (b"E", packet(b"D", b"E" + strings(b"i", QUEUE_ID)) + packet(b"E")),
    ]
    pieces = [b""]
    for command, data in commands:
        if steps & _NOT_SENT.get(command, 0):
            continue
        pieces[-1] += data
        if not steps & _NO_REPLY.get(command, 0) and command != b"E":
            pieces.append(b"")
    return pieces


class Connection:
    """One SMTP session's milter connection, sending message after message."""

    def __init__(self, address: str, pieces: list[bytes]) -> None:
        self.client = MilterClient(address)
        self.client.negotiate()
        self.client.begin()
        self.sock = self.client.sock
        self.pieces, self.at, self.began = pieces, 0, 0.0
        self.buffer = self.queue_id = b""

    def start(self) -> None:
        self.began, self.at = time.perf_counter(), 0
        self.queue_id = b"4%07X" % next(_numbers)
        self.send()

    def send(self) -> None:
        """The piece that is due."""
        self.sock.sendall(self.pieces[self.at].replace(QUEUE_ID, self.queue_id))

    def readable(self) -> float | None:
        """Take what came; the message's seconds when it is finished."""
        data = self.buffer + self.sock.recv(65536)
        if not data:
            raise ConnectionError("the milter closed the connection")
        at = 0
        finished = None
        while len(data) - at >= 5:
            (length,) = struct.unpack_from("!I", data, at)
            if len(data) - at < 4 + length:
                break
            command = data[at + 4]
            at += 4 + length
            if command in _FINAL:
                if command not in b"ac":
                    raise ConnectionError(f"the milter refused the message: {data!r}")
                if self.at + 1 < len(self.pieces):
                    self.at += 1
                    self.send()
                else:
                    finished = time.perf_counter() - self.began
        self.buffer = data[at:]
        return finished


def drive(address: str, pieces: list[bytes], connections: int, seconds: float) -> tuple[float, list[float]]:
    """Messages a second and their latencies, with this many connections busy all the time."""
    selector = selectors.DefaultSelector()
    for _ in range(connections):
        connection = Connection(address, pieces)
        selector.register(connection.sock, selectors.EVENT_READ, connection)
    latencies: list[float] = []
    began = time.perf_counter()
    for key in selector.get_map().values():
        key.data.start()
    while (now := time.perf_counter()) - began < seconds:
        for key, _ in selector.select(1.0):
            taken = key.data.readable()
            if taken is not None:
                latencies.append(taken)
                key.data.start()
    elapsed = now - began
    for key in list(selector.get_map().values()):
        key.data.sock.close()
    selector.close()
    return len(latencies) / elapsed, latencies


@contextmanager
def relaywarden(work: Path, key: Path, workers: int) -> Iterator[str]:
    """Our milter, as an operator runs it."""
    config = {
        "store": f"sqlite:///{work}/ledger.db",
        "milter": {"listen": f"unix:{work}/milter", "workers": workers},
        "plans": {"standard": {"limits": [{"messages": "1_000_000_000/day"}]}},
        "tenants": {
            "acme": {
                "plan": "standard",
                "from_domains": [DOMAIN],
                "dkim": [{"domain": DOMAIN, "selector": SELECTOR, "key": str(key)}],
            }
        },
    }
    with Sidecar(work, config, "milter"):
        yield str(work / "milter")


@contextmanager
def opendkim(work: Path, key: Path) -> Iterator[str]:
    """OpenDKIM as its documentation sets it up for signing, with logging off."""
    conf = work / "opendkim.conf"
    conf.write_text(
        f"Mode s\nDomain {DOMAIN}\nSelector {SELECTOR}\nKeyFile {key}\nCanonicalization relaxed/relaxed\n"
        "InternalHosts 0.0.0.0/0\nOversignHeaders From\nSyslog no\nBackground no\nRequireSafeKeys no\n"
        "MacroList {auth_type}\n"
    )
    socket_path = work / "opendkim.sock"
    argv = [program("opendkim", "opendkim"), "-f", "-x", str(conf), "-p", f"local:{socket_path}"]
    with Process("opendkim", argv, work / "opendkim.log", ready=lambda: accepts(str(socket_path))):
        yield str(socket_path)


def run(arguments: argparse.Namespace) -> list[Result]:
    results = []
    work = Path(tempfile.mkdtemp(prefix="relaywarden-bench-", dir="/tmp"))
    try:
        key = work / "key.pem"
        subprocess.run([program("openssl", "openssl"), "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        with ExitStack() as stack:
            ours, theirs = work / "ours", work / "theirs"
            theirs.mkdir()
            milters = {"relaywarden": stack.enter_context(relaywarden(ours, key, arguments.workers))}
            if not arguments.alone:
                milters["opendkim"] = stack.enter_context(opendkim(theirs, key))
            for size in arguments.size:
                results += measure(milters, size, arguments, progress)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return results


def measure(milters: dict[str, str], size: int, arguments: argparse.Namespace, say: Callable[[str], None]) -> list[Result]:
    headers, body = message(size)
    pieces = {name: script(address, headers, body) for name, address in milters.items()}
    rates: dict[str, list[float]] = {name: [] for name in milters}
    latencies: dict[str, list[float]] = {name: [] for name in milters}
    for name, address in milters.items():
        drive(address, pieces[name], arguments.connections, 1.0)  # warm up
    for number in range(arguments.rounds):
        for name, address in milters.items():
            say(f"{size} octets, round {number + 1} of {arguments.rounds}: {name}")
            rate, taken = drive(address, pieces[name], arguments.connections, arguments.seconds)
            rates[name].append(rate)
            latencies[name] += taken
    found = []
    for name in milters:
        points = statistics.quantiles(latencies[name], n=100)
        found.append(Result(name, size, statistics.median(rates[name]), points[49] * 1000, points[98] * 1000, rates[name]))
    return found


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:<70}", end="", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--size", type=int, nargs="+", default=[3000])
    parser.add_argument("--alone", action="store_true", help="without OpenDKIM")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    arguments = parser.parse_args()
    results = run(arguments)
    progress("")
    print(f"\nDKIM signing, RSA-2048, {arguments.connections} connections, Unix sockets, {os.cpu_count()} cores")
    print(f"{'milter':<14}{'octets':>8}{'messages/s':>12}{'p50 ms':>9}{'p99 ms':>9}")
    for result in results:
        print(
            f"{result.milter:<14}{result.size:>8}{result.messages_per_second:>12.0f}{result.p50_ms:>9.1f}{result.p99_ms:>9.1f}"
        )
    slower = False
    for ours, theirs in zip(results[::2], results[1::2], strict=True) if not arguments.alone else ():
        ratio = ours.messages_per_second / theirs.messages_per_second
        print(f"{ours.size} octets: relaywarden signs {ratio:.2f} times OpenDKIM's messages a second")
        slower = slower or ratio < 1.0
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")
    return 1 if slower else 0


if __name__ == "__main__":
    raise SystemExit(main())
