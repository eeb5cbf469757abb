"""outbox - the notices that wait for one channel, in order.  Pure: no I/O, no lock; times are arguments.

The same id waits once.  When there are too many, the least severe go, of these the oldest.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from relaywarden_monitor.notify.notice import Notice, NoticeError, Severity

CAPACITY = 10_000
_LEAST_FIRST = (Severity.INFO, Severity.WARN, Severity.ACT)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A notice in the queue."""

    notice: Notice
    since: float  # seconds since 1970: what the time to keep it counts from
    entered: float  # time.monotonic(): what the time to gather a batch counts from

    def to_text(self) -> str:
        """What the store keeps."""
        return json.dumps({"since": self.since, "notice": self.notice.to_json()}, allow_nan=False)

    @classmethod
    def from_text(cls, text: str, entered: float) -> Waiting:
        """What the store kept; raises NoticeError."""
        try:
            document = json.loads(text)
            return cls(Notice.from_json(document["notice"]), float(document["since"]), entered)
        except (TypeError, KeyError, ValueError, RecursionError, OverflowError) as error:
            raise NoticeError(f"expected a notice that waits: {type(error).__name__}: {error}") from error


class Outbox:
    """A bounded queue of notices."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._queue: OrderedDict[str, Waiting] = OrderedDict()
        self._ids: dict[Severity, OrderedDict[str, None]] = {severity: OrderedDict() for severity in _LEAST_FIRST}

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, waiting: Waiting) -> list[Waiting] | None:
        """Queue it; what had to go for it (itself, if nothing is less severe).  None: its id waits already."""
        notice = waiting.notice
        if notice.id in self._queue:
            return None
        self._queue[notice.id] = waiting
        self._ids[notice.severity][notice.id] = None
        return [self._least() for _ in range(len(self._queue) - self._capacity)]

    def first(self, most: int) -> list[Waiting]:
        """The next to be told; they stay."""
        return list(islice(self._queue.values(), most))

    def remove(self, batch: Iterable[Waiting]) -> list[Waiting]:
        """Take these out; those of them that were still there."""
        return [waiting for waiting in batch if self._take(waiting.notice.id)]

    def put_behind(self, batch: Iterable[Waiting]) -> None:
        """Let all others go first."""
        for waiting in batch:
            if waiting.notice.id in self._queue:
                self._queue.move_to_end(waiting.notice.id)

    def expire(self, before: float) -> list[Waiting]:
        """Take out what has waited since before then (seconds since 1970)."""
        return self.remove([waiting for waiting in self._queue.values() if waiting.since < before])

    def _least(self) -> Waiting:
        ids = next(ids for severity in _LEAST_FIRST if (ids := self._ids[severity]))
        waiting = self._queue[next(iter(ids))]
        self._take(waiting.notice.id)
        return waiting

    def _take(self, key: str) -> bool:
        waiting = self._queue.pop(key, None)
        if waiting is None:
            return False
        del self._ids[waiting.notice.severity][key]
        return True
