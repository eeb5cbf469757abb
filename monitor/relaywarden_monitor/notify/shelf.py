"""shelf - one channel's part of the store, and what the store does not know yet.

`keep` and `forget` only note; `save` carries the notes to the store, in order.

How it fails: with the store down the notes stay, it is asked again after RETRY_SECONDS; going down and coming back are each
logged once.  Of too many notes the oldest goes: better told twice, or lost by a restart, than out of memory.
"""

from __future__ import annotations

import logging
import threading
import time

from relaywarden.errors import RelaywardenError
from relaywarden.logs import event
from relaywarden_monitor.notify.notice import NoticeError
from relaywarden_monitor.notify.outbox import Waiting
from relaywarden_monitor.notify.store import Store

log = logging.getLogger(__name__)
RETRY_SECONDS = 5.0


class Shelf:
    """`keep` and `forget` from any thread and at once; `save` from one thread, it waits for the store."""

    def __init__(self, name: str, store: Store, capacity: int) -> None:
        self._name, self._store, self._capacity = name, store, capacity
        self._lock = threading.Lock()
        self._notes: dict[str, Waiting | None] = {}  # by id; None: to be removed
        self._loaded = False
        self._retry_at = 0.0
        self.down = False

    @property
    def behind(self) -> bool:
        """Is there something to save, and a store that takes it?"""
        return bool(self._notes) and not self.down

    def keep(self, waiting: Waiting) -> None:
        """To be stored."""
        self._note(waiting.notice.id, waiting)

    def forget(self, notice_id: str) -> None:
        """To be removed."""
        self._note(notice_id, None)

    def save(self, *, now: bool = False) -> list[Waiting]:
        """Let the store know; `now`: though it is down.  The first time it works: what an earlier process left there."""
        if self.down and not now and time.monotonic() < self._retry_at:
            return []
        left: list[Waiting] = []
        try:
            if not self._loaded:
                left = self._load(self._store.all())
                self._loaded = True
            while (note := self._next()) is not None:
                self._carry(*note)
        except (RelaywardenError, OSError) as error:
            self._retry_at = time.monotonic() + RETRY_SECONDS
            if not self.down:
                event(log, logging.WARNING, "notices are not stored, a restart now would lose them", channel=self._name,
                      error=error)  # fmt: skip
            self.down = True
        else:
            if self.down:
                event(log, logging.INFO, "notices are stored again", channel=self._name)
            self.down = False
        return left

    def _note(self, notice_id: str, waiting: Waiting | None) -> None:
        with self._lock:
            self._notes[notice_id] = waiting
            if len(self._notes) > 2 * self._capacity:
                del self._notes[next(iter(self._notes))]

    def _next(self) -> tuple[str, Waiting | None] | None:
        with self._lock:
            return next(iter(self._notes.items()), None)

    def _carry(self, notice_id: str, waiting: Waiting | None) -> None:
        key = f"{self._name}/{notice_id}"
        if waiting is None:
            self._store.remove(key)
        else:
            self._store.put(key, waiting.to_text())
        with self._lock:
            if self._notes.get(notice_id, notice_id) is waiting:  # else it changed meanwhile
                del self._notes[notice_id]

    def _load(self, documents: list[tuple[str, str]]) -> list[Waiting]:
        found = []
        for key, text in documents:
            name, _, notice_id = key.partition("/")
            if name != self._name:
                continue
            try:
                waiting = Waiting.from_text(text, time.monotonic())
            except NoticeError as error:
                event(log, logging.ERROR, "a stored notice is damaged and removed", key=key, error=error)
                self.forget(notice_id)
                continue
            if waiting.notice.id == notice_id:
                found.append(waiting)
            else:
                event(log, logging.ERROR, "a stored notice has another's key and is removed", key=key, id=waiting.notice.id)
                self.forget(notice_id)
        return found
