"""bench_ledger - charges a second that one process gets out of each store, by the size of its batches.

Each charge is the first recipient of a new message, of one of 500 tenants with three recipient limits; batches follow one
another without a pause, as policyd's do under load.  Redis is a private server on loopback, SQLite a file in a temporary
folder, both through `open_async_ledger` as policyd opens them.  Prints a table; known limit: with Redis on the same host
the two processes share its cores.

    bench/bench_ledger.py [--seconds 2] [--stores sqlite redis] [--batches 1 16 32]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import uvloop

from relaywarden.config.settings import Settings
from relaywarden.ledger.connect import open_async_ledger
from relaywarden.ledger.operations import Account, Charge, Operation
from relaywarden.limits import Limit, Meter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from testbed.redis import RedisServer

TENANTS = 500
LIMITS = [Limit.parse(Meter.RECIPIENTS, text) for text in ("1000000/minute", "10000000/hour", "100000000/day")]


async def measure(url: str, size: int, seconds: float) -> float:
    """Charges a second in batches of `size`."""
    ledger = open_async_ledger(Settings.model_validate({"store": url}))
    accounts = [Account.of(f"tenant{number}", LIMITS) for number in range(TENANTS)]
    serial = count()
    run = time.monotonic_ns()

    def batch() -> list[Operation]:
        return [
            Charge(accounts[n % TENANTS], f"{run}.{n}", f"user{n}@dest.example", 4000, "", f"127.0.0.1:{n % 50_000}")
            for n in (next(serial) for _ in range(size))
        ]

    try:
        await ledger.apply(batch())  # connects, loads the scripts
        done, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            done += len(await ledger.apply(batch()))
        return done / (time.perf_counter() - begun)
    finally:
        await ledger.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--stores", nargs="+", default=["sqlite", "redis"], choices=["sqlite", "redis"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4, 16, 32, 64])
    options = parser.parse_args()
    print(f"{'charges/s in batches of':24}" + "".join(f"{size:>10}" for size in options.batches))
    with ExitStack() as running:
        work = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="bench-ledger-")))
        for store in options.stores:
            redis = running.enter_context(RedisServer(work / "redis")) if store == "redis" else None
            url = redis.url if redis else f"sqlite:///{work}/ledger.db"
            rates = [uvloop.run(measure(url, size, options.seconds)) for size in options.batches]
            print(f"{store:24}" + "".join(f"{rate:>10,.0f}" for rate in rates))


if __name__ == "__main__":
    main()
