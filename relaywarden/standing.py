"""standing - where a tenant stands on the ladder, and the words by which all programs hear of it.

    normal      nothing is done
    watched     people look, nothing is done
    slowed      every limit times a factor (policyd, by the ledger)
    diverted    its mail goes by the pool called quarantine (milter)
    held        its mail is put into Postfix' hold queue (milter); `release` lets it go
    suspended   everything it sends is refused (policyd, and milter)

What is said goes two ways: into the tenant's dynamic state (keys `standing`, `slow` and `suspended`), which the ledger reads
with each request and the command line shows; and into `steering`, which the milter hears within a second.  Both are written in
one batch.  A word ends by itself at `until_ms`; without that it holds until somebody takes it back.

Whose word it is: `by` is "monitor", or the operator's name.  A human's word is never overwritten by the monitor: it writes by
`say(..., by=MONITOR)`, and then the store itself leaves alone what somebody else said and still holds.

Known limit: where a human takes a step back in the instant in which the monitor raises it, he has to say so again.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from relaywarden import steering
from relaywarden.ledger.accounting import suspended
from relaywarden.ledger.operations import Operation, Steer

MONITOR = "monitor"
SLOWED = 0.25  # of every limit, unless somebody says otherwise


class Step(Enum):
    """A step of the ladder."""

    NORMAL = "normal"
    WATCHED = "watched"
    SLOWED = "slowed"
    DIVERTED = "diverted"
    HELD = "held"
    SUSPENDED = "suspended"

    @property
    def height(self) -> int:
        """For comparing: 0 is normal."""
        return _HEIGHT[self]


_HEIGHT = {step: height for height, step in enumerate(Step)}


class Word(NamedTuple):
    """Somebody puts a tenant on a step."""

    step: Step
    reason: str
    by: str
    since_ms: int
    until_ms: int | None = None
    factor: float = SLOWED
    times: int = 1  # the how many-th in a row

    def holds(self, now_ms: int) -> bool:
        """Whether it is in force."""
        return self.until_ms is None or now_ms < self.until_ms


def say(tenant: str, word: Word | None, *, by: str = "") -> list[Operation]:
    """The operations that put a tenant on a step, whatever it stood on; None or NORMAL: that it stands on none.

    With `by` what others said and still holds is left as it is (`ledger.merging`), in the state and in steering each by itself:
    where Done tells of a human's word (`persons`), take back what went into steering beside it.
    """
    if word is None or word.step is Step.NORMAL:
        nothing = {"standing": None, "slow": None, "suspended": None}
        return [Steer(tenant, nothing, by), steering.say("tenants", {tenant: None}, by)]
    common: dict[str, Any] = {"reason": word.reason, "by": word.by}
    if word.until_ms is not None:
        common["until_ms"] = word.until_ms
    slow = {**common, "factor": word.factor} if word.step is Step.SLOWED else None
    stop = common if word.step is Step.SUSPENDED else None
    stands = {**common, "step": word.step.value, "since_ms": word.since_ms, "times": word.times}
    return [
        Steer(tenant, {"standing": stands, "slow": slow, "suspended": stop}, by),
        steering.say("tenants", {tenant: _for_milter(word, common)}, by),
    ]


def heard(state: Mapping[str, Any], now_ms: int) -> Word | None:
    """The word in force in a tenant's dynamic state."""
    entry = state.get("standing")
    stop = state.get("suspended")
    if suspended(state, now_ms) is not None and isinstance(stop, Mapping):
        return _word(Step.SUSPENDED, stop)
    if not isinstance(entry, Mapping):
        return None
    try:
        word = _word(Step(entry.get("step")), entry)
    except ValueError:
        return None  # of a newer version: nothing of it is in force here
    return word if word.holds(now_ms) and word.step is not Step.SUSPENDED else None


def persons(state: Mapping[str, Any], now_ms: int) -> bool:
    """Whether anything in a tenant's dynamic state is a human's word in force, beside whatever else is there."""
    entries = [entry for name in ("standing", "slow", "suspended") if isinstance(entry := state.get(name), Mapping)]
    return any(entry.get("by") != MONITOR and _word(Step.NORMAL, entry).holds(now_ms) for entry in entries)


def document(word: Word) -> dict[str, Any]:
    """As JSON values; `read` takes it again."""
    return {**word._asdict(), "step": word.step.value}


def read(document: Mapping[str, Any]) -> Word:
    """From JSON values; raises ValueError."""
    try:
        return _word(Step(document["step"]), document)._replace(factor=float(document["factor"]))
    except (TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"expected a word, got {type(error).__name__}: {error}") from error


def _word(step: Step, entry: Mapping[str, Any]) -> Word:
    until = entry.get("until_ms")
    return Word(
        step, str(entry.get("reason") or ""), str(entry.get("by") or "operator"), int(entry.get("since_ms") or 0),
        int(until) if until else None, times=int(entry.get("times") or 1),
    )  # fmt: skip


def _for_milter(word: Word, common: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the milter has to know of it; None: nothing."""
    rest = {name: value for name, value in common.items() if name != "reason"}
    rest |= {"since_ms": word.since_ms, "times": word.times}
    if word.step is Step.DIVERTED:
        return {"divert": word.reason or word.step.value, **rest}
    if word.step is Step.HELD:
        return {"hold": word.reason or word.step.value, **rest}
    return {"suspended": dict(common), **rest} if word.step is Step.SUSPENDED else None
