"""evaluate_patterns - scores the volume patterns on SIMULATED tenants: false steps, and how soon misuse is met.

Nothing here was measured on a real relay: bench/simulation says what is assumed.  The figures tell whether the engine does
what it is meant to on traffic of known truth, and which change makes it better or worse.

    bench/evaluate_patterns.py                                     seeds 20-39 (scoring), 35 tenants, 90 days: 5 minutes
    bench/evaluate_patterns.py --seeds 0-19                        tuning: look at the failures of these, never at others
    bench/evaluate_patterns.py --tenants 1000 --days 365           the full year: half an hour a seed, ten hours in all
    --exact      recipients are known as new or not without the limits of the table in `patterns.novelty`
    --detail 1   every hour by the minute: finds what only a minute shows, for thirty times the time

Targets: fewer than 1 step to SLOWED or beyond per 20,000 honest tenant-days; those of `misuse.KINDS`.  Exit status 1 below any.
The same seeds give the same figures, however many processes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import datetime, timezone
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import simulate
from relaywarden_monitor.patterns.engine import Engine, Step
from simulation.misuse import KINDS
from simulation.scoring import Caught, Judge, Score, Wrong, at_most

PER_DAYS = 20_000
MOST_WRONG = 1.0  # steps per PER_DAYS, of which there must be fewer
_TOLD = 10
_STEPS = [step.name for step in Step]

Job = tuple[int, int, int, float, bool]  # seed, tenant, days, detail, exact


def judge(job: Job) -> Score:
    """One tenant's score."""
    seed, number, days, detail, exact = job
    made = simulate.plan(seed, number, days, exact=exact)
    return Judge(made, Engine()).run(simulate.stream(seed, number, made, detail))


def run(jobs: list[Job], processes: int) -> Iterator[Score]:
    """The scores in the order of the jobs."""
    if processes <= 1:
        yield from map(judge, jobs)
        return
    with get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(judge, jobs, chunksize=8)


def summary(scores: Iterable[Score]) -> dict[str, Any]:
    """Everything that is told, as JSON values."""
    sorts: dict[str, Counter[str]] = defaultdict(Counter)
    wrong: list[Wrong] = []
    learning: list[Wrong] = []
    caught: dict[str, list[Caught]] = defaultdict(list)
    highest: Counter[tuple[str, str]] = Counter()
    for score in scores:
        sorts[score.sort].update(
            tenants=1, days=score.days, wrong=len(score.wrong), learning_days=score.learning_days, learning=len(score.learning),
            watched=score.watched, tolerated=score.tolerated, hit=bool(score.wrong),
        )  # fmt: skip
        wrong += score.wrong
        learning += score.learning
        highest.update(score.highest)
        if score.caught:
            caught[score.caught.kind].append(score.caught)
    labels = sorted({label for label, _ in highest})
    return {
        "honest": {sort: dict(sorts[sort]) for sort in sorted(sorts)},
        "misuse": {kind: _kind(kind, caught[kind]) for kind in KINDS if caught[kind]},
        "confusion": {label: {step: highest[label, step] for step in _STEPS} for label in labels},
        "wrong": [asdict(step) for step in wrong],
        "learning": [asdict(step) for step in learning],
        "missed": [asdict(item) for kind in KINDS for item in caught[kind] if not item.in_time],
    }


def failures(result: dict[str, Any]) -> list[str]:
    """The targets that were not reached."""
    days, wrong = (sum(amounts[name] for amounts in result["honest"].values()) for name in ("days", "wrong"))
    found = []
    if wrong * PER_DAYS >= MOST_WRONG * max(days, 1):
        found.append(f"{wrong} steps in {days:,} honest tenant-days, expected fewer than {MOST_WRONG:g} per {PER_DAYS:,}")
    for kind, amounts in result["misuse"].items():
        if amounts["share"] < amounts["target"]:
            found.append(f"{kind}: {amounts['share']:.1%} stepped in time, expected {amounts['target']:.0%}")
    return found


