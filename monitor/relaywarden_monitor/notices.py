"""notices - where notices wait in the ledger for those who send them (`notify.store`), and who of several hosts tells what.

The outbox is books "!monitor", topic "outbox"; its keys are HOST/CHANNEL/ID, and each host sees its own only: else each would
send, and give up, what another one is about to send.  What waits of a host that is gone stays there.

Several hosts that judge one tenant cross the same threshold.  Who crosses first claims the key and the level for an hour, and
tells; the others stay silent.  The claim is not longer, as the host that told may be gone when it comes again.

How it fails: StoreUnavailableError goes to the caller.
"""

from __future__ import annotations

from collections.abc import Sequence

from relaywarden.ledger.operations import Ledger
from relaywarden.ledger.records import HOUR_MS, Claim, Claimed, Note, Noted, Notes
from relaywarden_monitor.notify.notice import Notice
from relaywarden_monitor.steps import BOOK

TOPIC = "outbox"
_CLAIM = "told:"


class LedgerStore:
    """A `notify.store.Store` in the ledger; safe to use from several threads."""

    def __init__(self, ledger: Ledger, host: str) -> None:
        self._ledger, self._prefix = ledger, f"{host}/"

    def put(self, key: str, document: str) -> None:
        """Keep the document; raises StoreUnavailableError."""
        self._ledger.apply([Note(BOOK, TOPIC, {self._prefix + key: document})])

    def remove(self, key: str) -> None:
        """Forget the document; raises StoreUnavailableError."""
        self._ledger.apply([Note(BOOK, TOPIC, {self._prefix + key: None})])

    def all(self) -> list[tuple[str, str]]:
        """Every key with its document; raises StoreUnavailableError."""
        (found,) = self._ledger.apply([Notes(BOOK, TOPIC)])
        fields = found.fields if isinstance(found, Noted) else {}
        ours = [(key[len(self._prefix) :], text) for key, text in fields.items() if key.startswith(self._prefix)]
        # The ledger keeps no order; a document begins with the time since when it waits, written alike everywhere.
        return sorted(ours, key=lambda item: item[1])


def claim(ledger: Ledger, host: str, notices: Sequence[Notice]) -> list[bool]:
    """For each crossing whether this host is the one to tell it; raises StoreUnavailableError."""
    names = tuple(f"{_CLAIM}{notice.key}:{notice.severity.value}" for notice in notices)
    if not names:
        return []
    (claimed,) = ledger.apply([Claim(BOOK, names, host, HOUR_MS)])
    return list(claimed.fresh) if isinstance(claimed, Claimed) else [True] * len(names)
