"""usual - the shares that are usual for a tenant: new recipients, new templates, invalid ones, and so on.

Each is a running ratio of sums over the hours in which the tenant sent.  An hour counts as a few usual hours at most, so that
one large hour does not decide.  A weak prior stands in until there is data.

State: a list of numbers, two for each share.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from relaywarden_monitor.patterns import windows as w

# Name: (field of the part, fields of the whole, prior share).
SHARES: dict[str, tuple[int, tuple[int, ...], float]] = {
    "new": (w.NEW, (w.RECIPIENTS,), 0.3),
    "unfamiliar": (w.UNFAMILIAR, (w.GROUPED,), 0.1),
    "invalid": (w.INVALID, (w.DELIVERED, w.INVALID), 0.01),
    "suppressed": (w.SUPPRESSED, (w.RECIPIENTS, w.SUPPRESSED), 0.002),
    "blocked": (w.BLOCKED, (w.DELIVERED, w.INVALID, w.BLOCKED), 0.005),
    "complained": (w.COMPLAINED, (w.DELIVERED,), 0.0005),
    "strange": (w.STRANGE, (w.PLACED,), 0.1),
    "bulk": (w.BULK, (w.MESSAGES,), 0.2),
    "score": (w.SCORE, (w.SCORED,), 0.0),
    "each": (w.RECIPIENTS, (w.MESSAGES,), 1.0),  # recipients a message: no share, but learned alike
}
_PLACES = {name: 2 * index for index, name in enumerate(SHARES)}
_PRIOR = 20.0  # the prior counts like so many recipients
_FADE = 0.997  # of an hour: half of it is forgotten after about 230 hours with mail
_MOST_HOURS = 4.0  # an hour counts as so many usual ones at most
_SUM = 1 / (1 - _FADE)  # hours that a sum is worth in the long run


class Usual:
    """The shares of one tenant."""

    __slots__ = ("_hours", "_sums")

    def __init__(self) -> None:
        self._sums = array("d", [value for _, _, prior in SHARES.values() for value in (prior * _PRIOR, _PRIOR)])
        self._hours = 0.0  # that the sums are worth

    def share(self, name: str) -> float:
        """The usual share (or mean) of this name in SHARES."""
        place = _PLACES[name]
        return self._sums[place] / self._sums[place + 1]

    def shares(self) -> dict[str, float]:
        """All of them."""
        return {name: self.share(name) for name in SHARES}

    def learn(self, amounts: Sequence[float]) -> None:
        """An hour has ended; `amounts` by the fields of `windows`."""
        sums = self._sums
        self._hours = self._hours * _FADE + 1
        for name, (part, whole, _) in SHARES.items():
            most = sum(amounts[field] for field in whole)
            if most <= 0:
                continue
            place = _PLACES[name]
            usual = sums[place + 1] / min(max(self._hours, 1.0), _SUM)
            weight = min(1.0, max(_MOST_HOURS * usual, _PRIOR) / most)
            sums[place] = sums[place] * _FADE + amounts[part] * weight
            sums[place + 1] = sums[place + 1] * _FADE + most * weight

    def state(self) -> list[float]:
        """As JSON values."""
        return [self._hours, *self._sums]

    def restore(self, state: Sequence[float]) -> None:
        """From `state()`; raises ValueError."""
        if len(state) != 1 + len(self._sums) or not all(value > 0 for value in state[2::2]):
            raise ValueError(f"expected {1 + len(self._sums)} sums, those of wholes above 0")
        self._hours, self._sums = float(state[0]), array("d", state[1:])
