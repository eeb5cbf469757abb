"""bench_patterns - what the volume patterns cost: processor time of a slice and a turn, memory and state of a tenant.

The traffic is generated: sizes from 20 to 200,000 a day, slices of a minute as the monitor gathers them.  Counted is processor
time of this process, so that a busy machine does not matter much.  "100,000 tenants" is the share of one core that it takes if
each of them sends something every minute.  Exit status 1 where that is more than TARGET.

    bench/bench_patterns.py [--tenants 200] [--days 15]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "monitor")]

from relaywarden_monitor.patterns.engine import Engine  # noqa: E402
from relaywarden_monitor.patterns.traffic import Group, Slice  # noqa: E402

TARGET = 0.1  # of a core
MANY = 100_000
MONDAY, HOUR = 1_767_571_200.0, 3600.0
_DOMAINS = {"gmail.com": 40, "outlook.com": 9, "yahoo.com": 8, "icloud.com": 6, "gmx.net": 5, "a.example": 1, "b.example": 1}


def piece(number: int, tenants: int, begin: float, seconds: float, rng: random.Random) -> Slice:
    """What one tenant sends in a while, at least one message."""
    count = max(1, round(20 * 10 ** (4 * number / tenants) * seconds / 86_400 * rng.expovariate(1)))
    made = Slice(f"tenant{number}", begin, begin + seconds, count, count, new_recipients=count // 4, bulk=0.2 * count)
    for template in range(min(count, 4)):
        made.groups[number * 10 + template] = Group(max(1, count // 4), max(1, count // 4), 0.05 * count)
    made.domains = Counter(dict(list(_DOMAINS.items())[: max(1, min(count, 7))]))
    made.networks, made.from_domains = frozenset({f"192.0.{number % 256}.0/24"}), frozenset({f"tenant{number}.example"})
    made.scored, made.score, made.delivered = count, -1.0 * count, count
    return made


def grown(tenants: int, days: int) -> Engine:
    """An engine that has seen so many days."""
    engine, rng = Engine(), random.Random(1)
    for hour in range(days * 24):
        begin = MONDAY + hour * HOUR
        for number in range(tenants):
            engine.observe(piece(number, tenants, begin, HOUR, rng))
        engine.turn(begin + HOUR)
    return engine


def hour(engine: Engine, tenants: int, begin: float) -> tuple[float, float]:
    """Seconds of `observe` and of `turn` in an hour of minutes."""
    rng, observing, turning = random.Random(2), 0.0, 0.0
    for minute in range(60):
        at = begin + minute * 60
        pieces = [piece(number, tenants, at, 60.0, rng) for number in range(tenants)]
        started = time.process_time()
        for item in pieces:
            engine.observe(item)
        observed = time.process_time()
        engine.turn(at + 60)
        observing, turning = observing + observed - started, turning + time.process_time() - observed
    return observing, turning


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tenants", type=int, default=200)
    parser.add_argument("--days", type=int, default=15)
    options = parser.parse_args()
    tenants, begin = options.tenants, MONDAY + options.days * 86_400
    engine = grown(tenants, options.days)
    observing, turning = hour(engine, tenants, begin)
    slices = 60 * tenants
    share = (observing + turning) / tenants * MANY / HOUR
    states = [json.dumps(engine.state(f"tenant{number}"), separators=(",", ":")) for number in range(tenants)]
    tracemalloc.start()
    other = Engine()
    for number, state in enumerate(states):
        other.restore(f"tenant{number}", json.loads(state))
    memory, sizes = tracemalloc.get_traced_memory()[0] / tenants, [len(state) / 1024 for state in states]
    print(f"observe, hours' ends included  {observing / slices * 1e6:8.1f} us a slice")
    print(f"turn                           {turning / slices * 1e6:8.1f} us a tenant")
    print(f"100,000 tenants, each minute   {share:8.1%} of a core (target: at most {TARGET:.0%})")
    print(f"memory                         {memory / 1024:8.1f} KiB a tenant")
    print(f"state                          {sum(sizes) / tenants:8.1f} KiB a tenant, at most {max(sizes):.1f}")
    return 0 if share <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
