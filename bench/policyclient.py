"""policyclient - a load generator that speaks policy delegation as Postfix' smtpd does.

Closed loop: each of N connections sends one RCPT request with every attribute that Postfix 3.8 sends, waits for the reply,
sends the next.  Plain epoll and byte templates, in processes of its own, so that on a small machine the client takes as
little as it can from what it measures.

    python bench/policyclient.py inet:127.0.0.1:10040 --connections 32 --seconds 5

Fails (exit status 1) when the server closes a connection, sends something that is no reply, or answers nothing for 10 s.
Known limits: no SMTP around it; latency includes the client's own turn, so it is honest only below the client's own limit.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import select
import socket
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

SILENCE = 10.0
_TEMPLATE = b"""request=smtpd_access_policy
protocol_state=RCPT
protocol_name=ESMTP
client_address=192.0.2.%d
client_name=app%d.customers.example
client_port=%d
reverse_client_name=app%d.customers.example
server_address=192.0.2.250
server_port=587
helo_name=app%d.customers.example
sender=bounces+%d=%d@t%d.example
recipient=user%d@receiver%d.example
recipient_count=0
queue_id=
instance=%x.%x.%x.0
size=3072
etrn_domain=
stress=
sasl_method=PLAIN
sasl_username=t%d
sasl_sender=
ccert_subject=
ccert_issuer=
ccert_fingerprint=
ccert_pubkey_fingerprint=
encryption_protocol=TLSv1.3
encryption_cipher=TLS_AES_256_GCM_SHA384
encryption_keysize=256
policy_context=submission
compatibility_level=3.8
mail_version=3.8.6

"""


@dataclass
class Load:
    """What to send: `tenants` logins t0, t1, ... in turn, `recipients` RCPT requests a message."""

    address: str
    connections: int = 32
    seconds: float = 5.0
    warmup: float = 1.0
    tenants: int = 500
    recipients: int = 1
    processes: int = 1


@dataclass
class Measured:
    """What came back: replies by action, and the latency of each in seconds."""

    seconds: float = 0.0
    actions: Counter[str] = field(default_factory=Counter)
    latencies: array[float] = field(default_factory=lambda: array("d"))
    client_cpu: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Rounded, for tables and JSON."""
        ordered = sorted(self.latencies)
        count = len(ordered)

        def at(share: float) -> float:
            return round(1000 * ordered[min(count - 1, int(count * share))], 3) if count else 0.0

        return {
            "decisions": count, "seconds": round(self.seconds, 2), "per_second": round(count / self.seconds) if count else 0,
            "p50_ms": at(0.50), "p90_ms": at(0.90), "p99_ms": at(0.99), "max_ms": at(1.0),
            "client_cpu": round(self.client_cpu, 2), "actions": dict(self.actions),
        }  # fmt: skip


def requests(load: Load, seed: int) -> Callable[[], bytes]:
    """A source of requests; no two sources with different seeds share an instance or start at the same tenant."""
    numbers = itertools.count()
    pid, started, tenants, each = os.getpid(), int(time.time()), load.tenants, load.recipients

    def following() -> bytes:
        number = next(numbers)
        message = number // each
        tenant = (seed * 7919 + message) % tenants
        host = tenant % 250
        return _TEMPLATE % (
            host, host, 20000 + seed, host, host, message, tenant, tenant, number, number % 97,
            pid, started, seed * 100_000_000 + message, tenant,
        )  # fmt: skip

    return following


def _connect(address: str) -> socket.socket:
    kind, _, rest = address.partition(":")
    if kind == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(rest)
    else:
        host, _, port = rest.rpartition(":")
        sock = socket.create_connection((host, int(port)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def drive(load: Load, connections: int, first: int) -> Measured:
    """One process' share of the load."""
    poller = select.epoll()
    peers: dict[int, tuple[socket.socket, Callable[[], bytes]]] = {}
    sent: dict[int, float] = {}
    for index in range(connections):
        sock = _connect(load.address)
        peers[sock.fileno()] = (sock, requests(load, first + index))
        poller.register(sock, select.EPOLLIN)
    measured = Measured()
    clock = time.perf_counter
    begin = clock() + load.warmup
    end = begin + load.seconds
    for descriptor, (sock, source) in peers.items():
        sock.sendall(source())
        sent[descriptor] = clock()
    actions: Counter[bytes] = Counter()
    cpu = time.process_time()
    while sent:
        ready = poller.poll(SILENCE)
        if not ready:
            raise RuntimeError(f"no reply within {SILENCE:g} s on {len(sent)} connections")
        for descriptor, _ in ready:
            sock, source = peers[descriptor]
            reply = sock.recv(4096)
            now = clock()
            if not reply.startswith(b"action=") or not reply.endswith(b"\n\n"):
                raise RuntimeError(f"not a reply: {reply!r}")
            if begin <= now < end:
                measured.latencies.append(now - sent[descriptor])
                actions[reply[7:-2].partition(b" ")[0]] += 1
            if now < end:
                sock.sendall(source())
                sent[descriptor] = clock()
            else:
                del sent[descriptor]
    measured.client_cpu = time.process_time() - cpu
    for sock, _ in peers.values():
        sock.close()
    measured.seconds = load.seconds
    measured.actions.update({name.decode(): count for name, count in actions.items()})
    return measured


def run(load: Load) -> Measured:
    """The whole load, in `processes` processes."""
    shares = [load.connections // load.processes + (i < load.connections % load.processes) for i in range(load.processes)]
    firsts = [sum(shares[:i]) for i in range(load.processes)]
    with multiprocessing.get_context("spawn").Pool(load.processes) as pool:
        parts = pool.starmap(drive, [(load, share, first) for share, first in zip(shares, firsts, strict=True) if share])
    total = Measured(seconds=load.seconds)
    for part in parts:
        total.latencies.extend(part.latencies)
        total.actions.update(part.actions)
        total.client_cpu += part.client_cpu
    return total


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="unix:/path or inet:host:port")
    for name, kind in (("connections", int), ("seconds", float), ("warmup", float), ("tenants", int), ("recipients", int),
                       ("processes", int)):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, default=getattr(Load, name))
    load = Load(**vars(parser.parse_args()))
    try:
        measured = run(load)
    except (OSError, RuntimeError) as error:
        print(f"{load.address}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(measured.summary()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
