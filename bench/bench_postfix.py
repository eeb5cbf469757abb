"""bench_postfix - what a real Postfix takes in: bare, with relaywarden, and with postfwd2 and OpenDKIM.  Used by bench_milter.

One private Postfix with a submission service for each configuration, all mail to smtp-sink:

* bare: SASL login, nothing else;
* relaywarden: policyd and milter (two and four workers, SQLite, no scan) exactly as contrib/postfix wires them: asked at RCPT,
  DATA and END-OF-MESSAGE; over Unix sockets, and again over TCP, where small packets can stall (milter-traps, 18b);
* postfwd2 and OpenDKIM over Unix sockets: postfwd2 asked at RCPT with the same three limits, its counters in memory.

Customers log in once a session (AUTH PLAIN) and send 3 KB messages.  Before anything is measured one message of each
configuration must come out with the right number of signatures.  `messages_per_second` is until the last message is
accepted, `delivered_per_second` until the queue is empty; latencies are of a whole transaction.

How it fails: LoadError for a refused message, StartError for a queue that does not get empty or mail that was deferred.
Known limits: `cpu_us` is that of policyd and milter, without Postfix; `in_flow_delay` is 0, or intake would be measured as
delivery (cleanup then sleeps for 1 s now and then to let deliveries keep up).
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import milterpeers as peers
from bench_peers import postfwd2
from loadclient import LoadClient, Measured, summary
from smtpload import drive
from testbed.ports import HOST, accepts, free_port
from testbed.postfix import Postfix
from testbed.process import Process, StartError, program, wait_for
from testbed.sidecar import Sidecar
from testbed.sink import Sink

SIZE = 3_000
BARE, OURS, OURS_TCP, PEERS = (
    "bare Postfix",
    "relaywarden, Unix sockets",
    "relaywarden, TCP",
    "postfwd2 + OpenDKIM, Unix sockets",
)
USER = (peers.TENANT, "secret")
_LEAST_OF_BARE, _LEAST_OF_PEERS = 0.5, 1.3
Row = dict[str, Any]


@dataclass(frozen=True)
class Wiring:
    """One configuration: where customers connect, what answers behind it, and how many signatures come out."""

    name: str
    port: int
    behind: tuple[peers.Peer, ...] = ()
    signatures: int = 1

    def cpu(self) -> float:
        """CPU seconds of policyd and milter so far."""
        return sum(peer.cpu() for peer in self.behind)


def service(port: int, name: str, policy: str = "", milter: str = "", *, everywhere: bool = False) -> str:
    """A submission service of master.cf; `everywhere`: the policy is also asked at DATA and END-OF-MESSAGE."""
    asked = f"check_policy_service {policy}" if policy else ""
    recipient = ", ".join(filter(None, ("reject_non_fqdn_recipient", asked, "permit_sasl_authenticated, reject")))
    lines = [f"{HOST}:{port} inet n - n - - smtpd", f"  -o syslog_name=postfix/{name}",
             "  -o smtpd_relay_before_recipient_restrictions=yes",
             "  -o { smtpd_relay_restrictions = permit_sasl_authenticated, reject }",
             f"  -o {{ smtpd_recipient_restrictions = {recipient} }}"]  # fmt: skip
    if asked and everywhere:
        lines += [f"  -o {{ smtpd_{stage}_restrictions = {asked} }}" for stage in ("data", "end_of_data")]
    if milter:
        lines.append(f"  -o smtpd_milters={milter}")
    return "\n".join(lines) + "\n"


@contextmanager
def sidecar(work: Path, key: peers.Key, workers: tuple[int, int], policy: str, milter: str) -> Iterator[peers.Peer]:
    """policyd and milter under one supervisor."""
    config = peers.configuration(work, key, workers[1], milter) | {"policyd": {"listen": [policy], "workers": workers[0]}}
    with Sidecar(work, config, "run") as running:
        yield peers.Peer("relaywarden", milter, [running.pid])


@contextmanager
def wirings(work: Path, key: peers.Key, workers: tuple[int, int], sink_port: int) -> Iterator[tuple[Postfix, list[Wiring]]]:
    """Postfix and everything behind it."""
    bare, tcp, others, policy_port, milter_port = (free_port() for _ in range(5))
    folders = {name: peers.readable_work(work / name) for name in ("unix", "tcp", "opendkim", "postfwd2")}
    with ExitStack() as stack:
        opendkim = stack.enter_context(peers.opendkim(folders["opendkim"], key))
        policy = stack.enter_context(postfwd2(folders["postfwd2"]))
        counting = peers.Peer("postfwd2", policy, [int((folders["postfwd2"] / "postfwd.pid").read_text())])
        over_tcp = f"inet:{HOST}:{policy_port}", f"inet:{HOST}:{milter_port}"
        extra = (
            service(bare, "bare")
            + service(tcp, "tcp", *over_tcp, everywhere=True)
            + service(others, "peers", policy, f"unix:{opendkim.address}")
        )
        users, settings = dict([USER]), {"in_flow_delay": "0"}
        postfix = Postfix(
            work / "postfix", users=users, next_hop=f"[{HOST}]:{sink_port}", settings=settings, extra_master=extra
        )
        postfix.prepare()
        unix = f"unix:{postfix.policy_socket}", f"unix:{postfix.milter_socket}"
        ours = stack.enter_context(sidecar(folders["unix"], key, workers, *unix))
        ours_tcp = stack.enter_context(sidecar(folders["tcp"], key, workers, *over_tcp))
        stack.enter_context(postfix)
        yield (
            postfix,
            [
                Wiring(BARE, bare, signatures=0),
                Wiring(OURS, postfix.submission_port, (ours,)),
                Wiring(OURS_TCP, tcp, (ours_tcp,)),
                Wiring(PEERS, others, (opendkim, counting)),
            ],
        )


def compare(
    work: Path, key: peers.Key, load: LoadClient, options: argparse.Namespace, stack: ExitStack, say: Callable[[str], None]
) -> list[Row]:
    """The rounds, configurations alternating."""
    sink_port = free_port()
    postfix, running = stack.enter_context(wirings(work, key, (options.workers, options.milter_workers), sink_port))
    check_signatures(load, postfix, running, sink_port)
    argv = [program("smtp-sink", "postfix"), "-u", "nobody", f"{HOST}:{sink_port}", "200"]
    stack.enter_context(Process("smtp-sink", argv, work / "sink.log", ready=lambda: accepts((HOST, sink_port))))
    runs: dict[str, list[tuple[Measured, float]]] = {wiring.name: [] for wiring in running}
    cpu = dict.fromkeys(runs, 0.0)
    for wiring in running:
        one_round(load, postfix, wiring, options.connections, options.messages // 10)  # warm up
    for number in range(options.rounds):
        for wiring in running:
            say(f"Postfix, round {number + 1} of {options.rounds}: {wiring.name}")
            before = wiring.cpu()
            runs[wiring.name].append(one_round(load, postfix, wiring, options.connections, options.messages))
            cpu[wiring.name] += wiring.cpu() - before
    return [_row(name, found, cpu[name]) for name, found in runs.items()]


def one_round(load: LoadClient, postfix: Postfix, wiring: Wiring, sessions: int, messages: int) -> tuple[Measured, float]:
    """Send, and wait for the deliveries: the run, and the seconds until the queue was empty."""
    measured = drive(load, (HOST, wiring.port), USER, SIZE, sessions, messages)
    accepted = time.perf_counter()
    wait_for("the queue did not get empty", lambda: _empty(postfix.spool), timeout=120, log=postfix.log)
    return measured, measured.seconds + time.perf_counter() - accepted


def check_signatures(load: LoadClient, postfix: Postfix, running: Sequence[Wiring], sink_port: int) -> None:
    """One message of each configuration, as it arrives behind Postfix."""
    with Sink(HOST, sink_port) as sink:
        for wiring in running:
            sink.clear()
            drive(load, (HOST, wiring.port), USER, SIZE, 1, 1)
            found = len(sink.wait()[0].message.get_all("DKIM-Signature", []))
            if found != wiring.signatures:
                raise StartError(f"{wiring.name}: {found} signatures instead of {wiring.signatures}")
        wait_for("the queue did not get empty", lambda: _empty(postfix.spool), log=postfix.log)


def _empty(spool: Path) -> bool:
    """No mail anywhere in the queue (in the order in which it moves)."""
    if any(os.scandir(spool / "incoming")) or any(os.scandir(spool / "active")):
        return False
    if any(files for _, _, files in os.walk(spool / "deferred")):
        raise StartError("Postfix deferred mail, see its log")
    return True


def _row(name: str, runs: Sequence[tuple[Measured, float]], cpu: float) -> Row:
    delivered = statistics.median(measured.messages / seconds for measured, seconds in runs)
    row = summary([measured for measured, _ in runs], cpu)
    return {"milter": name, "octets": SIZE, **row, "delivered_per_second": round(delivered, 1)}


def verdict(reached: bool) -> str:
    """A target in one word."""
    return "reached" if reached else "MISSED"


def compared(rows: Sequence[Row]) -> list[str]:
    """The targets in words."""
    rate = {row["milter"]: row["messages_per_second"] for row in rows}
    bare, theirs, tcp = rate[OURS] / rate[BARE], rate[OURS] / rate[PEERS], rate[OURS_TCP] / rate[OURS]
    return [
        f"intake: {bare:.2f} of bare Postfix (target {_LEAST_OF_BARE:g}: {verdict(bare >= _LEAST_OF_BARE)})",
        f"intake: {theirs:.2f} times postfwd2 + OpenDKIM (target {_LEAST_OF_PEERS:g}: {verdict(theirs >= _LEAST_OF_PEERS)})",
        f"intake over TCP: {tcp:.2f} of that over Unix sockets",
    ]
