"""simulate - a SIMULATION of tenants, honest and misused, for the volume patterns.  Made-up traffic, measured nowhere.

A simulated world is a seed: each of its tenants is drawn from seed and number alone, so that any may be looked at by itself,
and so that the same seed always gives the same traffic.  Seeds 0-19 are for tuning and 20-39 for scoring; a run that mixes them
is refused.  Four of ten tenants are misused once, each kind of misuse in turn; the others are honest all the time.

    bench/simulate.py [--seeds 0] [--tenants 100] [--days 60]      totals by sort of tenant
    bench/simulate.py --tenant 17                                  what one tenant does, day by day

How it fails: exit status 2 with the reason for seeds that are mixed, or days too few for what is simulated.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "monitor")]

from simulation import honest, misuse, profile  # noqa: E402
from simulation.bout import Plan  # noqa: E402
from simulation.rhythm import DAY, WEEK  # noqa: E402
from simulation.stream import Stream  # noqa: E402

TUNING, SCORING = range(20), range(20, 40)
LEAST_DAYS = 30
SETTLED = 21  # days before which no misuse comes, unless it is of tenants that are not settled
_YEAR = 1_767_571_200.0  # Monday, 5 January 2026
_MISUSED = 0.4  # of tenants


def seeds(text: str) -> list[int]:
    """`0-4` or `20,25,30-39`; raises ArgumentTypeError if tuning and scoring are mixed."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            raise argparse.ArgumentTypeError(f"{text!r}: expected numbers and ranges like 20-39")
        found.update(range(int(first), int(last or first) + 1))
    if not (found <= set(TUNING) or found <= set(SCORING)) or not found:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seeds of 0-19 (tuning) or of 20-39 (scoring), never both")
    return sorted(found)


def days(text: str) -> int:
    """At least LEAST_DAYS; raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < LEAST_DAYS:
        raise argparse.ArgumentTypeError(f"{text!r}: expected at least {LEAST_DAYS} days, for the first {SETTLED} are learning")
    return int(text)


def plan(seed: int, number: int, span: int, *, exact: bool = False) -> Plan:
    """All that this tenant does in so many days; `exact`: see `profile.draw`."""
    start = _YEAR + Random(f"{seed}").randrange(52) * WEEK  # so that short runs see all of a year, each seed another part
    rng = Random(f"{seed}/{number}")
    kind = _misuse(number)
    tenant = profile.draw(rng, f"t{seed}-{number}", start, span, exact=exact)
    if kind is None:
        return honest.plan(rng, tenant)
    fewest = misuse.KINDS[kind].fewest
    while tenant.size < fewest or tenant.sort in ("breach", "onboarding"):
        tenant = profile.draw(rng, tenant.name, start, span, exact=exact)
    first = SETTLED if misuse.KINDS[kind].settled else 3
    last = span - 4 if misuse.KINDS[kind].settled else 13
    day = tenant.start + rng.randint(first, last) * DAY
    made = honest.plan(rng, tenant)
    return replace(made, bouts=sorted([*made.bouts, *misuse.bouts(rng, kind, tenant, day)], key=lambda bout: bout.begin))


def stream(seed: int, number: int, made: Plan, detail: float) -> Stream:
    """Its traffic."""
    return Stream(made, Random(f"{seed}/{number}/traffic"), detail)


def _misuse(number: int) -> str | None:
    kinds = list(misuse.KINDS)
    place = int(number * _MISUSED)
    return kinds[place % len(kinds)] if int((number + 1) * _MISUSED) > place else None


def totals(options: argparse.Namespace) -> Iterator[str]:
    """A line for each sort of tenant, and one for each label of bouts."""
    amounts: dict[str, Counter[str]] = defaultdict(Counter)
    bouts: Counter[str] = Counter()
    for seed in options.seeds:
        for number in range(options.tenants):
            made = plan(seed, number, options.days)
            found = amounts[made.profile.sort]
            found["tenants"] += 1
            bouts.update(bout.label for bout in made.bouts)
            for piece in stream(seed, number, made, options.detail).pieces():
                found.update(slices=1, recipients=piece.slice.recipients, new=piece.slice.new_recipients, misused=piece.misused)
    for sort, found in sorted(amounts.items()):
        yield f"{sort:12}" + "".join(
            f"{name:>12} {found[name]:>10,}" for name in ("tenants", "slices", "recipients", "new", "misused")
        )
    yield "bouts: " + ", ".join(f"{count} {label}" for label, count in bouts.most_common())


def story(options: argparse.Namespace) -> Iterator[str]:
    """What one tenant does."""
    seed, number = options.seeds[0], options.tenant
    made = plan(seed, number, options.days)
    tenant = made.profile
    yield f"{tenant.name}: {tenant.sort}, {tenant.size:,.0f} recipients a day, {len(tenant.flow.templates)} templates"
    for bout in made.bouts:
        yield f"{_stamp(bout.begin)} {bout.label}: {bout.recipients:,.0f} recipients in {bout.seconds / 60:,.0f} minutes"
    by_day: Counter[int] = Counter()
    for piece in stream(seed, number, made, options.detail).pieces():
        by_day[int(piece.slice.begin // DAY)] += piece.slice.recipients
    most = max(by_day.values(), default=1)
    for day, count in sorted(by_day.items()):
        yield f"{_stamp(day * DAY)[:10]} {count:>9,} {'#' * round(60 * count / most)}"


def _stamp(at: float) -> str:
    return f"{datetime.fromtimestamp(at, timezone.utc):%Y-%m-%d %H:%M}"


def main() -> int:
    """Show what is simulated."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=seeds, default=[0], help="such as 0-19 or 20-39")
    parser.add_argument("--tenants", type=int, default=100, help="of each seed")
    parser.add_argument("--days", type=days, default=60)
    parser.add_argument("--detail", type=float, default=0.01, help="share of ordinary hours by the minute")
    parser.add_argument("--tenant", type=int, help="this one alone, day by day")
    options = parser.parse_args()
    for line in totals(options) if options.tenant is None else story(options):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
