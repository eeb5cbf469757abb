"""health - signs of life and requests for replacement, in memory that a master shares with its workers.

The master makes a `Page` before it forks.  A page has places; a worker owns one place from fork to death, alone:

    double   CLOCK_MONOTONIC of the last beat, in seconds; 0: none yet (that clock is the same for all processes)
    double   0, or the `Reason` for which the worker asks to be replaced

Each value has one writer and is aligned to its 8 octets, so it is read whole without a lock.

How it fails: a process that is no worker has no place; its beats and requests go nowhere.  A worker that dies leaves its
values behind until the master clears the place for the next one.
"""

from __future__ import annotations

import mmap
import os
import time
from enum import IntEnum
from pathlib import Path

_PAGE_OCTETS = os.sysconf("SC_PAGE_SIZE")


class Reason(IntEnum):
    """Why a worker asks to be replaced."""

    NONE = 0
    GROWN = 1
    STUCK = 2

    @property
    def setting(self) -> str:
        """The setting, in the program's section, whose bound was passed."""
        return {Reason.GROWN: "worker_memory", Reason.STUCK: "hang_timeout"}.get(self, "")


class Page:
    """Places for the values of some workers; made by the master before it forks."""

    def __init__(self, places: int) -> None:
        self._values = memoryview(mmap.mmap(-1, 16 * places)).cast("d")

    def clear(self, place: int) -> None:
        """Master: the place is for a new worker now."""
        self._values[2 * place] = self._values[2 * place + 1] = 0.0

    def adopt(self, place: int) -> None:
        """Worker, after fork: `beat` and `ask` of this process write here from now on."""
        global _place  # noqa: PLW0603  # one worker a process: that is what a module's variable is
        _place = self._values[2 * place : 2 * place + 2]

    def beaten(self, place: int) -> float:
        """When the worker beat last (time.monotonic, seconds); 0: not yet."""
        return float(self._values[2 * place])

    def asked(self, place: int) -> Reason:
        """For which reason the worker asks to be replaced."""
        return Reason(int(self._values[2 * place + 1]))


_place: memoryview[float] | None = None


def beat() -> None:
    """Say that this worker's main loop is alive; about once a second.  The first beat says that the worker serves."""
    if _place is not None:
        _place[0] = time.monotonic()


def ask(reason: Reason) -> None:
    """Ask the master for another worker in this one's place.  The answer, once that one serves, is SIGTERM."""
    if _place is not None:
        _place[1] = float(reason)


def resident() -> int:
    """Octets of physical memory that this process holds; 0 where /proc does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_OCTETS
    except (OSError, ValueError, IndexError):
        return 0  # without /proc nobody can be judged by it
