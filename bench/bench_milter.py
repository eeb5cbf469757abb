"""bench_milter - every comparison of the milter's speed, in one run: signing, scanning, and through a real Postfix.

    python bench/bench_milter.py [--quick] [--only sign|scan|postfix] [--json FILE]

1. sign: relaywarden beside OpenDKIM, 3 KB and 100 KB, 20 connections over Unix sockets.
2. scan: relaywarden with rspamd's normal workers beside rspamd's own milter with its own signing.
3. postfix: what a Postfix takes in bare, with relaywarden, and with postfwd2 and OpenDKIM (`bench_postfix`).

Within a comparison everybody gets the same RSA-2048 key and the same mail from the same client (`loadclient`), and the
rounds alternate, so that a noisy moment does not fall on one of them alone.  Rates are the medians of the rounds, latencies
those of all messages, the ones that were under way at the end of a round included.  `fairness` is what the session served
least got of an even share, in the worst round: where it is low, sessions starved, and p50 and p99 are those of the lucky
ones; then no p99 is called better than another.  `cpu_us` is the CPU time that a message cost the milter (with what it
asks), `client` the client's part of all cores.

Known limit: client and milter share the machine's cores; the numbers compare, they are not what a server alone does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / name) for name in ("tests", "bench", ".", "milter")]

import bench_postfix  # noqa: E402
import milterpeers as peers  # noqa: E402
from loadclient import LoadClient, Measured, summary  # noqa: E402
from milterload import DOMAIN, SELECTOR, check_signs, drive  # noqa: E402
from testbed.dns import DnsServer  # noqa: E402

SIZES = (3_000, 100_000)
_WARM_UP = 10  # messages of each connection before anything is measured
_FAIR = 0.5
Row = dict[str, Any]
_COLUMNS = {"messages_per_second": "messages/s", "delivered_per_second": "delivered/s", "p50_ms": "p50 ms", "p99_ms": "p99 ms",
            "max_ms": "max ms", "fairness": "fairness", "cpu_us": "cpu us", "client_share": "client"}  # fmt: skip
_FORMATS = {"client_share": ".1%", "fairness": ".2f", "cpu_us": ",.0f"}


@dataclass(frozen=True)
class World:
    """What all comparisons share."""

    work: Path
    key: peers.Key
    load: LoadClient
    options: argparse.Namespace

    def folder(self, name: str) -> Path:
        """A folder that the users of other programs may enter."""
        return peers.readable_work(self.work / name)


def sign(world: World, stack: ExitStack) -> list[Row]:
    """Signing alone."""
    running = [
        stack.enter_context(peers.relaywarden(world.folder("relaywarden"), world.key, world.options.milter_workers)),
        stack.enter_context(peers.opendkim(world.folder("opendkim"), world.key)),
    ]
    return rounds(world, running)


def scan(world: World, stack: ExitStack) -> list[Row]:
    """Scanning by rspamd, and signing."""
    workers = world.options.workers
    records = {f"{SELECTOR}._domainkey.{DOMAIN}": {"TXT": world.key.record.decode()}}
    dns = stack.enter_context(DnsServer(world.folder("dns"), records))
    scanner = stack.enter_context(peers.scanner(world.folder("scanner"), dns, workers))
    running = [
        stack.enter_context(peers.relaywarden(world.folder("scanning"), world.key, world.options.milter_workers, scanner))
    ]
    running += stack.enter_context(peers.rspamd_milters(world.folder("rspamd"), dns, world.key, workers))
    return rounds(world, running)


def rounds(world: World, running: Sequence[peers.Peer]) -> list[Row]:
    """Each size in turn, the peers alternating."""
    options = world.options
    answers = {peer.name: check_signs(peer.address, world.key.record) for peer in running}
    rows: list[Row] = []
    for size in SIZES:
        runs: dict[str, list[Measured]] = {peer.name: [] for peer in running}
        cpu = dict.fromkeys(runs, 0.0)
        for peer in running:
            drive(world.load, peer.address, size, options.connections, messages=_WARM_UP * options.connections)
        for number in range(options.rounds):
            for peer in running:
                progress(f"{size} octets, round {number + 1} of {options.rounds}: {peer.name}")
                before = peer.cpu()
                runs[peer.name].append(drive(world.load, peer.address, size, options.connections, seconds=options.seconds))
                cpu[peer.name] += peer.cpu() - before
        rows += [
            {"milter": name, "octets": size, "answers": answers[name], **summary(found, cpu[name])}
            for name, found in runs.items()
        ]
    return rows


def compared(name: str, rows: Sequence[Row]) -> list[str]:
    """Each target in words: what was reached, and whether that is enough."""
    said = []
    if name == "postfix":
        return bench_postfix.compared(rows)
    least = 2.0 if name == "sign" else 1.0
    for size in SIZES:
        ours, *theirs = [row for row in rows if row["octets"] == size]
        best = max(theirs, key=lambda row: row["messages_per_second"])
        ratio = ours["messages_per_second"] / best["messages_per_second"]
        text = f"{size} octets: {ratio:.2f} times {best['milter']} (target {least:g}: {verdict(ratio >= least)})"
        if name == "sign":
            fair = min(ours["fairness"], best["fairness"]) >= _FAIR
            lower = verdict(ours["p99_ms"] < best["p99_ms"]) if fair else "not comparable, sessions were starved"
            text += f", p99 {ours['p99_ms']} ms beside {best['p99_ms']} ms ({lower})"
        said.append(text)
    return said


verdict = bench_postfix.verdict
COMPARISONS: dict[str, Callable[[World, ExitStack], list[Row]]] = {"sign": sign, "scan": scan}


def progress(text: str) -> None:
    """What is going on, for somebody who watches."""
    if sys.stderr.isatty():
        print(f"\r{text:<70}", end="", file=sys.stderr, flush=True)


def table(rows: Sequence[Row]) -> None:
    """For people."""
    columns = [name for name in _COLUMNS if any(name in row for row in rows)]
    print(f"{'':<38}{'octets':>8}" + "".join(f"{_COLUMNS[name]:>12}" for name in columns))
    for row in rows:
        cells = [f"{row[name]:{_FORMATS.get(name, ',.1f')}}" for name in columns]
        print(f"{row['milter']:<38}{row['octets']:>8}" + "".join(f"{cell:>12}" for cell in cells), flush=True)


def machine() -> dict[str, Any]:
    """Where the numbers are from."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    return {"cpus": os.cpu_count(), "cpu": models[0] if models else "", "memory_gib": round(memory, 1),
            "machine": platform.machine(), "python": platform.python_version(), "system": platform.platform(),
            "load_before": os.getloadavg()[0]}  # fmt: skip


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All that is asked for; the tables are printed as they are ready."""
    document: dict[str, Any] = {"machine": machine(), "seconds": options.seconds, "rounds": options.rounds,
                                "connections": options.connections, "workers": options.workers,
                                "milter_workers": options.milter_workers}  # fmt: skip
    comparisons = COMPARISONS | {
        "postfix": lambda world, stack: bench_postfix.compare(
            world.folder("postfix"), world.key, world.load, world.options, stack, progress
        )
    }
    work = Path(tempfile.mkdtemp(prefix="relaywarden-bench-", dir="/tmp"))
    try:
        world = World(peers.readable_work(work), peers.make_key(work), LoadClient(work), options)
        for name in options.only or comparisons:
            with ExitStack() as stack:
                rows = comparisons[name](world, stack)
            progress("")
            print(f"\n{name}: RSA-2048, {options.connections} connections, {os.cpu_count()} cores")
            table(rows)
            said = compared(name, rows)
            print("\n".join(said), flush=True)
            document[name] = {"rows": rows, "compared": said}
    finally:
        if options.keep:
            print(f"left in {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)
    return document


def main() -> int:
    """The command line; the exit status says only whether the run came to its end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round each, about a minute")
    parser.add_argument("--only", action="append", choices=("sign", "scan", "postfix"))
    parser.add_argument("--seconds", type=float, help="length of a round")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--messages", type=int, help="messages of a round through Postfix")
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2, help="of rspamd and policyd")
    parser.add_argument("--milter-workers", type=int, default=4, help="of relaywarden's milter: its default")
    parser.add_argument("--keep", action="store_true", help="leave the folder with configurations and logs")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    seconds, number, messages = (1.5, 1, 800) if options.quick else (4.0, 5, 3_000)
    options.seconds, options.rounds = options.seconds or seconds, options.rounds or number
    options.messages = options.messages or messages
    document = run(options)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
