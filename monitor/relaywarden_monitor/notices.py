"""notices - where notices wait in the ledger (books "!monitor", topic "outbox"), for those who send them (`notify.store`)."""

from __future__ import annotations

from relaywarden.ledger.operations import Ledger
from relaywarden.ledger.records import Note, Noted, Notes
from relaywarden_monitor.steps import BOOK

TOPIC = "outbox"


class LedgerStore:
    """A `notify.store.Store` in the ledger; safe to use from several threads."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def put(self, key: str, document: str) -> None:
        """Keep the document; raises StoreUnavailableError."""
        self._ledger.apply([Note(BOOK, TOPIC, {key: document})])

    def remove(self, key: str) -> None:
        """Forget the document; raises StoreUnavailableError."""
        self._ledger.apply([Note(BOOK, TOPIC, {key: None})])

    def all(self) -> list[tuple[str, str]]:
        """Every key with its document; raises StoreUnavailableError."""
        (found,) = self._ledger.apply([Notes(BOOK, TOPIC)])
        # The ledger keeps no order; a document begins with the time since when it waits, written alike everywhere.
        return sorted(found.fields.items(), key=lambda item: item[1]) if isinstance(found, Noted) else []
