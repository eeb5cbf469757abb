"""store - where notices wait for their channel over a restart: what the notices ask of the ledger.

A key is CHANNEL/ID, a document JSON text: {"since": seconds since 1970, "notice": {...}} (`notice`).
"""

from __future__ import annotations

import threading
from typing import Protocol


class Store(Protocol):
    """Documents by key.  Called by the threads of all channels, possibly at once; it may block, no caller of ours waits.

    What it cannot do now it says by StoreUnavailableError (or another RelaywardenError, or OSError): it is asked again.
    """

    def put(self, key: str, document: str) -> None:
        """Keep the document; the same key again replaces it."""
        ...

    def remove(self, key: str) -> None:
        """Forget the document; a key that is not there is no error."""
        ...

    def all(self) -> list[tuple[str, str]]:
        """Every key with its document, the oldest first."""
        ...


class MemoryStore:
    """Survives a reload, not a restart."""

    def __init__(self) -> None:
        self._documents: dict[str, str] = {}
        self._lock = threading.Lock()

    def put(self, key: str, document: str) -> None:
        """Keep the document."""
        with self._lock:
            self._documents[key] = document

    def remove(self, key: str) -> None:
        """Forget the document."""
        with self._lock:
            self._documents.pop(key, None)

    def all(self) -> list[tuple[str, str]]:
        """Every key with its document, the oldest first."""
        with self._lock:
            return list(self._documents.items())
