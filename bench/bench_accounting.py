#!/usr/bin/env python3
"""bench_accounting - rows a second that one core gets out of PowerMTA's accounting, and lines a second out of any file.

Writes a file of made-up rows (acctgen) and reads it three ways: lines only, rows to events in memory, and as the monitor does
it, as a source with positions; the last two also check the counts against what is true.

    bench/bench_accounting.py [--rows 300000] [--seed 1] [--compress]
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import acctgen
from relaywarden_monitor.events import Attempt, Complaint, Event
from relaywarden_monitor.ingest.accounting import AccountingFiles, Parser
from relaywarden_monitor.ingest.follow import LineFollower
from relaywarden_monitor.ingest.records import cut_rows
from relaywarden_monitor.ingest.siblings import Matching

MOST = 5000


def counts(events: Iterable[Event]) -> Counter[tuple[str, str]]:
    """What the events say of (tenant, outcome), as acctgen.truth does."""
    found: Counter[tuple[str, str]] = Counter()
    for event in events:
        if isinstance(event, Attempt) and event.recipient:
            found[event.tenant, event.outcome.value] += 1
        elif isinstance(event, Complaint):
            found[event.token, "complained"] += 1
    return found


def lines(path: Path) -> int:
    """Lines of the file."""
    follower = LineFollower(Matching([str(path)]), from_start=True)
    follower.open(None)
    count = 0
    while cut := follower.read(MOST):
        count += len(cut.records)
    follower.close()
    return count


def parse(records: list[bytes]) -> Counter[tuple[str, str]]:
    """The counts of rows in memory."""
    parser, header = Parser(), records[0]
    found: Counter[tuple[str, str]] = Counter()
    for start in range(1, len(records), MOST):
        found += counts(parser.parse(records[start : start + MOST], header)[0])
    return found


def source(path: Path) -> Counter[tuple[str, str]]:
    """The counts of the file."""
    files = AccountingFiles("bench", [str(path)])
    files.open(None)
    found: Counter[tuple[str, str]] = Counter()
    while chunk := files.read(MOST):
        found += counts(chunk.events)
    files.close()
    return found


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=300_000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--compress", action="store_true", help="read the file as gzip")
    given = options.parse_args()
    true = acctgen.truth(given.rows, given.seed)
    with tempfile.TemporaryDirectory() as folder:
        content = b"".join(acctgen.rows(given.rows, given.seed))
        path = Path(folder) / "acct.csv"
        path.write_bytes(gzip.compress(content, 6) if given.compress else content)
        begun = time.perf_counter()
        count = lines(path)
        print(f"lines only         {count / (time.perf_counter() - begun):12,.0f} lines/s")
        records, _ = cut_rows(content)
        begun = time.process_time()
        assert parse(records) == true
        print(f"rows to events     {given.rows / (time.process_time() - begun):12,.0f} rows/s of processor time")
        begun = time.process_time()
        assert source(path) == true
        print(f"file to events     {given.rows / (time.process_time() - begun):12,.0f} rows/s of processor time")


if __name__ == "__main__":
    main()
