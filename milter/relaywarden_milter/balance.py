"""balance - sessions spread evenly over the workers.

All workers accept on one socket, and whoever wakes first takes the connection: often one worker gets nearly all of them, and
works alone while its siblings idle.  So the workers write their numbers of sessions on a board (shared memory), and one that
is ahead of the least busy lets the others go first for a moment (`libmilter.Loop.hold_back`).

How it fails: towards accepting.  A worker holds back for HOLD_SECONDS at most, whatever the board says, so a sibling that hangs
or died with a small number on the board delays a connection by that much and no more.
"""

from __future__ import annotations

import mmap
import threading
import time
from typing import Protocol

HOLD_SECONDS = 0.02
_STEP = 0.001
_AHEAD = 1  # sessions more than the least busy worker has


class Board:
    """The numbers of sessions of all workers; made by the master before it forks."""

    def __init__(self, workers: int) -> None:
        self.sessions = memoryview(mmap.mmap(-1, 8 * workers)).cast("q")

    def is_ahead(self, index: int) -> bool:
        """Has this worker more than its share?"""
        return self.sessions[index] > min(self.sessions) + _AHEAD


class Door(Protocol):
    """What lets connections in."""

    def hold_back(self) -> None:
        """Accept nothing for now."""
        ...

    def listen_again(self) -> None:
        """Accept again."""
        ...


class Balance:
    """One worker's part; its thread works only while the worker is ahead."""

    def __init__(self, board: Board, index: int, door: Door) -> None:
        self._board, self._index, self._door = board, index, door
        self._ahead = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="balance", daemon=True)

    def start(self) -> None:
        """Begin at zero; after fork, with signals blocked."""
        self._board.sessions[self._index] = 0
        self._thread.start()

    def close(self) -> None:
        """This worker drains: its place on the board is another's now."""
        self._over = True

    def has(self, sessions: int) -> None:
        """The worker has so many sessions now."""
        if self._over:
            return
        self._board.sessions[self._index] = sessions
        if self._board.is_ahead(self._index):
            self._ahead.set()

    def _run(self) -> None:
        while True:
            self._ahead.wait()
            self._ahead.clear()
            if self._over:
                return
            until = time.monotonic() + HOLD_SECONDS
            self._door.hold_back()
            while self._board.is_ahead(self._index) and time.monotonic() < until:
                time.sleep(_STEP)
            self._door.listen_again()
