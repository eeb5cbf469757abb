"""source - what the monitor asks of every place that outcomes come from.

A source is read in chunks.  A chunk's records and the position after it are carried to the ledger in one step; after a crash
the source is opened at the last position that the ledger has, and reads the same chunk again in the same cut, because the
ledger knows how far it was meant to go (`until`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from relaywarden.errors import RelaywardenError
from relaywarden_monitor.events import Event

Position = dict[str, Any]  # JSON; a source's own business


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some records in order, as events; `position` is where the next chunk begins, `records` how many lines or rows it was."""

    events: Sequence[Event]
    position: Position
    records: int = 0


class NotNowError(RelaywardenError):
    """What is to be read again cannot be read now, but may be later: nothing was moved on."""


class Source(Protocol):
    """One place that outcomes come from; used by one thread."""

    name: str  # under which the ledger keeps its position: stable over restarts and reconfiguration

    def open(self, position: Position | None) -> None:
        """Begin at this position (None: never read before); raises nothing: what is not there yet comes later."""
        ...

    def read(self, most: int, until: Position | None = None) -> Chunk | None:
        """Up to `most` records; None where nothing is new.  `until`: exactly to this position, as it was cut before.

        Raises NotNowError, with `until` alone.
        """
        ...

    def lag(self) -> int:
        """Bytes that wait to be read, for the metric; 0 where it is not known."""
        ...

    def close(self) -> None:
        """Give files and processes back."""
        ...
