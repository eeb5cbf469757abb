"""evidence - what a signal found: how much it weighs, the numbers, and a sentence for people.  Plain values.

Kinds are what an honest reason explains together: a launch day explains volume and new recipients at once, a broadcast of
statements volume and fan-out.  So only the heaviest evidence of a kind counts, and a step needs kinds, not signals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

_LONGEST = 120  # characters of a text


class Kind(Enum):
    """What evidence is about."""

    VOLUME = "volume"  # how much, how fast
    REACH = "reach"  # to whom
    PLACES = "places"  # in which domains these are
    FANOUT = "fanout"  # one message to many
    CONTENT = "content"  # what it says
    IDENTITY = "identity"  # from where, as whom
    HARM = "harm"  # what came of it


@dataclass(frozen=True, slots=True)
class Evidence:
    """One reason for suspicion."""

    name: str  # of the signal: volume, drip, new-recipients, ...
    kind: Kind
    weight: float  # powers of ten, capped
    text: str  # one line of plain ASCII
    numbers: Mapping[str, float] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        numbers = {name: round(value, 4) for name, value in self.numbers.items()}
        return {"name": self.name, "kind": self.kind.value, "weight": round(self.weight, 2), "text": self.text, **numbers}


def weights(evidence: Iterable[Evidence]) -> dict[Kind, float]:
    """Of each kind the heaviest; kinds without evidence weigh 0."""
    found = dict.fromkeys(Kind, 0.0)
    for item in evidence:
        found[item.kind] = max(found[item.kind], item.weight)
    return found


def plain(text: str, longest: int = _LONGEST) -> str:
    """One line of printable ASCII; names come from clients."""
    line = "".join(char if " " <= char <= "~" else "?" for char in text[: longest + 1])
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def span(seconds: float) -> str:
    """`1 minute`, `15 minutes`, `1 hour`, `24 hours`."""
    amount, unit = (seconds / 60, "minute") if seconds < 3600 else (seconds / 3600, "hour")
    return f"{amount:.0f} {unit}{'' if round(amount) == 1 else 's'}"
