"""bench_postfixlog - lines a second that PostfixLog makes events of, on one core, nothing else done with them.

The log is loggen's, held in memory and fed in pieces of 1,000 lines, as the follower reads it.  Each form is measured --rounds
times and the best one shown: a busy machine only ever makes it slower.  Ends with an error where an event is missing: a parser
that understands less is quicker.

    bench/bench_postfixlog.py [--messages 50000] [--rounds 3] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import datetime
import pstats
import sys
import time
from collections import Counter

from loggen import START, lines, truth
from relaywarden_monitor.events import Attempt
from relaywarden_monitor.ingest.postfixlog import PostfixLog

PIECE = 1000


def feed_all(log: list[bytes]) -> Counter[str]:
    """Feed everything and count."""
    reader = PostfixLog(datetime.timezone.utc)
    counted: Counter[str] = Counter()
    for begin in range(0, len(log), PIECE):
        for event in reader.feed(log[begin : begin + PIECE], START):
            counted[event.outcome.value if isinstance(event, Attempt) else type(event).__name__] += 1
    if reader.unknown:
        sys.exit(f"{reader.unknown} lines were not understood")
    return counted


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="show where the time goes instead")
    options = parser.parse_args()
    expected = truth(options.messages, 1).values()
    for form, iso in (("RFC 3339", True), ("traditional", False)):
        log = list(lines(options.messages, 1, iso=iso))
        if options.profile:
            profile = cProfile.Profile()
            profile.runcall(feed_all, log)
            pstats.Stats(profile).sort_stats("tottime").print_stats(14)
            continue
        best = 0.0
        for _ in range(options.rounds):
            begun = time.perf_counter()
            counted = feed_all(log)
            best = max(best, len(log) / (time.perf_counter() - begun))
            for outcome in ("delivered", "deferred", "bounced"):
                if counted[outcome] != sum(getattr(one, outcome) for one in expected):
                    sys.exit(f"{outcome}: {counted[outcome]} counted, {sum(getattr(one, outcome) for one in expected)} written")
        print(f"{form:12} {len(log):>9,} lines  {best:>9,.0f} lines/s")


if __name__ == "__main__":
    main()
