"""standing - where a tenant stands and by what, as lines for people: suspension, limits, grants, scores, findings, steering.

The lines are made of the document of `show --json` (accounts.py).  Each thing that was done to a tenant says how to undo it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from relaywarden.cli.output import duration, iso_time, plain

_ABOUT = {
    "bounces": "recipients do not exist",
    "complaints": "delivered messages were complained about",
    "blocks": "attempts failed by content, domain or its authentication",
}
_STEPS = {"watched": "watched, nothing is done", "slowed": "slowed: every limit times {factor:g}"}
_DONE = {
    "divert": "diverted to the pool called quarantine",
    "hold": "held in Postfix' hold queue",
    "suspended": "suspended in the milter",
}


def tenant_lines(item: dict[str, Any]) -> Iterator[str]:
    """Where a tenant stands, and by what."""
    yield plain(f"tenant {item['tenant']}, plan {item['plan']}, mode {item['mode']}, standing {item['standing']}")
    for part in (_steering, _limits, _grants, _scores, _by_hand, _findings):
        for line in part(item):
            yield f"  {plain(line)}"


def finding(signal: Mapping[str, Any]) -> str:
    """One signal with its evidence."""
    facts = signal["evidence"]
    about = _ABOUT.get(signal["signal"], signal["signal"])
    share = f"{facts['part']} of {facts['whole']} {about} ({facts['share']:.2%}, surely {facts['lower']:.2%})"
    bounds = f"warn from {facts['warn']:.2%}, act from {facts['act']:.2%}"
    return f"{signal['level']}: {signal['signal']} of the last {duration(facts['window'] * 3600)}: {share}; {bounds}"


def _steering(item: dict[str, Any]) -> Iterator[str]:
    undo = f"; `relaywarden resume {item['tenant']}` ends it"  # before the reason, which may be long
    suspended = item["standing"] == "suspended"  # by policyd too: the same is said to the milters
    if suspended:
        yield f"suspended{_word(item['state']['suspended'], undo)}"
    stands = item["state"].get("standing") or {}
    if stands.get("step") == item["standing"] and item["standing"] in _STEPS:
        factor = item["state"].get("slow", {}).get("factor", 1)
        yield f"{_STEPS[item['standing']].format(factor=factor)}{_word(stands, undo)}"
    said = item["steering"]
    for name, text in _DONE.items():
        entry = said.get(name)
        if entry and not (suspended and name == "suspended"):
            own = entry if isinstance(entry, Mapping) else {"reason": entry}
            yield f"{text}{_word({'by': said.get('by'), 'until_ms': said.get('until_ms'), **own}, undo)}"


def _word(entry: Mapping[str, Any], undo: str) -> str:
    """Until when, by whom, what ends it, and why."""
    until = f" until {iso_time(entry['until_ms'])}" if entry.get("until_ms") else ""
    return f"{until} by {entry.get('by') or 'unknown'}{undo}: {entry.get('reason') or 'no reason given'}"


def _limits(item: dict[str, Any]) -> Iterator[str]:
    full = [row for row in item["used"] if row["used"] >= row["limit"]]
    for row in full:
        state = f"{row['used']} of {row['limit']}, all free in {duration(row['reset_after'])}"
        yield f"{row['meter']}/{row['window']} is used up: {state}"
    if not full:
        yield "every limit has room"
    last = item["last_refusal"]
    if last:
        wait = "never" if last["retry_after"] is None else f"after {duration(last['retry_after'])}"
        used = f"{last['used']} of {last['allowed']} used"
        yield f"last refused at {last['at']} by {last['limit']}: {used}; room {wait}"


def _grants(item: dict[str, Any]) -> Iterator[str]:
    for grant in item["grants"]:
        used = f"{grant['used']} of {grant['amount']} {grant['meter']} used"
        because = f": {grant['reason']}" if grant["reason"] else ""
        yield f"grant {grant['id']}: {used}, until {grant['until']}{because}"


def _scores(item: dict[str, Any]) -> Iterator[str]:
    scores = item["scores"]
    if not scores:
        return
    spread = ", ".join(f"{count} at {edges}" for edges, count in scores["buckets"].items() if count)
    yield f"rspamd today: {scores['messages']} messages, mean score {scores['mean']:.1f}; {spread}"
    if scores["symbols"]:
        yield "most often: " + ", ".join(f"{name} {count}" for name, count in list(scores["symbols"].items())[:5])


def _by_hand(item: dict[str, Any]) -> Iterator[str]:
    for key, amount in item["state"].get("limits", {}).items():
        yield f"{key} is set to {amount} by hand"
    if "mode" in item["state"]:
        yield f"mode is set to {item['state']['mode']} by hand"


def _findings(item: dict[str, Any]) -> Iterator[str]:
    for signal in item["signals"]:
        yield finding(signal)
