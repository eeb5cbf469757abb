"""bench_monitor - how much the monitor reads, end to end into the ledger, on one core; and that it counts right meanwhile.

    log          Postfix' log: follower, parser, attribution, stories, counters (loggen's log, from a file)
    accounting   PowerMTA's accounting: the same from a CSV file (acctgen's rows)
    memory       with --flat N: resident memory while N lines go by

The process binds itself to one core; SQLite runs in it, Redis on the other core.  The speed is that of wall-clock time.  Ends
with an error where a counter differs from what the generator knows.

    bench/bench_monitor.py [--messages 100000] [--rows 500000] [--flat 10000000] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import acctgen
import loggen
from relaywarden.config.settings import Settings
from relaywarden.ledger.connect import open_ledger
from relaywarden.ledger.operations import Ledger
from relaywarden.ledger.records import HOUR_MS, History, Hours
from relaywarden.outcomes import total
from relaywarden_monitor.attribute import Attributor
from relaywarden_monitor.classify.classifier import Classifier
from relaywarden_monitor.docket import Docket
from relaywarden_monitor.ingest.accounting import AccountingFiles
from relaywarden_monitor.ingest.logfile import PostfixFile
from relaywarden_monitor.ingest.source import Source
from relaywarden_monitor.server import GARBAGE, MOST_RECORDS
from relaywarden_monitor.steps import Stepper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from testbed.redis import RedisServer

OUTCOMES = ("delivered", "deferred", "bounced")


def settings(store: str) -> Settings:
    """Every tenant and member that the generators write of."""
    names = [f"tenant{n:02d}" for n in range(loggen.TENANTS)] + [f"tenant{n}" for n in range(acctgen.TENANTS)]
    members = {name: {"ip": f"192.0.2.{n}"} for n, name in enumerate(("tx1", "tx2", "bk1"), 11)}
    return Settings.model_validate({
        "store": store, "plans": {"p": {}}, "tenants": {name: {"plan": "p"} for name in names},
        "pools": {"transactional": {"members": members}}, "monitor": {"postfix_log": "/var/log/mail.log"},
    })  # fmt: skip


def read_all(source: Source, store: str) -> tuple[float, Ledger, list[int]]:
    """Seconds, the ledger afterwards, and the resident memory in KiB after each chunk."""
    values = settings(store)
    ledger, attributor = open_ledger(values), Attributor(values, Classifier.load())
    stepper = Stepper(source, ledger, Docket(), lambda _: False, sift=False,
                      remember_ms=values.monitor.remember, history_ms=400 * 24 * HOUR_MS)  # fmt: skip
    memory, begun = [], time.perf_counter()
    while stepper.step(attributor, MOST_RECORDS)[1] is not None:
        memory.append(_resident())
    return time.perf_counter() - begun, ledger, memory


def counted(ledger: Ledger, tenant: str, since: float) -> dict[str, int]:
    """What the ledger has of a tenant."""
    start = int(since * 1000)
    (found,) = ledger.apply([History(tenant, start - HOUR_MS, start + 400 * 24 * HOUR_MS)])
    amounts = total(cast("Hours", found).hours.values())
    return {name: amounts[name] for name in OUTCOMES}


def of_log(work: Path, store: str, messages: int) -> tuple[float, list[int]]:
    """Lines a second."""
    path = work / "mail.log"
    if not path.exists():
        with path.open("wb") as file:
            file.writelines(line + b"\n" for line in loggen.lines(messages, 1))
    number = sum(1 for _ in path.open("rb"))
    seconds, ledger, memory = read_all(PostfixFile(path, from_start=True), store)
    for tenant, truth in loggen.truth(messages, 1).items():
        expected = {name: getattr(truth, name) for name in OUTCOMES}
        if tenant and counted(ledger, tenant, loggen.START) != expected:
            sys.exit(f"{tenant}: {counted(ledger, tenant, loggen.START)} instead of {expected}")
    ledger.close()
    return number / seconds, memory


def of_accounting(work: Path, store: str, rows: int) -> float:
    """Rows a second."""
    path = work / "acct.csv"
    if not path.exists():
        with path.open("wb") as file:
            file.writelines(acctgen.rows(rows, 1))
    seconds, ledger, _ = read_all(AccountingFiles("bench", [str(path)]), store)
    truth = acctgen.truth(rows, 1)
    for tenant in sorted({name for name, _ in truth}):
        found = counted(ledger, tenant, acctgen.BEGIN)
        # Bounces by mail (rb) count where the message is known, which needs Postfix' log beside the accounting.
        if found["delivered"] != truth[tenant, "delivered"] or found["deferred"] != truth[tenant, "deferred"]:
            sys.exit(f"{tenant}: {found} is not what the rows say: {[truth[tenant, name] for name in OUTCOMES]}")
    ledger.close()
    return rows / seconds


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


def _stores(work: Path, running: ExitStack) -> Iterator[tuple[str, str, str]]:
    redis = running.enter_context(RedisServer(work / "redis"))
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # from here on: Redis keeps to itself
    yield "sqlite", f"sqlite:///{work}/log.db", f"sqlite:///{work}/rows.db"
    yield "redis", f"{redis.url.rstrip('/0')}/0", f"{redis.url.rstrip('/0')}/1"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--flat", type=int, default=0, help="instead: lines to read while memory is watched")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    gc.set_threshold(GARBAGE)
    results: dict[str, Any] = {"machine": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()}
    with ExitStack() as running:
        work = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="bench-monitor-")))
        if options.flat:
            rate, memory = of_log(work, f"sqlite:///{work}/log.db", options.flat // 8)
            thirds = [max(memory[len(memory) * n // 10 : len(memory) * (n + 1) // 10]) // 1024 for n in range(10)]
            results["flat"] = {"lines_per_second": round(rate), "resident_mib_by_tenth": thirds}
        else:
            for name, for_log, for_rows in _stores(work, running):
                rate, _ = of_log(work, for_log, options.messages)
                rows = of_accounting(work, for_rows, options.rows)
                results[name] = {"log_lines_per_second": round(rate), "accounting_rows_per_second": round(rows)}
    text = json.dumps(results, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