def table(result: dict[str, Any]) -> Iterator[str]:
    """For people."""
    head = f"{'honest sort':20}{'tenants':>9}{'days':>10}{'steps':>7}{'per 20,000':>12}"
    yield head + f"{'hit':>5}{'watched':>9}{'tolerated':>11}{'learning':>10}"
    sums: Counter[str] = Counter()
    for sort, amounts in result["honest"].items():
        sums.update(amounts)
        yield _honest(sort, amounts)
    yield _honest("all", sums)
    most = at_most(sums["wrong"]) * PER_DAYS / max(1, sums["days"])
    yield f"with 95 % confidence at most {most:.2f} per {PER_DAYS:,}, if simulated tenants are like real ones"
    yield ""
    yield f"{'misuse':20}{'cases':>7}{'in time':>9}{'target':>8}{'met':>7}{'seconds':>10}{'messages':>10}  final steps"
    for kind, amounts in result["misuse"].items():
        target = f"{amounts['target']:.0%}" if amounts["target"] else "-"
        final = ", ".join(f"{count} {step}" for step, count in amounts["final"].items())
        yield (
            f"{kind:20}{amounts['cases']:>7}{amounts['share']:>9.1%}{target:>8}{amounts['met']:>7.1%}"
            f"{_number(amounts['seconds']):>10}{_number(amounts['messages']):>10}  {final}"
        )
    yield ""
    yield f"{'highest step during':20}" + "".join(f"{step:>11}" for step in _STEPS)
    for label, counts in result["confusion"].items():
        yield f"{label:20}" + "".join(f"{counts[step] or '.':>11}" for step in _STEPS)
    yield from _listed("steps that nobody deserved", result["wrong"], "text")
    yield from _listed("misuse not met in time", result["missed"], "kind")


def _kind(kind: str, cases: list[Caught]) -> dict[str, Any]:
    seconds = [case.seconds for case in cases if case.seconds is not None]
    messages = [case.messages for case in cases if case.messages is not None]
    return {
        "cases": len(cases), "share": sum(case.in_time for case in cases) / len(cases), "target": KINDS[kind].share,
        "met": len(seconds) / len(cases), "seconds": statistics.median(seconds) if seconds else None,
        "messages": statistics.median(messages) if messages else None,
        "final": {step: count for step in _STEPS if (count := sum(case.final == step for case in cases))},
    }  # fmt: skip


def _honest(sort: str, amounts: dict[str, int]) -> str:
    rate = amounts["wrong"] * PER_DAYS / max(1, amounts["days"])
    learning = f"{amounts['learning']}/{amounts['learning_days']}"
    return (
        f"{sort:20}{amounts['tenants']:>9,}{amounts['days']:>10,}{amounts['wrong']:>7}{rate:>12.2f}{amounts['hit']:>5}"
        f"{amounts['watched']:>9,}{amounts['tolerated']:>11}{learning:>10}"
    )


def _listed(title: str, items: list[dict[str, Any]], text: str) -> Iterator[str]:
    if items:
        yield f"\n{title} (the first {min(_TOLD, len(items))} of {len(items)}):"
    for item in items[:_TOLD]:
        if text == "text":
            when = datetime.fromtimestamp(item["at"], timezone.utc)
            yield f"  {item['sort']} {when:%Y-%m-%d %H:%M} [{item['during']}] {item['text']}"
        else:
            met = (
                f"{item['final']} after {item['seconds']:g} s and {item['messages']}"
                if item["seconds"] is not None
                else item["final"]
            )
            yield f"  {item['kind']} {item['tenant']} ({item['sort']}, {item['size']:,.0f} a day): {met}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def main() -> int:
    """Simulate, judge, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--seeds", type=simulate.seeds, default=list(simulate.SCORING), help="within 0-19 (tuning) or 20-39 (scoring)"
    )
    parser.add_argument("--tenants", type=int, default=35, help="of each seed")
    parser.add_argument("--days", type=simulate.days, default=90)
    parser.add_argument("--detail", type=float, default=0.01, help="share of ordinary hours by the minute")
    parser.add_argument("--exact", action="store_true", help="know new recipients without the limits of the real table")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write everything there too")
    options = parser.parse_args()
    jobs = [
        (seed, number, options.days, options.detail, options.exact)
        for seed in options.seeds
        for number in range(options.tenants)
    ]
    begun = time.perf_counter()
    result = summary(run(jobs, options.processes))
    purpose = "tuning" if options.seeds[0] in simulate.TUNING else "scoring"
    seeds = f"{options.seeds[0]}-{options.seeds[-1]}"
    print(
        f"SIMULATION, seeds {seeds} ({purpose}): {options.tenants} tenants each, {options.days} days, "
        f"{time.perf_counter() - begun:.0f} s\n"
    )
    for line in table(result):
        print(line)
    failed = failures(result)
    print("\n" + ("\n".join(f"BELOW TARGET: {line}" for line in failed) or "all targets reached"))
    if options.json:
        setting = {"seeds": options.seeds, "purpose": purpose, "tenants": options.tenants, "days": options.days,
                   "detail": options.detail, "exact": options.exact}  # fmt: skip
        options.json.write_text(json.dumps({"simulation": setting, "below_target": failed, **result}, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
