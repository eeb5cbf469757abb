"""channel - what every way of telling has in common, and how fast it is tried again.

A channel tells some notices at once, in its own thread, and may take its time.  It returns when they are told and raises
NotToldError when they are not; who calls it tries again.  So a notice may be told twice, under the same id.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from relaywarden_monitor.notify.notice import Notice, NoticeError

_LONGEST_WISH = 3600.0  # seconds; a receiver that asks for a day is asked before


class NotToldError(NoticeError):
    """Notices were not told; the text is for the operator and holds no secret."""

    def __init__(self, text: str, *, after: float = 0.0, lasting: bool = False, unfit: bool = False) -> None:
        """`after`: seconds for which the receiver wants to be left alone.  `lasting`: somebody must change a setting, here
        or there, before it can work.  `unfit`: it may be due to one of these notices, or to how many they are."""
        super().__init__(text)
        self.after, self.lasting, self.unfit = after, lasting, unfit


class Channel(Protocol):
    """One way of telling; used by one thread at a time."""

    name: str  # stable over restarts: the store's keys begin with it, and metrics carry it

    def tell(self, notices: Sequence[Notice]) -> None:
        """Tell these; raises NotToldError."""
        ...

    def close(self) -> None:
        """Give connections back."""
        ...


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait after failures in a row, in seconds; the spread keeps several hosts from calling in step."""

    shortest: float = 1.0
    longest: float = 900.0
    spread: float = 0.2

    def delay(self, failures: int, error: NotToldError) -> float:
        """After the `failures`th failure (from 1): doubling; at once the longest for what only people can mend."""
        steady = self.longest if error.lasting else min(self.longest, self.shortest * 2.0 ** min(failures - 1, 32))
        jittered = steady * random.uniform(1 - self.spread, 1 + self.spread)  # noqa: S311  # not a secret
        return max(min(max(jittered, self.shortest), self.longest), min(error.after, _LONGEST_WISH))


def batch_id(notices: Sequence[Notice]) -> str:
    """The same for the same notices in the same order."""
    return hashlib.sha256(",".join(notice.id for notice in notices).encode()).hexdigest()[:16]
